"""Runs and comparisons in other people's trackers, written from the journal: TensorBoard and MLflow.

Both only read our folders: nothing here runs while something is learned, and writing twice gives the same again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..errors import MissingExtra, RunError
from ..runs import journal
from ..runs.grid import PLAN
from ..runs.run import Run, load, read_plan

SKIPPED = ("event", "time", "step", "of", "best", "metric")  # of a validation: not measured
OURS = ".anacrusis"  # the end of the names of TensorBoard files that were written here


def runs_of(folder: Path) -> list[Path]:
    """A run's folder itself, or those of a comparison's cells that have begun. Raises RunError for neither."""
    if (folder / "run.json").exists():
        return [folder]
    if (folder / PLAN).exists():
        return sorted(file.parent for file in (folder / "cells").glob("*/run.json"))
    raise RunError(f"{folder} holds neither a run nor a comparison. `anacrusis runs` lists the runs.")


def curves(folder: Path) -> Iterator[tuple[str, int, float, float]]:
    """(what, step, value, seconds since 1970) of every validation in a run's journal."""
    for event in journal.read(folder):
        if event["event"] != "validate":
            continue
        for name, value in event.items():
            if name not in SKIPPED and isinstance(value, int | float):
                yield name, int(event["step"]), float(value), float(event["time"])


def _facts(folder: Path) -> tuple[dict[str, str], dict[str, float], Run | None]:
    """(what was asked for, what came out, the run if it has ended)."""
    plan = read_plan(folder)
    asked = {"method": plan.method, "model": plan.model, "task": plan.task, "seed": str(plan.seed),
             **{f"option.{k}": str(v) for k, v in plan.options.items()}}  # fmt: skip
    if not (folder / "result.json").exists():
        return asked, {}, None
    run = load(folder)
    out = {"parameters": float(run.parameters), "seconds": float(run.seconds)}
    if run.valid is not None:
        out["valid"] = float(run.valid)
    if run.score is not None:
        out |= {f"test.{run.score.metric}": run.score.value, "test.low": run.score.low, "test.high": run.score.high}
    for name in ("calls", "dollars"):
        if run.cost.get(name) is not None:
            out[name] = float(run.cost[name])
    return asked, out, run


def _digest(run: Path, *names: str) -> str:
    """16 hex digits of those of these files that the run has."""
    found = hashlib.blake2b(digest_size=8)
    for name in names:
        content = (run / name).read_bytes() if (run / name).exists() else b""
        found.update(f"{len(content)}:".encode() + content)
    return found.hexdigest()


def _place(run: Path) -> Path:
    """Where a run stands among others: its name, behind that of its comparison."""
    home = run.resolve()
    whole = home.parent.parent
    return Path(whole.name, home.name) if home.parent.name == "cells" and (whole / PLAN).exists() else Path(home.name)


def to_tensorboard(folder: Path, logs: Path) -> int:
    """Write curves and results below `logs`, one folder a run; returns how many runs.

    Files that were written here for the same run are replaced, and no others. Raises MissingExtra without tensorboard,
    RunError where there is nothing to write, or where another run of the same name stands there.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise MissingExtra("tensorboard", "tensorboard", "writing for TensorBoard") from error
    found = runs_of(folder)
    places = {run: (logs / _place(run), f".{_digest(run, 'run.json')}{OURS}") for run in found}
    for target, mark in places.values():  # before anything is written
        if any(not file.name.endswith(mark) for file in target.glob(f"events.out.*{OURS}")):
            raise RunError(f"{target} holds another run of this name: give another folder than {logs}, or remove it")
    for run, (target, mark) in places.items():
        asked, out, _ = _facts(run)
        for old in target.glob(f"events.out.*{mark}"):  # else both would be shown
            old.unlink()
        with SummaryWriter(str(target), filename_suffix=mark) as writer:
            for name, step, value, at in curves(run):
                writer.add_scalar(f"validation/{name}", value, step, walltime=at)
            for name, value in out.items():
                writer.add_scalar(f"result/{name}", value, 0)
            said = "\n".join(f"- {k}: {v}" for k, v in asked.items())
            writer.add_text("run", said)
    return len(found)


def to_mlflow(folder: Path, where: str, experiment: str = "anacrusis") -> int:
    """Log each run to the MLflow server or folder at `where`, with its prompt; returns how many were new or changed.

    A run that was logged before, as far as it has come now, is left alone; the tag that tells so is set last, so one
    whose logging was cut off is logged again. Raises MissingExtra without mlflow.
    """
    try:
        from mlflow import MlflowClient
        from mlflow.entities import Metric, Param, RunTag
    except ImportError as error:
        raise MissingExtra("mlflow-skinny", "mlflow", "logging to MLflow") from error
    client = MlflowClient(tracking_uri=where)
    known = client.get_experiment_by_name(experiment)
    at = known.experiment_id if known is not None else client.create_experiment(experiment)
    written = 0
    for run in runs_of(folder):
        asked, out, ended = _facts(run)
        told = list(curves(run))
        state = _digest(run, "run.json", "journal.jsonl", "result.json")  # names alone recur in every comparison
        if client.search_runs([at], f"tags.`anacrusis.state` = '{state}'", max_results=1):
            continue
        started = client.create_run(at, run_name=str(_place(run)))
        number = started.info.run_id
        metrics: list[Any] = [Metric(f"validation.{n}", v, int(1000 * when), step) for n, step, v, when in told]
        now = int(1000 * (told[-1][3] if told else 0))
        metrics += [Metric(name, value, now, 0) for name, value in out.items()]
        params: list[Any] = [Param(k, v[:500]) for k, v in asked.items()]
        tags: list[Any] = [RunTag("anacrusis.folder", str(_place(run)))]
        for first in range(0, max(1, len(metrics)), 900):  # a server takes a thousand at a time
            client.log_batch(number, metrics[first : first + 900], params if first == 0 else (), tags)
        if ended is not None:
            client.log_artifacts(number, str(run / "prompt"), "prompt")
        client.set_terminated(number, "FINISHED" if ended else "KILLED")
        client.set_tag(number, "anacrusis.state", state)
        written += 1
    return written
