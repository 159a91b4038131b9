"""Texts that begin alike share the keys and values of their beginning: over examples, and over candidates.

Exact for causal models with full attention: what stands before a token does not depend on it. Candidates are best
visited in the order of their codes; then each computes only what its neighbour does not have (a walk through the tree
of their prefixes).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from ..prompt.values import Prefix, Text
from .model import Model
from .rows import Row, collate


def can_share(model: Model) -> bool:
    return model.arrangement == "causal" and bool(model.sites) and getattr(model.config, "sliding_window", None) is None


def common(rows: Sequence[Sequence[int]]) -> int:
    """Length of the longest shared beginning."""
    low, high = min(map(tuple, rows)), max(map(tuple, rows))
    return next((i for i, (a, b) in enumerate(zip(low, high, strict=False)) if a != b), min(len(low), len(high)))


class Trunk:
    """Keys and values of one sequence of tokens, layer by layer (1, heads, n, d); regrown where a new one branches."""

    def __init__(self, model: Model):
        self.model = model
        self.codes: tuple[int, ...] = ()
        self.layers: list[tuple[Tensor, Tensor]] = []
        self.computed = 0  # tokens that went through the network, for the tests

    def _prefix(self, n: int) -> Prefix:
        keys = tuple(k[0, :, :n] for k, _ in self.layers)
        return Prefix(keys={"decoder": keys}, values={"decoder": tuple(v[0, :, :n] for _, v in self.layers)}, shift=n)

    @torch.no_grad()
    def grow(self, codes: tuple[int, ...]) -> Prefix:
        """Keys and values of `codes`. What this trunk shares with them is not computed again."""
        keep = common([self.codes, codes]) if self.codes else 0
        if keep < len(codes):
            rest = codes[keep:]
            batch = collate([Row(rest, (0,) * len(rest), inputs=len(rest))]).to(self.model.device)
            placed = self.model.place(self._prefix(keep), batch) if keep else None
            new = self.model.keys_and_values(batch, placed)["decoder"]
            self.computed += len(rest)
            old = self.layers or [(k[:, :, :0], v[:, :, :0]) for k, v in new]
            self.layers = [
                (torch.cat([k0[:, :, :keep], k], 2), torch.cat([v0[:, :, :keep], v], 2))
                for (k0, v0), (k, v) in zip(old, new, strict=True)
            ]
            self.codes = codes
        return self._prefix(len(codes))


def split(rows: Sequence[Row], trunk: Trunk, least: int = 8) -> tuple[list[Row], Prefix | Text]:
    """Rows without what they all begin with, and that beginning as a Prefix. Fewer than `least` shared tokens are not
    worth it: then the rows as they are, and an empty prompt."""
    n = min(common([r.codes for r in rows]), min(len(r.codes) for r in rows) - 1) if len(rows) > 1 else 0
    if n < least:
        return list(rows), Text()
    prefix = trunk.grow(rows[0].codes[:n])
    cut = [
        replace(r, codes=r.codes[n:], types=r.types[n:], at=tuple(a - n for a in r.at), inputs=max(0, r.inputs - n))
        for r in rows
    ]
    if any(a < 0 for r in cut for a in r.at):  # the answer is read inside the shared part: nothing differs before it
        return list(rows), Text()
    return cut, prefix
