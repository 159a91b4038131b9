"""kill -9 at random moments over every method that asks a writer: no paid call twice, and the end as if undisturbed.

The endpoint bills by Idempotency-Key, as hosted ones do. A call that was under way when the process died is sent again
under its key: it is billed once. A call whose reply was kept is never sent again.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import time
from pathlib import Path
from typing import Any

import pytest

import anacrusis as ana
from anacrusis.registry import all_methods
from anacrusis.runs.run import Run
from anacrusis.runs.searching import Means
from tests.loopback import Loopback
from tests.world import World

OPTIONS: dict[str, dict[str, Any]] = {}  # of methods that need some to be short
BUDGET = "700calls"
WRITERS = sorted(m.name for m in all_methods().values() if m.engine == "search" and m.roles <= {"writer", "judge"})
KILLS = 3  # a method
CONCURRENCY = 4
REMOTE = [m for m in WRITERS if "endpoint" in all_methods()[m].arrangements]


def learn(method: str, url: str, folder: str) -> Run:
    world = World(3, examples=60)
    os.environ["OPENAI_API_KEY"] = "sk-loopback"
    model, writer = (ana.open(f"openai:{n}", base_url=url, concurrency=CONCURRENCY) for n in ("task", "writer"))
    options = {"examples": 12, "valid": 8, "test": 8, **OPTIONS.get(method, {})}
    with model, writer:
        return ana.fit(method, model, world.task, seed=5, folder=folder, options=options,
                       means=Means(writer=writer, budget=BUDGET))  # fmt: skip


def serve() -> Loopback:
    """A server whose answers depend on the whole question and its key, as temperature draws do."""
    world = World(3, examples=60)
    return Loopback(lambda body, index: world.brain(body, f"{body['messages']} {index}"), latency=0.003)


@pytest.mark.parametrize("method", REMOTE)
def test_killed_at_random_moments(method: str, tmp_path: Path) -> None:
    with serve() as server:
        whole = learn(method, server.url, str(tmp_path / "whole"))
        billed, tokens = server.charged, (server.input, server.output)
        took = float(whole.cost["seconds"])
    spawn = multiprocessing.get_context("forkserver")
    spawn.set_forkserver_preload(["anacrusis.runs.run", "anacrusis.methods", "tests.world", "openai"])
    folder, rng, kills = tmp_path / "cut", random.Random(method), 0
    with serve() as server:
        while kills < KILLS:
            child = spawn.Process(target=learn, args=(method, server.url, str(folder)))
            child.start()
            begun = time.monotonic()
            while not (folder / "run.json").exists() and child.is_alive() and time.monotonic() - begun < 30:
                time.sleep(0.002)
            time.sleep(rng.uniform(0.0, 0.02 + took / KILLS))
            assert child.pid is not None
            os.kill(child.pid, signal.SIGKILL)
            child.join()
            if child.exitcode == 0:
                break  # it had ended before it could be killed
            kills += 1
        again = learn(method, server.url, str(folder))
        assert server.charged == billed and (server.input, server.output) == tokens  # nothing billed twice
        # only what was under way at a kill is sent again: a reply that was kept is never asked for
        assert server.repeated <= kills * CONCURRENCY
    assert again.prompt.same(whole.prompt) and str(again.score) == str(whole.score)
    mine, theirs = dict(again.cost), dict(whole.cost)
    for cost in (mine, theirs):
        cost.pop("seconds")
    assert {k: mine[k] for k in ("calls", "input", "output")} == {k: theirs[k] for k in ("calls", "input", "output")}
    assert kills, "nothing was killed: this tests nothing"
