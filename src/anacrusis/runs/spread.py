"""Where jobs run: here, one after the other; in processes of this machine; or on machines through Ray."""

from __future__ import annotations

import os
import signal
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Protocol

from ..errors import ConfigError, MissingExtra

LOOK = 0.5  # seconds between two looks at what has ended
GRACE = 2.0  # seconds that processes have to end before they are killed
DIED = "its process died: was it short of memory?"
Work = Callable[..., str]
Observe = Callable[[dict[str, Any]], None]


class Spread(Protocol):
    """Runs work(job) for every job, and gives (job, what it returned) as they end, in any order.

    Of a job that took its process with it: (job, DIED), and nothing is kept of that. Closing it ends what runs.
    """

    def __call__(self, work: Work, jobs: Sequence[Any], observe: Observe) -> Iterator[tuple[Any, str]]: ...


def here(work: Work, jobs: Sequence[Any], observe: Observe) -> Iterator[tuple[Any, str]]:
    """In this process; the events of each job are passed on."""
    for i, job in enumerate(jobs):
        observe({"event": "job", "name": job.cell.name, "left": len(jobs) - i})
        yield job, work(job, observe)


def processes(count: int) -> Spread:
    """In `count` processes, which share the cores between them.

    Where a process dies, which of the jobs ended it cannot be seen: all that were running are tried once more when the
    others have ended, one at a time, so that they have the memory for themselves.
    """
    if count < 1:
        raise ConfigError(f"jobs={count}: expected at least 1 process")

    def spread(work: Work, jobs: Sequence[Any], observe: Observe) -> Iterator[tuple[Any, str]]:
        threads = max(1, (os.cpu_count() or 1) // count)
        again: list[Any] = []
        yield from _together(work, jobs, observe, count, threads, again)
        for job in again:
            died: list[Any] = []
            yield from _together(work, [job], observe, 1, threads, died)
            yield from ((job, DIED) for job in died)

    return spread


def _together(
    work: Work, jobs: Sequence[Any], observe: Observe, count: int, threads: int, died: list[Any]
) -> Iterator[tuple[Any, str]]:
    """What the jobs returned; those that were running when a process died are added to `died`."""
    left = deque(jobs)
    while left:  # a pool of which a process died takes no more jobs: a new one for the rest
        with _pool(count, threads) as pool:
            running: dict[Future[str], Any] = {}
            broken = False
            while running or (left and not broken):
                while left and len(running) < count and not broken:  # no more, so that all of them do run
                    try:
                        future = pool.submit(work, left[0])
                    except BrokenProcessPool:
                        broken = True
                    else:
                        running[future] = left.popleft()
                ended, _ = wait(running, timeout=LOOK, return_when=FIRST_COMPLETED)
                observe({"event": "tick"})
                for future in ended:
                    job = running.pop(future)
                    try:
                        said = future.result()
                    except BrokenProcessPool:
                        broken = True
                        died.append(job)
                    else:
                        yield job, said


@contextmanager
def _pool(count: int, threads: int) -> Iterator[ProcessPoolExecutor]:
    """Processes that are gone afterwards, whatever they were at: what they have kept is enough to go on."""
    # spawned: a forked process inherits torch's threads in the state of the moment
    pool = ProcessPoolExecutor(count, get_context("spawn"), _begin, (threads,))
    try:
        yield pool
    finally:
        workers = list((pool._processes or {}).values())  # now, for a pool that is shut down has forgotten them
        pool.shutdown(wait=False, cancel_futures=True)
        for worker in workers:
            worker.terminate()
        until = time.monotonic() + GRACE
        for worker in workers:
            worker.join(max(0.0, until - time.monotonic()))
            if worker.is_alive():
                worker.kill()


def _begin(threads: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent is told, and ends them
    import torch

    torch.set_num_threads(threads)


def on_ray(address: str = "auto") -> Spread:
    """On a Ray cluster: "auto" (the one that this machine belongs to), "local" (one made here), or an address.

    What a job writes comes back as bytes, so the machines need no common folder; files of pictures they do need.
    """
    try:
        import ray
    except ImportError as error:
        raise MissingExtra("ray", "ray", "a comparison over machines") from error
    lost = (ray.exceptions.WorkerCrashedError, ray.exceptions.OutOfMemoryError, ray.exceptions.NodeDiedError)

    def spread(work: Work, jobs: Sequence[Any], observe: Observe) -> Iterator[tuple[Any, str]]:
        if not jobs:
            return
        _join(ray, address)

        @ray.remote(num_cpus=1, max_retries=2)
        def away(job: Any) -> tuple[str, dict[str, bytes]]:
            return packed(work, job)

        waiting = {away.remote(job): job for job in jobs}
        try:
            while waiting:
                ended, _ = ray.wait(list(waiting), num_returns=1, timeout=LOOK)
                observe({"event": "tick"})
                for ready in ended:
                    job = waiting.pop(ready)
                    try:
                        said, files = ray.get(ready)
                    except lost:
                        yield job, DIED
                    else:
                        unpack(files, job.folder)
                        yield job, said
        finally:
            for unfinished in waiting:
                ray.cancel(unfinished, force=True)

    return spread


def _join(ray: Any, address: str) -> None:
    """Belong to the cluster from now on. Raises ConfigError where there is none."""
    if ray.is_initialized():
        return
    try:
        ray.init(None if address == "local" else address, log_to_driver=False, include_dashboard=False)
    except (ValueError, ConnectionError, RuntimeError) as error:
        raise ConfigError(
            f"ray={address!r}: there is no Ray cluster ({error}). Expected auto (the cluster of this machine: start it "
            "with `ray start --head`), local (one made here), or an address such as 10.0.0.1:6379"
        ) from error


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
