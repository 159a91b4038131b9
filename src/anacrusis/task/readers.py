"""Files, frames and datasets -> rows of raw cells, each with the place it came from.

A `Table` knows its column names before any row is read; `rows(columns)` then gives the cells of these columns only.
Nothing is guessed and nothing is dropped here: a row that cannot be used is handed on as a `BadRow` in its place.
"""

from __future__ import annotations

import codecs
import csv
import json
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from ..errors import ConfigError, DataError, MissingExtra, did_you_mean

MAX_LINE = 10_000_000  # characters of one line or one CSV cell; a longer one is a mistake, and must not fill the memory
MAX_JSON = 1_000_000_000  # bytes of a .json file, which has to be read as a whole
SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson", ".json", ".parquet")
TEXT_NAMES = ("text", "sentence", "message")  # looked for, in this order, where no text column is named
LABEL_NAMES = ("label", "class", "category", "intent")
NAME_THEM = 'Name the columns: --text COL --label COL, or --image COL (in Python: text="COL", label="COL").'
FIX_ROW = "Fill it in, take the row out, or leave such rows out with --skip-bad (skip_bad=True)."


class BadRow(DataError):
    """One row cannot be used though the rest can: what `skip_bad` leaves out."""


Row = tuple[str, "tuple[Any, ...] | BadRow"]  # where it is, and its cells or why there are none


@dataclass(frozen=True)
class Reading:
    """How the rows are read. Everything in it can be written as JSON, so that a run can read the same again."""

    text: str | tuple[str, ...] | None = None  # column or columns of the input; None: looked for in TEXT_NAMES
    label: str | tuple[str, ...] | None = None  # column or columns of the gold; None: looked for in LABEL_NAMES
    name: str | None = None  # of the task; None: the file's name
    kind: str | None = None  # "classification", "multilabel" or "generation"; None: by the first label
    separator: str = "|"  # between the labels of one multi-label cell
    split_column: str | None = None  # holds train, valid (validation, dev) or test
    skip_bad: bool = False  # leave rows out that cannot be used; how many is written in Task.notes
    encoding: str = "utf-8"
    delimiter: str | None = None  # between cells; None: comma (or semicolon, by the header) in .csv, tab in .tsv
    quotes: bool = True  # False: a quotation mark is a character like any other
    image: str | None = None  # column of pictures: paths of files, or pictures themselves; instead of `text`
    root: str | None = None  # folder that those paths start from; None: the table's own, in memory the working one


@dataclass(frozen=True)
class Table:
    name: str  # for messages: the file's name, or what else was given
    head: str  # where the column names stand: "tickets.csv:1"
    columns: tuple[str, ...]
    rows: Callable[[Sequence[str]], Iterable[Row]]
    folder: str = ""  # where the file lies; "": in memory
    notes: tuple[str, ...] = ()  # what was left out before there were rows


# --- which columns


