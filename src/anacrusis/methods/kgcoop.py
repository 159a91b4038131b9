"""KgCoOp: a learned context, held where the class features stay near those of a text in words.

    loss = CE(z, y) + w (1 - mean over c of <t_c, t0_c>)
    t: (C, D) class features under the context, t0: (C, D) under the task's own template, both of unit length

For unit vectors 1 - <t, t0> is half the squared distance: w = 8 is 4 times the mean squared distance.

Paper: Yao et al. 2023, https://arxiv.org/abs/2303.13283
Departure: AdamW in units of the token table's RMS instead of SGD at 0.002; no augmentation, so that each image is
    encoded once; the best validation instead of the last step.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from torch import Tensor

from ..errors import ConfigError
from ..prompt.values import Frame
from ..registry import looking
from ..tune.makers import Free
from ..tune.recipe import Problem, Recipe, Term, View
from ..tune.sight_makers import WORDS, ContextMaker, around, context, plain


@dataclass(frozen=True, kw_only=True)
class KgCoOpConfig:
    length: int = 0  # M, in tokens; 0: as many as `words` has
    words: str = WORDS  # where the vectors start; "": at random
    weight: float = 8.0  # w, of the distance to the features of the text in words

    def __post_init__(self) -> None:
        if self.length < 0 or (self.length == 0 and not self.words):
            raise ConfigError(f"length is {self.length}: give a number of vectors, or words to start from")
        if self.weight < 0:
            raise ConfigError(f"weight must be 0 or more, got {self.weight}")


def away(known: Frame) -> Callable[[View], Tensor]:
    """1 - mean over classes of the cosine between the features under the prompt and those of a frame in words."""
    return lambda view: 1 - (view.seen.text * view.model.texts(known)).sum(-1).mean()


def build(config: KgCoOpConfig, problem: Problem) -> Recipe:
    start, rest = context(problem.model, config.words, config.length, problem.generator)
    frame = replace(problem.frame, template=around(len(start), rest=rest))
    terms = (Term("knowledge", config.weight, away(plain(problem.frame))),)
    return Recipe(ContextMaker(Free(start), problem.model.scale), frame, terms if config.weight else ())


looking(
    name="kgcoop",
    summary="a learned context whose class features stay near those of a text in words",
    config=KgCoOpConfig,
    build=build,
    races=True,
    captions=True,
    paper="[Yao et al. 2023](https://arxiv.org/abs/2303.13283)",
    training={"lr": 0.1, "epochs": 50, "batch": 32, "patience": 10},
)
