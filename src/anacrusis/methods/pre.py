"""PRE: the context's vectors pass through a recurrent network beside a skip connection, so that they move together.

    v' = v + s LSTM(v / s),    t_c = g([v'_1 .. v'_M, name_c])
    v, v': (M, d); LSTM: one layer in both directions, d / 2 hidden units each; s: RMS of the token table

Vectors and network are trained together; when learning ends the network is folded away and v' is kept.

Paper: Minh et al. 2023, https://arxiv.org/abs/2309.07760
Departure: s, which is 1 in the paper, puts the network's input and output at the table's size. AdamW in units of s
    instead of SGD at 0.002; no augmentation; the best validation instead of the last step. The loss is cross entropy
    alone.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from ..errors import ConfigError
from ..registry import looking
from ..tune.makers import build_quietly, seeded
from ..tune.recipe import Problem, Recipe
from ..tune.sight_makers import WORDS, ContextMaker, around, context


@dataclass(frozen=True, kw_only=True)
class PREConfig:
    length: int = 0  # M, in tokens; 0: as many as `words` has
    words: str = WORDS  # where the vectors start; "": at random
    network_rate: float = 0.02  # learning rate of the network, relative to the vectors'

    def __post_init__(self) -> None:
        if self.length < 0 or (self.length == 0 and not self.words):
            raise ConfigError(f"length is {self.length}: give a number of vectors, or words to start from")
        if self.network_rate <= 0:
            raise ConfigError(f"network_rate must be above 0, got {self.network_rate}")


class Rewritten(nn.Module):
    """(M, d) = v + s LSTM(v / s). vectors: v."""

    def __init__(self, start: Tensor, scale: float, generator: torch.Generator):
        super().__init__()
        d = start.shape[1]
        self.vectors, self.scale = nn.Parameter(start.clone().float()), scale
        self.lstm = seeded(build_quietly(lambda: nn.LSTM(d, d // 2, bidirectional=True, batch_first=True)), generator)

    def forward(self) -> Tensor:
        return self.vectors + self.scale * self.lstm(self.vectors[None] / self.scale)[0][0]


def build(config: PREConfig, problem: Problem) -> Recipe:
    scale = problem.model.scale
    start, rest = context(problem.model, config.words, config.length, problem.generator)
    maker = ContextMaker(Rewritten(start, scale, problem.generator), scale, rate=config.network_rate)
    return Recipe(maker, replace(problem.frame, template=around(len(start), rest=rest)))


looking(
    name="pre",
    summary="a learned context through a recurrent network with a skip connection",
    config=PREConfig,
    build=build,
    captions=True,
    paper="[Minh et al. 2023](https://arxiv.org/abs/2309.07760)",
    training={"lr": 0.1, "epochs": 50, "batch": 32, "patience": 10},
)
