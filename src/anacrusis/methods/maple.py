"""MaPLe: deep rows in the class texts, and rows of the image tower that are linear functions of them.

    V_i = u (W_i P_i / s + b_i),    i = 0 .. J-1;    z = s_0 <f(x; V), t_c(P)>,    loss = CE(z, y)
    P_i: (M, d_t) in the context's place before text layer i; V_i: (M, d_v) beside the patches before image layer i;
    W_i: (d_v, d_t), b_i: (d_v,), of their own for every layer; s, u: size of the token table, of the image tower's
    states; s_0: the model's scale

P learns from both towers. When learning ends W and b are folded away: what is kept is P and V.

Paper: Khattak et al. 2023, https://arxiv.org/abs/2210.03117
Departure: W works at unit size (s and u are 1 in the paper, whose V_i are mostly b_i at the start), and AdamW moves P
    in units of s, W in units of 1 / d_t (so that a step changes V by no more than lr) instead of SGD at 0.0035; rows
    of deeper layers are drawn at size s; no augmentation; the best validation instead of the last of 5 epochs.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from ..prompt.values import Paired, Tokens
from ..registry import looking
from ..tune.makers import Group, Maker, build_quietly, seeded
from ..tune.recipe import Problem, Recipe
from ..tune.sight_makers import WORDS
from .ivlp import Layers, check, text_rows


@dataclass(frozen=True, kw_only=True)
class MaPLeConfig:
    length: int = 2  # M, rows in each layer of both towers; 0: as many as `words` has tokens
    depth: int = 9  # J, layers with rows of their own, from the first on; at most those of the shallower tower
    words: str = WORDS  # where the first layer's rows of the texts start; tokens beyond M stay words. "": at random

    def __post_init__(self) -> None:
        check(self, "depth")


class Coupled(Maker):
    """rows: {layer: (M, d_t)}. width: d_v. scale, unit: s and u, the sizes of rows in the two towers."""

    def __init__(self, rows: Layers, width: int, scale: float, unit: float, generator: torch.Generator):
        super().__init__()
        self.order, self.scale, self.unit = tuple(rows), scale, unit
        self.rows = nn.ParameterList([nn.Parameter(t.clone().float()) for t in rows.values()])
        links = [build_quietly(lambda t=t: nn.Linear(t.shape[1], width)) for t in rows.values()]
        self.links = nn.ModuleList([seeded(link, generator) for link in links])

    def forward(self, reads: Any = None) -> Paired:
        text = dict(zip(self.order, self.rows, strict=True))
        image = {i: self.unit * link(text[i] / self.scale) for i, link in zip(self.order, self.links, strict=True)}
        return Paired(text=Tokens(side="text", layers=text), image=Tokens(side="image", layers=image))

    def groups(self) -> list[Group]:
        return [Group("prompt", list(self.rows), unit=self.scale), *network_groups(self.links)]


def network_groups(network: nn.Module) -> list[Group]:
    """Steps of linear layers that work at unit size: weights move in units of 1 / fan in, so that a step changes what
    comes out by no more than lr; biases and norms by a tenth of lr."""
    wide = [p for p in network.parameters() if p.dim() > 1]
    small = [p for p in network.parameters() if p.dim() == 1]
    fans = sorted({p.shape[1] for p in wide})
    weights = [Group("network", [p for p in wide if p.shape[1] == fan], unit=1 / fan) for fan in fans]
    return [*weights, Group("bias", small, rate=0.1)]


def build(config: MaPLeConfig, problem: Problem) -> Recipe:
    model, tower = problem.model, problem.model.image.tower
    depth = min(config.depth, tower.depth)
    rows, template = text_rows(model, config.words, config.length, depth, problem.generator)
    maker = Coupled(rows, tower.width, model.scale, model.row_scale, problem.generator)
    return Recipe(maker, replace(problem.frame, template=template))


looking(
    name="maple",
    summary="deep rows in the class texts, and rows of the image tower that are linear functions of them",
    config=MaPLeConfig,
    build=build,
    races=True,
    needs=frozenset({"gradients", "class-texts", "tokens"}),
    paper="[Khattak et al. 2023](https://arxiv.org/abs/2210.03117)",
    training={"lr": 0.1, "epochs": 50, "batch": 32, "patience": 10},
)
