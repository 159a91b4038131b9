"""What a person sees: progress on stderr, tables on stdout. User data is never read as Rich's markup."""

from __future__ import annotations

import json
import os
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from rich import box
from rich.console import Console
from rich.progress import BarColumn, SpinnerColumn, TaskID, TextColumn
from rich.progress import Progress as RichProgress
from rich.table import Table

WIDE = 100  # columns from which there is room for a bar and all of its numbers
PIPED_WIDTH = 200  # columns of a table that is not written to a terminal: rows stay whole for grep and awk
NARROWEST = 14  # columns that a table's second and further columns need, the gap before them included
LINE_SECONDS = 10.0  # between two lines of progress where there is no terminal


def _console(stderr: bool) -> Console:
    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() or "COLUMNS" in os.environ else PIPED_WIDTH
    return Console(stderr=stderr, markup=False, emoji=False, highlight=False, width=width)


def out() -> Console:
    return _console(stderr=False)


def err() -> Console:
    return _console(stderr=True)


def say(*lines: str, style: str = "") -> None:
    """Lines for people on stderr."""
    console = err()
    for line in lines:
        console.print(line, style=style or None, soft_wrap=not console.is_terminal)


def emit(record: Any) -> None:
    """One JSON value on stdout."""
    print(to_json(record), flush=True)


def to_json(record: Any) -> str:
    spelled = "utf" in (sys.stdout.encoding or "").lower()  # other encodings cannot write every character
    return json.dumps(record, ensure_ascii=not spelled, allow_nan=False)


def tree(title: str, branches: Sequence[Any]) -> None:
    """A tree on stdout. branches: (text, branches) pairs."""
    from rich.text import Text
    from rich.tree import Tree

    root = Tree(Text(title))

    def grow(at: Tree, several: Sequence[Any]) -> None:
        for text, below in several:
            grow(at.add(Text(text)), below)

    grow(root, branches)
    out().print(root)


def table(heads: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[str] = ()) -> None:
    """A table on stdout. right: the heads of columns with numbers. Nothing is cut off, and first cells never wrap.

    Where the terminal leaves the other columns too little room, each row becomes a block of lines.
    """
    console = out()
    first = max(len(row[0]) for row in rows)
    if first + (len(heads) - 1) * NARROWEST > console.width:
        for row in rows:
            line(row[0], style="bold")
            for head, cell in zip(heads[1:], row[1:], strict=True):
                line(f"  {head}: {cell}")
        return
    made = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold")
    for i, head in enumerate(heads):
        made.add_column(head, justify="right" if head in right else "left", overflow="fold", no_wrap=i == 0)
    for row in rows:
        made.add_row(*row)
    console.print(made)


def facts(rows: Sequence[tuple[str, str]]) -> None:
    """Names and values on stdout, one pair a line."""
    wide = max(len(name) for name, _ in rows)
    for name, value in rows:
        line(f"{name:<{wide}}  {value}")


def line(text: str = "", style: str = "") -> None:
    """A line for people on stdout."""
    console = out()
    console.print(text, style=style or None, soft_wrap=not console.is_terminal)


def shown(path: str | Path) -> str:
    """A path as it is typed: relative where it lies below the working folder, quoted where the shell needs it."""
    path = Path(path)
    try:
        path = path.absolute().relative_to(Path.cwd())
    except ValueError:
        pass
    return shlex.quote(str(path))


def between(value: float, low: float, high: float, form: str = ".3f") -> str:
    return f"{value:{form}} [{low:{form}}, {high:{form}}]"


