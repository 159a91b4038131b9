"""Courses as prompts: saved as where they start, and run again from there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from typing import Any

import torch
from torch import Tensor

from ..errors import ModelError
from ..model.images import rows_of
from ..model.sight import Sight
from ..prompt.values import Adaptive
from ..tune.recipe import Problem
from .course import Course
from .engine import Answer, Stream


def keep(course: Course, method: str, config: Any) -> Adaptive:
    """The course's start as a prompt."""
    weights = {f"{i}.{k}": t.detach().float().cpu().clone()
               for i, m in enumerate(course.members) for k, t in m.state_dict().items()}  # fmt: skip
    if course.memory is not None:
        weights |= {f"memory.{k}": t.detach().cpu().clone() for k, t in course.memory.state().items()}
    return Adaptive(method=method, config=asdict(config), weights=weights, frame=course.frame, head=course.head)


def course_of(prompt: Adaptive, model: Sight) -> Course:
    """The course that a prompt was kept from, at its start."""
    from ..registry import get

    method = get(prompt.method)
    if "images" not in model.can:
        raise ModelError(f"{prompt.method} adapts to pictures; {model.name} ({model.arrangement}) reads texts")
    problem = Problem(model, None, prompt.frame, torch.Generator().manual_seed(0))  # type: ignore[arg-type]  # no task
    course: Course = method.build(method.configure(dict(prompt.config)), problem)
    course = replace(course, head=prompt.head)
    for i, member in enumerate(course.members):
        for name, p in member.named_parameters():  # a start of another length than the words' is put in whole
            p.data = prompt.weights[f"{i}.{name}"].clone()
    if course.memory is not None:
        course.memory.load({k[7:]: t for k, t in prompt.weights.items() if k.startswith("memory.")})
    return course


def stream(
    prompt: Adaptive, inputs: Sequence[Any], model: Sight, *, done: Callable[[int], Any] | None = None
) -> list[Answer]:
    """Answers to pictures in their order, from the prompt's start. Online methods carry over from one to the next."""
    rows = rows_of(inputs, model.prepare)
    seed = int(prompt.card.get("seed", 0))
    return list(Stream(model, course_of(prompt, model), seed=seed).answers(rows, done))


def scores(prompt: Adaptive, inputs: Sequence[Any], model: Sight, done: Callable[[int], Any] | None = None) -> Tensor:
    """(N, C) logits after adapting, in the order of `inputs`."""
    found = stream(prompt, inputs, model, done=done)
    return torch.stack([a.z for a in found]) if found else torch.zeros(0, len(prompt.frame.labels))
