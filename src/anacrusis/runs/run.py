"""fit: learn a prompt, journal it, and be able to go on after a crash."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import torch

from ..errors import ConfigError, RunError, did_you_mean
from ..measure.evaluate import Score, evaluate
from ..measure.intervals import Interval
from ..model.frames import default_frame
from ..prompt import store
from ..prompt.values import Prompt
from ..registry import Method, cast, get, require
from ..search.search import Searching
from ..task import Task
from ..task.splits import pooled
from ..tune.recipe import Problem, Training
from ..tune.trainer import Trainer, seed_of
from . import journal
from .running import at_work, running
from .searching import Means, Result, Session

FRAME_OPTIONS = ("readout", "template", "place")
Observe = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class Plan:
    """A fit as data: what `resume` needs to do it again."""

    method: str
    options: Mapping[str, Any]  # as given: the method's, the trainer's and the frame's
    seed: int
    model: str
    fingerprint: str
    task: str
    source: Mapping[str, Any]  # how the task is read again; empty when it was made in memory
    data: str  # the task's fingerprint
    opening: Mapping[str, Any]  # dtype, device, quantise: how the model was opened
    means: Mapping[str, Any] = field(default_factory=dict)  # of a search: writer, judge, budget, prices, store

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "format": 1}


@dataclass(frozen=True)
class Run:
    """One fit that ended. score: on the test split, or None where the task has none.

    gain: of a search: the prompt's test score minus that of the prompt it started from, paired. cost: of a search:
    calls, tokens and dollars, in total and by role."""

    plan: Plan
    prompt: Prompt
    score: Score | None
    valid: float | None  # validation score of the prompt that was kept
    parameters: int  # trained
    seconds: float  # of learning
    folder: Path | None
    gain: Interval | None = None
    cost: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        said = str(self.score) if self.score else "not scored on test examples"
        if self.cost:
            money = f", ${self.cost['dollars']:.4f}" if self.cost["dollars"] else ""
            gain = (
                f" ({self.gain.value:+.2f} [{self.gain.low:+.2f}, {self.gain.high:+.2f}] over the start)"
                if self.gain
                else ""
            )
            return f"{said}{gain}, {self.cost['calls']:,} calls{money}, {self.seconds:.0f} s"
        return f"{said}, {self.parameters / 1000:.1f} k parameters, {self.seconds:.0f} s"


def runs_folder() -> Path:
    """Where runs go: $ANACRUSIS_RUNS, otherwise ./anacrusis-runs."""
    return Path(os.environ.get("ANACRUSIS_RUNS", "anacrusis-runs"))


def fit(
    method: str,
    model: Any,
    task: Task,
    *,
    seed: int = 0,
    folder: str | os.PathLike[str] | None = None,
    options: Mapping[str, Any] | None = None,
    observe: Observe | None = None,
    means: Means | None = None,
) -> Run:
    """Learn a prompt for `model` on `task`.

    method: a name from `anacrusis methods`. options: of the method, of the trainer (tune.recipe.Training) and of the
    frame (readout, template, place), by name. folder: of the run; one that holds an unfinished run of the same plan
    is continued, a finished one is read. None: a new one under `runs_folder()`. means: what a search may use: writer,
    judge, budget, prices, store.
    Raises ConfigError, ModelError before anything is computed when method, model and task do not fit.
    """
    chosen = get(method)
    require(chosen, model, task)
    config, training, frame_options = divide(chosen, options or {})
    means = means or Means()
    used = means.to_json() if chosen.engine == "search" else {}
    plan = Plan(method, dict(options or {}), seed, model.name, model.fingerprint, task.name, dict(task.source),
                task.fingerprint, dict(model.opening), used)  # fmt: skip
    path = Path(folder) if folder is not None else _new_folder(plan)
    session = None
    if isinstance(training, Searching) and not (path / "result.json").exists():
        session = Session(chosen, training, frame_options, model, task, seed=seed, means=means)
    _begin(path, plan)
    if (path / "result.json").exists():
        return load(path)
    first = int(os.environ.get("RANK", "0")) == 0  # of several processes that train together, one writes
    place = path if first else path / f"process-{os.environ['RANK']}"
    place.mkdir(parents=True, exist_ok=True)
    with journal.Journal(place) as log, at_work(place) as stop:

        def tell(event: dict[str, Any]) -> None:
            if event["event"] not in ("step", "search"):  # they are for the eye; validations are for the record
                log.append({"time": round(time.time(), 3), **event})
            if observe is not None:
                observe(event)
            if event["event"] in ("step", "search"):
                stop()

        tell({"event": "fit", "method": method, "model": model.name, "task": task.describe(), "folder": str(path)})
        if session is not None:
            run = _searched(session.learn(config, path, tell), plan, config, path, learned_from(task))
        else:
            assert isinstance(training, Training)
            frame, generator = default_frame(model, task, **frame_options), torch.Generator()
            if "class-texts" in chosen.needs and frame.readout != "match":
                raise ConfigError(f"readout is {frame.readout!r}, and {method} learns on class texts: readout=match")
            problem = Problem(model, task, frame, generator.manual_seed(seed_of(seed, "build")), training)
            if "template" in frame_options and chosen.engine in ("tune", "adapt") and "images" in model.can:
                raise ConfigError(f"{method} writes its own class texts: leave template out (zero-shot takes one)")
            run = _learn(chosen, config, problem, plan, path, tell)
        if first:
            _finish(run, path)
        tell({"event": "done", "score": run.score.to_json() if run.score else None, "seconds": run.seconds})
    return run


def _learn(method: Method, config: Any, problem: Problem, plan: Plan, path: Path, tell: Observe) -> Run:
    began = time.monotonic()
    if method.engine == "baseline":
        prompt = method.build(config, problem)
        valid, count, seconds = None, sum(t.numel() for t in prompt.tensors().values()), time.monotonic() - began
    elif method.engine == "adapt":
        from ..adapt.prompts import keep

        prompt = keep(method.build(config, problem), method.name, config)
        valid, count, seconds = None, sum(t.numel() for t in prompt.tensors().values()), time.monotonic() - began
    else:
        recipe = method.build(config, problem)
        for note in recipe.notes:
            tell({"event": "note", "text": note})
        trained = Trainer(problem, recipe, seed=plan.seed, observe=tell, folder=path).fit()
        prompt, valid, count, seconds = trained.prompt, trained.score, trained.parameters, trained.seconds
    prompt = prompt.with_card(
        model=plan.model, fingerprint=plan.fingerprint, method=plan.method, task=plan.task, data=plan.data,
        seed=plan.seed, parameters=count, seconds=round(seconds, 1), config=asdict(config),
        training=asdict(problem.training) if method.engine == "tune" else {},
        shots=dict(plan.source.get("split", {})).get("shots"), learned=learned_from(problem.task), **_drawn(plan),
    )  # fmt: skip
    score = None
    if problem.task.test:  # read once, when nothing is decided any more
        tell({"event": "phase", "text": f"scoring {len(problem.task.test)} test examples"})
        score = evaluate(prompt, problem.model, problem.task)
        prompt = prompt.with_card(scores=_score_rows(score))
    return Run(plan, prompt, score, valid, count, seconds, path)


def _searched(result: Result, plan: Plan, config: Any, path: Path, learned: str) -> Run:
    """A search's result as a Run, with all of it in the prompt's card. learned: of `learned_from`."""
    score, seconds = result.score, result.cost["seconds"]
    count = sum(t.numel() for t in result.prompt.tensors().values())
    rows = _score_rows(score) if score else []
    if result.start is not None:
        rows += [{**r, "of": "the starting prompt"} for r in _score_rows(result.start)]
    card = {"model": plan.model, "fingerprint": plan.fingerprint, "method": plan.method, "task": plan.task,
            "data": plan.data, "seed": plan.seed, "parameters": count, "seconds": seconds, "config": asdict(config),
            "cost": result.cost, "gain": asdict(result.gain) if result.gain else None, "notes": list(result.notes),
            "scores": rows, "answer_tokens": result.answer_tokens,
            "shots": dict(plan.source.get("split", {})).get("shots"), "learned": learned, **_drawn(plan)}  # fmt: skip
    return Run(
        plan, result.prompt.with_card(**card), score, result.valid, count, seconds, path, result.gain, result.cost
    )


def learned_from(task: Task) -> str:
    """16 hex digits of the training and validation examples together, in whatever order they are read."""
    return pooled((*task.train, *task.valid))


def _drawn(plan: Plan) -> dict[str, Any]:
    """For the card, of a run that a comparison drew: the seed of the test examples, and how the others were drawn."""
    steps = [list(given) for name, *given in plan.source.get("steps", ()) if name == "redrawn"]
    return {"split_seed": plan.source["split"]["seed"], "redrawn": steps[-1]} if steps else {}


def _score_rows(score: Score) -> list[dict[str, Any]]:
    rows = [{"split": score.split, "metric": score.metric, "value": score.value, "low": score.low,
             "high": score.high, "n": score.n}]  # fmt: skip
    return rows + [
        {"split": score.split, "metric": k, "value": i.value, "low": i.low, "high": i.high, "n": i.n}
        for k, i in score.others.items()
    ]


def divide(method: Method, options: Mapping[str, Any]) -> tuple[Any, Training | Searching, dict[str, str]]:
    """Sort options by whom they belong to. Raises ConfigError with the nearest known name for any other."""
    own = {f.name for f in fields(method.config)}
    engine: dict[str, type] = {"tune": Training, "search": Searching}
    trainer = {f.name for f in fields(engine[method.engine])} if method.engine in engine else set()
    for name in options:
        if name not in own | trainer | set(FRAME_OPTIONS):
            known = own | trainer | set(FRAME_OPTIONS)
            raise ConfigError(f"{method.name} has no option {name!r}.{did_you_mean(name, known)}")
    given = {k: v for k, v in options.items() if k in trainer - own}
    training: Training | Searching
    if method.engine == "search":
        known_ = {f.name: f for f in fields(Searching)}
        training = Searching(**{**method.training, **{k: cast(known_[k], v) for k, v in given.items()}})
    else:
        training = Training(**method.training).changed(given)
    config = method.configure({k: v for k, v in options.items() if k in own})
    return config, training, {k: str(v) for k, v in options.items() if k in FRAME_OPTIONS}


def _new_folder(plan: Plan) -> Path:
    stamp = time.strftime("%Y%m%d-%H%M%S")
    base = runs_folder() / f"{stamp}-{plan.task}-{plan.method}".replace(os.sep, "-").replace(" ", "-")
    path, n = base, 1
    while path.exists():
        n += 1
        path = base.with_name(f"{base.name}-{n}")
    return path


def _begin(path: Path, plan: Plan) -> None:
    """Write the plan, or compare it with the one that is there."""
    file = path / "run.json"
    if not file.exists():
        path.mkdir(parents=True, exist_ok=True)
        store.write_json(file, plan.to_json())
        return
    before, now = read_plan(path).to_json(), json.loads(json.dumps(plan.to_json()))
    changed = [k for k in now if k != "source" and before.get(k) != now[k]]
    if changed:
        k = changed[0]
        raise RunError(
            f"the folder {path} holds another run: its {k} is {before.get(k)!r}, now it is {now[k]!r}. "
            f"Give another folder, or the same {k} to continue it."
        )


def _finish(run: Run, path: Path) -> None:
    store.save(run.prompt, path / "prompt")
    record = {"format": 1, "score": run.score.to_json() if run.score else None, "valid": run.valid,
              "parameters": run.parameters, "seconds": run.seconds,
              "predictions": run.score.predictions if run.score and isinstance(run.score.predictions, list)
              else run.score.predictions.tolist() if run.score else None,
              "gain": asdict(run.gain) if run.gain else None, "cost": dict(run.cost)}  # fmt: skip
    store.write_json(path / "result.json", record)
    for old in path.glob("checkpoint*"):
        old.unlink()


def read_plan(path: Path) -> Plan:
    """The plan of a run's folder. Raises RunError when it holds none."""
    file = path / "run.json"
    if not file.exists():
        raise RunError(f"no run in {path}: run.json is missing. `anacrusis runs` lists the runs.")
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
        return Plan(**{f.name: record[f.name] for f in fields(Plan) if f.name in record or f.name != "means"})
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise RunError(f"{file} is damaged: {error}") from error


