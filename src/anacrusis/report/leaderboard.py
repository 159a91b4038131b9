"""A comparison's result: one row a method and number of shots, with intervals, ties and costs. Reads finished cells."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import RunError
from ..measure.crossed import Comparison, against_best, over_seeds
from ..measure.evaluate import FURTHER
from ..measure.intervals import Interval
from ..registry import get
from ..runs.grid import ALL, Cell, Comparing, Done, Grid, ended, fresh, grid_of, read
from ..runs.run import Observe, Run
from ..runs.searching import Means
from ..runs.spread import here, processes
from ..task import Task

HEADS = ("method", "shots", "score", "to the best", "", "seeds", "trained", "learning", "an answer", "memory", "spent")
RIGHT = ("shots", "seeds", "trained", "learning", "an answer", "memory")


@dataclass(frozen=True, kw_only=True)
class Row:
    """What one method came to with one number of shots.

    score: expected of a new seed on new examples. difference: to the best of these shots, paired; standing: "best",
    "tied" (not distinguishable from the best) or "worse", after correcting for all pairs of methods. parameters,
    seconds (of learning), megabytes: means over seeds. milliseconds: of one answer. calls, tokens, dollars: of all
    seeds together, asked of models behind an API. failed: why seeds have no score.
    """

    method: str
    shots: int | None
    seeds: int
    score: Interval
    others: Mapping[str, Interval]
    difference: Comparison
    adjusted: float
    standing: str
    parameters: float
    seconds: float
    milliseconds: float
    megabytes: float | None
    calls: int
    tokens: int
    dollars: float
    by_seed: tuple[float, ...]
    failed: tuple[str, ...] = ()

    @property
    def group(self) -> str:
        return ALL if self.shots is None else str(self.shots)


@dataclass(frozen=True)
class Leaderboard:
    """rows: by shots, the best first. missing: methods without any score, and why. left: cells that have not ended."""

    task: str
    model: str
    metric: str
    examples: int  # of test
    rows: tuple[Row, ...]
    missing: Mapping[str, str] = field(default_factory=dict)
    left: int = 0
    notes: tuple[str, ...] = ()

    @property
    def groups(self) -> list[str]:
        return list(dict.fromkeys(r.group for r in self.rows))

    def of(self, group: str) -> list[Row]:
        return [r for r in self.rows if r.group == group]

    @property
    def best(self) -> Row | None:
        """Of the most shots."""
        return self.of(self.groups[-1])[0] if self.rows else None

    def verdict(self) -> str:
        """The comparison in a sentence or two, as strong as the numbers are and no stronger."""
        said = []
        for group in self.groups:
            rows = self.of(group)
            tied = [r.method for r in rows if r.standing == "tied"]
            shots = "" if self.groups == [ALL] else f"{group} a class: " if group != ALL else "all examples: "
            best = f"{shots}{rows[0].method} has the highest {self.metric}, {_of(rows[0].score)}"
            more = f"; not distinguishable from it: {', '.join(tied)}" if tied else "; every other method is worse"
            said.append(best + (more if len(rows) > 1 else "") + ".")
        return " ".join(said)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def _of(i: Interval, form: str = ".3f") -> str:
    return f"{i.value:{form}} [{i.low:{form}}, {i.high:{form}}]"


@dataclass(frozen=True)
class Board:
    """A comparison's folder, read: the leaderboard with all that a report shows beside it."""

    leaderboard: Leaderboard
    task: Task
    done: tuple[Done, ...]
    folder: Path

    def runs(self, method: str, group: str) -> list[Run]:
        """The runs of a row, by seed."""
        return [
            d.run
            for d in self.done
            if d.run is not None and d.cell.method == method and (_group(d.cell) == group or _for_all(d.cell))
        ]


def _group(cell: Cell) -> str:
    return ALL if cell.shots is None else str(cell.shots)


def _for_all(cell: Cell) -> bool:

    return not get(cell.method).learns


