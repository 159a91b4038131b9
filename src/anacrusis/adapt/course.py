"""What a method of learning in use hands to the engine: which prompts move, on what, by which rule, and when they are
put back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from ..prompt.values import Frame, Head
from ..tune.makers import Maker
from .selection import Confident, Objective, Select, marginal_entropy
from .views import Crops, Views


class Memory(Protocol):
    """What is remembered of pictures that have gone by."""

    def add(self, feature: Tensor, z: Tensor) -> None:
        """feature: (D,) of unit length; z: (C,) logits that it was answered with."""

    def more(self, feature: Tensor, z: Tensor) -> Tensor:
        """(C,) to be added to the logits of a picture with this feature."""

    def state(self) -> dict[str, Tensor]:
        """As tensors, to be put back by `load`."""

    def load(self, state: dict[str, Tensor]) -> None: ...


@dataclass
class Order:
    """The members of a pool, the one that has waited longest first."""

    waiting: list[int]

    def used(self, chosen: Sequence[int]) -> None:
        self.waiting = [i for i in self.waiting if i not in chosen] + [i for i in self.waiting if i in chosen]


Choose = Callable[[Tensor, Order], list[int]]  # (members, V, C) logits, order -> members that are tuned and asked


@dataclass(frozen=True, kw_only=True)
class Course:
    """members: prompts that move (one for most). views: V of them, the plain one among them. select: which count;
    chosen once a picture, before the first step. loss: of the selected views' logits. steps: of AdamW at lr (in units
    of the makers' groups), its state fresh for each picture. reset: put the members back after each picture.
    choose: which members of a pool a picture moves and is answered by; None: all. memory: of earlier pictures. head:
    of vision models, learned before and not moved."""

    frame: Frame
    members: Sequence[Maker] = ()
    make: Views = Crops()
    views: int = 64
    select: Select = Confident()
    loss: Objective = marginal_entropy
    steps: int = 1
    lr: float = 0.005
    weight_decay: float = 0.01
    reset: bool = True
    choose: Choose | None = None
    memory: Memory | None = None
    head: Head | None = None
