"""Decomposed prompt tuning: a short prompt, and a low-rank change of the input's own embeddings by position.

    x = [p ; E(text) + s O[0:T]]        O = c A B

    p: (P, H) trained; A: (M, r), B: (r, H) trained, M positions, O: (M, H); E(text): (B, T, H) frozen; s = alpha /
    sqrt(r); c: RMS of the embedding table. B starts at zero, so that at first it is prompt tuning.

Paper: Shi and Lipani 2023, https://arxiv.org/abs/2309.05173 (section 2); code ZhengxiangShi/DePT
Departure: positions count the caller's own tokens (special tokens included, the prompt and padding not), so padding
    on either side changes nothing; the paper pads every text to M on the right. M is cut to the longest training text:
    A's rows further back would stay random and shift tokens that nothing was learned for. A and B have no unit and c
    gives the size; the paper learns B in T5's own units. The defaults have as many parameters as 20 free vectors have
    (at H = 768 and M = 256), divided between prompt and offsets as in the paper's (40, 45).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from ..errors import ConfigError
from ..model.model import Reads
from ..prompt.values import Soft
from ..registry import Method, register
from ..tune import initial
from ..tune.makers import Group, Maker
from ..tune.recipe import Problem, Recipe


@dataclass(frozen=True, kw_only=True)
class DePTConfig:
    length: int = 8  # P, in tokens
    rank: int = 9  # r
    positions: int = 256  # M at most, in tokens of the input: later ones keep their embeddings
    alpha: float = 8.0  # s = alpha / sqrt(r)
    offset_rate: float = 0.02  # learning rate of A and B, relative to the prompt's
    init: Literal["vocab", "random", "text", "labels", "prompt"] = "vocab"
    source: str = ""  # the text for init=text, the prompt's folder for init=prompt

    def __post_init__(self) -> None:
        for name in ("length", "rank", "positions"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("alpha", "offset_rate"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"{name} must be above 0, got {getattr(self, name)}")


class Decomposed(Maker):
    """start: (P, H). positions: M. scale: c, which is also the unit of the prompt's steps."""

    def __init__(self, start: Tensor, positions: int, config: DePTConfig, scale: float, generator: torch.Generator):
        super().__init__()
        r, H = config.rank, start.shape[1]
        self.vectors = nn.Parameter(start.clone().float())
        self.A = nn.Parameter(torch.empty(positions, r).uniform_(-(r**-0.5), r**-0.5, generator=generator))
        self.B = nn.Parameter(torch.zeros(r, H))
        self.s, self.scale, self.rate = config.alpha * r**-0.5, scale, config.offset_rate

    def forward(self, reads: Reads | None = None) -> Soft:
        return Soft(vectors=self.vectors, offset=self.s * self.scale * (self.A @ self.B))

    def groups(self) -> list[Group]:
        return [Group("prompt", [self.vectors], unit=self.scale), Group("offset", [self.A, self.B], rate=self.rate)]


def build(config: DePTConfig, problem: Problem) -> Recipe:
    model, frame = problem.model, problem.frame
    start = initial.vectors(model, frame, config.length, config.init, config.source, problem.generator)
    M = min(config.positions, longest(problem))
    return Recipe(Decomposed(start, M, config, model.scale, problem.generator), frame)


def longest(problem: Problem, most: int = 2000) -> int:
    """Tokens of the longest training text as the frame lays it out (of about `most` texts, evenly drawn)."""
    some = problem.task.train[:: max(1, len(problem.task.train) // most)]
    rows = problem.model.renderer(problem.frame).rows(e.inputs for e in some)
    return max((len(r.codes) for r in rows), default=1)


register(
    Method(
        name="dept",
        summary="a short prompt, and low-rank offsets on the input's embeddings by position",
        config=DePTConfig,
        build=build,
        paper="[Shi and Lipani 2023](https://arxiv.org/abs/2309.05173)",
        training={"lr": 0.3},
    )
)
