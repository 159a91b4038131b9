"""Plum: six metaheuristics over edits of phrases. No writer: phrases are deleted, swapped, substituted and added.

    N(b): `width` texts, each b with one random edit of one slot; added are phrases that were deleted before, or from a
          pool.  c = best of N(b) by f;  T_i = 10 exp(-i / tau)
    hill climbing:  b <- c iff f(c) > f(b)              annealing: else b <- c with probability exp((f(c) - f(b)) / T_i)
    genetic:        b = best of 3 drawn from W, all that were kept;  W <- W + {c}.  crossover: b is first crossed with
                    the best of 3 others
    tabu:           b <- best of N(b) outside the last `table` b's, also where it is worse
    harmony:        W: the best `memory`.  A new text has `segments` parts, part j from a random member; with
                    probability `keep` it stays so (and with `adjust` one phrase is substituted), else it is edited.
                    W <- best of W + `width` new

Several slots (template, label texts) are one candidate: an edit changes one of them, a crossover takes each from either
parent. Models with features score a candidate by a matrix product: give them iterations=300.

On the planted task, with its phrases as the pool and sentences as pieces: hill climbing, annealing and tabu 8000 calls,
the others 14000 (harmony with a memory of 5).

Paper: Pan et al. 2023, https://arxiv.org/abs/2311.08364 (constants of the released code)
Departure: f is the search's objective (score, ties by likelihood, or the reverse); in the annealer's exponent it is
    100 times the first + 10 times the second. Paper: 100 balanced accuracy + 10 entropy of the answers. tau is half of
    the iterations (5 of 10 in the paper). A phrase is what stands between marks (no parser), and is substituted from
    the pool (no paraphraser). No patience: the paper stops after 2 iterations without gain. Tabu tables are never
    passed by chance. Harmony recombines one slot and keeps the last phrase of a segment, which the released code loses.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ..errors import ConfigError
from ..registry import searching
from ..search.candidate import Candidate
from ..search.edits import KINDS, LEVELS, crossed, edited, pools
from ..search.engine import Policy
from ..search.ledger import Scored
from ..search.search import Search


@dataclass(frozen=True, kw_only=True)
class PlumConfig:
    iterations: int = 10  # 10 suits models that cost money (the paper's); 300 suits models with features
    width: int = 5  # candidates an iteration
    vocabulary: tuple[str, ...] = ()  # phrases that may be added; empty: words of the training texts
    pool: int = 200  # words, pairs, triples and whole ones of the training texts, of each kind for each slot
    level: str = "auto"  # of an edit: sentence, phrase or word; auto: word in templates and label texts, else phrase
    table: int = 5  # tabu: texts that may not be visited again
    memory: int = 10  # harmony: members
    segments: int = 5  # harmony: parts of a new text
    keep: float = 0.4  # harmony: probability that a part is not edited
    adjust: float = 0.5  # harmony: probability that a kept part gets one phrase substituted

    def __post_init__(self) -> None:
        if self.level not in ("auto", *LEVELS):
            raise ConfigError(f"level is {self.level!r}; it must be auto, {', '.join(LEVELS)}")


class Edits:
    """Random edits of candidates. Phrases that were deleted are remembered, so that they can come back."""

    def __init__(self, config: PlumConfig, s: Search):
        auto = {x: "phrase" if x == "instruction" else "word" for x in s.slots}
        self.s, self.width = s, config.width
        self.level = auto if config.level == "auto" else dict.fromkeys(s.slots, config.level)
        self.pool = pools(s, self.level, config.vocabulary, config.pool)

    def one(self, parent: Candidate, slot: str = "", kinds: Sequence[str] = KINDS) -> Candidate:
        """The parent with one edit; itself where none applies."""
        slot = slot or self.s.rng.choice(self.s.slots)
        for kind in self.s.shuffled(kinds):
            if (done := edited(parent.text(slot), kind, self.pool[slot], self.s.rng, self.level[slot])) is not None:
                text, lost = done
                if lost and lost not in self.pool[slot]:
                    self.pool[slot] += (lost,)
                return parent.put(slot, text).born(kind, parent, note=slot)
        return parent

    def around(self, parent: Candidate, without: Sequence[Candidate] = ()) -> list[Candidate]:
        """`width` different edits of the parent, fewer where there are no more."""
        found = dict.fromkeys(c for c in (self.one(parent) for _ in range(4 * self.width)) if c not in without)
        return [c for c in found if c != parent][: self.width]

    def child(self, a: Candidate, b: Candidate) -> Candidate:
        """Each slot from either parent; where there is one slot, the beginning of a and the end of b."""
        slots, c = self.s.slots, a
        if len(slots) == 1:
            texts = a.text(slots[0]), b.text(slots[0])
            return a.put(slots[0], crossed(texts, self.s.rng, self.level[slots[0]])).born("cross", a, b)
        for slot in slots:
            c = c.put(slot, self.s.rng.choice((a, b)).text(slot))
        return c.born("cross", a, b)


def f(x: Scored) -> float:
    first, ties = x.rank
    return 100 * first + 10 * ties


def climb(config: PlumConfig, s: Search, rule: str) -> Policy:
    edits, seen = Edits(config, s), list((yield s.evaluate([s.start])))
    base, table, tau = seen[0], [s.start], max(1.0, config.iterations / 2)
    for i in s.rounds(config.iterations):
        around = edits.around(base.candidate, table[-config.table :] if rule == "tabu" else ())
        seen += (new := (yield s.evaluate(around)))
        if not new:
            continue
        best = s.best(new)
        warm = rule == "annealing" and s.rng.random() < math.exp(min(0.0, f(best) - f(base)) * math.exp(i / tau) / 10)
        if best.rank > base.rank or warm or rule == "tabu":
            base = best
            table.append(base.candidate)
    return s.top(seen, s.options.finalists)


def evolve(config: PlumConfig, s: Search, crossing: bool) -> Policy:
    edits, kept = Edits(config, s), list((yield s.evaluate([s.start])))
    for _ in s.rounds(config.iterations):
        base, crossed_ = s.tournament(kept).candidate, []
        if crossing:
            base = edits.child(base, s.tournament(kept).candidate)
            crossed_ = [base]
        new = yield s.evaluate([*crossed_, *edits.around(base)][: config.width])
        kept += s.top(new, 1)
    return s.top(kept, s.options.finalists)


def harmony(config: PlumConfig, s: Search) -> Policy:
    edits = Edits(config, s)
    first = edits.around(s.start)
    memory = s.top((yield s.evaluate([s.start, *first])), config.memory)
    for _ in s.rounds(config.iterations):
        new = []
        for _ in range(config.width):
            players = [s.rng.choice(memory).candidate for _ in range(config.segments)]
            slot = s.rng.choice(s.slots)
            texts = [p.text(slot) for p in players]
            made = players[0].put(slot, crossed(texts, s.rng, edits.level[slot], config.segments))
            if s.rng.random() >= config.keep:
                made = edits.one(made, slot)
            elif s.rng.random() < config.adjust:
                made = edits.one(made, slot, ("substitute",))
            new.append(made.born("harmony", *players, note=slot))
        memory = s.top([*memory, *(yield s.evaluate(new))], config.memory)
    return memory


for name, build, said in (
    (
        "plum-hill-climbing",
        lambda config, s: climb(config, s, "hill-climbing"),
        "the best of a few random edits, if better",
    ),
    (
        "plum-annealing",
        lambda config, s: climb(config, s, "annealing"),
        "hill climbing that takes worse steps while warm",
    ),
    ("plum-tabu", lambda config, s: climb(config, s, "tabu"), "the best edit that leads to no recent text"),
    ("plum-genetic", lambda config, s: evolve(config, s, False), "edits of the best of three drawn from all kept"),
    ("plum-genetic-crossover", lambda config, s: evolve(config, s, True), "two kept texts crossed, then edited"),
    ("plum-harmony", harmony, "new texts composed of parts of the ten best, then edited"),
):
    searching(
        name=name,
        summary=f"phrase edits without a writer: {said}",
        config=PlumConfig,
        build=build,
        paper="[Pan et al. 2023](https://arxiv.org/abs/2311.08364)",
    )
