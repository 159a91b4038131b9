"""Processes: each job gives one answer, also where one takes its process with it, and none outlives the comparison."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from anacrusis.errors import ConfigError
from anacrusis.runs import spread


@dataclass(frozen=True)
class Job:
    name: str
    folder: Path


def begin(threads: int) -> None:
    """Of a process, without torch."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def says(job: Job) -> str:
    return f"{job.name} is done"


def dies(job: Job) -> str:
    """Jobs named "bad" kill their process each time, those named "once" the first time."""
    tries = job.folder / job.name
    with tries.open("a") as f:
        f.write("x")
    time.sleep(0.1)
    if job.name.startswith("bad") or (job.name.startswith("once") and tries.read_text() == "x"):
        os.kill(os.getpid(), signal.SIGKILL)
    return f"{job.name} is done"


def lasts(job: Job) -> str:
    """Never ends by itself; "deaf": nor when it is asked to. Job "quick" ends at once."""
    if job.name == "quick":
        return ""
    if job.name == "deaf":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    (job.folder / f"{job.name}.part").write_text(str(os.getpid()))
    (job.folder / f"{job.name}.part").rename(job.folder / f"{job.name}.pid")
    time.sleep(120)
    return ""


@pytest.fixture(autouse=True)
def _light(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spread, "_begin", begin)
    monkeypatch.setattr(spread, "GRACE", 0.5, raising=False)
    monkeypatch.setattr(spread, "LOOK", 0.05)


@pytest.fixture
def stray() -> Iterator[list[psutil.Process]]:
    """Processes that a failing test leaves behind."""
    found: list[psutil.Process] = []
    yield found
    for process in found:
        if process.is_running():
            process.kill()


def jobs(folder: Path, *names: str) -> list[Job]:
    return [Job(name, folder) for name in names]


def ignore(event: dict[str, Any]) -> None:
    pass


def begun(folder: Path, *names: str) -> list[psutil.Process]:
    """The processes of jobs that last, once all of them run."""
    until = time.monotonic() + 30
    while not all((folder / f"{name}.pid").exists() for name in names):
        assert time.monotonic() < until, "the jobs did not begin"
        time.sleep(0.02)
    return [psutil.Process(int((folder / f"{name}.pid").read_text())) for name in names]


def gone(processes: list[psutil.Process]) -> bool:
    return not psutil.wait_procs(processes, timeout=3)[1]


def test_each_job_gives_one_answer(tmp_path: Path) -> None:
    ticks: list[dict[str, Any]] = []
    found = list(spread.processes(2)(says, jobs(tmp_path, "a", "b", "c"), ticks.append))
    assert sorted((job.name, said) for job, said in found) == [(n, f"{n} is done") for n in "abc"]
    assert {"event": "tick"} in ticks
    assert list(spread.processes(2)(says, [], ticks.append)) == []


def test_a_job_that_kills_its_process_is_told_and_the_others_go_on(tmp_path: Path) -> None:
    given = jobs(tmp_path, "a", "bad", "b", "once", "c", "d")
    found = [(job.name, said) for job, said in spread.processes(2)(dies, given, ignore)]
    assert sorted(found) == sorted([(n, f"{n} is done") for n in ("a", "b", "c", "d", "once")] + [("bad", spread.DIED)])
    tries = {job.name: len((tmp_path / job.name).read_text()) for job in given}
    assert tries["bad"] == tries["once"] == 2, "tried once more, and not oftener"
    assert max(tries.values()) == 2 and "memory" in spread.DIED


def test_all_jobs_that_kill_their_process_are_told(tmp_path: Path) -> None:
    found = [(job.name, said) for job, said in spread.processes(2)(dies, jobs(tmp_path, "bad1", "bad2"), ignore)]
    assert sorted(found) == [("bad1", spread.DIED), ("bad2", spread.DIED)]


def test_an_interrupt_ends_the_processes(tmp_path: Path, stray: list[psutil.Process]) -> None:
    def interrupt(event: dict[str, Any]) -> None:
        stray.extend(begun(tmp_path, "a", "deaf"))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(spread.processes(2)(lasts, jobs(tmp_path, "a", "deaf", "never"), interrupt))
    assert len(stray) == 2 and gone(stray), "also the one that does not listen"
    assert not (tmp_path / "never.pid").exists()


def test_who_takes_no_more_answers_ends_the_processes(tmp_path: Path, stray: list[psutil.Process]) -> None:
    """As a race does whose time is over."""
    for job, _ in spread.processes(2)(lasts, jobs(tmp_path, "quick", "a"), ignore):
        assert job.name == "quick"
        stray.extend(begun(tmp_path, "a"))
        break
    assert len(stray) == 1 and gone(stray)


@pytest.mark.filterwarnings("ignore")  # of what ray's own libraries have deprecated
def test_an_address_without_a_cluster_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("ray")
    with pytest.raises(ConfigError, match="nowhere.*auto.*local.*address"):
        list(spread.on_ray("nowhere")(says, jobs(tmp_path, "a"), ignore))
