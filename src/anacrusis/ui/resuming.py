"""Resuming runs from the view: each in a process of its own that outlives the view, its words in resume.log."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

from ..runs.running import running

LOG = "resume.log"
MOST = 4000  # characters of the log's end that are shown
STOPPED = 130  # the exit code of a run that somebody stopped


class Resumes:
    """The processes that this view has started, by folder."""

    def __init__(self, root: Path):
        self.root = root
        self.mine: dict[Path, subprocess.Popen[bytes]] = {}
        self.lock = threading.Lock()

    def begin(self, folder: Path) -> bool:
        """Resume the run or comparison in `folder`; False where a process works on it already."""
        with self.lock:
            if self.starting(folder) or running(folder) is not None:
                return False
            with open(folder / LOG, "wb") as log:
                self.mine[folder] = process = subprocess.Popen(
                    command(folder), stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
                    start_new_session=True, env={**os.environ, "ANACRUSIS_RUNS": str(self.root.resolve())},
                )  # fmt: skip
            # somebody has to wait for it, or it stays in the list of processes when it has ended
            threading.Thread(target=process.wait, name="anacrusis-resume", daemon=True).start()
            return True

    def starting(self, folder: Path) -> bool:
        """Whether a process that this view has started for it lives."""
        process = self.mine.get(folder)
        return process is not None and process.poll() is None

    def failed(self, folder: Path) -> str:
        """Why the last resuming ended without a result: the end of what it said; "" where it was no failure."""
        process = self.mine.get(folder)
        if process is None or process.poll() in (None, 0, STOPPED, -15):
            return ""
        text = (folder / LOG).read_text(encoding="utf-8", errors="replace").strip()
        return f"exit code {process.returncode}\n{text[-MOST:]}".strip()


def command(folder: Path) -> list[str]:
    return [sys.executable, "-m", "anacrusis.cli", "resume", str(folder.resolve()), "--quiet"]
