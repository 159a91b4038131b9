"""The noun: examples with their gold, label words, splits and a metric. Knows no model."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, cast, get_args

from ..errors import ConfigError, DataError, did_you_mean
from . import images as pictures
from . import readers, splits
from .images import Done, Images
from .keys import Key
from .metrics import DEFAULT, Kind, find
from .metrics import score as score_metric
from .readers import BadRow, Reading, Row, Table
from .splits import Split

if TYPE_CHECKING:
    from typing import Unpack

PARTS = {"train": "train", "valid": "valid", "validation": "valid", "dev": "valid", "test": "test"}
Columns = str | Sequence[str] | None
Words = Mapping[str, str] | Sequence[str] | None
_SPLIT = Split()


class DataWarning(UserWarning):
    """Something about the data that makes a score less telling. Also kept in `Task.notes`."""


@dataclass(frozen=True)
class Example:
    inputs: tuple[str, ...]  # one text per task field
    gold: int | tuple[int, ...] | str | None  # class index; class indexes; text to write; None: unlabelled
    where: str = field(default="", compare=False)  # "tickets.csv:12", or "row 3", counted from 0, as in a list
    references: tuple[str, ...] = ()  # generation: all acceptable texts, `gold` first
    content: str = field(default="", compare=False)  # hash of the picture whose key `inputs` holds; "": of text

    @property
    def same(self) -> tuple[str, ...]:
        """Equal where the inputs are: a picture may lie in two files, and a file may be moved."""
        return (self.content,) if self.content else self.inputs

    @cached_property
    def id(self) -> str:
        """16 hex digits of inputs and gold: the same for the same content, wherever it stands."""
        gold = self.gold
        mark = (
            f"={gold}" if isinstance(gold, str) else ",".join(map(str, gold)) if isinstance(gold, tuple) else f"#{gold}"
        )
        return hashlib.blake2b(splits.content((*self.same, mark)), digest_size=8).hexdigest()


class Options(TypedDict, total=False):
    """What every `Task.from_...` takes besides its named arguments. Meanings and defaults: `readers.Reading`."""

    name: str | None
    kind: str | None
    separator: str
    split_column: str | None
    skip_bad: bool
    encoding: str
    delimiter: str | None
    quotes: bool
    image: str | None
    root: str | None


class Asked(Options, total=False):
    """`Options`, and what says nothing about the data."""

    done: Done | None  # called with (pictures opened so far, all of them)


@dataclass(frozen=True)
class Task:
    name: str
    kind: Kind
    fields: tuple[str, ...]
    labels: tuple[str, ...]  # C class names, sorted; () for generation
    words: tuple[str, ...]  # one per label: what a language model says for it
    train: tuple[Example, ...]
    valid: tuple[Example, ...]
    test: tuple[Example, ...]
    metric: str = ""  # a name in METRICS; "": the kind's usual one
    seed: int = 0
    source: Mapping[str, Any] = field(default_factory=dict, compare=False)  # how to read it again; {}: from memory
    notes: tuple[str, ...] = field(default=(), compare=False)
    images: Images | None = field(default=None, compare=False)  # where inputs are keys of pictures; None: texts

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise ConfigError(f"unknown kind {self.kind!r}.{did_you_mean(self.kind, get_args(Kind))}")
        object.__setattr__(self, "metric", self.metric or DEFAULT[self.kind])
        if self.kind not in find(self.metric).kinds:
            raise ConfigError(f"metric {self.metric!r} does not score {self.kind} tasks; {DEFAULT[self.kind]!r} does")
        if len(self.words) != len(self.labels) or len(set(self.words)) < len(self.words) or not all(self.words):
            raise ConfigError(f"words {self.words}: expected a different one for each of the labels {self.labels}")
        if self.images is not None:
            for name in ("train", "valid", "test"):
                object.__setattr__(self, name, tuple(self._keyed(e) for e in getattr(self, name)))
        for part in (self.train, self.valid, self.test):
            for example in part:
                if len(example.inputs) != len(self.fields) or not self._fits(example.gold):
                    raise DataError(f"{example.where or example}: does not fit {self.fields} and {self.labels}")

    def _keyed(self, example: Example) -> Example:
        """The example with a key that opens its picture."""
        assert self.images is not None
        key = example.inputs[0]
        if isinstance(key, Key) and key.images is self.images:
            return example
        return replace(example, inputs=(Key.of(key, self.images), *example.inputs[1:]))

    def _fits(self, gold: Any) -> bool:
        if gold is None:
            return True
        if self.kind == "generation":
            return isinstance(gold, str)
        if isinstance(gold, tuple) != (self.kind == "multilabel"):
            return False
        several = gold if isinstance(gold, tuple) else (gold,)
        return all(not isinstance(i, str) and 0 <= i < len(self.labels) for i in several)

    # --- reading

    @classmethod
    def from_csv(
        cls,
        path: str | Path,
        text: Columns = None,
        label: Columns = None,
        *,
        test: str | Path | None = None,
        valid: str | Path | None = None,
        words: Words = None,
        split: Split = _SPLIT,
        metric: str | None = None,
        **options: Unpack[Asked],
    ) -> Task:
        """A task from CSV or TSV files with a header line, whatever their suffix.

        text: the input's column, or several (pairs). label: the gold's column; several: one 0/1 column per label.
        test, valid: files with the same columns; what is not given is drawn from `path` as `split` says.
        words: what a language model says for each label: by label, or in the labels' sorted order.
        options: see `Options`; image: a column of pictures' paths, in the place of text.
        Raises DataError (file, line, column and what to do), ConfigError for a wrong option.
        """
        paths = {"train": path, "valid": valid, "test": test}
        return _from_files(
            paths, ".csv", _reading(text, label, options), _Choice(words, split, metric, options.get("done"))
        )

    @classmethod
    def from_file(
        cls,
        path: str | Path,
        text: Columns = None,
        label: Columns = None,
        *,
        test: str | Path | None = None,
        valid: str | Path | None = None,
        words: Words = None,
        split: Split = _SPLIT,
        metric: str | None = None,
        **options: Unpack[Asked],
    ) -> Task:
        """A task from files of any of the formats in `readers.SUFFIXES`. Arguments and errors as in `from_csv`."""
        paths = {"train": path, "valid": valid, "test": test}
        return _from_files(
            paths, None, _reading(text, label, options), _Choice(words, split, metric, options.get("done"))
        )

    @classmethod
    def from_records(
        cls,
        records: Iterable[Mapping[str, Any]],
        text: Columns = None,
        label: Columns = None,
        *,
        test: Iterable[Mapping[str, Any]] | None = None,
        valid: Iterable[Mapping[str, Any]] | None = None,
        words: Words = None,
        split: Split = _SPLIT,
        metric: str | None = None,
        **options: Unpack[Asked],
    ) -> Task:
        """A task from dicts. Arguments and errors as in `from_csv`; rows count from 0."""
        tables = _tables({"train": records, "valid": valid, "test": test}, readers.records_table)
        return _build(tables, _reading(text, label, options), _Choice(words, split, metric, options.get("done")))

    @classmethod
    def from_lists(
        cls,
        texts: Sequence[str] | Sequence[Sequence[str]],
        labels: Sequence[Any],
        *,
        fields: Sequence[str] | None = None,
        test: tuple[Sequence[Any], Sequence[Any]] | None = None,
        valid: tuple[Sequence[Any], Sequence[Any]] | None = None,
        words: Words = None,
        split: Split = _SPLIT,
        metric: str | None = None,
        **options: Unpack[Asked],
    ) -> Task:
        """A task from N texts (or N tuples of texts) and N labels. test, valid: (texts, labels).

        fields: names for the texts of a tuple; else text_1, text_2, ... Errors as in `from_csv`; rows count from 0.
        """
        first = next(iter(texts), "")
        names = tuple(fields or ([f"text_{i + 1}" for i in range(len(first))] if readers.is_list(first) else ["text"]))
        given = {"train": (texts, labels), "valid": valid, "test": test}
        tables = _tables(given, lambda pair, prefix: _lists_table(pair, names, prefix))
        return _build(tables, _reading(names, "label", options), _Choice(words, split, metric, options.get("done")))

    @classmethod
    def from_pandas(
        cls,
        frame: Any,
        text: Columns = None,
        label: Columns = None,
        *,
        test: Any = None,
        valid: Any = None,
        words: Words = None,
        split: Split = _SPLIT,
        metric: str | None = None,
        **options: Unpack[Asked],
    ) -> Task:
        """A task from data frames. Arguments and errors as in `from_csv`; rows count from 0, as in `.iloc`."""
        tables = _tables({"train": frame, "valid": valid, "test": test}, readers.frame_table)
        return _build(tables, _reading(text, label, options), _Choice(words, split, metric, options.get("done")))

    @classmethod
    def from_dataset(
        cls,
        dataset: Any,
        text: Columns = None,
        label: Columns = None,
        *,
        words: Words = None,
        split: Split = _SPLIT,
        metric: str | None = None,
        **options: Unpack[Asked],
    ) -> Task:
        """A task from a Hugging Face Dataset, a DatasetDict or a dict of Datasets: splits are used as given.

        A split of another name than train, validation and test is left out with a DataWarning. Else as `from_csv`.
        """
        given: dict[str, Any] = dict(dataset) if isinstance(dataset, Mapping) else {"train": dataset}
        if unknown := [name for name in given if name not in PARTS]:
            _warn([f"splits left out: {', '.join(unknown)}. Used: {', '.join(PARTS)}."])
        parts = {PARTS[name]: data for name, data in given.items() if name in PARTS}
        if "train" not in parts:
            raise DataError(f"the dataset has no split 'train', only: {', '.join(given) or 'none'}")
        tables = _tables(parts, readers.dataset_table)
        return _build(tables, _reading(text, label, options), _Choice(words, split, metric, options.get("done")))

    @classmethod
    def from_folder(
        cls,
        path: str | Path,
        *,
        test: str | Path | None = None,
        valid: str | Path | None = None,
        words: Words = None,
        split: Split = _SPLIT,
        metric: str | None = None,
        **options: Unpack[Asked],
    ) -> Task:
        """A task from pictures in a folder per class, or in train, valid and test folders that hold such folders.

        test, valid: folders of class folders; else drawn as `split` says. Else as `from_csv`. What is no picture by its
        suffix is counted in `notes`; a broken picture is a DataError that names it, or left out with skip_bad.
        """
        paths = {"train": path, "valid": valid, "test": test}
        given = pictures.folder_options(path, options, [p for p in ("test", "valid") if paths[p] is not None])
        return _from_files(
            paths, "folder", _reading(None, "label", given), _Choice(words, split, metric, options.get("done"))
        )

    @classmethod
    def from_arrays(
        cls,
        images: Any,
        labels: Sequence[Any],
        *,
        names: Sequence[str] | None = None,
        test: tuple[Any, Sequence[Any]] | None = None,
        valid: tuple[Any, Sequence[Any]] | None = None,
        words: Words = None,
        split: Split = _SPLIT,
        metric: str | None = None,
        **options: Unpack[Asked],
    ) -> Task:
        """A task from N pictures in memory: uint8 (N, H, W, 3) or (N, H, W), or a list of such of different sizes.

        labels: N names, or indexes of `names`; several labels: lists of those, or an array (N, C) of 0 and 1.
        test, valid: (images, labels). Errors as in `from_csv`; rows count from 0.
        """
        given = {"train": (images, labels), "valid": valid, "test": test}
        tables = _tables(given, lambda pair, prefix: pictures.arrays_table(pair, names, prefix))
        reading = _reading(None, "label", {**options, "image": "image"})
        return _build(tables, reading, _Choice(words, split, metric, options.get("done")))

    @classmethod
    def from_source(cls, source: Mapping[str, Any]) -> Task:
        """The task read again from `Task.source`. Compare `fingerprint` to learn whether the files have changed.

        Raises DataError where the task was made from memory, and as `from_file` does.
        """
        if not source:
            raise DataError("this task was made from values in memory: there is nothing to read it from again")
        choice = _Choice(source["words"], Split(**source["split"]), source["metric"])
        task = _from_files(source["paths"], source["form"], Reading(**source["reading"]), choice)
        from .shift import again

        return again(task, source.get("steps", ()))

    # --- using

    @property
    def modality(self) -> str:
        """ "image" or "text": what the inputs are."""
        return "text" if self.images is None else "image"

    @cached_property
    def fingerprint(self) -> str:
        """32 hex digits of kind, fields, labels, metric and all examples in their order; of pictures, the content."""
        digest = hashlib.blake2b(digest_size=16)
        digest.update(json.dumps([self.kind, self.fields, self.labels, self.metric]).encode())
        for part in (self.train, self.valid, self.test):
            content = [[e.id, *e.references] if e.references else e.id for e in part]
            digest.update(json.dumps(content).encode())
        return digest.hexdigest()

    def score(self, predictions: Any, golds: Sequence[Example], metric: str | None = None) -> float:
        """The metric's value; shapes of predictions: see `metrics`. Raises DataError where they do not fit `golds`."""
        return score_metric(metric or self.metric, predictions, golds_of(golds), len(self.labels) or None)

    def describe(self) -> str:
        """One line: "tickets: classification, 8 classes, 256 train, 32 valid, 32 test, metric accuracy"."""
        classes = f"{len(self.labels)} classes, " if self.labels else ""
        sizes = f"{len(self.train)} train, {len(self.valid)} valid, {len(self.test)} test"
        return f"{self.name}: {self.kind}, {classes}{sizes}, metric {self.metric}"


