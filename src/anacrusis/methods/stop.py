"""Stochastic soft prompting (StoP): each step trains the first k vectors only, k drawn anew; all are used afterwards.

    k ~ Uniform{1 .. P},  x = [p[0:k] ; E(text)]        p: (P, H) trained, E(text): (B, T, H), x: (B, k + T, H)

    Vector i is trained in (P - i) of P steps: the prompt goes from coarse to fine, and each p[0:k] is itself a prompt.

Paper: Gupta et al. 2025, https://arxiv.org/abs/2502.01922 (LAST SToP, stochastic soft prompting)
Departure: k is drawn per step, also where a step's batch is computed in parts. The paper's text templates for series of
    events are the task's matter (template, instruction); learning rate and start are those of prompt tuning here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

from ..errors import ConfigError
from ..registry import Method, register
from ..tune import initial
from ..tune.makers import Free, SoftMaker
from ..tune.recipe import Problem, Recipe


@dataclass(frozen=True, kw_only=True)
class StopConfig:
    length: int = 20  # P, in tokens
    init: Literal["vocab", "random", "text", "labels", "prompt"] = "vocab"
    source: str = ""  # the text for init=text, the prompt's folder for init=prompt

    def __post_init__(self) -> None:
        if self.length < 1:
            raise ConfigError(f"length must be at least 1 token, got {self.length}")


class Stochastic(SoftMaker):
    """Free vectors of which a step sees the first k; the engine leaves the others out of its rows."""

    encoder: Free

    def sample(self, generator: torch.Generator) -> int:
        return int(torch.randint(1, len(self.encoder.vectors) + 1, (1,), generator=generator))


def build(config: StopConfig, problem: Problem) -> Recipe:
    model = problem.model
    start = initial.vectors(model, problem.frame, config.length, config.init, config.source, problem.generator)
    return Recipe(Stochastic(Free(start), model.scale), problem.frame)


register(
    Method(
        name="stop",
        summary="free vectors of which each step trains a random number of the first",
        config=StopConfig,
        build=build,
        paper="[Gupta et al. 2025](https://arxiv.org/abs/2502.01922)",
        training={"lr": 0.3},
    )
)
