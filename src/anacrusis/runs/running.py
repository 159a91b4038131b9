"""Whether a process works on a run's folder, and asking it to stop. Both are small files in that folder.

running.json: which process (with the time when it was made, for numbers of processes are used again).
stop: whoever wants the run to stop puts it there; the run sees it within a second, ends, and can be resumed.
"""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import RunError, RunStopped
from ..prompt.store import write_json

RUNNING, STOP, LOCK = "running.json", "stop", "running.lock"
EVERY = 0.5  # seconds between two looks at the stop file


@contextmanager
def at_work(folder: Path) -> Iterator[Stop]:
    """Say that this process works on `folder`, and give what tells whether it should stop.

    Raises RunError where another process of this machine works on it.
    """
    import psutil

    lock = open(folder / LOCK, "ab")
    try:
        import fcntl

        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except ImportError:  # Windows: no advisory locks of this kind; a journal still refuses a second writer
        pass
    except OSError as error:
        lock.close()
        raise RunError(f"another process works on {folder}; wait for it or stop it") from error
    (folder / STOP).unlink(missing_ok=True)  # it was meant for the process before
    mine = {"pid": os.getpid(), "made": psutil.Process().create_time(), "host": socket.gethostname()}
    write_json(folder / RUNNING, mine)
    try:
        yield Stop(folder)
    finally:
        (folder / RUNNING).unlink(missing_ok=True)
        lock.close()


class Stop:
    """Call it often: it raises RunStopped once somebody has asked for that."""

    def __init__(self, folder: Path):
        self.folder, self.next = folder, 0.0

    def __call__(self) -> None:
        now = time.monotonic()
        if now < self.next:
            return
        self.next = now + EVERY
        if (self.folder / STOP).exists():
            (self.folder / STOP).unlink(missing_ok=True)
            raise RunStopped(f"the run in {self.folder} was asked to stop; continue it: anacrusis resume {self.folder}")


def running(folder: Path) -> int | None:
    """The process that works on the run, None where there is none (or it is on another machine and cannot be seen)."""
    import psutil

    try:
        said = json.loads((folder / RUNNING).read_text(encoding="utf-8"))
        if said["host"] != socket.gethostname():
            return None
        alive = psutil.Process(said["pid"])
        return int(said["pid"]) if abs(alive.create_time() - said["made"]) < 1.0 and alive.is_running() else None
    except (OSError, ValueError, KeyError, TypeError, RecursionError, psutil.Error):  # gone, or damaged
        return None


def ask_to_stop(folder: Path) -> bool:
    """Ask the process that works on `folder` to stop; whether there is one."""
    if running(folder) is None:
        return False
    (folder / STOP).touch()
    return True
