"""How requests are done. `do` spends and fills a JSON payload; `read` makes the result from it, purely.

A live request and a replayed one differ only in where the payload comes from, so both give the method the same result.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..errors import BudgetExhausted, ConfigError, ModelError, ServiceError
from ..model.calls import Call, Reply
from ..model.say import call as call_for
from ..model.say import understood
from ..prompt.values import Frame, Prompt, Soft
from ..task import golds_of
from ..task.metrics import score as score_metric
from ..task.task import Example
from . import templates
from .budget import Budget, Cost, Limit
from .candidate import Candidate
from .desk import Desk
from .ledger import Observation
from .local import Local
from .parse import SEVERAL, gate, parse, repair
from .person import Person
from .requests import (
    Answer,
    Ask,
    Cells,
    Compare,
    Continue,
    Duel,
    Embed,
    Evaluate,
    Forward,
    Label,
    Next,
    Request,
    Synthesise,
)
from .search import Search

Payload = dict[str, Any]
HOPELESS = 40  # replies of a role, none of which passed the gate: then the run stops
UNHEARD = ("over budget", "failed")  # why there is no reply: says nothing about who was asked
KEPT = 20_000  # characters of an output that the journal keeps


@dataclass
class Performer:
    """local: the task model where it is a local one; otherwise the desk's "task" speaker answers."""

    search: Search
    desk: Desk
    budget: Budget
    local: Local | None
    person: Person
    done: Callable[[int], Any]
    examples: dict[str, Example]
    drawn: dict[str, int] = field(default_factory=dict)  # question -> draws so far
    heard: dict[str, tuple[int, int]] = field(default_factory=dict)  # role -> replies that passed the gate, and not
    kept: dict[str, int] = field(default_factory=dict)  # stage -> ticket of what is set aside for it
    sealed: Mapping[str, Example] = field(default_factory=dict)  # test examples, out of reach until the report
    limits: tuple[Limit, ...] = ()  # the whole ones: while the method runs, the budget's keep time for the rest

    # --- the task model

    def observe(self, cells: Sequence[tuple[str, str]]) -> Iterator[list[Observation]]:
        """Scores of cells, in pieces as they come. Raises BudgetExhausted after the last piece that fitted."""
        by_candidate: dict[str, list[str]] = {}
        for c, e in cells:
            by_candidate.setdefault(c, []).append(e)
        prompts = {c: self.search.form(self.search.ledger.candidates[c]) for c in by_candidate}
        if self.local is None:
            yield from self._observe_by_calls(cells, prompts)
            return
        names = list(by_candidate)
        for i in self.local.order([prompts[c] for c in names]):
            c = names[i]
            fits, refused = self._fitting(by_candidate[c])
            if fits:
                yield self._observe_locally(self.local, c, prompts[c], fits)
                self.done(len(fits))
            if refused:
                raise refused

    def _fitting(self, examples: list[str]) -> tuple[list[str], BudgetExhausted | None]:
        """As many examples as the budget has room for: one call each."""
        self.budget.check_time()
        for n, _ in enumerate(examples):
            try:
                self.budget.settle(self.budget.reserve("task", Cost(1)), Cost(1))
            except BudgetExhausted as stop:
                return examples[:n], stop
        return examples, None

    def _observe_locally(self, local: Local, c: str, prompt: Prompt, ids: list[str]) -> list[Observation]:
        given = [self.examples[e] for e in ids]
        if prompt.frame.readout == "generate":
            texts = local.written(prompt, [e.inputs for e in given], self.search.options.answer_tokens)
            return [Observation(c, e.id, self.judge(t, e), None, t[:KEPT]) for t, e in zip(texts, given, strict=True)]
        z = local.scores(prompt, [e.inputs for e in given])
        logs = z.log_softmax(1)
        found = []
        for e, row, best in zip(given, logs, z.argmax(1).tolist(), strict=True):
            assert isinstance(e.gold, int)
            # rounded: batches of another composition differ in the last bits, and a resumed run must not
            found.append(
                Observation(c, e.id, float(best == e.gold), round(float(row[e.gold]), 4), prompt.frame.words[best])
            )
        return found

    def _observe_by_calls(
        self, cells: Sequence[tuple[str, str]], prompts: Mapping[str, Prompt]
    ) -> Iterator[list[Observation]]:
        tokens = self.search.options.answer_tokens
        calls = [call_for(prompts[c].frame, self.examples[e].inputs, tokens=tokens) for c, e in cells]
        replies, refused = self.desk.ask("task", calls)
        yield [
            self.observation(c, self.examples[e], prompts[c].frame, r)
            for (c, e), r in zip(cells, replies, strict=True)
            if r is not None
        ]
        if refused:
            raise refused

    def observation(self, candidate: str, example: Example, frame: Frame, reply: Reply) -> Observation:
        """A reply as a score. A transport failure is missing, never a wrong answer (promise 13)."""
        if reply.outcome == "failed":
            return Observation(candidate, example.id, None, None, reply.detail[:KEPT], "failed")
        if frame.labels:
            c, outcome = understood(frame, reply)
            return Observation(candidate, example.id, float(c == example.gold), None, reply.text[:KEPT], outcome)
        value = self.judge(reply.text, example) if reply.outcome in ("ok", "truncated") else 0.0
        return Observation(candidate, example.id, value, None, reply.text[:KEPT], reply.outcome)

    def judge(self, text: str, example: Example) -> float:
        return float(score_metric(self.search.task.metric, [text], golds_of([example])))

    # --- requests: each fills its payload, so that what was paid is kept when a later part of it fails

    def do(self, request: Request, payload: Payload) -> None:
        getattr(self, f"_do_{request.verb}")(request, payload)

    def read(self, request: Request, payload: Payload) -> Any:
        return getattr(self, f"_read_{request.verb}", lambda _, p: p["result"])(request, payload)

    def settle(self, request: Request, payload: Payload) -> None:
        """Keep what a request that the budget cut short did bring."""
        if isinstance(request, Evaluate):
            self._keep(request.candidates, payload)
        elif isinstance(request, Cells):
            self._keep([c for c, _ in request.pairs], payload)
        elif isinstance(request, Ask) and payload.get("said"):
            self._read_ask(request, payload)

    def _do_evaluate(self, request: Evaluate, payload: Payload) -> None:
        ledger = self.search.ledger
        ledger.add(request.candidates, ())
        fresh = payload["cells"] = []
        for cells in request.by.race(self._unique(request), request.examples, ledger):
            if missing := ledger.missing(cells):
                for found in self.observe(missing):
                    ledger.add((), found)
                    fresh += [o.to_json() for o in found]

    def _read_evaluate(self, request: Evaluate, payload: Payload) -> Any:
        ledger = self.search.ledger
        self._keep(request.candidates, payload)
        race = request.by.race(self._unique(request), request.examples, ledger)
        try:
            while True:
                if missing := ledger.missing(next(race)):
                    raise RuntimeError(f"the racing rule is not pure: it now asks for {missing[0]}")
        except StopIteration as end:
            alive = end.value
        return [ledger.scored(c, request.examples, c.id in alive) for c in request.candidates]

    def _unique(self, request: Evaluate) -> list[Candidate]:
        return list(dict.fromkeys(request.candidates))

    def _keep(self, candidates: Sequence[Candidate], payload: Payload) -> None:
        self.search.ledger.add(candidates, [Observation(*o) for o in payload.get("cells", ())])

    def _do_cells(self, request: Cells, payload: Payload) -> None:
        ledger = self.search.ledger
        ledger.add([c for c, _ in request.pairs], ())
        fresh = payload["cells"] = []
        for found in self.observe(ledger.missing((c.id, e) for c, e in request.pairs)):
            ledger.add((), found)
            fresh += [o.to_json() for o in found]

    def _read_cells(self, request: Cells, payload: Payload) -> Any:
        self._keep([c for c, _ in request.pairs], payload)
        return [self.search.ledger.cells[c.id, e] for c, e in request.pairs]

    def _do_answer(self, request: Answer, payload: Payload) -> None:
        out: list[str | None] = []
        payload["result"] = out
        tokens = self.search.options.answer_tokens
        if self.local is not None:
            for c, e in request.pairs:
                fits, refused = self._fitting([e])
                if refused:
                    raise refused
                prompt, inputs = self.search.form(c), [self.examples[e].inputs]
                if prompt.frame.readout == "generate":
                    out += self.local.written(prompt, inputs, tokens)
                else:
                    out.append(prompt.frame.words[int(self.local.scores(prompt, inputs).argmax())])
            return
        calls = [
            call_for(self.search.form(c).frame, self.examples[e].inputs, tokens=tokens,
                     temperature=request.temperature, sample=request.sample)
            for c, e in request.pairs
        ]  # fmt: skip
        out += self._texts("task", calls)

    def _texts(self, role: str, calls: Sequence[Call]) -> list[str | None]:
        """Texts of whole replies, None for the others."""
        replies, refused = self.desk.ask(role, calls)
        if refused:
            raise refused
        return [r.text if r is not None and r.outcome in ("ok", "truncated") else None for r in replies]

    # --- the writer

    def _do_ask(self, request: Ask, payload: Payload) -> None:
        said = payload["said"] = []  # per draw: [text or None, reason]
        ask = self._draws(request)
        replies, refused = self.desk.ask(request.role, ask)
        judged = [gate(request, r) if r is not None else (None, "over budget") for r in replies]
        again = [
            (i, Call((*a.messages, *repair(request, r.text, why)), a.temperature, a.tokens, a.sample))
            for i, (a, r, (_, why)) in enumerate(zip(ask, replies, judged, strict=True))
            if r is not None and r.outcome == "ok" and why
        ]
        if again and not refused:
            fixed, refused = self.desk.ask(request.role, [c for _, c in again])
            for (i, _), r in zip(again, fixed, strict=True):
                if r is not None:
                    judged[i] = gate(request, r)
        said += [list(j) for j in judged]
        self._usable(request, replies, judged)
        if refused:
            raise refused

    def _usable(self, request: Ask, replies: Sequence[Reply | None], judged: Sequence[tuple[str | None, str]]) -> None:
        """Stop when nothing that this role has said could be used: asking on would only cost."""
        good, bad = self._heard(request.role, judged)
        if not good and bad >= HOPELESS and any(w and w not in UNHEARD for _, w in judged):
            reply, why = next((r, w) for r, (_, w) in zip(replies, judged, strict=True) if w and w not in UNHEARD)
            shown = reply.text[:200] if reply is not None else ""
            raise ServiceError(
                f"none of the first {bad} replies of the {request.role} could be used; one of them ({why}): {shown!r}. "
                "Give another model in this role"
            )

    def _heard(self, role: str, judged: Sequence[Sequence[Any]]) -> tuple[int, int]:
        """Replies of the role so far and in `judged`: those that passed the gate, and those that did not."""
        good, bad = self.heard.get(role, (0, 0))
        passed = sum(text is not None for text, _ in judged)
        return good + passed, bad + sum(why not in UNHEARD for _, why in judged) - passed

    def _draws(self, request: Ask) -> list[Call]:
        """n draws a prompt. A question that was asked before in this run is drawn anew, not answered from memory."""
        seen = dict(self.drawn)
        calls = []
        for p in request.prompts:
            for _ in range(request.n):
                calls.append(Call((("user", p),), request.temperature, request.tokens, seen.get(p, 0)))
                seen[p] = seen.get(p, 0) + (request.temperature > 0)
        return calls

    def _read_ask(self, request: Ask, payload: Payload) -> Any:
        for p in request.prompts:
            self.drawn[p] = self.drawn.get(p, 0) + request.n * (request.temperature > 0)
        self.heard[request.role] = self._heard(request.role, payload["said"])  # here: a resumed run counts the same
        texts = [t for t, _ in payload["said"]]
        if request.n == 1:
            return texts
        n = request.n
        return [[t for t in texts[i : i + n] if t is not None] for i in range(0, len(texts), n)]

    def _do_stage(self, request: Any, payload: Payload) -> None:
        payload["result"] = None

    def _read_stage(self, request: Any, payload: Payload) -> None:
        self.budget.limits = self.limits or self.budget.limits
        if request.stage == "report":
            self.examples |= self.sealed
        if (ticket := self.kept.pop(request.stage, None)) is not None:
            self.budget.release(ticket)

    # --- judges and people

    def _do_compare(self, request: Compare, payload: Payload) -> None:
        calls = []
        for a, b in request.pairs:
            for k in range(request.repeats):
                one, two = (a, b) if k % 2 == 0 else (b, a)
                said = templates.fill("judge", requirement=request.requirement, first=one, second=two)
                calls.append(Call((("user", said),), request.temperature, 400, k))
        replies, refused = self.desk.ask("judge", calls)
        if refused:
            raise refused
        votes = [
            (parse("tag:better", r.text) or "").strip().upper() if r is not None and r.outcome == "ok" else ""
            for r in replies
        ]
        n = request.repeats
        wins = [{"A": 1, "B": -1}.get(v, 0) * (1 if k % n % 2 == 0 else -1) for k, v in enumerate(votes)]
        payload["result"] = [sum(wins[i : i + n]) for i in range(0, len(wins), n)]

    def _do_duel(self, request: Duel, payload: Payload) -> None:
        shown = request.shown or [(self.search.text(a), self.search.text(b)) for a, b in request.pairs]
        payload["result"] = self.person.prefer([(str(a), str(b)) for a, b in shown])

    def _do_label(self, request: Label, payload: Payload) -> None:
        frame = self.search.base
        calls = [
            Call((("user", templates.fill("label", labels=", ".join(frame.words), text="\n".join(x))),), 0.0, 64)
            for x in request.inputs
        ]
        replies, refused = self.desk.ask("judge", calls)
        if refused:
            raise refused
        payload["result"] = [understood(frame, r)[0] if r is not None else None for r in replies]

    def _do_synthesise(self, request: Synthesise, payload: Payload) -> None:
        said = self._wish(request)
        texts = self._texts("writer", [Call((("user", said),), 1.0, 2048, self.drawn.get(said, 0))])
        items = (parse("tags:example", texts[0] or "") or "").split(SEVERAL)
        payload["result"] = [made for made in map(self._made, items) if made is not None][: request.n]

    def _wish(self, request: Synthesise) -> str:
        return templates.fill("synthesise", n=request.n, about=self.search.about(), hint=request.hint or "none",
                              examples=self.search.shown(request.like))  # fmt: skip

    def _read_synthesise(self, request: Synthesise, payload: Payload) -> Any:
        wish = self._wish(request)
        self.drawn[wish] = self.drawn.get(wish, 0) + 1  # asked again, it is drawn anew
        return payload["result"]

    def _made(self, text: str) -> list[Any] | None:
        """An example as the writer wrote it: its fields in tags, and an answer that the task knows."""
        inputs = [parse(f"tag:{name}", text) for name in self.search.task.fields]
        answer = parse("tag:answer", text)
        if not all(inputs) or answer is None:
            return None
        if not self.search.task.labels:
            return [inputs, answer]
        c, _ = understood(self.search.base, Reply(answer))
        return None if c is None else [inputs, c]

    # --- inside a local model

    def _inside(self, request: Request) -> Local:
        if self.local is None:
            raise ModelError(f"{request.verb} needs a local model; an endpoint shows nothing of its inside")
        return self.local

    def _spend(self, calls: int) -> None:
        """So many passes of the local model. Raises BudgetExhausted before any."""
        self.budget.settle(self.budget.reserve("task", Cost(calls)), Cost(calls))

    def _do_forward(self, request: Forward, payload: Payload) -> None:
        local = self._inside(request)
        out: list[Any] = []
        payload["result"] = out
        given = [self.examples[e] for e in request.examples]
        for c in request.candidates:
            self._spend(len(given))
            prompt = self.search.form(c)
            if not request.top:
                out.append(round(local.loss(prompt, given), 6))
            elif not isinstance(prompt, Soft):
                raise ConfigError("gradients of tokens need a candidate whose form is Soft: the tokens' embeddings")
            else:
                loss, gradient = local.onehot_gradient(prompt, given)
                best = (-gradient).topk(min(request.top, gradient.shape[1]), dim=1)
                out.append([round(loss, 6), best.indices.tolist(), (-best.values).tolist()])
            self.done(len(given))

    def _do_next(self, request: Next, payload: Payload) -> None:
        local = self._inside(request)
        self._spend(len(request.examples))
        inputs = [self.examples[e].inputs for e in request.examples]
        found = local.next_tokens(self.search.form(request.candidate), inputs, request.top)
        payload["result"] = [list(ids) for ids in found]

    def _do_continue(self, request: Continue, payload: Payload) -> None:
        local = self._inside(request)
        self._spend(len(request.pairs))
        payload["result"] = [[round(s, 5), n] for s, n in local.continuations(request.pairs)]

    def _do_embed(self, request: Embed, payload: Payload) -> None:
        local = self._inside(request)
        self._spend(len(request.texts))
        frame = Frame(pool=self.search.base.pool)
        vectors = local.pooled(frame, [(t,) for t in request.texts])
        payload["result"] = [[round(x, 6) for x in row] for row in vectors.tolist()]