def golds_of(examples: Sequence[Example]) -> list[Any]:
    """Gold as metrics take it: class indexes, tuples of them, or tuples of texts. Raises DataError for unlabelled."""
    for example in examples:
        if example.gold is None:
            raise DataError(f"{example.where or 'an example'} is unlabelled: it cannot be scored")
    return [e.references or (e.gold,) if isinstance(e.gold, str) else e.gold for e in examples]


# --- from tables to a task


_Columns = tuple[tuple[str, ...], tuple[str, ...]]  # names of the text and of the label columns


@dataclass(frozen=True)
class _Choice:
    """What is asked of the task, other than how to read its rows."""

    words: Words
    split: Split
    metric: str | None
    done: Done | None = None


@dataclass(frozen=True)
class _Item:
    """A clean row whose label is not yet an index."""

    inputs: tuple[str, ...]
    gold: str | tuple[str, ...]  # class name; class names, or acceptable texts
    where: str


def _reading(text: Columns, label: Columns, options: Mapping[str, Any]) -> Reading:
    known = [f.name for f in fields(Reading)]
    options = {name: value for name, value in options.items() if name != "done"}
    for name in options:
        if name not in known:
            raise ConfigError(f"unknown option {name!r}.{did_you_mean(name, known)}")
    if options.get("kind") not in (None, *get_args(Kind)):
        raise ConfigError(f"unknown kind {options['kind']!r}.{did_you_mean(str(options['kind']), get_args(Kind))}")
    text, label = (c if c is None or isinstance(c, str) else tuple(c) for c in (text, label))
    return Reading(text, label, **options)


