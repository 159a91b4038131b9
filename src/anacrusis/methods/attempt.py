"""ATTEMPT: each input gets its own mixture of frozen source prompts and a trained target prompt.

    P(x) = P_t + sum_j a_j P_j,    a = softmax(h . k_j / T),    h = LN(U silu(D x^)),    T = t sqrt(H) c

    P_t: (P, H) trained, P_j: (S + 1, P, H) the S frozen sources and P_t, k_j = max over P of P_j: (S + 1, H)
    x^ = max over T of E(text) / c: (B, H), D: (r, H), U: (H, r), h: (B, H), a: (B, S + 1), P(x): (B, P, H)
    c: RMS of the embedding table, t: the temperature

Paper: Asai et al. 2022, https://arxiv.org/abs/2205.11961 (section 3); code AkariAsai/ATTEMPT
Departure: the paper divides by e H = 2087, a number for T5's large embeddings; h . k_j grows with c sqrt(H) where both
    are unrelated, so t counts in that and e stays (at first the mixture is close to even). Padding takes no part in x^.
    Without sources given, they are drawn from the vocabulary. One task at a time: the attention is not shared.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ..errors import ConfigError, PromptError
from ..model.model import Model, Reads
from ..prompt.values import Conditioned, Soft
from ..registry import Method, register
from ..tune import initial
from ..tune.makers import ConditionedMaker, Group, Restoring, build_quietly, seeded
from ..tune.recipe import Problem, Recipe


@dataclass(frozen=True, kw_only=True)
class AttemptConfig:
    length: int = 20  # P, in tokens
    sources: tuple[str, ...] = ()  # folders of soft prompts for the same model
    count: int = 6  # S, sources drawn from the vocabulary where no folders are given
    bottleneck: int = 100  # r, hidden width of the attention's network
    temperature: float = math.e  # t, in units of sqrt(H) times the embedding table's RMS
    network_rate: float = 0.02  # learning rate of the attention's network, relative to the prompt's
    init: Literal["vocab", "random", "text", "labels", "prompt"] = "vocab"  # of the target prompt
    source: str = ""  # the text for init=text, the prompt's folder for init=prompt

    def __post_init__(self) -> None:
        object.__setattr__(self, "sources", tuple(self.sources))  # JSON knows lists only
        for name in ("length", "count", "bottleneck"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("temperature", "network_rate"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"{name} must be above 0, got {getattr(self, name)}")


class Mixture(ConditionedMaker):
    """target: (P, H). sources: (S, P, H), a buffer: saved with the prompt, never trained. scale: c."""

    method = "attempt"

    def __init__(
        self, target: Tensor, sources: Tensor, bottleneck: int, temperature: float, scale: float, rate: float,
        generator: torch.Generator,
    ):  # fmt: skip
        super().__init__()
        self.length, H = target.shape
        self.bottleneck, self.temperature, self.scale, self.rate = bottleneck, temperature, scale, rate
        self.target = nn.Parameter(target.clone().float())
        self.sources: Tensor
        self.register_buffer("sources", sources.clone().float())
        self.net = seeded(build_quietly(lambda: _network(H, bottleneck)), generator)

    def forward(self, reads: Reads | None = None) -> Soft:
        assert reads is not None  # the engine gives what `reads` declares
        every = torch.cat([self.sources, self.target[None]])  # (S + 1, P, H)
        a = self.attention(reads, every)
        return Soft(vectors=self.target + torch.einsum("bs,sph->bph", a, every))

    def attention(self, reads: Reads, every: Tensor) -> Tensor:
        """(B, S + 1): each input's shares of the prompts, which sum to 1."""
        e = reads.embeddings.float().masked_fill(~reads.mask[..., None], -math.inf)
        pooled = nn.functional.pad(e, (0, 0, 0, 1), value=-math.inf).amax(1)  # a column more: a text may be empty
        h = self.net(pooled.masked_fill(pooled.isneginf(), 0.0) / self.scale)
        keys = every.amax(1) / self.scale
        return torch.softmax(h @ keys.T / (self.temperature * h.shape[1] ** 0.5), dim=1)

    def groups(self) -> list[Group]:
        network = list(self.net.parameters())
        return [Group("prompt", [self.target], unit=self.scale), Group("network", network, rate=self.rate)]

    def config_json(self) -> dict[str, Any]:
        return {"bottleneck": self.bottleneck, "temperature": self.temperature, "scale": self.scale}


def _network(H: int, r: int) -> nn.Module:
    return nn.Sequential(nn.Linear(H, r, bias=False), nn.SiLU(), nn.Linear(r, H, bias=False), nn.LayerNorm(H))


def build(config: AttemptConfig, problem: Problem) -> Recipe:
    model, frame, g = problem.model, problem.frame, problem.generator
    target = initial.vectors(model, frame, config.length, config.init, config.source, g)
    notes: tuple[str, ...] = ()
    if config.sources:
        sources = [_source(model, folder, config.length) for folder in config.sources]
    else:
        sources = [initial.vectors(model, frame, config.length, "vocab", "", g) for _ in range(config.count)]
        notes = (
            f"no source prompts were given: {config.count} were drawn from the vocabulary. The method is made for "
            "prompts learned on other tasks: --set sources=FOLDER,FOLDER",
        )
    maker = Mixture(target, torch.stack(sources), config.bottleneck, config.temperature, model.scale,
                    config.network_rate, g)  # fmt: skip
    return Recipe(maker, frame, notes=notes)


def _source(model: Model, folder: str, length: int) -> Tensor:
    prompt = initial.loaded(model, folder)
    if not isinstance(prompt, Soft) or prompt.offset is not None:
        raise PromptError(f"{folder} is no source: it holds a {prompt.kind} prompt, or one with offsets; expected soft")
    return initial.cycle(prompt.vectors.float(), length)


def _empty(model: Model, prompt: Conditioned) -> Mixture:
    held = prompt.weights
    return Mixture(held["target"], held["sources"], **prompt.config, rate=1.0, generator=torch.Generator())


restore = Restoring("attempt", _empty)


register(
    Method(
        name="attempt",
        summary="a mixture of frozen source prompts and a trained one, weighed anew for each input",
        config=AttemptConfig,
        build=build,
        restore=restore,
        paper="[Asai et al. 2022](https://arxiv.org/abs/2205.11961)",
        training={"lr": 0.3},
    )
)
