"""Racing rules: how many examples each candidate is worth. An argument of `evaluate`.

A rule is a small generator: it yields the cells (candidate, example) that it wants filled next, looks into the ledger,
and returns the ids of those that are still in the race. All candidates meet the same examples in the same order
(promise 15), and cells that are known cost nothing. `worst` turns a rule round: it looks for the worst.

K arms, n examples. Sources: successive rejects: Audibert and Bubeck 2010; successive halving: Karnin et al. 2013; UCB:
Auer et al. 2002; UCB-E: Audibert and Bubeck 2010; paired race: CAPO, Zehle et al. 2025, arXiv 2504.16005; gate: GEPA,
Agrawal et al. 2025, arXiv 2507.19457; until-wrong: PromptWizard, Agarwal et al. 2024, arXiv 2405.18369.
"""

from __future__ import annotations

import math
import random
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from ..errors import ConfigError
from .candidate import Candidate
from .ledger import Ledger, Scored

PRIOR = 4.0  # examples
Cells = list[tuple[str, str]]
Rounds = Generator[Cells, None, set[str]]


class Rule(Protocol):
    """Pure: the same arms, examples and ledger give the same cells. Raises nothing for an empty race."""

    def race(self, arms: Sequence[Candidate], examples: Sequence[str], ledger: Ledger) -> Rounds: ...


def _grid(arms: Sequence[Candidate], examples: Sequence[str]) -> Cells:
    return [(a.id, e) for a in arms for e in examples]


def _order(arms: Sequence[Candidate], examples: Sequence[str], ledger: Ledger, worst: bool) -> list[Candidate]:
    """Best first (or worst first); equals stay in the order given."""
    sign = 1 if worst else -1
    key = {a.id: ledger.scored(a, examples).rank for a in arms}
    return sorted(arms, key=lambda a: tuple(sign * k for k in key[a.id]))


@dataclass(frozen=True)
class Full:
    """Every candidate on every example."""

    def race(self, arms: Sequence[Candidate], examples: Sequence[str], ledger: Ledger) -> Rounds:
        yield _grid(arms, examples)
        return {a.id for a in arms}


@dataclass(frozen=True)
class Minibatch:
    """Every candidate on the first `size` examples."""

    size: int = 35

    def race(self, arms: Sequence[Candidate], examples: Sequence[str], ledger: Ledger) -> Rounds:
        yield _grid(arms, examples[: self.size])
        return {a.id for a in arms}


@dataclass(frozen=True)
class Halving:
    """Successive halving: all arms on a few examples, the better 1/eta on eta times as many, until one has seen all or
    `keep` are left. first: examples of the first rung; 0: so that every rung costs the same and the last sees all."""

    keep: int = 1
    eta: float = 2.0
    first: int = 0
    worst: bool = False

    def __post_init__(self) -> None:
        if self.eta <= 1 or self.keep < 1:
            raise ConfigError(f"Halving: eta {self.eta} must be above 1 and keep {self.keep} at least 1")

    def rungs(self, arms: int, examples: int) -> list[tuple[int, int]]:
        """(arms, examples) rung by rung."""
        steps = max(0, math.ceil(math.log(max(1, arms / self.keep), self.eta) - 1e-9))
        seen = float(self.first or max(1, examples / self.eta**steps))
        out = []
        left = arms
        for step in range(steps + 1):
            out.append((left, min(examples, examples if step == steps else round(seen))))
            left, seen = max(self.keep, math.ceil(left / self.eta)), seen * self.eta
        return out

    def race(self, arms: Sequence[Candidate], examples: Sequence[str], ledger: Ledger) -> Rounds:
        left = list(arms)
        seen = examples[:0]
        for count, n in self.rungs(len(left), len(examples)):
            left = _order(left, seen, ledger, self.worst)[:count]
            seen = examples[:n]
            yield _grid(left, seen)
        return {a.id for a in _order(left, seen, ledger, self.worst)[: max(self.keep, 0)]}


@dataclass(frozen=True)
class SuccessiveRejects:
    """Drop the worst arm after each of K - m phases, m = keep; in phase k an arm has seen
    n_k = (N - K) / (b (K + 1 - k)) examples, with b = m / (m + 1) + sum_(k=1..K-m) 1 / (K + 1 - k), the paper's
    logbar(K) for m = 1: so that all cells are used. cells: N; 0: half of the full grid."""

    keep: int = 1
    cells: int = 0
    least: int = 1  # examples an arm in the first phase, at least
    worst: bool = False

    def phases(self, K: int, examples: int) -> list[int]:
        N = self.cells or K * examples // 2
        m = min(self.keep, K)
        bar = m / (m + 1) + sum(1 / (K + 1 - k) for k in range(1, K - m + 1))
        each = [math.ceil(max(0, N - K) / (bar * (K + 1 - k))) for k in range(1, K - m + 1)]
        return [min(examples, max(self.least, n)) for n in each]

    def race(self, arms: Sequence[Candidate], examples: Sequence[str], ledger: Ledger) -> Rounds:
        left = list(arms)
        seen = examples[: self.least]
        for n in self.phases(len(left), len(examples)):
            if len(left) <= self.keep:
                break
            seen = examples[:n]
            yield _grid(left, seen)
            left = _order(left, seen, ledger, self.worst)[:-1]
        yield _grid(left, seen)
        return {a.id for a in left}


