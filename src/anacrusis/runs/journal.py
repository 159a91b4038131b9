"""The journal: an append-only file of JSON records, one a line. A line cut off by a crash is dropped on reading."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

from ..errors import RunError


class Journal:
    """Appends records to journal.jsonl in `folder`, which one process at a time may write."""

    def __init__(self, folder: Path):
        self.path = folder / "journal.jsonl"
        self.file: BinaryIO | None = None

    def __enter__(self) -> Journal:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.file = open(self.path, "ab")
        try:
            import fcntl
        except ImportError:  # Windows: no advisory locks of this kind
            return self
        try:
            fcntl.flock(self.file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self.file.close()
            raise RunError(
                f"another process is writing the run in {self.path.parent}; wait for it or stop it"
            ) from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.file is not None:
            self.file.close()
            self.file = None

    def append(self, record: dict[str, Any], durable: bool = True) -> None:
        """Write one record; with `durable` it has reached the disk on return."""
        assert self.file is not None
        if self.file.tell() and not _ends_line(self.path):
            self.file.write(b"\n")  # the last line was cut off: keep it apart from this one
        self.file.write(json.dumps(record, ensure_ascii=False, allow_nan=False).encode() + b"\n")
        self.file.flush()
        if durable:
            os.fsync(self.file.fileno())


def _ends_line(path: Path) -> bool:
    with open(path, "rb") as f:
        f.seek(-1, os.SEEK_END)
        return f.read(1) == b"\n"


def read(folder: Path) -> Iterator[dict[str, Any]]:
    """Records in order. A line cut off by a crash is left out; any other damage raises RunError."""
    path = folder / "journal.jsonl"
    if not path.exists():
        return
    lines = path.read_bytes().split(b"\n")
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            yield json.loads(line)
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            if _torn(line):
                continue
            raise RunError(f"{path}:{number}: damaged record ({error})") from error


def _torn(line: bytes) -> bool:
    """A crash cuts a record off, and the next writer goes on in a new line: such a line begins like a record."""
    return line.startswith(b"{") and not line.endswith(b"}")
