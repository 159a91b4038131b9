"""Gated prompt tuning: shallow visual rows; a gate says how much of what a block made of them the next takes.

    P_l = g_l out_l-1 + (1 - g_l) P_l-1,   g_l = sigmoid(a_l);   attention_l = softmax(q k^T / (sqrt(d / h) tau_l)) v

    P_0 = P: (M, d) trained, out_l: the rows behind block l, a: (L - 1,), tau: (L,) in 0.01 .. 10, both trained
    all g = 0: every block sees P; all g = 1 and tau = 1: shallow visual prompt tuning

Paper: Yoo et al. 2023, https://arxiv.org/abs/2306.05067; code ryongithub/GatedPromptTuning
Departure: as in vpt (optimiser, start, entry), no dropout; means over tokens leave the rows out, where the paper's for
    MAE counts them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import ConfigError
from ..prompt.values import Tokens
from ..registry import looking
from ..tune.makers import Group, Maker
from ..tune.recipe import Problem, Recipe
from .vpt import TOWERS, framed, rows

LEAST, MOST = 0.01, 10.0  # temperatures


@dataclass(frozen=True, kw_only=True)
class GatedConfig:
    length: int = 16  # M, rows; the paper takes 100
    gate: float = -5.0  # where every a_l starts: sigmoid(-5) lets 0.7 % through

    def __post_init__(self) -> None:
        if self.length < 1:
            raise ConfigError(f"length is {self.length}: give at least one row")


class GatedMaker(Maker):
    """start: (M, d); depth: L."""

    def __init__(self, start: Tensor, gate: float, depth: int, scale: float):
        super().__init__()
        self.scale = scale
        self.vectors = nn.Parameter(start.clone())
        self.gates = nn.Parameter(torch.full((depth - 1,), gate))
        self.temperatures = nn.Parameter(torch.ones(depth))

    def forward(self, reads: Any = None) -> Tokens:
        gates = torch.cat([self.gates.new_ones(1), torch.sigmoid(self.gates)])  # nothing stands before layer 0
        return Tokens(side="image", layers={0: self.vectors}, entry="after-norm", gates=gates,
                      temperatures=self.temperatures.clamp(LEAST, MOST))  # fmt: skip

    def groups(self) -> list[Group]:
        return [
            Group("prompt", [self.vectors], unit=self.scale),
            Group("gate", [self.gates]),
            Group("temperature", [self.temperatures], rate=0.1),
        ]

    def constrain(self) -> None:
        self.temperatures.clamp_(LEAST, MOST)  # beyond, the clamp above would hold them for ever


def build(config: GatedConfig, problem: Problem) -> Recipe:
    model = problem.model
    start = rows(model, config.length, 1, problem.generator)[0]
    return Recipe(GatedMaker(start, config.gate, model.image.tower.depth, model.row_scale), framed(problem))


looking(
    name="gated",
    summary="visual rows with a learned gate between blocks and a temperature of each block's attention",
    config=GatedConfig,
    build=build,
    paper="[Yoo et al. 2023](https://arxiv.org/abs/2306.05067)",
    training={"lr": 0.05, "epochs": 50, "batch": 32, "patience": 10},
    **TOWERS,
)
