"""UCB-E: the next cells go to the row that could be the best.

    bound_k = mean of what was seen of k + sqrt(a / n_k);  a = 1, n_k cells seen; full rows are out

Paper: Audibert et al. 2010 (COLT, Best Arm Identification in Multi-Armed Bandits); for prompts: Zhou et al. 2024,
    https://arxiv.org/abs/2407.06172 (algorithm 1); code kilian-group/banditeval
Departure: a first turn of `Table.first` cells for every row, so that a small budget reaches them all. Rows take their
    columns in one shared random order (the code draws for each row alone): fewer differences by luck of the draw.
"""

from __future__ import annotations

import numpy as np

from .table import Floats, How, Judged, Table

A = 1.0  # how much uncertainty counts


def bounds(table: Table, a: float = A) -> Floats:
    """(K,); infinite where nothing was seen, minus infinity where everything was."""
    counts = table.counts
    with np.errstate(divide="ignore"):
        bound = np.where(counts == 0, np.inf, np.nan_to_num(table.means()) + np.sqrt(a / counts))
    return np.where(table.open, bound, -np.inf)


def run(table: Table) -> Judged:
    for row in range(len(table.cells)):
        table.ask(row, table.order[: table.first])
    while table.left and table.open.any():
        row = int(np.argmax(bounds(table)))
        table.ask(row, table.unseen(row)[: min(table.batch, table.left)])
    return table.by_means()


HOW = How("ucb-e", "the next examples go to the prompt that could be the best",
          "https://arxiv.org/abs/2407.06172", run)  # fmt: skip
