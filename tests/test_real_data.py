"""Real data, real model: is a learned prompt better than a tuned linear probe? Slow: `make check-data`."""

from __future__ import annotations

import time
import warnings
from pathlib import Path

import pytest
import torch

import anacrusis as ana
from anacrusis.measure.evaluate import difference
from anacrusis.task import Task

pytestmark = pytest.mark.data

# options for both sets; the learning rate is the method's own
METHOD, OPTIONS = "p-tuning-v2", {"epochs": 3, "batch": 32, "validate_every": 108, "patience": 0}


def read(folder: Path) -> Task:
    """`label text` a line; train, dev (where there is one) and test as given."""
    records = []
    for split, name in (("train", "train.txt"), ("valid", "dev.txt"), ("test", "test.txt")):
        if (folder / name).exists():
            for line in (folder / name).read_text(encoding="latin-1").splitlines():
                label, text = line.split(" ", 1)
                records.append({"text": text, "label": label, "split": split})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # both sets hold a few sentences twice
        return Task.from_records(records, text="text", label="label", split_column="split", name=folder.name)


@pytest.mark.parametrize("name", ["sst2", "trec"])
def test_a_learned_prompt_beats_a_tuned_linear_probe(name: str, shared: Path, tmp_path: Path) -> None:
    torch.set_num_threads(2)
    try:
        task, model = read(shared / "data" / name), ana.open("builtin:minilm")
        began = time.monotonic()
        probe = ana.fit("linear-probe", model, task, folder=tmp_path / "probe")
        learned = ana.fit(METHOD, model, task, folder=tmp_path / "learned", options=OPTIONS)
        seconds = time.monotonic() - began
    finally:
        torch.set_num_threads(1)
    assert probe.score is not None and learned.score is not None
    gain = difference(learned.score, probe.score, task)
    print(f"\n{name}: probe {probe.score}, {METHOD} {learned.score}, difference {gain} in {seconds:.0f} s")
    assert gain.low > 0
