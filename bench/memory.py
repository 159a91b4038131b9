"""Peak memory of a training step: each arm in a process of its own, so that none inherits another's high-water mark."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import torch

from .common import Line, gpt2, model_of, peft_model, peft_step, random_rows, step, trainer
from .steps import B, P, S


def arm(name: str) -> Callable[[], Any]:
    network = gpt2()
    model = model_of(network)
    init = model.embeddings[:P].clone()
    rows, ids, goal = random_rows(B, S, P, "front")
    if name == "ours":
        t = trainer(model, rows, init)
        return lambda: step(t, list(range(B)))
    peer, mask = peft_model(network, "soft", init), torch.ones(B, S, dtype=torch.long)
    return lambda: peft_step(peer, ids, mask, goal, expert=name == "expert")


def measure(name: str) -> float:
    """Megabytes that three steps take above what stood before them, sampled every 2 ms."""
    import psutil

    run, process = arm(name), psutil.Process()
    before, peak, ended = process.memory_info().rss, 0, False

    def watch() -> None:
        nonlocal peak
        while not ended:
            peak = max(peak, process.memory_info().rss)
            time.sleep(0.002)

    thread = threading.Thread(target=watch)
    thread.start()
    for _ in range(3):
        run()
    ended = True
    thread.join()
    return (peak - before) / 1e6


def memory(rounds: int) -> Line:
    found: dict[str, list[float]] = {"ours": [], "documented": [], "expert": []}
    for _ in range(max(1, rounds // 3)):
        for name, values in found.items():
            out = subprocess.run(
                [sys.executable, "-m", "bench.memory", name], capture_output=True, text=True, check=True
            )
            values.append(json.loads(out.stdout.splitlines()[-1]))
    middle = {k: sorted(v)[len(v) // 2] for k, v in found.items()}
    return Line("peak extra memory of a step", middle.pop("ours"), middle, unit="MB", targets={"documented": 0.70})


if __name__ == "__main__":
    print(json.dumps(measure(sys.argv[1])))
