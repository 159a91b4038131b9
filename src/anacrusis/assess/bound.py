"""Bound: how wrong the prompt can be on new examples, from the examples that it was chosen on and its own length.

    error <= e + sqrt((KL + log(2 sqrt(n) / delta)) / (2 n))                        with probability 1 - delta
    error <= max {x: kl(e || x) <= (KL + log(2 sqrt(n) / delta)) / n}               the same, tighter: the one reported
    KL = -log P(prompt), nats;  kl(e || x) = e log(e / x) + (1 - e) log((1 - e) / (1 - x))

n: examples that it was chosen on; e: its mean error there (of written answers 1 - rougeL, anything from 0 to 1); P:
what was known before them. A prompt is words, so it is one of countably many, and a likely one is cheap however it was
found: P is the model's own probability of those words where it continues texts, else all tokens (bytes, behind an API)
are alike. Instruction, template, label words and demonstrations all count; a part of m tokens also pays for its length,
1 / ((m + 1) (m + 2)), so that P sums to 1.

Paper: Akinwande et al. 2023, https://arxiv.org/abs/2310.03957 (section 3); Maurer 2004,
    https://arxiv.org/abs/cs/0411099 (the constant and the form with kl)
Departure: the paper bounds classifiers of images by their class texts; lengths are paid for, and long texts are
    scored in pieces, each given what stands before it.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from typing import Any

from ..prompt.values import Frame, Text
from ..search.local import Local
from .measure import Finding, Measure, register
from .subject import EACH, Subject

DELTA = 0.05
RIGHT = ("accuracy", "exact-match")  # metrics by which an answer is right or wrong
_SLOT = re.compile(r"\{[^{}]*\}")


def parts_of(frame: Frame) -> dict[str, list[str]]:
    """The prompt's own texts, by what they are: without the slots of a template, and nothing that is empty."""
    shown = frame.templates or (frame.template,)
    found = {
        "instruction": [frame.instruction],
        "template": [t for text in shown for t in _SLOT.split(text)],
        "label words": list(frame.words),
        "class texts": [t for several in frame.texts for t in several],
        "demonstrations": [t for inputs, answer in frame.demonstrations for t in (*inputs, answer)],
    }
    return {kind: kept for kind, texts in found.items() if (kept := [t for t in texts if t.strip()])}


def additive(e: float, n: int, kl: float, delta: float = DELTA) -> float:
    return e + math.sqrt((kl + math.log(2 * math.sqrt(n) / delta)) / (2 * n))


def divergence(e: float, x: float) -> float:
    """kl(e || x) of two probabilities, nats."""
    pairs = ((e, x), (1 - e, 1 - x))
    return sum(0.0 if a == 0 else math.inf if b == 0 else a * math.log(a / b) for a, b in pairs)


def inverted(e: float, n: int, kl: float, delta: float = DELTA) -> float:
    """The largest error x that e on n examples leaves possible."""
    from scipy.optimize import brentq

    room = (kl + math.log(2 * math.sqrt(n) / delta)) / n
    top = 1 - 1e-12
    if e >= top or divergence(e, top) <= room:
        return 1.0
    return float(brentq(lambda x: divergence(e, x) - room, max(e, 1e-12), top, xtol=1e-10))


def length_cost(tokens: int) -> float:
    """-log of the probability that a part has so many tokens, nats; over all lengths from 0 on they sum to 1."""
    return math.log((tokens + 1) * (tokens + 2))


def uniform(tokens: int, size: int) -> float:
    """-log of the probability of a part of so many tokens, each one of `size` that are alike, nats."""
    return tokens * math.log(size) + length_cost(tokens)


