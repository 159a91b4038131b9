"""Linear probe: a logistic regression on the frozen model's pooled states; no prompt.

    scores = W pool(states(text)) + b,    min over W, b of  sum_i CE(scores_i, gold_i) + |W|^2 / (2 C)

    states: (B, T, H), pool: (B, H), W: (classes, H), b: (classes,). C: the one of GRID that does best on validation.

Paper: Alain and Bengio 2016, https://arxiv.org/abs/1610.01644
Departure: the last layer only, pooled over the text. Several labels: one regression each.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from ..errors import ConfigError
from ..model.frames import default_frame
from ..model.readout import Pooled, reader
from ..prompt.values import Text
from ..registry import TEXTS, Method, register
from ..tune import probe
from ..tune.recipe import Problem
from ..tune.trainer import golds_of

GRID = tuple(float(10 ** (n / 2)) for n in range(-8, 5))  # 1e-4 to 100, two values a decade; features of unit RMS


@dataclass(frozen=True, kw_only=True)
class LinearProbeConfig:
    strength: float = 0.0  # C, inverse regularisation for features of unit RMS; 0 = chosen on validation

    def __post_init__(self) -> None:
        if self.strength < 0:
            raise ConfigError(f"strength must be above 0, or 0 to choose it on validation; got {self.strength}")


def build(config: LinearProbeConfig, problem: Problem) -> Text:
    model, task, frame = problem.model, problem.task, problem.frame
    if frame.readout != "head":
        usual = default_frame(model, task, frame.readout, place=frame.place)
        # a template that somebody chose stays; the usual one of another readout asks for an answer
        chosen = "" if frame.template == usual.template else frame.template
        frame = default_frame(model, task, "head", template=chosen, place=frame.place)
    read, bare = reader(model, frame), Text(frame=frame)
    assert isinstance(read, Pooled)
    x, y = (probe.features(read, read.rows([e.inputs for e in part], bare), bare) for part in (task.train, task.valid))
    golds, golds_valid = (golds_of(part, task.kind, len(task.labels)).numpy() for part in (task.train, task.valid))
    grid, C = (config.strength,) if config.strength else GRID, len(task.labels)
    if len(task.valid) or len(grid) == 1:
        head, _ = probe.fit_head(x, golds, y, golds_valid, C, grid)
    else:  # a fifth of train stands in for the validation split that the task lacks
        order = torch.randperm(len(x), generator=problem.generator)
        a, b = order[len(order) // 5 :], order[: len(order) // 5]
        _, best = probe.fit_head(x[a], golds[a.numpy()], x[b], golds[b.numpy()], C, grid)
        head, _ = probe.fit_head(x, golds, y, golds_valid, C, (best,))
    return replace(bare, head=head)


register(
    Method(
        name="linear-probe",
        summary="baseline: a logistic regression on the frozen model's states",
        config=LinearProbeConfig,
        build=build,
        captions=True,
        paper="[Alain and Bengio 2016](https://arxiv.org/abs/1610.01644)",
        engine="baseline",
        needs=frozenset({"features"}),
        arrangements=TEXTS | {"dual", "vision"},
        kinds=frozenset({"classification", "multilabel"}),
    )
)
