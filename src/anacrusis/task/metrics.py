"""How predictions are scored against gold.

Shapes: N examples, C classes, R resamples, K numbers per example.

kind            predictions                                            gold
classification  (N,) class indexes; -1 = no usable answer, never right  (N,) class indexes
multilabel      (N, C) scores; a label is given where its score is > 0  (N, C) of 0 and 1
                (so: logits, or probabilities minus one half)
generation      N texts                                                N tuples of acceptable texts

Every value is in [0, 1], higher is better; BLEU and chrF are divided by 100. Matthews' is in [-1, 1].
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError, DataError, MissingExtra, did_you_mean

Kind = Literal["classification", "multilabel", "generation"]
Floats = NDArray[np.float64]
Golds = Sequence[Any] | NDArray[Any]
DEFAULT: dict[str, str] = {"classification": "accuracy", "multilabel": "map", "generation": "rougeL"}


Weigh = Callable[[Floats], Floats]  # (R, N) how often each resample has each example -> (R,) values


@dataclass(frozen=True)
class Metric:
    """One way to score.

    compute(predictions, gold, classes): the value, or NaN where it is undefined. Arguments are as `aligned` gives
    them; `classes` is C.
    weigh(predictions, gold, classes): the same for resamples: what can be done once for all of them is done there, so
    that each costs a sum and not a second scoring. With a weight of 1 for every example it equals compute.
    """

    name: str
    kinds: tuple[Kind, ...]
    per_example: bool  # the value is the mean of one number per example
    compute: Callable[[Any, Any, int], float]
    weigh: Callable[[Any, Any, int], Weigh] | None = None
    low: float = 0.0  # the worst possible value


def _sums(stats: Floats, finish: Callable[[Floats, int], float]) -> Weigh:
    """The values of a metric that depends only on sums over examples of stats (N, K)."""
    n = len(stats)
    return lambda weights: np.array([finish(total, n) for total in weights @ stats])


def find(metric: str | Metric) -> Metric:
    """The metric of this name. Raises ConfigError with the known names."""
    if isinstance(metric, Metric):
        return metric
    if metric not in METRICS:
        raise ConfigError(f"unknown metric {metric!r}.{did_you_mean(metric, METRICS)}")
    return METRICS[metric]


def score(metric: str | Metric, predictions: Any, golds: Golds, classes: int | None = None) -> float:
    """The value of a metric. Shapes as above; golds are class indexes, tuples of them, or (tuples of) texts.

    Raises DataError where predictions and golds do not fit each other, ConfigError where the metric does not fit them.
    """
    metric = find(metric)
    predictions, gold, classes = aligned(metric, predictions, golds, classes)
    value = float(metric.compute(predictions, gold, classes))
    if math.isnan(value):
        raise DataError(f"{metric.name} is undefined: no example has any gold label")
    return value


def aligned(metric: Metric, predictions: Any, golds: Golds, classes: int | None = None) -> tuple[Any, Any, int]:
    """Predictions and gold in the shapes that `Metric.compute` takes, and the number of classes.

    Raises DataError where lengths, shapes or values do not fit, ConfigError where the metric is for another kind.
    """
    if len(golds) == 0 or len(predictions) != len(golds):
        raise DataError(f"{len(predictions)} predictions for {len(golds)} examples: expected as many, and at least one")
    if any(isinstance(p, str) for p in predictions):
        _check_kind(metric, "generation")
        if not all(isinstance(p, str) for p in predictions):
            raise DataError("some predictions are texts and some are not")
        return list(predictions), [_references(g) for g in golds], 0
    try:
        given = np.asarray(predictions)
    except ValueError as error:
        raise DataError(f"predictions: expected class indexes or rows of C scores: {error}") from error
    if given.ndim == 2:
        _check_kind(metric, "multilabel")
        if classes is not None and given.shape[1] != classes:
            raise DataError(f"predictions: expected ({len(golds)}, {classes}) scores, got shape {given.shape}")
        return given, _indicator(golds, given), given.shape[1]
    _check_kind(metric, "classification")
    if given.ndim != 1 or given.dtype.kind not in "iu":
        raise DataError(f"predictions: expected (N,) class indexes, got shape {given.shape} of {given.dtype}")
    gold = np.asarray(golds)
    if gold.ndim != 1 or gold.dtype.kind not in "iu":
        raise DataError(f"gold: expected one class index per example, got {golds[0]!r}")
    top = int(max(gold.max(), given.max())) + 1
    classes = top if classes is None else classes
    if top > classes or given.min() < -1 or gold.min() < 0:
        raise DataError(f"class indexes: expected 0 to {classes - 1} (or -1 in predictions: no answer), got others")
    return given.astype(np.int64), gold.astype(np.int64), classes


def _check_kind(metric: Metric, kind: Kind) -> None:
    if kind not in metric.kinds:
        fitting = [m.name for m in METRICS.values() if kind in m.kinds]
        raise ConfigError(f"metric {metric.name!r} does not score {kind} predictions. Those that do: {fitting}")


def _references(gold: Any) -> tuple[str, ...]:
    texts = (gold,) if isinstance(gold, str) else tuple(gold) if isinstance(gold, (list, tuple)) else ()
    if not texts or not all(isinstance(t, str) for t in texts):
        raise DataError(f"gold: expected a text or several, got {gold!r}")
    return texts


def _indicator(golds: Golds, scores: NDArray[Any]) -> NDArray[np.int64]:
    if scores.dtype.kind not in "fiu" or not np.isfinite(scores).all():
        raise DataError("predictions: expected (N, C) finite scores")
    out = np.zeros(scores.shape, dtype=np.int64)
    for row, gold in zip(out, golds, strict=True):
        if not isinstance(gold, (list, tuple)) or not set(gold) <= set(range(len(row))):
            raise DataError(f"gold: expected a tuple of class indexes below {len(row)}, got {gold!r}")
        row[list(gold)] = 1
    return out


# --- means over examples


def _mean_of(name: str, kinds: tuple[Kind, ...], each: Callable[[Any, Any], Floats]) -> Metric:
    """A metric that is the mean of `each(predictions, gold) -> (N,)`."""

    def compute(predictions: Any, gold: Any, classes: int) -> float:
        return float(each(predictions, gold).mean())

    def weigh(predictions: Any, gold: Any, classes: int) -> Weigh:
        values = each(predictions, gold)
        return lambda weights: weights @ values / len(values)

    return Metric(name, kinds, True, compute, weigh)


def _correct(predictions: NDArray[Any], gold: NDArray[Any]) -> Floats:
    return np.asarray(predictions == gold, dtype=np.float64)


def _exact(predictions: Any, gold: Any) -> Floats:
    """Texts: equal to a reference but for white space. Labels: the set is exactly the gold set."""
    if isinstance(predictions, np.ndarray):
        return np.asarray(((predictions > 0) == gold).all(axis=1), dtype=np.float64)
    pairs = zip(predictions, gold, strict=True)
    return np.array([any(p.split() == r.split() for r in refs) for p, refs in pairs], dtype=np.float64)


def _rouge_l(predictions: Sequence[str], gold: Sequence[Sequence[str]]) -> Floats:
    """F of the longest common subsequence of words, for the best reference. Its words are of a-z and 0-9 only: for
    other scripts use chrf."""
    try:
        with _random_kept():
            from rouge_score import rouge_scorer
    except ModuleNotFoundError as error:
        raise MissingExtra("rouge-score", "text-metrics", "The metric rougeL") from error
    scorer = rouge_scorer.RougeScorer(["rougeL"])
    pairs = zip(predictions, gold, strict=True)
    return np.array([scorer.score_multi(list(refs), p)["rougeL"].fmeasure for p, refs in pairs], dtype=np.float64)


# --- over the whole corpus


@contextmanager
def _random_kept() -> Iterator[None]:
    """Puts Python's global random state back. Some libraries, or what they import (rich), draw from it on import."""
    state = random.getstate()
    try:
        yield
    finally:
        random.setstate(state)


