"""DynaPrompt: a pool of contexts that learn online; each picture moves and is answered by those that suit it.

    H_i = mean over views of the entropy under prompt i;   D_i = mean over views of p_max(plain) - p_max(view)
    r = the prompt that has waited longest; chosen: r, and every i with H_i < H_r and D_i > D_r
    each chosen prompt takes TPT's step on its own most confident views; answer: the mean of their logits
    the chosen go to the end of the order; when all have been used, the one that waits longest starts anew

Paper: Xiao et al. 2025, https://arxiv.org/abs/2501.16404
Departure: D is taken on probabilities, as its name says (the released code takes logits); ties are not chosen, so that
    prompts that are still equal do not move as one.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ..adapt.course import Course, Order
from ..adapt.selection import Confident, entropy
from ..adapt.views import Crops
from ..errors import ConfigError
from ..registry import looking
from ..tune.makers import Free
from ..tune.recipe import Problem
from ..tune.sight_makers import WORDS, ContextMaker
from .tpt import beginning


@dataclass(frozen=True, kw_only=True)
class DynaPromptConfig:
    words: str = WORDS  # where every context starts
    start: str = ""  # the folder of a learned context to start from, instead of words
    size: int = 12  # prompts in the pool
    views: int = 64  # V, the plain picture among them
    share: float = 0.1  # of the views, those of least entropy
    lr: float = 0.25  # per step, in units of the token table's RMS
    smallest: float = 0.3  # of a crop's area, as a share of the picture's

    def __post_init__(self) -> None:
        if self.size < 1:
            raise ConfigError(f"size is {self.size}; a pool has at least 1 prompt")


def choose(z: Tensor, order: Order) -> list[int]:
    """z: (members, V, C). The one that has waited longest, and those that are surer and tell views apart better."""
    H = entropy(z).mean(1)
    top = z.softmax(-1).amax(-1)
    D = (top[:, :1] - top).mean(1)
    r = order.waiting[0]
    return [i for i in range(len(z)) if i == r or (H[i] < H[r] and D[i] > D[r])]


def build(config: DynaPromptConfig, problem: Problem) -> Course:
    vectors, frame = beginning(config.words, config.start, problem)
    return Course(
        frame=frame, members=[ContextMaker(Free(vectors), problem.model.scale) for _ in range(config.size)],
        make=Crops(config.smallest), views=config.views, select=Confident(config.share), lr=config.lr, reset=False,
        choose=choose,
    )  # fmt: skip


looking(
    name="dynaprompt",
    summary="a pool of contexts that learn online, each picture choosing those that suit it",
    config=DynaPromptConfig,
    build=build,
    paper="[Xiao et al. 2025](https://arxiv.org/abs/2501.16404)",
    engine="adapt",
    kinds=frozenset({"classification"}),
)