class Answers:
    """Writes answers to stdout as they come: one a line, or the items of one JSON list.

    When something goes wrong in the middle of a list, its last item is {"error": ...}, so that it is still JSON.
    """

    def __init__(self, as_json: bool):
        self.as_json, self.items = as_json, 0

    def __enter__(self) -> Answers:
        return self

    def __call__(self, inputs: Sequence[str], answer: Any, scores: Any) -> None:
        if self.as_json:
            given = inputs[0] if len(inputs) == 1 else list(inputs)
            self._item({"input": given, "answer": answer, "scores": scores})
        elif isinstance(answer, tuple):
            print("|".join(answer) or "|")
        else:
            print("" if answer is None else " ".join(str(answer).splitlines()))

    def flush(self) -> None:
        sys.stdout.flush()

    def _item(self, record: Any) -> None:
        print(",\n " if self.items else "[", to_json(record), sep="", end="")
        self.items += 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self.as_json or isinstance(error, BrokenPipeError):
            return
        if error is not None:
            if not self.items:
                return  # nothing is written yet: the error is told as for any other command
            self._item({"error": str(error) or "stopped"})
            error.told = True  # type: ignore[attr-defined]
        print("]" if self.items else "[]", flush=True)


class Progress:
    """Shows a run's events on stderr: a bar on a terminal, a line now and then elsewhere, nothing when quiet."""

    def __init__(self, quiet: bool = False):
        self.quiet = quiet
        self.folder: Path | None = None  # of the run, as soon as its first event tells
        self.started = False
        self.title = ""  # stands before every text, e.g. the method that runs
        self.best = ""
        self._cells = self._cells_first = self._cells_of = 0  # of a grid: ended, ended before, all
        self._line_at = self._began = self._cells_began = time.monotonic()
        self._first = 0  # the step that this process began with
        self._narrow = False
        self._bar: RichProgress | None = None
        self._task: TaskID = TaskID(0)
        console = err()
        if not quiet and console.is_terminal and not console.is_dumb_terminal:
            self._narrow = console.width < WIDE
            self._bar = RichProgress(
                SpinnerColumn(), TextColumn("{task.description}", markup=False),
                *([] if self._narrow else [BarColumn(20)]),
                TextColumn("{task.fields[counts]}", markup=False), console=console, transient=True,
            )  # fmt: skip

    def __enter__(self) -> Progress:
        if self._bar is not None:
            self._bar.start()
            self._task = self._bar.add_task("", total=None, counts="", visible=False)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def __call__(self, event: dict[str, Any]) -> None:
        """What `fit(..., observe=)` calls. Events that nobody has to see are passed over."""
        kind = event["event"]
        if kind == "fit":
            self.started = True
            self.folder = Path(event["folder"]) if "folder" in event else None
        elif kind == "phase":
            self.phase(event["text"])
        elif kind == "note":
            self.note(event["text"])
        elif kind == "search":
            self._search(event)
        elif kind in ("grid", "job", "cell"):
            self._grid(event)
        elif kind == "begin":
            self._begin(f"learning {event['parameters']:,} parameters", event["steps"], 0)
        elif kind == "resumed":
            self.note(f"going on at step {event['step']} of {event['of']}")
            self._begin("learning", event["of"], event["step"])
        elif kind == "validate":
            self._validated(event)
        elif kind == "step":
            self._step(event["step"], event["of"], f"loss {event['loss']:.3f}")

    def phase(self, text: str, *, brief: bool = False) -> None:
        """What happens now, of unknown length. brief: not worth a line where lines stay."""
        text = self._titled(text)
        if self._bar is not None:
            self._bar.update(self._task, description=text, total=None, completed=0, counts="", visible=True)
        elif not self.quiet and not brief:
            say(text)

    def note(self, text: str) -> None:
        """A sentence that stays on the screen."""
        if self._bar is not None:
            self._bar.console.print(f"note: {text}", style="yellow")
        elif not self.quiet:
            say(f"note: {text}")

    def count(self, text: str, total: int) -> _Count:
        """Shows how many of `total` examples are done: call the result with the number that came to it."""
        self._begin(text, total, 0)
        return _Count(self, total)

    def _search(self, event: dict[str, Any]) -> None:
        """How far a search is: the best score, what is spent, what is left of the tightest limit."""
        now = time.monotonic()
        best = "" if event["best"] is None else f"best {event['best']:.3f}"
        spent = f"{event['calls']:,} calls" + (f", ${event['dollars']:.4f}" if event["dollars"] else "")
        tight = max(event["left"], key=lambda x: x["share"], default=None)
        left = f"{tight['share']:.0%} of {tight['limit']}" if tight else ""
        ends = [event["seconds_left"]] if event.get("seconds_left") is not None else []
        if tight and 0.02 < tight["share"] < 1:
            ends.append((now - self._began) * (1 - tight["share"]) / tight["share"])
        if ends:
            left += f"{', ' if left else ''}{_duration(min(ends))} left at most"
        said = "  ".join(p for p in (f"{event['candidates']} candidates", best, spent, left) if p)
        if self._bar is not None:
            share = int(1000 * tight["share"]) if tight else 0
            total = 1000 if tight else None
            text = self._titled("searching")
            self._bar.update(self._task, description=text, total=total, completed=share, counts=said, visible=True)
        elif not self.quiet and now - self._line_at >= LINE_SECONDS:
            self._line_at = now
            say(self._titled(f"searching: {said}"))

    def _grid(self, event: dict[str, Any]) -> None:
        """How far a grid of fits is. Where fits run here, their own progress stands behind the grid's."""
        if event["event"] == "grid":
            self._cells, self._cells_first, self._cells_began = event["done"], event["done"], time.monotonic()
            self._cells_of, self.started = event["of"], True
            if event["done"]:
                self.note(f"{event['done']} of {event['of']} runs have ended before")
            if event.get("apart"):
                self._begin("fitting", event["of"], event["done"])
        elif event["event"] == "job":
            self.title = f"[{self._cells + 1}/{self._cells_of}{self._cells_left()}] {event['name']}"
            self.phase("fitting")
        else:
            self._cells = event["done"]
            if event["error"]:
                self.note(f"{event['name']} failed: {event['error']}")
            if event.get("apart"):
                self._step(event["done"], event["of"], f"last: {event['name']}")
            elif event["done"] == event["of"]:
                self.title = ""

    def _cells_left(self) -> str:
        ended = self._cells - self._cells_first
        if not ended:
            return ""
        pace = (time.monotonic() - self._cells_began) / ended
        return f", about {_duration(pace * (self._cells_of - self._cells))} left"

    def _titled(self, text: str) -> str:
        return f"{self.title}: {text}" if self.title else text

    def _begin(self, text: str, total: int, first: int) -> None:
        self.best, self._first, self._began = "", first, time.monotonic()
        self._line_at = self._began
        text = self._titled(text)
        if self._bar is not None:
            text = (self.title or text.split()[0]) if self._narrow else text
            self._bar.update(self._task, description=text, total=total, completed=first, counts="", visible=True)
        elif not self.quiet:
            say(text)

    def _validated(self, event: dict[str, Any]) -> None:
        if event["best"]:
            written = event["score"] == -event["loss"]  # written answers are judged by their loss
            self.best = f"best loss {event['loss']:.3f}" if written else f"best {event['metric']} {event['score']:.3f}"

    def _step(self, step: int, of: int, more: str = "") -> None:
        now = time.monotonic()
        pace = (now - self._began) / max(1, step - self._first)
        left = f"{_duration(pace * (of - step))} left"
        more = "" if self._narrow else more
        parts = [f"{step}/{of}", left, *(p for p in (more, self.best) if p)]
        if self._bar is not None:
            self._bar.update(self._task, completed=step, counts="  ".join(parts))
        elif not self.quiet and now - self._line_at >= LINE_SECONDS:
            self._line_at = now
            say(self._titled(", ".join(parts)))


class _Count:
    def __init__(self, progress: Progress, total: int):
        self.progress, self.total, self.done = progress, total, 0

    def __call__(self, more: int) -> None:
        self.done += more
        self.progress._step(self.done, self.total)


def _duration(seconds: float) -> str:
    whole = round(seconds)
    if whole < 100:
        return f"{whole} s"
    if whole < 6000:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
