"""Runs measures on a subject, one after the other; what one cannot do here, it says, and the others go on."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from ..errors import BudgetExhausted
from .measure import Found, all_measures, get
from .subject import Subject

Observe = Callable[[dict[str, Any]], None]


def assess(subject: Subject, names: Sequence[str] = (), observe: Observe = lambda event: None) -> list[Found]:
    """What each measure found. names: else all usual ones. observe: called with {"event": "phase", "text": ...}.

    Raises ConfigError for an unknown measure before anything is computed.
    """
    chosen = [get(n) for n in names] or [m for m in all_measures().values() if m.usual]
    found = []
    for measure in chosen:
        if why := measure.refuses(subject):
            found.append(Found(measure.name, None, why, 0, 0.0))
            continue
        observe({"event": "phase", "text": f"{measure.name}: {measure.summary}"})
        began, asked = time.monotonic(), subject.asked
        try:
            finding, why = measure.run(subject), ""
        except BudgetExhausted as stop:
            finding, why = None, str(stop)
        found.append(Found(measure.name, finding, why, subject.asked - asked, time.monotonic() - began))
    return found
