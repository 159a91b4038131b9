"""A grid of fits: methods x shots x seeds on one task and model. Every cell is a run of its own, in its own folder.

All cells answer the same test examples; a seed draws its own training and validation examples from the others. So
scores pair up over seeds and over examples. A cell that has ended is never run again, and one that was cut off goes on
where it was; a cell that fails is noted, and the others go on.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ..errors import AnacrusisError, ConfigError, RunError, RunStopped
from ..prompt.store import write_json
from ..registry import Method, get, require
from ..search.budget import Price, parse
from ..search.kept import Kept
from ..task import Task
from ..task.shift import redrawn
from .run import Observe, Run, divide, fit, load, runs_folder
from .running import at_work
from .searching import Means
from .spread import Spread, here
from .watch import Peak

PLAN = "compare.json"
ALL = "all"  # the word for: every training example
BESIDE = "../../search.sqlite"  # the store that all cells share, as seen from one of them


@dataclass(frozen=True, kw_only=True)
class Grid:
    """What is compared.

    methods: names. seeds: how many. shots: examples a class, None for all of them. options: by method, as `fit` takes
    them; under "" those of every method that has them. keep_valid: validation examples were given, and stay.
    """

    methods: tuple[str, ...]
    seeds: int = 5
    shots: tuple[int | None, ...] = (None,)
    options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    keep_valid: bool = False

    def __post_init__(self) -> None:
        if not self.methods:
            raise ConfigError("no methods to compare: name some, such as prompt-tuning,linear-probe, or auto")
        if self.seeds < 1 or not self.shots:
            raise ConfigError(f"seeds={self.seeds}, shots={self.shots}: expected at least one of each")
        for name in self.methods:
            get(name)
        if len(set(self.methods)) < len(self.methods) or len(set(self.shots)) < len(self.shots):
            raise ConfigError("a method or a number of shots is named twice")
        for name in self.options:
            if name and name not in self.methods:
                raise ConfigError(f"options for {name!r}, which is not compared")
        for name in self.methods:
            divide(get(name), self.options_of(name))  # a misspelt option is refused before anything is computed
        for option in self.options.get("", {}):
            if not any(option in self.options_of(name) for name in self.methods):
                raise ConfigError(f"none of {', '.join(self.methods)} has an option {option!r}")

    def options_of(self, name: str) -> dict[str, Any]:
        common = {k: v for k, v in self.options.get("", {}).items() if has(get(name), k)}
        return {**common, **self.options.get(name, {})}

    @property
    def cells(self) -> tuple[Cell, ...]:
        """In the order in which they run: seed by seed, so that an early stop leaves whole comparisons.

        A method that looks at no example gives the same for every seed and number of shots: it runs once.
        """
        return tuple(
            Cell(name, k if get(name).learns else None, seed)
            for seed in range(self.seeds)
            for k in self.shots
            for name in self.methods
            if get(name).learns or (seed == 0 and k == self.shots[0])
        )


def has(method: Method, option: str) -> bool:
    try:
        divide(method, {option: ""})
    except ConfigError as error:
        return "has no option" not in str(error)
    except ValueError:
        return True
    return True


@dataclass(frozen=True)
class Cell:
    method: str
    shots: int | None
    seed: int

    @property
    def name(self) -> str:
        return f"{self.method}-{ALL if self.shots is None else self.shots}-{self.seed}"


@dataclass(frozen=True)
class Done:
    """A cell that has ended: its run, or why there is none. megabytes: peak memory above what was in use before."""

    cell: Cell
    run: Run | None
    error: str = ""
    megabytes: float | None = None
    spent: Mapping[str, Any] = field(default_factory=dict)  # on a model behind an API, by a method that does not search


@dataclass(frozen=True)
class Job:
    """One cell with all that a process needs to run it. model: an open model, or None to open it by name."""

    cell: Cell
    task: Task
    folder: Path
    options: Mapping[str, Any]
    opening: tuple[str, Mapping[str, Any]]
    means: Means | Mapping[str, Any]  # as JSON where another process opens them
    keep_valid: bool = False
    model: Any = None
    fingerprint: str = ""


@dataclass(frozen=True)
class Comparing:
    """A grid under way in its folder."""

    grid: Grid
    task: Task
    model: Any
    folder: Path
    means: Means = Means()

    def __post_init__(self) -> None:
        if not self.task.test:
            raise ConfigError(
                f"the task {self.task.name} has no test examples to compare on: give more rows, or --test"
            )
        for name in self.grid.methods:
            require(get(name), self.model, self.task)
        if self.grid.shots != (None,):
            for k in self.grid.shots:  # too few examples for the shots: said before anything is computed
                redrawn(self.task, 0, k, self.grid.keep_valid)
        plan = self.plan()
        file = self.folder / PLAN
        if not file.exists():
            self.folder.mkdir(parents=True, exist_ok=True)
            write_json(file, plan)
            return
        before = read(self.folder)
        same(self.folder, before, plan, ("model", "fingerprint", "opening", "data", "words", "keep_valid", "means"))
        both = [m for m in plan["resolved"] if m in before.get("resolved", {})]
        same(self.folder, before.get("resolved", {}), plan["resolved"], both, "options of ")
        write_json(
            file, {**plan, "began": before.get("began", plan["began"])}
        )  # more methods, seeds or shots are welcome

    def plan(self) -> dict[str, Any]:
        g = self.grid
        said = {
            "format": 1, "methods": g.methods, "seeds": g.seeds, "shots": g.shots, "options": g.options,
            "resolved": {m: g.options_of(m) for m in g.methods}, "words": self.task.words,
            "keep_valid": g.keep_valid, "model": self.model.name, "opening": dict(self.model.opening),
            "fingerprint": self.model.fingerprint, "task": self.task.name, "data": self.task.fingerprint,
            "source": self.task.source, "means": self.means.to_json(), "began": round(time.time(), 3),
        }  # fmt: skip
        return dict(json.loads(json.dumps(said)))

    def job(self, cell: Cell, model: Any = None) -> Job:
        return Job(
            cell, self.task, self.folder / "cells" / cell.name, self.grid.options_of(cell.method),
            (self.model.name, dict(self.model.opening)), self._means(model is not None), self.grid.keep_valid, model,
            self.model.fingerprint,
        )  # fmt: skip

    def _means(self, here: bool) -> Means | dict[str, Any]:
        """Of every cell: they share one store, so that no two of them pay for the same call."""
        means = self.means if self.means.address else replace(self.means, beside=BESIDE)
        return means if here else means.to_json()

    def run(self, spread: Spread = here, observe: Observe = lambda event: None) -> None:
        """Run the cells that have not ended. observe: the events of single fits (where they run here), and
        {"event": "cell", "done", "of", "name", "error"} whenever one has ended."""
        left = [c for c in self.grid.cells if not (self.folder / "cells" / c.name / "result.json").exists()]
        jobs = [self.job(c, self.model if spread is here else None) for c in left]
        total, done = len(self.grid.cells), len(self.grid.cells) - len(left)
        apart = spread is not here
        with at_work(self.folder) as stop:

            def tell(event: dict[str, Any]) -> None:
                observe(event)
                stop()

            tell({"event": "grid", "done": done, "of": total, "apart": apart, "folder": str(self.folder)})
            for job, error in spread(work, jobs, tell):
                done += 1
                if error:  # again, for a process that died could not note it
                    failed(job, error)
                tell({"event": "cell", "done": done, "of": total, "name": job.cell.name, "error": error,
                      "apart": apart})  # fmt: skip

    def done(self) -> Iterator[Done]:
        """The cells that have ended, in their order."""
        yield from (found for c in self.grid.cells if (found := ended(self.folder / "cells" / c.name, c)) is not None)


def same(folder: Path, before: Mapping[str, Any], now: Mapping[str, Any], keys: Sequence[str], what: str = "") -> None:
    """Raises RunError where a folder's plan says something else than now."""
    for key in keys:
        if before.get(key) != now[key]:
            raise RunError(
                f"the folder {folder} holds another comparison: its {what}{key} is {before.get(key)!r}, now it is "
                f"{now[key]!r}. Give another folder, or the same to go on with it"
            )


