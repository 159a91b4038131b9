"""P-tuning v2: prefix tuning for understanding, with a free table and no network in between.

    attention(q, [Kp ; K], [Vp ; V])      Kp, Vp: (heads, P, d) of each layer, P * sum(2 * heads * d) values in all

Paper: Liu et al. 2021, https://arxiv.org/abs/2110.07602 (section 3.3)
Departure: the readout is the frame's own: label words where the model can speak. The paper's classification head is
    readout=head, and then reads the caller's own tokens (its released code does so too for prefixes). Random tables
    start at a standard deviation of 0.02 instead of 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ..registry import Method, register
from ..tune.recipe import Problem, Recipe
from . import prefix_tuning


@dataclass(frozen=True, kw_only=True)
class PTuningV2Config:
    length: int = 20  # P, in tokens; the paper takes up to 20 for simple classification and about 100 for tagging
    init: Literal["random", "text", "prompt"] = "random"  # text: the model's own keys and values of a text
    source: str = ""  # init=text: the text (empty: words drawn from the vocabulary); init=prompt: the prompt's folder

    def __post_init__(self) -> None:
        self.prefix()

    def prefix(self) -> prefix_tuning.PrefixTuningConfig:
        """The prefix tuning that this is. Raises ConfigError for the values that it refuses."""
        return prefix_tuning.PrefixTuningConfig(length=self.length, init=self.init, source=self.source, encoder="free")


def build(config: PTuningV2Config, problem: Problem) -> Recipe:
    return prefix_tuning.build(config.prefix(), problem)


register(
    Method(
        name="p-tuning-v2",
        summary="free keys and values before every attention's own",
        config=PTuningV2Config,
        build=build,
        races=True,
        paper="[Liu et al. 2021](https://arxiv.org/abs/2110.07602)",
        needs=frozenset({"gradients", "prefixes"}),
        training={"lr": 0.03, "head_lr": 0.03},
    )
)
