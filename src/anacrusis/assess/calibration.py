"""Calibration: whether answers given with confidence p are right p of the time.

    ECE = sum_b (n_b / N) |acc_b - conf_b|      over bins b of equal width, n_b examples with a confidence in bin b
    acc_b: share of right answers; conf_b: mean of the largest class probability, (N, C) -> (N,)

Beside it the temperature that would fit best, found on other examples than those it is tried on (two halves in turn):
    p = softmax(log p / t),  t = argmin of the mean of -log p[gold]
and the error that few examples show by chance where p is right: golds are drawn from p itself, (N, C).

Paper: Guo et al. 2017, On Calibration of Modern Neural Networks, https://arxiv.org/abs/1706.04599 (sections 2 to 4)
Departure: the temperature is fitted on half of the examples and judged on the other, both ways, not on a validation
    set; readouts whose scores are no probabilities (similarity) are softmaxed all the same, and the note says so.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..measure.protocols import calibration_error
from .measure import Finding, Measure, register
from .subject import Floats, Subject

BINS = 15
RESAMPLES = 1000


def bins_of(sure: Floats, right: Floats, bins: int = BINS) -> list[tuple[int, float, float]]:
    """(examples, mean confidence, share right) of each bin that is not empty, from the least sure on."""
    index = np.minimum((sure * bins).astype(int), bins - 1)
    return [
        (int((index == b).sum()), float(sure[index == b].mean()), float(right[index == b].mean()))
        for b in range(bins)
        if (index == b).any()
    ]


def temperature(p: Floats, golds: NDArray[np.int64]) -> float:
    """The t > 0 that makes p ** (1 / t), normalised, likeliest; between 0.05 and 20."""
    from scipy.optimize import minimize_scalar

    logs = np.log(np.maximum(p, 1e-12))

    def loss(log_t: float) -> float:
        z = logs / np.exp(log_t)
        return float((np.logaddexp.reduce(z, axis=1) - z[np.arange(len(z)), golds]).mean())

    return float(np.exp(minimize_scalar(loss, bounds=(np.log(0.05), np.log(20)), method="bounded").x))


def scaled(p: Floats, t: float) -> Floats:
    """p ** (1 / t), each row normalised."""
    z = np.log(np.maximum(p, 1e-12)) / t
    return np.asarray(np.exp(z - np.logaddexp.reduce(z, axis=1, keepdims=True)))


def run(subject: Subject) -> Finding:
    p = subject.probabilities()
    golds = np.array([e.gold for e in subject.examples])
    error = _error(p, golds)
    rng = subject.rng("calibration")
    draws = [_error(p[i], golds[i]) for i in rng.integers(len(p), size=(RESAMPLES, len(p)))]
    low, high = np.quantile(draws, [0.025, 0.975])
    chance = by_chance(p, rng)
    order = rng.permutation(len(p))
    halves = order[: len(p) // 2], order[len(p) // 2 :]
    fitted = np.empty_like(p)
    ts = []
    for here, there in (halves, halves[::-1]) if len(p) >= 2 else ():
        ts.append(temperature(p[here], golds[here]))
        fitted[there] = scaled(p[there], ts[-1])
    better = _error(fitted, golds) if ts else error
    sure, right = p.max(1), (p.argmax(1) == golds).astype(float)
    points = bins_of(sure, right)
    over = float(sure.mean() - right.mean())
    said = "too sure" if over > 0 else "not sure enough"
    words = subject.prompt.frame.readout
    return Finding(
        headline=f"calibration error {error:.3f} [{low:.3f}, {high:.3f}]: on average {said} by {abs(over):.3f}; a "
        f"temperature of {np.mean(ts) if ts else 1:.2f} would make it {better:.3f}",
        value=error,
        low=min(float(low), error),
        high=max(float(high), error),
        heads=("sure", "right", "examples"),
        rows=tuple((f"{conf:.2f}", f"{acc:.2f}", str(n)) for n, conf, acc in points),
        details={"ece": error, "overconfidence": over, "temperatures": ts, "ece_scaled": better, "by_chance": chance,
                 "bins": [{"n": n, "confidence": c, "right": a} for n, c, a in points]},
        chart={"kind": "reliability", "points": [[c, a, n] for n, c, a in points]},
        notes=(f"perfect confidence would show {chance:.3f} on so few examples, by chance",
               *(("the readout compares texts: its scores are no probabilities by themselves",)
                 if words in ("similarity", "match") else ())),
    )  # fmt: skip


def by_chance(p: Floats, rng: np.random.Generator, draws: int = 200) -> float:
    """The mean error of golds that p is right about: (p.cumsum > u).argmax for u ~ U(0, 1), `draws` times."""
    sums = p.cumsum(1)
    return float(np.mean([_error(p, (sums > rng.random((len(p), 1)) * sums[:, -1:]).argmax(1)) for _ in range(draws)]))


def _error(p: Floats, golds: NDArray[np.int64]) -> float:
    import torch

    return calibration_error(torch.from_numpy(np.log(np.maximum(p, 1e-12))), golds, BINS)


def refuses(subject: Subject) -> str:
    if not subject.classes:
        return "calibration is of one class for each example"
    return "the model only writes: it gives no probabilities" if subject.endpoint else ""


register(
    Measure(
        name="calibration",
        summary="whether answers given with confidence p are right p of the time",
        run=run,
        refuses=refuses,
        paper="[Guo et al. 2017](https://arxiv.org/abs/1706.04599)",
    )
)
