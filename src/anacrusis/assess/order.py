"""Order: whether it matters in which order the demonstrations stand, or the classes are listed; and label bias.

    spread = score of the best order - score of the worst, the two picked on the other half of the examples
    global entropy of an order = - sum_c p_c log p_c,    p_c: share of the examples that are answered c (in nats)
    prior_c = p(c | "N/A"): what the model says of an input without content

Orders that answer nearly all examples alike have a low entropy and are often bad ones: the one with the highest is what
Lu et al. would take, without any label.

Papers: Lu et al. 2021, Fantastically Ordered Prompts, https://arxiv.org/abs/2104.08786 (section 3); Zhao et al. 2021,
    Calibrate Before Use, https://arxiv.org/abs/2102.09690 (sections 4 and 5)
Departure: the entropy is over the task's own inputs, not over texts that the model made up; one input without content
    instead of three.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..prompt.values import Frame
from ..task import Example
from .measure import Finding, Measure, register
from .subject import EACH, Floats, Subject
from .variants import LUCK, difference, framed, listed, over_examples, picked, refusal

ORDERS = 24
EMPTY = "N/A"
Order = tuple[int, ...]


def orders(n: int, rng: np.random.Generator, most: int = ORDERS) -> list[Order]:
    """All orders of n things where there are at most `most` of them, else that many different ones; the one that they
    have comes first."""
    if math.factorial(n) <= most:
        return list(itertools.permutations(range(n)))
    found = {tuple(range(n)): None}
    while len(found) < most:
        found[tuple(int(i) for i in rng.permutation(n))] = None
    return list(found)


def entropy(answers: NDArray[np.int64], classes: int) -> float:
    """Of the shares of the classes among the answers (N,), in nats; -1, no answer, is left out."""
    share = np.bincount(answers[answers >= 0], minlength=classes) / max(1, int((answers >= 0).sum()))
    return float(-sum(p * math.log(p) for p in share if p > 0))


def places(answers: NDArray[np.int64], found: Sequence[Order]) -> Floats:
    """(C,) the share of the answers that name the class listed first, second, ... answers: (K, N) of K orders."""
    at = [[order.index(c) for c in row if c >= 0] for row, order in zip(answers.tolist(), found, strict=True)]
    count = np.bincount([p for row in at for p in row], minlength=len(found[0]))
    return np.asarray(count / max(1, count.sum()))


def frames_of(frame: Frame) -> dict[str, tuple[int, Any]]:
    """What stands in an order: how many things, and a function from an order of them to a frame."""
    out: dict[str, tuple[int, Any]] = {}
    shown, found = frame.demonstrations, listed(frame.instruction, frame.words)
    if len(shown) > 1:
        out["demonstrations"] = len(shown), lambda o: replace(frame, demonstrations=tuple(shown[i] for i in o))
    if found:
        out["classes"] = len(found.words), lambda o: replace(
            frame, instruction=found.said(frame.instruction, [found.words[i] for i in o]))  # fmt: skip
    return out


def run(subject: Subject) -> Finding:
    rng, frame, metric = subject.rng("order"), subject.prompt.frame, EACH[subject.task.kind]
    ways = frames_of(frame)
    drawn = {what: orders(n, rng) for what, (n, _) in ways.items()}
    total = sum(map(len, drawn.values()))
    kept, examples, notes = subject.affordable("order", total + 1)  # 1: for the input without content
    most = total if kept > total else (kept - 1) // len(drawn)
    inputs, rows, said, details, points = [e.inputs for e in examples], [], [], {}, []
    first = None
    for what, found in drawn.items():
        found = found[:most]
        prompts = [framed(subject, ways[what][1](o)) for o in found]
        values = np.array([subject.values(p, examples) for p in prompts])
        spread, means = over_examples(picked(values, rng), subject.seed), values.mean(1)
        first = first or spread
        said.append(f"{what}: order spread {spread.value:.3f} [{spread.low:.3f}, {spread.high:.3f}], {metric} from "
                    f"{means.min():.3f} to {means.max():.3f} over {len(found)} orders")  # fmt: skip
        about = {"spread": spread.value, "low": spread.low, "high": spread.high, "raw_spread": float(np.ptp(means)),
                 "own": float(means[0]), "orders": [list(o) for o in found], metric: means.tolist()}  # fmt: skip
        rows += [(what, "the prompt's own", f"{means[0]:.3f}"), (what, "best", f"{means.max():.3f}"),
                 (what, "worst", f"{means.min():.3f}")]  # fmt: skip
        points.append([what, float(means[0]), float(means.min()), float(means.max())])
        if subject.classes:
            answers = np.array([subject.predictions(p, inputs) for p in prompts])
            each = np.array([entropy(a, len(frame.labels)) for a in answers])
            about |= {"entropy": each.tolist(), "of_highest_entropy": float(means[each.argmax()])}
            rows.append((what, "of the highest entropy", f"{means[each.argmax()]:.3f}"))
            if what == "classes":
                order = [_in_classes(frame, o) for o in found]
                share = places(answers, order)
                about["places"] = share.tolist()
                said[-1] += f", {share[0]:.0%} of the answers name the class listed first and {share[-1]:.0%} the last"
        details[what] = about
    if subject.classes:
        bias = _bias(subject, examples)
        details["bias"] = bias
        over = max(bias["classes"], key=lambda b: b["said"] - b["gold"])
        said.append(f"label bias is largest towards {over['label']}: {over['said']:.0%} of the answers, "
                    f"{over['gold']:.0%} of the examples")  # fmt: skip
        rows += [("label bias", b["label"], f"{b['said']:.3f} said, {b['gold']:.3f} gold") for b in bias["classes"]]
    assert first is not None
    return Finding(
        headline="; ".join(said),
        value=first.value,
        low=first.low,
        high=first.high,
        heads=("order of", "which", metric),
        rows=tuple(rows),
        details=details,
        chart={"kind": "ranges", "said": "worst to best order", "points": points},
        notes=(*notes, LUCK),
    )


def _in_classes(frame: Frame, order: Order) -> Order:
    """An order of the list's words as class indexes."""
    found = listed(frame.instruction, frame.words)
    assert found is not None
    return tuple(frame.words.index(found.words[i]) for i in order)


