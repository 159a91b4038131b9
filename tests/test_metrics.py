"""Metrics against hand-computed values and against the libraries that they are taken from."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from anacrusis.errors import ConfigError, DataError
from anacrusis.task.metrics import METRICS, aligned, find, score

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1] / "src")}
TEXTS = ["the cat sat on the mat", "a dog barks", "rain"]
REFS = [("the cat sat on the mat",), ("the dog barks loudly", "a dog is barking"), ("sun",)]


def test_accuracy_by_hand() -> None:
    assert score("accuracy", [0, 1, 1, -1], [0, 1, 2, 0]) == 0.5


def test_macro_f1_counts_absent_classes() -> None:
    # class 0: tp 1, fp 1, fn 0 -> 2/3; class 1: tp 1, fp 0, fn 1 -> 2/3; class 2: never -> 0
    assert score("macro-f1", [0, 0, 1], [0, 1, 1], classes=3) == pytest.approx(4 / 9)
    assert score("macro-f1", [0, 0, 1], [0, 1, 1]) == pytest.approx(2 / 3)  # classes not told: those that occur


def test_no_answer_is_wrong_and_no_class() -> None:
    # class 0: tp 1, fp 0, fn 1 -> 2/3; class 1: 1
    assert score("macro-f1", [0, -1, 1], [0, 0, 1], classes=2) == pytest.approx(5 / 6)
    assert score("macro-f1", [0, -1, 1], [0, 0, 1]) == pytest.approx(5 / 6)


def test_matthews_by_hand() -> None:
    # tp 2, tn 1, fp 1, fn 0: (2*1 - 1*0) / sqrt(3*2*2*1)
    assert score("matthews", [1, 1, 1, 0], [1, 1, 0, 0]) == pytest.approx(2 / math.sqrt(12))
    assert score("matthews", [0, 1], [1, 0]) == pytest.approx(-1)
    assert score("matthews", [1, 1], [0, 1]) == 0 == score("matthews", [1, 1], [1, 1])  # without a warning


def test_map_by_hand_leaves_out_classes_without_positives() -> None:
    scores = np.array([[0.9, 5.0, 0.1], [0.8, 1.0, 0.2], [0.7, 2.0, 0.3]])
    # class 0: positives at ranks 1 and 3 -> (1/1 + 2/3) / 2; class 1: at rank 2 -> 1/2; class 2: none
    assert score("map", scores, [(0,), (), (0, 1)]) == pytest.approx((5 / 6 + 1 / 2) / 2)
    with pytest.raises(DataError, match="map is undefined"):
        score("map", scores, [(), (), ()])


def test_multilabel_threshold_is_zero() -> None:
    scores = [[0.5, -0.1], [0.0, 2.0], [0.1, 0.1]]
    gold = [(0,), (0, 1), (1,)]
    # tp 3 (0; 1; 1), fp 1 (row 2, class 0), fn 1 (row 1, class 0: a score of 0 is no label)
    assert score("micro-f1", scores, gold) == pytest.approx(6 / 8)
    assert score("macro-f1", scores, gold) == pytest.approx((1 / 2 + 1) / 2)  # class 0: tp 1, fp 1, fn 1
    assert score("exact-match", scores, gold) == pytest.approx(1 / 3)


def test_exact_match_of_texts_ignores_only_white_space() -> None:
    assert score("exact-match", [" a\n b", "A b", "c", "d"], ["a b", "a b", ("x", "c"), ("d.",)]) == 0.5


def test_rouge_l_by_hand() -> None:
    # "a dog barks" against "the dog barks loudly": 2 common of 3 and 4 words -> F 4/7; against the other: 2 of 3, 4
    assert score("rougeL", TEXTS, REFS) == pytest.approx((1 + 4 / 7 + 0) / 3)
    assert score("rougeL", ["x y"], [("z", "x y")]) == 1  # the best reference counts


@pytest.mark.parametrize(("name", "scorer"), [("bleu", "BLEU"), ("chrf", "CHRF")])
def test_values_are_those_of_sacrebleu(name: str, scorer: str) -> None:
    metrics = pytest.importorskip("sacrebleu.metrics")
    lists = [[refs[0] for refs in REFS], [refs[1] if len(refs) > 1 else None for refs in REFS]]
    expected = getattr(metrics, scorer)().corpus_score(TEXTS, lists).score / 100
    assert 0.2 < expected < 1
    assert score(name, TEXTS, REFS) == pytest.approx(expected)
    assert 1 - 1e-9 < score(name, TEXTS, TEXTS) <= 1


GIVEN: dict[str, tuple[Any, Any]] = {
    "classification": ([0, 1, 2, 1, 0], [0, 2, 2, 1, 1]),
    "multilabel": ([[1.0, -1.0], [-0.5, 2.0], [0.3, 0.2], [-1.0, -2.0]], [(0,), (1,), (0,), ()]),
    "generation": (TEXTS, REFS),
}
PAIRS = [(name, kind) for name, metric in METRICS.items() for kind in metric.kinds]


@pytest.mark.parametrize(("name", "kind"), PAIRS)
def test_range(name: str, kind: str) -> None:
    value = score(name, *GIVEN[kind])
    assert METRICS[name].name == name and METRICS[name].low <= value <= 1


def test_first_use_leaves_the_random_state_alone() -> None:
    """In a fresh process, as some libraries draw from Python's global generator when they are imported."""
    code = (
        "import random; before = random.getstate()\n"
        "from anacrusis.task.metrics import score\n"
        "score('macro-f1', [0, 1], [0, 1]); score('rougeL', ['a'], ['a']); score('bleu', ['a'], ['a'])\n"
        "print(random.getstate() == before)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=ENVIRONMENT)
    assert done.stdout.strip() == "True"


def random_case(kind: str, seed: int) -> tuple[Any, list[Any], int]:
    """Predictions, gold and C, with ties, missing classes and answers that are none."""
    rng = np.random.default_rng(seed)
    n, classes = int(rng.integers(1, 15)), int(rng.integers(2, 5))
    if kind == "classification":
        return rng.integers(-1, classes, n), rng.integers(0, classes, n).tolist(), classes
    if kind == "multilabel":
        gold = [tuple(np.flatnonzero(rng.random(classes) < 0.4).tolist()) for _ in range(n)]
        gold[0] = gold[0] or (0,)
        return rng.integers(-3, 4, (n, classes)) / 2, gold, classes
    words = ["sun", "moon", "rain", "sea"]
    texts = [" ".join(rng.choice(words, int(rng.integers(1, 7)))) for _ in range(2 * n)]
    return texts[:n], [(t,) if i % 2 else (t, "sun and rain") for i, t in enumerate(texts[n:])], 0


@pytest.mark.parametrize(("name", "kind"), PAIRS)
def test_weights_equal_scoring_the_resample(name: str, kind: str) -> None:
    metric = METRICS[name]
    assert metric.weigh is not None
    for seed in range(25):
        predictions, gold, classes = aligned(metric, *random_case(kind, seed))
        index = np.random.default_rng(seed).integers(len(gold), size=(2, len(gold)))
        index[0] = range(len(gold))  # each once
        weights = np.array([np.bincount(i, minlength=len(gold)) for i in index])
        got = metric.weigh(predictions, gold, classes)(weights)
        for i, value in zip(index, got, strict=True):
            given, true = (x[i] if isinstance(x, np.ndarray) else [x[j] for j in i] for x in (predictions, gold))
            assert value == pytest.approx(metric.compute(given, true, classes), nan_ok=True), (seed, i)


@pytest.mark.parametrize(("name", "kind"), PAIRS)
def test_perfect_is_one(name: str, kind: str) -> None:
    golds = GIVEN[kind][1]
    perfect: dict[str, Any] = {
        "classification": golds,
        "multilabel": [[1.0 if c in gold else -1.0 for c in (0, 1)] for gold in GIVEN["multilabel"][1]],
        "generation": [refs[-1] for refs in REFS],
    }
    assert score(name, perfect[kind], golds) == pytest.approx(1)


def test_unknown_and_unfitting_metrics() -> None:
    with pytest.raises(ConfigError, match="unknown metric 'acuracy'. Did you mean 'accuracy'"):
        find("acuracy")
    with pytest.raises(ConfigError, match="'accuracy' does not score generation predictions.*rougeL"):
        score("accuracy", ["a"], ["a"])
    with pytest.raises(ConfigError, match="'bleu' does not score classification"):
        score("bleu", [1], [1])
    with pytest.raises(ConfigError, match="'matthews' does not score multilabel"):
        score("matthews", [[1.0]], [(0,)])


@pytest.mark.parametrize(
    ("name", "predictions", "golds", "classes", "message"),
    [
        ("accuracy", [], [], None, "0 predictions for 0 examples"),
        ("accuracy", [1], [1, 2], None, "1 predictions for 2 examples"),
        ("accuracy", [0.5, 1.0], [1, 1], None, "class indexes, got shape"),
        ("accuracy", [[[1]]], [1], None, "class indexes, got shape"),
        ("accuracy", [0, 3], [1, 1], 3, "expected 0 to 2"),
        ("accuracy", [0, -2], [1, 1], 3, "expected 0 to 2"),
        ("accuracy", [0, 1], [1, -1], 3, "expected 0 to 2"),
        ("accuracy", [0], [(1,)], None, "one class index per example"),
        ("accuracy", [0], [None], None, "one class index per example"),
        ("map", [[0.1, 0.2], [0.1]], [(0,), (1,)], None, "rows of C scores"),
        ("map", [[0.1, math.nan]], [(0,)], None, "finite scores"),
        ("map", [[0.1, 0.2]], [(0,)], 3, r"expected \(1, 3\) scores"),
        ("map", [[0.1, 0.2]], [(2,)], None, "class indexes below 2"),
        ("map", [[0.1, 0.2]], [1], None, "class indexes below 2"),
        ("rougeL", ["a", 1], ["a", "b"], None, "some are not"),
        ("rougeL", ["a"], [()], None, "expected a text or several"),
        ("rougeL", ["a"], [3], None, "expected a text or several"),
    ],
)
def test_what_does_not_fit(
    name: str, predictions: object, golds: list[object], classes: int | None, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        score(name, predictions, golds, classes)
