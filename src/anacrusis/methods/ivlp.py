"""Independent vision-language prompting: rows of their own for the first layers of both towers, learned side by side.

    [own ; P_i] -> layer i -> [own' ; dropped],  i = 0 .. J-1;   from layer J on rows go on as the layers leave them
    texts: P_i (M, d_t) in the place of the context before the class names;  pictures: P_i (N, d_v) beside the patches
    z = s <f(x), t_c>,  loss = CE(z, y)

side=text and side=image learn the rows of one tower alone (deep text prompts; deep visual prompts).

Paper: Khattak et al. 2023, https://arxiv.org/abs/2210.03117 (its baselines; the backbone of PromptSRC)
Departure: rows are drawn at the size of what they stand beside (table of tokens; what goes into the image tower's
    blocks) instead of 0.02, and AdamW moves them in that unit, instead of SGD at 0.0025; no augmentation; the best
    validation instead of the last step. `words` give as many rows as they have tokens, at most `length`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from ..errors import ConfigError
from ..registry import looking
from ..tune.makers import Maker
from ..tune.recipe import Problem, Recipe
from ..tune.sight_makers import WORDS, PairMaker, RowsMaker, around, context, plain

Layers = Mapping[int, Tensor]


@dataclass(frozen=True, kw_only=True)
class IVLPConfig:
    side: Literal["both", "text", "image"] = "both"  # the towers that get rows
    length: int = 4  # M, rows in the class texts; 0: as many as `words` has tokens
    visual: int = 4  # N, rows beside the patches of the picture
    depth: int = 9  # J, layers with rows of their own, from the first on; at most those of the tower
    words: str = WORDS  # where the first layer's rows of the texts start; "": at random

    def __post_init__(self) -> None:
        if self.side not in ("both", "text", "image"):
            raise ConfigError(f"side is {self.side!r}; it must be both, text or image")
        check(self, "visual", "depth")


def check(config: Any, *counts: str) -> None:
    """Raises ConfigError for a context without rows, and for counts below 1."""
    if config.length < 0 or (config.length == 0 and not config.words):
        raise ConfigError(f"length is {config.length}: give a number of rows, or words to start from")
    for name in counts:
        if getattr(config, name) < 1:
            raise ConfigError(f"{name} must be at least 1, got {getattr(config, name)}")


def text_rows(model: Any, words: str, length: int, depth: int, generator: torch.Generator) -> tuple[Layers, str]:
    """{layer: (M, d_t)}, and the template of class texts that they stand in. The first layer's start at `words`."""
    start, rest = context(model, words, length, generator)
    layers = range(1, min(depth, model.text.tower.depth))
    drawn = {i: model.scale * torch.randn(start.shape, generator=generator) for i in layers}
    return {0: start, **drawn}, around(len(start), rest=rest)


def image_rows(model: Any, length: int, depth: int, generator: torch.Generator) -> Layers:
    """{layer: (N, d_v)}, drawn at the size of what goes into the tower's blocks."""
    tower = model.image.tower
    layers = range(min(depth, tower.depth))
    return {i: model.row_scale * torch.randn(length, tower.width, generator=generator) for i in layers}


def build(config: IVLPConfig, problem: Problem) -> Recipe:
    model, generator = problem.model, problem.generator
    frame, sides = plain(problem.frame), dict[str, Maker]()
    if config.side != "image":
        rows, template = text_rows(model, config.words, config.length, config.depth, generator)
        frame, sides["text"] = replace(frame, template=template), RowsMaker(rows, "text", model.scale)
    if config.side != "text":
        rows = image_rows(model, config.visual, config.depth, generator)
        sides["image"] = RowsMaker(rows, "image", model.row_scale)
    return Recipe(PairMaker(**sides) if len(sides) == 2 else sides[config.side], frame)


looking(
    name="ivlp",
    summary="rows of their own in the first layers of both towers of a dual encoder",
    config=IVLPConfig,
    build=build,
    needs=frozenset({"gradients", "class-texts", "tokens"}),
    paper="[Khattak et al. 2023](https://arxiv.org/abs/2210.03117)",
    training={"lr": 0.05, "epochs": 50, "batch": 32, "patience": 10},
)
