"""Labelling by a person: a file of examples without labels, and a file of results beside it (LabelJob.out).

The input never changes. Equal texts have one label; a label that the input gives a row stays that row's. The result
holds the labelled rows only (the input's own too), all columns of them, in the input's order: a task's data. What else
it holds stays in it: rows of texts that the input lacks now, after them, and columns that somebody has added.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from ..errors import ConfigError, DataError
from ..search.person import alone, as_csv, safe_write
from ..task import readers
from ..task.readers import LABEL_NAMES, TEXT_NAMES, BadRow, Reading, Table, as_text, open_table, require
from .looks import directly

SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson")
OURS = ".labelled.csv"
Texts = tuple[str, ...]  # of one example, by text column
Record = dict[str, str]  # of a row: its cells by column


@dataclass(frozen=True)
class LabelJob:
    """What is labelled. text: its column or columns; None: the one with a usual name, else the only one that holds no
    labels. label: the column, which the file may lack; None: the one with a usual name.

    classes: what may be said; empty: the labels that are there already, and any that the person adds.
    """

    file: Path
    text: str | tuple[str, ...] | None = None
    label: str | None = None
    classes: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return self.file.name

    @property
    def out(self) -> Path:
        """Of a.csv a.labelled.csv, of a.tsv a.tsv.labelled.csv: no two files of a folder have one result."""
        plain = self.file.suffix == ".csv" and Path(self.file.stem).suffix not in readers.SUFFIXES
        return self.file.with_name((self.file.stem if plain else self.file.name) + OURS)


@dataclass(frozen=True)
class Item:
    """One text to label. id: of its content. given: the input's own label, "" where it has none."""

    id: str
    texts: Texts
    given: str


@dataclass(frozen=True)
class Source:
    """The input. rows: all cells, with the place of their item in `items`. blank: rows without a text, left out."""

    columns: tuple[str, ...]
    text: tuple[str, ...]
    label: str
    rows: tuple[tuple[tuple[str, ...], int], ...]
    items: tuple[Item, ...]
    blank: int


@dataclass(frozen=True)
class Labelling:
    """The state of a job: its texts and what has been said of them, of others in the result too."""

    job: LabelJob
    source: Source
    said: dict[Texts, str]

    @property
    def items(self) -> list[Item]:
        """Those that a person is asked for."""
        return [i for i in self.source.items if not i.given]

    @property
    def classes(self) -> tuple[str, ...]:
        """In the order in which they first appear."""
        found = [*(i.given for i in self.source.items if i.given), *self.said.values()]
        return self.job.classes or tuple(dict.fromkeys(found))

    @property
    def open(self) -> int:
        return sum(i.texts not in self.said for i in self.items)

    def next(self, after: int = -1) -> int | None:
        """The place of the first item behind `after` that has no label, else of the first of all; None: all have."""
        left = [n for n, i in enumerate(self.items) if i.texts not in self.said]
        return next((n for n in left if n > after), left[0] if left else None)

    def place(self, id: str) -> int | None:
        return next((n for n, i in enumerate(self.items) if i.id == id), None)


def answer(job: LabelJob, id: str, label: str, was: str | None = None) -> Labelling:
    """Write one label, or "" to take it back; gives the state after it. was: the label that the person saw.

    Raises ConfigError for a class that may not be said, a text that is not there, and where `was` is true no more.
    """
    with alone(job.out):
        now = read(job)
        place = now.place(id)
        if place is None:
            raise ConfigError(f"this text is no longer in {job.name}: go back and reload the page")
        texts, label = now.items[place].texts, _class(now.classes, label)
        if label and job.classes and label not in job.classes:
            raise ConfigError(f"{label!r} is none of the classes {', '.join(job.classes)}")
        known = now.said.get(texts, "")
        if was is not None and known not in (was, label):
            raise ConfigError(f"somebody else has labelled this text since it was shown: {known or 'taken back'}")
        said = {k: v for k, v in now.said.items() if k != texts} | ({texts: label} if label else {})
        safe_write(job.out, as_csv(_merged(now.source, said, *_result(job, now.source))))
    return Labelling(job, now.source, said)


def _class(known: Sequence[str], label: str) -> str:
    """The class that is meant: one that is known, however many blanks it has, or a new one without too many."""
    if label in known or not label.strip():
        return label.strip() and label
    plain = " ".join(as_text(label, "the form", "another class").split())
    return next((c for c in known if " ".join(c.split()) == plain), plain)


def _merged(s: Source, said: dict[Texts, str], columns: Sequence[str], old: Sequence[Record]) -> list[Sequence[str]]:
    """The result, from the one before it. The nth row of a text is the nth one there: it keeps what was added to it."""
    names = list(dict.fromkeys([*s.columns, s.label, *columns]))
    labels = {i.texts: i.given or said.get(i.texts, "") for i in s.items}
    keys = [tuple(row[c] for c in s.text) for row in old]
    before: dict[Texts, list[int]] = {}
    for i, texts in enumerate(keys):
        before.setdefault(texts, []).append(i)
    out: list[Record] = []
    for cells, n in s.rows:
        texts, row = s.items[n].texts, dict(zip(s.columns, cells, strict=True))
        kept = old[before[texts].pop(0)] if before.get(texts) else {}
        if not row.get(s.label, "").strip():
            row[s.label] = labels[texts]
        if row[s.label]:
            out.append({**kept, **row})
    for i in sorted(i for left in before.values() for i in left):  # of texts that the input lacks, or has fewer times
        label = labels.get(keys[i], old[i][s.label])
        if label or keys[i] not in labels:
            out.append({**old[i], s.label: label})
    return [names, *([row.get(c, "") for c in names] for row in out)]


