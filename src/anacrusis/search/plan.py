"""What a search would cost, before anything is spent: the method itself, run against stand-ins.

The stand-ins give texts of average length and middling scores by chance, so that a method takes a path of the usual
length. Lengths that depend on the data make a range: the plan runs several times.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from ..model.calls import Call, Reply
from ..prompt.values import Frame
from .budget import Cost
from .desk import Arrived
from .engine import Engine
from .parse import SEVERAL
from .perform import Payload, Performer
from .requests import Ask, Request
from .whole import Stage

STAGES = {"": "search", "choose": "choosing on validation examples", "report": "reporting on test examples"}
BYTES = 4  # a token, roughly: for estimates only, never for what is reserved


class Nowhere:
    """A store that keeps nothing."""

    def events(self) -> list[dict[str, Any]]:
        return []

    def append(self, record: dict[str, Any]) -> int:
        return 0

    def replies(self, keys: Sequence[str]) -> dict[str, Reply]:
        return {}

    def begin(self, keys: Sequence[str]) -> None: ...

    def put(self, replies: Mapping[str, Reply], role: str = "") -> None: ...

    def forget(self, key: str) -> None: ...


@dataclass
class StandIn:
    """Answers every call at once, at no cost: a task's reply is one of `words`, a judge's is by chance."""

    name: str
    words: Sequence[str]
    rng: random.Random

    def complete(
        self, calls: Sequence[Call], arrived: Arrived | None = None, *, within: float | None = None, salt: str = ""
    ) -> list[Reply]:
        out = []
        for call in calls:
            judged = "inside <better>" in call.messages[-1][1]
            text = f"<better>{self.rng.choice('AB')}</better>" if judged else self.rng.choice(self.words)
            out.append(Reply(text, "ok", _tokens(call), len(text) // BYTES + 1))
        if arrived:
            arrived(dict(enumerate(out)))
        return out


def _tokens(call: Call) -> int:
    return sum(len(content.encode()) // BYTES + 8 for _, content in call.messages)


@dataclass
class LocalStandIn:
    """A local model that computes nothing."""

    rng: random.Random
    words: int
    vocabulary: int
    hidden: int

    def order(self, prompts: Sequence[Any]) -> list[int]:
        return list(range(len(prompts)))

    def scores(self, prompt: Any, inputs: Sequence[Any]) -> torch.Tensor:
        return torch.tensor([[self.rng.random() for _ in range(max(1, self.words))] for _ in inputs])

    def written(self, prompt: Any, inputs: Sequence[Any], tokens: int) -> list[str]:
        return ["text"] * len(inputs)

    def loss(self, prompt: Any, examples: Sequence[Any]) -> float:
        return self.rng.random()

    def onehot_gradient(self, prompt: Any, examples: Sequence[Any]) -> tuple[float, torch.Tensor]:
        rows = [[self.rng.random() for _ in range(self.vocabulary)] for _ in range(prompt.length)]
        return self.rng.random(), torch.tensor(rows)

    def next_tokens(self, prompt: Any, inputs: Sequence[Any], top: int) -> list[tuple[int, ...]]:
        return [tuple(self.rng.sample(range(self.vocabulary), top)) for _ in inputs]

    def continuations(self, pairs: Sequence[Any]) -> list[tuple[float, int]]:
        return [(-self.rng.random(), 1) for _ in pairs]

    def pooled(self, frame: Frame, inputs: Sequence[Any]) -> torch.Tensor:
        rows = torch.tensor([[self.rng.gauss(0, 1) for _ in range(self.hidden)] for _ in inputs])
        return torch.nn.functional.normalize(rows, dim=-1)


class PersonStandIn:
    def __init__(self, rng: random.Random):
        self.rng = rng

    def prefer(self, pairs: Sequence[Any]) -> list[float]:
        return [float(self.rng.random() < 0.5) for _ in pairs]


@dataclass
class Planner(Performer):
    """A Performer whose writer always gives a usable text of the usual length."""

    rng: random.Random = field(default_factory=lambda: random.Random(0))

    def _do_ask(self, request: Ask, payload: Payload) -> None:
        usual = max(24, len(self.search.start.text(self.search.slot)))
        keep = " ".join(request.keep)
        said: list[list[Any]] = []
        payload["said"] = said
        for call in self._draws(request):
            ticket = self.budget.reserve(request.role, Cost(1, call.bound, call.tokens))
            several = [self._text(usual, keep) for _ in range(5 if request.parse.startswith(("tags", "items")) else 1)]
            self.budget.settle(ticket, Cost(1, _tokens(call), sum(map(len, several)) // BYTES + 20))
            said.append([SEVERAL.join(several), ""])

    def _text(self, usual: int, keep: str) -> str:
        text = f"a text that stands for number {self.rng.getrandbits(40):x} " * math.ceil(usual / 50)
        return f"{keep} {text[:usual]}".strip()


@dataclass
class Counting(Engine):
    """Adds up what each kind of request cost."""

    stage: str = ""
    parts: dict[tuple[str, str], Cost] = field(default_factory=dict)
    proposals: int = 0

    def _perform(self, request: Request) -> dict[str, Any]:
        if isinstance(request, Stage):
            self.stage = request.stage
        before = {r: Cost(**a) for r, a in self.budget.to_json().items()}
        payload = super()._perform(request)
        for role, account in self.budget.to_json().items():
            spent = Cost(**account) - before[role]
            if spent.calls:
                what = f"{STAGES[self.stage]}: {request.verb}" if not self.stage else STAGES[self.stage]
                self.parts[what, role] = self.parts.get((what, role), Cost()) + spent
        if isinstance(request, Ask) and request.parse.startswith(("tag:prompt", "tags:prompt", "whole")):
            self.proposals += len(payload.get("said", ()))
        return payload
