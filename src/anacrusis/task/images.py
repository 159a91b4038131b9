"""Pictures as a task's inputs: where they come from, and how they are found, opened and told apart.

A picture is (H, W, 3), uint8, RGB: turned as its EXIF says, with what is transparent on white. Every one is decoded
once when the task is read, so that a broken file is found before hours of work and not after them.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from io import BytesIO
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError, DataError, MissingExtra, did_you_mean
from .readers import BadRow, Row, Table, is_list

if TYPE_CHECKING:
    from .task import Example

Picture = NDArray[np.uint8]  # (H, W, 3)
Done = Callable[[int, int], None]  # (pictures opened so far, all of them)

SUFFIXES = (
    ".jpg", ".jpeg", ".jfif", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".avif",
)  # fmt: skip
PARTS = {  # by the name of a folder that holds class folders
    "train": "train", "valid": "valid", "validation": "valid", "val": "valid", "dev": "valid", "test": "test",
}  # fmt: skip
FIX = "Replace it, or leave such rows out with --skip-bad (skip_bad=True)."
LAYOUT = "Expected a folder per class, such as {0}/cat/1.jpg and {0}/dog/1.jpg."
BLOCK = 1024  # pictures handed to the threads at a time


Item = TypeVar("Item", bound="_Input")


class _Input(Protocol):
    """A row on its way to an example."""

    @property
    def inputs(self) -> tuple[str, ...]: ...
    @property
    def where(self) -> str: ...


@dataclass(frozen=True, eq=False)
class Images:
    """Where a task's pictures come from.

    held: pictures in memory, as arrays or as the bytes of files; not copied. change: made of each picture that is
    loaded, from its key and itself.
    """

    held: Sequence[Picture | bytes] = ()
    change: Callable[[str, Picture], Picture] | None = None

    def load(self, key: str) -> Picture:
        """(H, W, 3), the caller's own. key: a file's path, or "#17" for item 17 of `held`.

        Raises DataError where there is no such picture, or it is broken.
        """
        picture = self._held(key) if self.held and key[:1] == "#" and key[1:].isdecimal() else load(key)
        return picture if self.change is None else self.change(key, picture)

    def _held(self, key: str) -> Picture:
        at = int(key[1:])
        if at >= len(self.held):
            raise DataError(f"no picture {key}: there are {len(self.held)}, and the first is #0")
        item = self.held[at]
        return _decode(item, f"picture {key}") if isinstance(item, bytes) else of_array(item)


def load(key: str | Path) -> Picture:
    """The picture in a file: (H, W, 3), uint8, RGB. Raises DataError that names the file and what is wrong with it."""
    if not Path(key).is_file():
        raise DataError(missing(Path(key)))
    return _decode(_bytes(Path(key)), str(key))


def missing(path: Path) -> str:
    """What to say of a path where there is no file."""
    if path.is_dir():
        return f"{path} is a folder: give the pictures in it, such as {path / '*.jpg'}"
    if not path.parent.is_dir():
        return f"no such picture: {path}. Its folder does not exist."
    near = [p.name for p in path.parent.iterdir() if p.suffix.lower() in SUFFIXES]
    hint = did_you_mean(path.name, near)
    # a folder of thousands is not listed
    return f"no such picture: {path}.{hint if len(near) <= 20 else hint.partition(' Known:')[0]}"


def _bytes(path: Path) -> bytes:
    try:
        if not path.is_file():  # a pipe would be waited for
            raise DataError(f"no such picture: {path}")
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error


def _decode(data: bytes, name: str) -> Picture:
    try:
        from PIL import Image, ImageOps, UnidentifiedImageError
    except ImportError as error:
        raise MissingExtra("pillow", "images", "opening pictures") from error
    if not data:
        raise DataError(f"{name}: the file is empty, so it holds no picture")
    try:
        with Image.open(BytesIO(data)) as image:
            image.load()  # here a truncated file is found; Image.open reads no more than its head
            ImageOps.exif_transpose(image, in_place=True)
            return _rgb(image)
    except UnidentifiedImageError as error:
        raise DataError(f"{name}: not a picture in a format that Pillow reads") from error
    except Exception as error:  # a damaged file makes Pillow's decoders raise anything, from OSError to IndexError
        raise DataError(f"{name}: broken picture: {error or type(error).__name__}") from error


def _rgb(image: Any) -> Picture:
    """An open Pillow image of any mode as (H, W, 3)."""
    from PIL import Image

    if image.mode == "F":
        raise ValueError("its pixels are fractions; save it with 8 bits a channel")
    if image.mode.startswith("I"):  # grey of 16 bits, which convert() would cut off at 255
        image = Image.fromarray((np.asarray(image).astype(np.int64).clip(0, 65535) >> 8).astype(np.uint8))
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return np.array(image if image.mode == "RGB" else image.convert("RGB"), dtype=np.uint8)


def of_array(array: Any) -> Picture:
    """(H, W, 3), a copy, of a uint8 array (H, W, 3), (H, W, 1) or (H, W). Raises DataError for another one."""
    array = np.asarray(array)
    if array.ndim == 3 and array.shape[2] not in (1, 3):
        hint = ""
        if array.shape[0] in (1, 3):
            hint = " Its channels stand first: turn it with .transpose(1, 2, 0)."
        raise DataError(f"expected a picture of shape (H, W, 3) or (H, W), got {array.shape}.{hint}")
    if array.ndim not in (2, 3) or 0 in array.shape:
        raise DataError(f"expected a picture of shape (H, W, 3) or (H, W), got {array.shape}")
    if array.dtype != np.uint8:
        hint = " Of values from 0 to 1: (255 * x).round().astype('uint8')." if array.dtype.kind == "f" else ""
        raise DataError(f"expected a picture of uint8 values from 0 to 255, got {array.dtype}.{hint}")
    array = array[..., None] if array.ndim == 2 else array
    return np.array(np.broadcast_to(array, (*array.shape[:2], 3)))


# --- from the rows of a table to pictures that have been opened


class Opener:
    """Makes keys of the picture cells of tables, opens what is behind them, and knows each one's content."""

    def __init__(self, root: str | None, done: Done | None):
        self.root, self.done = root, done
        self.held: list[Picture | bytes] = []
        self.content: dict[str, str] = {}  # by key: 32 hex digits of the file's or the array's bytes

    @property
    def images(self) -> Images:
        return Images(self.held)

    def table(self, table: Table) -> Table:
        """The same table with a key in the place of each row's first cell."""

        def rows(names: Sequence[str]) -> Iterator[Row]:
            folder = Path(table.folder if self.root is None else self.root).absolute()
            for where, cells in table.rows(names):
                if isinstance(cells, BadRow):
                    yield where, cells
                    continue
                try:
                    yield where, (self._key(cells[0], where, names[0], folder), *cells[1:])
                except BadRow as error:
                    yield where, error

        return replace(table, rows=rows)

    def _key(self, cell: Any, where: str, column: str, folder: Path) -> str:
        if isinstance(cell, Mapping) and {"bytes", "path"} & set(cell):  # how Hugging Face datasets keep pictures
            cell = cell.get("bytes") or cell.get("path")
        if cell is None or (isinstance(cell, str) and not cell.strip()) or (isinstance(cell, float) and cell != cell):
            raise BadRow(f"{where}: column {column!r} is empty, and should name a picture. {FIX}")
        if isinstance(cell, (str, os.PathLike)):
            name = os.fspath(cell)
            if "\0" in name or "://" in name:
                raise BadRow(
                    f"{where}: column {column!r}: {name!r} is no path of a file. Save the picture first. {FIX}"
                )
            return str(folder / name)
        if isinstance(cell, (bytes, bytearray)):
            return self._hold(bytes(cell))
        try:
            if hasattr(cell, "getbands"):  # of Pillow
                return self._hold(_rgb(cell))
            of_array(cell)
        except Exception as error:  # Pillow's images may be opened only now, and be broken
            raise BadRow(f"{where}: column {column!r}: {error}") from error
        return self._hold(np.asarray(cell))

    def _hold(self, item: Picture | bytes) -> str:
        self.held.append(item)
        return f"#{len(self.held) - 1}"

    def check(self, items: Mapping[str, list[Item]], skip_bad: bool, notes: list[str]) -> dict[str, list[Item]]:
        """Opens every picture once, and gives the items whose picture is whole.

        Raises BadRow for the first of the others; with skip_bad they are counted in a note.
        """
        where: dict[str, str] = {}
        for item in chain.from_iterable(items.values()):
            where.setdefault(item.inputs[0], item.where)
        keys, bad = list(where), {}
        pool = ThreadPoolExecutor(min(4, max(2, os.cpu_count() or 1)), "pictures")
        try:
            for start in range(0, len(keys), BLOCK):
                block = keys[start : start + BLOCK]
                for i, (key, found) in enumerate(zip(block, pool.map(self._open, block), strict=True), start + 1):
                    if isinstance(found, str):
                        self.content[key] = found
                    elif skip_bad:
                        bad[key] = found
                    else:
                        # what is near by name is looked for once: a folder may hold a million files
                        gone = key[0] != "#" and not Path(key).is_file()
                        raise _bad(where[key], key, DataError(missing(Path(key))) if gone else found)
                    if self.done is not None:
                        self.done(i, len(keys))
        finally:
            pool.shutdown(cancel_futures=True)
        if not bad:
            return dict(items)
        n = sum(item.inputs[0] in bad for item in chain.from_iterable(items.values()))
        first = next(iter(bad))
        said = str(_bad(where[first], first, bad[first])).removesuffix(FIX).strip()
        notes.append(f"{n} picture{'s' * (n > 1)} left out that cannot be opened (skip_bad). The first: {said}")
        return {part: [item for item in rows if item.inputs[0] not in bad] for part, rows in items.items()}

    def _open(self, key: str) -> str | DataError:
        """The content of one picture, or what is wrong with it."""
        try:
            item = self.held[int(key[1:])] if key[0] == "#" else _bytes(Path(key))
            if isinstance(item, bytes):
                _decode(item, key if key[0] == "#" else Path(key).name)
                return hashlib.blake2b(item, digest_size=16).hexdigest()
            shape = f"{item.shape}".encode()
            return hashlib.blake2b(shape + np.ascontiguousarray(item).tobytes(), digest_size=16).hexdigest()
        except DataError as error:
            return error

    def known(self, examples: Iterable[Example]) -> list[Example]:
        """The examples with their pictures' content, by which they are divided, compared and counted."""
        return [replace(e, content=self.content[e.inputs[0]]) for e in examples]


