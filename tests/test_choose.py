"""choose never chooses or scores a prompt on examples that it was learned from, and says so where it cannot tell."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from anacrusis.assess import Subject
from anacrusis.measure import evaluate as measured
from anacrusis.task import Example, Split, Task
from anacrusis.task.shift import redrawn
from anacrusis.testing import tiny

from .test_cli import TEAMS, Result, _here, call, opened  # noqa: F401

TABLE = ("--text", "message", "--label", "team")
Seen = dict[str, set[str]]  # "chose", "scored": texts


@pytest.fixture
def csv(tmp_path: Path) -> Path:
    """120 rows, none twice."""
    rows = [f"w{10 * c + i % 7} w{50 + i} w{60 + i},{TEAMS[c]}" for i in range(40) for c in range(3)]
    file = tmp_path / "tickets.csv"
    file.write_text("message,team\n" + "\n".join(rows) + "\n")
    return file


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Seen:
    """What examples the prompts were chosen and scored on."""
    found: Seen = {"chose": set(), "scored": set()}
    values, evaluate = Subject.values, measured.evaluate

    def see(self: Subject, prompt: Any, examples: Sequence[Example], *more: Any) -> Any:
        found["chose"] |= {e.inputs[0] for e in examples}
        return values(self, prompt, examples, *more)

    def score(prompt: Any, model: Any, task: Task, **given: Any) -> Any:
        found["scored"] |= {e.inputs[0] for e in task.test}
        return evaluate(prompt, model, task, **given)

    monkeypatch.setattr(Subject, "values", see)
    monkeypatch.setattr(measured, "evaluate", score)
    return found


def texts(examples: Sequence[Example]) -> set[str]:
    return {e.inputs[0] for e in examples}


def read(csv: Path, seed: int | None = None, shots: int | None = None) -> Task:
    """The parts that `fit` learns from, or those of a comparison's seed."""
    task = Task.from_csv(csv, "message", "team")
    return task if seed is None else redrawn(task, seed, shots)


def compared(csv: Path, *more: str) -> list[Path]:
    given = ("--methods", "linear-probe", "--seeds", "2", "--no-baselines", "--out", "c", "--quiet", *more)
    done = call("compare", csv, *TABLE, *given)
    assert done.code == 0, done.err
    return sorted(Path("c/cells").iterdir())


def choose(data: Path, *more: str | Path) -> Result:
    found = call("choose", data, *more, *TABLE, "--share", "1", "--json")
    assert found.code == 0, found.err
    return found


def lines() -> tuple[str, str]:
    Path("t.txt").write_text("{message}\nAnswer : {message}\n")
    return "--templates", "t.txt"


@pytest.mark.usefixtures("opened")
@pytest.mark.parametrize("seed", ["0", "7"])
def test_a_prompt_is_chosen_and_scored_on_what_it_has_not_seen(csv: Path, seen: Seen, seed: str) -> None:
    cell = compared(csv)[1]
    seen["scored"].clear()
    found = choose(csv, cell, *lines(), "--seed", seed)
    own = read(csv, 1)
    assert seen["chose"] == texts(own.valid) and seen["scored"] == texts(own.test)
    assert found.json["score"]["n"] == len(own.test) == 24
    assert any("18 of 120 examples" in n for n in found.json["notes"])


@pytest.mark.usefixtures("opened")
def test_prompts_of_several_seeds_share_what_none_has_seen(csv: Path, seen: Seen) -> None:
    """Beyond the few validation examples, those that were left over."""
    cells = compared(csv, "--shots", "4")
    seen["scored"].clear()
    choose(csv, *cells)
    a, b = read(csv, 0, 4), read(csv, 1, 4)
    rest = texts((*read(csv).train, *read(csv).valid)) - texts(a.train) - texts(b.train)
    assert seen["chose"] == rest and seen["scored"] == texts(a.test) and len(rest) > 70


