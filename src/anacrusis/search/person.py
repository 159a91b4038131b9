"""A person in the loop: at the terminal, or by a file that is filled in days later."""

from __future__ import annotations

import csv
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from ..errors import RunError

ANSWERS = {"1": 1.0, "a": 1.0, "2": 0.0, "b": 0.0, "=": 0.5, "0": 0.5}
Pairs = Sequence[tuple[str, str]]


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
    """Writes the open pairs into preferences.csv and reads the answers from there when the run is resumed."""

    def __init__(self, folder: Path):
        self.file = folder / "preferences.csv"

    def prefer(self, pairs: Pairs) -> list[float]:
        given = self._read()
        pairs = [(_plain(a), _plain(b)) for a, b in pairs]
        open_ = [p for p in dict.fromkeys(pairs) if p not in given]
        if open_:
            self._write(given, open_)
            raise Waiting(
                f"{len(open_)} comparisons wait for a person. Put 1, 2 or = into the column 'better' of {self.file}, "
                f"then: anacrusis resume {self.file.parent.name}"
            )
        return [ANSWERS[given[p]] for p in pairs]

    def _read(self) -> dict[tuple[str, str], str]:
        if not self.file.exists():
            return {}
        found = {}
        with open(self.file, encoding="utf-8-sig", newline="") as f:  # spreadsheets write a mark at the beginning
            rows = csv.DictReader(f)
            if not {"better", "1", "2"} <= set(rows.fieldnames or ()):
                raise RunError(f"{self.file}: expected the columns better, 1 and 2; it has {rows.fieldnames}")
            for row in rows:
                answer = (row["better"] or "").strip().lower()
                if row["1"] is None or row["2"] is None:
                    raise RunError(f"{self.file}:{rows.line_num}: expected three cells: better, 1 and 2")
                if answer and answer not in ANSWERS:
                    raise RunError(f"{self.file}:{rows.line_num}: better is {answer!r}; expected 1, 2 or =")
                if answer:
                    found[_plain(row["1"]), _plain(row["2"])] = answer
        return found

    def _write(self, given: dict[tuple[str, str], str], open_: Pairs) -> None:
        part = self.file.with_suffix(".part")
        with open(part, "w", encoding="utf-8", newline="") as f:
            out = csv.writer(f)
            out.writerow(["better", "1", "2"])
            out.writerows([*((v, *k) for k, v in given.items()), *(("", a, b) for a, b in open_)])
        part.replace(self.file)


def _plain(text: str) -> str:
    """With one kind of line end: editors change them."""
    return "\n".join(text.splitlines())