def _from_files(paths: Mapping[str, Any], form: str | None, reading: Reading, choice: _Choice) -> Task:
    given = {part: str(Path(path).absolute()) for part, path in paths.items() if path is not None}
    if form == "folder":
        tables = {part: pictures.folder_table(path, part) for part, path in given.items()}
    else:
        tables = {part: readers.open_table(path, reading, form) for part, path in given.items()}
    words = dict(choice.words) if isinstance(choice.words, Mapping) else choice.words and list(choice.words)
    source = {
        "paths": given,
        "form": form,
        "reading": json.loads(json.dumps(asdict(reading))),
        "words": words,
        "split": asdict(choice.split),
        "metric": choice.metric,
    }
    return _build(tables, reading, choice, source, Path(given["train"]).stem)


def _tables(given: Mapping[str, Any], make: Callable[[Any, str], Table]) -> dict[str, Table]:
    prefixes = {"train": "", "valid": "valid ", "test": "test "}
    return {part: make(data, prefixes[part]) for part, data in given.items() if data is not None}


def _lists_table(pair: tuple[Any, Any], names: tuple[str, ...], prefix: str) -> Table:
    texts, labels = map(list, pair)
    if len(texts) != len(labels):
        raise DataError(f"{len(texts)} {prefix}texts, but {len(labels)} labels: expected as many")
    rows = [tuple(one) if readers.is_list(one) else (one,) for one in texts]
    for i, row in enumerate(rows):
        if len(row) != len(names):
            raise DataError(f"{prefix}row {i}: expected {len(names)} texts ({', '.join(names)}), got {len(row)}")
    columns = {name: [row[i] for row in rows] for i, name in enumerate(names)} | {"label": labels}
    return readers.columns_table(f"the {prefix}lists", [*names, "label"], columns.__getitem__, prefix)


