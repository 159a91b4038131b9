"""How far a score, or the difference of two, may be off when its examples are a sample: Wilson's interval.

A score m in [0, 1] with variance V is told by as many examples as a share of right answers with that variance would
have, n_eff = m (1 - m) / V, and Wilson's interval for that share is its interval:

    all x with |m - x| <= t sqrt(x (1 - x) / n_eff),    t: Student's quantile with N - 1 degrees of freedom

Unlike percentiles of resamples it holds the truth as often as it says for few examples and for scores near 0 or 1, and
it never leaves the metric's range (docs/intervals.md has the coverage of both). V is that of N examples: in closed
form where the metric is a mean over examples, else that of resamples.

Examples show only what they show. Where they all agree (all right, all wrong, one example), V is 0 and would claim
certainty. So the interval is never narrower than what N examples cannot rule out: an outcome that none of N examples
shows has a probability of at most u = z^2 / (N + z^2) (Wilson's bound for 0 of N). For N correct of N the interval is
Wilson's, [N / (N + z^2), 1].

Source: Wilson 1927, https://doi.org/10.1080/01621459.1927.10502953; n_eff: Korn & Graubard 1998, Survey Methodology
24(2). Departure: t for z.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri, stdtrit

from ..errors import ConfigError
from ..task import Example, Metric, golds_of
from ..task.metrics import Golds, aligned, find, score

LOOP = 500  # resamples at most for metrics that have to be scored anew for each (none of ours: Metric.weigh)
BLOCK = 2_000_000  # weights held at a time while resampling

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Interval:
    value: float  # on all examples
    low: float
    high: float
    n: int  # examples
    resamples: int = 0  # that its variance is from; 0: in closed form
    level: float = 0.95

    def __str__(self) -> str:
        return f"{self.value:.2f} [{self.low:.2f}, {self.high:.2f}]"


def bootstrap(
    metric: str | Metric,
    predictions: Any,
    golds: Golds,
    *,
    classes: int | None = None,
    n: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> Interval:
    """The score of predictions with its interval, over examples.

    predictions: as in `task.metrics`. golds: Examples, or their gold. classes: C, for macro-f1; else those that occur.
    n: resamples for a metric that is no mean over examples, at most LOOP for one without `weigh`; Interval.resamples
    tells.
    Raises DataError and ConfigError as `task.metrics.score` does.
    """
    metric, golds = find(metric), _golds(golds)
    value = score(metric, predictions, golds, classes)
    _check(level, n)
    given, count = aligned(metric, predictions, golds, classes), len(golds)
    shown = each(metric, given) if metric.per_example else _curve(metric, given, n, seed)
    v = _variance(shown, metric.per_example)
    half = float(stdtrit(max(count - 1, 1), (1 + level) / 2)) * v**0.5
    low, high = bounded(value, half, count, level, metric.low)
    return Interval(value, float(low), float(high), count, 0 if metric.per_example else len(shown), level)


def paired(
    metric: str | Metric,
    predictions_a: Any,
    predictions_b: Any,
    golds: Golds,
    *,
    classes: int | None = None,
    n: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> Interval:
    """The difference a - b of two scores on the same examples, over the same resamples. Else as `bootstrap`.

    Its interval is Student's for the N examples and two more, on one of which only a is right and on the other only b:
    that none or one of them differs is not proof that no other would.
    Source: Bonett & Price 2012, https://doi.org/10.3102/1076998611411915, for right and wrong. Departure: t for z.
    """
    metric, golds = find(metric), _golds(golds)
    if classes is None:  # those that occur, the same for both sides
        classes = max(aligned(metric, p, golds)[2] for p in (predictions_a, predictions_b))
    value = score(metric, predictions_a, golds, classes) - score(metric, predictions_b, golds, classes)
    _check(level, n)
    count, span = len(golds), 1.0 - metric.low
    given = [aligned(metric, p, golds, classes) for p in (predictions_a, predictions_b)]
    # one seed and one number of examples: the same resamples
    one, other = (each(metric, g) if metric.per_example else _curve(metric, g, n, seed) for g in given)
    v = _variance(one - other, metric.per_example)
    centre = value * count / (count + 2)
    squares = count * (count - 1) * v + count * value**2 + 2 * span**2 - (count + 2) * centre**2
    half = float(stdtrit(count + 1, (1 + level) / 2)) * (squares / ((count + 1) * (count + 2))) ** 0.5
    low, high = max(min(centre - half, value), -span), min(max(centre + half, value), span)
    return Interval(value, low, high, count, 0 if metric.per_example else len(one), level)


def each(metric: Metric, given: tuple[Any, Any, int]) -> Floats:
    """(N,) what each example gives to a metric that is the mean of that. given: as `aligned` gives it."""
    predictions, gold, classes = given
    index = np.arange(len(gold))[:, None]
    return np.array([metric.compute(_pick(predictions, i), _pick(gold, i), classes) for i in index])


def bounded(
    value: float | Floats, half: float | Floats, n: int, level: float, floor: float = 0.0
) -> tuple[Floats, Floats]:
    """The ends of Wilson's interval (see above) of a score in [floor, 1].

    half: t sqrt(V), the half-width that a symmetric interval would have. n: examples.
    """
    width = 1 - floor
    m, h = (np.asarray(value) - floor) / width, np.asarray(half) / width
    room = m * (1 - m)
    inside = room > 1e-12  # at 0 or 1 a share has no variance, but other metrics may: macro-f1 with a class of one
    r = np.divide(h**2, room, out=np.zeros_like(room + h), where=inside)  # t^2 / n_eff
    centre = np.where(inside, (m + r / 2) / (1 + r), m)
    reach = np.where(inside, np.sqrt(r * room + r**2 / 4) / (1 + r), h)
    z2 = ndtri((1 + level) / 2) ** 2
    unseen = z2 / (n + z2)
    low, high = np.minimum(centre - reach, m * (1 - unseen)), np.maximum(centre + reach, m + unseen * (1 - m))
    return floor + width * np.maximum(low, 0), floor + width * np.minimum(high, 1)


def _golds(golds: Golds) -> Golds:
    return golds_of(list(golds)) if len(golds) and isinstance(golds[0], Example) else golds


def _curve(metric: Metric, given: tuple[Any, Any, int], n: int, seed: int) -> NDArray[np.float64]:
    """The metric's value on each of n resamples of the examples; NaN where a resample leaves it undefined."""
    predictions, gold, classes = given
    examples = len(gold)
    if metric.weigh is None:
        draws = (index for block in _draws(examples, min(n, LOOP), seed) for index in block)
        return np.array([metric.compute(_pick(predictions, i), _pick(gold, i), classes) for i in draws])
    value = metric.weigh(predictions, gold, classes)
    blocks = _draws(examples, n, seed)
    return np.concatenate([value(np.array([np.bincount(i, minlength=examples) for i in block])) for block in blocks])


def _pick(values: Any, index: NDArray[np.int64]) -> Any:
    return values[index] if isinstance(values, np.ndarray) else [values[i] for i in index]


def _draws(examples: int, n: int, seed: int) -> Iterator[NDArray[np.int64]]:
    """n resamples as blocks of (rows, examples) indexes. They are drawn row by row: the same whatever the block."""
    rng = np.random.default_rng(seed)
    rows = max(1, BLOCK // examples)
    for start in range(0, n, rows):
        yield rng.integers(examples, size=(min(rows, n - start), examples))


def _variance(shown: Floats, per_example: bool) -> float:
    """The variance of the mean of (N,) numbers of examples, or that of resamples, without undefined ones."""
    if per_example:
        return float(shown.var(ddof=1) / len(shown)) if len(shown) > 1 else 0.0
    shown = shown[~np.isnan(shown)]
    return float(shown.var(ddof=1)) if len(shown) > 1 else 0.0


def _check(level: float, n: int = 2) -> None:
    if not 0 < level < 1:
        raise ConfigError(f"level={level}: expected a probability between 0 and 1, such as 0.95")
    if n < 2:
        raise ConfigError(f"n={n}: expected at least 2 resamples")
