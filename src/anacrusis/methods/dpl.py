"""Decoupled prompt learning (DPL): deep rows in both towers, and factors on who reads whom in the image tower.

    attention(q; [P ; I]) = r attention(q; P) + (1 - r) attention(q; I),    r = g S_P / (g S_P + S_I)
    S_P = sum over rows j of exp(q k_j / sqrt(d / h)), S_I likewise over own tokens; with its factor on the other side
    for the queries that are rows:  r = S_P / (S_P + g' S_I)

    g, g': of each layer of the image tower, fixed or exp(trained). Both 1: deep prompting of both towers (ivlp);
    g = 0: own tokens do not see the rows. g' matters where a layer's rows go on: behind the last that has its own.

Paper: Xu et al. 2023, https://arxiv.org/abs/2308.10061
Departure: which of the four readings (own or row by own or row) the paper strengthens, and by how much, is not known to
    us: here each factor is a choice, or learned. Text prompts are free rows in words' places (the paper's are made from
    the frozen text stream), and the text tower's attention is left as it is. AdamW in units instead of SGD.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import ConfigError
from ..prompt.values import Tokens
from ..registry import looking
from ..tune.makers import Group
from ..tune.recipe import Problem, Recipe
from ..tune.sight_makers import WORDS, PairMaker, RowsMaker, plain
from .ivlp import IVLPConfig, image_rows, text_rows


@dataclass(frozen=True, kw_only=True)
class DPLConfig:
    length: int = 4  # M, rows in the class texts; 0: as many as `words` has tokens
    visual: int = 4  # N, rows beside the patches of the picture
    depth: int = 9  # J, layers with rows of their own, from the first on; at most those of the tower
    words: str = WORDS  # where the first layer's rows of the texts start; "": at random
    read: float = 1.0  # g: factor on rows as own tokens read them; where it starts, if learned
    reading: float = 1.0  # g': factor on own tokens as rows read them; likewise
    learned: bool = True  # train the factors of each layer

    def __post_init__(self) -> None:
        IVLPConfig(length=self.length, visual=self.visual, depth=self.depth, words=self.words)  # for its errors
        for name in ("read", "reading"):
            if getattr(self, name) < 0 or (self.learned and getattr(self, name) == 0):
                raise ConfigError(f"{name} is {getattr(self, name)}; give 0 or more, and above 0 unless learned=false")


class WeighedRows(RowsMaker):
    """Rows of the image tower with factors, (L, 2); learned ones as logarithms, so that they stay above 0."""

    def __init__(self, layers: Mapping[int, Tensor], scale: float, mass: Tensor, learned: bool):
        super().__init__(layers, "image", scale)
        self.learned = learned
        self.mass: Tensor
        if learned:
            self.mass = nn.Parameter(mass.log())
        else:
            self.register_buffer("mass", mass)

    def forward(self, reads: Any = None) -> Tokens:
        return replace(super().forward(reads), mass=self.mass.exp() if self.learned else self.mass)

    def groups(self) -> list[Group]:
        return [*super().groups(), *([Group("mass", [self.mass], rate=0.2)] if self.learned else [])]  # type: ignore[list-item]


def build(config: DPLConfig, problem: Problem) -> Recipe:
    model, g = problem.model, problem.generator
    words, template = text_rows(model, config.words, config.length, config.depth, g)
    mass = torch.tensor([config.read, config.reading]).repeat(model.image.tower.depth, 1)
    image = WeighedRows(image_rows(model, config.visual, config.depth, g), model.row_scale, mass, config.learned)
    frame = replace(plain(problem.frame), template=template)
    return Recipe(PairMaker(RowsMaker(words, "text", model.scale), image), frame)


looking(
    name="dpl",
    summary="deep rows in both towers of a dual encoder, with factors on who reads whom in the image tower",
    config=DPLConfig,
    build=build,
    paper="[Xu et al. 2023](https://arxiv.org/abs/2308.10061)",
    training={"lr": 0.05, "epochs": 50, "batch": 32, "patience": 10},
    needs=frozenset({"gradients", "class-texts", "tokens"}),
)