def ended(folder: Path, cell: Cell) -> Done | None:
    usage = folder / "usage.json"
    said = json.loads(usage.read_text(encoding="utf-8")) if usage.exists() else {}
    if (folder / "result.json").exists():
        return Done(cell, load(folder), "", said.get("megabytes"), said.get("spent") or {})
    return Done(cell, None, said["error"]) if said.get("error") else None


def read(folder: Path) -> dict[str, Any]:
    """A comparison's plan. Raises RunError where there is none."""
    file = folder / PLAN
    if not file.exists():
        raise RunError(f"no comparison in {folder}: {PLAN} is missing. Make one: anacrusis compare DATA --methods A,B")
    try:
        return dict(json.loads(file.read_text(encoding="utf-8")))
    except (json.JSONDecodeError, ValueError) as error:
        raise RunError(f"{file} is damaged: {error}") from error


def grid_of(plan: Mapping[str, Any]) -> Grid:
    return Grid(methods=tuple(plan["methods"]), seeds=plan["seeds"], shots=tuple(plan["shots"]),
                options=plan["options"], keep_valid=plan["keep_valid"])  # fmt: skip


def fresh(task: Task) -> Path:
    """A folder for a new comparison, among the runs."""
    name = f"{time.strftime('%Y%m%d-%H%M%S')}-compare-{task.name}"
    return runs_folder() / "".join(c if c.isalnum() or c in "-_." else "-" for c in name)


