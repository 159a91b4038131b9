"""Scores that take more than one look: base and new classes, and a stream of pictures that a prompt adapts to."""

from __future__ import annotations

import resource
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..errors import ConfigError
from ..prompt.values import Adaptive, Prompt, for_classes
from ..task import Task, golds_of
from ..task.metrics import aligned, find
from ..task.shift import base_to_new, harmonic
from .evaluate import Score, evaluate
from .intervals import Interval, _curve, bootstrap, paired


@dataclass(frozen=True)
class BaseToNew:
    """base: on the classes that were learned; new: on the others, by their names alone; harmonic: 2 b n / (b + n)."""

    base: Score
    new: Score
    harmonic: Interval

    def to_json(self) -> dict[str, Any]:
        return {"base": self.base.to_json(), "new": self.new.to_json(), "harmonic": asdict(self.harmonic)}


def score_halves(
    prompt: Prompt, model: Any, task: Task, *, split: str = "test", done: Callable[[int], Any] | None = None
) -> BaseToNew:
    """Score a prompt that was learned on the base half of `task`'s classes on both halves, each among its own classes.

    Raises ConfigError where the prompt's classes are not the base half, PromptError where it cannot serve others.
    """
    base, new = base_to_new(task)
    if prompt.frame.labels != base.labels:
        raise ConfigError(
            f"the prompt was learned on {len(prompt.frame.labels)} classes ({', '.join(prompt.frame.labels[:3])}, ...);"
            f" the base half of {task.name} is {', '.join(base.labels[:3])}, ... Learn it with --classes base"
        )
    other = for_classes(prompt, new.labels, new.words)  # refused before anything is scored
    a = evaluate(prompt, model, base, split=split, done=done)
    b = evaluate(other, model, new, split=split, done=done)
    draws = [_resampled(s, t, split, seed) for s, t, seed in ((a, base, 0), (b, new, 1))]
    both = np.array([harmonic(x, y) for x, y in zip(*draws, strict=True)])
    value = harmonic(a.value, b.value)
    low, high = np.nanquantile(both, [0.025, 0.975])
    return BaseToNew(a, b, Interval(value, min(float(low), value), max(float(high), value), a.n + b.n, len(both)))


def _resampled(score: Score, task: Task, split: str, seed: int, n: int = 2000) -> NDArray[np.float64]:
    """The score on n resamples of the examples; from end to end of its interval where resamples show no difference."""
    metric = find(task.metric)
    given = aligned(metric, score.predictions, golds_of(getattr(task, split)), len(task.labels))
    found = _curve(metric, given, n, seed)
    if np.nanmax(found) - np.nanmin(found) > 1e-12:
        return found
    return np.random.default_rng(seed).uniform(score.low, score.high, n)


# --- streams


@dataclass(frozen=True)
class StreamScore:
    """What adapting gave over a stream. after, before: accuracy with adapting and without; difference: paired.

    over_time: (pictures gone by, accuracy after, accuracy before) by window. ece: calibration error, of 15 bins, after
    and before. milliseconds: median for a picture. megabytes: peak memory above what was in use before.
    """

    after: Interval
    before: Interval
    difference: Interval
    over_time: tuple[tuple[int, float, float], ...]
    ece: tuple[float, float]
    milliseconds: float
    megabytes: float
    predictions: Any = None

    def to_json(self) -> dict[str, Any]:
        """Everything but the predictions."""
        return {"after": asdict(self.after), "before": asdict(self.before), "difference": asdict(self.difference),
                "over_time": [list(t) for t in self.over_time], "ece": list(self.ece),
                "milliseconds": self.milliseconds, "megabytes": self.megabytes}  # fmt: skip


def score_stream(
    prompt: Prompt, model: Any, task: Task, *, split: str = "test", windows: int = 10, seed: int = 0,
    done: Callable[[int], Any] | None = None,
) -> StreamScore:  # fmt: skip
    """Let a prompt adapt over a split's pictures, in an order drawn by `seed`, and score each answer when it is given.

    Labels are used for scoring only. Raises ConfigError for prompts that do not adapt.
    """
    from ..adapt.prompts import stream

    if not isinstance(prompt, Adaptive):
        raise ConfigError(f"a prompt of kind {prompt.kind!r} does not adapt; tpt, dynaprompt and vpa make ones that do")
    if prompt.frame.labels != task.labels:
        raise ConfigError("the prompt answers other classes than the task has: for_classes(prompt, task.labels)")
    examples = list(getattr(task, split))
    order = np.random.default_rng(seed).permutation(len(examples))
    examples = [examples[i] for i in order]
    if not examples:
        raise ConfigError(f"the task {task.name} has no {split} examples")
    used = _peak(model)
    answers = stream(prompt, [e.inputs for e in examples], model, done=done)
    more = max(0.0, _peak(model) - used)
    after, before = (torch.stack([getattr(a, k) for a in answers]) for k in ("z", "before"))
    golds = np.array([e.gold for e in examples])
    said, bare = after.argmax(1).numpy(), before.argmax(1).numpy()
    edges = np.linspace(0, len(golds), min(windows, len(golds)) + 1).astype(int)
    over = tuple(
        (int(b), float((said[a:b] == golds[a:b]).mean()), float((bare[a:b] == golds[a:b]).mean()))
        for a, b in zip(edges[:-1], edges[1:], strict=True)
    )
    return StreamScore(
        bootstrap("accuracy", said, golds), bootstrap("accuracy", bare, golds), paired("accuracy", said, bare, golds),
        over, (calibration_error(after, golds), calibration_error(before, golds)),
        1000 * float(np.median([a.seconds for a in answers])), more, said,
    )  # fmt: skip


def calibration_error(z: torch.Tensor, golds: Sequence[int] | NDArray[np.int64], bins: int = 15) -> float:
    """Expected calibration error: the mean over bins of equal width, weighted by their pictures, of how far accuracy
    is from confidence. z: (N, C) logits. Source: Guo et al. 2017, https://arxiv.org/abs/1706.04599"""
    sure, said = z.float().softmax(1).max(1)
    right = (said.numpy() == np.asarray(golds)).astype(float)
    index = np.minimum((sure.numpy() * bins).astype(int), bins - 1)
    gaps = [abs(right[index == b].mean() - sure.numpy()[index == b].mean()) * (index == b).mean() for b in range(bins)
            if (index == b).any()]  # fmt: skip
    return float(sum(gaps))


def _peak(model: Any) -> float:
    """Peak memory so far, MB: of the GPU where the model is on one, else of the process."""
    if model.device.type == "cuda":
        return torch.cuda.max_memory_allocated(model.device) / 1e6
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most / (1e6 if sys.platform == "darwin" else 1e3)


def moved(prompt: Prompt, task: Task) -> Prompt:
    """The prompt with the task's classes, where they are other than its own."""
    return prompt if prompt.frame.labels == task.labels else for_classes(prompt, task.labels, task.words)