def _bad(where: str, key: str, error: DataError) -> BadRow:
    said = str(error).rstrip(".")
    if key.replace(os.sep, "/").endswith(where):  # a folder's rows are called as the files
        said = said.removeprefix(f"{Path(key).name}: ")
    return BadRow(f"{where}: {said}. {FIX}")


# --- folders


def divided(folder: str | Path) -> bool:
    """Whether the class folders lie in train, valid and test folders, not in this one."""
    return bool(_parts(Path(folder)))


def _parts(root: Path) -> dict[str, Path]:
    """The folders for parts. One that holds pictures and no folders is a class, even if it is called train."""
    if not root.is_dir():
        return {}
    inside = _folders(root)
    found = [(PARTS[p.name.lower()], p) for p in inside if p.name.lower() in PARTS and _folders(p)]
    parts = dict(found)
    if "train" in parts and len(parts) < len(found):
        raise DataError(f"{root} has {', '.join(p.name for _, p in found)}: two of them are one part. Join them")
    if parts and "train" not in parts and len(parts) == len(inside):
        raise DataError(
            f"{root} has {', '.join(p.name for p in parts.values())}, but no train folder. "
            f"Add {root / 'train'}, or name the one that is wanted, such as {next(iter(parts.values()))}"
        )
    return parts if "train" in parts else {}


