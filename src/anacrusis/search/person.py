"""A person in the loop: at the terminal, or by a file that is filled in days later.

Several processes may hold such a file: `alone` lets one at a time read and write it, `safe_write` replaces it whole.
"""

from __future__ import annotations

import csv
import io
import os
import secrets
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from ..errors import RunError

HOLD = 10.0  # seconds to wait for another process that holds a file; it needs milliseconds
ANSWERS = {"1": 1.0, "a": 1.0, "2": 0.0, "b": 0.0, "=": 0.5, "0": 0.5}
Pair = tuple[str, str]
Pairs = Sequence[Pair]


class Waiting(RunError):
    """The run waits for a person. Holds what to do to go on."""


class Person(Protocol):
    def prefer(self, pairs: Pairs) -> list[float]:
        """1 for the first, 0 for the second, 0.5 for neither. Raises Waiting."""
        ...


class AtTerminal:
    """Asks on stderr, reads from stdin."""

    def prefer(self, pairs: Pairs) -> list[float]:
        out = []
        for i, (a, b) in enumerate(pairs, 1):
            print(f"\nWhich is better? ({i} of {len(pairs)})\n  1: {a}\n  2: {b}", file=sys.stderr)
            while True:
                print("1, 2, or = for neither: ", end="", file=sys.stderr, flush=True)
                line = sys.stdin.readline()
                if not line:
                    raise Waiting("the answers ended (end of input); go on with: anacrusis resume RUN")
                if (answer := ANSWERS.get(line.strip().lower())) is not None:
                    out.append(answer)
                    break
                print(f"  {line.strip()!r} is none of 1, 2, =", file=sys.stderr)
        return out


class ByFile:
    """Writes the open pairs into preferences.csv and reads the answers from there when the run is resumed.

    The file is filled in by hand, or one pair at a time through `answer` (the web view does so)."""

    def __init__(self, folder: Path):
        self.file = folder / "preferences.csv"

    def prefer(self, pairs: Pairs) -> list[float]:
        pairs = [(_plain(a), _plain(b)) for a, b in pairs]
        with alone(self.file):
            given = {pair: answer for pair, answer in self.pairs().items() if answer}
            open_ = {p: "" for p in pairs if p not in given}
            if open_:
                self._write({**given, **open_})
        if open_:
            raise Waiting(
                f"{len(open_)} comparisons wait for a person. Put 1, 2 or = into the column 'better' of {self.file}, "
                f"then: anacrusis resume {self.file.parent.name}"
            )
        return [ANSWERS[given[p]] for p in pairs]

    def pairs(self) -> dict[Pair, str]:
        """Every pair of the file in its order, with its answer; "" for one that is open. Raises RunError."""
        if not self.file.exists():
            return {}
        try:
            with open(self.file, encoding="utf-8-sig", newline="") as f:  # spreadsheets write a mark at the beginning
                return self._read(csv.DictReader(f))
        except (csv.Error, UnicodeDecodeError) as error:
            raise RunError(f"{self.file}: cannot be read as CSV in UTF-8: {error}") from error

    def _read(self, rows: csv.DictReader[str]) -> dict[Pair, str]:
        found: dict[Pair, str] = {}
        if not {"better", "1", "2"} <= set(rows.fieldnames or ()):
            raise RunError(f"{self.file}: expected the columns better, 1 and 2; it has {rows.fieldnames}")
        for row in rows:
            answer = (row["better"] or "").strip().lower()
            if row["1"] is None or row["2"] is None:
                raise RunError(f"{self.file}:{rows.line_num}: expected three cells: better, 1 and 2")
            if answer and answer not in ANSWERS:
                raise RunError(f"{self.file}:{rows.line_num}: better is {answer!r}; expected 1, 2 or =")
            pair = _plain(row["1"]), _plain(row["2"])
            found[pair] = answer or found.get(pair, "")
        return found

    def open_pairs(self) -> list[Pair]:
        """Those that wait for an answer."""
        return [pair for pair, answer in self.pairs().items() if not answer]

    def answer(self, pair: Pair, value: str, was: str | None = None) -> None:
        """Write one answer ("1", "2" or "="), or "" to open the pair again; the others stay as they are.

        was: the answer that the person saw when deciding. Raises RunError where it has become another one since, for a
        pair that is not in the file, and for any other value.
        """
        if value and value not in ANSWERS:
            raise RunError(f"the answer is {value!r}; expected 1, 2 or =")
        with alone(self.file):
            known = self.pairs()
            if pair not in known:
                raise RunError(f"this pair is not in {self.file}: the file has changed since it was shown")
            if was is not None and known[pair] not in (was, value):
                raise RunError(
                    f"somebody else has answered this pair since it was shown: {known[pair] or 'open again'}"
                )
            self._write({**known, pair: value})

    def _write(self, rows: dict[Pair, str]) -> None:
        safe_write(self.file, as_csv([("better", "1", "2"), *((answer, *pair) for pair, answer in rows.items())]))


def _plain(text: str) -> str:
    """With one kind of line end: editors change them."""
    return "\n".join(text.splitlines())


def as_csv(rows: Iterable[Sequence[str]]) -> str:
    out = io.StringIO(newline="")
    csv.writer(out).writerows(rows)
    return out.getvalue()


def safe_write(path: Path, text: str) -> None:
    """Replace a file in one step. What lies in its folder, links above all, is never written through: the new file
    begins under a name that nobody can know, and takes the old one's place."""
    part = path.with_name(f".{secrets.token_hex(8)}.part")
    try:
        with open(part, "x", encoding="utf-8", newline="") as f:
            f.write(text)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def alone(file: Path) -> Iterator[None]:
    """One process and thread at a time, for reading a file and writing it again. Raises RunError after HOLD seconds."""
    lock, end = file.with_name(f".{file.name}.lock"), time.monotonic() + HOLD
    while True:
        try:
            os.close(os.open(lock, os.O_CREAT | os.O_EXCL, 0o600))
            break
        except FileExistsError:
            if time.monotonic() > end:
                raise RunError(f"{lock}: held for {HOLD:.0f} s. If no other process works here, delete it") from None
            time.sleep(0.02)
    try:
        yield
    finally:
        lock.unlink(missing_ok=True)
