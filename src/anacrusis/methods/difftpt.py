"""DiffTPT: TPT whose views come from a generator too, kept where they are both faithful to the picture and confident.

    views: crops, and variations of the picture that a generator makes
    of all views the 80 % whose logits have the highest cosine to the plain view's, of these the 30 % of least entropy;
    loss and answer as in TPT, 4 steps; the views are chosen once, before the first

Paper: Feng et al. 2023, https://arxiv.org/abs/2308.06038
Departure: the generator is yours: `generator` names a function (pixels, number, random generator) -> views (see
    adapt.views), such as one that wraps a diffusion model. Without one, crops with changed light and colour stand in.
    Features are computed once for all steps: exact, as only the texts move.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..adapt.course import Course
from ..adapt.selection import Faithful
from ..adapt.views import Crops, Joined, find
from ..errors import ConfigError
from ..registry import looking
from ..tune.makers import Free
from ..tune.recipe import Problem
from ..tune.sight_makers import WORDS, ContextMaker
from .tpt import beginning


@dataclass(frozen=True, kw_only=True)
class DiffTPTConfig:
    words: str = WORDS  # where the context starts
    start: str = ""  # the folder of a learned context to start from, instead of words
    generator: str = "mixed-crops"  # a registered view maker, or package.module:function
    views: int = 128  # V in all, half of them from the generator
    near: float = 0.8  # of the views, those most like the plain one
    share: float = 0.3  # of these, the ones of least entropy
    steps: int = 4  # of AdamW for each picture
    lr: float = 0.25  # per step, in units of the token table's RMS
    smallest: float = 0.3  # of a crop's area, as a share of the picture's

    def __post_init__(self) -> None:
        shares = min(self.near, self.share) > 0 and max(self.near, self.share) <= 1
        if self.views < 2 or self.steps < 1 or not shares:
            raise ConfigError(
                f"views={self.views}, steps={self.steps}, near={self.near}, share={self.share}: expected at least 2 "
                "views, 1 step, and shares above 0 and at most 1"
            )


def build(config: DiffTPTConfig, problem: Problem) -> Course:
    vectors, frame = beginning(config.words, config.start, problem)
    return Course(
        frame=frame, members=[ContextMaker(Free(vectors), problem.model.scale)],
        make=Joined(Crops(config.smallest), find(config.generator, imports=problem.task is not None)),
        views=config.views,
        select=Faithful(config.near, config.share), steps=config.steps, lr=config.lr,
    )  # fmt: skip


looking(
    name="difftpt",
    summary="test-time prompt tuning with generated views, kept where faithful and confident",
    config=DiffTPTConfig,
    build=build,
    paper="[Feng et al. 2023](https://arxiv.org/abs/2308.06038)",
    engine="adapt",
    kinds=frozenset({"classification"}),
)
