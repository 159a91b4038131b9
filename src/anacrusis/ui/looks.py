"""What the pages show of a folder of runs, read from the runs' own files. Nothing here changes them.

A run or comparison is in one of the states of STATES; one that is broken in whatever way is "damaged", and hides no
other. What is read of files that may be large is kept as long as they do not change.
"""

from __future__ import annotations

import json
import math
import os
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from ..errors import AnacrusisError, RunError
from ..report import leaderboard
from ..report import search as searches
from ..report.details import spoken
from ..report.leaderboard import Board
from ..runs import grid, journal
from ..runs.run import Plan, read_plan
from ..runs.running import RUNNING, STOP, running
from ..search.candidate import FRAME_PARTS, Candidate, frozen
from ..search.ledger import Scored
from ..search.person import ByFile

STATES = {
    "running": "running here", "stopping": "stopping", "starting": "starting", "waiting": "waits for a person",
    "unfinished": "unfinished", "done": "done", "failed": "failed", "damaged": "damaged",
    "elsewhere": "on another machine",
}  # fmt: skip
ALIVE = ("running", "stopping", "starting", "elsewhere")
Signature = tuple[tuple[int, int], ...]  # of files: when they changed and how long they are


@dataclass(frozen=True)
class Look:
    """A run or a comparison at a glance.

    state: one of STATES. progress: how far it is, in words; share: the same of 0..1, where that is known. score: of the
    test split, or None. best: of a comparison, the method with the highest score and which are not distinguishable from
    it; failed: how many of its runs have. at: when it began, seconds since 1970.
    """

    name: str
    folder: Path
    comparison: bool
    state: str
    progress: str = ""
    share: float | None = None
    method: str = ""
    model: str = ""
    task: str = ""
    score: Mapping[str, Any] | None = None
    best: str = ""
    failed: int = 0
    at: float = 0.0

    @property
    def said(self) -> str:
        return STATES[self.state]

    @property
    def page(self) -> str:
        return "compare" if self.comparison else "run"


def directly(root: Path, name: str) -> Path | None:
    """What is called `name` directly in `root`; None for any other name, whatever it resolves to, and for links out."""
    if name in ("", ".", "..") or any(c in name for c in "/\\\0"):
        return None
    try:
        name.encode()  # no address holds a name that is not UTF-8
        return root / name if (root / name).resolve().parent == root.resolve() else None
    except (OSError, ValueError, RuntimeError):  # a name that no file can have, a circle of links
        return None


def child(root: Path, *names: str) -> Path | None:
    """The folder at the end of `names`, each directly in the one before it; None for anything else."""
    for name in names:
        path = directly(root, name)
        if path is None or not os.path.isdir(path):
            return None
        root = path
    return root


def folders(root: Path) -> list[Path]:
    """Of all runs and comparisons in `root`."""
    every = root.iterdir() if root.is_dir() else ()
    return [p for p in every if child(root, p.name) and (is_run(p) or is_comparison(p))]


def is_run(folder: Path) -> bool:
    return os.path.isfile(folder / "run.json") and not is_comparison(folder)


def is_comparison(folder: Path) -> bool:
    return os.path.isfile(folder / grid.PLAN)  # False, and no error, where the folder may not be read


def look(folder: Path) -> Look:
    """One run or comparison. What cannot be read is "damaged", with the reason as its progress."""
    comparison = is_comparison(folder)
    changed, _ = signature(folder / (grid.PLAN if comparison else "run.json"))[0]
    empty = Look(folder.name, folder, comparison, "damaged", at=changed / 1e9)
    return guarded(empty, _comparison if comparison else _run)


def guarded(empty: Look, fill: Callable[[Look], Look]) -> Look:
    """What `fill` makes of it; damaged where that fails: there is no end to the ways in which a file can be broken."""
    try:
        return fill(empty)
    except Exception as error:
        return replace(empty, state="damaged", progress=reason(error))


def reason(error: Exception) -> str:
    """What went wrong, for the page. An error that is not ours comes of a damaged file."""
    ours = isinstance(error, (AnacrusisError, OSError))
    return str(error) if ours else f"a file is damaged: {type(error).__name__}: {error}"


