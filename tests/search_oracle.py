"""A fake oracle that drives a search method by hand: no model, no engine, every request seen."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from anacrusis.prompt.values import Frame
from anacrusis.search.candidate import Candidate
from anacrusis.search.ledger import Observation
from anacrusis.search.search import Search, Searching
from tests.world import World


def a_search(*parts: str, options: Searching | None = None, **frame: Any) -> Search:
    task = World().task
    given = {"labels": task.labels, "words": task.words, "instruction": "seed", **frame}
    return Search(task, Frame(**given), parts or ["instruction"], options or Searching(), 0)


class Oracle:
    """value: (candidate, example id) -> score; write: (prompt, ask) -> text or None, or a list that is used up."""

    def __init__(
        self, s: Search, value: Callable[[Candidate, str], float], write: Sequence[str] | Callable[..., Any] = ()
    ):
        self.s, self.value, self.seen = s, value, list[Any]()
        texts = [] if callable(write) else list(write)
        self.write = write if callable(write) else lambda prompt, ask: texts.pop(0) if texts else None

    def fill(self, pairs: Any) -> None:
        for c, e in pairs:
            self.s.ledger.add([c], [])
            if (c.id, e) not in self.s.ledger.cells:
                value = self.value(c, e)
                said = self.s.gold(e) if value >= 0.5 else "wrong answer"
                self.s.ledger.add([c], [Observation(c.id, e, value, None, said)])

    def do(self, request: Any) -> Any:
        self.seen.append(request)
        if request.verb == "ask":
            draws = [[self.write(p, request) for _ in range(request.n)] for p in request.prompts]
            return [d[0] for d in draws] if request.n == 1 else draws
        if request.verb == "cells":
            self.fill(request.pairs)
            return [self.s.ledger.cells[c.id, e] for c, e in request.pairs]
        assert request.verb == "evaluate", request.verb
        self.s.ledger.add(request.candidates, ())
        race = request.by.race(list(dict.fromkeys(request.candidates)), request.examples, self.s.ledger)
        try:
            while True:
                self.fill((self.s.ledger.candidates[c], e) for c, e in next(race))
        except StopIteration as end:
            alive = end.value
        return [self.s.ledger.scored(c, request.examples, c.id in alive) for c in request.candidates]

    def run(self, policy: Any) -> Any:
        send = None
        try:
            while True:
                send = self.do(policy.send(send))
        except StopIteration as end:
            return end.value

    def requests(self, verb: str) -> list[Any]:
        return [r for r in self.seen if r.verb == verb]