def _sklearn() -> Any:
    with _random_kept():
        from sklearn import metrics
    return metrics


def _macro_f1(predictions: NDArray[Any], gold: NDArray[Any], classes: int) -> float:
    """The mean F1 over all C classes; a class that neither gold nor predictions have counts as 0."""
    if predictions.ndim == 2:
        return float(_sklearn().f1_score(gold, predictions > 0, average="macro", zero_division=0))
    return float(_sklearn().f1_score(gold, predictions, labels=list(range(classes)), average="macro", zero_division=0))


def _macro_f1_weigh(predictions: NDArray[Any], gold: NDArray[Any], classes: int) -> Weigh:
    def finish(total: Floats, n: int) -> float:
        right, predicted, actual = total.reshape(3, -1)
        return float(np.mean(2 * right / np.maximum(predicted + actual, 1)))

    return _sums(_counts(predictions, gold, range(classes)), finish)


def _micro_f1(predictions: NDArray[Any], gold: NDArray[Any], classes: int) -> float:
    """F1 over all N x C decisions."""
    return float(_sklearn().f1_score(gold, predictions > 0, average="micro", zero_division=0))


def _micro_f1_weigh(predictions: NDArray[Any], gold: NDArray[Any], classes: int) -> Weigh:
    def finish(total: Floats, n: int) -> float:
        right, predicted, actual = total.reshape(3, -1).sum(axis=1)
        return float(2 * right / max(predicted + actual, 1))

    return _sums(_counts(predictions, gold, range(classes)), finish)


