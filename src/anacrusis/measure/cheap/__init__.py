"""The best of K prompts on N examples, without scoring all K x N cells.

    choice = choose(see, rows=len(prompts), columns=len(examples), budget=2000)

`see(row, columns)` scores one prompt on some examples: right or wrong, or anything in [0, 1]. How well each way does on
real scores: docs/cheap.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...errors import ConfigError, did_you_mean
from . import halving, irt, ucb_e, ucb_e_lrf, uniform
from .table import Floats, How, See, Table, recorded

__all__ = ["HOW", "Choice", "How", "See", "choose"]

HOW: dict[str, How] = {h.name: h for h in (uniform.HOW, halving.HOW, ucb_e.HOW, ucb_e_lrf.HOW, *irt.HOW)}


@dataclass(frozen=True, eq=False)
class Choice:
    best: int  # row; of equals the first. Of halving: who was left over, not the highest estimate
    estimates: Floats  # (K,) of the mean over all columns
    low: Floats | None  # (K,) 95 % intervals, each row for itself; None where a model predicted unseen cells
    high: Floats | None
    seen: Floats  # (K, N) values, NaN where nothing was seen
    cells: int  # how many were seen


def choose(
    see: See,
    rows: int,
    columns: int,
    *,
    budget: int,
    how: str = "halving",
    seed: int = 0,
    batch: int = 32,
    known: Sequence[Sequence[float]] | NDArray[np.float64] | None = None,
) -> Choice:
    """The best row by at most `budget` cells; exact where the budget covers all.

    how: a name in HOW. batch: columns a call of `see` at most. known: (M, N) recorded scores of other prompts on the
    same examples, NaN where there is none, for the ways that learn from them.
    Raises ConfigError where the arguments do not fit, DataError where `see` gives something else than values in [0, 1].
    """
    if how not in HOW:
        raise ConfigError(f"how is {how!r}.{did_you_mean(how, HOW)}")
    for name, value, least in (("rows", rows, 1), ("columns", columns, 1), ("batch", batch, 1)):
        if value < least:
            raise ConfigError(f"{name} is {value}; expected at least {least}")
    if budget < rows:
        raise ConfigError(f"budget is {budget} cells for {rows} prompts; give at least one cell a prompt, "
                          f"better {rows * min(columns, 20)}")  # fmt: skip
    if known is not None and HOW[how].known == "no":
        able = ", ".join(h.name for h in HOW.values() if h.known != "no")
        raise ConfigError(f"known is given, but {how} does not learn from other prompts. Those that do: {able}")
    if known is None and HOW[how].known == "must":
        raise ConfigError(f"{how} needs recorded scores of other prompts on the same examples: known=... Without: irt")
    empty = np.full((rows, columns), np.nan)
    table = Table(see, empty, budget, batch, np.random.default_rng(seed), recorded(known, columns))
    way = HOW["uniform"] if budget >= rows * columns else HOW[how]
    if budget >= rows * columns:
        table.budget = rows * columns
    judged = way.run(table)
    return Choice(*judged, seen=table.cells, cells=table.spent)
