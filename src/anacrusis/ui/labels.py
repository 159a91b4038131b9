"""Labelling by a person: a file of examples without labels, and FILE.labelled.csv beside it with those that have one.

The input never changes. Equal texts have one label. The result holds the labelled rows only (the input's own too), all
columns of them, in the input's order: a task's data.
"""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from ..errors import ConfigError, DataError
from ..task.readers import LABEL_NAMES, TEXT_NAMES, BadRow, Reading, Table, open_table, require

SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson")
OURS = ".labelled.csv"
Texts = tuple[str, ...]  # of one example, by text column


@dataclass(frozen=True)
class LabelJob:
    """What is labelled. text: its column or columns; label: the column, which the file may lack. None: the usual names,
    else the first column, and the other one where there are two of which it is not full.

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
        return self.file.with_name(self.file.stem + OURS)


@dataclass(frozen=True)
class Item:
    """One text to label. id: of its content. given: the input's own label, "" where it has none."""

    id: str
    texts: Texts
    given: str


@dataclass(frozen=True)
class Source:
    """The input, read. rows: all cells, with the place of their item in `items`."""

    columns: tuple[str, ...]
    text: tuple[str, ...]
    label: str
    rows: tuple[tuple[tuple[str, ...], int], ...]
    items: tuple[Item, ...]


@dataclass(frozen=True)
class Labelling:
    """The state of a job: its texts and what has been said of them."""

    job: LabelJob
    source: Source
    said: dict[Texts, str]

    @property
    def items(self) -> list[Item]:
        """Those that a person is asked for."""
        return [i for i in self.source.items if not i.given]

    @property
    def classes(self) -> tuple[str, ...]:
        if self.job.classes:
            return self.job.classes
        found = {i.given for i in self.source.items if i.given} | set(self.said.values())
        return tuple(sorted(found))

    @property
    def open(self) -> int:
        return sum(i.texts not in self.said for i in self.items)

    def next(self, after: int = -1) -> int | None:
        """The place of the first item behind `after` that has no label, else of the first of all; None: all have."""
        left = [n for n, i in enumerate(self.items) if i.texts not in self.said]
        return next((n for n in left if n > after), left[0] if left else None)

    def place(self, id: str) -> int | None:
        return next((n for n, i in enumerate(self.items) if i.id == id), None)

    def answer(self, item: Item, label: str) -> None:
        """Write one label, or "" to take it back. Raises ConfigError for a class that may not be said."""
        label = " ".join(label.split())
        if label and self.job.classes and label not in self.job.classes:
            raise ConfigError(f"{label!r} is none of the classes {', '.join(self.job.classes)}")
        if label:
            self.said[item.texts] = label
        else:
            self.said.pop(item.texts, None)
        self._write()

    def _write(self) -> None:
        s, part = self.source, self.job.out.with_suffix(".part")
        at = s.columns.index(s.label) if s.label in s.columns else len(s.columns)
        with open(part, "w", encoding="utf-8", newline="") as f:
            out = csv.writer(f)
            out.writerow([*s.columns[:at], s.label, *s.columns[at + 1 :]])
            for cells, n in s.rows:
                item = s.items[n]
                if label := item.given or self.said.get(item.texts, ""):
                    out.writerow([*cells[:at], label, *cells[at + 1 :]])
        part.replace(self.job.out)


def read(job: LabelJob) -> Labelling:
    """Raises DataError where a file cannot be read."""
    stat = job.file.stat() if job.file.exists() else None
    source = _source(job, (stat.st_mtime_ns, stat.st_size) if stat else (0, 0))
    said: dict[Texts, str] = {}
    if job.out.exists():
        table = open_table(job.out, Reading())
        own = {i.texts for i in source.items if i.given}
        for _, cells in table.rows([*source.text, source.label]):
            if not isinstance(cells, BadRow) and cells[:-1] not in own and cells[-1]:
                said[cells[:-1]] = cells[-1]
    return Labelling(job, source, said)


@lru_cache(maxsize=20)
def _source(job: LabelJob, _: tuple[int, int]) -> Source:
    table = open_table(job.file, Reading())
    text, label = _columns(table, job)
    picks = [table.columns.index(name) for name in text]
    at = table.columns.index(label) if label in table.columns else None
    rows, items = [], dict[Texts, Item]()
    for _where, cells in table.rows(table.columns):
        if isinstance(cells, BadRow):
            raise cells
        plain = tuple("" if c is None else str(c) for c in cells)
        texts = tuple(plain[i] for i in picks)
        given = plain[at].strip() if at is not None else ""
        known = items.get(texts)
        if known is None or (given and not known.given):
            items[texts] = Item(hashlib.sha256("\0".join(texts).encode()).hexdigest()[:16], texts, given)
        rows.append((plain, texts))
    place = {texts: n for n, texts in enumerate(items)}
    return Source(table.columns, text, label, tuple((c, place[t]) for c, t in rows), tuple(items.values()))


def _columns(table: Table, job: LabelJob) -> tuple[tuple[str, ...], str]:
    """The text columns and the label's. A file may lack the latter."""
    given = (job.text,) if isinstance(job.text, str) else job.text
    text = given or tuple(c for c in table.columns if c.lower() in TEXT_NAMES)[:1] or table.columns[:1]
    for name in text:
        require(table, name)
    if job.label is not None:
        return text, job.label
    if usual := [c for c in table.columns if c.lower() in LABEL_NAMES and c not in text]:
        return text, usual[0]
    rest = [c for c in table.columns if c not in text]
    if len(rest) == 1 and any(not isinstance(cells, BadRow) and not cells[0] for _, cells in table.rows(rest)):
        return text, rest[0]  # the only other column, and not full: it is what somebody has begun to fill in
    return text, LABEL_NAMES[0]


def found(root: Path, given: Sequence[LabelJob] = ()) -> list[LabelJob]:
    """Those given, then the files in root/labels."""
    place = root / "labels"
    files = sorted(place.iterdir()) if place.is_dir() else []
    more = [LabelJob(f) for f in files if f.suffix.lower() in SUFFIXES and not f.name.endswith(OURS)]
    names = {j.name for j in given}
    if len(names) < len(given):
        raise DataError("two files to label have one name: rename one of them")
    return [*given, *(j for j in more if j.name not in names)]
