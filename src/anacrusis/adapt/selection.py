"""Which views count, and what is made small on them. z: (V, C) logits, the plain view first."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

Select = Callable[[Tensor], Tensor]  # (V, C) -> indices of the views that count
Objective = Callable[[Tensor], Tensor]  # (v, C) -> scalar


def entropy(z: Tensor) -> Tensor:
    """(..., C) logits -> (...) nats of the softmax."""
    log = z.log_softmax(-1)
    return -(log.exp() * log).sum(-1)


def marginal_entropy(z: Tensor) -> Tensor:
    """Entropy of the mean probability over views: -sum_c pbar_c log pbar_c, pbar = mean_v softmax(z_v)."""
    log = z.log_softmax(-1).logsumexp(0) - torch.log(torch.tensor(float(len(z)), dtype=z.dtype, device=z.device))
    return -(log.exp() * log).sum()


@dataclass(frozen=True)
class Confident:
    """The share of views of least entropy, one at least."""

    share: float = 0.1

    def __call__(self, z: Tensor) -> Tensor:
        return entropy(z).argsort(stable=True)[: max(1, int(len(z) * self.share))]


@dataclass(frozen=True)
class Faithful:
    """First the share `near` of views whose logits are nearest (cosine) to the plain view's, and that view; of these
    the share of least entropy."""

    near: float = 0.8
    share: float = 0.3

    def __call__(self, z: Tensor) -> Tensor:
        alike = F.cosine_similarity(z[1:], z[:1], dim=-1)
        kept = alike.argsort(descending=True, stable=True)[: int(len(alike) * self.near)] + 1
        kept = torch.cat([kept.new_zeros(1), kept])
        return kept[Confident(self.share)(z[kept])]
