"""Prefix tuning: train P keys and values that stand before the model's own in every attention.

    attention(q, [Kp ; K], [Vp ; V])      Kp, Vp: (heads, P, d) of each layer, trained; K, V: the caller's own
    table (P, W), W = sum over attentions of 2 * heads * d: all Kp and Vp side by side
    encoder=free: the table itself is trained
    encoder=mlp:  table = c + U tanh(A a + b) + u        a: (P, H) anchors, A: H -> width, U: width -> W, c: fixed

An encoder-decoder has three kinds of attention (encoder, decoder and cross); each layer of each gets a prefix of its
own. `stacks` leaves some out. When learning ends the network is folded away: what is kept is the table.

Paper: Li & Liang 2021, https://arxiv.org/abs/2101.00190 (sections 4.2 and 4.3; start from real words: section 7.4)
Departure: the paper's table is the network's output alone, which forgets any start; c makes the table begin exactly at
    the chosen one. Free tables are the default: the paper found them unstable from a random start, but they are not
    from the keys and values of a text. Stacks that a head on the encoder never reads get no prefix.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ..errors import ConfigError
from ..registry import Method, register
from ..tune import initial
from ..tune.makers import MLP, Free, PrefixMaker
from ..tune.recipe import Problem, Recipe


@dataclass(frozen=True, kw_only=True)
class PrefixTuningConfig:
    length: int = 20  # P, in tokens
    init: Literal["text", "random", "prompt"] = "text"  # text: the model's own keys and values of a text
    source: str = ""  # init=text: the text (empty: words drawn from the vocabulary); init=prompt: the prompt's folder
    encoder: Literal["free", "mlp"] = "free"  # what makes the table: its values themselves, or a network
    width: int = 512  # hidden units of the network; the paper takes 512, and 800 for summaries
    stacks: tuple[str, ...] = ("encoder", "decoder", "cross")  # attentions that get a prefix, of those the model has

    def __post_init__(self) -> None:
        for name in ("length", "width"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name, known in (("init", ("text", "random", "prompt")), ("encoder", ("free", "mlp"))):
            if getattr(self, name) not in known:
                raise ConfigError(f"{name} is {getattr(self, name)!r}; it must be one of {', '.join(known)}")
        if not self.stacks or not set(self.stacks) <= {"encoder", "decoder", "cross"}:
            raise ConfigError(f"stacks is {', '.join(self.stacks) or 'empty'}; expected some of encoder,decoder,cross")


class Reparametrised(MLP):
    """(P, W) = c + U tanh(A a + b) + u, with c such that the table is `start` before the first step."""

    fixed: Tensor

    def __init__(self, start: Tensor, anchors: Tensor, width: int, generator: torch.Generator):
        super().__init__(anchors, width, start.shape[1], generator)
        self.register_buffer("fixed", start - super().forward().detach())

    def forward(self) -> Tensor:
        return self.fixed + super().forward()


def build(config: PrefixTuningConfig, problem: Problem) -> Recipe:
    model, P, generator = problem.model, config.length, problem.generator
    pooled = model.two_stacks and problem.frame.readout in ("head", "similarity")  # reads the encoder, runs no decoder
    sites = [s for s in model.sites if s.stack in config.stacks and (s.stack == "encoder" or not pooled)]
    if not sites:
        have = dict.fromkeys("encoder" if pooled else s.stack for s in model.sites)
        raise ConfigError(
            f"stacks={','.join(config.stacks)}: {model.name} reads its answer from {', '.join(have)} only"
        )
    table = initial.prefix(model, sites, P, config.init, config.source, generator)
    encoder: torch.nn.Module = Free(table)
    if config.encoder == "mlp":
        anchors = torch.randn(P, model.hidden, generator=generator)
        encoder = Reparametrised(table, anchors, config.width, generator)
    shift = P if model.takes_positions and model.arrangement == "causal" else 0
    return Recipe(PrefixMaker(encoder, sites, shift), problem.frame)


register(
    Method(
        name="prefix-tuning",
        summary="keys and values before every attention's own",
        config=PrefixTuningConfig,
        build=build,
        races=True,
        paper="[Li & Liang 2021](https://arxiv.org/abs/2101.00190)",
        needs=frozenset({"gradients", "prefixes"}),
        training={"lr": 0.03, "head_lr": 0.03},
    )
)
