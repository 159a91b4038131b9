"""Scores over seeds and examples: intervals, differences, and which methods of a leaderboard are as good as its best.

A method was fitted with S seeds, and every fit answered the same N examples. The score to know is the one expected of
a new seed on new examples, so both are random and they are crossed:

    y[s, n] = mu + a_s + b_n + e_sn        Var(mean of y) = var_a / S + var_b / N + var_e / (S N)

With the mean squares MS_a (seeds), MS_b (examples) and MS_e (what is left) that variance is estimated by

    V = (MS_b + max(MS_a - MS_e, 0)) / (S N)

MS_a is a guess: its S - 1 degrees of freedom are 2 with three seeds. What it may be a guess of is MS_a (S - 1) / W, W
chi-square with S - 1 degrees of freedom, so intervals and p-values are means over W of Student's with V(W), N - 1
degrees of freedom (a generalised pivotal quantity). Where seeds are all that matters that is Student's with S - 1,
where they don't matter it is too wide (S = 3: by a quarter), as three seeds can't show that they don't. Satterthwaite's
degrees of freedom are narrower and fail in the tails that a correction for many pairs asks for: of ten equally good
methods with three seeds they called some worse in a quarter of simulated leaderboards, this in 2 of 100 at most
(reference/prove_intervals.py, docs/intervals.md).

Source: crossed random effects of multi-reader multi-case studies, Dorfman, Berbaum & Metz 1992, Investigative Radiology
27(9); truncation of components: Hillis 2007, https://doi.org/10.1002/sim.2532; generalised pivotal quantities:
Weerahandi 1993, JASA 88(423). Departure: W for MS_a only; the other mean squares have N - 1 degrees of freedom or more.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import special, stats

from ..errors import ConfigError
from ..task.metrics import Golds, Metric, aligned, find
from .intervals import BLOCK, Floats, Interval, _check, _golds, _pick, bounded, each

EVERY = -1  # the place of a run that stands for every seed
GROUPS = 400  # of examples that the jackknife leaves out in turn, at most
NODES = 64  # of the mean over W


@dataclass(frozen=True)
class Comparison:
    """The difference a - b of two methods. p: two-sided, of no difference."""

    value: float
    low: float
    high: float
    p: float
    n: int  # examples
    seeds: int  # that both have
    level: float = 0.95

    def __str__(self) -> str:
        return f"{self.value:+.2f} [{self.low:+.2f}, {self.high:+.2f}]"


@dataclass(frozen=True)
class Verdict:
    """A method beside the best of its leaderboard. adjusted: p after Holm's correction over all pairs of methods."""

    difference: Comparison  # this method - the best
    adjusted: float
    standing: Literal["best", "tied", "worse"]


# --- one number an example


def pseudo(metric: str | Metric, predictions: Any, golds: Golds, classes: int | None = None) -> Floats:
    """(N,) numbers, one an example, whose mean is the metric's value and whose spread is that of the value.

    Where the metric is a mean over examples: what each example gives. Else jackknife pseudo-values
    N theta - (N - 1) theta_(-i), moved so that their mean is theta (they would correct its bias). With more than
    GROUPS examples, groups g of m examples, drawn once for each N, are left out instead of single ones, and each
    example of a group gets theta + sqrt(m) (N - m) / m (theta - theta_(-g)): the root keeps the spread of single
    examples. Where leaving out makes the metric undefined it counts as theta.

    Source: Tukey 1958; groups: Shao & Wu 1989, https://doi.org/10.1214/aos/1176347263
    Raises DataError and ConfigError as `task.metrics.score` does.
    """
    metric = find(metric)
    given, gold, classes = aligned(metric, predictions, _golds(golds), classes)
    n = len(gold)
    if metric.per_example:
        return each(metric, (given, gold, classes))
    value = metric.compute(given, gold, classes)
    if n == 1:
        return np.array([value])
    groups = np.random.default_rng(0).permutation(n) % min(n, GROUPS)
    sizes = np.bincount(groups)
    left = _left_out(metric, (given, gold, classes), groups)
    left = np.where(np.isnan(left), value, left)
    moves = (np.sqrt(sizes) * (n - sizes) / sizes * (value - left))[groups]
    return np.asarray(value + moves - moves.mean())


