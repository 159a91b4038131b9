"""P-tuning: the prompt's vectors are written by a small network that has no input, so that they depend on one another.

    p = g * MLP(BiLSTM(a))        a: (P, H) anchors, BiLSTM: two layers of H/2 a direction, MLP: H -> H -> H, p: (P, H)
    p = g * MLP(a)                encoder=mlp

The vectors stand where the template says: template="{soft:3}{text}{soft:3}" with length=6. Without slots they stand in
front. When learning ends the network is folded away: what is kept is p.

Paper: Liu et al. 2021, GPT Understands, Too, https://arxiv.org/abs/2103.10385 (section 3; the MLP is the released
    code's second encoder)
Departure: g is a fixed number that lets p start at the size of the embedding table, which the paper's tables happen to
    have and T5's does not. No dropout between the layers of the LSTM. The model stays frozen in every setting; the
    paper tunes it along on SuperGLUE. A network is trained with steps of lr / 50, its anchors with lr.
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
from ..tune.makers import Recurrent, SoftMaker, build_quietly, seeded
from ..tune.recipe import Problem, Recipe


@dataclass(frozen=True, kw_only=True)
class PTuningConfig:
    length: int = 20  # P, in tokens; as many as the template's {soft:N} slots ask for, where it has any
    encoder: Literal["lstm", "mlp"] = "lstm"  # what writes the vectors; only the LSTM lets them see one another

    def __post_init__(self) -> None:
        if self.length < 1:
            raise ConfigError(f"length must be at least 1 token, got {self.length}")
        if self.encoder not in ("lstm", "mlp"):
            raise ConfigError(f"encoder is {self.encoder!r}; it must be lstm or mlp")


class Perceptron(nn.Module):
    """(P, H) = U relu(A a + b) + u, each anchor by itself."""

    def __init__(self, anchors: Tensor, generator: torch.Generator):
        super().__init__()
        H = anchors.shape[1]
        self.anchors = nn.Parameter(anchors.clone().float())
        self.net = seeded(build_quietly(lambda: nn.Sequential(nn.Linear(H, H), nn.ReLU(), nn.Linear(H, H))), generator)

    def forward(self) -> Tensor:
        return self.net(self.anchors)


class Scaled(SoftMaker):
    """An encoder that works at unit size, its output brought to the embedding table's: `scale` is the RMS of p at the
    start."""

    def __init__(self, encoder: nn.Module, scale: float):
        super().__init__(encoder, 1.0)  # the anchors' own unit
        with torch.no_grad():
            self.gain = scale / float(encoder().square().mean().sqrt())

    def forward(self, reads: Reads | None = None) -> Soft:
        return Soft(vectors=self.gain * self.encoder())


def build(config: PTuningConfig, problem: Problem) -> Recipe:
    anchors = torch.randn(config.length, problem.model.hidden, generator=problem.generator)
    encoder = {"lstm": Recurrent, "mlp": Perceptron}[config.encoder](anchors, problem.generator)
    return Recipe(Scaled(encoder, problem.model.scale), problem.frame)


register(
    Method(
        name="p-tuning",
        summary="vectors written by an LSTM or MLP, anywhere in the template",
        config=PTuningConfig,
        build=build,
        races=True,
        paper="[Liu et al. 2021](https://arxiv.org/abs/2103.10385)",
        training={"lr": 0.1, "head_lr": 0.01},
    )
)
