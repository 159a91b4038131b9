"""ProGrad: a context is learned along the gradient of its loss, less what of it would undo general knowledge.

    g = g_d - k <g_d, u> u  where <g_d, g_g> < 0,  u = g_g / |g_g|;  g = g_d elsewhere;  for each tensor by itself
    g_d: gradient of CE(z, y);  g_g: of the general loss T^2 mean over b of -<softmax(z0_b / T), log softmax(z_b / T)>
    z, z0: (B, C) scores under the context and under the task's own template in words

Paper: Zhu et al. 2022, https://arxiv.org/abs/2205.14865
Departure: AdamW steps along g, in units of the token table's RMS, instead of SGD at 0.002; no augmentation, so that
    each image is encoded once for both scores; the best validation instead of the last step. One k = 1 for all (the
    paper takes 0.8 on three sets). A step's micro-batches are projected as one; processes each project their share.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from ..errors import ConfigError
from ..prompt.values import Frame
from ..registry import looking
from ..tune.makers import Free
from ..tune.recipe import Problem, Recipe, Term, View
from ..tune.sight_makers import WORDS, ContextMaker, around, context, plain


@dataclass(frozen=True, kw_only=True)
class ProGradConfig:
    length: int = 16  # M, in tokens; the last ones start at `words`, those before them at zero; 0: as `words` has
    words: str = WORDS  # where the vectors start; "": at random
    strength: float = 1.0  # k, share of the opposing part that is taken out, 0..1
    temperature: float = 1.0  # T, of the scores in the general loss

    def __post_init__(self) -> None:
        if self.length < 0 or (self.length == 0 and not self.words):
            raise ConfigError(f"length is {self.length}: give a number of vectors, or words to start from")
        if not 0 <= self.strength <= 1:
            raise ConfigError(f"strength must be in 0..1, got {self.strength}")
        if self.temperature <= 0:
            raise ConfigError(f"temperature must be above 0, got {self.temperature}")


def general(known: Frame, T: float) -> Callable[[View], Tensor]:
    """Cross entropy of the scores with those that a frame in words gives, at temperature T."""

    def value(view: View) -> Tensor:
        assert view.scores is not None
        said = view.model.match(view.model.features(view.batch), view.model.texts(known))
        return T**2 * F.cross_entropy(view.scores / T, torch.softmax(said.float() / T, 1))

    return value


class Aligned:
    """The gradient rule. Both gradients are summed over a step's micro-batches before they are compared."""

    def __init__(self, strength: float):
        self.strength = strength
        self.sums: list[tuple[Tensor, Tensor]] = []

    def __call__(self, losses: Mapping[str, Tensor], parameters: Sequence[Tensor]) -> None:
        own = torch.stack([v for k, v in losses.items() if k != "general"]).sum()
        found = [self._gradients(loss, parameters) for loss in (own, losses["general"])]
        first = all(p.grad is None for p in parameters)  # of this step: the trainer has cleared them
        self.sums = [
            (d, g) if first else (d + self.sums[i][0], g + self.sums[i][1])
            for i, (d, g) in enumerate(zip(*found, strict=True))
        ]
        for p, (d, g) in zip(parameters, self.sums, strict=True):
            p.grad = along(d, g, self.strength)

    @staticmethod
    def _gradients(loss: Tensor, parameters: Sequence[Tensor]) -> list[Tensor]:
        found = torch.autograd.grad(loss, list(parameters), retain_graph=True, allow_unused=True)
        return [torch.zeros_like(p) if g is None else g for p, g in zip(parameters, found, strict=True)]


def along(d: Tensor, g: Tensor, strength: float) -> Tensor:
    """d without what opposes g, two gradients of one tensor."""
    inner, size = (d * g).sum(), g.square().sum()
    return d - strength * inner / size * g if inner < 0 else d.clone()


def build(config: ProGradConfig, problem: Problem) -> Recipe:
    model, known = problem.model, plain(problem.frame)
    start, rest = context(model, config.words, config.length, problem.generator)
    if config.words:
        start[: -len(context(model, config.words, 0, problem.generator)[0])] = 0.0
    frame = replace(problem.frame, template=around(len(start), rest=rest))
    terms = (Term("general", 1.0, general(known, config.temperature)),)
    return Recipe(ContextMaker(Free(start), model.scale), frame, terms, direction=Aligned(config.strength))


looking(
    name="prograd",
    summary="a learned context that never moves against what the model knew",
    config=ProGradConfig,
    build=build,
    captions=True,
    paper="[Zhu et al. 2022](https://arxiv.org/abs/2205.14865)",
    kinds=frozenset({"classification"}),
    training={"lr": 0.05, "epochs": 50, "batch": 32, "patience": 10},
)