def load(folder: str | os.PathLike[str]) -> Run:
    """A finished run. Raises RunError when there is none, or it has not ended."""
    import numpy as np

    from ..measure.intervals import Interval

    path = Path(folder)
    plan = read_plan(path)
    if not (path / "result.json").exists():
        raise RunError(f"the run in {path} has not ended. Continue it: anacrusis resume {path.name}")
    record = json.loads((path / "result.json").read_text(encoding="utf-8"))
    score = None
    if said := record["score"]:
        others = {k: Interval(**v) for k, v in said["others"].items()}
        found = record["predictions"]
        found = found if found and isinstance(found[0], str) else np.asarray(found)
        score = Score(**{**said, "others": others}, predictions=found)
    gain = Interval(**record["gain"]) if record.get("gain") else None
    return Run(plan, store.load(path / "prompt"), score, record["valid"], record["parameters"], record["seconds"], path,
               gain, record.get("cost", {}))  # fmt: skip


def resume(folder: str | os.PathLike[str], *, observe: Observe | None = None) -> Run:
    """Continue a run from its folder alone. Raises RunError when its data or model is not what it was."""
    from ..model.open import open as open_model

    path = Path(folder)
    plan = read_plan(path)
    if not plan.source:
        raise RunError(
            f"the run in {path} learned from data in memory; call fit(..., folder={str(path)!r}) with the same task"
        )
    task = Task.from_source(plan.source)
    if task.fingerprint != plan.data:
        raise RunError(f"the data of {path} has changed since the run began: {task.describe()}. Start a new run.")
    model = open_model(plan.model, **plan.opening)
    if model.fingerprint != plan.fingerprint:
        raise RunError(f"{plan.model} has fingerprint {model.fingerprint}; the run began with {plan.fingerprint}")
    task = replace(task, name=plan.task)
    means = Means.from_json(plan.means) if plan.means else None
    return fit(
        plan.method, model, task, seed=plan.seed, folder=path, options=plan.options, observe=observe, means=means
    )


