"""Real pictures, a real network: what pixel prompts win back under a shift. Slow: `make check-data`."""

from __future__ import annotations

import io
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import anacrusis as ana
from anacrusis.measure.evaluate import difference
from anacrusis.task import Task
from tests.resnet import resnet20

pytestmark = pytest.mark.data

LOSSLESS = 0.918  # of this network on lossless CIFAR-10, by its authors and the data's README


def pictures(file: Path) -> tuple[np.ndarray, list[str]]:
    """(N, 32, 32, 3) and the names of their classes."""
    data = np.load(file)
    whole, offsets = data["jpeg"].tobytes(), data["offsets"]
    found = [np.asarray(Image.open(io.BytesIO(whole[a:b])).convert("RGB"))
             for a, b in zip(offsets[:-1], offsets[1:], strict=True)]  # fmt: skip
    return np.stack(found), [str(data["classes"][i]) for i in data["labels"]]


def test_a_pixel_network_wins_back_a_third_of_what_jpeg_costs(shared: Path, tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # CIFAR-10 holds some pictures twice
        task = Task.from_arrays(*pictures(shared / "data" / "cifar10" / "train_a.npz"), name="cifar10-jpeg",
                                test=pictures(shared / "data" / "cifar10" / "test.npz"))  # fmt: skip
    model = resnet20(shared / "models" / "resnet-cifar10")
    runs = {}
    given = {"zero-shot": {}, "visual-prompting": {"epochs": 2}, "pixel-network": {"epochs": 4, "stride": 1}}
    for name, options in given.items():
        began = time.monotonic()
        runs[name] = ana.fit(name, model, task, folder=tmp_path / name, options=options)
        print(f"\n{name}: {runs[name].score} in {time.monotonic() - began:.0f} s", end="", flush=True)
    scores = {k: r.score for k, r in runs.items()}
    assert all(s is not None for s in scores.values())
    bare, frame, network = (scores[k] for k in ("zero-shot", "visual-prompting", "pixel-network"))
    assert bare is not None and frame is not None and network is not None
    gain, universal = difference(network, bare, task), difference(frame, bare, task)
    print(f"\npixel network {gain}, one frame for all pictures {universal}")
    assert gain.value >= (LOSSLESS - bare.value) / 3 and gain.low > 0
