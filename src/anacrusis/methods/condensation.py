"""Prompt condensation: train many deep visual rows, keep the few that matter most over all layers, train on with these.

    s_li = sum over batches |dLoss / dm_li at m = 1| = sum over batches |<P_li, dLoss / dP_li>|     rows m_li P_li
    keep the share k of all L M rows with the largest s; a layer may keep none        P^l: (M, d) of each layer l

    Stages: train all rows; one pass over the data that only scores; train the rows that were kept.

Paper: Kim et al. 2023, https://arxiv.org/abs/2305.17223
Departure: the score is summed over batches, not examples. The two trainings share one schedule of the rate, so that the
    second is at lower rates. The prompt is that of the last step: the best by validation could be an uncondensed one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import ConfigError
from ..prompt.values import Tokens
from ..registry import looking
from ..tune.makers import Group, Maker
from ..tune.recipe import Problem, Recipe, Stage
from .vpt import TOWERS, framed, rows


@dataclass(frozen=True, kw_only=True)
class CondensationConfig:
    length: int = 20  # M, rows of each layer before condensation; the paper takes 50 to 200
    keep: float = 0.3  # k, share of all layers' rows that is kept; 1 keeps all
    wide: float = 0.6  # share of the training with all rows

    def __post_init__(self) -> None:
        if self.length < 1:
            raise ConfigError(f"length is {self.length}: give at least one row")
        for name, most in (("keep", 1.0), ("wide", 0.8)):
            if not 0 < getattr(self, name) <= most:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be above 0 and at most {most}")


class CondensingMaker(Maker):
    """start: (L, M, d). scores: (L, M); kept: (L, M) of 0 and 1. Both are saved with the run, so that it can resume."""

    def __init__(self, start: Tensor, keep: float, scale: float):
        super().__init__()
        self.keep, self.scale = keep, scale
        self.vectors = nn.Parameter(start.clone())
        self.scores: Tensor
        self.kept: Tensor
        self.register_buffer("scores", torch.zeros(start.shape[:2]))
        self.register_buffer("kept", torch.ones(start.shape[:2]))

    def forward(self, reads: Any = None) -> Tokens:
        live: Tensor = self.vectors
        if torch.is_grad_enabled() and live.requires_grad:
            mask = torch.ones_like(self.kept).requires_grad_()
            mask.register_hook(self._add)
            live = live * mask[..., None]
        chosen = {i: layer[kept > 0.5] for i, (layer, kept) in enumerate(zip(live, self.kept, strict=True))}
        return Tokens(side="image", layers=chosen, entry="after-norm")

    def _add(self, grad: Tensor) -> None:
        self.scores += grad.detach().abs()

    def restart(self) -> None:
        """Forget the scores of the training so far: they count from here on."""
        self.scores.zero_()

    def condense(self) -> None:
        """Keep the rows that score highest over all layers."""
        best = self.scores.flatten().topk(max(1, round(self.keep * self.scores.numel()))).indices
        self.kept.zero_().view(-1)[best] = 1.0

    def groups(self) -> list[Group]:
        return [Group("prompt", [self.vectors], unit=self.scale)]


def stages(config: CondensationConfig, problem: Problem) -> tuple[Stage, ...]:
    training = problem.training
    if training.patience:
        raise ConfigError("condensation trains to its end, or nothing would be condensed: --set patience=0")
    steps = math.ceil(len(problem.task.train) / training.batch)
    once = min(0.2, steps / (training.steps or steps * training.epochs))  # a pass over the data
    return (
        Stage("wide", share=config.wide),
        Stage("score", share=once, roles=frozenset(), begin=lambda maker: maker.restart()),  # type: ignore[operator]
        Stage("condensed", share=1 - config.wide - once, begin=lambda maker: maker.condense()),  # type: ignore[operator]
    )


def build(config: CondensationConfig, problem: Problem) -> Recipe:
    model = problem.model
    start = rows(model, config.length, model.image.tower.depth, problem.generator)
    maker = CondensingMaker(torch.stack(list(start.values())), config.keep, model.row_scale)
    last = lambda epoch, epochs: float(epoch == epochs)  # noqa: E731
    return Recipe(maker, framed(problem), stages=stages(config, problem), average=last)


looking(
    name="condensation",
    summary="many visual rows of which the few that matter most, over all layers, are kept and trained on",
    config=CondensationConfig,
    build=build,
    paper="[Kim et al. 2023](https://arxiv.org/abs/2305.17223)",
    training={"lr": 0.05, "epochs": 50, "batch": 32, "patience": 0},
    **TOWERS,
)
