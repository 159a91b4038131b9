"""Where jobs run: here, one after the other; in processes of this machine; or on machines through Ray."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Protocol

from ..errors import ConfigError, MissingExtra

LOOK = 0.5  # seconds between two looks at what has ended
Work = Callable[..., str]
Observe = Callable[[dict[str, Any]], None]


class Spread(Protocol):
    """Runs work(job) for every job, and gives (job, what it returned) as they end, in any order."""

    def __call__(self, work: Work, jobs: Sequence[Any], observe: Observe) -> Iterator[tuple[Any, str]]: ...


def here(work: Work, jobs: Sequence[Any], observe: Observe) -> Iterator[tuple[Any, str]]:
    """In this process; the events of each job are passed on."""
    for i, job in enumerate(jobs):
        observe({"event": "job", "name": job.cell.name, "left": len(jobs) - i})
        yield job, work(job, observe)


def processes(count: int) -> Spread:
    """In `count` processes, which share the cores between them."""
    if count < 1:
        raise ConfigError(f"jobs={count}: expected at least 1 process")

    def spread(work: Work, jobs: Sequence[Any], observe: Observe) -> Iterator[tuple[Any, str]]:
        if not jobs:
            return
        threads = max(1, (os.cpu_count() or 1) // count)
        # spawned: a forked process inherits torch's threads in the state of the moment
        pool = ProcessPoolExecutor(count, get_context("spawn"), _begin, (threads,))
        try:
            running = {pool.submit(work, job): job for job in jobs}
            while running:
                ended, _ = wait(running, timeout=LOOK, return_when=FIRST_COMPLETED)
                observe({"event": "tick"})
                for future in ended:
                    yield running.pop(future), future.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
            for process in list((pool._processes or {}).values()):  # Ctrl-C: what they have kept is enough to go on
                process.terminate()

    return spread


def _begin(threads: int) -> None:
    import signal

    import torch

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent is told, and ends them
    torch.set_num_threads(threads)


def on_ray(address: str = "auto") -> Spread:
    """On a Ray cluster: "auto" (the one that this machine belongs to), "local" (one made here), or an address.

    What a job writes comes back as bytes, so the machines need no common folder; files of pictures they do need.
    """
    try:
        import ray
    except ImportError as error:
        raise MissingExtra("ray", "ray", "a comparison over machines") from error

    def spread(work: Work, jobs: Sequence[Any], observe: Observe) -> Iterator[tuple[Any, str]]:
        if not jobs:
            return
        if not ray.is_initialized():
            ray.init(None if address == "local" else address, log_to_driver=False, include_dashboard=False)

        @ray.remote(num_cpus=1, max_retries=2)
        def away(job: Any) -> tuple[str, dict[str, bytes]]:
            return packed(work, job)

        waiting = {away.remote(job): job for job in jobs}
        while waiting:
            ended, _ = ray.wait(list(waiting), num_returns=1, timeout=LOOK)
            observe({"event": "tick"})
            for ready in ended:
                job = waiting.pop(ready)
                said, files = ray.get(ready)
                unpack(files, job.folder)
                yield job, said

    return spread


def packed(work: Work, job: Any) -> tuple[str, dict[str, bytes]]:
    """What a job returns when it runs in a folder of its own, and the files that it wrote there."""
    import tempfile
    from dataclasses import replace

    with tempfile.TemporaryDirectory() as place:
        said = work(replace(job, folder=Path(place) / "cell"))
        root = Path(place) / "cell"
        files = {str(f.relative_to(root)): f.read_bytes() for f in sorted(root.rglob("*")) if f.is_file()}
    return said, files


def unpack(files: dict[str, bytes], folder: Path) -> None:
    """Write files below `folder`; the result last, for it says that all is there."""
    for name in sorted(files, key=lambda n: n == "result.json"):
        target = folder / name
        if not target.resolve().is_relative_to(folder.resolve()):
            raise ConfigError(f"a job sent a file outside its folder: {name}")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(files[name])