def choose(table: Table, reading: Reading) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The text columns and the label columns, all of them in the table. Raises DataError otherwise."""
    if reading.image is not None and reading.text is not None:
        raise ConfigError(f"text={reading.text!r} and image={reading.image!r}: give one or the other")
    text = _named(table, reading.image or reading.text, TEXT_NAMES, "image" if reading.image else "text")
    label = _named(table, reading.label, LABEL_NAMES, "label")
    if both := set(text) & set(label):
        raise DataError(f"{table.head}: column {min(both)!r} cannot be both text and label. {NAME_THEM}")
    return text, label


def _named(table: Table, given: str | Sequence[str] | None, usual: Sequence[str], what: str) -> tuple[str, ...]:
    if given is None:
        lower = {name.lower(): name for name in reversed(table.columns)}
        found = next((lower[name] for name in usual if name in lower), None)
        if found is None:
            raise DataError(
                f"{table.head}: which column holds the {what}? None is called {', '.join(usual[:-1])} or {usual[-1]}. "
                f"Columns: {', '.join(table.columns) or 'none'}. {NAME_THEM}"
            )
        given = found
    names = (given,) if isinstance(given, str) else tuple(given)
    if not names or len(set(names)) < len(names):
        raise ConfigError(f"{what}={list(names)}: expected one column name, or several different ones")
    for name in names:
        require(table, name)
    return names


def require(table: Table, name: str) -> None:
    """Raises DataError unless the table has exactly one column of this name."""
    if name not in table.columns:
        raise DataError(f"{table.head}: no column {name!r}.{did_you_mean(name, table.columns)} {NAME_THEM}")
    if table.columns.count(name) > 1:
        raise DataError(f"{table.head}: {table.columns.count(name)} columns are called {name!r}. Rename all but one.")


# --- files


def open_table(path: str | Path, reading: Reading, form: str | None = None) -> Table:
    """The table in a file, by its suffix or as `form` (a suffix). Reads no more than the column names of text files.

    Raises DataError where the file is missing, of another format, empty or damaged.
    """
    path = Path(path)
    suffix = form or path.suffix.lower()
    openers = {".jsonl": _jsonl, ".ndjson": _jsonl, ".json": _json, ".parquet": _parquet, ".csv": _csv, ".tsv": _csv}
    try:
        if not path.is_file():
            raise DataError(_no_file(path))
        if suffix not in openers:
            raise DataError(f"{path.name}: cannot tell the format by {suffix!r}. Known: {', '.join(SUFFIXES)}.")
        return replace(openers[suffix](path, reading), folder=str(path.parent))
    except OSError as error:
        raise DataError(f"{path.name}: cannot be read: {error.strerror or error}") from error


def _no_file(path: Path) -> str:
    if path.is_dir():
        return f"{path} is a folder. Give one of the files in it; a folder per class is read by Task.from_folder."
    if path.exists():
        return f"{path} is a pipe or a device. Save it to a file first: it is read more than once."
    folder = path.parent
    near = [p.name for p in folder.iterdir() if p.suffix in SUFFIXES][:20] if folder.is_dir() else []
    hint = did_you_mean(path.name, near) if near else " Its folder does not exist." if not folder.is_dir() else ""
    return f"no such file: {path}.{hint}"


def _lines(path: Path, encoding: str, newline: str) -> Iterator[str]:
    """Physical lines with their ends. Never holds more than MAX_LINE characters of one line."""
    encoding, number = _codec(encoding), 0
    try:
        with open(path, encoding=encoding, newline=newline) as file:
            while line := file.readline(MAX_LINE + 1):
                number += 1
                if len(line) > MAX_LINE:
                    raise DataError(
                        f"{path.name}:{number}: the line is longer than {MAX_LINE:,} characters. "
                        "Is this the right file, with one row a line?"
                    )
                if "\0" in line:
                    raise DataError(
                        f"{path.name}:{number}: a NUL byte, which no text has. Is this a binary file, or UTF-16? "
                        "Save it as UTF-8, or name its encoding: --encoding utf-16 (encoding='utf-16')."
                    )
                yield line
    except UnicodeError as error:
        raise DataError(_bad_byte(path, encoding)) from error


def _codec(encoding: str) -> str:
    """The usual name of an encoding. Raises ConfigError where Python has no such text encoding."""
    try:
        "".encode(encoding)  # refuses codecs that are not of text, such as base64
        name = codecs.lookup(encoding).name
    except LookupError:
        raise ConfigError(f"unknown encoding {encoding!r}. Usual ones: utf-8, utf-16, cp1252, latin-1") from None
    # a byte order mark, as spreadsheets write it, is no part of the first column's name
    return "utf-8-sig" if name == "utf-8" else name


def _bad_byte(path: Path, encoding: str) -> str:
    """The message for bytes that are no text. The text layer's error counts from its own buffer: look again."""
    encoding = encoding.removesuffix("-sig")  # that decoder does not count the mark
    decoder = codecs.getincrementaldecoder(encoding)()
    offset, line, at = 0, 1, f"{path.name}: the file"
    with open(path, "rb") as file:
        while True:
            chunk = file.read(1 << 20)
            pending = len(decoder.getstate()[0])  # bytes of a character that the last chunk cut
            try:
                decoder.decode(chunk, final=not chunk)
            except UnicodeDecodeError as error:
                line += error.object[: error.start].count(b"\n")
                byte = error.object[error.start]
                at = f"{path.name}:{line}: byte {offset - pending + error.start} of the file (0x{byte:02x})"
                break
            except UnicodeError:  # a missing byte order mark has no position
                break
            if not chunk:
                break
            line += chunk.count(b"\n")
            offset += len(chunk)
    return f"{at} is not {encoding}. Save it as UTF-8, or name its encoding: --encoding cp1252 (encoding='cp1252')."


