"""Seeds and examples: the analysis by hand, what must not matter, and whether it errs as rarely as it says."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import combinations
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

from anacrusis.errors import ConfigError, DataError
from anacrusis.measure import crossed
from anacrusis.measure.crossed import (
    against_best,
    alone,
    between,
    half_width,
    holm,
    mean_squares,
    over_seeds,
    p_value,
    paired_over_seeds,
    pseudo,
    variances,
)
from anacrusis.measure.intervals import bootstrap, paired
from anacrusis.task import METRICS
from anacrusis.task.metrics import score
from reference.prove_intervals import answers, called_worse, holds, latent

TEXTS = ["the cat sat on the mat", "a dog barks at me", "rain in the morning", "sun and moon"] * 3
REFS = [("the cat sat on a mat",), ("the dog barks at us",), ("rain in the evening",), ("sun and no moon",)] * 3


def runs_of(rng: np.random.Generator, seeds: int, n: int, rate: float = 0.8) -> tuple[list[NDArray[Any]], NDArray[Any]]:
    """Predictions of three classes, and gold."""
    gold = rng.choice(3, p=[0.5, 0.3, 0.2], size=n)
    hard = rng.random(n)
    wrong = [(0.7 * hard + 0.3 * rng.random(n)) > rate for _ in range(seeds)]
    return [np.where(w, (gold + 1) % 3, gold) for w in wrong], gold


# --- one number an example


def test_pseudo_values_by_hand() -> None:
    """Matthews of 4 examples, one wrong: theta = 1/sqrt(3); without each: N theta - (N - 1) theta_(-i), recentred."""
    gold, said = [0, 0, 1, 1], [0, 0, 1, 0]
    theta = (2 * 1 - 0 * 1) / math.sqrt(3 * 1 * 2 * 2)  # (tp tn - fp fn) / sqrt of the margins
    left = np.array([(1 * 1 - 0) / math.sqrt(2 * 1 * 1 * 2)] * 2 + [0.0, 1.0])  # all predictions 0: 0 by definition
    expected = 4 * theta - 3 * left
    got = pseudo("matthews", said, gold)
    assert got == pytest.approx(expected - expected.mean() + theta)
    assert got.mean() == pytest.approx(score("matthews", said, gold))


@pytest.mark.parametrize("name", ["accuracy", "exact-match", "rougeL"])
def test_pseudo_values_of_means_are_the_examples_own(name: str) -> None:
    said, gold = (TEXTS, REFS) if name != "accuracy" else ([0, 1, 2, 1] * 3, [0, 1, 1, 1] * 3)
    each = [score(name, [p], [g]) for p, g in zip(said, gold, strict=True)]
    assert pseudo(name, said, gold) == pytest.approx(each)


@pytest.mark.parametrize("name", ["macro-f1", "matthews", "bleu", "chrf"])
def test_weights_leave_out_as_a_loop_does(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    runs, labels = runs_of(rng, 1, 30)
    said, gold = (runs[0], labels) if name in ("macro-f1", "matthews") else (TEXTS, REFS)
    whole = pseudo(name, said, gold)
    loose = 0.02 if name == "bleu" else 1e-9  # sacrebleu makes its numbers of words whole
    assert whole == pytest.approx(pseudo(replace(METRICS[name], weigh=None), said, gold), abs=loose)
    monkeypatch.setattr(crossed, "BLOCK", 40)
    assert whole == pytest.approx(pseudo(name, said, gold))


def test_map_has_pseudo_values_where_leaving_out_undoes_it() -> None:
    scores = [[1.0, -1.0], [0.5, -1.0], [-1.0, -2.0], [0.2, -1.0]]
    got = pseudo("map", scores, [(), (0,), (), ()])
    # without the first AP is 1 and not 1/2, so it moves by 3 (-1/2); the only positive counts as no change
    assert got == pytest.approx([0.5 - 1.5 + 0.375, *[0.5 + 0.375] * 3])


def test_groups_keep_mean_and_spread(monkeypatch: pytest.MonkeyPatch) -> None:
    runs, gold = runs_of(np.random.default_rng(1), 1, 2000)
    single = pseudo(METRICS["macro-f1"], runs[0], gold)
    monkeypatch.setattr(crossed, "GROUPS", 2000)
    every = pseudo(METRICS["macro-f1"], runs[0], gold)
    assert len(set(every)) < 20 < len(set(single)) <= 400
    assert single.mean() == pytest.approx(every.mean())
    assert single.std() == pytest.approx(every.std(), rel=0.1)  # 400 groups: an error of 1 / sqrt(800)


def test_one_example() -> None:
    assert list(pseudo("macro-f1", [1], [1], 2)) == [0.5]
    found = over_seeds("macro-f1", [[1], [1]], [1], 2)
    assert found.low < found.value == 0.5 < found.high


# --- the analysis


def test_analysis_of_variance_by_hand() -> None:
    """y = [[1, 1, 0], [1, 0, 1]]: mean 2/3, both seeds 2/3, examples 1, 1/2, 1/2.

    SS_a = 0. SS_b = 2 (1/9 + 1/36 + 1/36) = 1/3. SS = 4 (1/9) + 2 (4/9) = 4/3, so SS_e = 1. Degrees: 1, 2, 2.
    """
    y = np.array([[1.0, 1, 0], [1, 0, 1]])
    assert mean_squares(y) == pytest.approx((0, 1 / 6, 1 / 2))
    v, weights = variances(y)
    assert v == pytest.approx(np.full(len(weights), 1 / 36)) and weights.sum() == pytest.approx(1)  # MS_b / (S N)
    y = np.array([[1.0, 1, 1], [1, 0, 0]])  # seeds 1 and 1/3; examples 1, 1/2, 1/2: SS_a = 2/3, SS_b = 1/3, SS_e = 1/3
    assert mean_squares(y) == pytest.approx((2 / 3, 1 / 6, 1 / 6))
    v, weights = variances(y)
    # E over W of 1 [V(W) > x] is P(W < MS_a / (x S N - MS_b + MS_e)): at x = 1/4, W < 4/9
    assert weights[v > 0.25].sum() == pytest.approx(stats.chi2.cdf((2 / 3) / 1.5, 1), abs=0.03)


@pytest.mark.parametrize("seeds", [2, 3, 5])
@pytest.mark.parametrize("level", [0.5, 0.95, 0.999])
def test_where_seeds_are_all_that_matters_it_is_student(seeds: int, level: float) -> None:
    rows = np.random.default_rng(seeds).standard_normal((seeds, 1))
    y = np.broadcast_to(rows, (seeds, 100_000))[:, :2000]
    half = half_width(*variances(y), 10**7, level)
    expected = stats.t.isf((1 - level) / 2, seeds - 1) * rows.std(ddof=1) / math.sqrt(seeds)
    assert half == pytest.approx(expected, rel=1e-4)


def test_where_seeds_never_differ_it_is_student_over_examples() -> None:
    row = np.random.default_rng(0).standard_normal(50)
    y = np.stack([row] * 4)
    half = half_width(*variances(y), 49, 0.95)
    assert half == pytest.approx(stats.t.isf(0.025, 49) * row.std(ddof=1) / math.sqrt(50))


def test_one_seed_equals_the_single_interval() -> None:
    runs, gold = runs_of(np.random.default_rng(2), 2, 70)
    got, single = over_seeds("accuracy", runs[:1], gold), bootstrap("accuracy", runs[0], gold)
    assert [got.value, got.low, got.high] == pytest.approx([single.value, single.low, single.high])
    both, pair = paired_over_seeds("accuracy", runs[:1], runs[1:], gold), paired("accuracy", runs[0], runs[1], gold)
    assert [both.value, both.low, both.high] == pytest.approx([pair.value, pair.low, pair.high])
    f1, resampled = over_seeds("macro-f1", runs[:1], gold), bootstrap("macro-f1", runs[0], gold)
    assert [f1.low, f1.high] == pytest.approx([resampled.low, resampled.high], abs=0.02)


def test_all_right_is_what_n_examples_show() -> None:
    gold = [1] * 40
    got = over_seeds("accuracy", [gold, gold, gold], gold)
    z2 = 1.959964**2
    assert (got.value, got.high) == (1, 1) and got.low == pytest.approx(40 / (40 + z2))
    almost = over_seeds("accuracy", [gold, gold, [0, *gold[1:]]], gold)
    assert almost.low < got.low and almost.high == 1 or almost.high < 1  # one miss never narrows it


@settings(max_examples=30, deadline=None)
@given(
    st.integers(1, 4), st.integers(1, 12), st.integers(0, 10**6), st.sampled_from(["accuracy", "macro-f1", "matthews"])
)
def test_properties(seeds: int, n: int, seed: int, name: str) -> None:
    """The value is inside and the interval in its range; the order of seeds does not matter; a - b is -(b - a)."""
    rng = np.random.default_rng(seed)
    gold, a, b = rng.integers(3, size=n), *(list(rng.integers(3, size=(seeds, n))) for _ in range(2))
    low = METRICS[name].low
    one = over_seeds(name, a, gold, 3)
    assert low <= one.low <= one.value <= one.high <= 1 and one.low < one.high
    assert one.value == pytest.approx(np.mean([score(name, run, gold, 3) for run in a]))
    order = rng.permutation(seeds)
    turned = over_seeds(name, [a[i] for i in order], gold, 3)
    assert [turned.low, turned.high] == pytest.approx([one.low, one.high])
    there, back = paired_over_seeds(name, a, b, gold, 3), paired_over_seeds(name, b, a, gold, 3)
    assert [there.value, there.low, there.high] == pytest.approx([-back.value, -back.high, -back.low], abs=1e-9)
    assert there.p == pytest.approx(back.p) and low - 1 <= there.low <= there.value <= there.high <= 1 - low
    if not there.low <= 0 <= there.high:
        assert there.p < 0.05
    mixed = paired_over_seeds(name, [a[i] for i in order], [b[i] for i in order], gold, 3)
    assert mixed.p == pytest.approx(there.p)


def test_a_constant_shift_moves_the_interval_and_not_its_width() -> None:
    d = np.random.default_rng(3).normal(0, 0.2, (3, 60))
    assert half_width(*variances(d + 0.1), 59, 0.95) == pytest.approx(half_width(*variances(d), 59, 0.95))
    assert mean_squares(d + 0.1) == pytest.approx(mean_squares(d))


def test_identical_runs_are_no_proof() -> None:
    runs, gold = runs_of(np.random.default_rng(4), 3, 60)
    same = paired_over_seeds("accuracy", runs, runs, gold)
    assert same.value == 0 and same.p == pytest.approx(1) and same.seeds == 3 and same.n == 60
    assert same.low == pytest.approx(-same.high) and 0.02 < same.high < 0.1


def test_seeds_are_paired_by_place_and_a_single_run_stands_for_all() -> None:
    rng = np.random.default_rng(5)
    runs, gold = runs_of(rng, 4, 80)
    other = [np.where(rng.random(80) < 0.2, 0, run) for run in runs]
    failed: list[Any] = [runs[0], None, runs[2], runs[3]]
    got = paired_over_seeds("accuracy", failed, other[:3], gold)
    kept = paired_over_seeds("accuracy", [runs[0], runs[2]], [other[0], other[2]], gold)
    assert got == kept and got.seeds == 2
    fixed = paired_over_seeds("accuracy", other, runs[:1], gold)
    assert fixed == paired_over_seeds("accuracy", other, runs[:1] * 4, gold) and fixed.seeds == 4
    with pytest.raises(ConfigError, match="no seed that both methods have"):
        paired_over_seeds("accuracy", [runs[0], runs[1], None, None], [None, None, *other[:2]], gold)


def test_p_by_hand() -> None:
    """One seed: +1 on 8 of 60, -1 on 1. With one more each: 9 and 2 of 62, a t test with 61 degrees of freedom."""
    d = np.array([[1.0] * 8 + [-1] + [0] * 51])
    more = np.append(d, [1, -1])
    assert float(p_value(d, 1.0)) == pytest.approx(float(stats.ttest_1samp(more, 0).pvalue))
    low, high = (float(x) for x in between(d, 1.0, 1 - float(p_value(d, 1.0)))[1:])
    assert low == pytest.approx(0, abs=1e-9) and high > 0.1


# --- several methods


def test_holm_by_hand() -> None:
    """0.01 x 4, 0.02 x 3, 0.022 x 2 = 0.044 is raised to 0.06, 0.9."""
    assert holm([0.022, 0.01, 0.9, 0.02]) == pytest.approx([0.06, 0.04, 0.9, 0.06])
    assert holm([0.5, 0.6]) == [1, 1] and holm([]) == [] and holm([0.03]) == [0.03]


def test_against_best() -> None:
    rng = np.random.default_rng(6)
    good, gold = runs_of(rng, 4, 400, 0.95)
    bad = [np.where(rng.random(400) < 0.3, 2, run) for run in good]
    runs = {"bad": bad, "good": good, "copy": good, "fixed": bad[:1]}
    found = against_best("accuracy", runs, gold)
    assert {k: v.standing for k, v in found.items()} == {
        "bad": "worse",
        "good": "best",
        "copy": "tied",
        "fixed": "worse",
    }
    assert list(found) == list(runs) and found["copy"].adjusted == 1 and found["copy"].difference.value == 0
    assert found["bad"].difference.value < 0 and found["bad"].difference.seeds == 4
    every = [paired_over_seeds("accuracy", runs[a], runs[b], gold, 3).p for a, b in combinations(runs, 2)]
    assert found["bad"].adjusted == holm(every)[0]  # over all six pairs
    assert against_best("accuracy", {"only": good}, gold)["only"].standing == "best"


def test_a_method_that_wins_on_common_seeds_is_not_worse_than_the_best() -> None:
    """The best has a third seed that the other lacks: on the two that both have it loses, for certain."""
    gold = np.ones(1000, dtype=int)
    low, middle = (np.where(np.arange(1000) < right, 1, 0) for right in (600, 700))
    found = against_best("accuracy", {"best": [low, low, gold], "other": [middle, middle, None]}, gold)
    assert found["best"].standing == "best" and found["other"].standing == "tied"
    assert found["other"].difference.value == pytest.approx(0.1) and found["other"].adjusted < 0.05


def test_against_best_is_what_is_simulated() -> None:
    rng = np.random.default_rng(7)
    y = next(answers(rng, 5, (0.9, 0.8, 0.6), 3, 100, 0.02))[0].astype(int)
    for board, worse in zip(y, called_worse(y.astype(float)), strict=True):
        found = against_best("accuracy", {str(i): list(runs) for i, runs in enumerate(board)}, [1] * 100)
        assert [v.standing == "worse" for v in found.values()] == list(worse)


def test_wrong_input() -> None:
    with pytest.raises(ConfigError, match="no runs"):
        over_seeds("accuracy", [None], [1])
    with pytest.raises(ConfigError, match="level=95"):
        over_seeds("accuracy", [[1]], [1], level=95)
    with pytest.raises(DataError, match="2 predictions for 1 examples"):
        over_seeds("accuracy", [[1], [1, 1]], [1])
    with pytest.raises(ConfigError, match="no methods"):
        against_best("accuracy", {}, [1])


# --- as rarely wrong as it says; reference/prove_intervals.py has the rest

REPETITIONS = 400
SLACK = 3 * math.sqrt(0.05 * 0.95 / REPETITIONS)  # three standard errors


def test_the_simulation_has_the_truth_that_it_says() -> None:
    c, w = latent(0.8, 0.05)
    rates = stats.norm.cdf(c + w * np.random.default_rng(0).standard_normal(200_000))
    assert rates.mean() == pytest.approx(0.8, abs=5e-4) and rates.std() == pytest.approx(0.05, abs=5e-4)


@pytest.mark.parametrize(("seeds", "n", "p", "sd"), [(3, 60, 0.8, 0.05), (5, 200, 0.8, 0.02), (5, 200, 0.6, 0.05)])
def test_coverage_over_seeds(seeds: int, n: int, p: float, sd: float) -> None:
    rng, held = np.random.default_rng(8), []
    for y, _ in answers(rng, REPETITIONS, (p,), seeds, n, sd):
        held.append(holds(*alone(y[:, 0], 0.0, 0.95)[1:], p))
    assert 0.95 - SLACK <= np.concatenate(held).mean() <= 0.995


def test_error_rate_of_leaderboards() -> None:
    rng = np.random.default_rng(9)
    wrong = [called_worse(y).any(axis=1) for y, _ in answers(rng, 200, (0.8,) * 5, 3, 200, 0.05)]
    assert np.concatenate(wrong).mean() <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 200)
    better = next(answers(rng, 20, (0.95, 0.7), 3, 200, 0.0))[0]
    assert called_worse(better)[:, 1].mean() > 0.9
