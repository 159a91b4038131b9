"""CAPO: evolution of instructions together with their worked examples, in a race that also counts length.

    child:  cross(a, b) by the writer, then rephrased; floor((|a| + |b|) / 2) of the parents' worked examples, of which
            with probability 1/3 each one is added, one is dropped, none changes; shuffled
    race:   population + children, block by block; out goes who is beaten by `size` or more others in paired t-tests
            of   f(p, x) - gamma length(p) / L_max,    L_max = longest of the first population

A worked example's answer is what the model itself said under the bare instruction, where that was right, else the right
answer. On the planted task: 4000 calls.

Paper: Zehle et al. 2025, https://arxiv.org/abs/2504.16005 (constants of the released code)
Departure: length is in words, as an endpoint shows no tokens. The last cut of a race subtracts the length too and
    compares on the same examples (the release does neither). `steps` and `size` are chosen: the paper ends by a budget
    of tokens and has as many members as instructions were given. The first population is shipped wordings.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..errors import ConfigError
from ..registry import searching
from ..search.candidate import Candidate
from ..search.engine import Policy
from ..search.ledger import Observation, Scored
from ..search.racing import PairedRace
from ..search.search import Search

Shots = tuple[tuple[tuple[str, ...], str], ...]  # (inputs, answer) pairs


@dataclass(frozen=True, kw_only=True)
class CAPOConfig:
    steps: int = 100
    size: int = 10  # of the population
    crossovers: int = 4  # children a step
    shots: int = 5  # worked examples of a candidate, at most
    pool: float = 0.1  # share of the scoring examples that worked examples are made of; they score nothing
    gamma: float = 0.05  # score that the length of the longest first member costs
    alpha: float = 0.2  # level of the tests
    block: int = 30  # examples between two rounds of tests
    blocks: int = 10  # of a race, at most
    temperature: float = 1.0

    def __post_init__(self) -> None:
        if self.size < 2:
            raise ConfigError(f"size is {self.size}; crossing takes a population of at least 2")


def shots(s: Search, c: Candidate) -> Shots:
    return tuple(c.parts.get("demonstrations", s.base.demonstrations))


def give(s: Search, c: Candidate, several: Shots) -> Candidate:
    """`c` with these worked examples; without the part where it would say nothing new, so that content has one id."""
    if several != s.base.demonstrations:
        return c.put("demonstrations", several)
    return replace(c, parts={k: v for k, v in c.parts.items() if k != "demonstrations"})


def work(s: Search, wanted: Sequence[tuple[Candidate, str]]) -> Policy:
    """A worked example for each (candidate, example)."""
    seen: list[Observation] = yield s.cells([(give(s, c, ()), e) for c, e in wanted])
    said = [o.output if o.outcome == "ok" and o.value == 1.0 else s.gold(o.example) for o in seen]
    return [(s.examples[o.example].inputs, answer.strip()) for o, answer in zip(seen, said, strict=True)]


def length(s: Search, c: Candidate) -> int:
    """Words of the instruction and of the worked examples."""
    worked = [part for inputs, answer in shots(s, c) for part in (*inputs, answer)]
    return sum(len(part.split()) for part in (s.text(c), *worked))


def vary(s: Search, a: Candidate, b: Candidate, most: int) -> tuple[Shots, bool]:
    """A child's worked examples, and whether a new one is to be added."""
    both = list(dict.fromkeys([*shots(s, a), *shots(s, b)]))
    kept = s.rng.sample(both, min(len(both), (len(shots(s, a)) + len(shots(s, b))) // 2))
    turn = s.rng.randrange(3)
    return tuple(kept[1:] if turn == 1 else kept), turn == 0 and len(kept) < most


def breed(config: CAPOConfig, s: Search, population: Sequence[Candidate], pool: Sequence[str]) -> Policy:
    pairs = [tuple(s.rng.sample(list(population), 2)) for _ in range(config.crossovers)]
    asked = [s.template("capo_cross", about=s.about(), first=s.text(a), second=s.text(b)) for a, b in pairs]
    merged = yield s.propose(asked, temperature=config.temperature)
    crossed = [(pair, text) for pair, text in zip(pairs, merged, strict=True) if text is not None]
    asked = [s.template("paraphrase", text=text) for _, text in crossed]
    texts = yield s.propose(asked, temperature=config.temperature)
    kids: list[Any] = [
        (s.child(a, text, "cross-mutate", b), *vary(s, a, b, min(config.shots, len(pool))))
        for ((a, b), _), text in zip(crossed, texts, strict=True) if text is not None
    ]  # fmt: skip
    new = iter((yield from work(s, [(c, s.rng.choice(pool)) for c, _, more in kids if more])))
    found = [give(s, c, tuple(s.shuffled([*kept, next(new)] if more else kept))) for c, kept, more in kids]
    return list(dict.fromkeys(found))


def search(config: CAPOConfig, s: Search) -> Policy:
    pool = s.batch(min(max(config.shots, math.ceil(config.pool * len(s.dev))), len(s.dev) // 2))
    most = min(config.shots, len(pool))
    scoring = [e for e in s.dev if e not in pool]
    drawn = [(c, e) for c in s.seeds(config.size) for e in s.rng.sample(pool, s.rng.randint(0, most))]
    worked = yield from work(s, drawn)
    made = [(c, shot) for (c, _), shot in zip(drawn, worked, strict=True)]
    population = [give(s, c, tuple(shot for d, shot in made if d == c)) for c in s.seeds(config.size)]
    longest = max(1, *(length(s, c) for c in population))
    tried = set(population)
    for _ in s.rounds(config.steps):
        kids = yield from breed(config, s, population, pool)
        arms = [*population, *(c for c in kids if c not in tried)]
        tried.update(kids)
        costs = {c.id: config.gamma * length(s, c) / longest for c in arms}
        rule = PairedRace(config.size, config.alpha, config.block, config.blocks, costs)
        left = [x for x in (yield s.evaluate(arms, on=scoring, by=rule)) if x.alive]
        shared = [e for e in scoring if all(e in x.values for x in left)]

        def worth(x: Scored, shared: Sequence[str] = shared, costs: dict[str, float] = costs) -> float:
            return math.fsum(x.values[e] for e in shared) / max(1, len(shared)) - costs[x.id]

        population = [x.candidate for x in sorted(left, key=worth, reverse=True)]
    return population


searching(
    name="capo",
    summary="evolution of instructions with their worked examples, in a race by paired tests that counts length",
    config=CAPOConfig,
    build=search,
    paper="[Zehle et al. 2025](https://arxiv.org/abs/2504.16005)",
    roles=frozenset({"writer"}),
    arrangements=frozenset({"causal", "encoder-decoder", "endpoint"}),
)
