"""What the measures of variants share: whose words can be changed, lists of classes, and intervals over examples."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from statistics import NormalDist
from typing import Any

import numpy as np

from ..measure.intervals import Interval, paired
from ..prompt.values import Frame, Prompt
from ..task import Example, golds_of
from .subject import EACH, Floats, Subject

RESAMPLES = 2000
SLOT = re.compile(r"\{([^{}]*)\}")
LUCK = (
    "the spread is of the best and the worst as picked on the other half of the examples: the range of the scores is "
    "partly luck, and about 0 means that it is nothing else"
)
# a class of a regular expression: scripts that write without spaces (Thai, Lao, Tibetan, Burmese, Khmer, kana, Han)
DENSE = "[\u0e01-\u0eff\u0f00-\u109f\u1780-\u17ff\u3041-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]"
Variant = tuple[str, Frame]  # what was done, and the frame that came of it


@cache
def marks() -> str:
    r"""Vowel signs, accents and joiners, to stand in a class of a regular expression: for `re` they are no part of \w,
    and Hindi, Thai or Arabic with its vowels would be cut in the middle of its words."""
    found = (chr(c) for c in range(0x300, 0x20000))
    return "".join(c for c in found if unicodedata.category(c)[0] == "M") + "\u200c\u200d"


def framed(subject: Subject, frame: Frame) -> Prompt:
    """The prompt with another frame."""
    return replace(subject.prompt, frame=frame)


def refusal(subject: Subject, least: int = 2) -> str:
    """Why no variant of the prompt can be tried on texts, or ""; least: variants that it takes."""
    frame = subject.prompt.frame
    if subject.task.modality == "image" or frame.templates or frame.texts or frame.readout in ("match", "classes"):
        return "this measure changes words around texts; the prompt is for pictures"
    if subject.prompt.kind == "constant":
        return "the prompt gives the same answer whatever it reads"
    if len(subject.examples) < 2:
        return "it takes at least 2 examples; the task has 1"
    need = least * min(len(subject.examples), 20)
    return f"it takes at least {need} answers; {subject.cells} are allowed" if subject.cells < need else ""


def values_of(subject: Subject, frames: Sequence[Frame], examples: Sequence[Example]) -> Floats:
    """(K, N) how well each example is answered under each frame."""
    return np.array([subject.values(framed(subject, f), examples) for f in frames])


def difference(subject: Subject, a: Any, b: Any, examples: Sequence[Example]) -> Interval:
    """Score of predictions a minus that of predictions b on the same examples, with a paired interval."""
    classes = len(subject.task.labels) or None
    return paired(EACH[subject.task.kind], a, b, golds_of(examples), classes=classes, seed=subject.seed)


def over_examples(d: Floats, seed: int, bounds: tuple[float, float] = (-1.0, 1.0)) -> Interval:
    """The mean of d (N,), one number an example, with its 95 % percentile bootstrap interval. Where all numbers are
    equal it is widened by what N examples cannot rule out, as in measure.intervals; not towards an infinite bound."""
    rng, n, value = np.random.default_rng(seed), len(d), float(d.mean())
    if np.ptp(d) > 1e-12:
        low, high = np.quantile([d[rng.integers(n, size=n)].mean() for _ in range(RESAMPLES)], [0.025, 0.975])
        return Interval(value, min(float(low), value), max(float(high), value), n, RESAMPLES)
    z2 = NormalDist().inv_cdf(0.975) ** 2
    unseen = z2 / (n + z2)
    low, high = (value + unseen * (b - value) if np.isfinite(b) else value for b in bounds)
    return Interval(value, low, high, n)


def picked(values: Floats, rng: np.random.Generator) -> Floats:
    """(N,) how much better the best variant does on each example than the worst, the two chosen by their means over the
    other half of the examples: what was picked by luck there shows none here. values: (K, N), N > 1."""
    order = rng.permutation(values.shape[1])
    halves = order[: len(order) // 2], order[len(order) // 2 :]
    out = np.empty(len(order))
    for here, there in (halves, halves[::-1]):
        means = values[:, here].mean(1)
        out[there] = values[int(means.argmax())][there] - values[int(means.argmin())][there]
    return out


# --- lists of classes


@dataclass(frozen=True)
class Listed:
    """A list of all label words in a text: text[start:end] is words[0] joints[0] words[1] ..."""

    words: tuple[str, ...]
    joints: tuple[str, ...]
    start: int
    end: int

    def said(self, text: str, words: Sequence[str], joints: Sequence[str] = ()) -> str:
        """The text with these words in the list's places; joints: what stands between them instead."""
        between = [*(joints or self.joints), ""]
        body = "".join(w + j for w, j in zip(words, between, strict=True))
        return text[: self.start] + body + text[self.end :]


def listed(text: str, words: Sequence[str]) -> Listed | None:
    """Where a text lists all the words, each once, with commas, "or" and the like between them; None: nowhere."""
    if len(words) < 2:
        return None
    one = "(?:" + "|".join(re.escape(w) for w in sorted(words, key=len, reverse=True)) + r")(?!\w)"
    for found in re.finditer(rf"(?<!\w){one}(?:\W{{1,8}}(?:(?:or|and)\W{{1,4}})?{one})+", text):
        parts = re.split(rf"(?<!\w)({one})", found[0])
        if sorted(parts[1::2]) == sorted(words):
            return Listed(tuple(parts[1::2]), tuple(parts[2:-1:2]), *found.span())
    return None
