"""Running measures: one that fails leaves the others theirs, and a budget is shared among those to come."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from anacrusis.assess import Subject, assess, measure
from anacrusis.assess.assessing import answers_left
from anacrusis.assess.measure import Finding, Measure
from anacrusis.errors import ConfigError, ServiceError
from anacrusis.model.endpoint import Endpoint
from anacrusis.prompt.values import Frame, Text
from anacrusis.search.budget import Budget, Cost, Price, parse
from anacrusis.search.kept import Kept
from anacrusis.search.store import Store
from anacrusis.task import Task

from .loopback import Loopback


@pytest.fixture
def task() -> Task:
    found = Task.from_lists([f"text {i}" for i in range(40)], [("a", "b")[i % 2] for i in range(40)], name="t")
    return found


@pytest.fixture
def three(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two measures that ask, with one that fails between them."""

    def asks(subject: Subject) -> Finding:
        n = min(subject.cells, len(subject.examples))
        return Finding(headline=f"{subject.values(examples=subject.examples[:n]).mean():.2f} of {n}")

    def fails(subject: Subject) -> Finding:
        raise ServiceError("the server had an error")

    made = {n: Measure(name=n, summary=n, run=f) for n, f in (("one", asks), ("two", fails), ("three", asks))}
    monkeypatch.setattr(measure, "MEASURES", made)
    monkeypatch.setattr(measure, "FILES", ())


def prompt() -> Text:
    frame = Frame(labels=("a", "b"), words=("a", "b"), readout="answer", template="{text}\nAnswer:")
    return Text(frame=frame)


@pytest.mark.usefixtures("three")
def test_a_failure_leaves_the_others_theirs_and_a_budget_is_shared(task: Task, tmp_path: Path) -> None:
    def subject(model: Any, store: Store, calls: int) -> Subject:
        return Subject(prompt(), model, task, cells=100, desk=Kept(model, store, parse(f"{calls}calls")).desk)

    with Loopback(lambda body, index: "a") as server, Store(f"sqlite:///{tmp_path / 's.sqlite'}", "r") as store:
        with Endpoint("openai:thing", base_url=server.url) as model:
            found = assess(subject(model, store, 6))
            assert [f.name for f in found] == ["one", "two", "three"]
            assert found[0].finding is not None and found[0].finding.headline.endswith("of 2")
            assert found[1].finding is None and "server had an error" in found[1].skipped
            assert found[2].finding is not None and server.charged <= 6
            paid = server.charged
            again = assess(subject(model, store, 6))  # what was paid before costs nothing of the budget
            assert again[0].finding == found[0].finding and server.charged <= paid + 6
            assert len(assess(subject(model, store, 6), ["one", "one"])) == 1
            with pytest.raises(ConfigError, match="Kept"):
                Subject(prompt(), model, task)


def test_what_a_budget_still_allows() -> None:
    budget = Budget(parse("10calls,$1"), {"task": Price(1, 1)}, ("task",))
    assert answers_left(budget) == 10
    budget.settle(budget.reserve("task", Cost(1, 200_000, 0)), Cost(1, 200_000, 0))  # 0.2 dollars a call
    assert answers_left(budget) == 4
    assert answers_left(Budget((), {}, ("task",))) is None


def test_measures_stand_in_the_order_of_the_list_whatever_was_imported_first() -> None:
    code = "import anacrusis.assess.cost; from anacrusis.assess import all_measures; print(*all_measures())"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert tuple(said.split()) == tuple(measure.FILES)
