"""The one door through which paid calls go: what is known is served, what fits the budget is asked, the rest refused.

Every call is reserved with an upper bound before it is sent and settled with what it cost (promise 12). Replies are
stored as they arrive, so nothing paid is asked again (promise 11).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import torch

from ..errors import BudgetExhausted, ServiceError
from ..model.calls import Call, Reply
from ..model.model import Model
from ..model.write import write
from ..prompt.values import Frame, Text
from .budget import Budget, Cost
from .store import Store

Arrived = Callable[[Mapping[int, Reply]], None]
FAILED_SHARE = 0.05  # of a batch may stay without an answer before the run stops to be resumed


class Speaker(Protocol):
    """What answers calls: an endpoint, or a local model that writes."""

    name: str

    def complete(
        self, calls: Sequence[Call], arrived: Arrived | None = None, *, within: float | None = None, salt: str = ""
    ) -> list[Reply]: ...


class LocalSpeaker:
    """A local model in the role of a writer or judge; sampling is seeded by the call, so it can be repeated."""

    def __init__(self, model: Model):
        self.model, self.name, self.fingerprint = model, model.name, model.fingerprint

    def complete(
        self, calls: Sequence[Call], arrived: Arrived | None = None, *, within: float | None = None, salt: str = ""
    ) -> list[Reply]:
        out = []
        for i, call in enumerate(calls):
            reply = self._one(call, salt)
            out.append(reply)
            if arrived:
                arrived({i: reply})
        return out

    def _one(self, call: Call, salt: str) -> Reply:
        tokenizer, model = self.model.tokenizer, self.model
        if getattr(tokenizer, "chat_template", None):
            said = [{"role": role, "content": content} for role, content in call.messages]
            text = str(tokenizer.apply_chat_template(said, tokenize=False, add_generation_prompt=True))
        else:
            text = "\n\n".join(content for _, content in call.messages) + "\n"
        options: dict[str, Any] = {}
        if call.temperature > 0:
            options = {"do_sample": True, "temperature": call.temperature}
        with torch.random.fork_rng():
            torch.manual_seed(int(hashlib.sha256((salt + call.key(self.name)).encode()).hexdigest()[:15], 16))
            answer = write(model, Text(frame=Frame(readout="generate")), [(text,)], tokens=call.tokens, **options)[0]
        n = len(tokenizer(answer, add_special_tokens=False)["input_ids"])
        outcome = "empty" if not answer else "truncated" if n >= call.tokens else "ok"
        return Reply(answer, outcome, len(tokenizer(text)["input_ids"]), n)


class Desk:
    """Takes calls for a role and gives replies in their order.

    salt: tells draws of different seeds apart, for calls with a temperature. done: called with the number of replies.
    """

    def __init__(
        self, speakers: Mapping[str, Speaker], store: Store, budget: Budget, salt: str, done: Callable[[int], Any]
    ):
        self.speakers, self.store, self.budget, self.salt, self.done = speakers, store, budget, salt, done

    def ask(self, role: str, calls: Sequence[Call]) -> tuple[list[Reply | None], BudgetExhausted | None]:
        """A reply a call, None for those that the budget refused, and that refusal. Raises ServiceError when the
        endpoint cannot be used."""
        if role not in self.speakers:
            raise ServiceError(f"this run has no {role}: name one with --{role} openai:NAME")
        speaker = self.speakers[role]
        keys = [self._key(speaker, c) for c in calls]
        unique = list(dict(zip(keys, calls, strict=True)).items())
        known: dict[str, Reply] = {}
        refused: BudgetExhausted | None = None
        while unique and refused is None:
            wave, unique, refused = self._admit(role, unique)
            if not wave:
                break
            known |= self._wave(role, speaker, wave)
        late = {k for k in known if known[k].outcome == "failed" and known[k].detail == "out of time"}
        if late:  # the clock ended them, not the endpoint: they are refused like those that were not sent
            refused = BudgetExhausted(f"time is over: {len(late)} calls of {role} had no answer by then")
            known = {k: r for k, r in known.items() if k not in late}
        lost = [k for k in known if known[k].outcome == "failed"]
        if len(lost) > FAILED_SHARE * len(keys) and (len(lost) > 1 or len(keys) == 1):
            raise ServiceError(
                f"{len(lost)} of {len(known)} calls to {speaker.name} failed: {known[lost[0]].detail}. What was "
                "answered is kept; go on with: anacrusis resume RUN"
            )
        return [known.get(k) for k in keys], refused

    def known(self, role: str, calls: Sequence[Call]) -> list[Reply | None]:
        """The replies that the store has, None for others; nothing is asked, and nothing counts."""
        keys = [self._key(self.speakers[role], c) for c in calls]
        stored = self.store.replies(keys)
        return [stored.get(k) for k in keys]

    def _key(self, speaker: Speaker, call: Call) -> str:
        who = f"{speaker.name} {getattr(speaker, 'fingerprint', '')}"  # one name may be several models, by address
        return call.key(who + (f" seed {self.salt}" if call.temperature > 0 else ""))

    def _admit(
        self, role: str, waiting: list[tuple[str, Call]]
    ) -> tuple[list[tuple[str, Call, int]], list[tuple[str, Call]], BudgetExhausted | None]:
        """The longest beginning of what waits that fits the budget, reserved. Calls that were answered before count
        like others, so that a resumed run takes the same path."""
        wave: list[tuple[str, Call, int]] = []
        for n, (key, call) in enumerate(waiting):
            try:
                wave.append((key, call, self.budget.reserve(role, Cost(1, call.bound, call.tokens))))
            except BudgetExhausted as stop:
                # what is reserved is often far above the cost: settle this wave first, then look again
                return wave, waiting[n:], None if wave else stop
        return wave, [], None

    def _wave(self, role: str, speaker: Speaker, wave: list[tuple[str, Call, int]]) -> dict[str, Reply]:
        stored = self.store.replies([k for k, _, _ in wave])
        replies = dict(stored)
        fresh = [(k, c) for k, c, _ in wave if k not in stored]
        self.done(len(stored))
        for attempt in range(2):
            left = [(k, c) for k, c in fresh if k not in replies or replies[k].outcome == "failed"]
            if not left or (attempt and len(left) > max(1.0, FAILED_SHARE * len(fresh))):
                break
            replies |= self._send(role, speaker, left)
        for key, _, ticket in wave:
            reply = replies[key]
            if reply.outcome == "failed":
                self.budget.release(ticket)
                self.store.forget(key)
            else:
                self.budget.settle(ticket, Cost(1, reply.input, reply.output))
        return replies

    def _send(self, role: str, speaker: Speaker, calls: list[tuple[str, Call]]) -> dict[str, Reply]:
        keys = [k for k, _ in calls]
        self.store.begin(keys)

        def arrived(replies: Mapping[int, Reply]) -> None:
            good = {keys[i]: r for i, r in replies.items() if r.outcome != "failed"}
            self.store.put(good, role)
            self.done(len(good))

        found = speaker.complete([c for _, c in calls], arrived, within=self.budget.seconds_left(), salt=self.salt)
        return dict(zip(keys, found, strict=True))