def again(folder: Path) -> Comparing:
    """A comparison from its folder alone. Raises RunError where its data or model is not what it was."""
    from ..model.open import open as open_model

    plan = read(folder)
    if not plan["source"]:
        raise RunError(f"the comparison in {folder} is of data in memory: make it again with the same task and folder")
    task = replace(Task.from_source(plan["source"]), name=plan["task"])
    if task.fingerprint != plan["data"]:
        raise RunError(f"the data of {folder} has changed since the comparison began: {task.describe()}. Start anew")
    model = open_model(plan["model"], **plan["opening"])
    return Comparing(grid_of(plan), task, model, folder, Means.from_json(plan["means"]))


_MODELS: dict[tuple[str, str], Any] = {}  # of this process, by name and how they were opened


def work(job: Job, observe: Observe | None = None) -> str:
    """Run one cell; returns "" or why it failed, which is kept beside it. Runs in any process."""
    cell = job.cell
    task, began = redrawn(job.task, cell.seed, cell.shots, job.keep_valid), time.process_time()
    try:
        model = job.model or _opened(job)
        means = job.means if isinstance(job.means, Means) else Means.from_json(job.means)
        if means.beside and not (job.folder.parent.parent / PLAN).exists():
            means = replace(means, beside="")  # on another machine: the store goes with the run
        with Peak(model) as peak, kept(model, cell.method, means, job.folder) as used:
            fit(cell.method, used, task, seed=cell.seed, folder=job.folder, options=job.options, observe=observe,
                means=means)  # fmt: skip
    except RunStopped:
        raise
    except Exception as error:  # whatever it is: it is told beside the others' scores, and they go on
        said = str(error) if isinstance(error, AnacrusisError) else f"{type(error).__name__}: {error}"
        return failed(job, said)
    spent = used.budget.to_json()["task"] if isinstance(used, Kept) else None
    usage = {"megabytes": peak.megabytes, "cpu_seconds": round(time.process_time() - began, 3), "spent": spent}
    write_json(job.folder / "usage.json", usage)
    return ""


def failed(job: Job, said: str) -> str:
    """Note beside a cell why it has no result."""
    job.folder.mkdir(parents=True, exist_ok=True)
    write_json(job.folder / "usage.json", {"error": said})
    return said


@contextmanager
def kept(model: Any, method: str, means: Means, folder: Path) -> Iterator[Any]:
    """The model; for methods that do not search, one behind an API with the store and the budget that searches have."""
    if model.arrangement != "endpoint" or get(method).engine == "search":
        yield model
        return
    price = Price.parse(means.prices["task"]) if "task" in means.prices else None
    limits = [x for x in parse(means.budget) if x.role in (None, "task")] if means.budget else []
    with means.store_at(folder) as store:
        yield Kept(model, store, limits, price)


def _opened(job: Job) -> Any:
    name, opening = job.opening
    key = (name, json.dumps(opening, sort_keys=True, default=str))
    if key not in _MODELS:
        from ..model.open import open as open_model

        _MODELS[key] = open_model(name, **opening)
    if job.fingerprint and _MODELS[key].fingerprint != job.fingerprint:
        raise RunError(f"{name} has fingerprint {_MODELS[key].fingerprint} here; the comparison's is {job.fingerprint}")
    return _MODELS[key]


def without_test(task: Task) -> Task:
    """For choosing: the test examples stay out of reach."""
    return replace(task, test=())
