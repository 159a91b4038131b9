"""A prompt behind the input leaves the input's keys and values constant: compute them once per example.

The part of a row before its first virtual token (its lead) is run once; later passes give its keys and values as a
prefix of the row and run the rest of the row alone. Exact for causal models. Holds until the prompt changes the lead:
makers that read the input, offsets on embeddings and prefixes do, and are refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from ..model.model import Model, Placed, batches_by_length
from ..model.rows import Batch, Row, collate
from ..prompt.values import Prompt, Soft


def lead(row: Row) -> int:
    """Codes before the first virtual token (0 when there is none)."""
    return next((i for i, c in enumerate(row.codes) if c < 0), 0)


def applies(model: Model, prompt: Prompt, reads: str, rows: Sequence[Row]) -> bool:
    """Whether leads are constant and worth keeping."""
    return (
        model.arrangement == "causal"
        and isinstance(prompt, Soft)
        and prompt.offset is None
        and reads == "nothing"
        and all(lead(r) > 0 and min(r.at, default=0) >= lead(r) for r in rows)
        and getattr(model.config, "sliding_window", None) is None  # a window would hide part of a lead
    )


def gigabytes(model: Model, rows: Sequence[Row]) -> float:
    each = sum(2 * s.heads * s.dim for s in model.sites) * model.embeddings.element_size()
    return sum(lead(r) for r in rows) * each / 1e9


class Leads:
    """Keys and values of every row's lead, by the row's number."""

    def __init__(self, model: Model, rows: Sequence[Row], size: int = 32):
        self.model, self.rows = model, rows
        self.kept: list[list[tuple[Tensor, Tensor]]] = [[] for _ in rows]  # a layer: (heads, n, d) twice
        heads = [replace(r, codes=r.codes[: lead(r)], types=r.types[: lead(r)], at=(), targets=()) for r in rows]
        with torch.no_grad(), model.frozen():
            for index in batches_by_length(heads, size):
                batch = collate([heads[i] for i in index]).to(model.device)
                layers = model.keys_and_values(batch)["decoder"]
                for b, i in enumerate(index):
                    n = len(heads[i].codes)
                    self.kept[i] = [(k[b, :, :n].clone(), v[b, :, :n].clone()) for k, v in layers]

    def batch(self, index: Sequence[int], keep: int | None = None) -> tuple[Batch, Placed]:
        """What is left of the rows to run, and their leads as a prefix. keep: virtual tokens that this step uses."""
        tails, lengths = [], []
        for i in index:
            r, n = self.rows[i], lead(self.rows[i])
            r = r if keep is None else r.without(keep)
            lengths.append(n)
            tails.append(
                replace(r, codes=r.codes[n:], types=r.types[n:], at=tuple(a - n for a in r.at), inputs=r.inputs - n)
            )
        longest = max(lengths)
        keys: list[Tensor] = []
        values: list[Tensor] = []
        for layer in range(len(self.kept[index[0]])):
            for side, out in enumerate((keys, values)):
                rows = [self.kept[i][layer][side] for i in index]
                out.append(torch.stack([nn.functional.pad(t, (0, 0, 0, longest - t.shape[1])) for t in rows]))
        count = torch.tensor(lengths, device=self.model.device)
        seen = torch.arange(longest, device=self.model.device)[None] < count[:, None]
        every = {} if bool(seen.all()) else {"decoder": seen}
        placed = Placed(keys={"decoder": keys}, values={"decoder": values}, seen=every, shift=count)
        return collate(tails).to(self.model.device), placed