def _folders(root: Path) -> list[Path]:
    return sorted(p for p in root.iterdir() if p.is_dir() and not p.name.startswith("."))


def folder_table(path: str | Path, part: str = "train") -> Table:
    """A table of the pictures in class folders: columns image, label, and split where folders tell the parts.

    What is left out is counted in its notes. Raises DataError for a folder without pictures in class folders.
    """
    root = Path(path)
    if not root.is_dir():
        if root.exists():
            raise DataError(f"{root} is a file. {LAYOUT.format('photos')}")
        near = [p.name for p in _folders(root.parent)][:20] if root.parent.is_dir() else []
        raise DataError(f"no such folder: {root}.{did_you_mean(root.name, near) if near else ''}")
    try:
        parts = _parts(root)
        found = _Found()
        for name, folder in (parts or {"": root}).items():
            found.classes(folder, f"{root.name}/{folder.name}" if name else root.name, name)
        if extra := [p.name for p in _folders(root) if p not in parts.values()] if parts else []:
            found.notes.append(
                f"folders of {root.name} left out: {', '.join(extra[:5])}. "
                f"Used: {', '.join(p.name for p in parts.values())}."
            )
    except OSError as error:
        raise DataError(f"{error.filename}: cannot be read: {error.strerror}") from error
    classes = {label for _, (_, label, _) in found.rows}
    if not classes or (part == "train" and len(classes) < 2):
        has = f"only one class folder with pictures, {next(iter(classes))!r}" if classes else "no pictures in folders"
        also = f" ({' '.join(found.remarks())})" if found.remarks() else ""
        raise DataError(f"{root} has {has}{also}. {LAYOUT.format(root.name)}")
    names = ("image", "label", "split")

    def rows(wanted: Sequence[str]) -> list[Row]:
        picks = [names.index(name) for name in wanted]
        return [(where, tuple([cells[i] for i in picks])) for where, cells in found.rows]

    return Table(root.name, root.name, names[: 3 if parts else 2], rows, notes=tuple(found.remarks()))