def _build(
    tables: Mapping[str, Table],
    reading: Reading,
    choice: _Choice,
    source: Mapping[str, Any] | None = None,
    name: str = "task",
) -> Task:
    notes = [note for table in tables.values() for note in table.notes]
    opener = None if reading.image is None else pictures.Opener(reading.root, choice.done)
    if opener is not None:
        tables = {part: opener.table(table) for part, table in tables.items()}
    # Per table: columns that are not named may be called text in one file and sentence in the next.
    columns = {part: readers.choose(table, reading) for part, table in tables.items()}
    raw = _read(tables, columns, reading.split_column)
    columns = {part: columns.get(part, columns["train"]) for part in raw}
    text, label = columns["train"]
    kind = cast(Kind, reading.kind or _infer(raw["train"], len(text), label))
    cleaners = {part: _cleaner(kind, *columns[part], reading) for part in raw}
    items = {part: _clean(rows, cleaners[part], reading.skip_bad, notes) for part, rows in raw.items()}

    def classes() -> dict[str, int]:
        for part, table in tables.items():
            if not items.get(part):
                raise DataError(
                    f"{table.name}: no rows to use{_why(notes)}. Expected one row per example, under a header."
                )
        found = _labels(items["train"], kind)
        # Texts with a class each are a mistake; a picture a class is the smallest of few shots.
        _check_labels(items, kind, found, {part: names[1][0] for part, names in columns.items()}, opener is None)
        return found

    labels = classes()
    if opener is not None:  # when all else is known to be right: it takes long
        items = opener.check(items, reading.skip_bad, notes)
        labels = classes()
    examples = {part: [_example(item, kind, labels) for item in rows] for part, rows in items.items()}
    if opener is not None:
        examples = {part: opener.known(rows) for part, rows in examples.items()}
    train, valid, test = splits.divide(
        examples["train"],
        examples.get("valid"),
        examples.get("test"),
        choice.split,
        splits.strata(examples["train"], list(labels)),
    )
    parts = {"train": train, "valid": valid, "test": test}
    task = Task(
        name=reading.name or name,
        kind=kind,
        fields=text if opener is None else ("image",),
        labels=tuple(labels),
        words=_words(choice.words, tuple(labels), kind),
        **parts,
        metric=choice.metric or "",
        seed=choice.split.seed,
        source={**source, "given": [part for part in ("valid", "test") if part in examples]} if source else {},
        notes=tuple(notes + _remarks(parts, kind, list(labels), choice.split) + splits.overlaps(parts)),
        images=None if opener is None else opener.images,
    )
    _warn(task.notes)
    return task


