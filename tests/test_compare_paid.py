"""Comparisons on a model behind an API: nothing is paid twice, and no budget is passed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from anacrusis.errors import ConfigError
from anacrusis.measure.predict import predict
from anacrusis.model.endpoint import Endpoint
from anacrusis.report import leaderboard
from anacrusis.runs.grid import Comparing, Grid
from anacrusis.runs.race import Race, candidates
from anacrusis.runs.run import fit
from anacrusis.runs.searching import Means
from anacrusis.task import Split, Task

from .loopback import Loopback


def brain(body: dict[str, Any], index: int) -> str:
    """Names the class whose word is in the text; writers get a sentence."""
    said = body["messages"][-1]["content"]
    last = said.strip().splitlines()[-2] if "\nAnswer:" in said else ""
    return "fruit" if "apple" in last else "vehicle" if "car" in last else "Say fruit or vehicle."


@pytest.fixture
def server() -> Iterator[Loopback]:
    with Loopback(brain) as found:
        yield found


@pytest.fixture
def task() -> Task:
    texts = [f"a {'big' if i % 3 else 'small'} {('apple', 'car')[i % 2]} {i}" for i in range(60)]
    return Task.from_lists(texts, [("fruit", "vehicle")[i % 2] for i in range(60)], split=Split(seed=0), name="things")


def opened(server: Loopback) -> Endpoint:
    return Endpoint("openai:thing", base_url=server.url, base=0.01)


def test_what_one_run_paid_no_other_pays(server: Loopback, task: Task, tmp_path: Path) -> None:
    with opened(server) as model:
        grid = Grid(methods=("zero-shot", "demonstrations", "majority"), seeds=2)
        comparing = Comparing(grid, task, model, tmp_path)
        comparing.run()
        paid = server.charged
        assert paid > 0 and all("fruit" in str(r["body"]) for r in server.requests)
        found = leaderboard.of(comparing).leaderboard
        assert {r.method for r in found.rows} == set(grid.methods) and not found.missing
        for file in (tmp_path / "cells").rglob("result.json"):  # as if it had been killed before each was written
            file.unlink()
        comparing.run()
        assert server.charged == paid
        again = leaderboard.of(comparing).leaderboard
        assert [r.score for r in again.rows] == [r.score for r in found.rows]


def test_majority_asks_nobody(server: Loopback, task: Task, tmp_path: Path) -> None:
    with opened(server) as model:
        run = fit("majority", model, task, folder=tmp_path / "r")
        assert server.charged == 0 and run.score is not None and len(set(run.score.predictions)) == 1
        assert predict(run.prompt, ["a big car 1"], model) == predict(run.prompt, ["an apple"]) and server.charged == 0


def test_a_run_whose_budget_does_not_reach_says_so(server: Loopback, task: Task, tmp_path: Path) -> None:
    with opened(server) as model:
        grid = Grid(methods=("zero-shot", "majority"), seeds=1)
        comparing = Comparing(grid, task, model, tmp_path, Means(budget="5calls"))
        comparing.run()
        assert server.charged <= 5
        found = leaderboard.of(comparing).leaderboard
        assert "zero-shot" in found.missing and "calls" in found.missing["zero-shot"]


def test_a_race_whose_budget_is_too_small_says_so(server: Loopback, task: Task, tmp_path: Path) -> None:
    with opened(server) as model:
        race = Race(["zero-shot", "demonstrations"], task, model, tmp_path, Means(budget="16calls"))
        with pytest.raises(ConfigError, match="its share of the budget was too small"):
            race.run()
        assert server.charged <= 16


@pytest.mark.parametrize("calls", [200, 600])
def test_a_race_and_its_board_stay_in_one_budget(server: Loopback, task: Task, tmp_path: Path, calls: int) -> None:
    with opened(server) as model:
        names = [n for n in candidates(model, task) if n in ("zero-shot", "demonstrations", "opro")]
        assert len(names) == 3
        means = Means(budget=f"{calls}calls", writer=model)
        race = Race(names, task, model, tmp_path / "race", means, {"opro": {"steps": 2, "width": 2}})
        raced = race.run()
        grid = Grid(methods=tuple(dict.fromkeys((raced.winner, "zero-shot"))), seeds=raced.seeds or 1)
        last = replace(means, budget=race.last(len(grid.cells)))
        comparing = Comparing(grid, task, model, tmp_path / "c", last)
        race.adopt(raced, comparing)
        comparing.run()
        assert server.charged <= calls, json.dumps(raced.to_json())


def test_costs_of_methods_that_do_not_search_are_told(server: Loopback, task: Task, tmp_path: Path) -> None:
    with opened(server) as model:
        means = Means(prices={"task": "5/10"})
        comparing = Comparing(Grid(methods=("zero-shot",), seeds=1), task, model, tmp_path, means)
        comparing.run()
        [row] = leaderboard.of(comparing).leaderboard.rows
        assert row.calls == server.charged == len(task.test) and row.dollars > 0 and row.tokens > 0


def test_a_comparison_may_be_moved(server: Loopback, task: Task, tmp_path: Path) -> None:
    """The store lies beside the cells, and is found again."""
    with opened(server) as model:
        grid = Grid(methods=("zero-shot", "opro"), seeds=1, options={"opro": {"steps": 1, "width": 2}})
        means = Means(writer=model)
        comparing = Comparing(grid, task, model, tmp_path / "a", means)
        comparing.run()
        paid = server.charged
        for file in (tmp_path / "a" / "cells").rglob("result.json"):
            file.unlink()
        (tmp_path / "a").rename(tmp_path / "b")
        moved = Comparing(grid, task, model, tmp_path / "b", means)
        moved.run()
        assert server.charged == paid and leaderboard.of(moved).leaderboard.left == 0
        row = next(r for r in leaderboard.of(moved).leaderboard.rows if r.method == "opro")
        learned = row.seconds * 1000
        assert row.milliseconds * len(task.test) < learned or learned == 0  # of an answer, not of the whole search
