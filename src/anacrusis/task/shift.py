"""A part of a task's classes, and how well what was learned on some classes serves others.

Base-to-new: a prompt is learned on half of the classes and scored on both halves; the two scores meet in their
harmonic mean, which is small when either is.
    H = 2 a b / (a + b)

Paper: Zhou et al. 2022, Conditional Prompt Learning (CoCoOp), https://arxiv.org/abs/2203.05557 (section 4.1)
Departure: the classes are sorted by name; the original keeps each dataset's own order.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ..errors import ConfigError, did_you_mean
from .splits import Split, divide, strata

if TYPE_CHECKING:
    from .task import Example, Task

HALVES = ("base", "new", "all")


def base_to_new(task: Task, seed: int | None = None) -> tuple[Task, Task]:
    """(base, new): the first ceil(C / 2) classes by name, and the others; with a seed, halves drawn by it.

    Each has its own classes' examples in the same parts. Raises ConfigError for fewer than 4 classes.
    """
    labels = sorted(task.labels)
    if len(labels) < 4:
        raise ConfigError(
            f"{task.name} has {len(labels)} classes; to have some to learn and some new ones, at least 4 are needed"
        )
    if seed is not None:
        random.Random(seed).shuffle(labels)
    half = (len(labels) + 1) // 2
    return (
        take(task, labels[:half], f"{task.name}-base"),
        take(task, labels[half:], f"{task.name}-new"),
    )


def check_half(which: str) -> None:
    """Raises ConfigError for a word that is not one of HALVES."""
    if which not in HALVES:
        raise ConfigError(f"classes={which!r}: expected one of {', '.join(HALVES)}")


def half_of(task: Task, which: str) -> Task:
    """The task's base or new classes, or all of them. Raises ConfigError as `check_half` and `base_to_new` do."""
    check_half(which)
    return task if which == "all" else dict(zip(HALVES, base_to_new(task), strict=False))[which]


def take(task: Task, labels: Sequence[str], name: str | None = None) -> Task:
    """The task of these classes only, sorted; each part keeps the examples that have one of them. name: else its own.

    Several labels: those that are not taken are taken off. Raises ConfigError for an unknown class and for fewer than
    two (of several labels, for none).
    """
    for label in labels:
        if label not in task.labels:
            raise ConfigError(f"{task.name} has no class {label!r}.{did_you_mean(label, task.labels)}")
    kept = tuple(label for label in sorted(task.labels) if label in set(labels))
    if len(kept) < (1 if task.kind == "multilabel" else 2):
        raise ConfigError(f"{len(kept)} of {task.name}'s classes: there must be at least two to tell apart")
    index = {task.labels.index(label): i for i, label in enumerate(kept)}
    parts: dict[str, Any] = {part: _only(getattr(task, part), index) for part in ("train", "valid", "test")}
    steps = [*task.source.get("steps", ()), ["take", list(kept), name]]
    return replace(
        task, name=name or task.name, labels=kept, words=tuple(task.words[i] for i in index),
        source={**task.source, "steps": steps} if task.source else {}, **parts,
    )  # fmt: skip


def _only(examples: Sequence[Example], index: dict[int, int]) -> tuple[Example, ...]:
    found = []
    for example in examples:
        gold = example.gold
        if isinstance(gold, tuple):
            if left := tuple(sorted(index[i] for i in gold if i in index)):
                found.append(replace(example, gold=left))
        elif isinstance(gold, int) and gold in index:
            found.append(replace(example, gold=index[gold]))
    return tuple(found)


def harmonic(a: float, b: float) -> float:
    """The harmonic mean of two scores; 0 where either is not above 0."""
    return 2 * a * b / (a + b) if a > 0 and b > 0 else 0.0


def redrawn(task: Task, seed: int, shots: int | None = None, keep_valid: bool = False) -> Task:
    """The same test examples, with train and validation drawn anew from all others: what another seed would have seen.

    shots: examples a class, and as many for validation; None: parts of the sizes that they have. keep_valid: the
    validation examples stay too. Raises DataError where a class has too few examples.
    """
    pool = task.train if keep_valid else (*task.train, *task.valid)
    split = Split(seed=seed, shots=shots, valid=len(task.valid) / max(1, len(pool)) if not keep_valid else 0.0, test=0)
    kept = task.valid if keep_valid or not (task.valid or shots) else None
    train, valid, _ = divide(pool, kept, task.test, split, strata(pool, list(task.labels)))
    steps = [*task.source.get("steps", ()), ["redrawn", seed, shots, keep_valid]]
    source = {**task.source, "steps": steps} if task.source else {}
    return replace(task, train=train, valid=valid, seed=seed, source=source)


def again(task: Task, steps: Sequence[Sequence[Any]]) -> Task:
    """What was done to a task after it was read, as `Task.source` says, done once more."""
    from .corruptions import corrupted

    for name, *given in steps:
        task = {"take": take, "corrupted": corrupted, "redrawn": redrawn}[name](task, *given)  # type: ignore[operator]
    return task