def _matthews(predictions: NDArray[Any], gold: NDArray[Any], classes: int) -> float:
    """Matthews' correlation, 0 where gold or predictions are all of one class. "No answer" is a class of its own."""
    if len(np.unique(gold)) < 2 or len(np.unique(predictions)) < 2:
        return 0.0  # its definition; sklearn says the same, with a warning
    return float(_sklearn().matthews_corrcoef(gold, predictions))


def _matthews_weigh(predictions: NDArray[Any], gold: NDArray[Any], classes: int) -> Weigh:
    def finish(total: Floats, n: int) -> float:
        right, predicted, actual = total.reshape(3, -1)
        spread = (n * n - predicted @ predicted) * (n * n - actual @ actual)
        return float((n * right.sum() - predicted @ actual) / math.sqrt(spread)) if spread > 0 else 0.0

    return _sums(_counts(predictions, gold, range(-1, classes)), finish)


def _counts(predictions: NDArray[Any], gold: NDArray[Any], classes: range) -> Floats:
    """(N, 3 C): per example and class whether it is rightly predicted, predicted, and gold."""
    if predictions.ndim == 2:
        given, true = predictions > 0, gold > 0
    else:
        given, true = (x[:, None] == np.array(classes) for x in (predictions, gold))
    return np.concatenate([given & true, given, true], axis=1).astype(np.float64)


def _map(predictions: NDArray[Any], gold: NDArray[Any], classes: int) -> float:
    """Mean over the classes of average precision. Classes without a positive example have none and are left out."""
    present = np.flatnonzero(gold.any(axis=0))
    if not len(present):
        return math.nan
    average = _sklearn().average_precision_score
    return float(np.mean([average(gold[:, c], predictions[:, c]) for c in present]))


def _map_weigh(predictions: NDArray[Any], gold: NDArray[Any], classes: int) -> Weigh:
    """AP of a class = mean over its positives of the precision among all that score as high or higher."""
    order = np.argsort(-predictions, axis=0, kind="stable")  # (N, C): examples by falling score
    ranked = np.take_along_axis(-predictions, order, axis=0)
    ends = [np.searchsorted(ranked[:, c], ranked[:, c], side="right") - 1 for c in range(classes)]  # last of the ties

    def values(weights: Floats) -> Floats:
        total, present = np.zeros(len(weights)), np.zeros(len(weights))
        for c in range(classes):
            drawn = weights[:, order[:, c]]
            hits = drawn * gold[order[:, c], c]
            precision = hits.cumsum(axis=1)[:, ends[c]] / np.maximum(drawn.cumsum(axis=1)[:, ends[c]], 1)
            positives = hits.sum(axis=1)
            total += (hits * precision).sum(axis=1) / np.maximum(positives, 1)
            present += positives > 0
        return np.divide(total, present, out=np.full(len(weights), np.nan), where=present > 0)

    return values


def _sacrebleu(name: str, scorer: str) -> Metric:
    """A corpus metric of sacrebleu, divided by 100."""

    def load() -> Any:
        try:
            from sacrebleu import metrics
        except ModuleNotFoundError as error:
            raise MissingExtra("sacrebleu", "text-metrics", f"The metric {name}") from error
        return getattr(metrics, scorer)()

    def by_rank(gold: Sequence[Sequence[str]]) -> list[list[str | None]]:
        # sacrebleu wants all first references, all second ones, ...; None where an example has fewer
        most = max(map(len, gold))
        return [[refs[i] if i < len(refs) else None for refs in gold] for i in range(most)]

    def compute(predictions: Sequence[str], gold: Sequence[Sequence[str]], classes: int) -> float:
        return _per_cent(load().corpus_score(list(predictions), by_rank(gold)))

    def weigh(predictions: Sequence[str], gold: Sequence[Sequence[str]], classes: int) -> Weigh:
        # The sums behind the score have no public name; a test holds them to equal corpus_score.
        scorer = load()
        stats = scorer._extract_corpus_statistics(list(predictions), by_rank(gold))
        sums = np.array(stats, dtype=np.float64)
        return _sums(sums, lambda total, n: _per_cent(scorer._compute_score_from_stats(list(total))))

    return Metric(name, ("generation",), False, compute, weigh)


def _per_cent(result: Any) -> float:
    return min(1.0, float(result.score) / 100)  # a perfect BLEU is 100.00000000000004


METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        _mean_of("accuracy", ("classification",), _correct),
        Metric("macro-f1", ("classification", "multilabel"), False, _macro_f1, _macro_f1_weigh),
        Metric("matthews", ("classification",), False, _matthews, _matthews_weigh, low=-1.0),
        _mean_of("exact-match", ("multilabel", "generation"), _exact),
        Metric("map", ("multilabel",), False, _map, _map_weigh),
        Metric("micro-f1", ("multilabel",), False, _micro_f1, _micro_f1_weigh),
        _mean_of("rougeL", ("generation",), _rouge_l),
        _sacrebleu("bleu", "BLEU"),
        _sacrebleu("chrf", "CHRF"),
    )
}