# --- CSV and TSV

_CSV_LIMIT = threading.Lock()  # csv's limit on a cell is one for the whole process: raised while we read, then put back


@contextmanager
def _long_cells() -> Iterator[None]:
    with _CSV_LIMIT:
        before = csv.field_size_limit(MAX_LINE)
        try:
            yield
        finally:
            csv.field_size_limit(before)


def _csv(path: Path, reading: Reading) -> Table:
    delimiter = reading.delimiter or _delimiter(path, reading)
    head, columns = _header(path, reading, delimiter)

    def rows(names: Sequence[str]) -> list[Row]:
        picks = [columns.index(name) for name in names]
        out: list[Row] = []
        with _long_cells():
            records = _records(path, reading, delimiter)
            next(records)  # the header
            for line, cells in records:
                where = f"{path.name}:{line}"
                if len(cells) == len(columns):
                    out.append((where, tuple([cells[i] for i in picks])))
                else:
                    out.append((where, _ragged(where, cells, columns, delimiter)))
        return out

    return Table(path.name, head, columns, rows)


def _delimiter(path: Path, reading: Reading) -> str:
    """Tab in .tsv, comma in .csv, or semicolon: what spreadsheets write where the comma is the decimal point."""
    if path.suffix.lower() == ".tsv":
        return "\t"
    first = next((line for line in _lines(path, reading.encoding, "") if line.strip()), "")
    with _long_cells():
        names = next(csv.reader([first]), [])
    return ";" if len(names) == 1 and ";" in names[0] else ","


def _header(path: Path, reading: Reading, delimiter: str) -> tuple[str, tuple[str, ...]]:
    with _long_cells():
        first = next(_records(path, reading, delimiter), None)
    if first is None:
        raise DataError(f"{path.name}: the file is empty. Its first line must name the columns, such as text,label")
    return f"{path.name}:{first[0]}", tuple(name.strip() for name in first[1])


