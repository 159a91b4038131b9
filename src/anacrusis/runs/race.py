"""auto: which method to use, found by a race on validation examples. Test examples stay out of reach.

    rung 0   every candidate, seed 0, a third of its epochs; the best third goes on (two at least)
    rung 1   those, seed 0, all epochs; at most two go on
    rung 2   those, seed 1, all epochs; the highest mean over both seeds wins

Fits are judged on validation examples; with --shots also on the labelled examples that are left over. After every rung
those that are clearly worse than the best leave too (95 % interval of the paired difference on the same examples below
0), and when one is left the race is over. Equal means: the fewer parameters win.
Candidates that do not learn in epochs run once. Models behind an API: each rung has a share of the budget, divided
among its candidates; the winner gets what is left for its last run.

Source: successive halving, Jamieson and Talwalkar 2016, https://arxiv.org/abs/1502.07943, with fewer rungs.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import AnacrusisError, BudgetExhausted, ConfigError
from ..measure.evaluate import evaluate
from ..measure.intervals import paired
from ..prompt.store import write_json
from ..registry import Method, all_methods, get, require
from ..search.budget import Limit, parse
from ..search.search import some
from ..task import Task
from ..task.shift import redrawn
from .grid import BESIDE, PLAN, Cell, Comparing, Grid, Job, ended, failed, kept, same, without_test, work
from .run import Observe, Run, _finish, load
from .running import at_work
from .spread import Spread, here

ETA = 3  # one of so many goes on after the first rung, and it gets so much less training
SHARES = (0.25, 0.2, 0.15)  # of a budget of calls, tokens or dollars: for each rung, divided among its candidates
MOST = 500  # examples that a fit is judged on
LAST = 0.4  # and for what is scored on test


def candidates(model: Any, task: Task) -> list[str]:
    """Methods that race on this model and task: those that are registered for it and that the model can do.

    With a linear probe and zero-shot among them, so that a prompt has to earn its place.
    """
    found = []
    for method in all_methods().values():
        try:
            require(method, model, task)
        except AnacrusisError:
            continue
        if method.roles and model.arrangement != "endpoint":
            continue  # a writer would have to be named
        if method.races or method.name in ("zero-shot", "linear-probe"):
            found.append(method.name)
    return found


@dataclass(frozen=True)
class Entrant:
    """One candidate after the race. valid: its mean validation score, by the seeds that it ran. rung: the last one
    that it took part in. out: why it left, "" for the winner."""

    method: str
    valid: float | None
    rung: int
    out: str
    parameters: int
    seconds: float


@dataclass(frozen=True)
class Raced:
    """winner: its name. entrants: the best first. seconds: of learning, all together. fits: how many there were."""

    winner: str
    entrants: tuple[Entrant, ...]
    seconds: float
    fits: int
    seeds: int  # that the winner ran with all of its training
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass
class _Racer:
    method: Method
    rung: int = 0
    out: str = ""
    parameters: int = 0
    seconds: float = 0.0
    told: dict[int, Any] = field(default_factory=dict)  # by seed: validation predictions, None where there are none
    means: dict[int, float] = field(default_factory=dict)

    @property
    def mean(self) -> float:
        return float(np.mean(list(self.means.values()))) if self.means else -math.inf


@dataclass
class Race:
    """A race in a folder: killed and begun again, it goes on. names: of the candidates. budget: as `--budget`."""

    names: Sequence[str]
    task: Task
    model: Any
    folder: Path
    means: Any
    options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    shots: int | None = None
    keep_valid: bool = False

    def __post_init__(self) -> None:
        self.limits = parse(self.means.budget) if self.means.budget else ()
        self.seconds_limit = min((float(x.amount) for x in self.limits if x.unit == "seconds"), default=math.inf)
        if not self.names:
            raise ConfigError(f"no candidate suits {self.model.name} and {self.task.name}; name methods: --methods A,B")
        if not self._drawn(0).valid:
            raise ConfigError(f"{self.task.name} has too few examples to race on: none is left to validate with")
        self.racers = {n: _Racer(get(n)) for n in self.names}
        self.fits, self.notes, self.counted = 0, list[str](), set[Path]()
        self.began = time.monotonic()

    def run(self, spread: Spread = here, observe: Observe = lambda event: None) -> Raced:
        self._plan()
        with at_work(self.folder) as stop:

            def tell(event: dict[str, Any]) -> None:
                observe(event)
                stop()

            going = list(self.names)
            for rung, (seed, most) in enumerate([(0, max(2, math.ceil(len(going) / ETA))), (0, 2), (1, 1)]):
                if rung and len(going) == 1:
                    break
                scored = self._rung(rung, seed, going, spread, tell)
                if rung and not scored:
                    self.notes.append(f"nobody ended rung {rung}: the best of the one before was taken")
                    break
                going = self._kept(rung, scored, most)
                if self._late():
                    self.notes.append(f"the time was over after rung {rung}: the best so far was taken")
                    break
        winner = going[0]
        self.racers[winner].out = ""
        found = Raced(winner, tuple(self._entrants(winner)), sum(r.seconds for r in self.racers.values()), self.fits,
                      self._seeds_of(winner), tuple(self.notes))  # fmt: skip
        write_json(self.folder / "race.json", found.to_json())
        return found

    def _plan(self) -> None:
        """Write what is raced, or compare it with what is there."""
        said = {
            "names": list(self.names), "model": self.model.name, "fingerprint": self.model.fingerprint,
            "data": self.task.fingerprint, "words": self.task.words, "shots": self.shots,
            "keep_valid": self.keep_valid, "means": self.means.to_json(),
            "options": {n: self._options(n) for n in self.names},
        }  # fmt: skip
        plan = json.loads(json.dumps(said))
        self.folder.mkdir(parents=True, exist_ok=True)
        file = self.folder / PLAN
        if file.exists():
            same(self.folder, json.loads(file.read_text(encoding="utf-8")), plan, tuple(plan))
        write_json(file, plan)

    @property
    def _kept_means(self) -> Any:
        return self.means if self.means.address else replace(self.means, beside=BESIDE)

    def _late(self) -> bool:
        return time.monotonic() - self.began > self.seconds_limit

    def _rung(self, rung: int, seed: int, going: Sequence[str], spread: Spread, tell: Observe) -> list[str]:
        """Who has a score in this rung."""
        task = without_test(self.task)
        jobs = [self._job(rung, seed, n, task, spread is here, len(going)) for n in going]
        fresh = [j for j in jobs if not (j.folder / "result.json").exists()]
        tell({"event": "grid", "done": len(jobs) - len(fresh), "of": len(jobs), "apart": spread is not here,
              "folder": str(self.folder)})  # fmt: skip
        done = len(jobs) - len(fresh)
        for job, error in spread(work, fresh, tell):
            done += 1
            if error:
                failed(job, error)
            tell({"event": "cell", "done": done, "of": len(jobs), "name": job.cell.name, "error": error,
                  "apart": spread is not here})  # fmt: skip
            if self._late():
                break
        scored = []
        for job in jobs:
            racer, found = self.racers[job.cell.method], ended(job.folder, job.cell)
            racer.rung = rung
            if found is None or found.run is None:
                racer.out = f"failed: {found.error}" if found else "the time was over"
                continue
            if job.folder not in self.counted:
                self.counted.add(job.folder)
                self.fits += 1
                racer.seconds += found.run.seconds
            racer.parameters = found.run.parameters
            scored.append(job.cell.method)
            try:
                racer.told[seed], racer.means[seed] = self._judged(found.run, seed, self._share(rung, len(going)))
            except BudgetExhausted as stop:
                scored.remove(job.cell.method)
                racer.out = f"its share of the budget was too small: {stop}"
        return scored

    def _judged(self, run: Run, seed: int, budget: str) -> tuple[Any, float]:
        """(validation predictions, score). A search has its own validation score, and asking again would cost."""
        if get(run.plan.method).engine == "search":
            if run.valid is None:
                raise BudgetExhausted("it left nothing to validate on")
            return None, run.valid
        assert run.folder is not None
        file, task = run.folder / "judged.json", self._judging(seed)
        if not file.exists():
            means, began = replace(self._kept_means, budget=budget), time.process_time()
            with kept(self.model, run.plan.method, means, run.folder) as used:
                score = evaluate(run.prompt, None if run.prompt.kind == "constant" else used, task, split="valid")
            said = score.predictions
            write_json(file, {"value": score.value, "predictions": said if isinstance(said, list) else said.tolist(),
                              "cpu_seconds": round(time.process_time() - began, 3)})  # fmt: skip
        found = json.loads(file.read_text(encoding="utf-8"))
        texts = bool(found["predictions"]) and isinstance(found["predictions"][0], str)
        return found["predictions"] if texts else np.asarray(found["predictions"]), found["value"]

    def _drawn(self, seed: int) -> Task:
        return redrawn(without_test(self.task), seed, self.shots, self.keep_valid)

    def _judging(self, seed: int) -> Task:
        """The seed's task, judged on all labelled examples that its fits have not learned from: with few shots those
        that are left over tell more than as few for validation."""
        drawn = self._drawn(seed)
        if self.shots is None or self.keep_valid:
            return drawn
        used = {e.id for e in (*drawn.train, *drawn.valid)}
        rest = [e for e in (*self.task.train, *self.task.valid) if e.id not in used]
        room = max(0, MOST - len(drawn.valid))
        return replace(drawn, valid=(*drawn.valid, *some(rest, room, seed)))

    def _kept(self, rung: int, going: Sequence[str], most: int) -> list[str]:
        order = sorted(going, key=lambda n: (-self.racers[n].mean, self.racers[n].parameters))
        if not order:
            raise ConfigError(
                "no candidate could be fitted: "
                + "; ".join(f"{n}: {r.out}" for n, r in self.racers.items() if r.out)
                + (f". Raise the budget of {self.means.budget}" if self.means.budget else "")
            )
        kept = []
        for place, name in enumerate(order):
            racer = self.racers[name]
            if place and self._clearly_worse(name, order[0]):
                racer.out = f"clearly worse than {order[0]} on validation (rung {rung})"
            elif place >= most:
                racer.out = f"place {place + 1} of {len(order)} on validation (rung {rung})"
            else:
                kept.append(name)
        return kept

    def _clearly_worse(self, name: str, best: str) -> bool:
        """By the seed that both ran last."""
        a, b = self.racers[name].told, self.racers[best].told
        seed = max((s for s in a if s in b and a[s] is not None and b[s] is not None), default=None)
        if seed is None:
            return False
        valid = self._judging(seed).valid
        return paired(self.task.metric, a[seed], b[seed], valid, classes=len(self.task.labels) or None).high < 0

    def _job(self, rung: int, seed: int, name: str, task: Task, inside: bool, among: int) -> Job:
        method, options = get(name), self._options(name)
        place = rung
        if rung == 0 and method.engine == "tune" and "steps" not in options:
            usual = int(options.get("epochs", method.training.get("epochs", 20)))
            options["epochs"] = max(1, math.ceil(usual / ETA))
        else:  # what does not learn in epochs has nothing to add in the next rung
            rung = 0 if method.engine != "tune" and method.engine != "search" else rung
        means = replace(self._kept_means, budget=self._share(place, among))
        return Job(
            Cell(name, self.shots, seed), task, self.folder / f"rung-{rung}" / f"{name}-{seed}", options,
            (self.model.name, dict(self.model.opening)), means if inside else means.to_json(), self.keep_valid,
            self.model if inside else None, self.model.fingerprint,
        )  # fmt: skip

    def _options(self, name: str) -> dict[str, Any]:
        return Grid(methods=tuple(self.names), options=self.options).options_of(name)

    def _share(self, rung: int, among: int) -> str:
        """The budget of one candidate in this rung, as text."""
        return divided(self.limits, SHARES[rung] / max(1, among))

    def last(self, cells: int) -> str:
        """The budget of one of so many runs that are scored on test, as text."""
        return divided(self.limits, LAST / max(1, cells))

    def _entrants(self, winner: str) -> list[Entrant]:
        rows = [
            Entrant(n, r.mean if r.means else None, r.rung, r.out, r.parameters, r.seconds)
            for n, r in self.racers.items()
        ]
        return sorted(rows, key=lambda e: (e.method != winner, -e.rung, -(e.valid if e.valid is not None else -1)))

    def _seeds_of(self, winner: str) -> int:
        folders = {s: self._full(winner, s) for s in (0, 1)}
        return sum((f / "result.json").exists() for f in folders.values())

    def _full(self, name: str, seed: int) -> Path:
        """Of the run with all of its training."""
        method = get(name)
        rung = 0 if method.engine not in ("tune", "search") else 2 if seed else 1
        return self.folder / f"rung-{rung}" / f"{name}-{seed}"

    def adopt(self, raced: Raced, comparing: Comparing) -> None:
        """Score the winner's prompts on test, now that nothing is decided any more, as cells of a comparison. One that
        has not had all of its training, and a search, run there as any other."""
        if get(raced.winner).engine == "search":
            return
        for cell in comparing.grid.cells:
            source, target = self._full(cell.method, cell.seed), comparing.folder / "cells" / cell.name
            if not (source / "result.json").exists() or (target / "result.json").exists():
                continue
            run = load(source)
            target.mkdir(parents=True, exist_ok=True)
            with kept(self.model, cell.method, self._kept_means, target) as used:
                score = evaluate(run.prompt, used, comparing.task)
            drawn = redrawn(comparing.task, cell.seed, cell.shots, self.keep_valid)
            plan = replace(run.plan, source=drawn.source, data=drawn.fingerprint)
            write_json(target / "run.json", plan.to_json())
            for name in ("usage.json", "journal.jsonl"):
                if (source / name).exists():
                    (target / name).write_bytes((source / name).read_bytes())
            prompt = run.prompt.with_card(data=drawn.fingerprint)
            _finish(replace(run, plan=plan, prompt=prompt, score=score, folder=target), target)


def divided(limits: Sequence[Limit], share: float) -> str:
    """A share of a budget, as it is typed. Limits on time stay the race's own."""
    said = []
    for limit in limits:
        if limit.unit == "seconds":
            continue
        part = float(limit.amount) * share
        amount = f"${part:.6f}" if limit.unit == "dollars" else f"{max(1, math.floor(part))}{limit.unit}"
        said.append(f"{limit.role}:{amount}" if limit.role else amount)
    return ",".join(said)
