"""Majority: the same answer for every input, the yardstick that anything learned must beat.

    scores_c = n_c / N                  one class per example: the share of training examples of class c
    scores_c = n_c / N - 1/2            several may hold: above 0 where more than half of the examples have label c

    scores: (C,), in the order of the task's labels; equal shares go to the class that comes first.

Paper: none.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..prompt.values import Constant
from ..registry import ANYWHERE, SEEING, Method, register
from ..tune.recipe import Problem
from ..tune.trainer import golds_of


@dataclass(frozen=True, kw_only=True)
class MajorityConfig:
    pass


def build(config: MajorityConfig, problem: Problem) -> Constant:
    task, C = problem.task, len(problem.task.labels)
    golds = golds_of([e for e in task.train if e.gold is not None], task.kind, C)
    if golds.dim() == 2:
        return Constant(scores=golds.mean(0) - 0.5, frame=problem.frame)
    return Constant(scores=golds.bincount(minlength=C) / len(golds), frame=problem.frame)


register(
    Method(
        name="majority",
        summary="baseline: the most frequent class, whatever the input",
        config=MajorityConfig,
        build=build,
        captions=True,
        paper="none",
        engine="baseline",
        needs=frozenset(),
        kinds=frozenset({"classification", "multilabel"}),
        arrangements=ANYWHERE | SEEING,
    )
)
