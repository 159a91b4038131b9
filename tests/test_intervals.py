"""Intervals: the seed, the hand-computed ends, and whether they hold the truth as often as they say."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from anacrusis.errors import ConfigError, DataError
from anacrusis.measure import intervals
from anacrusis.measure.intervals import LOOP, Interval, bootstrap, paired
from anacrusis.task import METRICS, Example
from anacrusis.task.metrics import score

Z2 = 1.959964**2
TEXTS = ["the cat sat on the mat", "a dog barks", "rain", "sun and moon"]
REFS = [("the cat sat on the mat",), ("the dog barks loudly",), ("sun",), ("sun and no moon",)]


def rights(right: int, wrong: int) -> tuple[list[int], list[int]]:
    """Predictions and gold with so many right and wrong."""
    return [1] * right + [0] * wrong, [1] * (right + wrong)


def wilson(m: float, v: float, t: float) -> list[float]:
    """The x where |m - x| = t sqrt(x (1 - x) / n_eff), n_eff = m (1 - m) / v: (1 + r) x^2 - (2 m + r) x + m^2 = 0."""
    r = t**2 * v / (m * (1 - m))
    return sorted(float(x) for x in np.roots([1 + r, -(2 * m + r), m**2]))


def test_accuracy_is_wilsons() -> None:
    """40 of 50 right: variance 0.8 * 0.2 / 49, t = 2.009575 (49 degrees of freedom). With z: 0.6696, 0.8876."""
    interval = bootstrap("accuracy", *rights(40, 10))
    assert (interval.value, interval.n, interval.resamples) == (0.8, 50, 0)
    assert [interval.low, interval.high] == pytest.approx(wilson(0.8, 0.16 / 49, 2.009575), abs=1e-6)
    assert [interval.low, interval.high] == pytest.approx([0.6696, 0.8876], abs=0.006)
    narrow = bootstrap("accuracy", *rights(40, 10), level=0.5)
    assert interval.low < narrow.low < 0.8 < narrow.high < interval.high and narrow.level == 0.5


def test_resamples_are_those_of_the_seed() -> None:
    """Against a loop written out: draw, score, take the variance."""
    predictions, golds, n = np.array([0, 1, 2, 1, 2] * 5), np.array([0, 1, 1, 0, 2] * 5), 300
    rng = np.random.default_rng(3)
    values = []
    for _ in range(n):
        index = rng.integers(25, size=25)
        values.append(score("macro-f1", predictions[index], golds[index], classes=3))
    interval = bootstrap("macro-f1", predictions, golds, n=n, seed=3, classes=3)
    expected = wilson(score("macro-f1", predictions, golds, classes=3), float(np.var(values, ddof=1)), 2.063899)
    assert [interval.low, interval.high] == pytest.approx(expected, abs=1e-6) and interval.resamples == n
    assert bootstrap("macro-f1", predictions, golds, n=n, seed=3, classes=3) == interval
    assert bootstrap("macro-f1", predictions, golds, n=n, seed=4, classes=3) != interval


def test_matthews_in_its_own_range() -> None:
    """Its interval is that of a share (m + 1) / 2, and reaches below 0."""
    golds = [0, 1] * 6
    interval = bootstrap("matthews", [0, 1, 1, 0, 0, 1, 1, 0, 0, 1, 0, 1], golds)
    assert interval.value == pytest.approx(1 / 3) and -0.4 < interval.low < -0.2 and 0.6 < interval.high < 0.9
    assert bootstrap("matthews", golds, golds).low == pytest.approx(1 - 2 * Z2 / (12 + Z2), abs=1e-6)


def test_block_size_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = [bootstrap(m, TEXTS, REFS, n=200) for m in ("rougeL", "chrf")]
    monkeypatch.setattr(intervals, "BLOCK", 50)
    for got, expected in zip([bootstrap(m, TEXTS, REFS, n=200) for m in ("rougeL", "chrf")], whole, strict=True):
        assert (got.low, got.high) == pytest.approx((expected.low, expected.high))


def test_a_metric_without_weights_takes_fewer_resamples_and_says_so() -> None:
    plain = replace(METRICS["macro-f1"], weigh=None)
    predictions, golds = rights(20, 20)
    interval = bootstrap(plain, predictions, golds, n=2000, classes=2)
    assert interval.resamples == LOOP < 2000
    quick = bootstrap("macro-f1", predictions, golds, n=LOOP, classes=2)
    assert (quick.low, quick.high) == pytest.approx((interval.low, interval.high))
    assert bootstrap(replace(METRICS["chrf"], weigh=None), TEXTS, REFS, n=5).resamples == 5  # lists of texts


def test_macro_f1_with_a_class_of_one_is_not_certain() -> None:
    """All right, but resamples without the rare class score 0.5: the interval is as wide as they make it."""
    golds = [0] * 40 + [1]
    draws = intervals._curve(METRICS["macro-f1"], (np.array(golds), np.array(golds), 2), 2000, 0)
    assert set(draws) == {0.5, 1}
    interval = bootstrap("macro-f1", golds, golds, classes=2)
    assert interval.value == interval.high == 1
    assert interval.low == pytest.approx(1 - 2.021075 * draws.std(ddof=1), abs=1e-6)


def test_all_right_is_wilson_and_never_certain() -> None:
    for n in (1, 10, 200):
        interval = bootstrap("accuracy", *rights(n, 0))
        assert (interval.value, interval.high, interval.resamples) == (1, 1, 0)
        assert interval.low == pytest.approx(n / (n + Z2), abs=1e-6)
        interval = bootstrap("accuracy", *rights(0, n))
        assert interval.low == 0 and interval.high == pytest.approx(Z2 / (n + Z2), abs=1e-6)
    assert bootstrap("accuracy", *rights(10, 0), level=0.8).low > bootstrap("accuracy", *rights(10, 0)).low


@pytest.mark.parametrize("name", METRICS)
def test_one_example_is_never_certain(name: str) -> None:
    metric = METRICS[name]
    kind = metric.kinds[0]
    one: dict[str, tuple[Any, Any]] = {
        "classification": ([1], [1]),
        "multilabel": ([[1.0, -1.0]], [(0,)]),
        "generation": (["a b c d"], ["a b c d"]),
    }
    interval = bootstrap(name, *one[kind])
    assert metric.low <= interval.low < interval.high <= 1 and interval.low <= interval.value <= interval.high
    difference = paired(name, one[kind][0], *one[kind])
    assert metric.low - 1 <= difference.low < 0 < difference.high <= 1 - metric.low and difference.value == 0


def test_paired_difference_by_hand() -> None:
    """A is right where B is and on 10 of 50 more. With one more for each side 11 of 52 are +1, 1 is -1, 40 are 0."""
    golds = [1] * 50
    a, b = [1] * 40 + [0] * 10, [1] * 30 + [0] * 20
    interval = paired("accuracy", a, b, golds)
    assert interval.value == pytest.approx(0.2) and interval.resamples == 0
    d = [1] * 11 + [-1] + [0] * 40
    half = 2.007584 * np.std(d, ddof=1) / math.sqrt(52)  # t with 51 degrees of freedom
    assert [interval.low, interval.high] == pytest.approx([10 / 52 - half, 10 / 52 + half], abs=1e-6)
    back = paired("accuracy", b, a, golds)
    assert [back.low, back.high] == pytest.approx([-interval.high, -interval.low])
    # on independent examples the same scores would be far less certain
    alone = [i.high - i.low for i in (bootstrap("accuracy", a, golds), bootstrap("accuracy", b, golds))]
    assert interval.high - interval.low < math.hypot(*alone) * 0.8


def test_paired_over_resamples() -> None:
    """Differences of a metric that is no mean are over the same resamples: equal predictions never differ."""
    golds = [0, 1, 2, 0, 1] * 8
    a = [0, 1, 1, 0, 1] * 8
    interval = paired("macro-f1", a, a, golds)
    assert interval.value == 0 and interval.resamples == 2000
    half = 2.019541 * math.sqrt(2 / (41 * 42))  # t with 41 degrees of freedom; two of 42 differ
    assert [interval.low, interval.high] == pytest.approx([-half, half], abs=1e-6)
    other = paired("macro-f1", a, [0] * 40, golds)
    assert 0 < other.low < other.value < other.high < 1


def test_no_difference_seen_is_not_no_difference() -> None:
    a, golds = rights(15, 5)
    interval = paired("accuracy", a, a, golds)
    half = 2.079614 * math.sqrt(2 / (21 * 22))  # t with 21 degrees of freedom; two of 22 differ
    assert [interval.low, interval.value, interval.high] == pytest.approx([-half, 0, half], abs=1e-6)
    always = paired("accuracy", [1] * 20, [0] * 20, [1] * 20)
    assert 0.6 < always.low < 0.8 and always.value == always.high == 1


def test_paired_uses_the_same_classes_for_both() -> None:
    interval = paired("macro-f1", [0, 1, 0, 1], [0, 1, 0, 2], [0, 1, 0, 1])
    # b: class 0 1, class 1 tp 1, fn 1 -> 2/3, class 2 0; a has class 2 as well: (1 + 1 + 0) / 3
    assert interval.value == pytest.approx(2 / 3 - 5 / 9)


def test_resamples_where_the_metric_is_undefined_are_left_out() -> None:
    scores = [[1.0, -1.0], [0.5, -1.0], [-1.0, -2.0], [0.2, -1.0]]
    interval = bootstrap("map", scores, [(), (0,), (), ()])
    assert interval.low <= interval.value <= interval.high and interval.resamples == 2000


@pytest.mark.parametrize("rate", [0.6, 0.9, 0.97])
def test_coverage(rate: float) -> None:
    """Of 95 % intervals on 80 examples, about 95 % hold the true rate; reference/prove_intervals.py has the rest."""
    rng = np.random.default_rng(0)
    held = []
    for _ in range(300):
        predictions = (rng.random(80) < rate).astype(int)
        interval = bootstrap("accuracy", predictions, [1] * 80)
        held.append(interval.low <= rate <= interval.high)
    assert 0.90 <= np.mean(held) <= 0.98


def test_coverage_of_the_difference() -> None:
    rng = np.random.default_rng(1)
    held = []
    for _ in range(300):
        easy = rng.random(80)  # what is hard for a is hard for b
        a, b = (easy < 0.8).astype(int), (easy + 0.1 * rng.standard_normal(80) < 0.7).astype(int)
        interval = paired("accuracy", a, b, [1] * 80)
        # P(u < 0.8) - P(u + 0.1 z < 0.7), u uniform, z normal: 0.8 - 0.7, as almost no z leaves [0, 1]
        held.append(interval.low <= 0.1 <= interval.high)
    assert 0.90 <= np.mean(held) <= 0.985


def test_examples_as_gold() -> None:
    examples = [Example(("x",), gold) for gold in (0, 1, 1)]
    assert bootstrap("accuracy", [0, 1, 0], examples) == bootstrap("accuracy", [0, 1, 0], [0, 1, 1])
    texts = [Example(("x",), refs[0], "", refs) for refs in REFS]
    assert bootstrap("rougeL", TEXTS, texts, n=50) == bootstrap("rougeL", TEXTS, REFS, n=50)
    with pytest.raises(DataError, match="t.csv:2 is unlabelled"):
        bootstrap("accuracy", [0], [Example(("x",), None, "t.csv:2")])


def test_wrong_options() -> None:
    with pytest.raises(ConfigError, match="level=95"):
        bootstrap("accuracy", *rights(3, 2), level=95)
    with pytest.raises(ConfigError, match="n=1: expected at least 2"):
        bootstrap("accuracy", *rights(3, 2), n=1)
    with pytest.raises(DataError, match="0 predictions for 0 examples"):
        bootstrap("accuracy", [], [])


def test_text() -> None:
    assert str(Interval(0.914, 0.87, 0.9449, 50)) == "0.91 [0.87, 0.94]"
