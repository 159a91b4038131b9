"""kill -9 at any moment, continue, and end as if nothing had happened."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import anacrusis as ana
from anacrusis.runs import journal
from anacrusis.testing import tiny
from tests.test_trainer import task

OPTIONS = {"epochs": 40, "batch": 4, "length": 4, "patience": 0, "save_seconds": 0.01, "optimizer": "adafactor"}
PROGRAM = f"""
import sys, torch
torch.set_num_threads(1)
sys.path.insert(0, sys.argv[2])
from tests.test_trainer import task, tiny
import anacrusis as ana
print("ready", flush=True)
ana.fit("prompt-tuning", tiny("gpt2"), task(), folder=sys.argv[1], options={OPTIONS!r})
"""


def test_killed_and_continued_equals_undisturbed(tmp_path: Path) -> None:
    whole = ana.fit("prompt-tuning", tiny("gpt2"), task(), folder=tmp_path / "whole", options=OPTIONS)
    rng, folder = random.Random(3), tmp_path / "cut"
    kills = 0
    for _ in range(3):
        child = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(folder), str(Path(__file__).parents[1])],
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env={**os.environ, "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        assert child.stdout is not None and child.stdout.readline() == b"ready\n"
        while not (folder / "checkpoint.json").exists() and child.poll() is None:
            time.sleep(0.01)
        time.sleep(rng.uniform(0.0, 0.4))
        child.send_signal(signal.SIGKILL)
        kills += child.wait() == -signal.SIGKILL
        child.stdout.close()
    assert kills >= 2  # otherwise this tests nothing
    resumed = ana.fit("prompt-tuning", tiny("gpt2"), task(), folder=folder, options=OPTIONS)
    assert resumed.prompt.same(whole.prompt)
    assert any(e["event"] == "resumed" for e in journal.read(folder))


def test_a_line_that_was_cut_off_is_left_out(tmp_path: Path) -> None:
    with journal.Journal(tmp_path) as log:
        log.append({"event": "a"})
    with open(tmp_path / "journal.jsonl", "ab") as f:
        f.write(b'{"event": "b", "sco')
    assert [r["event"] for r in journal.read(tmp_path)] == ["a"]
    with journal.Journal(tmp_path) as log:
        log.append({"event": "c"})
    assert [r["event"] for r in journal.read(tmp_path)] == ["a", "c"]


def test_one_process_at_a_time(tmp_path: Path) -> None:
    import pytest

    with journal.Journal(tmp_path):
        with pytest.raises(ana.errors.RunError, match="another process is writing"):
            journal.Journal(tmp_path).__enter__()
