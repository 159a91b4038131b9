"""CoCoOp: the context of class texts moves with the picture that is looked at.

    v_m(x) = v_m + s h(x),    h(x) = U relu(A f(x) sqrt(D) + a) + u,    z_c(x) = k <f(x), g([v_1(x) .. v_M(x), name_c])>
    v: (M, d) trained, f(x): (B, D) frozen, of unit length, A: (r, D), U: (d, r), h: (B, d), the same for all M vectors
    v(x): (B, M, d), class features (B, C, D); s: RMS of the token table, k: the model's scale

Paper: Zhou et al. 2022, https://arxiv.org/abs/2203.05557
Departure: h sees entries of size 1 and its output counts in s; U and u start at zero, so that learning starts at the
    words (in the released code both layers start at random). AdamW in units of s instead of SGD at 0.002; a batch of 8
    instead of 1; no augmentation; the best validation instead of the last step.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import ConfigError
from ..model.sight import Looks, Sight
from ..prompt.values import Conditioned, Tokens
from ..registry import looking
from ..tune.makers import ConditionedMaker, Group, Restoring, build_quietly, seeded
from ..tune.recipe import Problem, Recipe
from ..tune.sight_makers import WORDS, around, context


@dataclass(frozen=True, kw_only=True)
class CoCoOpConfig:
    length: int = 0  # M, in tokens; 0: as many as `words` has
    words: str = WORDS  # where the vectors start; "": at random
    width: int = 0  # r, hidden units of the network; 0: a sixteenth of the features' size, 8 at least
    network_rate: float = 0.02  # learning rate of the network, relative to the vectors'

    def __post_init__(self) -> None:
        if self.length < 0 or (self.length == 0 and not self.words):
            raise ConfigError(f"length is {self.length}: give a number of vectors, or words to start from")
        if self.width < 0:
            raise ConfigError(f"width is {self.width}; give a number of hidden units, or 0 for a sixteenth")
        if self.network_rate <= 0:
            raise ConfigError(f"network_rate must be above 0, got {self.network_rate}")


class Conditional(ConditionedMaker):
    """start: (M, d). size: D. width: r. scale: s."""

    reads = "picture"
    method = "cocoop"

    def __init__(self, start: Tensor, size: int, width: int, scale: float, rate: float, generator: torch.Generator):
        super().__init__()
        self.length, d = start.shape
        self.width, self.scale, self.rate = width, scale, rate
        self.context = nn.Parameter(start.clone().float())
        build = lambda: nn.Sequential(nn.Linear(size, width), nn.ReLU(), nn.Linear(width, d))  # noqa: E731
        self.net = seeded(build_quietly(build), generator)
        for p in self.net[2].parameters():  # type: ignore[index]
            nn.init.zeros_(p)

    def forward(self, reads: Looks | None = None) -> Tokens:
        assert reads is not None  # the engine gives what `reads` declares
        f = reads.features().float()
        shift = self.scale * self.net(f * f.shape[1] ** 0.5)
        return Tokens(side="text", layers={0: self.context + shift[:, None]}, per="input")

    def groups(self) -> list[Group]:
        network = list(self.net.parameters())
        return [Group("prompt", [self.context], unit=self.scale), Group("network", network, rate=self.rate)]

    def config_json(self) -> dict[str, Any]:
        return {"width": self.width, "scale": self.scale}


def build(config: CoCoOpConfig, problem: Problem) -> Recipe:
    model, g = problem.model, problem.generator
    start, rest = context(model, config.words, config.length, g)
    width = config.width or max(8, model.hidden // 16)
    maker = Conditional(start, model.hidden, width, model.scale, config.network_rate, g)
    return Recipe(maker, replace(problem.frame, template=around(len(start), rest=rest)))


def _empty(model: Sight, prompt: Conditioned) -> Conditional:
    held, generator = prompt.weights, torch.Generator()
    return Conditional(held["context"], model.hidden, **prompt.config, rate=1.0, generator=generator)


restore = Restoring("cocoop", _empty)


looking(
    name="cocoop",
    summary="a learned context that a small network moves with each picture",
    config=CoCoOpConfig,
    build=build,
    captions=True,
    restore=restore,
    paper="[Zhou et al. 2022](https://arxiv.org/abs/2203.05557)",
    training={"lr": 0.05, "epochs": 10, "batch": 8, "patience": 5},
)
