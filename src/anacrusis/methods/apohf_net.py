"""APOHF's network: a small one that is trained anew on all duels, and says which pair to ask about next.

Paper: Lin et al. 2024, https://arxiv.org/abs/2405.17346 (equations 2 and 3)
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence

import torch
from torch import Tensor

Parameters = tuple[Tensor, ...]  # weights and biases in turn: (E, 32), (32,), (32, 32), (32,), (32, 1), (1,)


def hashed(text: str, size: int) -> Tensor:
    """(size,) of length 1: words and pairs of words, each at a place and with a sign that its hash says."""
    words = re.findall(r"\w+", text.casefold())
    x = torch.zeros(size, dtype=torch.float64)
    for word in [*words, *(" ".join(p) for p in zip(words, words[1:], strict=False))]:
        n = int.from_bytes(hashlib.blake2b(word.encode(), digest_size=8).digest(), "big")
        x[n % size] += 1 if n >> 63 else -1
    return x / x.norm().clamp(min=1.0)


class Net:
    """f with its parameters. Everything in float64 on the CPU, so that a resumed run computes the same."""

    def __init__(self, size: int, seed: int, decay: float, passes: int):
        self.decay, self.passes = decay, passes
        generator = torch.Generator().manual_seed(seed)
        self.first: list[Tensor] = []
        for n, m in ((size, 32), (32, 32), (32, 1)):
            weight = torch.randn(n, m, generator=generator, dtype=torch.float64) * (2 / n) ** 0.5
            self.first += [weight, torch.zeros(m, dtype=torch.float64)]
        self.theta: Parameters = tuple(self.first)

    @staticmethod
    def value(theta: Parameters, x: Tensor) -> Tensor:
        """(K, E) -> (K,)"""
        for i in range(0, len(theta), 2):
            x = x @ theta[i] + theta[i + 1]
            x = x.relu() if i + 2 < len(theta) else x
        return x.squeeze(-1)

    def fit(self, x: Tensor, duels: Sequence[tuple[int, int]], wins: Sequence[float]) -> None:
        """From scratch, on all duels."""
        theta = [t.clone().requires_grad_() for t in self.first]
        a, b = (x[[d[k] for d in duels]] for k in (0, 1))
        y = torch.tensor(wins, dtype=torch.float64)
        optimiser = torch.optim.Adam(theta, lr=0.01)
        for _ in range(self.passes):
            optimiser.zero_grad()
            self.loss(tuple(theta), a, b, y).backward()
            optimiser.step()
        self.theta = tuple(t.detach() for t in theta)

    def loss(self, theta: Parameters, a: Tensor, b: Tensor, y: Tensor) -> Tensor:
        z = self.value(theta, a) - self.value(theta, b)
        fits = torch.nn.functional.binary_cross_entropy_with_logits(z, y, reduction="sum")
        return fits + self.decay * torch.stack([t.square().sum() for t in theta]).sum()

    def gradients(self, x: Tensor) -> Tensor:
        """(K, parameters) of f by theta."""
        each = torch.func.vmap(torch.func.grad(lambda t, row: self.value(t, row)), in_dims=(None, 0))(self.theta, x)
        return torch.cat([g.flatten(1) for g in each], 1)

    def next(self, x: Tensor, duels: Sequence[tuple[int, int]], n: int, nu: float) -> list[tuple[int, int]]:
        """Arm 1 against the n prompts with the largest upper bound."""
        f, g = self.value(self.theta, x), self.gradients(x)
        a, b = (g[[d[k] for d in duels]] for k in (0, 1))
        U = self.decay + (a - b).square().sum(0)
        one = int(f.argmax())
        bound = f + (nu * ((g - g[one]).square() / U).sum(1)).sqrt()
        bound[one] = -torch.inf
        return [(one, i) for i in bound.topk(min(n, len(f) - 1)).indices.tolist()]
