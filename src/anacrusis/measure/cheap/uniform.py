"""Uniform: the same columns, drawn at random, for every row; the highest mean wins. The yardstick.

    n = floor(budget / K) columns;  estimate_k = (1 / n) sum over the n columns of x_kn

Rows are compared on the same examples, so what makes an example hard for all of them cancels out.
"""

from __future__ import annotations

from .table import How, Judged, Table


def run(table: Table) -> Judged:
    width = table.budget // len(table.cells)
    for row in range(len(table.cells)):
        table.ask(row, table.order[:width])
    return table.by_means()


HOW = How("uniform", "the same random examples for every prompt", "yardstick", run)