def read(job: LabelJob) -> Labelling:
    """Raises DataError where a file cannot be read."""
    stat = job.file.stat() if job.file.exists() else None
    source = _source(job, (stat.st_mtime_ns, stat.st_size) if stat else (0, 0))
    given = {i.texts for i in source.items if i.given}
    every = ((tuple(r[c] for c in source.text), r[source.label]) for r in _result(job, source)[1])
    return Labelling(job, source, {texts: label for texts, label in every if label and texts not in given})


def _result(job: LabelJob, source: Source) -> tuple[tuple[str, ...], list[Record]]:
    """The columns and rows of what has been written until now. Raises DataError where it is no result of this file."""
    if not job.out.exists():
        return (), []
    columns, rows = _rows(job.out)
    for name in (*source.text, source.label):
        if name not in columns:
            raise DataError(f"{job.out.name}: no column {name!r}, so it is no result of {job.name}: move it elsewhere")
    return columns, [dict(zip(columns, cells, strict=True)) for _, cells in rows]


def _rows(file: Path) -> tuple[tuple[str, ...], list[tuple[str, tuple[str, ...]]]]:
    """Column names and rows with their places, all cells as text."""
    table, out = open_table(file, Reading()), []
    for name in table.columns:
        require(table, name)  # of two columns with one name, the values of one would be lost
    for where, cells in table.rows(table.columns):
        if isinstance(cells, BadRow):
            raise cells
        out.append((where, tuple(_plain(c, where, n) for c, n in zip(cells, table.columns, strict=True))))
    return table.columns, out


def _plain(cell: Any, where: str, column: str) -> str:
    """Raises DataError for what could not be read again once it is written: half characters, NUL."""
    text = "" if cell is None else str(cell)
    return as_text(text, where, column) if text.strip() else text


@lru_cache(maxsize=20)
def _source(job: LabelJob, _: tuple[int, int]) -> Source:
    text, label = _columns(open_table(job.file, Reading()), job)
    columns, every = _rows(job.file)
    picks = [columns.index(name) for name in text]
    at = columns.index(label) if label in columns else None
    rows, items = [], dict[Texts, Item]()
    for _where, cells in every:
        texts = tuple(cells[i] for i in picks)
        if not all(t.strip() for t in texts):
            continue  # nothing to be asked about, and no example to learn from
        given = cells[at].strip() if at is not None else ""
        known = items.get(texts)
        if known is None or (given and not known.given):
            items[texts] = Item(hashlib.sha256("\0".join(texts).encode()).hexdigest()[:16], texts, given)
        rows.append((cells, texts))
    place = {texts: n for n, texts in enumerate(items)}
    return Source(columns, text, label, tuple((c, place[t]) for c, t in rows), tuple(items.values()),
                  len(every) - len(rows))  # fmt: skip


def _columns(table: Table, job: LabelJob) -> tuple[tuple[str, ...], str]:
    """The text columns and the label's. A file may lack the latter. Raises DataError rather than guess."""
    given = (job.text,) if isinstance(job.text, str) else job.text or ()
    usual = [c for n in LABEL_NAMES for c in table.columns if c.lower() == n and c not in given]
    fresh = [n for n in (*LABEL_NAMES, "said") if n not in table.columns]
    label = job.label or [*usual, *fresh][0]
    rest = [c for c in table.columns if c != label]
    text = given or tuple(c for n in TEXT_NAMES for c in rest if c.lower() == n)[:1] or tuple(rest)
    if len(text) != 1 and not given:
        raise DataError(
            f"{table.head}: which column holds the text? None is called {', '.join(TEXT_NAMES[:-1])} or "
            f"{TEXT_NAMES[-1]}. Columns: {', '.join(table.columns)}. Rename one, or name it: "
            f"anacrusis ui --label {job.file} --text COL"
        )
    for name in text:
        require(table, name)
    if label in text:
        raise ConfigError(f"{table.head}: column {label!r} cannot be both text and label")
    return text, label


def found(root: Path, given: Sequence[LabelJob] = ()) -> list[LabelJob]:
    """Those given, then the files in root/labels; links that lead out of that folder are none."""
    place = directly(root, "labels")
    names = sorted(os.listdir(place)) if place is not None and place.is_dir() else []
    names = [n for n in names if n.lower().endswith(SUFFIXES) and not n.endswith(OURS)]
    taken = {j.name for j in given}
    files = [directly(place, n) for n in names if place is not None and n not in taken]
    return [*given, *(LabelJob(f) for f in files if f is not None and f.is_file())]