def board(folder: Path, task: Task | None = None, progress: Callable[[str], Any] = lambda text: None) -> Board:
    """Read a comparison's folder, finished or not. task: else it is read again from where it was.

    Raises RunError where there is none, or where its data has changed since.
    """
    plan = read(folder)
    if task is None:
        if not plan["source"]:
            raise RunError(f"the comparison in {folder} was made from data in memory: give the same task")
        task = Task.from_source(plan["source"])
    if task.fingerprint != plan["data"]:
        raise RunError(
            f"the data of {folder} has changed since the comparison began: {task.describe()}. Start a new one"
        )
    grid = grid_of(plan)
    cells = grid.cells
    done = tuple(d for c in cells if (d := ended(folder / "cells" / c.name, c)) is not None)
    progress("comparing")
    made = [_group_rows(done, task, ALL if k is None else str(k), plan["seeds"]) for k in plan["shots"]]
    rows = tuple(r for group in made for r in group)
    missing = _missing(done, task, rows, [ALL if k is None else str(k) for k in plan["shots"]])
    found = Leaderboard(task.describe(), plan["model"], task.metric, len(task.test), rows, missing,
                        len(cells) - sum(d.run is not None for d in done), _notes(plan, rows))  # fmt: skip
    return Board(found, task, done, folder)


def of(comparing: Comparing) -> Board:
    return board(comparing.folder, comparing.task)


def compare(
    grid: Grid, model: Any, task: Task, folder: str | Path | None = None, *, jobs: int = 1, means: Means | None = None,
    observe: Observe = lambda event: None,
) -> Board:  # fmt: skip
    """Run a grid of fits, or what is left of it in `folder`, and read its leaderboard.

    folder: else a new one among the runs. jobs: processes; with more than one the model is opened again in each.
    means: what searches may use, each of them. Raises what `Comparing` and `board` do.
    """
    place = fresh(task) if folder is None else Path(folder)
    comparing = Comparing(grid, task, model, place, means or Means())
    comparing.run(here if jobs == 1 else processes(jobs), observe)
    return of(comparing)


def _missing(done: Sequence[Done], task: Task, rows: Sequence[Row], groups: Sequence[str]) -> dict[str, str]:
    """Methods that have no score, or none with some number of shots, and why."""
    found: dict[str, str] = {}
    for group in groups:
        there = {r.method for r in rows if r.group == group}
        for d in done:
            if d.cell.method not in there and (_group(d.cell) == group or _for_all(d.cell)):
                name = d.cell.method if groups == [ALL] else f"{d.cell.method} ({group} a class)"
                found.setdefault(name, _lacks(d, task))
    return found


def _lacks(done: Done, task: Task) -> str:
    if done.run is None:
        return done.error
    n = done.run.score.n if done.run.score else 0
    if n == len(task.test):
        return "it has no seed in common with the other methods yet"
    return (
        f"scored on {n} of {len(task.test)} test examples: its budget allowed no more. A comparison in a new folder "
        "with a larger one and the same --store pays only for what is new"
    )


def _notes(plan: Mapping[str, Any], rows: Sequence[Row]) -> tuple[str, ...]:
    notes = [
        "Intervals are of 95 %: what a new seed on new examples would score. Methods are compared on the same examples "
        "and seeds; tied means not distinguishable from the best at 5 % after Holm's correction over all pairs."
    ]
    if plan["seeds"] == 1:
        notes.append(
            "One seed: intervals and standing are of these very prompts. Another training sample may turn them round; "
            "5 seeds show that."
        )
    if plan["keep_valid"] and plan["shots"] == [None] and plan["seeds"] > 1:
        notes.append(
            "All seeds learn from the same examples, as train and validation were given: what another sample would "
            "change is not in the intervals."
        )
    few = [r for r in rows if r.seeds < plan["seeds"] and get(r.method).learns]
    if few:
        said = ", ".join(f"{r.method} {r.seeds}" for r in few)
        notes.append(
            f"Fewer than {plan['seeds']} seeds have a score: {said}. They are compared on the seeds they have."
        )
    return tuple(notes)


