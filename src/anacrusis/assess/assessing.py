"""Runs measures on a subject, one after the other; what one cannot do here, it says, and the others go on."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from ..errors import AnacrusisError
from ..search.budget import Budget
from .measure import Found, all_measures, get
from .subject import Subject

Observe = Callable[[dict[str, Any]], None]


def answers_left(budget: Budget) -> int | None:
    """How many more answers a budget allows, at what they have cost so far; None where nothing can be said."""
    spent = budget.spent("task")
    found = []
    for limit, left in budget.left():
        if limit.unit == "calls":
            found.append(left)
        elif limit.unit != "seconds" and spent.calls:
            each = (spent.dollars if limit.unit == "dollars" else limit.of(spent)) / spent.calls
            if each > 0:
                found.append(left / each)
    return max(0, int(min(found))) if found else None


def assess(subject: Subject, names: Sequence[str] = (), observe: Observe = lambda event: None) -> list[Found]:
    """What each measure found. names: else all usual ones. observe: called with {"event": "phase", "text": ...}.

    Raises ConfigError for an unknown measure before anything is computed.
    """
    chosen = [get(n) for n in dict.fromkeys(names)] or [m for m in all_measures().values() if m.usual]
    found, most = [], subject.cells
    for i, measure in enumerate(chosen):
        left = answers_left(subject.desk.budget) if subject.desk is not None else None
        if left is not None:  # what is left is for all that are still to come
            subject.cells = max(1, min(most, left // (len(chosen) - i)))
        if why := measure.refuses(subject):
            found.append(Found(measure.name, None, why, 0, 0.0))
            continue
        observe({"event": "phase", "text": f"{measure.name}: {measure.summary}"})
        began, asked = time.monotonic(), subject.asked
        try:
            finding, why = measure.run(subject), ""
        except AnacrusisError as error:  # the budget is spent, an API fails: what the others found is kept
            finding, why = None, str(error)
        found.append(Found(measure.name, finding, why, subject.asked - asked, time.monotonic() - began))
    return found
