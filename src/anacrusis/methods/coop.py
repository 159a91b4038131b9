"""CoOp: the words around a class's name become vectors that are learned; both towers stay frozen.

    t_c = g([v_1 .. v_M, name_c]),    z_c = s <f(x), t_c>,    loss = CE(z, y)
    v: (M, d), the same for all classes, or (C, M, d); f(x): (B, D), t: (C, D), of unit length; s: the model's scale

Paper: Zhou et al. 2022, https://arxiv.org/abs/2109.01134
Departure: AdamW in units of the token table's RMS instead of SGD at 0.002; no augmentation, so that each image is
    encoded once (the paper draws crops and flips); the best validation instead of the last step. A text to start from
    gives as many vectors as it has tokens; the released code counts words.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from ..errors import ConfigError
from ..registry import looking
from ..tune.makers import Free
from ..tune.recipe import Problem, Recipe
from ..tune.sight_makers import WORDS, ContextMaker, around, context


@dataclass(frozen=True, kw_only=True)
class CoOpConfig:
    length: int = 0  # M, in tokens; 0: as many as `words` has
    words: str = WORDS  # where the vectors start; "": at random
    position: Literal["end", "middle", "front"] = "end"  # where the class's name stands
    class_specific: bool = False  # vectors of its own for every class; such a prompt serves no other classes

    def __post_init__(self) -> None:
        if self.length < 0 or (self.length == 0 and not self.words):
            raise ConfigError(f"length is {self.length}: give a number of vectors, or words to start from")


def build(config: CoOpConfig, problem: Problem) -> Recipe:
    start, rest = context(problem.model, config.words, config.length, problem.generator)
    frame = replace(problem.frame, template=around(len(start), config.position, rest))
    if config.class_specific:
        start = start.expand(len(frame.labels), -1, -1)
    return Recipe(ContextMaker(Free(start), problem.model.scale, "class" if config.class_specific else "all"), frame)


looking(
    name="coop",
    summary="learned context vectors around the class names of a dual encoder",
    config=CoOpConfig,
    build=build,
    races=True,
    captions=True,
    paper="[Zhou et al. 2022](https://arxiv.org/abs/2109.01134)",
    training={"lr": 0.05, "epochs": 50, "batch": 32, "patience": 10},
)
