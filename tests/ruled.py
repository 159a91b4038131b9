"""A subject without a model: its answers follow a rule, so that what a measure must find is known."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from anacrusis.assess import Subject
from anacrusis.prompt.values import Frame, Prompt, Text
from anacrusis.task import Example, Task

LABELS = ("billing", "delivery", "returns")
Rule = Callable[[Frame, tuple[str, ...]], Any]


@dataclass(eq=False)
class Ruled(Subject):
    """rule: (frame, inputs) -> scores of the classes, (C,); a text where the task is to write."""

    rule: Rule = lambda frame, inputs: (0.0, 0.0, 0.0)

    def _ask(self, prompt: Prompt, inputs: list[tuple[Any, ...]]) -> list[Any]:
        said = [self.rule(prompt.frame, x) for x in inputs]
        return said if self.task.kind == "generation" else [torch.tensor(z, dtype=torch.float64) for z in said]


def texts_of(n: int) -> list[str]:
    """Example i is of the class i mod 3."""
    return [f"there is a question about parcel number {i} please" for i in range(n)]


def task_of(n: int = 60) -> Task:
    test = tuple(Example((t,), i % 3) for i, t in enumerate(texts_of(n)))
    return Task("ruled", "classification", ("text",), LABELS, LABELS, (), (), test)


def gold(inputs: Sequence[str]) -> int:
    """The class of an example of `task_of`, by its number; 0 without one."""
    return int("".join(c for c in inputs[0] if c.isdigit()) or 0) % 3


def right(inputs: Sequence[str], yes: bool = True, sure: float = 2.0) -> tuple[float, ...]:
    """Scores by which the answer is right, or wrong."""
    c = gold(inputs) if yes else (gold(inputs) + 1) % 3
    return tuple(sure * np.eye(3)[c])


def ruled(rule: Rule, n: int = 60, cells: int = 20_000, seed: int = 0, **frame: Any) -> Ruled:
    task = task_of(n)
    own = Frame(labels=LABELS, words=LABELS, **{"template": "Text: {text}\nAnswer:", **frame})
    return Ruled(Text(frame=own), None, task, cells=cells, seed=seed, rule=rule)
