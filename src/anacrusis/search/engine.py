"""The engine: advance the method to its next request, perform or replay it, hand back the result.

Resume is replay: a fresh generator with the same seed is fed what the journal holds, request by request, and goes live
at the first one that is missing. Nothing of a method is ever stored but what it asked and what came.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..errors import BudgetExhausted, RunError
from .budget import Budget
from .perform import Performer
from .requests import Evaluate, Request
from .store import Store

Policy = Generator[Any, Any, Any]
Observe = Callable[[dict[str, Any]], None]


@dataclass
class Engine:
    performer: Performer
    store: Store
    budget: Budget
    observe: Observe
    past: list[dict[str, Any]] = field(default_factory=list)
    seq: int = 0
    before: float = 0.0  # seconds that earlier processes of the run took
    began: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self.past = self.store.events()
        if self.past:
            self.budget.restore(self.past[-1]["spent"])

    @property
    def seconds(self) -> float:
        """Of the whole run, earlier processes included."""
        return self.before + time.monotonic() - self.began

    @property
    def live(self) -> bool:
        return self.seq >= len(self.past)

    def run(self, policy: Policy) -> Any:
        """The policy's return value; None when the budget ended it before it came to one."""
        send: Any = None
        stop: BudgetExhausted | None = None
        while True:
            try:
                asked = policy.throw(stop) if stop is not None else policy.send(send)
            except StopIteration as end:
                return end.value
            except BudgetExhausted as why:
                if self.live:
                    self.observe({"event": "note", "text": f"stopped by the budget: {why}"})
                return None
            send, stop = None, None
            try:
                send = self.perform(asked)
            except BudgetExhausted as why:
                stop = why

    def perform(self, asked: Request | Sequence[Request]) -> Any:
        """One request, or several (their results as a list)."""
        if not isinstance(asked, Request):
            return [self.perform(r) for r in asked]
        payload = self._replay(asked) if not self.live else self._perform(asked)
        if (why := payload.get("stopped")) is not None:
            self.performer.settle(asked, payload)
            raise BudgetExhausted(why)
        return self.performer.read(asked, payload)

    def _replay(self, request: Request) -> dict[str, Any]:
        past = self.past[self.seq]
        if past["hash"] != request.hash:
            now = self.performer.search.wording
            other = [name for name, version in past.get("wording", {}).items() if now.get(name, version) != version]
            why = f"the wording of the template {other[0]} has changed" if other else "the code or its options changed"
            raise RunError(
                f"event {self.seq}: the method now asks for {request.verb} {request.hash}, the journal has "
                f"{past['verb']} {past['hash']}: {why} since the run began. Start a new run; with --store and this "
                "run's search.sqlite, calls that were paid are not asked again."
            )
        self.seq += 1
        return dict(past["payload"])

    def _perform(self, request: Request) -> dict[str, Any]:
        payload: dict[str, Any] = {}
        try:
            self.performer.do(request, payload)
        except BudgetExhausted as why:
            payload["stopped"] = str(why)
        record = {
            "hash": request.hash, "verb": request.verb, "payload": payload, "spent": self.budget.to_json(),
            "about": about(request), "seconds": round(self.seconds, 3), "wording": dict(self.performer.search.wording),
        }  # fmt: skip
        self.store.append(record)
        self.past.append(record)
        self.seq += 1
        return payload


def about(request: Request) -> dict[str, Any]:
    """What `show` needs to draw the run: the candidates that a request brought, with their history."""
    if isinstance(request, Evaluate):
        return {"candidates": {c.id: c.to_json() for c in request.candidates}, "examples": len(request.examples)}
    several = getattr(request, "candidates", None) or [c for pair in getattr(request, "pairs", ()) for c in pair]
    return {"candidates": {c.id: c.to_json() for c in several if hasattr(c, "to_json")}}
