"""What every method on the search engine owes: it finds what was planted within its budget, better than chance."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anacrusis as ana
from anacrusis.model.say import conversation
from anacrusis.runs.run import Run
from anacrusis.runs.searching import Means
from tests.world import Direct, World

FOUND = 0.95  # of the perfect prompt's skill


@dataclass(frozen=True)
class Trials:
    skills: tuple[float, ...]
    runs: tuple[Run, ...]

    @property
    def found(self) -> int:
        return sum(k >= FOUND for k in self.skills)

    @property
    def mean(self) -> float:
        return sum(self.skills) / len(self.skills)


def one(method: str, seed: int, budget: str, options: dict[str, Any], folder: Path | None = None) -> tuple[float, Run]:
    """The skill, over all examples of the world, of the prompt that a method finds there."""
    world = World(seed)
    with tempfile.TemporaryDirectory() as temporary:
        run = ana.fit(
            method, Direct(world), world.task, seed=seed, folder=folder or Path(temporary) / "run", options=options,
            means=Means(writer=Direct(world, "openai:writer"), budget=budget),
        )  # fmt: skip
    return world.skill(conversation(run.prompt.frame, ("",))[0][1].partition("Text:")[0]), run


def trials(method: str, budget: str, options: dict[str, Any] | None = None, seeds: Iterable[int] = range(10)) -> Trials:
    several = [one(method, seed, budget, options or {}) for seed in seeds]
    return Trials(tuple(k for k, _ in several), tuple(r for _, r in several))


@functools.cache
def by_chance(budget: str) -> Trials:
    """Random search with the same budget."""
    return trials("random-search", budget)


def finds_what_was_planted(method: str, budget: str, options: dict[str, Any] | None = None, least: int = 9) -> Trials:
    """Asserts the promise of the docstring on ten seeds, and that no limit was passed."""
    got = trials(method, budget, options)
    assert got.found >= least, f"{method} found it on {got.found} of 10 seeds within {budget}: {got.skills}"
    chance = by_chance(budget)
    assert got.mean > chance.mean, f"{method} {got.mean:.3f} is not better than chance {chance.mean:.3f} at {budget}"
    calls = int(budget.removesuffix("calls"))
    assert all(r.cost["calls"] <= calls for r in got.runs)
    return got
