"""What a measure is, what it finds, and the one table of measures. The command line and the docs are read from it."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from ..errors import ConfigError, did_you_mean
from .subject import Subject


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What a measure found.

    headline: one plain sentence with the numbers that matter. value, low, high: the main number and its 95 % interval,
    None where there is none. heads, rows: a table for people; the last row may be of anything. details: JSON for
    machines. chart: what the HTML report draws: {"kind": "bars" | "reliability" | "ranges", "points": [...]}.
    """

    headline: str
    value: float | None = None
    low: float | None = None
    high: float | None = None
    heads: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] = ()
    details: Mapping[str, Any] = field(default_factory=dict)
    chart: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Measure:
    """One way to look at a prompt, registered in its own file.

    run: (subject) -> Finding. refuses: (subject) -> why it cannot be measured here, "" where it can; it computes
    nothing. paper: Markdown link, or "" where the measure is plain counting. usual: runs when none is named.
    """

    name: str
    summary: str  # one sentence
    run: Callable[[Subject], Finding]
    refuses: Callable[[Subject], str] = lambda subject: ""
    paper: str = ""
    usual: bool = True


@dataclass(frozen=True)
class Found:
    """A measure's finding, or why there is none, with what it cost."""

    name: str
    finding: Finding | None
    skipped: str  # the reason
    answers: int  # computed for it; those that other measures had computed cost nothing
    seconds: float

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


MEASURES: dict[str, Measure] = {}
FILES: Sequence[str] = (
    "calibration", "formats", "sensitivity", "noise", "order", "paraphrases", "groups", "bound", "leakage", "cost",
)  # fmt: skip


def register(measure: Measure) -> Measure:
    if measure.name in MEASURES:
        raise ConfigError(f"measure {measure.name!r} is already registered by {MEASURES[measure.name].run.__module__}")
    MEASURES[measure.name] = measure
    return measure


def all_measures() -> dict[str, Measure]:
    """Every measure by name, in the order of a report; loads their files on first use."""
    for name in FILES:
        importlib.import_module(f"anacrusis.assess.{name}")
    order = {name: i for i, name in enumerate(FILES)}  # of the list, whichever file was imported first
    return dict(sorted(MEASURES.items(), key=lambda item: order.get(item[0], len(order))))


def get(name: str) -> Measure:
    known = all_measures()
    if name not in known:
        raise ConfigError(f"unknown measure {name!r}.{did_you_mean(name, known)}")
    return known[name]