@dataclass(frozen=True)
class UCB:
    """Rounds of `arms` pulls of `samples` examples each, of the arms with the largest bound
    mean + c sqrt(log(t) / n) ("ucb") or mean + c sqrt(c / n) ("ucb-e"); arms that were never pulled come first, in
    random order. t: examples spent, n: an arm's own."""

    rounds: int = 8
    arms: int = 8
    samples: int = 32
    c: float = 1.0
    form: str = "ucb"
    keep: int = 1
    seed: int = 0
    worst: bool = False

    def __post_init__(self) -> None:
        if self.form not in ("ucb", "ucb-e"):
            raise ConfigError(f"UCB's form is {self.form!r}; it must be ucb or ucb-e")

    def race(self, arms: Sequence[Candidate], examples: Sequence[str], ledger: Ledger) -> Rounds:
        fresh = list(arms)
        random.Random(self.seed).shuffle(fresh)
        spent = {a.id: 0 for a in arms}
        turn = {a.id: i for i, a in enumerate(fresh)}
        sign = -1 if self.worst else 1

        def upper(a: Candidate) -> float:
            n = spent[a.id]
            if n == 0:
                return math.inf
            t = sum(spent.values())
            wide = math.sqrt((math.log(t) if self.form == "ucb" else self.c) / n)
            return sign * ledger.scored(a, examples[:n]).mean + self.c * wide

        for _ in range(self.rounds):
            open_ = [a for a in arms if spent[a.id] < len(examples)]
            if not open_:
                break
            chosen = sorted(open_, key=lambda a: (-upper(a), turn[a.id]))[: self.arms]
            wanted: Cells = []
            for a in chosen:
                n = spent[a.id]
                spent[a.id] = min(len(examples), n + self.samples)
                wanted += _grid([a], examples[n : spent[a.id]])
            yield wanted
        pulled = [a for a in arms if spent[a.id]]
        seen = {a.id: ledger.scored(a, examples[: spent[a.id]]) for a in pulled}
        center = sum(x.mean for x in seen.values()) / max(1, len(seen))
        # shrunken towards the arms' mean, as if PRIOR more examples had shown that: few lucky ones do not win
        pulled.sort(key=lambda a: -sign * (seen[a.id].mean * seen[a.id].n + PRIOR * center) / (seen[a.id].n + PRIOR))
        return {a.id for a in pulled[: self.keep]}


@dataclass(frozen=True)
class PairedRace:
    """Race in blocks of examples; after each, an arm leaves when at least `keep` rivals are better on the same
    examples by a one-sided paired t-test at `alpha` (no correction for multiplicity, as in CAPO). Ends with `keep`
    arms, or after `blocks`; then the best by mean stay. offsets: by candidate id, subtracted from every score of that
    candidate, in the tests and in the final cut alike (CAPO's length penalty)."""

    keep: int
    alpha: float = 0.2
    block: int = 30
    blocks: int = 10
    offsets: Mapping[str, float] = field(default_factory=dict)

    def race(self, arms: Sequence[Candidate], examples: Sequence[str], ledger: Ledger) -> Rounds:
        left = list(dict.fromkeys(arms))
        if len(left) <= self.keep:  # nobody has to leave: one block, so that everybody has a score
            yield _grid(left, examples[: self.block])
        for b in range(self.blocks):
            if len(left) <= self.keep or b * self.block >= len(examples):
                break
            seen = examples[: (b + 1) * self.block]
            yield _grid(left, seen)
            now = [ledger.scored(a, seen) for a in left]
            beaten = {s.id: sum(self.beats(rival, s) for rival in now if rival is not s) for s in now}
            left = [a for a in left if beaten[a.id] < self.keep]
        if len(left) > self.keep:
            seen = examples[: self.blocks * self.block]
            score = {a.id: ledger.scored(a, seen).mean - self.offsets.get(a.id, 0.0) for a in left}
            left = sorted(left, key=lambda a: -score[a.id])[: self.keep]
        return {a.id for a in left}

    def beats(self, a: Scored, b: Scored) -> bool:
        """Whether a is better than b, by a one-sided paired t-test on the examples that both have seen."""
        mean, error, n = a.difference(b)
        mean -= self.offsets.get(a.id, 0.0) - self.offsets.get(b.id, 0.0)
        if n < 2:
            return False
        if error == 0:
            return mean > 0  # every example says the same
        from scipy.stats import t

        return bool(t.sf(mean / error, n - 1) < self.alpha)


@dataclass(frozen=True)
class Gate:
    """A candidate sees all examples only if it beats its parent on the first `size`: strictly, or (ties) not below.
    parents: candidate id -> id of the one to beat, itself scored on those examples too."""

    parents: Mapping[str, str]
    size: int = 3
    ties: bool = False

    def race(self, arms: Sequence[Candidate], examples: Sequence[str], ledger: Ledger) -> Rounds:
        first = examples[: self.size]
        rivals = [ledger.candidates[p] for p in dict.fromkeys(self.parents.values())]
        yield _grid([*rivals, *arms], first)

        def passes(a: Candidate) -> bool:
            mine, theirs = (ledger.scored(c, first).mean for c in (a, ledger.candidates[self.parents[a.id]]))
            return mine >= theirs if self.ties else mine > theirs

        through = [a for a in arms if passes(a)]
        yield _grid(through, examples)
        return {a.id for a in through}


@dataclass(frozen=True)
class UntilWrong:
    """One example after the other until the first wrong answer, or `right` right ones."""

    right: int = 3

    def race(self, arms: Sequence[Candidate], examples: Sequence[str], ledger: Ledger) -> Rounds:
        left = list(arms)
        for i, e in enumerate(examples[: self.right]):
            if not left:
                break
            yield _grid(left, [e])
            seen = examples[: i + 1]
            left = [a for a in left if all(v >= 0.5 for v in ledger.scored(a, seen).values.values())]
        return {a.id for a in left}