def _read(
    tables: Mapping[str, Table], columns: Mapping[str, _Columns], split_column: str | None
) -> dict[str, list[Row]]:
    """The rows per part. Where a column tells the part, the one table is divided by it."""
    if split_column is not None and len(tables) > 1:
        other = " and ".join(part for part in tables if part != "train")
        raise ConfigError(f"split_column={split_column!r} and separate {other} data: give one or the other")
    extra = () if split_column is None else (split_column,)
    if split_column is not None:
        readers.require(tables["train"], split_column)
    rows = {part: list(table.rows(sum(columns[part], ()) + extra)) for part, table in tables.items()}
    if split_column is None or not rows["train"]:
        return rows
    parts: dict[str, list[Row]] = {}
    for where, cells in rows["train"]:
        part = "train"  # where a bad row is reported
        try:
            if not isinstance(cells, BadRow):
                part = _part(cells[-1], where, split_column)
        except BadRow as error:
            cells = error
        parts.setdefault(part, []).append((where, cells))
    if "train" not in parts:
        raise DataError(f"{tables['train'].name}: column {split_column!r} is 'train' in no row")
    return parts


def _part(value: Any, where: str, column: str) -> str:
    name = readers.as_label(value, where, column)
    if name.lower() not in PARTS:
        raise DataError(f"{where}: column {column!r} is {name!r}. Expected {', '.join(PARTS)}.")
    return PARTS[name.lower()]


