"""UPT: one set of rows passes through a small transformer; half become the texts' context, half visual rows.

    a = LN1(U + attn(U));    U' = s (a + W2 relu(W1 LN2(a)));    context = U'[:n],   visual = u (W U'[n:] / s + b)
    U: (2n, d_t), in units of s; attn: one head over the 2n rows; W1, W2: (d_t, d_t); W: (d_v, d_t); s, u: size of the
    token table, of the image tower's states

Both sides are shallow: the context stands before the class names, visual rows come in before the first layer. When
learning ends the transformer is folded away; rows are kept.

Paper: Zang et al. 2022, https://arxiv.org/abs/2210.07225
Departure: attention is over the 2n rows, in one call for both sides (the released code has the axes the other way
    round, so that every row attends to itself alone); no dropout; s and u, which are 1 in the paper, put what the
    layer norms make at the size of what it stands beside; AdamW in such units instead of SGD at 0.002; no augmentation;
    the best validation instead of the last step.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import ConfigError
from ..prompt.values import Paired, Tokens
from ..registry import looking
from ..tune.makers import Group, Maker, build_quietly, seeded
from ..tune.recipe import Problem, Recipe
from ..tune.sight_makers import around
from .maple import network_groups


@dataclass(frozen=True, kw_only=True)
class UPTConfig:
    length: int = 4  # n, rows of each side

    def __post_init__(self) -> None:
        if self.length < 1:
            raise ConfigError(f"length must be at least 1, got {self.length}")


class Mixer(nn.Module):
    """(R, d) -> (R, d): one block over the axis of rows, at unit size."""

    def __init__(self, d: int):
        super().__init__()
        self.qkv, self.out = nn.Linear(d, 3 * d), nn.Linear(d, d)
        self.norm1, self.norm2 = nn.LayerNorm(d), nn.LayerNorm(d)
        self.up, self.down = nn.Linear(d, d), nn.Linear(d, d)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).chunk(3, -1)
        mixed = torch.softmax(q @ k.T / q.shape[-1] ** 0.5, dim=-1) @ v  # (R, R) over the rows
        a = self.norm1(x + self.out(mixed))
        return a + self.down(torch.relu(self.up(self.norm2(a))))


class Unified(Maker):
    """rows: (2n, d_t) at unit size. width: d_v. scale, unit: s and u."""

    def __init__(self, rows: Tensor, width: int, scale: float, unit: float, generator: torch.Generator):
        super().__init__()
        self.rows, self.scale, self.unit = nn.Parameter(rows.clone().float()), scale, unit
        d = rows.shape[1]
        self.mixer = seeded(build_quietly(lambda: Mixer(d)), generator)
        self.link = seeded(build_quietly(lambda: nn.Linear(d, width)), generator)

    def forward(self, reads: Any = None) -> Paired:
        text, image = self.mixer(self.rows).chunk(2)
        return Paired(
            text=Tokens(side="text", layers={0: self.scale * text}),
            image=Tokens(side="image", layers={0: self.unit * self.link(image)}),
        )

    def groups(self) -> list[Group]:
        return [Group("prompt", [self.rows]), *network_groups(nn.ModuleList([self.mixer, self.link]))]


def build(config: UPTConfig, problem: Problem) -> Recipe:
    model = problem.model
    start = torch.randn(2 * config.length, model.text.table.shape[1], generator=problem.generator)
    maker = Unified(start, model.image.tower.width, model.scale, model.row_scale, problem.generator)
    return Recipe(maker, replace(problem.frame, template=around(config.length)))


looking(
    name="upt",
    summary="context and visual rows from one set of rows and a small transformer",
    config=UPTConfig,
    build=build,
    needs=frozenset({"gradients", "class-texts", "tokens"}),
    paper="[Zang et al. 2022](https://arxiv.org/abs/2210.07225)",
    training={"lr": 0.05, "epochs": 50, "batch": 32, "patience": 10},
)
