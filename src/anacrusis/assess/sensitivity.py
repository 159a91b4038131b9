"""Sensitivity: how far the probabilities of a model's answers move when the prompt is put otherwise and means the same.

Of V prompts x_i of one intent, with the answers y_j that the model gives under each (POSIX, the prompt sensitivity
index, in nats a token; 0 where all prompts are read alike):

    psi = 1 / (V (V - 1)) sum_i sum_(j != i) (1 / L_j) |log P(y_j | x_i) - log P(y_j | x_j)|,    L_j: tokens of y_j

Each example is an intent; the index is the mean over N examples.

Paper: Chatterjee et al. 2024, POSIX: A Prompt Sensitivity Index, https://arxiv.org/abs/2410.02185 (section 3)
Departure: the release compares two answers under one prompt and divides by the most tokens that an answer may have;
    this is the paper's equation. Where the answer is a class, P is the probability of that class among the classes (not
    of free text) and L_j = 1. An answer without tokens is left out. The prompts are the project's own rewordings,
    layouts and typing errors.
"""

from __future__ import annotations

import numpy as np

from ..model.say import conversation
from ..prompt.values import Frame
from ..search.local import Local
from ..task import Example
from .formats import layouts
from .measure import Finding, Measure, register
from .noise import noisy_frames, typo
from .paraphrases import paraphrases
from .subject import EACH, Floats, Subject
from .variants import Variant, framed, over_examples, picked, refusal, values_of

EACH_KIND = 4  # variants of each kind
TYPOS = 0.10  # of the prompt's words
FLOOR = 1e-12


def psi(logs: Floats, lengths: Floats) -> Floats:
    """(N,) the index of each example. logs: (N, V, V), log P(y_j | x_i) at [n, i, j]; lengths: (N, V) tokens of y_j, 0
    for an answer that is left out."""
    own = np.diagonal(logs, axis1=1, axis2=2)  # (N, V): log P(y_j | x_j)
    terms = np.abs(logs - own[:, None, :]) / np.maximum(lengths, 1)[:, None, :] * (lengths > 0)[:, None, :]
    V, used = logs.shape[1], (lengths > 0).sum(1)
    return np.asarray(terms.sum((1, 2)) / np.maximum(used * (V - 1), 1))


def variants(subject: Subject, rng: np.random.Generator) -> list[Variant]:
    """The prompt, and frames that mean the same: other words, another layout, typing errors."""
    own = subject.prompt.frame
    worded = paraphrases(own, subject.paraphrases)
    some = [worded[i] for i in sorted(rng.permutation(len(worded))[:EACH_KIND])]
    typos = [noisy_frames(own, typo, rng, (TYPOS,))[0] for _ in range(EACH_KIND)]
    found = [("the prompt's own", own), *(("wording", f) for _, f in some)]
    found += [("layout", f) for _, f in layouts(own, EACH_KIND, rng)] + [("typing errors", f) for f in typos]
    unique: dict[Frame, Variant] = {}
    for how, f in found:
        unique.setdefault(f, (how, f))
    return list(unique.values())


def of_classes(subject: Subject, frames: list[Frame], examples: tuple[Example, ...]) -> tuple[Floats, Floats]:
    """(N, V, V) log-probabilities of the classes that are likeliest under each prompt, and lengths of 1."""
    inputs = [e.inputs for e in examples]
    p = np.stack([subject.probabilities(framed(subject, f), inputs) for f in frames])  # (V, N, C)
    said = p.argmax(2)  # (V, N)
    n = np.arange(len(examples))
    logs = np.log(np.maximum([[p_i[n, y_j] for y_j in said] for p_i in p], FLOOR))  # (V, V, N)
    return np.moveaxis(logs, 2, 0), np.ones((len(examples), len(frames)))


def of_texts(subject: Subject, frames: list[Frame], examples: tuple[Example, ...]) -> tuple[Floats, Floats]:
    """(N, V, V) log-probabilities of the texts written under each prompt, and their lengths in tokens (N, V)."""
    local, inputs = Local(subject.model), [e.inputs for e in examples]
    said = [subject.predictions(framed(subject, f), inputs) for f in frames]
    N, V = len(examples), len(frames)
    places = [(n, i, j) for n in range(N) for i in range(V) for j in range(V) if said[j][n].strip()]
    asked = [(conversation(frames[i], inputs[n])[0][1], said[j][n].strip()) for n, i, j in places]
    logs, lengths = np.zeros((N, V, V)), np.zeros((N, V))
    for (n, i, j), (total, tokens) in zip(places, local.continuations(asked), strict=True):
        logs[n, i, j], lengths[n, j] = total, tokens
    subject.asked += len(asked)
    return logs, lengths


