"""Successive halving: everybody is seen on a few columns, the better half on more, until one is left.

    R = ceil(log2 K) rounds. A round gives each of its S survivors floor(s / S) further columns, the same for all of
    them; the ceil(S / 2) with the highest means go on. s: cells a round, the largest that keeps all within the budget

Paper: Karnin et al. 2013 (ICML, Almost Optimal Exploration in Multi-Armed Bandits); Jamieson and Talwalkar 2016,
    https://arxiv.org/abs/1502.07943 (algorithm 1: what a survivor has shown before still counts)
Departure: there are only N columns. What late rounds cannot use goes to the early ones; the papers draw without end.
    All rows of a round are seen on the same columns.
"""

from __future__ import annotations

import math

import numpy as np

from .table import How, Judged, Table


def plan(rows: int, columns: int, budget: int) -> list[tuple[int, int]]:
    """(survivors, columns seen of each at its end) of every round; budget >= rows."""

    def rounds(share: int) -> list[tuple[int, int]]:
        found, width, alive = [], 0, rows
        for turn in range(max(1, math.ceil(math.log2(rows)))):
            width = min(columns, max(width + share // alive, 1 if turn == 0 else 0))
            found.append((alive, width))
            alive = math.ceil(alive / 2)
        return found

    def cost(share: int) -> int:
        before, total = 0, 0
        for alive, width in rounds(share):
            total, before = total + alive * (width - before), width
        return total

    low, high = 0, rows * columns  # cost grows with the share: the largest one that fits
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if cost(middle) <= budget else (low, middle - 1)
    return rounds(low)


def run(table: Table) -> Judged:
    k, n = table.cells.shape
    alive, before = np.arange(k), 0
    for survivors, width in plan(k, n, table.budget):
        assert survivors == len(alive)
        for row in alive:
            table.ask(int(row), table.order[before:width])
        better = np.argsort(-np.round(table.means()[alive], 12), kind="stable")  # ties: the smaller index
        alive, before = np.sort(alive[better[: math.ceil(survivors / 2)]]), width
    return table.by_means(int(alive[0]))


HOW = How("halving", "drop the worse half, see the others on more examples, and again",
          "Karnin et al. 2013; https://arxiv.org/abs/1502.07943", run)  # fmt: skip
