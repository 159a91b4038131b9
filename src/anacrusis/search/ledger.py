"""What has been observed: one score for each (candidate, example). Means and differences are questions to it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from .candidate import Candidate


@dataclass(frozen=True)
class Observation:
    """value: the example's score, 0 to 1; None: missing (the transport failed), never 0.
    loglik: log-probability of the gold answer in nats, where the model gives one. output: what was answered.
    outcome: "ok", "unparsed", "truncated", "refused", "empty", "failed"."""

    candidate: str
    example: str
    value: float | None
    loglik: float | None = None
    output: str = ""
    outcome: str = "ok"

    def to_json(self) -> list[Any]:
        return [self.candidate, self.example, self.value, self.loglik, self.output, self.outcome]


class Ledger:
    """All observations of a run. A cell is filled once; what fills it twice is a mistake and is refused.

    smooth: candidates are compared by the likelihood of the gold answers, not by the score."""

    def __init__(self, smooth: bool = False) -> None:
        self.smooth = smooth
        self.cells: dict[tuple[str, str], Observation] = {}
        self.observed: set[str] = set()  # ids of candidates with at least one observation
        self.candidates: dict[str, Candidate] = {}  # in the order in which they were first seen

    def add(self, candidates: Iterable[Candidate], observations: Iterable[Observation]) -> None:
        for c in candidates:
            self.candidates.setdefault(c.id, c)
        for o in observations:
            before = self.cells.setdefault((o.candidate, o.example), o)
            self.observed.add(o.candidate)
            if before != o:
                raise ValueError(f"the cell {(o.candidate, o.example)} is filled already, with {before}")

    def missing(self, cells: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
        return [c for c in dict.fromkeys(cells) if c not in self.cells]

    def scored(self, candidate: Candidate, examples: Sequence[str], alive: bool = True) -> Scored:
        """The candidate's observations on `examples`, as far as there are any."""
        found = {e: self.cells[candidate.id, e] for e in examples if (candidate.id, e) in self.cells}
        return Scored(candidate, found, alive, self.smooth)


@dataclass(frozen=True)
class Scored:
    """A candidate with its observations. alive: False when a racing rule dropped it before the end."""

    candidate: Candidate
    observations: Mapping[str, Observation]
    alive: bool = True
    smooth: bool = False

    @property
    def id(self) -> str:
        return self.candidate.id

    @cached_property
    def values(self) -> dict[str, float]:
        return {e: o.value for e, o in self.observations.items() if o.value is not None}

    @property
    def n(self) -> int:
        return len(self.values)

    @cached_property
    def mean(self) -> float:
        """Mean value over the examples seen; 0 where there are none."""
        return math.fsum(self.values.values()) / self.n if self.n else 0.0

    @cached_property
    def loglik(self) -> float:
        """Mean log-probability of the gold answers, nats; 0 where the model gives none."""
        known = [o.loglik for o in self.observations.values() if o.loglik is not None]
        return math.fsum(known) / len(known) if known else 0.0

    @property
    def rank(self) -> tuple[float, float]:
        """Sorts candidates: by score, ties by likelihood; the other way round where that is the objective."""
        return (self.loglik, self.mean) if self.smooth else (self.mean, self.loglik)

    @cached_property
    def compared(self) -> dict[str, float]:
        """By example, what candidates are compared by: values, or log-likelihoods."""
        return (
            {e: o.loglik for e, o in self.observations.items() if o.loglik is not None} if self.smooth else self.values
        )

    @property
    def wrong(self) -> list[Observation]:
        return [o for o in self.observations.values() if o.value is not None and o.value < 0.5]

    @property
    def right(self) -> list[Observation]:
        return [o for o in self.observations.values() if o.value is not None and o.value >= 0.5]

    def difference(self, other: Scored) -> tuple[float, float, int]:
        """(mean, standard error, n) of self - other over the examples that both have seen; never over others."""
        both = [self.compared[e] - other.compared[e] for e in self.compared if e in other.compared]
        if not both:
            return (0.0, math.inf, 0)
        mean = math.fsum(both) / len(both)
        if len(both) == 1:
            return (mean, math.inf, 1)
        variance = math.fsum((d - mean) ** 2 for d in both) / (len(both) - 1)
        return (mean, math.sqrt(variance / len(both)), len(both))
