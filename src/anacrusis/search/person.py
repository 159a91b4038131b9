"""A person in the loop: at the terminal, or by a file that is filled in days later."""

from __future__ import annotations

import csv
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from ..errors import RunError

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
        given = {pair: answer for pair, answer in self.pairs().items() if answer}
        pairs = [(_plain(a), _plain(b)) for a, b in pairs]
        open_ = {p: "" for p in pairs if p not in given}
        if open_:
            self._write({**given, **open_})
            raise Waiting(
                f"{len(open_)} comparisons wait for a person. Put 1, 2 or = into the column 'better' of {self.file}, "
                f"then: anacrusis resume {self.file.parent.name}"
            )
        return [ANSWERS[given[p]] for p in pairs]

    def pairs(self) -> dict[Pair, str]:
        """Every pair of the file in its order, with its answer; "" for one that is open."""
        if not self.file.exists():
            return {}
        found: dict[Pair, str] = {}
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
                pair = _plain(row["1"]), _plain(row["2"])
                found[pair] = answer or found.get(pair, "")
        return found

    def open_pairs(self) -> list[Pair]:
        """Those that wait for an answer."""
        return [pair for pair, answer in self.pairs().items() if not answer]

    def answer(self, pair: Pair, value: str) -> None:
        """Write one answer ("1", "2" or "="), or "" to open the pair again; the others stay as they are.

        Raises RunError for a pair that is not in the file, and for any other value.
        """
        if value and value not in ANSWERS:
            raise RunError(f"the answer is {value!r}; expected 1, 2 or =")
        known = self.pairs()
        if pair not in known:
            raise RunError(f"this pair is not in {self.file}: the file has changed since it was shown")
        self._write({**known, pair: value})

    def _write(self, rows: dict[Pair, str]) -> None:
        part = self.file.with_suffix(".part")
        with open(part, "w", encoding="utf-8", newline="") as f:
            out = csv.writer(f)
            out.writerow(["better", "1", "2"])
            out.writerows((answer, *pair) for pair, answer in rows.items())
        part.replace(self.file)


def _plain(text: str) -> str:
    """With one kind of line end: editors change them."""
    return "\n".join(text.splitlines())
