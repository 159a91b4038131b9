"""Residual prompt tuning: each vector passes through a small shared network beside a skip connection.

    p' = p + s * LN(U relu(A p/s + a) + u)     p, p': (P, H), A: H -> M, U: M -> H, s: RMS of the embedding table
    x  = [p' ; E(text)]

Vectors p and the network are trained together; when learning ends the network is folded away and p' is kept.

Paper: Razdaibiedina et al. 2023, https://arxiv.org/abs/2305.03937 (section 3)
Departure: s, which is 1 in the paper, puts the network's input and output at the table's size: a layer norm alone adds
    vectors of size 1, about twenty times the words of BERT. There is one block; the released code's two ("MLP2") are
    the same layers listed twice, so they share their weights. AdamW in units of s instead of an absolute rate of 0.3.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ..errors import ConfigError
from ..registry import Method, register
from ..tune import initial
from ..tune.makers import Residual, SoftMaker
from ..tune.recipe import Problem, Recipe


@dataclass(frozen=True, kw_only=True)
class ResidualPromptTuningConfig:
    length: int = 10  # P, in tokens
    bottleneck: int = 128  # M, hidden units; the paper's code takes 800
    init: Literal["vocab", "random", "text", "labels", "prompt"] = "vocab"
    source: str = ""  # the text for init=text, the prompt's folder for init=prompt

    def __post_init__(self) -> None:
        for name in ("length", "bottleneck"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, got {getattr(self, name)}")


def build(config: ResidualPromptTuningConfig, problem: Problem) -> Recipe:
    model, generator = problem.model, problem.generator
    start = initial.vectors(model, problem.frame, config.length, config.init, config.source, generator)
    encoder = Residual(start, config.bottleneck, model.scale, generator)
    return Recipe(SoftMaker(encoder, model.scale), problem.frame)


register(
    Method(
        name="residual-prompt-tuning",
        summary="vectors through a small network with a skip connection",
        config=ResidualPromptTuningConfig,
        build=build,
        races=True,
        paper="[Razdaibiedina et al. 2023](https://arxiv.org/abs/2305.03937)",
        training={"lr": 0.3, "head_lr": 0.003},
    )
)
