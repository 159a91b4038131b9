"""Halves of the classes, a subset of them, and the harmonic mean."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from anacrusis.errors import ConfigError
from anacrusis.task import Split, Task
from anacrusis.task.shift import again, base_to_new, half_of, harmonic, take

TEAMS = ("alpha", "beta", "gamma", "delta", "omega")  # by name: alpha beta delta | gamma omega


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def made(n: int = 8, kind: str = "classification", teams: tuple[str, ...] = TEAMS) -> Task:
    texts = [f"{team} {i}" for i in range(n) for team in teams]
    labels = [team if kind == "classification" else [team, teams[i % 3]] for i in range(n) for team in teams]
    return Task.from_lists(
        texts, labels, kind=kind, name="teams", words={"delta": "four"} if "delta" in teams else None
    )


def test_base_to_new() -> None:
    task = made()
    base, new = base_to_new(task)
    assert base.labels == ("alpha", "beta", "delta") and new.labels == ("gamma", "omega")
    assert base.words == ("alpha", "beta", "four") and (base.name, new.name) == ("teams-base", "teams-new")
    assert (base.metric, base.seed, base.kind) == (task.metric, task.seed, task.kind)
    for part in ("train", "valid", "test"):
        whole, a, b = (getattr(t, part) for t in (task, base, new))
        assert len(a) + len(b) == len(whole) and {e.inputs for e in a} | {e.inputs for e in b} == {
            e.inputs for e in whole
        }
        for half, examples in ((base, a), (new, b)):
            assert examples and all(half.labels[e.gold] == e.inputs[0].split()[0] for e in examples)
    assert len({task.fingerprint, base.fingerprint, new.fingerprint}) == 3


def test_halves_by_a_seed() -> None:
    task = made(4, teams=tuple("abcdefgh"))
    drawn = [base_to_new(task, seed)[0].labels for seed in (0, 0, 1, 2, 3)]
    assert drawn[0] == drawn[1] and len(set(drawn)) > 2 and all(d == tuple(sorted(d)) for d in drawn)
    base, new = base_to_new(task, 1)
    assert len(base.labels) == 4 and set(base.labels) | set(new.labels) == set(task.labels)


def test_words_for_halves() -> None:
    task = made()
    assert half_of(task, "all") is task and half_of(task, "base") == base_to_new(task)[0]
    assert half_of(task, "new") == base_to_new(task)[1]
    with pytest.raises(ConfigError, match="expected one of base, new, all"):
        half_of(task, "old")


def test_several_labels() -> None:
    task = made(kind="multilabel")
    base, new = base_to_new(task)
    for half in (base, new):
        found = {e.inputs: {half.labels[i] for i in e.gold} for e in half.train}  # type: ignore[union-attr]
        for e in task.train:
            assert isinstance(e.gold, tuple)
            assert found.get(e.inputs, set()) == {task.labels[i] for i in e.gold} & set(half.labels)
    assert take(task, ["alpha"]).labels == ("alpha",)


def test_too_few_classes() -> None:
    with pytest.raises(ConfigError, match="teams has 3 classes; .* at least 4"):
        base_to_new(made(teams=("a", "b", "c")))
    writing = Task.from_lists(["a", "b"] * 5, ["x", "y"] * 5, kind="generation")
    with pytest.raises(ConfigError, match="0 classes"):
        base_to_new(writing)
    assert [len(t.labels) for t in base_to_new(made(teams=("a", "b", "c", "d")))] == [2, 2]


def test_take() -> None:
    task = made()
    few = take(task, ["omega", "beta"])
    assert few.labels == ("beta", "omega") and few.name == "teams"
    assert {e.inputs[0].split()[0] for e in few.train} == {"beta", "omega"}
    assert take(task, task.labels).fingerprint == task.fingerprint
    with pytest.raises(ConfigError, match="no class 'omga'. Did you mean 'omega'"):
        take(task, ["omga", "beta"])
    with pytest.raises(ConfigError, match="at least two"):
        take(task, ["beta"])


def test_harmonic() -> None:
    assert harmonic(0.5, 1.0) == pytest.approx(2 / 3) and harmonic(0.8, 0.8) == pytest.approx(0.8)
    assert harmonic(0.0, 0.9) == 0.0 and harmonic(0.9, 0.0) == 0.0 and harmonic(0, 0) == 0 and harmonic(-0.1, 0.5) == 0


def test_it_can_be_read_again(tmp_path: Path) -> None:
    file = tmp_path / "teams.csv"
    file.write_text("text,label\n" + "".join(f"{team} {i},{team}\n" for i in range(8) for team in TEAMS))
    task = Task.from_csv(file, split=Split(seed=2, shots=2))
    for half in base_to_new(task):
        back = Task.from_source(json.loads(json.dumps(half.source)))
        assert back == half and back.fingerprint == half.fingerprint
    twice = take(base_to_new(task)[0], ["alpha", "beta"])
    assert Task.from_source(twice.source).fingerprint == twice.fingerprint and len(twice.source["steps"]) == 2
    assert not base_to_new(made())[0].source and again(task, []) is task
    assert "steps" not in task.source