def by_the_model(model: Any, parts: list[str]) -> list[float]:
    """-log P of each part under a causal model, nats: each piece given as much of what stands before it as fits."""
    size = max(16, model.limit // 8)  # characters, none of which takes more than 4 tokens
    pieces = re.compile(rf"(?s).{{1,{size}}}(?:(?<=\s)|$)|.{{1,{size}}}")  # to a white space where there is one
    pairs: list[tuple[str, str]] = []
    owner, before = [], "Prompt:\n"
    for i, part in enumerate(parts):
        for piece in pieces.findall(part):
            pairs.append((before[-size:], piece))
            owner.append(i)
            before += piece
        before += "\n"
    found = Local(model).continuations(pairs)
    logs, tokens = ([sum(x[k] for i, x in zip(owner, found, strict=True) if i == j) for j in range(len(parts))]
                    for k in (0, 1))  # fmt: skip
    return [length_cost(int(n)) - total for n, total in zip(tokens, logs, strict=True)]


def costs(subject: Subject, texts: list[str]) -> tuple[list[float], str]:
    """-log P of each text in nats, and P in words."""
    model = subject.model
    if subject.local and model.arrangement == "causal":
        return by_the_model(model, texts), f"the probability that {model.name} gives these words"
    if subject.endpoint:
        return [uniform(len(t.encode()), 256) for t in texts], "all bytes alike, as an API tells no probabilities"
    size = len(model.tokenizer)
    counts = [len(model.tokenizer(t, add_special_tokens=False)["input_ids"]) for t in texts]
    return [uniform(n, size) for n in counts], f"all {size:,} tokens alike, as {model.name} does not continue texts"


def run(subject: Subject) -> Finding:
    examples = subject.drawn("bound", subject.train, subject.cells)
    e, n = min(1.0, max(0.0, 1 - float(subject.values(None, examples).mean()))), len(examples)
    texts = [(kind, t) for kind, several in parts_of(subject.prompt.frame).items() for t in several]
    nats, said = costs(subject, [t for _, t in texts])
    kl = sum(nats)
    count = Counter(kind for kind, _ in texts)
    by_part = {k: sum(cost for (kind, _), cost in zip(texts, nats, strict=True) if kind == k) for k in count}
    bound, fixed = inverted(e, n, kl), inverted(e, n, 0.0)
    loose = additive(e, n, kl)
    metric = EACH[subject.task.kind]
    if bound >= 0.9995:
        lost = "error" if metric in RIGHT else f"mean of 1 - {metric}"
        headline = f"no bound: {n} examples are too few for {kl:.0f} nats of prompt ({lost} there: {e:.3f})"
    elif metric not in RIGHT:
        headline = (f"with 95 % confidence the mean of 1 - {metric} is at most {bound:.3f} on new examples: {e:.3f} on "
                    f"the {n} it was chosen on, and {kl:.0f} nats of prompt")  # fmt: skip
    else:
        headline = (f"with 95 % confidence at most {bound:.3f} of new examples are answered wrongly: {e:.3f} of the "
                    f"{n} it was chosen on, and {kl:.0f} nats of prompt")  # fmt: skip
    notes = [f"prior: {said}",
             f"had the prompt been written without a look at these examples: {fixed:.3f}"]  # fmt: skip
    if n < len(subject.train):
        notes.append(f"on {n} of {len(subject.train)} examples, drawn at random")
    return Finding(
        headline=headline,
        value=bound,
        heads=("part", "texts", "nats"),
        rows=tuple((kind, str(n_texts), f"{by_part[kind]:.1f}") for kind, n_texts in count.items()),
        details={"bound": bound, "loss": f"1 - {metric}",
                 "additive": min(1.0, loose), "vacuous": bound >= 1, "additive_vacuous": loose >= 1,
                 "train_error": e, "n": n, "kl": kl, "delta": DELTA, "fixed": fixed, "nats": by_part, "prior": said},
        notes=tuple(notes),
    )  # fmt: skip


def refuses(subject: Subject) -> str:
    if not isinstance(subject.prompt, Text) or subject.prompt.head is not None:
        return "the bound is for prompts of words: learned values are not one of countably many"
    if not subject.train:
        return "the examples that the prompt was chosen on are not given"
    if subject.model is None or (not subject.endpoint and subject.model.tokenizer is None):
        return "the model reads no words"
    return ""


register(
    Measure(
        name="bound",
        summary="how wrong the prompt can be on new examples, from its training examples and its length",
        run=run,
        refuses=refuses,
        paper="[Akinwande et al. 2023](https://arxiv.org/abs/2310.03957)",
    )
)
