"""UCB-E with a low-rank factorisation: unseen cells are predicted from the others, and so are the bounds.

    x_kn ~ u_k v_n by alternating least squares, w_kn = 1 where seen and not dropped, r = 1, m the mean of all seen:
    u_k = (sum_n w_kn x_kn v_n + r m) / (sum_n w_kn v_n^2 + r)
    v_n = (sum_k w_kn x_kn u_k + r) / (sum_k w_kn u_k^2 + r)
    E = 64 such fits, each without another 5 % of the seen cells; mean m_kn and deviation s_kn over the fits
    value_kn = x_kn where seen, else m_kn + 5 s_kn;  bound_k = mean over n of value_kn;  estimate_k = the same without s

First 5 % of all cells, at random; then the row of the highest bound is seen on those of its unseen columns where the
fits disagree most.

Paper: Zhou et al. 2024, https://arxiv.org/abs/2407.06172 (algorithm 2); code kilian-group/banditeval
Departure: v starts positive and the ridge pulls u to the mean and v to 1; the paper's (0.1, to 0, as far as we know
    from normal random starts) predicts 0 for examples that nobody has seen, and chose worse than uniform at 5 %
    (docs/cheap.md). The random start takes as many cells of every row, and at most half of the budget. The fits are
    made anew when a tenth more cells was seen, not after every batch; seen values count at once. Estimates are cut to
    [0, 1].
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from .table import Floats, How, Judged, Table, top

FITS, ROUNDS, RIDGE, DROPPED = 64, 10, 1.0, 0.05
START, OPTIMISM, AGAIN = 0.05, 5.0, 0.1  # share of cells at random; deviations in a bound; growth between fits


class Factors(NamedTuple):
    mean: Floats  # (K, N)
    deviation: Floats  # (K, N)


def factorise(cells: Floats, rng: np.random.Generator, *, ridge: float = RIDGE, dropped: float = DROPPED) -> Factors:
    """Predictions of every cell of (K, N) with NaN where unseen, over FITS rank-1 factorisations.

    All fits share two matrix products a step, over all seen cells; what each dropped is then taken off again.
    """
    seen = (~np.isnan(cells)).astype(np.float64)
    filled = np.nan_to_num(cells)
    centre = filled.sum() / seen.sum()
    k, n = cells.shape
    row, column = np.nonzero(seen)
    fit, cell = np.nonzero(rng.random((FITS, len(row))) < dropped)
    row, column, value = row[cell], column[cell], filled[row[cell], column[cell]]
    at_row, at_column = fit * k + row, fit * n + column

    def solved(other: Floats, turned: bool) -> Floats:
        x, w = (filled.T, seen.T) if turned else (filled, seen)
        mine, theirs, size = (at_column, row, n) if turned else (at_row, column, k)
        o = other[fit, theirs]
        over = other @ x.T - np.bincount(mine, value * o, minlength=FITS * size).reshape(FITS, size)
        under = other**2 @ w.T - np.bincount(mine, o**2, minlength=FITS * size).reshape(FITS, size)
        to = 1.0 if turned else centre
        return (over + ridge * to) / (under + ridge)

    v = 0.5 + rng.random((FITS, n))  # values are not negative: no fit starts with signs that it has to lose
    for _ in range(ROUNDS):
        u = solved(v, turned=False)  # (E, K)
        v = solved(u, turned=True)  # (E, N)
    mean = u.T @ v / FITS
    return Factors(mean, np.sqrt(np.maximum((u**2).T @ v**2 / FITS - mean**2, 0.0)))


def run(table: Table) -> Judged:
    k, n = table.cells.shape
    start = max(k, min(round(START * k * n), table.budget // 2))
    for row in range(k):
        width = start // k + (row < start % k)
        table.ask(row, np.sort(table.rng.choice(n, width, replace=False)))
    factors, fitted = factorise(table.cells, table.rng), start
    while table.left and table.open.any():
        value = np.where(table.seen, table.cells, factors.mean + OPTIMISM * factors.deviation)
        row = top(np.where(table.open, value.mean(1), -np.inf))
        unseen = table.unseen(row)
        surest = np.argsort(factors.deviation[row, unseen], kind="stable")[::-1]
        table.ask(row, unseen[surest[: min(table.batch, table.left)]])
        if table.spent >= fitted * (1 + AGAIN):
            factors, fitted = factorise(table.cells, table.rng), table.spent
    factors = factorise(table.cells, table.rng)
    estimates = np.where(table.seen, table.cells, np.clip(factors.mean, 0.0, 1.0)).mean(1)
    return Judged(top(estimates), estimates)


HOW = How("ucb-e-lrf", "the same, with unseen cells predicted by a low-rank factorisation",
          "https://arxiv.org/abs/2407.06172", run)  # fmt: skip