def _records(path: Path, reading: Reading, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """The physical line that a row begins in, and its cells; rows of nothing at all are blank lines, and no rows."""
    # newline="" splits at \n, \r\n and \r alike and keeps them, which csv needs for cells of several lines.
    lines = _lines(path, reading.encoding, "")
    quoting: Literal[0, 3] = csv.QUOTE_MINIMAL if reading.quotes else csv.QUOTE_NONE
    try:
        # strict: the default silently joins what stands behind a closing quote to the cell
        reader = csv.reader(lines, delimiter=delimiter, quoting=quoting, strict=True)
    except (TypeError, ValueError):
        raise ConfigError(f"delimiter={delimiter!r}: expected one character, such as ',' ';' or a tab") from None
    line = 1
    try:
        for cells in reader:
            if cells:
                yield line, cells
            line = reader.line_num + 1
    except csv.Error as error:
        raise DataError(_csv_trouble(path, line, reader.line_num, str(error))) from error


def _csv_trouble(path: Path, first: int, last: int, error: str) -> str:
    fix = (
        'Close it, write "" for a quotation mark inside a quoted cell, '
        "or read the marks as plain characters: --no-quotes (quotes=False)."
    )
    if "unexpected end" in error:
        return (
            f"{path.name}:{first}: a quotation mark opens in the row that begins here and is never closed: "
            f"it takes in everything up to the file's end at line {last}. {fix}"
        )
    if "expected after" in error:
        return (
            f"{path.name}:{last}: text behind a closing quotation mark, in the row that begins at line {first}. "
            f"Often a mark is left open further up. {fix}"
        )
    if "field larger" in error:
        return (
            f"{path.name}:{first}: a cell in the row that begins here is longer than {MAX_LINE:,} characters "
            f"(read up to line {last}). A quotation mark that is never closed does this. {fix}"
        )
    return f"{path.name}:{first}: not readable as CSV: {error}."


def _ragged(where: str, cells: Sequence[str], columns: Sequence[str], delimiter: str) -> BadRow:
    if len(cells) > len(columns):
        hint = f"Put quotation marks around a cell that contains {delimiter!r}."
        extra = f"; the first too many, behind column {columns[-1]!r}, is {_short(cells[len(columns)])}"
    else:
        hint = "Is a delimiter missing, or a quotation mark left open?"
        extra = f"; the first that has none is column {columns[len(cells)]!r}"
    return BadRow(
        f"{where}: {_count(len(cells), 'cell')}, but the header names {len(columns)}{extra}. {hint} {FIX_ROW}"
    )


# --- JSON


def _jsonl(path: Path, reading: Reading) -> Table:
    def objects() -> Iterator[tuple[str, Any]]:
        # newline="\n": a lone \r is white space inside JSON, not the end of a record
        for number, line in enumerate(_lines(path, reading.encoding, "\n"), 1):
            if not line.isspace():
                try:
                    yield f"{path.name}:{number}", json.loads(line)
                except (ValueError, RecursionError) as error:
                    raise DataError(_json_trouble(path, number, error, "one JSON object a line")) from error

    return _objects(path.name, objects)


def _json(path: Path, reading: Reading) -> Table:
    if path.stat().st_size > MAX_JSON:
        raise DataError(
            f"{path.name}: larger than {MAX_JSON:,} bytes. Save it as JSON lines (.jsonl), read row by row."
        )
    encoding = _codec(reading.encoding)
    try:
        text = path.read_text(encoding=encoding)
    except UnicodeError as error:
        raise DataError(_bad_byte(path, encoding)) from error
    pairs = list(_array(path, text))
    return _objects(path.name, lambda: iter(pairs))


def _array(path: Path, text: str) -> Iterator[tuple[str, Any]]:
    """The items of a JSON list with the line that each begins in, which json.loads would not tell."""
    decoder, at = json.JSONDecoder(), _skip_blank(text, 0)
    if at == len(text):
        raise DataError(f"{path.name}: the file is empty. Expected a list of objects: [{{...}}, {{...}}]")
    line, counted = 1 + text.count("\n", 0, at), at
    if text[at] != "[":
        raise DataError(
            f"{path.name}:{line}: expected a list of objects, [{{...}}, {{...}}], but it begins with {text[at]!r}. "
            "A file with one object a line must be called .jsonl."
        )
    try:
        at = _skip_blank(text, at + 1)
        more = text[at : at + 1] != "]"
        while more:
            line, counted = line + text.count("\n", counted, at), at
            item, at = decoder.raw_decode(text, at)
            yield f"{path.name}:{line}", item
            at = _skip_blank(text, at)
            more = text[at : at + 1] == ","
            at = _skip_blank(text, at + 1) if more else at
        if text[at : at + 1] != "]" or text[at + 1 :].strip():
            raise json.JSONDecodeError("expected ',' or the one ']' at the end", text, at)
    except json.JSONDecodeError as error:
        raise DataError(_json_trouble(path, error.lineno, error, "a list of objects")) from error
    except (ValueError, RecursionError) as error:
        raise DataError(_json_trouble(path, line, error, "a list of objects")) from error


def _skip_blank(text: str, at: int) -> int:
    while at < len(text) and text[at] in " \t\r\n":
        at += 1
    return at


def _json_trouble(path: Path, line: int, error: Exception, expected: str) -> str:
    why = f"{error.msg}, at column {error.colno}" if isinstance(error, json.JSONDecodeError) else str(error)
    if isinstance(error, RecursionError):
        why = "nested too deeply"
    return f"{path.name}:{line}: not valid JSON: {why}. Expected {expected}."


def _objects(name: str, objects: Callable[[], Iterator[tuple[str, Any]]]) -> Table:
    """A table of mappings. Its columns are the keys of the first; one that lacks a key further down is a bad row."""
    where, first = next(objects(), (name, None))
    if first is None and where == name:
        raise DataError(f"{name}: there are no rows.")
    if not isinstance(first, Mapping):
        raise DataError(_no_object(where, first))

    def rows(names: Sequence[str]) -> Iterator[Row]:
        for where, item in objects():
            if not isinstance(item, Mapping):
                raise DataError(_no_object(where, item))
            try:
                yield where, tuple([item[column] for column in names])
            except KeyError as error:
                yield where, BadRow(f"{where}: no column {error.args[0]!r} in this row. {FIX_ROW}")

    return Table(name, where, tuple(first), rows)


def _no_object(where: str, item: Any) -> str:
    return f'{where}: expected an object such as {{"text": "...", "label": "..."}}, got {_short(item)}'


# --- in memory, Parquet, Hugging Face


def records_table(records: Iterable[Mapping[str, Any]], prefix: str = "") -> Table:
    """A table of dicts. Row numbers count from 0, as the caller's list does."""
    items = list(records)
    return _objects(f"the {prefix}records", lambda: ((f"{prefix}row {i}", item) for i, item in enumerate(items)))


def columns_table(name: str, columns: Sequence[str], get: Callable[[str], Iterable[Any]], prefix: str) -> Table:
    """A table that is stored by column: `get` gives all cells of one. Row numbers count from 0."""

    def rows(names: Sequence[str]) -> Iterator[Row]:
        for i, cells in enumerate(zip(*(get(column) for column in names), strict=True)):
            yield f"{prefix}row {i}", cells

    return Table(name, name, tuple(columns), rows)


def frame_table(frame: Any, prefix: str = "") -> Table:
    """A table of a data frame: anything with `.columns` and `frame[name].to_list()` (pandas, polars)."""
    if not hasattr(frame, "columns") or not hasattr(frame, "__getitem__"):
        raise DataError(f"expected a data frame, got {type(frame).__name__}. For dicts: Task.from_records.")
    names = [str(name) for name in frame.columns]
    keys = dict(zip(names, frame.columns, strict=True))  # a column's name may be a number
    return columns_table(f"the {prefix}frame", names, lambda name: frame[keys[name]].to_list(), prefix)


def _parquet(path: Path, reading: Reading) -> Table:
    try:
        import pyarrow
        from pyarrow import parquet
    except ModuleNotFoundError as error:
        raise MissingExtra("pyarrow", "frames", "Reading Parquet files") from error
    try:
        names = parquet.ParquetFile(path).schema_arrow.names
    except pyarrow.ArrowException as error:
        raise DataError(f"{path.name}: not a readable Parquet file: {error}") from error

    def get(name: str) -> list[Any]:
        try:
            column: list[Any] = parquet.ParquetFile(path).read(columns=[name]).column(name).to_pylist()
        except pyarrow.ArrowException as error:
            raise DataError(f"{path.name}: column {name!r} cannot be read: {error}") from error
        return column

    return columns_table(path.name, names, get, f"{path.name} ")


def dataset_table(dataset: Any, prefix: str = "") -> Table:
    """A table of one Hugging Face `Dataset`; columns of class numbers give class names."""
    names, features = getattr(dataset, "column_names", None), getattr(dataset, "features", None)
    if not isinstance(names, Sequence) or not hasattr(dataset, "__len__"):
        raise DataError(
            f"expected a Dataset or DatasetDict, got {type(dataset).__name__}. "
            "A streaming dataset must be loaded without streaming=True."
        )

    def get(name: str) -> Iterable[Any]:
        feature: Any = features[name] if features else None
        if type(feature).__name__ == "Image":  # its bytes: one that is broken is then told by row, as for files
            return dataset.cast_column(name, type(feature)(decode=False))[name]
        cells = dataset[name]
        classes = _class_names(feature) if features else None
        if classes is None:
            return cells
        return (_class_name(value, classes, f"{prefix}row {i}", name) for i, value in enumerate(cells))

    return columns_table(f"the {prefix}dataset", names, get, prefix)


def _class_names(feature: Any) -> Sequence[str] | None:
    """The names of a ClassLabel, or of a list of them."""
    if isinstance(feature, list) and len(feature) == 1:
        feature = feature[0]
    names = getattr(getattr(feature, "feature", feature), "names", None)
    return names if isinstance(names, Sequence) else None


def _class_name(value: Any, names: Sequence[str], where: str, column: str) -> Any:
    if isinstance(value, (list, tuple)):
        return [_class_name(v, names, where, column) for v in value]
    if value is not None and int(value) < 0:
        raise DataError(
            f"{where}: column {column!r} is {value}: rows of this split are unlabelled. Give labelled splits only: "
            "Task.from_dataset({'train': ds['train'], 'test': ds['validation']}, ...)"
        )
    return None if value is None else names[int(value)]


# --- cells


def is_list(value: Any) -> bool:
    """Whether a cell holds several values (a list, a tuple, an array)."""
    return isinstance(value, (list, tuple)) or (hasattr(value, "tolist") and getattr(value, "ndim", 0) > 0)


def as_text(value: Any, where: str, column: str) -> str:
    """The text of a cell, unchanged; numbers are written out. Raises BadRow for none, a blank one or a nested one."""
    text = value if isinstance(value, str) else _scalar(value, where, column)
    if not text or text.isspace():
        raise BadRow(f"{where}: column {column!r} is empty. {FIX_ROW}")
    if "\0" in text:
        raise BadRow(f"{where}: column {column!r} holds a NUL character, which no text has. {FIX_ROW}")
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            raise BadRow(f"{where}: column {column!r} holds half a character (a lone surrogate). {FIX_ROW}") from None
    return text


def as_label(value: Any, where: str, column: str) -> str:
    """A class name without the blanks around it; True, 1 and 1.0 are "True", "1" and "1"."""
    if is_list(value):
        raise BadRow(f"{where}: column {column!r} holds a list, and the task has one class a row. {_KINDS}")
    return as_text(value, where, column).strip()


def as_labels(value: Any, where: str, column: str, separator: str) -> tuple[str, ...]:
    """The class names of a multi-label cell: a list, or a text split at `separator` (alone: no label at all)."""
    if is_list(value):
        return tuple(as_label(item, where, column) for item in value)
    if isinstance(value, str) and not value.strip():
        raise BadRow(f"{where}: column {column!r} is empty; for no label write {separator!r} alone. {FIX_ROW}")
    text = as_label(value, where, column)
    return tuple(part.strip() for part in text.split(separator) if part.strip())


def as_references(value: Any, where: str, column: str) -> tuple[str, ...]:
    """The acceptable texts of a generation cell, at least one."""
    texts = tuple(as_text(item, where, column) for item in (value if is_list(value) else [value]))
    if not texts:
        raise BadRow(f"{where}: column {column!r} is an empty list. {FIX_ROW}")
    return texts


def as_flag(value: Any, where: str, column: str) -> bool:
    """A yes/no cell of a table with one column per label."""
    known = {"1": True, "0": False, "true": True, "false": False}
    text = as_label(value, where, column).lower()
    if text not in known:
        raise BadRow(
            f"{where}: column {column!r} is {_short(value)}; as one of several label columns it must be 0 or 1."
        )
    return known[text]


_KINDS = "Name the kind: --kind multilabel or --kind generation (kind='multilabel')."


def _scalar(value: Any, where: str, column: str) -> str:
    if hasattr(value, "item") and getattr(value, "ndim", None) == 0:
        value = value.item()  # a numpy number
    # NaN is the only number that differs from itself; pandas' own marks cannot be compared
    if value is None or type(value).__name__ in ("NAType", "NaTType") or (isinstance(value, float) and value != value):
        raise BadRow(f"{where}: column {column!r} has no value. {FIX_ROW}")
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # a frame turns 1 into 1.0 as soon as one cell of the column is missing
    if not isinstance(value, (str, bool, int, float)):
        raise BadRow(f"{where}: column {column!r} holds {_short(value)}: a plain text is needed. Flatten it first.")
    return str(value)


def _short(value: Any) -> str:
    text = repr(value)
    return f"the {type(value).__name__} {text if len(text) <= 40 else text[:37] + '...'}"


def _count(n: int, noun: str) -> str:
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"