@pytest.mark.usefixtures("opened")
def test_prompts_of_several_splits_are_scored_on_what_is_test_in_each(csv: Path, seen: Seen) -> None:
    given = (*TABLE, "--method", "linear-probe", "--shots", "5", "--quiet")
    for seed in ("0", "1"):
        assert call("fit", csv, *given, "--seed", seed, "--out", f"p{seed}").code == 0
    seen["scored"].clear()
    found = choose(csv, "p0", "p1")
    a, b = (Task.from_csv(csv, "message", "team", split=Split(seed=s, shots=5)) for s in (0, 1))
    both = texts(a.test) & texts(b.test)
    assert seen["scored"] == both and 0 < len(both) < 24 and found.json["score"]["n"] == len(both)
    assert seen["chose"] == texts(read(csv).train + read(csv).valid + read(csv).test) - both - texts(a.train + b.train)


@pytest.mark.usefixtures("opened")
def test_nothing_unseen_is_an_error(csv: Path) -> None:
    """Every seed learns from four fifths; and a file that was learned from as a whole has nothing left."""
    given = (*TABLE, "--method", "linear-probe", "--quiet")
    csv.write_text("\n".join(csv.read_text().splitlines()[:22]) + "\n")
    for seed in range(5):
        assert call("fit", csv, *given, "--seed", str(seed), "--out", f"p{seed}").code == 0
    none = call("choose", csv, *(f"p{s}" for s in range(5)), *TABLE)
    assert none.code == 2 and "Give other examples" in none.err and "--shots" in none.err, none.err

    rows = csv.read_text().splitlines()
    Path("new.csv").write_text("\n".join([rows[0], *(f"new {r}" for r in rows[1:])]) + "\n")
    assert call("fit", csv, *given, "--test", "new.csv", "--out", "w").code == 0
    whole = call("choose", csv, "w", *lines(), *TABLE)
    assert whole.code == 2 and "these very examples" in whole.err and "--test" in whole.err, whole.err
    assert call("choose", csv, "w", *lines(), *TABLE, "--test", "new.csv").code == 0


@pytest.mark.usefixtures("opened")
def test_what_cannot_be_told_is_said(csv: Path, seen: Seen) -> None:
    cell = compared(csv)[0]
    other = csv.with_name("other.csv")
    other.write_text(csv.read_text().replace("w6", "w7"))
    found = choose(other, cell, *lines(), "--seed", "3")
    assert [n for n in found.json["notes"] if str(cell) in n and "cannot be told" in n]
    assert choose(other, *lines()).json["notes"] == []


@pytest.mark.usefixtures("opened")
def test_under_another_metric_validation_examples_are_left_out_too(csv: Path, seen: Seen) -> None:
    """Then it cannot be seen how what was learned from was divided into training and validation."""
    done = call("fit", csv, *TABLE, "--method", "linear-probe", "--shots", "5", "--out", "p", "--metric", "macro-f1")
    assert done.code == 0, done.err
    choose(csv, "p", *lines())
    own = Task.from_csv(csv, "message", "team", split=Split(shots=5))
    assert not seen["chose"] & texts(own.train + own.valid) and len(seen["chose"]) == 120 - 24 - 30


@pytest.mark.usefixtures("opened")
def test_the_card_of_a_learned_prompt_stays(csv: Path) -> None:
    cell = compared(csv)[1]
    before = json.loads((cell / "prompt" / "prompt.json").read_text())
    # of prompts with equal estimates, the first is best
    found = choose(csv, cell, cell, "--seed", "7", "--out", "best")
    assert found.json["best"] == str(cell)
    assert json.loads(Path("best/prompt.json").read_text()) == before


@pytest.mark.usefixtures("opened")
def test_a_prompt_made_here_says_how_its_data_was_divided(csv: Path, seen: Seen) -> None:
    """So that it is not scored on what chose it: beside a learned prompt, the data is divided as for that."""
    assert choose(csv, *lines(), "--seed", "5", "--out", "made").json["notes"] == []
    chose = set(seen["chose"])
    seen["chose"].clear(), seen["scored"].clear()
    choose(csv, "made", *lines())
    assert not seen["scored"] & chose
    scored = call("evaluate", "made", csv, *TABLE, "--json")
    assert any("flatters" in n for n in scored.json["notes"])
    card = json.loads(Path("made/prompt.json").read_text())["card"]
    assert card["seed"] == 5 and card["model"] == "builtin:minilm" and card["fingerprint"] == tiny("minilm").fingerprint
