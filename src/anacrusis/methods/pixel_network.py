"""Pixel network: a few convolutions look at each picture and write what is added to it.

    x' = clip(x + eps tanh(h(x)))        x, x': (B, 3, S, S) in 0..1; |x' - x| <= eps
    h: three convolutions of 3 x 3, the first two of `stride` (2: what is written is smooth, at a quarter of the size,
    brought to S by bilinear interpolation; 1: every pixel by itself, which costs more and mends fine damage)

Paper: Oh et al. 2023 (BlackVIP), https://arxiv.org/abs/2303.14773, of which this is the prompt of each input
Departure: gradients of the frozen network are used, where the paper estimates them from losses; the picture itself is
    read, not a frozen MAE's features with a learned trigger; no batch normalisation, so that a picture's prompt
    does not depend on its batch; tanh bounds h. The last convolution starts at zero: the first answers are those
    without a prompt.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from ..errors import ConfigError
from ..model.sight import Looks
from ..prompt.values import Pixels
from ..registry import looking
from ..tune.makers import ConditionedMaker, Group, Restoring, build_quietly
from ..tune.recipe import Problem, Recipe
from ..tune.sight_makers import plain
from .visual_prompting import PIXELS


@dataclass(frozen=True, kw_only=True)
class PixelNetworkConfig:
    hidden: int = 32  # channels of the convolutions
    stride: int = 2  # of the first two: 1 writes each pixel, 2 a quarter of the size
    eps: float = 0.5  # largest change of a pixel, of 0..1
    clip: bool = True  # cut to 0..1 afterwards, so that a picture stays one

    def __post_init__(self) -> None:
        if self.hidden < 1 or self.eps <= 0 or self.stride < 1:
            raise ConfigError(
                f"hidden={self.hidden}, stride={self.stride}, eps={self.eps}: hidden and stride must be at least 1 and "
                "eps above 0"
            )


class PixelNetwork(ConditionedMaker):
    """Reads pixels, writes Pixels of each input."""

    reads = "picture"
    method = "pixel-network"
    length = 0  # it writes no tokens

    def __init__(self, hidden: int, stride: int, eps: float, clip: bool, generator: torch.Generator):
        super().__init__()
        self.hidden, self.stride, self.eps, self.clip = hidden, stride, eps, clip
        self.net = build_quietly(lambda: network(hidden, stride))
        with torch.no_grad():
            for p in self.net.parameters():  # as torch draws them, but from the run's own generator
                fan = 9 * (3 if p is self.net.get_parameter("0.weight") else hidden)
                p.uniform_(-1 / math.sqrt(fan), 1 / math.sqrt(fan), generator=generator)
            for p in (self.net.get_parameter("4.weight"), self.net.get_parameter("4.bias")):
                p.zero_()

    def forward(self, reads: Looks | None = None) -> Pixels:
        assert reads is not None  # the engine gives what `reads` declares
        x = reads.pixels.float()
        h = F.interpolate(self.net(2 * x - 1), size=x.shape[-2:], mode="bilinear", align_corners=False)
        return Pixels(delta=self.eps * torch.tanh(h), clip=self.clip)

    def groups(self) -> list[Group]:
        return [Group("network", list(self.net.parameters()), unit=(9 * self.hidden) ** -0.5)]

    def config_json(self) -> dict[str, Any]:
        return {"hidden": self.hidden, "stride": self.stride, "eps": self.eps, "clip": self.clip}


def network(hidden: int, stride: int) -> nn.Module:
    first, second = (nn.Conv2d(c, hidden, 3, stride=stride, padding=1) for c in (3, hidden))
    return nn.Sequential(first, nn.GELU(), second, nn.GELU(), nn.Conv2d(hidden, 3, 3, padding=1))


def build(config: PixelNetworkConfig, problem: Problem) -> Recipe:
    maker = PixelNetwork(**asdict(config), generator=problem.generator)
    return Recipe(maker, plain(problem.frame))


restore = Restoring("pixel-network", lambda _, p: PixelNetwork(**p.config, generator=torch.Generator()))


looking(
    name="pixel-network",
    summary="a small convolutional network that writes what is added to each picture's pixels",
    config=PixelNetworkConfig,
    build=build,
    restore=restore,
    paper="[Oh et al. 2023](https://arxiv.org/abs/2303.14773)",
    training={"lr": 0.02, "epochs": 50, "batch": 32, "patience": 10},
    **PIXELS,
)
