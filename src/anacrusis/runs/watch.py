"""Peak memory of a stretch of work: of the GPU where the model is on one, else of this process, sampled."""

from __future__ import annotations

import threading
from typing import Any

EVERY = 0.02  # seconds between two looks


class Peak:
    """with Peak(model) as peak: ...; peak.megabytes is then the most that was in use above what was at the start.

    Where several runs share the process at a time, they share the number.
    """

    def __init__(self, model: Any = None):
        self.megabytes = 0.0
        device = getattr(model, "device", None)
        self._cuda = device if device is not None and device.type == "cuda" else None
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Peak:
        if self._cuda is not None:
            import torch

            torch.cuda.reset_peak_memory_stats(self._cuda)
            self._before = torch.cuda.memory_allocated(self._cuda)
            return self
        import psutil

        process = psutil.Process()
        before = process.memory_info().rss

        def watch() -> None:
            while not self._stop.wait(EVERY):
                self.megabytes = max(self.megabytes, (process.memory_info().rss - before) / 1e6)

        self._thread = threading.Thread(target=watch, name="anacrusis-memory", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._cuda is not None:
            import torch

            self.megabytes = (torch.cuda.max_memory_allocated(self._cuda) - self._before) / 1e6
        if self._thread is not None:
            self._stop.set()
            self._thread.join()