def run(subject: Subject) -> Finding:
    rng, metric, written = subject.rng("sensitivity"), EACH[subject.task.kind], subject.task.kind == "generation"
    every = variants(subject, rng)
    kept, examples, notes = _affordable(subject, len(every), written)
    every = every[:1] + [every[i] for i in sorted(1 + rng.permutation(len(every) - 1)[: kept - 1])]
    frames = [f for _, f in every]
    logs, lengths = (of_texts if written else of_classes)(subject, frames, examples)
    index = over_examples(psi(logs, lengths), subject.seed, (0.0, np.inf))
    own = np.diagonal(logs, axis1=1, axis2=2)
    moved = np.abs(logs - own[:, None, :]) / np.maximum(lengths, 1)[:, None, :]  # (N, V, V)
    away = moved.sum((0, 2)) / (len(examples) * (kept - 1))  # (V,)
    values = values_of(subject, frames, examples)
    scores = values.mean(1)
    spread = over_examples(picked(values, subject.rng("sensitivity spread")), subject.seed)
    luck = (f"the range of {metric} is partly luck: the best and the worst as picked on the other half of the examples "
            f"are {spread.value:.3f} [{spread.low:.3f}, {spread.high:.3f}] apart")  # fmt: skip
    unit = "nats a token" if written else "nats"
    if not written:
        notes = (*notes, "the probabilities are of the classes among themselves, not of free text")
    if subject.prompt.frame.readout == "similarity":
        notes = (*notes, "the readout compares texts: its scores are no probabilities by themselves")
    kinds = {how: float(away[[h == how for h, _ in every]].mean()) for how in dict.fromkeys(h for h, _ in every)}
    return Finding(
        headline=f"prompt sensitivity {index.value:.3f} [{index.low:.3f}, {index.high:.3f}] {unit} over {kept} prompts "
        f"that mean the same; their {metric} goes from {scores.min():.3f} to {scores.max():.3f}",
        value=index.value,
        low=index.low,
        high=index.high,
        heads=("kind", "prompt", "away from the others", metric),
        rows=tuple((how, f"{f.instruction}\n\n{f.template}".lstrip(), f"{a:.3f}", f"{s:.3f}")
                   for (how, f), a, s in zip(every, away, scores, strict=True)),
        details={"psi": index.value, "by_kind": kinds,
                 "spread": {"value": spread.value, "low": spread.low, "high": spread.high}, "prompts": [
            {"kind": how, "template": f.template, "instruction": f.instruction, "away": float(a), metric: float(s)}
            for (how, f), a, s in zip(every, away, scores, strict=True)]},
        chart={"kind": "bars", "points": [[how, a] for how, a in kinds.items()]},
        notes=(*notes, luck),
    )  # fmt: skip


def _affordable(subject: Subject, V: int, written: bool) -> tuple[int, tuple[Example, ...], tuple[str, ...]]:
    """Written answers are scored under every prompt: V + V^2 answers an example."""
    if not written:
        return subject.affordable("sensitivity", V)
    wanted, least = V, min(len(subject.examples), 20)
    while V > 2 and (V + V * V) * least > subject.cells:
        V -= 1
    _, examples, notes = subject.affordable("sensitivity", V + V * V)
    return V, examples, (*notes, *((f"{V} of {wanted} prompts",) if V < wanted else ()))


def refuses(subject: Subject) -> str:
    written = subject.task.kind == "generation"
    if why := refusal(subject, least=6 if written else 2):
        return why
    if subject.endpoint:
        return "the model only writes: it gives no probabilities of answers"
    if subject.task.kind == "multilabel":
        return "sensitivity is of one answer for each example"
    if not written:
        return ""
    if subject.prompt.kind != "text":
        return f"texts are scored under prompts of words; this one is {subject.prompt.kind}"
    if "logprobs" not in subject.model.can or subject.model.arrangement == "masked":
        return f"{subject.model.name} gives no probabilities of texts"
    return ""


register(
    Measure(
        name="sensitivity",
        summary="how far the probabilities of the answers move when the prompt is put otherwise",
        run=run,
        refuses=refuses,
        paper="[Chatterjee et al. 2024](https://arxiv.org/abs/2410.02185)",
    )
)
