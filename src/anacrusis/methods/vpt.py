"""Visual prompt tuning (VPT): learned rows beside the patches of a frozen image tower, in its first block or in all.

    shallow: [x_1 ; P_1] = block_0([x_0 ; P]),  [x_l+1 ; P_l+1] = block_l([x_l ; P_l])
    deep:    [x_l+1 ; _] = block_l([x_l ; P^l]),  l = 0 .. L-1      x_l: (B, n, d), P: (M, d), P^l: (M, d) of each layer
    start:   U(-a, a), a = sqrt(6 / (3 p^2 + d))                     p: pixels a side of a patch

    Vision towers: a head reads the class token and is trained too. Dual encoders: the class texts stay frozen words.

Paper: Jia et al. 2022, https://arxiv.org/abs/2203.12119; code KMnP/vpt
Departure: AdamW in units of the RMS of what goes into the blocks, instead of SGD over a grid of rates; no dropout on
    the rows; the head starts at the linear probe. In CLIP the rows come in behind the norm before the blocks, so that
    all layers' rows have one scale (its few-shot forks: before it). Means over tokens leave the rows out.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from ..errors import ConfigError
from ..model.sight import Sight
from ..prompt.values import Frame
from ..registry import looking
from ..tune.recipe import Problem, Recipe
from ..tune.sight_makers import RowsMaker, plain

TOWERS = {"needs": frozenset({"gradients", "tokens"}), "arrangements": frozenset({"dual", "vision"})}


@dataclass(frozen=True, kw_only=True)
class VPTConfig:
    length: int = 8  # M, rows; in every layer when deep. The paper searches 1 to 200
    depth: Literal["shallow", "deep"] = "deep"  # rows in the first layer only, or new ones in every layer

    def __post_init__(self) -> None:
        if self.length < 1:
            raise ConfigError(f"length is {self.length}: give at least one row")
        if self.depth not in ("shallow", "deep"):
            raise ConfigError(f"depth is {self.depth!r}; it must be shallow or deep")


def rows(model: Sight, length: int, layers: int, generator: torch.Generator) -> dict[int, Tensor]:
    """{layer: (M, d)} as they start, for the first `layers` layers of the image tower."""
    d = model.image.tower.width  # type: ignore[union-attr]  # the registry has asked for "tokens"
    with torch.no_grad(), model.frozen():
        n = model.enter(model.grey()).shape[1]  # a square of patches and a few tokens more
    a = math.sqrt(6 / (3 * (model.prepare.size // math.isqrt(n)) ** 2 + d))
    return {i: a * (2 * torch.rand(length, d, generator=generator) - 1) for i in range(layers)}


def framed(problem: Problem) -> Frame:
    """Frozen words of a dual encoder; a head instead of a network's own classes, whose features the rows change."""
    frame = plain(problem.frame)
    return replace(frame, readout="head") if frame.readout == "classes" else frame


def build(config: VPTConfig, problem: Problem) -> Recipe:
    model = problem.model
    layers = model.image.tower.depth if config.depth == "deep" else 1
    start = rows(model, config.length, layers, problem.generator)
    return Recipe(RowsMaker(start, "image", model.row_scale, entry="after-norm"), framed(problem))


looking(
    name="vpt",
    summary="learned rows beside the patches of an image tower, in its first block or in all",
    config=VPTConfig,
    build=build,
    races=True,
    paper="[Jia et al. 2022](https://arxiv.org/abs/2203.12119)",
    training={"lr": 0.05, "epochs": 50, "batch": 32, "patience": 10},
    **TOWERS,
)
