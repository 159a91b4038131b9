"""TPT: tune the context of the class texts on one picture, so that its views agree, then answer and forget.

    views x_1 .. x_V of one picture; keep the share of least entropy; pbar = mean over these of softmax(s <f(x_v), t>)
    loss = -sum_c pbar_c log pbar_c;   one step of AdamW on the context v (M, d) from its start;   answer the plain view

Paper: Shu et al. 2022, https://arxiv.org/abs/2209.07511
Departure: views are crops of the prepared picture, bilinear; the step size is 0.005 in the table's own units on CLIP
    (whose table has an RMS of about 0.02), so the option says it in multiples of the RMS and suits other models too.
    The first step's class features are computed once for all pictures, and only their way back for each: exact.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor

from ..adapt.course import Course
from ..adapt.selection import Confident
from ..adapt.views import Crops
from ..errors import ConfigError, PromptError
from ..prompt import store
from ..prompt.values import Frame, Tokens
from ..registry import looking
from ..tune.makers import Free
from ..tune.recipe import Problem
from ..tune.sight_makers import WORDS, ContextMaker, around, context


@dataclass(frozen=True, kw_only=True)
class TPTConfig:
    words: str = WORDS  # where the context starts
    start: str = ""  # the folder of a learned context (coop, kgcoop, ...) to start from, instead of words
    views: int = 64  # V, the plain picture among them
    share: float = 0.1  # of the views, those of least entropy
    steps: int = 1  # of AdamW for each picture
    lr: float = 0.25  # per step, in units of the token table's RMS
    smallest: float = 0.3  # of a crop's area, as a share of the picture's
    mix: bool = False  # blend views with changes of light and colour (the paper: fine-grained data only)

    def __post_init__(self) -> None:
        if self.views < 1 or self.steps < 1 or not 0 < self.share <= 1:
            raise ConfigError(
                f"views={self.views}, steps={self.steps}, share={self.share}: expected at least 1 view and 1 step, "
                "and a share above 0 and at most 1"
            )


def beginning(words: str, start: str, problem: Problem) -> tuple[Tensor, Frame]:
    """(M, d) where the context starts, and the frame with its template."""
    if not start or problem.task is None:  # a prompt that is run again holds its start: only shapes matter
        vectors, rest = context(problem.model, words, 0, problem.generator)
        if problem.task is None:
            return vectors, problem.frame
        return vectors, replace(problem.frame, template=around(len(vectors), "end", rest))
    prompt = store.load(start)
    store.check(prompt, problem.model.name, problem.model.fingerprint)
    if not isinstance(prompt, Tokens) or prompt.side != "text" or prompt.per != "all" or len(prompt.layers) != 1:
        raise PromptError(f"{start} holds a {prompt.kind} prompt; a learned context of class texts (coop) is needed")
    return prompt.layers[0], replace(problem.frame, template=prompt.frame.template)


def build(config: TPTConfig, problem: Problem) -> Course:
    vectors, frame = beginning(config.words, config.start, problem)
    return Course(
        frame=frame, members=[ContextMaker(Free(vectors), problem.model.scale)],
        make=Crops(config.smallest, config.mix), views=config.views, select=Confident(config.share),
        steps=config.steps, lr=config.lr,
    )  # fmt: skip


looking(
    name="tpt",
    summary="test-time prompt tuning: each picture's views are made to agree, then all is forgotten",
    config=TPTConfig,
    build=build,
    paper="[Shu et al. 2022](https://arxiv.org/abs/2209.07511)",
    engine="adapt",
    kinds=frozenset({"classification"}),
)