class _Found:
    """What is in class folders."""

    def __init__(self) -> None:
        self.rows: list[tuple[str, tuple[str, str, str]]] = []  # where; path, class, part
        self.notes: list[str] = []
        self.others: list[str] = []  # files that are no pictures by their suffix
        self.loose: list[str] = []  # pictures that lie in no class folder

    def classes(self, root: Path, where: str, part: str) -> None:
        for file in sorted(p for p in root.iterdir() if p.is_file() and not p.name.startswith(".")):
            (self.loose if file.suffix.lower() in SUFFIXES else self.others).append(f"{where}/{file.name}")
        for folder in _folders(root):
            before = len(self.rows)
            for file in _files(folder):
                name = f"{where}/{file.relative_to(root).as_posix()}"
                if file.suffix.lower() in SUFFIXES:
                    self.rows.append((name, (str(file.absolute()), folder.name, part or "train")))
                else:
                    self.others.append(name)
            if len(self.rows) == before:
                self.notes.append(f"the folder {where}/{folder.name} holds no pictures: it is no class.")

    def remarks(self) -> list[str]:
        said = list(self.notes)
        if n := len(self.others):
            kinds = Counter(Path(name).suffix.lower() or "none" for name in self.others)
            said.append(
                f"{n} file{'s' * (n > 1)} left out as no picture{'s' * (n > 1)}, by suffix "
                f"({', '.join(k for k, _ in kinds.most_common(5))}), such as {self.others[0]}."
            )
        if n := len(self.loose):
            said.append(f"{n} picture{'s' * (n > 1)} left out that lie{'s' * (n == 1)} in no class folder, "
                        f"such as {self.loose[0]}.")  # fmt: skip
        return said


def _files(folder: Path) -> Iterator[Path]:
    """The files in a folder and in those below it, by name. Links are followed, but not round in circles."""
    seen: set[str] = set()
    for at, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(at)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(f for f in folders if not f.startswith("."))
        for name in sorted(files):
            if not name.startswith("."):
                yield Path(at, name)


# --- arrays


def arrays_table(pair: tuple[Any, Any], names: Sequence[str] | None, prefix: str) -> Table:
    """A table of N pictures (uint8) and N labels: indexes of `names`, names, lists of those, or (N, C) of 0 and 1."""
    pictures, labels = pair
    if len(pictures) != len(labels):
        raise DataError(f"{len(pictures)} {prefix}pictures, but {len(labels)} labels: expected as many")
    if getattr(labels, "ndim", 1) == 2:
        grid = np.asarray(labels)
        if not np.isin(grid, (0, 1)).all() or (names is not None and grid.shape[1] != len(names)):
            want = f"(N, {len(names)})" if names is not None else "(N, C)"
            raise DataError(f"{prefix}labels: expected {want} of 0 and 1, got shape {grid.shape} of {grid.dtype}")
        labels = [np.flatnonzero(row).tolist() for row in grid]
    cells = [_label(label, names, f"{prefix}row {i}") for i, label in enumerate(labels)]

    def rows(wanted: Sequence[str]) -> Iterator[Row]:
        for i, both in enumerate(zip(pictures, cells, strict=True)):
            yield f"{prefix}row {i}", tuple(both["image label".split().index(name)] for name in wanted)

    return Table(f"the {prefix}arrays", f"the {prefix}arrays", ("image", "label"), rows)


def _label(label: Any, names: Sequence[str] | None, where: str) -> Any:
    if is_list(label):
        return [_label(one, names, where) for one in label]
    if names is None:
        return label
    if isinstance(label, str):
        if label not in names:
            raise DataError(f"{where}: no class {label!r} among the names.{did_you_mean(label, names)}")
        return label
    if label is None or int(label) != label or not 0 <= label < len(names):
        raise DataError(f"{where}: the label {label!r} is no index of the {len(names)} names, 0 to {len(names) - 1}")
    return names[int(label)]


def folder_options(path: str | Path, given: Mapping[str, Any], separate: Sequence[str]) -> dict[str, Any]:
    """How the class folders in `path` are read. separate: the parts that are given as folders of their own."""
    for name in ("image", "root", "split_column"):
        if given.get(name) is not None:
            raise ConfigError(f"{name}={given[name]!r}: a folder's files and folders tell that; leave {name} out")
    options = {**given, "name": given.get("name") or Path(path).absolute().name, "image": "image"}
    if divided(path):
        if separate:
            raise ConfigError(
                f"{path} has folders for its parts, and {separate[0]}= is given too: give one or the other"
            )
        options["split_column"] = "split"
    return options