def _clean(
    rows: Iterable[Row], clean: Callable[[str, tuple[Any, ...]], _Item], skip_bad: bool, notes: list[str]
) -> list[_Item]:
    items: list[_Item] = []
    bad: list[BadRow] = []
    for where, cells in rows:
        try:
            if isinstance(cells, BadRow):
                raise cells
            items.append(clean(where, cells))
        except BadRow as error:
            if not skip_bad:
                raise
            bad.append(error)
    if bad:
        first = str(bad[0]).removesuffix(readers.FIX_ROW).removesuffix(pictures.FIX).strip()
        notes.append(f"{len(bad)} row{'s' * (len(bad) > 1)} left out (skip_bad). The first: {first}")
    return items


def _why(notes: list[str]) -> str:
    return f" ({notes[0].rstrip('.')})" if notes else ""


def _infer(rows: Iterable[Row], at: int, label: tuple[str, ...]) -> Kind:
    first = next((cells[at] for _, cells in rows if not isinstance(cells, BadRow)), None)
    return "multilabel" if len(label) > 1 or readers.is_list(first) else "classification"


def _cleaner(
    kind: Kind, text: tuple[str, ...], label: tuple[str, ...], reading: Reading
) -> Callable[[str, tuple[Any, ...]], _Item]:
    """The function from the raw cells of a row to its item."""
    at = len(text)

    def clean(where: str, cells: tuple[Any, ...]) -> _Item:
        inputs = tuple([readers.as_text(cell, where, name) for cell, name in zip(cells, text, strict=False)])
        gold: str | tuple[str, ...]
        if kind == "classification":
            gold = readers.as_label(cells[at], where, label[0])
        elif kind == "generation":
            gold = tuple(t for i, name in enumerate(label) for t in readers.as_references(cells[at + i], where, name))
        elif len(label) > 1:
            gold = tuple(name for i, name in enumerate(label) if readers.as_flag(cells[at + i], where, name))
        else:
            gold = readers.as_labels(cells[at], where, label[0], reading.separator)
        return _Item(inputs, gold, where)

    if kind == "classification" and len(label) > 1:
        raise ConfigError(f"label={list(label)}: several label columns are one per label: kind must be 'multilabel'")
    return clean


