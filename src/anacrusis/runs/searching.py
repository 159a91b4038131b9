"""A fit on the search engine: bring model, store, budget and method together, and read the result into a Run."""

from __future__ import annotations

import hashlib
import os
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..errors import ConfigError, ModelError
from ..measure.evaluate import Score, scored
from ..measure.intervals import Interval, paired
from ..model.calls import Reply
from ..model.frames import default_frame
from ..model.model import Model
from ..model.say import call as call_for
from ..model.say import understood
from ..model.sight import Sight
from ..prompt.values import Frame, Prompt
from ..registry import Method
from ..search.budget import Budget, Cost, Limit, Price, parse
from ..search.desk import Desk, LocalSpeaker, Speaker
from ..search.engine import Engine
from ..search.ledger import Scored
from ..search.local import Local
from ..search.perform import Performer
from ..search.person import AtTerminal, ByFile, Person
from ..search.plan import Counting, LocalStandIn, Nowhere, PersonStandIn, Planner, StandIn
from ..search.search import Search, Searching, some
from ..search.store import Store, masked
from ..search.templates import source
from ..search.whole import Found, whole
from ..task import Example, Task

ROLES = ("task", "writer", "judge")
KEPT_SHARE = 0.4  # of a limit that choosing and reporting may take, at most: then they use fewer examples
KEPT_SECONDS = 0.15  # of a limit on time
FEW = 10  # proposals: below that a search hardly deserves its name


@dataclass(frozen=True)
class Means:
    """What a search may use beside model and task.

    writer, judge: an Endpoint, a Model that writes, or the name of one; the judge is the writer where none is given,
    and both are the task's model where that writes. budget: such as "$2, 500calls, 10min" (search.budget). prices: by
    role, "IN/OUT" in dollars per million tokens. store: "" for a file in the run's folder, else a path or database
    address (sqlite:///..., postgresql://...); also read from $ANACRUSIS_STORE, where a password belongs.
    person: "file" or "terminal", for methods that ask one. opening: how models are opened that are given by name.
    """

    writer: Any = None
    judge: Any = None
    budget: str = ""
    prices: Mapping[str, str] = field(default_factory=dict)
    store: str = ""
    person: str = "file"
    opening: Mapping[str, Any] = field(default_factory=dict)
    beside: str = ""  # a store's path from the run's folder, where the runs of a comparison share one

    def __post_init__(self) -> None:
        if self.person not in ("file", "terminal"):
            raise ConfigError(f"person is {self.person!r}; it must be file or terminal")

    def to_json(self) -> dict[str, Any]:
        """What a resumed run needs. No secret: the password of a store is left out."""
        names = {r: getattr(x, "name", x) for r, x in (("writer", self.writer), ("judge", self.judge))}
        more = {r: self._opening(x) for r, x in (("writer", self.writer), ("judge", self.judge)) if x}
        return {**names, "openings": more, "budget": self.budget, "prices": dict(self.prices),
                "store": masked(self.address) if self.address else "", "person": self.person,
                **({"beside": self.beside} if self.beside else {})}  # fmt: skip

    def _opening(self, given: Any) -> dict[str, Any]:
        """How a writer or judge is opened again: as its own `opening` says once it is open."""
        if not isinstance(given, str):
            return dict(getattr(given, "opening", {}))
        usual = {"base_url": None, "concurrency": 8} if given.startswith("openai:") else dict.fromkeys(
            ("dtype", "device", "quantise"))  # fmt: skip
        return {k: v for k, v in self.opening.items() if k in usual and v not in (usual[k], None, "auto")}

    @property
    def address(self) -> str:
        """Of a store outside the run's folder, the same from every working folder; "" for none."""
        known = os.environ.get("ANACRUSIS_STORE", "")
        given = self.store if self.store and "***" not in self.store else known or self.store
        if "***" in given:
            raise ConfigError(
                f"the password of the store {given} is not in the run: set $ANACRUSIS_STORE to its address"
            )
        path = given.removeprefix("sqlite:///")
        return given if "://" in path or path in ("", ":memory:") else f"sqlite:///{Path(path).resolve()}"

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Means:
        from ..model.open import open as open_model

        def again(role: str) -> Any:
            name = data.get(role)
            return open_model(name, **data.get("openings", {}).get(role, {})) if name else None

        return cls(again("writer"), again("judge"), data.get("budget", ""), dict(data.get("prices", {})),
                   data.get("store", ""), data.get("person", "file"), beside=data.get("beside", ""))  # fmt: skip

    @classmethod
    def kept_by(cls, data: Mapping[str, Any]) -> Means:
        """Of a run that is only looked at: where its store is."""
        return cls(store=data.get("store", ""), beside=data.get("beside", ""))

    def begun(self, folder: Path) -> bool:
        """Whether the run in `folder` has a store to look into."""
        return bool(self.store) or (folder / (self.beside or "search.sqlite")).exists()

    def speakers(self, model: Any, roles: frozenset[str]) -> dict[str, Speaker]:
        """Who answers calls, by role. Raises ConfigError for a needed role that nobody has."""
        own = model if "text" in model.can else None
        writer = self._opened(self.writer) or own
        judge = self._opened(self.judge) or writer
        found = {
            "task": own if own is not None and model.arrangement == "endpoint" else None,
            "writer": writer,
            "judge": judge,
        }
        for role in sorted(roles & set(ROLES)):
            if found[role] is None:
                raise ConfigError(
                    f"this method needs a {role}, a model that writes; {model.name} does not. Give one: "
                    f"--{role} openai:NAME, or a folder of a causal model"
                )
        wanted = {r: x for r, x in found.items() if x is not None and r in roles | {"task"}}
        return {r: LocalSpeaker(x) if isinstance(x, Model) else x for r, x in wanted.items()}

    def _opened(self, given: Any) -> Any:
        if not isinstance(given, str):
            return given
        from ..model.open import open as open_model

        return open_model(given, **self.opening)

    def person_at(self, folder: Path) -> Person:
        return AtTerminal() if self.person == "terminal" else ByFile(folder)

    def store_at(self, folder: Path) -> Store:
        if self.beside and not self.store:  # by the names of its folders: a comparison may be moved
            name = "/".join(folder.resolve().parts[-2:])
            return Store(f"sqlite:///{(folder / self.beside).resolve()}", name)
        if not self.address:
            return Store(f"sqlite:///{folder.resolve() / 'search.sqlite'}", "run")
        # a store that runs share knows them by where they are
        return Store(self.address, hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:16])


