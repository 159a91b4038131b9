"""DAPT: a context and rows of the image tower, learned so that classes stand apart and their pictures together.

    loss = CE(z, y) + w_f mean over b of |f(x_b) - p_y|^2 + w_t mean over c < c' of exp(-2 |t_c - t_c'|^2)
    f: (B, D) image features with K rows in the tower, t: (C, D) under a context of M vectors, both of unit length
    p: (C, D), the mean of each class's frozen training features, which is shorter than 1

Paper: Cho et al. 2023, https://arxiv.org/abs/2309.03406
Departure: AdamW in units of each side's own values instead of SGD with a rate for each data set (0.002 to 20), and one
    pair of weights instead of one for each; w_f counts the squared length, as the paper writes it (the released code
    divides by D). No augmentation, so that p is exact; the best validation instead of the last step.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import isqrt
from typing import Any

import torch
from torch import Tensor

from ..errors import ConfigError
from ..model.images import TOGETHER, ImageBatch, rows_of
from ..registry import looking
from ..tune.makers import Free
from ..tune.recipe import Problem, Recipe, Term, View
from ..tune.sight_makers import ContextMaker, PairMaker, RowsMaker, around, context


@dataclass(frozen=True, kw_only=True)
class DAPTConfig:
    length: int = 16  # M, in tokens; 0: as many as `words` has
    words: str = ""  # where the text's vectors start; "": at random
    rows: int = 16  # K, of the image tower
    together: float = 0.1  # w_f, of the distance of a picture's features from its class's mean
    apart: float = 0.01  # w_t, of the closeness of class features

    def __post_init__(self) -> None:
        if self.length < 0 or (self.length == 0 and not self.words):
            raise ConfigError(f"length is {self.length}: give a number of vectors, or words to start from")
        if self.rows < 1:
            raise ConfigError(f"rows must be at least 1, got {self.rows}")
        for name in ("together", "apart"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name} must be 0 or more, got {getattr(self, name)}")


def prototypes(model: Any, task: Any) -> Tensor:
    """(C, D): the mean of each class's frozen training features. 0 for a class without a picture."""
    total = torch.zeros(len(task.labels), model.hidden, device=model.device)
    count = torch.zeros(len(task.labels), 1, device=model.device)
    with torch.no_grad(), model.frozen():
        for start in range(0, len(task.train), TOGETHER):
            some = task.train[start : start + TOGETHER]
            rows = rows_of([e.inputs for e in some], model.prepare)
            golds = torch.tensor([e.gold for e in some], device=model.device)
            total.index_add_(0, golds, model.features(ImageBatch(rows, model.prepare, model.device, model.dtype)))
            count.index_add_(0, golds, torch.ones(len(some), 1, device=model.device))
    return total / count.clamp(min=1)


def spread(means: Tensor) -> Callable[[View], Tensor]:
    """The mean squared distance of pictures from their class's mean. means: (C, D)."""
    return lambda view: (view.seen.image - means[view.golds]).square().sum(1).mean()


def crowding(view: View) -> Tensor:
    """The mean over pairs of classes of exp(-2 |t_c - t_c'|^2)."""
    return torch.exp(-2 * torch.pdist(view.seen.text).square()).mean()


def build(config: DAPTConfig, problem: Problem) -> Recipe:
    model, g = problem.model, problem.generator
    start, rest = context(model, config.words, config.length, g)
    patch = model.prepare.size // isqrt(model.image.enter(model.grey()).shape[1])  # pixels a side
    width = model.image.tower.width
    seen = (6 / (3 * patch**2 + width)) ** 0.5 * (2 * torch.rand(config.rows, width, generator=g) - 1)
    maker = PairMaker(
        ContextMaker(Free(start), model.scale),
        RowsMaker({0: seen}, "image", model.row_scale, entry="after-norm"),
    )
    terms = (
        Term("together", config.together, spread(prototypes(model, problem.task))),
        Term("apart", config.apart, crowding),
    )
    frame = replace(problem.frame, template=around(len(start), rest=rest))
    return Recipe(maker, frame, tuple(t for t in terms if t.weight))


looking(
    name="dapt",
    summary="a context and rows of the image tower that draw classes apart and their pictures together",
    config=DAPTConfig,
    build=build,
    paper="[Cho et al. 2023](https://arxiv.org/abs/2309.03406)",
    needs=frozenset({"gradients", "class-texts", "tokens"}),
    kinds=frozenset({"classification"}),
    training={"lr": 0.05, "epochs": 50, "batch": 32, "patience": 10},
)
