"""Prompt tuning: train P free vectors that stand before the input; the model stays frozen.

    x = [p ; E(text)]        p: (P, H) trained, E(text): (B, T, H) frozen, x: (B, P + T, H)

Paper: Lester et al. 2021, https://arxiv.org/abs/2104.08691 (sections 2 and 3.2)
Departure: "vocab" samples the whole vocabulary, the paper its 5,000 most common tokens. AdamW in units of the table's
    RMS instead of Adafactor at 0.3, which is the same step size on T5 and works on other models too. Encoders get the
    vectors after their first special token, so that position 0 stays what it was.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ..errors import ConfigError
from ..registry import Method, register
from ..tune import initial
from ..tune.makers import Free, SoftMaker
from ..tune.recipe import Problem, Recipe


@dataclass(frozen=True, kw_only=True)
class PromptTuningConfig:
    length: int = 20  # P, in tokens
    init: Literal["vocab", "random", "text", "labels", "prompt"] = "vocab"
    source: str = ""  # the text for init=text, the prompt's folder for init=prompt

    def __post_init__(self) -> None:
        if self.length < 1:
            raise ConfigError(f"length must be at least 1 token, got {self.length}")


def start(config: PromptTuningConfig, problem: Problem) -> Free:
    """Free vectors where the config says that they begin."""
    frame, generator = problem.frame, problem.generator
    return Free(initial.vectors(problem.model, frame, config.length, config.init, config.source, generator))


def build(config: PromptTuningConfig, problem: Problem) -> Recipe:
    return Recipe(SoftMaker(start(config, problem), problem.model.scale), problem.frame)


register(
    Method(
        name="prompt-tuning",
        summary="free vectors before the input",
        config=PromptTuningConfig,
        build=build,
        races=True,
        paper="[Lester et al. 2021](https://arxiv.org/abs/2104.08691)",
        training={"lr": 0.3},
    )
)
