"""What every way of choosing works on: the cells seen so far, and a budget that cannot be passed.

Shapes: K rows (prompts), N columns (examples), M recorded rows of other prompts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import NormalDist
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...errors import ConfigError, DataError

Floats = NDArray[np.float64]
Columns = NDArray[np.int64]
See = Callable[[int, list[int]], Sequence[float]]  # (row, columns) -> values in [0, 1]; never asked a cell twice


class Judged(NamedTuple):
    """What a way of choosing concludes. low, high: None where the estimates rest on a model of the cells."""

    best: int
    estimates: Floats  # (K,)
    low: Floats | None = None
    high: Floats | None = None


@dataclass(frozen=True)
class How:
    """One way of choosing, as the command line lists it."""

    name: str
    summary: str
    source: str
    run: Callable[[Table], Judged]
    known: Literal["no", "can", "must"] = "no"  # does it use recorded rows of other prompts?


@dataclass
class Table:
    """The cells of one choice. Rows are asked at most `batch` columns at a time."""

    see: See
    cells: Floats  # (K, N), NaN where nothing was seen
    budget: int
    batch: int
    rng: np.random.Generator
    known: Floats | None = None  # (M, N), NaN where nothing was recorded
    spent: int = 0
    order: Columns = field(init=False)  # (N,): columns in the order in which rows share them

    def __post_init__(self) -> None:
        self.order = self.rng.permutation(self.cells.shape[1])

    @property
    def seen(self) -> NDArray[np.bool_]:
        """(K, N)"""
        return ~np.isnan(self.cells)

    @property
    def counts(self) -> Columns:
        """(K,) cells seen of each row."""
        return self.seen.sum(1)

    @property
    def left(self) -> int:
        return self.budget - self.spent

    @property
    def open(self) -> NDArray[np.bool_]:
        """(K,) rows with unseen cells."""
        return self.counts < self.cells.shape[1]

    @property
    def first(self) -> int:
        """Columns a row at the start: half of the budget at most, so that every row gets a turn, and at most a batch.

        Departure from bandits that start with a whole batch a row: for many rows that alone would pass the budget.
        """
        return max(1, min(self.batch, self.cells.shape[1], self.budget // (2 * len(self.cells))))

    def unseen(self, row: int) -> Columns:
        """Unseen columns of a row, in the shared order."""
        return self.order[np.isnan(self.cells[row, self.order])]

    def ask(self, row: int, columns: Columns) -> None:
        """See cells. Raises DataError where `see` gives other than one value in [0, 1] for each."""
        wanted = [int(c) for c in columns]
        assert len(wanted) <= self.left and np.isnan(self.cells[row, wanted]).all() and len(set(wanted)) == len(wanted)
        for start in range(0, len(wanted), self.batch):
            part = wanted[start : start + self.batch]
            values = np.asarray(self.see(row, part), dtype=np.float64)
            if values.shape != (len(part),):
                raise DataError(f"row {row}: asked for {len(part)} cells, got values of shape {values.shape}")
            if not ((values >= 0) & (values <= 1)).all():
                raise DataError(
                    f"row {row}: expected values in [0, 1], got {values.tolist()}. Scale the metric to that"
                )
            self.cells[row, part] = values
            self.spent += len(part)

    def means(self) -> Floats:
        """(K,) mean of what was seen of each row; NaN where nothing was."""
        with np.errstate(invalid="ignore"):
            return np.where(self.seen, self.cells, 0.0).sum(1) / self.counts

    def by_means(self, best: int | None = None) -> Judged:
        """The row of the highest mean (or `best`), with an interval for each row's mean over all columns."""
        means = self.means()
        low, high = interval(means, self.counts, self.cells.shape[1])
        return Judged(top(means) if best is None else best, means, low, high)


def top(values: Floats) -> int:
    """The first of the largest; differences of rounding do not count. NaN is below everything."""
    return int(np.argmax(np.round(np.where(np.isnan(values), -np.inf, values), 12)))


def interval(means: Floats, counts: Columns, columns: int, level: float = 0.95) -> tuple[Floats, Floats]:
    """(low, high), each (K,): Wilson's interval for the mean of all N cells of a row, n of them seen at random.

        m = n (N - 1) / (N - n),   centre = (p + z^2 / 2m) / (1 + z^2 / m)
        half = z / (1 + z^2 / m) sqrt(p (1 - p) / m + z^2 / 4m^2)

    m is the sample size after the finite-population correction: without end when all N are seen, and then low = high.
    Graded values in [0, 1] vary at most as much as right or wrong with the same mean, so for them it is too wide.
    A row that was asked more because it did well is judged a little too well: that is not corrected.
    Source: Wilson 1927; Cochran, Sampling Techniques, 1977, section 2.6.
    """
    z = NormalDist().inv_cdf((1 + level) / 2)
    whole = counts >= columns
    m = np.where(whole, 1.0, counts * (columns - 1) / np.where(whole, 1, columns - counts))
    with np.errstate(divide="ignore", invalid="ignore"):
        shrink = 1 + z**2 / m
        centre = (means + z**2 / (2 * m)) / shrink
        half = z / shrink * np.sqrt(np.maximum(means * (1 - means), 0) / m + z**2 / (4 * m**2))
    low, high = np.clip(centre - half, 0, means), np.clip(centre + half, means, 1)  # past rounding at 0 and 1
    low, high = np.where(counts == 0, 0.0, low), np.where(counts == 0, 1.0, high)
    return np.where(whole, means, low), np.where(whole, means, high)


def recorded(known: Sequence[Sequence[float]] | Floats | None, columns: int) -> Floats | None:
    """A matrix of recorded rows, checked. Raises ConfigError where its shape or values do not fit."""
    if known is None:
        return None
    matrix = np.asarray(known, dtype=np.float64)
    if matrix.ndim != 2 or matrix.shape[1] != columns or not len(matrix):
        raise ConfigError(f"known has shape {matrix.shape}; expected (other prompts, {columns}): the same examples")
    values = matrix[~np.isnan(matrix)]
    if not len(values) or values.min() < 0 or values.max() > 1:
        raise ConfigError("known: expected values in [0, 1], and NaN for cells that were not recorded")
    return matrix