@dataclass(frozen=True)
class Result:
    """What a search came to."""

    prompt: Prompt
    score: Score | None
    start: Score | None  # of the starting prompt, on the same test examples
    gain: Interval | None  # winner - start, paired
    valid: float | None
    cost: dict[str, Any]
    notes: tuple[str, ...]
    said: str  # the winner in words, where its parts are none
    answer_tokens: int  # with which it was scored
    test: tuple[Example, ...]


def search_frame(model: Any, task: Task, options: Searching, given: Mapping[str, str]) -> tuple[Frame, tuple[str, ...]]:
    """The frame that a search starts from, and which of its parts it changes."""
    frame = default_frame(model, task, **given)
    if frame.readout == "head":  # no head is trained here: whole words where they begin alike, else similarity
        spoken = model.arrangement in ("causal", "encoder-decoder")
        frame = default_frame(model, task, **{**given, "readout": "words" if spoken else "similarity"})
    usual = {"similarity": ("template", "words"), "match": ("template",)}.get(frame.readout, ("instruction",))
    parts = usual if options.parts == "auto" else tuple(p.strip() for p in options.parts.split(",") if p.strip())
    for part in parts:
        if part not in ("instruction", "template", "words"):
            raise ConfigError(f"parts has {part!r}; known: instruction, template, words")
        if part == "words" and frame.readout not in ("similarity", "match", "answer"):
            raise ConfigError("label words are searched where texts are compared with them: on models with features")
    if "instruction" in parts:
        plain = source("seeds" if task.labels else "seeds-writing").splitlines()[0]
        start = plain.replace("{{labels}}", ", ".join(task.words)) if options.start == "auto" else options.start
        frame = replace(frame, instruction=start)
    elif options.start != "auto":
        frame = replace(frame, template=options.start)
    if model.arrangement == "encoder" and "instruction" not in parts:
        frame = replace(frame, instruction="")
    return frame, parts


