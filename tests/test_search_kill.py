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
from anacrusis.model.endpoint import Endpoint
from anacrusis.registry import all_methods
from anacrusis.runs.run import Run
from anacrusis.runs.searching import Means
from tests.loopback import Loopback
from tests.world import World

OPTIONS: dict[str, dict[str, Any]] = {}  # of methods that need some to be short
BUDGET = "700calls"
WRITERS = sorted(m.name for m in all_methods().values() if m.engine == "search" and m.roles <= {"writer", "judge"})
KILLS = 3  # a method: 72 in all
CONCURRENCY = 4
COUNTED = ("calls", "input", "output", "sent")
REMOTE = [m for m in WRITERS if "endpoint" in all_methods()[m].arrangements]


def learn(method: str, url: str, folder: str, base: float = 0.5) -> Run:
    world = World(3, examples=60)
    os.environ["OPENAI_API_KEY"] = "sk-loopback"
    model, writer = (Endpoint(f"openai:{n}", url, CONCURRENCY, base=base) for n in ("task", "writer"))
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
            time.sleep(rng.uniform(0.0, 0.6 * took / KILLS))
            assert child.pid is not None
            os.kill(child.pid, signal.SIGKILL)
            child.join()
            assert child.exitcode == -signal.SIGKILL, "it had ended before it could be killed"
            kills += 1
        again = learn(method, server.url, str(folder))
        assert server.charged == billed and (server.input, server.output) == tokens  # nothing billed twice
        # only what was under way at a kill is sent again: a reply that was kept is never asked for
        assert server.repeated <= kills * CONCURRENCY
    assert again.prompt.same(whole.prompt) and str(again.score) == str(whole.score)
    mine, theirs = dict(again.cost), dict(whole.cost)
    for cost in (mine, theirs):
        cost.pop("seconds")
    assert {k: mine[k] for k in COUNTED} == {k: theirs[k] for k in COUNTED}


@pytest.mark.parametrize("kind", ["429", "429-after", "500", "cut", "invalid-json", "empty-choices"])
def test_an_api_that_fails_now_and_then_changes_nothing(kind: str, tmp_path: Path) -> None:
    with serve() as server:
        whole, billed = learn("opro", server.url, str(tmp_path / "whole"), base=0.001), server.charged
    with serve() as server:
        server.fail(kind, rate=0.15, seed=1)
        shaken = learn("opro", server.url, str(tmp_path / "shaken"), base=0.001)
        assert server.charged == billed and len(server.requests) > billed
    assert shaken.prompt.same(whole.prompt) and str(shaken.score) == str(whole.score)


@pytest.mark.parametrize(("kind", "outcome"), [("refusal", "refused"), ("length", "truncated")])
def test_a_reply_that_is_no_answer_is_evidence_and_typed(kind: str, outcome: str, tmp_path: Path) -> None:
    from anacrusis.report.search import read

    with serve() as server:
        server.fail(kind, rate=0.4, seed=2)
        run = learn("opro", server.url, str(tmp_path / "run"), base=0.001)
    assert run.score is not None
    outcomes = {o.outcome for s in read(tmp_path / "run").candidates for o in s.observations.values()}
    if kind == "refusal":  # an answer that was cut off may still name its class
        assert outcome in outcomes
    said = [e["payload"]["said"] for e in events(tmp_path / "run") if e["verb"] == "ask"]
    assert any(reason == outcome and text is None for draws in said for text, reason in draws)


def events(folder: Path) -> list[dict[str, Any]]:
    with Means().store_at(folder) as store:
        return store.events()