def elsewhere(folder: Path) -> str:
    """The other machine that says it works on the run, or "". Whether it still does cannot be seen from here."""
    try:
        host = str(json.loads((folder / RUNNING).read_text(encoding="utf-8"))["host"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):  # nobody has said so
        return ""
    return host if host != socket.gethostname() else ""


def _at_work(folder: Path) -> str:
    """Which of the states of a run that goes on, or "" where it does not."""
    if running(folder) is None:
        return "elsewhere" if elsewhere(folder) else ""
    return "stopping" if (folder / STOP).exists() else "running"


def _interval(said: Mapping[str, Any] | None, metric: str) -> Mapping[str, Any] | None:
    """A score as the pages show it."""
    return said and {"metric": str(metric), **{k: float(said[k]) for k in ("value", "low", "high")}}


# --- a run


def _run(empty: Look) -> Look:
    folder, plan = empty.folder, read_plan(empty.folder)
    known = replace(empty, method=plan.method, model=plan.model, task=plan.task)
    if (folder / "result.json").exists():
        record = result(folder)
        score = _interval(record["score"], (record["score"] or {}).get("metric", ""))
        return replace(known, state="done", score=score, progress=_learned(record), share=1.0)
    at_work = _at_work(folder)
    state = at_work or ("waiting" if waits(folder) else "unfinished")
    if plan.means:
        return replace(known, state=state, progress=_searched(folder, plan))
    steps = validations(folder)
    if not steps:
        return replace(known, state=state, progress=phase(folder) if at_work else "nothing kept yet")
    last = steps[-1]
    best = max(s["score"] for s in steps)
    name = "loss" if by_loss(last) else last["metric"]
    said = f"{last['step']:,} of {last['of']:,} steps, best {name} {abs(best):.3f}"
    return replace(known, state=state, progress=said, share=last["step"] / max(1, last["of"]))


def _learned(record: Mapping[str, Any]) -> str:
    if cost := record.get("cost"):
        money = f", ${cost['dollars']:.4f}" if cost["dollars"] else ""
        return f"{cost['calls']:,} calls{money}, {record['seconds']:.0f} s"
    return f"{record['parameters']:,} parameters, {record['seconds']:.1f} s"


def _searched(folder: Path, plan: Plan) -> str:
    try:
        course = history(folder, plan)
    except AnacrusisError as error:  # not begun, no password, no server
        return "nothing asked yet" if "has not begun" in str(error) else str(error)
    requests = sum(n for _, n in course.requests)
    calls = sum(c["calls"] for c in course.spent.values())
    return f"{requests:,} requests, {calls:,} calls, {len(course.candidates)} candidates"


def waits(folder: Path) -> int:
    """How many pairs wait for a person in a run that has not ended."""
    if (folder / "result.json").exists():
        return 0
    return len(ByFile(folder).open_pairs())


def result(folder: Path) -> dict[str, Any]:
    """A finished run's result.json, without its predictions."""
    return _result(folder / "result.json", signature(folder / "result.json"))


@lru_cache(maxsize=2000)
def _result(file: Path, _: Signature) -> dict[str, Any]:
    record = json.loads(file.read_text(encoding="utf-8"))
    return {k: v for k, v in record.items() if k != "predictions"}


def events(folder: Path) -> Sequence[dict[str, Any]]:
    """The run's journal. Raises RunError where it is damaged."""
    return _events(folder, signature(folder / "journal.jsonl"))


@lru_cache(maxsize=200)
def _events(folder: Path, _: Signature) -> Sequence[dict[str, Any]]:
    return tuple(journal.read(folder))


def validations(folder: Path) -> list[dict[str, Any]]:
    """The validations of a run by step: one that was resumed further back has done some of them again."""
    by_step = {e["step"]: e for e in events(folder) if e.get("event") == "validate"}
    return [by_step[s] for s in sorted(by_step)]


def by_loss(step: Mapping[str, Any]) -> bool:
    """Whether a validation judged by the loss, as it does where answers are written."""
    return bool(step["score"] == -step["loss"])


def phase(folder: Path) -> str:
    """What a run that has not validated yet is at."""
    texts = [e["text"] for e in events(folder) if e.get("event") == "phase"]
    return texts[-1] if texts else "begun"


def history(folder: Path, plan: Plan) -> searches.History:
    """The course of a search. Raises RunError, ConfigError where its store cannot be read."""
    address = str(plan.means.get("store") or "")
    file = Path(address.removeprefix("sqlite:///")) if address else folder / "search.sqlite"
    files = (file, Path(f"{file}-wal"), folder / "result.json")
    return _history(folder, signature(*files))


@lru_cache(maxsize=50)
def _history(folder: Path, _: Signature) -> searches.History:
    return searches.read(folder)


def signature(*files: Path) -> Signature:
    out = []
    for file in files:
        try:
            stat = file.stat()
            out.append((stat.st_mtime_ns, stat.st_size))
        except OSError:
            out.append((0, 0))
    return tuple(out)


# --- a comparison


def _comparison(empty: Look) -> Look:
    folder, plan = empty.folder, grid.read(empty.folder)
    every = cells(folder, plan)
    ended = sum(c.state in ("done", "failed") for c in every)
    failed = sum(c.state == "failed" for c in every)
    open_ = any(c.state == "waiting" for c in every)
    state = _at_work(folder) or ("done" if ended == len(every) else "waiting" if open_ else "unfinished")
    said = f"{ended} of {len(every)} runs ended" + (f", {failed} failed" if failed else "")
    methods = ", ".join(plan["methods"])
    best, score = _best(folder)
    began = float(plan.get("began", empty.at))
    return replace(empty, state=state, progress=said, share=ended / max(1, len(every)), method=methods, best=best,
                   failed=failed, model=plan["model"], task=plan["task"], score=score,
                   at=began if math.isfinite(began) else empty.at)  # fmt: skip


def cells(folder: Path, plan: Mapping[str, Any]) -> list[Look]:
    """The runs of a comparison in their order; one that has not begun is unfinished."""

    def cell(c: grid.Cell) -> Look:
        none = Look(c.name, folder / "cells" / c.name, False, "unfinished", "not begun", method=c.method)
        return guarded(none, _cell) if child(folder, "cells", c.name) else none

    return [cell(c) for c in grid.grid_of(plan).cells]


def _cell(none: Look) -> Look:
    found = look(none.folder) if is_run(none.folder) else none
    usage = none.folder / "usage.json"
    if found.state in ("done", "damaged", "waiting", *ALIVE) or not usage.exists():
        return found
    why = json.loads(usage.read_text(encoding="utf-8")).get("error", "")
    return replace(found, state="failed", progress=why) if why else found


def _best(folder: Path) -> tuple[str, Mapping[str, Any] | None]:
    """(what is best, its score) of the leaderboard that the comparison wrote when it last ended."""
    file = folder / "leaderboard.json"
    if not file.exists():
        return "", None
    said = json.loads(file.read_text(encoding="utf-8"))
    if not said["rows"]:
        return "", None
    last = [r for r in said["rows"] if r["shots"] == said["rows"][-1]["shots"]]
    tied = [r["method"] for r in last if r["standing"] == "tied"]
    more = f"; not distinguishable: {', '.join(tied)}" if tied else ""
    return f"{last[0]['method']}{more}", _interval(last[0]["score"], said["metric"])


def board(folder: Path) -> Board:
    """The comparison's leaderboard, of what has ended. Raises AnacrusisError where there is none to be had."""
    if child(folder, "cells") is None:
        raise RunError(f"{folder / 'cells'} is missing, or a link to elsewhere")
    files = sorted((folder / "cells").glob("*/result.json"))
    return _board(folder, signature(folder / grid.PLAN, *files))


@lru_cache(maxsize=10)
def _board(folder: Path, _: Signature) -> Board:
    return leaderboard.board(folder)


# --- what a search or a prompt says


def prompt(folder: Path) -> dict[str, str]:
    """What a finished run's prompt says, by slot."""
    frame = json.loads((folder / "prompt" / "prompt.json").read_text(encoding="utf-8"))["frame"]
    parts = {k: frozen(frame[k]) for k in FRAME_PARTS if frame.get(k)}
    return {k: text for k, text in spoken(Candidate(parts)).items() if text}


def ranked(course: searches.History) -> list[Scored]:
    """Candidates, the winner first, then by score; those seen on fewer than half of the most examples at the end."""
    enough = max((s.n for s in course.candidates), default=0) // 2
    return sorted(course.candidates, key=lambda s: (s.id == course.chosen, s.n >= enough, *s.rank), reverse=True)


def best_so_far(course: searches.History) -> list[tuple[float, float, float, float]]:
    """(number of the candidate, best mean until then, twice) where that rose, and at the end; of candidates that were
    seen on at least half of the most examples."""
    enough = max((s.n for s in course.candidates), default=0) / 2
    out: list[tuple[float, float, float, float]] = []
    for i, s in enumerate(course.candidates, 1):
        if s.n and s.n >= enough and (not out or s.mean > out[-1][1]):
            out.append((float(i), s.mean, s.mean, s.mean))
    if out and out[-1][0] < len(course.candidates):
        out.append((float(len(course.candidates)), *out[-1][1:]))
    return out
