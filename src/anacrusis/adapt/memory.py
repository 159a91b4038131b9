"""What is remembered of pictures that have gone by: for each class the surest ones that were answered with it."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass
class ByClass:
    """Up to `most` pictures of each class, those answered with the highest probability.

    Subclasses say what a new picture gets from them (`more`). features: by class a list of (sureness, feature (D,),
    log-probabilities (C,)).
    """

    classes: int
    most: int
    kept: list[list[tuple[float, Tensor, Tensor]]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.kept = self.kept or [[] for _ in range(self.classes)]

    def add(self, feature: Tensor, z: Tensor) -> None:
        log = z.float().log_softmax(-1)
        sure, c = log.max(-1)
        mine = self.kept[int(c)]
        mine.append((float(sure), feature.detach().cpu(), log.detach().cpu()))
        mine.sort(key=lambda one: -one[0])  # stable: of equals the earlier stays
        del mine[self.most :]

    def more(self, feature: Tensor, z: Tensor) -> Tensor:
        return torch.zeros_like(z)

    def state(self) -> dict[str, Tensor]:
        every = [(c, *one) for c, mine in enumerate(self.kept) for one in mine]
        if not every:
            return {}
        return {"class": torch.tensor([e[0] for e in every]), "sure": torch.tensor([e[1] for e in every]),
                "feature": torch.stack([e[2] for e in every]), "log": torch.stack([e[3] for e in every])}  # fmt: skip

    def load(self, state: dict[str, Tensor]) -> None:
        self.kept = [[] for _ in range(self.classes)]
        for i in range(len(state.get("class", ()))):
            one = (float(state["sure"][i]), state["feature"][i], state["log"][i])
            self.kept[int(state["class"][i])].append(one)


def divergence(p: Tensor, q: Tensor) -> Tensor:
    """KL(p || q) of log-probabilities (..., C), in nats."""
    return F.kl_div(q, p, log_target=True, reduction="none").sum(-1)
