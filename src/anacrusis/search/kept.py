"""A model behind an API whose replies are kept and whose cost is limited: for whoever only calls `complete`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..model.calls import Call, Reply
from .budget import Budget, Limit, Price
from .desk import Arrived, Desk, Speaker
from .store import Store


class Kept:
    """Stands in for an endpoint: what the store knows is not asked again, what the limits do not allow is not asked.

    All else (name, fingerprint, what it can do) is the endpoint's own. `complete` raises BudgetExhausted where the
    limits do not suffice for all calls; what was answered by then is kept.
    """

    def __init__(self, endpoint: Any, store: Store, limits: Sequence[Limit] = (), price: Price | None = None):
        self.endpoint, self.budget = endpoint, Budget(tuple(limits), {"task": price}, ("task",))
        self._done: Any = lambda n: None
        speakers: dict[str, Speaker] = {"task": endpoint}
        self.desk = Desk(speakers, store, self.budget, "", lambda n: self._done(n))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.endpoint, name)

    def complete(
        self, calls: Sequence[Call], arrived: Arrived | None = None, *, within: float | None = None, salt: str = ""
    ) -> list[Reply]:
        """As `Endpoint.complete`; arrived gets replies without their places, for counting only."""
        self._done = (lambda n: arrived(dict.fromkeys(range(n), Reply("")))) if arrived else (lambda n: None)
        replies, refused = self.desk.ask("task", calls)
        if refused is not None:
            raise refused
        return [r for r in replies if r is not None]
