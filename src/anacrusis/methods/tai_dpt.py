"""Texts as images: a context is learned from captions alone, which stand where pictures will stand later.

    z_c = 4 <g(caption), t_c>;   loss = mean over captions of sum over i in its classes, j not of max(0, 1 - z_i + z_j)
    g(caption): (B, D) by the text tower, frozen; t_c = g([v_1 .. v_M, name_c]), v: (M, d) learned

The task is one of texts with labels; the prompt that comes out answers pictures as well.

Paper: Guo et al. 2023, https://arxiv.org/abs/2211.12739
Departure: the global context only: the paper's second, local one compares a caption's tokens, and an image's patches,
    with the classes. Labels come with the task instead of being looked up among the caption's nouns. AdamW.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..errors import ConfigError
from ..registry import looking
from ..tune.makers import Free
from ..tune.recipe import Problem, Recipe, Term, View, backward
from ..tune.sight_makers import ContextMaker, around, context


@dataclass(frozen=True, kw_only=True)
class TaIDPTConfig:
    length: int = 16  # M, in tokens
    words: str = ""  # where the vectors start; "": at random
    scale: float = 4.0  # of the cosines in the loss
    margin: float = 1.0  # by which a class of the caption should be above any other


def ranking(z: Tensor, held: Tensor, margin: float = 1.0) -> Tensor:
    """(B, C) scores and 0/1 golds -> mean over rows of the sum over pairs of max(0, margin - z_i + z_j)."""
    pairs = (margin - z[:, :, None] + z[:, None, :]).clamp(min=0)
    return (pairs * held[:, :, None] * (1 - held)[:, None, :]).sum((1, 2)).mean()


def by_terms(losses: Mapping[str, Tensor], parameters: Sequence[Tensor]) -> None:
    """The usual direction, of the terms alone: the ranking stands in the place of the answer's own loss."""
    backward({k: v for k, v in losses.items() if k != "answer"}, parameters)


def build(config: TaIDPTConfig, problem: Problem) -> Recipe:
    if problem.task.images is not None:
        raise ConfigError(
            "tai-dpt learns from texts with labels, such as captions; this task has pictures. Give it the captions, "
            "and evaluate the prompt on the pictures"
        )
    start, rest = context(problem.model, config.words, config.length, problem.generator)
    frame = replace(problem.frame, template=around(len(start), "end", rest))

    def value(view: View) -> Tensor:
        cosines = view.seen.image @ view.seen.text.T
        held = view.golds if view.golds.dim() == 2 else torch.eye(cosines.shape[1], device=cosines.device)[view.golds]
        return ranking(config.scale * cosines, held.to(cosines), config.margin)

    maker = ContextMaker(Free(start), problem.model.scale)
    return Recipe(maker, frame, (Term("ranking", 1.0, value),), direction=by_terms)


looking(
    name="tai-dpt",
    summary="a context learned from captions, which stand where pictures will stand",
    config=TaIDPTConfig,
    build=build,
    captions=True,
    paper="[Guo et al. 2023](https://arxiv.org/abs/2211.12739)",
    training={"lr": 0.05, "epochs": 30, "batch": 32, "patience": 10},
)
