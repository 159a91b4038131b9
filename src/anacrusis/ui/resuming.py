"""Resuming runs from the view: each in a process of its own that outlives the view, its words in resume.log.

resuming.json says which process that is, for other views of the same folder, until it says so itself (running.json).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import psutil

from ..errors import RunError
from ..runs.running import RUNNING, running
from ..search.person import alone, safe_write
from .looks import elsewhere

LOG, BEGUN = "resume.log", "resuming.json"
MOST = 4000  # characters of the log's end that are shown
STOPPED = 130  # the exit code of a run that somebody stopped


class Resumes:
    """The processes that this view has started, by folder."""

    def __init__(self, root: Path):
        self.root = root
        self.mine: dict[Path, subprocess.Popen[bytes]] = {}

    def begin(self, folder: Path) -> bool:
        """Resume the run or comparison in `folder`; False where a process works on it already.

        Raises RunError where another machine says that it does."""
        with alone(folder / LOG):
            if self.starting(folder) or running(folder) is not None:
                return False
            if host := elsewhere(folder):
                raise RunError(
                    f"{host} works on this run. If it was killed there, delete {folder / RUNNING} and resume again"
                )
            (folder / LOG).unlink(missing_ok=True)  # whatever it is: a link is not written through
            with open(folder / LOG, "xb") as log:
                self.mine[folder] = process = subprocess.Popen(
                    command(folder), stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
                    start_new_session=True, env={**os.environ, "ANACRUSIS_RUNS": str(self.root.resolve())},
                )  # fmt: skip
            said = {"pid": process.pid, "made": psutil.Process(process.pid).create_time()}
            safe_write(folder / BEGUN, json.dumps(said))
            # somebody has to wait for it, or it stays in the list of processes when it has ended
            threading.Thread(target=process.wait, name="anacrusis-resume", daemon=True).start()
            return True

    def starting(self, folder: Path) -> bool:
        """Whether a process lives that this view has started for it, or another view."""
        return _lives(folder / BEGUN)

    def failed(self, folder: Path) -> str:
        """Why the last resuming ended without a result: the end of what it said; "" where it was no failure."""
        process = self.mine.get(folder)
        if process is None or process.poll() in (None, 0, STOPPED, -15):
            return ""
        log = folder / LOG
        text = log.read_text(encoding="utf-8", errors="replace").strip() if log.is_file() else ""
        return f"exit code {process.returncode}\n{text[-MOST:]}".strip()


def _lives(file: Path) -> bool:
    """Whether the process that the file tells of is there; numbers of processes are used again."""
    try:
        said = json.loads(file.read_text(encoding="utf-8"))
        process = psutil.Process(said["pid"])
        return abs(process.create_time() - said["made"]) < 1.0 and process.status() != psutil.STATUS_ZOMBIE
    except (OSError, ValueError, KeyError, TypeError, RecursionError, psutil.Error):  # no such file or process
        return False


def command(folder: Path) -> list[str]:
    return [sys.executable, "-m", "anacrusis.cli", "resume", str(folder.resolve()), "--quiet"]
