"""Scores with intervals: what a prompt is worth on a task's examples."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from ..errors import ConfigError
from ..prompt.values import Prompt
from ..registry import suits
from ..task import Example, Task
from .intervals import Interval, bootstrap, paired
from .predict import named, scores, written


@dataclass(frozen=True)
class Score:
    """A score on one split. predictions: class indexes (N,), -1 for a reply that names no class; scores (N, C) for
    several labels; or texts."""

    split: str
    metric: str
    value: float
    low: float
    high: float
    n: int
    seconds: float  # of computing the predictions
    others: dict[str, Interval] = field(default_factory=dict)  # further metrics
    predictions: Any = None

    def __str__(self) -> str:
        return f"{self.value:.2f} [{self.low:.2f}, {self.high:.2f}]"

    def to_json(self) -> dict[str, Any]:
        """Everything but the predictions."""
        entries = {k: getattr(self, k) for k in ("split", "metric", "value", "low", "high", "n", "seconds")}
        return {**entries, "others": {k: asdict(i) for k, i in self.others.items()}}


FURTHER = {"classification": ("accuracy", "macro-f1"), "multilabel": ("map", "micro-f1"), "generation": ("rougeL",)}


def evaluate(
    prompt: Prompt, model: Any, task: Task, *, split: str = "test", done: Callable[[int], Any] | None = None
) -> Score:
    """Score `prompt` on one split of `task`, with 95 % intervals over its examples.

    done: called with a number of examples as they are answered. Raises ConfigError for an empty split or for a task
    whose classes are not the prompt's.
    """
    if split not in ("train", "valid", "test"):
        raise ConfigError(f"split is {split!r}; it must be train, valid or test")
    examples = getattr(task, split)
    if not examples:
        raise ConfigError(f"the task {task.name} has no {split} examples")
    if prompt.frame.labels != task.labels:
        raise ConfigError(
            f"the prompt answers {', '.join(prompt.frame.labels) or 'in free text'}; the task's classes are "
            f"{', '.join(task.labels) or 'free text'}"
        )
    if model is None and prompt.kind != "constant":
        raise ConfigError("this prompt needs its model: evaluate(prompt, ana.open(NAME), task)")
    if model is not None:
        suits(model, task)
    began = time.monotonic()
    predictions = predictions_of(prompt, model, task, [e.inputs for e in examples], done)
    return scored(predictions, examples, task, split, time.monotonic() - began)


def scored(predictions: Any, examples: Sequence[Example], task: Task, split: str, seconds: float) -> Score:
    """The Score of predictions that were made in `seconds`."""
    names = dict.fromkeys((task.metric, *FURTHER[task.kind]))
    found = {m: bootstrap(m, predictions, examples, classes=len(task.labels) or None) for m in names}
    main = found[task.metric]
    others = {k: v for k, v in found.items() if k != task.metric}
    return Score(split, task.metric, main.value, main.low, main.high, main.n, seconds, others, predictions)


def predictions_of(prompt: Prompt, model: Any, task: Task, inputs: Any, done: Any = None) -> Any:
    """Predictions in the form that the task's metrics take."""
    if task.kind == "generation":
        assert model is not None
        return written(prompt, inputs, model)
    if prompt.frame.readout == "answer" and prompt.kind != "constant":
        return np.asarray([-1 if c is None else c for c in named(prompt, inputs, model, done)])
    z = scores(prompt, inputs, model, done=done).numpy()
    return z if task.kind == "multilabel" else np.asarray(z.argmax(1))


def difference(a: Score, b: Score, task: Task) -> Interval:
    """a - b on the same examples, with a paired interval. Raises ConfigError when they are of different splits."""
    if (a.split, a.n, a.metric) != (b.split, b.n, b.metric):
        raise ConfigError(f"cannot pair {a.metric} on {a.split} (n={a.n}) with {b.metric} on {b.split} (n={b.n})")
    examples = getattr(task, a.split)
    return paired(a.metric, a.predictions, b.predictions, examples, classes=len(task.labels) or None)