def _left_out(metric: Metric, given: tuple[Any, Any, int], groups: NDArray[np.int64]) -> Floats:
    """(G,) the metric without each group of examples."""
    predictions, gold, classes = given
    count = int(groups.max()) + 1
    if metric.weigh is None:
        rest = (np.flatnonzero(groups != g) for g in range(count))
        return np.array([metric.compute(_pick(predictions, i), _pick(gold, i), classes) for i in rest])
    values, rows = metric.weigh(predictions, gold, classes), max(1, BLOCK // len(gold))
    out = []
    for start in range(0, count, rows):
        kept = (groups != np.arange(start, min(start + rows, count))[:, None]).astype(np.float64)
        # Weights sum to N, as in a resample: matthews takes N for granted. (bleu makes numbers of words whole.)
        out.append(values(kept * (len(gold) / kept.sum(axis=1, keepdims=True))))
    return np.concatenate(out)


def _classes(metric: Metric, runs: Sequence[Any], golds: Golds, classes: int | None) -> int | None:
    """C: as given, or those that occur in any of the runs."""
    return classes if classes is not None else max(aligned(metric, run, golds)[2] for run in runs)


# --- the analysis; leading dimensions, written ..., are simulated leaderboards in reference/prove_intervals.py


def mean_squares(y: Floats) -> tuple[Floats, Floats, Floats]:
    """MS_a, MS_b and MS_e of y (..., S, N), each (...,); 0 where there is one seed or one example only."""
    seeds, n = y.shape[-2:]
    by_seed, by_example = y.mean(axis=-1, keepdims=True), y.mean(axis=-2, keepdims=True)
    mean = by_seed.mean(axis=-2, keepdims=True)
    sums = (n * (by_seed - mean) ** 2, seeds * (by_example - mean) ** 2, (y - by_seed - by_example + mean) ** 2)
    free = (seeds - 1, n - 1, (seeds - 1) * (n - 1))
    a, b, e = (x.sum(axis=(-1, -2)) / max(df, 1) for x, df in zip(sums, free, strict=True))
    return a, b, e


def variances(y: Floats) -> tuple[Floats, Floats]:
    """What the variance of the mean of y (..., S, N) may be: V(W) (..., K), and the weight (K,) of each.

    With one seed that is the variance over examples alone: what seeds do can't be seen.
    """
    seeds, n = y.shape[-2:]
    a, b, e = (ms[..., None] for ms in mean_squares(y))
    if seeds == 1 or n == 1:
        return b / (seeds * n), np.ones(1)
    x, weights = np.polynomial.legendre.leggauss(NODES)
    x = (x + 1) / 2
    w = 2 * special.gammaincinv((seeds - 1) / 2, x**4)  # x^4: dense where W is small and V large: small p-values
    return (b + np.maximum(a * (seeds - 1) / w - e, 0)) / (seeds * n), 2 * x**3 * weights


def half_width(v: Floats, weights: Floats, df: int, level: float) -> Floats:
    """h with P(|mean - mu| <= h) = level, over V(W) and Student's t. v: (..., K), as of `variances`."""
    sd = np.sqrt(np.maximum(v, 1e-30))
    h = special.stdtrit(df, (1 + level) / 2) * sd.min(axis=-1)  # at most the solution
    for _ in range(100):  # Newton's steps from below, never too long as the probability is concave in h
        z = h[..., None] / sd
        missing = level - 1 + 2 * (special.stdtr(df, -z) @ weights)
        step = missing / (2 * ((stats.t.pdf(z, df) / sd) @ weights))
        h = h + step
        if np.all(np.abs(step) <= 1e-9 * h):
            break
    return np.asarray(h)


def between(d: Floats, span: float, level: float) -> tuple[Floats, Floats, Floats]:
    """Mean of the differences d (..., S, N) within [-span, span], and the ends of its interval.

    d is given two more examples, one with +span and one with -span, as in `intervals.paired`.
    """
    value, (centre, v, weights, df) = d.mean(axis=(-1, -2)), _widened(d, span)
    half = half_width(v, weights, df, level)
    low, high = np.maximum(centre - half, -span), np.minimum(centre + half, span)
    return value, np.minimum(low, value), np.maximum(high, value)


def p_value(d: Floats, span: float) -> Floats:
    """(...,) two-sided, that the mean of d (..., S, N) is 0; below 1 - level where `between` leaves 0 out."""
    centre, v, weights, df = _widened(d, span)
    return np.minimum(2 * (special.stdtr(df, -np.abs(centre)[..., None] / np.sqrt(v)) @ weights), 1.0)


def _widened(d: Floats, span: float) -> tuple[Floats, Floats, Floats, int]:
    """Mean, variances with their weights, and degrees of freedom of d and two more examples."""
    wide = np.concatenate([d, np.broadcast_to([span, -span], (*d.shape[:-1], 2))], axis=-1)
    return wide.mean(axis=(-1, -2)), *variances(wide), wide.shape[-1] - 1


def alone(y: Floats, floor: float, level: float) -> tuple[Floats, Floats, Floats]:
    """Mean of y (..., S, N) and the ends of its interval within [floor, 1]: Wilson's with the half-width of above."""
    value, n = y.mean(axis=(-1, -2)), y.shape[-1]
    low, high = bounded(value, half_width(*variances(y), max(n - 1, 1), level), n, level, floor)
    return value, low, high


# --- what a leaderboard shows


def over_seeds(
    metric: str | Metric, runs: Sequence[Any], golds: Golds, classes: int | None = None, level: float = 0.95
) -> Interval:
    """The mean score of S runs of one method, and the interval of the score expected of a new seed on new examples.

    runs: predictions of each seed, as in `task.metrics`; None for a seed that failed. With one run the interval is
    over examples alone: it is that run's, and says nothing of other seeds. Raises ConfigError without a run, and as
    `task.metrics.score` does.
    """
    metric, golds, runs = find(metric), _golds(golds), _there(runs)
    _check(level)
    classes = _classes(metric, runs, golds, classes)
    y = np.array([pseudo(metric, run, golds, classes) for run in runs])
    value, low, high = (float(x) for x in alone(y, metric.low, level))
    return Interval(min(max(value, low), high), low, high, len(golds), 0, level)  # rounding may put 1 above 1


def paired_over_seeds(
    metric: str | Metric,
    runs_a: Sequence[Any],
    runs_b: Sequence[Any],
    golds: Golds,
    classes: int | None = None,
    level: float = 0.95,
) -> Comparison:
    """The difference a - b of two methods over seeds and examples.

    Seeds at the same place are paired (they learned from the same sample), and only those that both have count; None
    stands for a seed that failed. A method with a single run is taken to give the same for every seed, as one that
    learns nothing does. Raises as `over_seeds`.
    """
    metric, golds = find(metric), _golds(golds)
    _check(level)
    classes = _classes(metric, _there(runs_a) + _there(runs_b), golds, classes)
    a, b = (_rows(metric, runs, golds, classes) for runs in (runs_a, runs_b))
    return _compared(a, b, 1 - metric.low, level)


def holm(ps: Sequence[float]) -> list[float]:
    """Adjusted p-values: the i-th smallest of k times k - i + 1, at most 1, and never below that of a smaller p.

    Source: Holm 1979, Scandinavian Journal of Statistics 6(2), https://www.jstor.org/stable/4615733
    """
    p = np.asarray(ps, dtype=np.float64)
    order = np.argsort(p, kind="stable")
    out = np.empty(len(p))
    out[order] = np.maximum.accumulate(np.minimum(p[order] * np.arange(len(p), 0, -1), 1.0))
    return [float(x) for x in out]


def against_best(
    metric: str | Metric,
    runs: Mapping[str, Sequence[Any]],
    golds: Golds,
    classes: int | None = None,
    alpha: float = 0.05,
) -> dict[str, Verdict]:
    """Which methods are worse than the one with the highest mean score, and which can't be told from it.

    The best is chosen by the same scores, so p-values are corrected over all pairs of methods, not only over those
    with the best: the probability of calling any of equally good methods worse is at most alpha. runs: method -> runs,
    as `paired_over_seeds` takes them. Raises as it does.
    """
    metric, golds = find(metric), _golds(golds)
    _check(1 - alpha)
    if not runs:
        raise ConfigError("no methods: expected a mapping of at least one method's name to its runs")
    classes = _classes(metric, [r for name in runs for r in _there(runs[name])], golds, classes)
    rows = {name: _rows(metric, given, golds, classes) for name, given in runs.items()}
    means = {name: np.mean([y.mean() for y in found.values()]) for name, found in rows.items()}
    best = max(rows, key=lambda name: means[name])
    pairs = {(a, b): _compared(rows[a], rows[b], 1 - metric.low, 1 - alpha) for a, b in combinations(rows, 2)}
    adjusted = dict(zip(pairs, holm([c.p for c in pairs.values()]), strict=True))
    out = {}
    for name in rows:
        difference = _compared(rows[name], rows[best], 1 - metric.low, 1 - alpha)
        p = 1.0 if name == best else adjusted[(name, best) if (name, best) in adjusted else (best, name)]
        worse = p <= alpha and difference.value < 0
        out[name] = Verdict(difference, p, "best" if name == best else "worse" if worse else "tied")
    return out


def _rows(metric: Metric, runs: Sequence[Any], golds: Golds, classes: int | None) -> dict[int, Floats]:
    """(N,) numbers by the seed's place, without seeds that failed; EVERY where the only run stands for all seeds."""
    _there(runs)
    if len(runs) == 1:
        return {EVERY: pseudo(metric, runs[0], golds, classes)}
    return {s: pseudo(metric, run, golds, classes) for s, run in enumerate(runs) if run is not None}


def _compared(a: dict[int, Floats], b: dict[int, Floats], span: float, level: float) -> Comparison:
    if EVERY in a or EVERY in b:
        pairs = [(x, y) for x in a.values() for y in b.values()]
    else:
        pairs = [(a[s], b[s]) for s in a if s in b]
    if not pairs:
        raise ConfigError(f"no seed that both methods have: {sorted(a)} and {sorted(b)}. Run them with the same seeds")
    d = np.array([x - y for x, y in pairs])
    value, low, high = (float(x) for x in between(d, span, level))
    return Comparison(value, low, high, float(p_value(d, span)), d.shape[1], len(d), level)


def _there(runs: Sequence[Any]) -> list[Any]:
    found = [run for run in runs if run is not None]
    if not found:
        raise ConfigError("no runs: expected predictions of at least one seed")
    return found