def _group_rows(done: Iterable[Done], task: Task, group: str, seeds: int) -> list[Row]:
    mine: dict[str, list[Done]] = {}
    for d in done:
        if _group(d.cell) == group or _for_all(d.cell):
            mine.setdefault(d.cell.method, []).append(d)
    predictions: dict[str, list[Any]] = {}
    for method, cells in mine.items():
        by_seed = {
            d.cell.seed: d.run.score.predictions
            for d in cells
            if d.run is not None and d.run.score is not None and d.run.score.n == len(task.test)
        }
        if by_seed:
            several = seeds if not _for_all(cells[0].cell) else 1
            predictions[method] = [by_seed.get(s) for s in range(several)]
    predictions = _common(predictions)
    if not predictions:
        return []
    golds, classes = task.test, len(task.labels) or None
    verdicts = against_best(task.metric, predictions, golds, classes)
    rows = []
    for method, given in predictions.items():
        cells, verdict = mine[method], verdicts[method]
        runs = [d.run for d in cells if d.run is not None]
        kept = [run.score for run in runs if run.score is not None and run.score.n == len(task.test)]
        spent = [_cost(d) for d in cells if d.run is not None and (d.run.cost or d.spent)]
        memory = [d.megabytes for d in cells if d.megabytes is not None]
        rows.append(Row(
            method=method, shots=None if group == ALL else int(group), seeds=sum(p is not None for p in given),
            score=over_seeds(task.metric, given, golds, classes),
            others={m: over_seeds(m, given, golds, classes) for m in FURTHER[task.kind] if m != task.metric},
            difference=verdict.difference, adjusted=verdict.adjusted, standing=verdict.standing,
            parameters=float(np.mean([run.parameters for run in runs])),
            seconds=float(np.mean([run.seconds for run in runs])),
            milliseconds=1000 * sum(s.seconds for s in kept) / sum(s.n for s in kept),
            megabytes=float(np.mean(memory)) if memory else None, calls=sum(c["calls"] for c in spent),
            tokens=sum(c["input"] + c["output"] for c in spent), dollars=sum(c["dollars"] for c in spent),
            by_seed=tuple(s.value for s in kept), failed=tuple(d.error for d in cells if d.run is None),
        ))  # fmt: skip
    return sorted(rows, key=lambda r: (r.standing != "best", -r.score.value))


def _cost(done: Done) -> dict[str, Any]:
    """Calls, tokens and dollars of a run, whoever counted them."""
    if done.run is not None and done.run.cost:
        c = done.run.cost
        return {"calls": c["calls"], "input": c["input"], "output": c["output"], "dollars": c["dollars"] or 0.0}
    return {**done.spent, "dollars": done.spent["nanodollars"] / 1e9}


def _common(predictions: dict[str, list[Any]]) -> dict[str, list[Any]]:
    """Methods that have no seed in common with all that have more cannot be compared yet, and wait."""
    counts = {
        m: {s for s, p in enumerate(given) if p is not None} for m, given in predictions.items() if len(given) > 1
    }
    kept: list[str] = []
    for method in sorted(counts, key=lambda m: -len(counts[m])):
        if all(counts[method] & counts[other] for other in kept):
            kept.append(method)
    return {m: given for m, given in predictions.items() if m in kept or len(given) == 1}


def cells_of(row: Row) -> tuple[str, ...]:
    """The row as the terminal's table shows it, as HEADS names it."""
    d = row.difference
    away = "" if row.standing == "best" else f"{d.value:+.3f} [{d.low:+.3f}, {d.high:+.3f}]"
    money = f", ${row.dollars:.4f}" if row.dollars else ""
    failed = f" ({len(row.failed)} failed)" if row.failed else ""
    return (
        row.method, row.group, _of(row.score), away, row.standing, f"{row.seeds}{failed}", f"{row.parameters:,.0f}",
        f"{row.seconds:.1f} s", f"{row.milliseconds:.1f} ms",
        "" if row.megabytes is None else f"{row.megabytes:.0f} MB", f"{row.calls:,} calls{money}" if row.calls else "",
    )  # fmt: skip