PROBABLE = ("label-words", "words", "lm", "similarity", "match")  # readouts that give probabilities of answers


class Session:
    """One search with everything it needs, checked before a run begins. A forecast uses it too, and spends nothing."""

    def __init__(
        self, method: Method, options: Searching, frame_options: Mapping[str, str], model: Any, task: Task,
        *, seed: int, means: Means,
    ):  # fmt: skip
        if task.kind == "multilabel":
            raise ConfigError(f"{method.name} is for tasks with one label or a text to write")
        if not task.train:
            raise ConfigError(f"the task {task.name} has no training examples")
        self.method, self.model, self.task, self.seed, self.means = method, model, task, seed, means
        frame, parts = search_frame(model, task, options, frame_options)
        if options.objective == "likelihood" and frame.readout not in PROBABLE:
            raise ConfigError(f"objective=likelihood needs probabilities of answers, which {model.name} does not give")
        self.search = Search(task, frame, parts, options, seed)
        self.local = Local(model) if isinstance(model, Model | Sight) else None
        if self.local is not None:
            self.search.model = facts(self.local.model)
        elif "gradients" in method.needs:
            raise ModelError(f"{method.name} needs gradients; {model.name} has none")
        if not self.search.train and not method.roles & {"judge", "person"}:
            raise ConfigError(
                f"{method.name} learns from right answers, and no training example of {task.name} has one"
            )
        self.speakers = means.speakers(model, method.roles)
        prices: dict[str, Price | None] = {r: Price.parse(p) for r, p in means.prices.items()}
        for role in prices:
            if role not in ROLES:
                raise ConfigError(f"--price {role}=...: the roles are {', '.join(ROLES)}")
        roles = tuple(r for r in ROLES if r == "task" or r in self.speakers)
        for role in roles:  # a local model costs no money
            if isinstance(self.speakers.get(role), LocalSpeaker) or (role == "task" and self.local is not None):
                prices.setdefault(role, Price(0, 0))
        self.roles, self.prices = roles, prices
        self.limits = parse(means.budget) if means.budget else ()
        self.notes: list[str] = []
        self.reporting = 0.0  # seconds of answering the test examples, one prompt
        self.tell: Callable[[dict[str, Any]], None] = lambda event: None

        if self.limits:
            Budget(self.limits, prices, roles)  # says now which prices are missing

    def close(self) -> None:
        """Close the endpoints that were opened here, by name."""
        for role, speaker in self.speakers.items():
            if isinstance(getattr(self.means, role, None), str) and hasattr(speaker, "close"):
                speaker.close()

    def learn(self, config: Any, folder: Path, tell: Callable[[dict[str, Any]], None]) -> Result:
        """Run the search in `folder`, or go on with it."""
        self.tell = tell
        try:
            return self.run(config, self.means.store_at(folder), self.means.person_at(folder))
        finally:
            self.close()

    def run(self, config: Any, store: Store, person: Person) -> Result:
        began = time.monotonic()
        with store:
            store.lock()
            past = store.events()
            before = float(past[-1].get("seconds", 0.0)) if past else 0.0
            budget = Budget(self.limits, self.prices, self.roles, before=before)
            if past:
                self.tell({"event": "note", "text": f"going on after {len(past)} requests"})
                if lost := store.lost():
                    self.notes.append(
                        f"{len(lost)} calls were under way when the run was stopped; they are asked again under the "
                        "same idempotency key, but a provider that ignores such keys may bill them twice"
                    )
            show = Shows(self.search, budget, self.tell)
            desk = Desk(self.speakers, store, budget, str(self.seed), show)
            valid, test = self._affordable(budget, self.search.valid, self._test())
            performer = Performer(self.search, desk, budget, self.local, person, show,
                                  dict(self.search.examples), sealed={e.id: e for e in test})  # fmt: skip
            engine = Engine(performer, store, budget, self.tell, before=before)
            performer.limits, budget.limits = self.limits, tuple(map(shortened, self.limits))
            self._set_aside(budget, performer, past, valid, test)
            policy = self.method.build(config, self.search)
            found = engine.run(whole(self.search, policy, valid, [e.id for e in test]))
            self.reporting = reported(store.events())
            cost = spent(budget, engine.seconds, store.paid())
            if budget.overruns:
                self.notes.append(
                    f"{len(budget.overruns)} calls were billed for more tokens than their upper bound: the provider "
                    "counts tokens that are not shown, and a limit on tokens or dollars may have been passed"
                )
        return self.result(found, test, cost, time.monotonic() - began)

    def rehearse(self, config: Any, seed: int) -> tuple[Budget, Counting]:
        """The same course with stand-ins for everybody."""
        rng, budget, s = random.Random(seed), Budget(self.limits, self.prices, self.roles), self.search
        store: Any = Nowhere()
        words = s.task.words or ("an answer of some words",)
        speakers = {r: StandIn(r, words, rng) for r in (*self.speakers, "task")}
        desk = Desk(speakers, store, budget, str(seed), lambda _: None)
        valid, test = self._affordable(budget, s.valid, self._test())
        local: Any = None
        if self.local is not None:
            V, H = self.search.model["embeddings"].shape
            local = LocalStandIn(rng, len(s.task.words), V, H)
        known, sealed = dict(s.examples), {e.id: e for e in test}
        performer = Planner(s, desk, budget, local, PersonStandIn(rng), lambda _: None, known, sealed=sealed, rng=rng)
        engine = Counting(performer, store, budget, lambda _: None)
        self._set_aside(budget, performer, (), valid, test)
        engine.run(whole(s, self.method.build(config, s), valid, [e.id for e in test]))
        return budget, engine

    # what is set aside

    def _estimate(self, valid: Sequence[str], test: Sequence[Example]) -> dict[str, Cost]:
        """What choosing and reporting are likely to take, half as much again for tokens."""
        finalists = self.search.options.finalists
        examples = {"choose": [self.search.examples[i] for i in valid], "report": list(test)}
        out = {}
        for stage, times in (("choose", finalists), ("report", 2)):
            n, tokens = len(examples[stage]), 0
            if self.local is None:
                frame = self.search.form(self.search.start).frame
                tokens = sum(call_for(frame, e.inputs, tokens=1).bound // 3 for e in examples[stage])
            said = 0 if self.local is not None else n * min(16, self.search.options.answer_tokens)
            out[stage] = Cost(times * n, times * tokens * 3 // 2, times * said * 3 // 2)
        return out

    def _test(self) -> list[Example]:
        """The labelled test examples, as many as are wanted."""
        return some([e for e in self.task.test if e.gold is not None], self.search.options.test or None, self.seed)

    def _affordable(
        self, budget: Budget, valid: Sequence[str], test: list[Example]
    ) -> tuple[tuple[str, ...], list[Example]]:
        """As many examples for choosing and reporting as KEPT_SHARE of the tightest limit allows."""
        share = 1.0
        total = sum(self._estimate(valid, test).values(), Cost())
        price = self.prices.get("task")
        money = price.nanodollars(total.input, total.output) if price else 0
        for limit in self.limits:
            need = money if limit.unit == "dollars" else limit.of(total)
            if limit.role in (None, "task") and limit.unit != "seconds" and need > KEPT_SHARE * limit.whole:
                share = min(share, KEPT_SHARE * limit.whole / need)
        n, m = int(len(valid) * share), int(len(test) * share)
        few = tuple(some(valid, n, self.seed)), some(test, m, self.seed)
        if share < 1:
            self.notes.append(
                f"the budget allows {len(few[0])} of {len(valid)} validation and {len(few[1])} of {len(test)} test "
                "examples"
            )
        return few

    def _set_aside(
        self, budget: Budget, performer: Performer, past: Sequence[Mapping[str, Any]], valid: Sequence[str],
        test: Sequence[Example],
    ) -> None:  # fmt: skip
        over = sum(e["verb"] == "stage" for e in past)  # stages that an earlier process has begun
        for stage, cost in list(self._estimate(valid, test).items())[over:]:
            if budget.fits("task", cost):
                performer.kept[stage] = budget.reserve("task", cost)

    # reading the result

    def result(self, found: Found, test: Sequence[Example], cost: dict[str, Any], seconds: float) -> Result:
        s = self.search
        prompt = s.form(found.winner)
        if found.chosen_on == "train":
            self.notes.append("chosen on training examples: there were no validation examples, or no budget for them")
        if found.winner.id == s.start.id and found.chosen_on != "method":
            self.notes.append("nothing was better than the start by a standard error, so the start is kept")
        score = start = gain = None
        if found.test is not None and found.test.n:
            mine = [e for e in test if e.id in found.test.values]
            both = [e for e in mine if found.start_test is not None and e.id in found.start_test.values]
            known = both or mine  # where the start has no answer at all, the winner's score stands alone
            if len(known) < len(test):
                self.notes.append(f"{len(test) - len(known)} test examples have no answer and are left out")
            said = self.predictions(found.test, known, prompt.frame)
            score = scored(said, known, self.task, "test", self.reporting or seconds)
            if both and found.start_test is not None:
                theirs = self.predictions(found.start_test, known, s.form(s.start).frame)
                start = scored(theirs, known, self.task, "test", seconds)
                gain = paired(self.task.metric, said, theirs, known, classes=len(self.task.labels) or None)
        if test and score is None:
            self.notes.append("the budget did not suffice for the test examples, so there is no score")
        known_ = tuple(e for e in test if found.test is not None and e.id in found.test.values)
        for note in self.notes:
            self.tell({"event": "note", "text": note})
        valid = found.valid.mean if found.valid is not None and found.chosen_on != "train" else None
        return Result(prompt, score, start, gain, valid, cost, tuple(self.notes), found.winner.note,
                      s.options.answer_tokens, known_)  # fmt: skip

    def predictions(self, of: Scored, examples: Sequence[Example], frame: Frame) -> Any:
        said = [of.observations[e.id] for e in examples]
        if not frame.labels:
            return [o.output for o in said]
        if self.local is not None:
            return np.asarray([frame.words.index(o.output) for o in said])
        heard = [understood(frame, Reply(o.output, "ok" if o.outcome == "unparsed" else o.outcome))[0] for o in said]
        return np.asarray([-1 if c is None else c for c in heard])


def reported(events: Sequence[Mapping[str, Any]]) -> float:
    """Seconds from where the report began to the end, for one of its two prompts; 0 where it is not known."""
    stages = [i for i, e in enumerate(events) if e["verb"] == "stage"]
    if len(stages) < 2:
        return 0.0
    return max(0.0, float(events[-1]["seconds"]) - float(events[stages[-1]]["seconds"])) / 2


def shortened(limit: Limit) -> Limit:
    """What a method may use of a limit on time."""
    return replace(limit, amount=float(limit.amount) * (1 - KEPT_SECONDS)) if limit.unit == "seconds" else limit


def facts(model: Model | Sight) -> dict[str, Any]:
    """What a method may know of a local model."""
    if isinstance(model, Sight):
        table = model.text.table if model.text is not None else torch.zeros(1, 1)
        return {"hidden": model.hidden, "scale": model.scale, "embeddings": table, "tokenizer": model.tokenizer,
                "sites": (), "arrangement": model.arrangement, "model": model}  # fmt: skip
    return {
        "hidden": model.hidden, "scale": model.scale, "embeddings": model.embeddings, "tokenizer": model.tokenizer,
        "sites": model.sites, "arrangement": model.arrangement, "model": model,
    }  # fmt: skip


def spent(budget: Budget, seconds: float, kept: Mapping[str, tuple[int, int, int]]) -> dict[str, Any]:
    """Costs by role and in total, as JSON. Both clocks: all that was asked for, and what this run paid for (kept: by
    role, replies and their tokens, from the store)."""
    priced = {}
    for role in budget.to_json():
        n, given, made = kept.get(role, (0, 0, 0))
        price = budget.prices.get(role)
        priced[role] = Cost(n, given, made, price.nanodollars(given, made) if price else 0)

    def said(role: str | None) -> dict[str, Any]:
        cost, paid = budget.spent(role), sum(priced.values(), Cost()) if role is None else priced[role]
        return {"calls": cost.calls, "input": cost.input, "output": cost.output, "dollars": cost.dollars,
                "sent": paid.calls, "paid_dollars": paid.dollars}  # fmt: skip

    return {**said(None), "seconds": round(seconds, 1), "roles": {r: said(r) for r in budget.to_json()}}


class Shows:
    """Tells how far a search is, five times a second at most."""

    def __init__(self, search: Search, budget: Budget, tell: Callable[[dict[str, Any]], None]):
        self.search, self.budget, self.tell, self.last = search, budget, tell, 0.0
        self.first: tuple[float, int] | None = None  # when the first live round was seen, and which

    def __call__(self, n: int) -> None:
        now = time.monotonic()
        if now - self.last < 0.2:
            return
        self.last = now
        total = self.budget.spent()
        left = [{"limit": str(limit), "share": 1 - have / max(1e-12, float(limit.amount)), "left": have}
                for limit, have in self.budget.left()]  # fmt: skip
        self.tell({"event": "search", "calls": total.calls, "dollars": total.dollars, "left": left,
                   "candidates": len(self.search.ledger.candidates), "best": best_so_far(self.search),
                   "seconds_left": self.seconds_left(now)})  # fmt: skip

    def seconds_left(self, now: float) -> float | None:
        """By the method's rounds, at the pace since this process went live; None while that is not known."""
        i, n = self.search.round
        if self.first is None:
            self.first = (now, i)
        began, before = self.first
        return (now - began) / (i - before) * (n - i) if i > before else None


def best_so_far(search: Search) -> float | None:
    """The best mean of those candidates that saw at least half of the scoring examples."""
    least = max(1, len(search.dev) // 2)
    counts: dict[str, list[float]] = {}
    for (c, _), o in search.ledger.cells.items():
        if o.value is not None:
            counts.setdefault(c, []).append(o.value)
    return max((sum(v) / len(v) for v in counts.values() if len(v) >= least), default=None)


@dataclass(frozen=True)
class Forecast:
    """What a search is likely to take: parts of a typical course, and the least and most over several courses."""

    parts: tuple[dict[str, Any], ...]  # what, role, calls, input, output, dollars
    calls: tuple[int, int]
    tokens: tuple[int, int]
    dollars: tuple[float, float] | None  # None where a price is not known
    proposals: int
    notes: tuple[str, ...]


def forecast(
    method: Method, config: Any, options: Any, frame_options: Mapping[str, str], model: Any, task: Task,
    *, seed: int, means: Means, courses: int = 3,
) -> Forecast:  # fmt: skip
    """Run the method against stand-ins. Nothing is asked and nothing is spent."""
    seen = []
    for n in range(courses):
        session = Session(method, options, frame_options, model, task, seed=seed, means=means)
        session.close()
        budget, engine = session.rehearse(config, seed + n)
        seen.append((budget.spent(), engine, session))
    seen.sort(key=lambda found: found[0].calls)
    _, engine, session = seen[len(seen) // 2]
    known = all(session.prices.get(r) is not None for r in session.roles)
    parts = tuple(
        {"what": what, "role": role, "calls": c.calls, "input": c.input, "output": c.output,
         "dollars": c.dollars if session.prices.get(role) is not None else None}
        for (what, role), c in engine.parts.items()
    )  # fmt: skip
    costs = [c for c, _, _ in seen]
    notes = list(session.notes)
    if "writer" in method.roles and engine.proposals < FEW:
        notes.append(f"about {engine.proposals} proposals fit: too few for a search; raise the budget")

    def span(values: list[Any]) -> tuple[Any, Any]:
        return min(values), max(values)

    return Forecast(parts, span([c.calls for c in costs]), span([c.tokens for c in costs]),
                    span([c.dollars for c in costs]) if known else None, engine.proposals, tuple(notes))  # fmt: skip