def _bias(subject: Subject, examples: Sequence[Example]) -> dict[str, Any]:
    """Shares of the classes among answers and gold, and where there are probabilities the prior, and what dividing by
    it changes."""
    frame, inputs = subject.prompt.frame, [e.inputs for e in examples]
    C, answers = len(frame.labels), subject.predictions(inputs=inputs)
    said = np.bincount(answers[answers >= 0], minlength=C) / len(answers)
    gold = np.bincount([int(e.gold) for e in examples], minlength=C) / len(examples)  # type: ignore[arg-type]
    shares = zip(frame.labels, said.tolist(), gold.tolist(), strict=True)
    classes: list[dict[str, Any]] = [{"label": label, "said": s, "gold": g} for label, s, g in shares]
    if subject.endpoint:
        return {"classes": classes}
    prior = subject.probabilities(inputs=[tuple(EMPTY for _ in frame.fields)])[0]
    for c, p in zip(classes, prior, strict=True):
        c["prior"] = float(p)
    divided = (subject.probabilities(inputs=inputs) / np.maximum(prior, 1e-12)).argmax(1)
    gain = difference(subject, divided, answers, examples)
    return {"classes": classes, "divided_by_prior": {"gain": gain.value, "low": gain.low, "high": gain.high}}


def refuses(subject: Subject) -> str:
    if why := refusal(subject, least=5):
        return why
    if not frames_of(subject.prompt.frame):
        return "nothing stands in an order: neither several demonstrations nor a list of classes in the instruction"
    return ""


register(
    Measure(
        name="order",
        summary="whether the order of demonstrations or of the listed classes matters, and label bias",
        run=run,
        refuses=refuses,
        paper="[Lu et al. 2021](https://arxiv.org/abs/2104.08786)",
    )
)