def _labels(items: list[_Item], kind: Kind) -> dict[str, int]:
    """Index by class name, over what train has."""
    if kind == "generation":
        return {}
    names = {n for item in items for n in (item.gold if isinstance(item.gold, tuple) else (item.gold,))}
    return {name: i for i, name in enumerate(sorted(names))}


def _check_labels(
    items: Mapping[str, list[_Item]], kind: Kind, labels: Mapping[str, int], columns: Mapping[str, str], text: bool
) -> None:
    """columns: the label column of each part, for the messages. text: the inputs are texts."""
    first, n, column = items["train"][0], len(items["train"]), columns["train"]
    if text and kind == "classification" and len(labels) == n > 20:
        raise DataError(
            f"{first.where}: column {column!r} is different in each of {n} rows: these are no classes. "
            "Is it the right column? If it holds texts to be written: --kind generation (kind='generation')."
        )
    if (kind == "classification" and len(labels) < 2) or (kind == "multilabel" and not labels):
        only = f"only {next(iter(labels))!r}" if labels else "no label"
        raise DataError(
            f"{first.where}: column {column!r} holds {only} in all {n} rows from here: there is nothing to tell apart. "
            "Add rows of another class, or name the right column: --label COL (label='COL')."
        )
    for part, rows in items.items():
        for item in rows if kind != "generation" else ():
            for name in item.gold if isinstance(item.gold, tuple) else (item.gold,):
                if name not in labels:
                    known = did_you_mean(name, labels) if len(labels) <= 20 else f" Train has {len(labels)} others."
                    raise DataError(
                        f"{item.where}: column {columns[part]!r}: "
                        f"the label {name!r} of {part} does not occur in train.{known}"
                    )


def _example(item: _Item, kind: Kind, labels: Mapping[str, int]) -> Example:
    gold = item.gold
    if isinstance(gold, str):
        return Example(item.inputs, labels[gold], item.where)
    if kind == "generation":
        return Example(item.inputs, gold[0], item.where, gold)
    return Example(item.inputs, tuple(sorted({labels[name] for name in gold})), item.where)


def _words(given: Words, labels: tuple[str, ...], kind: Kind) -> tuple[str, ...]:
    plain = tuple(label.replace("_", " ").replace("-", " ").strip() for label in labels)
    # two labels must not share a word: "a_b" and "a-b" keep their names
    default = tuple(p if p and plain.count(p) == 1 else n for p, n in zip(plain, labels, strict=True))
    if given is None:
        return default
    if kind == "generation":
        raise ConfigError("words: a generation task has no labels to give words to")
    if not isinstance(given, Mapping):
        return tuple(given)
    for name in given:
        if name not in labels:
            raise ConfigError(f"words: no label {name!r}.{did_you_mean(name, labels)}")
    return tuple(given.get(label, word) for label, word in zip(labels, default, strict=True))


def _remarks(parts: Mapping[str, Sequence[Example]], kind: Kind, labels: list[str], split: Split) -> list[str]:
    """What a reader of the score should know about the parts."""
    notes = []
    shares = {"valid": split.valid or split.shots, "test": split.test}
    for part, share in shares.items():
        if not parts[part] and share:
            notes.append(f"{part} is empty: there are too few rows to draw it from.")
    if kind == "multilabel":  # of other kinds each class keeps a row
        count = Counter(i for e in parts["train"] if isinstance(e.gold, tuple) for i in e.gold)
        if missing := [name for i, name in enumerate(labels) if not count[i]]:
            notes.append(f"labels that no train example has: {', '.join(missing)}.")
    return notes


def _warn(notes: Iterable[str]) -> None:
    for note in notes:
        warnings.warn(note, DataWarning, stacklevel=4)  # the caller of Task.from_...