def listing(root: Path | None = None) -> Iterator[dict[str, Any]]:
    """One record a run or comparison, newest first: name, status, method, model, task, score."""
    root = root or runs_folder()
    if not root.is_dir():
        return
    files = [file for mark in ("run.json", "compare.json") for file in root.glob(f"*/{mark}")]
    for file in sorted(files, key=lambda f: f.stat().st_mtime, reverse=True):
        try:
            yield _compared(file.parent) if file.name == "compare.json" else _record(file.parent)
        except (RunError, KeyError, TypeError, ValueError) as error:  # one damaged run must not hide the others
            yield {"name": file.parent.name, "status": f"damaged: {error}"}


def _record(path: Path) -> dict[str, Any]:
    plan = read_plan(path)
    entry: dict[str, Any] = {"name": path.name, "method": plan.method, "model": plan.model, "task": plan.task}
    if (path / "result.json").exists():
        record = json.loads((path / "result.json").read_text(encoding="utf-8"))
        return {**entry, "status": "done", "score": record["score"], "seconds": record["seconds"],
                "cost": record.get("cost", {})}  # fmt: skip
    state = "running" if running(path) is not None else "unfinished"
    if plan.means:
        return {**entry, "status": f"{state}, {_searched_so_far(plan, path)}"}
    steps = [e for e in journal.read(path) if e.get("event") == "validate"]
    last = f"{steps[-1]['step']} of {steps[-1]['of']} steps" if steps else "nothing kept yet"
    return {**entry, "status": f"{state}, {last}"}


