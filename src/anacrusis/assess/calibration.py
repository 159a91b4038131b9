"""Calibration: whether answers given with confidence p are right p of the time.

    ECE = sum_b (n_b / N) |acc_b - conf_b|      over bins b of equal width, n_b examples with a confidence in bin b
    acc_b: share of right answers; conf_b: mean of the largest class probability, (N, C) -> (N,)

Of few examples the ECE is too large: chance alone moves acc_b off conf_b. What is reported is the share s of the gaps
g_b = (n_b / N) (acc_b - conf_b) that makes the ECE what it is when chance, e_b, is added:

    error = s ECE,    s in [0, 1]: mean of sum_b |s g_b + e_b| = ECE;  0 where chance alone makes more
    interval: ECE - the 95 % quantile of sum_b |e_b|,  to  ECE + 1.96 sqrt(Var(sign(g_b) (right - sure)) / N)

(|sum_b |g_b| - sum_b |g_b + e_b|| <= sum_b |e_b|, and a mean of the ECE is never below the truth: both ends hold.)
Beside it the temperature that would fit best, found on other examples than those it is tried on (two halves in turn):
    p = softmax(log p / t),  t = argmin of the mean of -log p[gold]

Paper: Guo et al. 2017, On Calibration of Modern Neural Networks, https://arxiv.org/abs/1706.04599 (sections 2 to 4);
    Kumar et al. 2019, https://arxiv.org/abs/1909.10155 (section 4: the ECE of few examples is too large)
Departure: Kumar et al. subtract what resampling adds, which leaves half of what chance shows where p is right; s is
    our own. The temperature is fitted on half of the examples and judged on the other, both ways, not on a validation
    set; readouts whose scores are no probabilities (similarity) are softmaxed all the same, and the note says so.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from .measure import Finding, Measure, register
from .subject import Floats, Subject

BINS = 15
DRAWS = 1000  # of what chance makes
Z2 = 1.96**2


@dataclass(frozen=True)
class Error:
    """shown: the ECE of these examples. value, low, high: what of it is not chance, and the interval of the truth.
    chance, most: the mean and the 95 % quantile of the ECE that confidence shows on so few examples where it is right.
    """

    shown: float
    value: float
    low: float
    high: float
    chance: float
    most: float


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


def estimate(p: Floats, golds: NDArray[np.int64], rng: np.random.Generator) -> Error:
    """The error of probabilities (N, C) of classes, golds (N,); see the top of the file."""
    sure, right = p.max(1), (p.argmax(1) == golds).astype(float)
    n, conf, acc = (np.array(column) for column in zip(*bins_of(sure, right), strict=True))
    N, gap = len(p), n / len(p) * (acc - conf)
    shown = float(np.abs(gap).sum())
    chance = np.abs(by_chance(n, conf, rng)).sum(1)
    # a bin of one example is always all right or all wrong: two more, that are right as often as they are sure
    e = by_chance(n, (n * acc + 2 * conf) / (n + 2), rng)
    s = np.linspace(0, 1, 51)
    means = np.array([np.abs(x * gap + e).sum(1).mean() for x in s])
    share = float(np.interp(shown, np.maximum.accumulate(means), s)) if shown > means[0] else 0.0
    most = float(np.quantile(chance, 0.95))
    low = shown - max(most, float(np.quantile(np.abs(e).sum(1), 0.95)))
    off = (1.96 * float((_signs(sure, right) * (right - sure)).std()) / N**0.5, Z2 / (N + Z2) * (1 - shown))
    return Error(shown, share * shown, max(0.0, min(low, share * shown)), min(1.0, shown + max(off)),
                 float(chance.mean()), most)  # fmt: skip


def by_chance(n: Floats, shares: Floats, rng: np.random.Generator) -> Floats:
    """(DRAWS, B): what bins of n (B,) examples add to the gaps where such shares (B,) of them are right."""
    return np.asarray((rng.binomial(n.astype(int), np.clip(shares, 0, 1), (DRAWS, len(n))) - n * shares) / n.sum())


def _signs(sure: Floats, right: Floats) -> Floats:
    """(N,) of the gap of each example's bin."""
    index = np.minimum((sure * BINS).astype(int), BINS - 1)
    return np.asarray(np.sign(np.bincount(index, right - sure, BINS)))[index]


def run(subject: Subject) -> Finding:
    examples = subject.drawn("calibration", subject.examples, subject.cells)
    p = subject.probabilities(None, [e.inputs for e in examples])
    golds = np.array([e.gold for e in examples])
    rng = subject.rng("calibration")
    error = estimate(p, golds, rng)
    order = rng.permutation(len(p))
    halves = order[: len(p) // 2], order[len(p) // 2 :]
    fitted, ts = p.copy(), []
    for here, there in (halves, halves[::-1]) if len(p) >= 2 else ():
        ts.append(temperature(p[here], golds[here]))
        fitted[there] = scaled(p[there], ts[-1])
    mended = estimate(fitted, golds, rng)
    sure, right = p.max(1), (p.argmax(1) == golds).astype(float)
    points, over = bins_of(sure, right), float(sure.mean() - right.mean())
    headline = f"calibration error {error.value:.3f} [{error.low:.3f}, {error.high:.3f}]"
    if error.shown <= error.most:
        headline += ", no more than chance shows on so few examples"
    else:
        headline += f": on average {'too sure' if over > 0 else 'not sure enough'} by {abs(over):.3f}; "
        better = mended.value < error.value
        headline += (f"a temperature of {np.mean(ts):.2f} would make it {mended.value:.3f}" if better
                     else "no temperature makes it better")  # fmt: skip
    notes = [f"the bins show {error.shown:.3f}; right confidence would show {error.chance:.3f} on so few examples, by "
             f"chance, and up to {error.most:.3f} 95 times of 100"]  # fmt: skip
    if len(examples) < len(subject.examples):
        notes.append(f"on {len(examples)} of {len(subject.examples)} examples, drawn at random")
    if subject.prompt.frame.readout in ("similarity", "match"):
        notes.append("the readout compares texts: its scores are no probabilities by themselves")
    return Finding(
        headline=headline,
        value=error.value,
        low=error.low,
        high=error.high,
        heads=("sure", "right", "examples"),
        rows=tuple((f"{conf:.2f}", f"{acc:.2f}", str(n)) for n, conf, acc in points),
        details={"ece": error.shown, **asdict(error), "overconfidence": over, "temperatures": ts,
                 "scaled": asdict(mended), "bins": [{"n": n, "confidence": c, "right": a} for n, c, a in points]},
        chart={"kind": "reliability", "points": [[c, a, n] for n, c, a in points]},
        notes=tuple(notes),
    )  # fmt: skip


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
