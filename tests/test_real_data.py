"""Real data, real model: is a learned prompt better than a tuned linear probe? Slow: `make check-data`."""

from __future__ import annotations

import csv
import json
import random
import time
import warnings
from pathlib import Path

import numpy as np
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


# --- label texts learned by trial, from 16 examples a class and no others

SEARCH, SEARCHING = "plum-hill-climbing", {"iterations": 300, "parts": "words", "examples": 0}
SEEDS = (0, 1, 2)
Rows = list[tuple[str, str]]


def trec(shared: Path, seed: int) -> tuple[Rows, Rows, dict[str, str]]:
    def rows(name: str) -> Rows:
        lines = (shared / "data" / "trec" / name).read_text(encoding="latin-1").splitlines()
        return [(text, label) for label, text in (line.split(" ", 1) for line in lines)]

    names = ("description", "entity", "abbreviation", "human", "location", "number")
    return shots(rows("train.txt"), seed), rows("test.txt"), {str(i): n for i, n in enumerate(names)}


def agnews(shared: Path, seed: int) -> tuple[Rows, Rows, dict[str, str]]:
    folder = shared / "data" / "fewshot16" / "agnews"

    def rows(file: Path) -> Rows:
        with open(file, encoding="utf-8", newline="") as f:
            return [(r[0], r[1]) for r in list(csv.reader(f, delimiter="\t", quoting=csv.QUOTE_NONE))[1:]]

    train = rows(folder / f"16-{(100, 13, 21)[seed]}" / "train.tsv")
    names = ("world", "sports", "business", "technology")
    return train, rows(folder / "test.tsv"), {str(i): n for i, n in enumerate(names)}


def clinc(shared: Path, seed: int) -> tuple[Rows, Rows, dict[str, str]]:
    folder = shared / "data" / "clinc150"
    rows = json.loads((folder / "data_full.json").read_text(encoding="utf-8"))
    domains = json.loads((folder / "domains.json").read_text(encoding="utf-8"))
    domain = {intent: d for d, intents in domains.items() for intent in intents}
    train, test = ([(t, domain[i]) for t, i in rows[part]] for part in ("train", "test"))
    return shots(train, seed), test, {d: d.replace("_", " ") for d in domains}


def shots(rows: Rows, seed: int, k: int = 16) -> Rows:
    rng, found = random.Random(seed), []
    for label in sorted({label for _, label in rows}):
        mine = sorted({row for row in rows if row[1] == label})
        rng.shuffle(mine)
        found += mine[:k]
    return found


@pytest.mark.parametrize("read_rows", [trec, agnews, clinc])
def test_label_texts_from_16_examples_a_class_beat_the_plain_names(
    read_rows: object, shared: Path, tmp_path: Path
) -> None:
    torch.set_num_threads(2)
    model, gains = ana.open("builtin:minilm"), []
    try:
        for seed in SEEDS:
            train, test, names = read_rows(shared, seed)  # type: ignore[operator]
            records = [
                {"text": t, "label": c, "split": p} for p, rows in (("train", train), ("test", test)) for t, c in rows
            ]
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                task = Task.from_records(records, text="text", label="label", split_column="split", words=names,
                                         split=ana.Split(valid=0.0))  # fmt: skip
            run = ana.fit(SEARCH, model, task, seed=seed, folder=tmp_path / f"{seed}", options=SEARCHING)
            plain = ana.fit("zero-shot", model, task, folder=tmp_path / f"plain{seed}")
            probe = ana.fit("linear-probe", model, task, folder=tmp_path / f"probe{seed}")
            assert run.score is not None and run.gain is not None and plain.score is not None
            print(f"\n{read_rows.__name__} {seed}: plain {plain.score}, {run}, probe {probe.score}")  # type: ignore[attr-defined]
            gold = np.array([e.gold for e in task.test])
            gains.append((run.score.predictions == gold) * 1.0 - (plain.score.predictions == gold))
    finally:
        torch.set_num_threads(1)
    # over seeds and examples: both are drawn anew in each resample
    rng, table = np.random.default_rng(0), np.stack(gains)
    draws = [
        table[rng.integers(len(table), size=len(table))][:, rng.integers(table.shape[1], size=table.shape[1])].mean()
        for _ in range(2000)
    ]
    low, high = np.quantile(draws, [0.025, 0.975])
    print(f"gain over the plain names {table.mean():+.3f} [{low:+.3f}, {high:+.3f}] over {len(SEEDS)} seeds")
    assert low > 0
