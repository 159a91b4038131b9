"""Every test: one thread, offline, its own folder for runs, and the global random states untouched."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import numpy as np
import pytest
import sklearn.metrics  # noqa: F401  (its import draws from python's global random state, once)
import torch

torch.set_num_threads(1)

SHARED = Path(__file__).parents[1].parent / "shared"


@pytest.fixture(autouse=True)
def _quiet_world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("ANACRUSIS_RUNS", str(tmp_path / "runs"))
    before = (torch.random.get_rng_state(), np.random.get_state()[1].copy(), random.getstate())
    yield
    assert torch.equal(before[0], torch.random.get_rng_state()), "torch's global random state moved"
    assert np.array_equal(before[1], np.random.get_state()[1]), "numpy's global random state moved"
    assert before[2] == random.getstate(), "python's global random state moved"


@pytest.fixture
def shared() -> Path:
    """Public data and small real models, where they are at hand."""
    if not SHARED.is_dir():
        pytest.skip(f"no folder {SHARED.name} with public data beside the project")
    return SHARED
