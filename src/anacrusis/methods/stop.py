"""Stochastic soft prompting (StoP): each step trains the first k vectors only, k drawn anew; all are used afterwards.

    k ~ Uniform{1 .. P},  x = [p[0:k] ; E(text)]        p: (P, H) trained, E(text): (B, T, H), x: (B, k + T, H)

    Vector i is trained in (P - i) of P steps: the prompt goes from coarse to fine, and each p[0:k] is itself a prompt.

Paper: Gupta et al. 2025, https://arxiv.org/abs/2502.01922 (LAST SToP, stochastic soft prompting)
Departure: k is drawn per step, also where a step's batch is computed in parts. The paper's text templates for series of
    events are the task's matter (template, instruction); learning rate and start are those of prompt tuning here.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ..registry import Method, register
from ..tune.makers import Free, SoftMaker
from ..tune.recipe import Problem, Recipe
from . import prompt_tuning


@dataclass(frozen=True, kw_only=True)
class StopConfig(prompt_tuning.PromptTuningConfig):
    """The options of prompt tuning; `length` is the most that a step sees."""


class Stochastic(SoftMaker):
    """Free vectors of which a step sees the first k; the engine leaves the others out of its rows."""

    encoder: Free

    def sample(self, generator: torch.Generator) -> int:
        return int(torch.randint(1, len(self.encoder.vectors) + 1, (1,), generator=generator))


def build(config: StopConfig, problem: Problem) -> Recipe:
    return Recipe(Stochastic(prompt_tuning.start(config, problem), problem.model.scale), problem.frame)


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
