"""Visual prompting: one picture of learned values is added to every picture; the network stays frozen.

    z = network(normalise(x) + delta)        x, delta: (B, 3, S, S), (3, S, S); delta is 0 outside its shape
    frame: a border of p pixels, 12 p (S - p) values;  patch: p by p in the top left corner;  dense: every pixel

    raw: z = network(normalise(clip(x + delta))), in pixels of 0..1, so that what is shown is a picture again

Paper: Bahng et al. 2022, https://arxiv.org/abs/2203.17274; code hjbahng/visual_prompting
Departure: AdamW in units of a pixel's deviation instead of SGD at 40 over 1000 epochs; starts near zero, where the
    paper draws from N(0, 1). Class texts are the frame's, not "This is a photo of a". A classifier's own classes
    are the task's by name; no mapping of classes. The patch in a place drawn anew for each picture is left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ..errors import ConfigError
from ..prompt.values import Pixels
from ..registry import looking
from ..tune.makers import Group, Maker
from ..tune.recipe import Problem, Recipe
from ..tune.sight_makers import plain

PIXELS = {"needs": frozenset({"gradients", "images"}), "arrangements": frozenset({"dual", "vision", "classifier"})}


@dataclass(frozen=True, kw_only=True)
class VisualPromptingConfig:
    shape: Literal["frame", "patch", "dense"] = "frame"  # where the picture changes
    width: int = 0  # p, in pixels, of the frame or the patch; 0: 30 of every 224 pixels, as in the paper
    space: Literal["normalised", "raw"] = "normalised"  # added behind the model's normalisation, or to pixels of 0..1
    clip: bool = False  # space=raw: cut to 0..1; values that are cut get no gradient
    start: float = 0.01  # deviation of the first values, in deviations of a pixel; the paper's is 1

    def __post_init__(self) -> None:
        if self.clip and self.space != "raw":
            raise ConfigError("clip=true cuts pixels of 0..1: it goes with space=raw")
        for name in ("width", "start"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be 0 or more")


def place(shape: str, width: int, size: int) -> Tensor:
    """(S, S), true where the picture changes. Raises ConfigError where the shape does not fit."""
    p = width or max(1, round(30 * size / 224))
    most = {"frame": size // 2, "patch": size, "dense": p}
    if shape not in most:
        raise ConfigError(f"shape is {shape!r}; it must be one of {', '.join(most)}")
    if p > most[shape]:
        raise ConfigError(f"width is {p}; a {shape} on a picture of {size} pixels is at most {most[shape]}")
    at = torch.zeros(size, size, dtype=torch.bool)
    if shape == "patch":
        at[:p, :p] = True
        return at
    at[:] = True
    if shape == "frame":
        at[p : size - p, p : size - p] = False
    return at


class PixelMaker(Maker):
    """values: (3, N) at the N true places of `at` (S, S). unit: a pixel's deviation in the prompt's space."""

    def __init__(self, at: Tensor, values: Tensor, unit: float, **ways: Any):
        super().__init__()
        self.values, self.unit, self.size, self.ways = nn.Parameter(values), unit, at.shape[0], ways
        self.at: Tensor
        self.register_buffer("at", at.flatten().nonzero()[:, 0], persistent=False)

    def forward(self, reads: Any = None) -> Pixels:
        delta = self.values.new_zeros(3, self.size**2).index_copy(1, self.at, self.values)
        return Pixels(delta=delta.view(3, self.size, self.size), **self.ways)

    def groups(self) -> list[Group]:
        return [Group("prompt", [self.values], unit=self.unit)]


def build(config: VisualPromptingConfig, problem: Problem) -> Recipe:
    prepare = problem.model.prepare
    at = place(config.shape, config.width, prepare.size)
    unit = 1.0 if config.space == "normalised" else sum(prepare.deviation) / 3
    values = config.start * unit * torch.randn(3, int(at.sum()), generator=problem.generator)
    return Recipe(PixelMaker(at, values, unit, space=config.space, clip=config.clip), plain(problem.frame))


looking(
    name="visual-prompting",
    summary="one learned frame, patch or picture that is added to the pixels of every picture",
    config=VisualPromptingConfig,
    build=build,
    paper="[Bahng et al. 2022](https://arxiv.org/abs/2203.17274)",
    training={"lr": 0.03, "epochs": 50, "batch": 32, "patience": 10},
    **PIXELS,
)