def _compared(path: Path) -> dict[str, Any]:
    """A comparison: its best row stands for it."""
    from .grid import grid_of, read

    plan = read(path)
    cells = grid_of(plan).cells
    ended = sum((path / "cells" / c.name / "result.json").exists() for c in cells)
    state = "done" if ended == len(cells) else "running" if running(path) is not None else "unfinished"
    entry: dict[str, Any] = {
        "name": path.name, "status": f"{state}, {ended} of {len(cells)} runs", "model": plan["model"],
        "task": plan["task"], "method": f"compares {len(plan['methods'])} methods",
    }  # fmt: skip
    board = path / "leaderboard.json"
    if board.exists():
        said = json.loads(board.read_text(encoding="utf-8"))
        best = [r for r in said["rows"] if r["standing"] == "best"]
        if best:
            entry |= {"best": best[-1]["method"], "score": {"metric": said["metric"], **best[-1]["score"]}}
    return entry


def _searched_so_far(plan: Plan, path: Path) -> str:
    """How far a search came, from its store; a store that cannot be reached says so."""
    means = Means.kept_by(plan.means)
    if not means.begun(path):
        return "nothing asked yet"
    try:
        with means.store_at(path) as store:
            events = store.events()
    except (ConfigError, RunError):  # no password, or no server
        return "its store cannot be reached"
    spent = events[-1]["spent"] if events else {}
    calls = sum(account["calls"] for account in spent.values())
    return f"{len(events)} requests, {calls:,} calls"
