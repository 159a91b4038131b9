"""The whole of a search: the method, then the choice on validation examples, then the report on test examples.

What the last two cost is set aside before the method begins, so that a budget never ends between learning and knowing.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from ..errors import BudgetExhausted
from .candidate import Candidate
from .ledger import Ledger, Scored
from .requests import Evaluate, Request
from .search import Search

BLOCK = 100  # test examples that are scored at a time
SURE = 1.0  # standard errors that a finalist must be better than the start by, to be preferred to it


@dataclass(frozen=True)
class Stage(Request):
    """What was set aside for a stage is free from here on. stage: "choose" or "report"."""

    verb: ClassVar[str] = "stage"
    stage: str


@dataclass(frozen=True)
class Decided:
    """What a policy returns when its own choice is final, as where a person was asked: no metric overrules it."""

    candidate: Candidate


@dataclass(frozen=True)
class Found:
    """winner, and how it and the start did: on the validation examples that they met on, and on the test examples."""

    winner: Candidate
    valid: Scored | None
    start_valid: Scored | None
    test: Scored | None
    start_test: Scored | None
    chosen_on: str  # "valid"; "train" where there were no validation examples or no budget for them; "method"


def whole(s: Search, policy: Generator[Any, Any, Any], valid: Sequence[str], test: Sequence[str]) -> Any:
    """A generator that ends with a Found. valid, test: ids; either may be empty."""
    try:
        returned = yield from policy
    except BudgetExhausted:
        returned = None
    finalists = [returned.candidate] if isinstance(returned, Decided) else shortlist(s, returned)
    yield Stage("choose")
    scored = yield from _meet(s, finalists, valid) if valid else iter(())
    on = "method" if isinstance(returned, Decided) else "valid" if scored else "train"
    if not scored:
        scored = [x for x in (s.ledger.scored(c, s.dev) for c in finalists) if x.n]
    # nothing can be scored, as on a task without labels: then the method's own word counts
    win = choose(s.start, scored) if scored else s.ledger.scored(finalists[min(1, len(finalists) - 1)], s.dev)
    yield Stage("report")
    both = list(dict.fromkeys([win.candidate, s.start]))
    for at in range(0, len(test), BLOCK):  # block by block, so that what the budget allows is paired
        try:
            yield Evaluate(tuple(both), tuple(test[at : at + BLOCK]))
        except BudgetExhausted:
            break
    by_id = {c.id: s.ledger.scored(c, test) for c in both}
    start = next((x for x in scored if x.id == s.start.id), None)
    return Found(win.candidate, win if win.n else None, start, by_id.get(win.id), by_id.get(s.start.id), on)


def _meet(s: Search, candidates: Sequence[Candidate], examples: Sequence[str]) -> Any:
    """All candidates on all examples; fewer candidates, from the end, where the budget does not suffice."""
    done: list[Scored] = []
    for c in candidates:
        try:
            done += yield Evaluate((c,), tuple(examples))
        except BudgetExhausted:
            break
    return done


def shortlist(s: Search, returned: Any) -> list[Candidate]:
    """The start first, then what the method returned, then the best of all that it scored, by shrunken mean."""
    if returned is None:
        returned = []
    several = list(returned) if isinstance(returned, Iterable) else [returned]
    ours = [c.candidate if isinstance(c, Scored) else c for c in several]
    seen = [s.ledger.scored(c, s.dev) for c in s.ledger.candidates.values()]
    key = (lambda x: x.rank) if s.ledger.smooth else (lambda x: (shrunken(x, s.ledger, s.dev), x.loglik))
    others = sorted((x for x in seen if x.n), key=key, reverse=True)
    return list(dict.fromkeys([s.start, *ours, *(x.candidate for x in others)]))[: s.options.finalists]


def shrunken(scored: Scored, ledger: Ledger, examples: Sequence[str], prior: float = 4.0) -> float:
    """The mean drawn towards the mean of all observations, as if `prior` more examples had shown that one: a
    candidate that was lucky on three examples does not pass one that was good on fifty."""
    known = [o.value for o in ledger.cells.values() if o.value is not None]
    center = math.fsum(known) / len(known) if known else 0.0
    return (math.fsum(scored.values.values()) + prior * center) / (scored.n + prior)


def choose(start: Candidate, scored: Sequence[Scored]) -> Scored:
    """The finalist with the highest lower bound of its paired difference to the start: mean - SURE standard errors.

    The start's own bound is 0, so it stays where nobody is better than it by a standard error. Not the luckiest mean
    (promise 14). Where the start was not scored, the highest lower bound of the mean itself.
    """
    base = next((x for x in scored if x.id == start.id and x.n), None)

    def bound(x: Scored) -> tuple[float, float]:
        if base is None:
            p = x.mean
            return (p - SURE * math.sqrt(max(p * (1 - p), 0.25 / max(1, x.n)) / max(1, x.n)), x.loglik)
        if x is base:
            return (0.0, x.loglik)
        mean, error, n = x.difference(base)
        # all examples agree: the error that is seen is 0, the one that may be there is not
        floor = 0.5 / n if n else math.inf
        return (mean - SURE * max(error, floor if mean else 0.0), x.loglik)

    return max(scored, key=bound)
