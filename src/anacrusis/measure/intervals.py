"""How far a score, or the difference of two, may be off: percentile bootstrap over examples.

Resampling shows only what the examples show. Where they all agree (all right, all wrong, one example), it would claim
certainty. Then the interval is widened by what n examples cannot rule out: an outcome that none of n examples shows
has a probability of at most u = z^2 / (n + z^2) (Wilson's bound for 0 of n), so for n correct of n the interval is
Wilson's, [n / (n + z^2), 1].
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError
from ..task import Example, Metric, golds_of
from ..task.metrics import Golds, aligned, find, score

LOOP = 500  # resamples at most for metrics that have to be scored anew for each (none of ours: Metric.weigh)
BLOCK = 2_000_000  # weights held at a time while resampling


@dataclass(frozen=True)
class Interval:
    value: float  # on all examples
    low: float
    high: float
    n: int  # examples
    resamples: int = 0  # 0: widened in closed form, as there was nothing to see in resamples
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
    """The score of predictions with its interval.

    predictions: as in `task.metrics`. golds: Examples, or their gold. classes: C, for macro-f1; else those that occur.
    n: resamples, at most LOOP for a metric without `weigh`; Interval.resamples tells.
    Raises DataError and ConfigError as `task.metrics.score` does.
    """
    metric, golds = find(metric), _golds(golds)
    value = score(metric, predictions, golds, classes)
    curve = _curve(metric, aligned(metric, predictions, golds, classes), n, seed)
    return _interval(value, curve, len(golds), level, (metric.low, 1.0))


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
    """The difference a - b of two scores on the same examples, over the same resamples. Else as `bootstrap`."""
    metric, golds = find(metric), _golds(golds)
    if classes is None:  # those that occur, the same for both sides
        classes = max(aligned(metric, p, golds)[2] for p in (predictions_a, predictions_b))
    value = score(metric, predictions_a, golds, classes) - score(metric, predictions_b, golds, classes)
    # one seed and one number of examples: the same resamples
    one, other = (_curve(metric, aligned(metric, p, golds, classes), n, seed) for p in (predictions_a, predictions_b))
    curve = one - other
    span = 1.0 - metric.low
    return _interval(value, curve, len(golds), level, (-span, span))


def _golds(golds: Golds) -> Golds:
    return golds_of(list(golds)) if len(golds) and isinstance(golds[0], Example) else golds


def _curve(metric: Metric, given: tuple[Any, Any, int], n: int, seed: int) -> NDArray[np.float64]:
    """The metric's value on each of n resamples of the examples; NaN where a resample leaves it undefined."""
    predictions, gold, classes = given
    examples = len(gold)
    if n < 2:
        raise ConfigError(f"n={n}: expected at least 2 resamples")
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


def _interval(value: float, curve: NDArray[np.float64], n: int, level: float, bounds: tuple[float, float]) -> Interval:
    if not 0 < level < 1:
        raise ConfigError(f"level={level}: expected a probability between 0 and 1, such as 0.95")
    low, high = np.nanquantile(curve, [(1 - level) / 2, (1 + level) / 2])
    if high - low > 1e-12:
        return Interval(value, float(low), float(high), n, len(curve), level)
    z2 = NormalDist().inv_cdf((1 + level) / 2) ** 2
    unseen = z2 / (n + z2)
    floor, top = bounds
    return Interval(value, value - unseen * (value - floor), value + unseen * (top - value), n, 0, level)
