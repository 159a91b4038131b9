"""PromptQuine: an in-context prompt is pruned by evolution; what is left may be odd, and better than the whole.

    individual: which words of the prompt (instruction and demonstrations) are kept; all at first
    offspring:  tournament of a fifth of the population; 1 to `most` of the winner's words, drawn at random, are dropped
    survivors:  the best `size` of the last `offspring` + `size` entries: parents die (regularised evolution)
    until the population's mean length is at most `shortest` words

On the planted task, from an instruction of all its phrases: 6000 calls.

Paper: Wang et al. 2025, https://arxiv.org/abs/2506.17930 (constants of the released code, but for the sizes)
Departure: words, not tokens. Only the first searched text and the demonstrations' inputs are pruned; placeholders and
    the demonstrations' answers stay. Sizes of a third: population 10 and 16 offspring (30 and 50). Where scores are
    equal the shorter prompt is better. racing > 0 is successive halving in place of the released code's two stages.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..registry import searching
from ..search.candidate import Candidate
from ..search.edits import join, locked, split
from ..search.engine import Policy
from ..search.ledger import Scored
from ..search.racing import Full, Halving
from ..search.search import Search


@dataclass(frozen=True, kw_only=True)
class PromptQuineConfig:
    shots: int = 0  # demonstrations that the prompt begins with
    size: int = 10  # of the population
    offspring: int = 16  # a generation
    most: int = 4  # words dropped at once
    shortest: int = 15  # words that the population keeps on average, when it ends
    generations: int = 100  # at most
    racing: int = 0  # offspring that see all examples; 0: all of them do


class Prompt:
    """A prompt's words and their places: "" for the searched text, (shot, field) for a demonstration's input."""

    def __init__(self, s: Search, shots: int):
        pool = [e for e in s.train if e not in s.dev] or s.train  # nothing is scored on an example that shows it
        self.s, self.shots = s, [s.examples[e] for e in s.batch(shots, pool)]
        texts = {(-1, 0): s.text(s.start)}
        texts |= {(k, j): t for k, e in enumerate(self.shots) for j, t in enumerate(e.inputs)}
        self.words = [(place, w) for place, text in texts.items() for w in split(text, "word")]
        self.free = {i for i, (place, w) in enumerate(self.words) if place[0] >= 0 or not locked(w)}

    def candidate(self, kept: frozenset[int], *parents: Candidate) -> Candidate:
        def text(place: tuple[int, int]) -> str:
            return join((w for i, (p, w) in enumerate(self.words) if p == place and i in kept), "word")

        c = self.s.start.put(self.s.slot, text((-1, 0)))
        if self.shots:
            c = c.put("demonstrations", tuple(
                (tuple(text((k, j)) for j in range(len(e.inputs))), self.s.gold(e)) for k, e in enumerate(self.shots)
            ))  # fmt: skip
        return c.born("prune", *parents, note=f"{len(kept)} of {len(self.words)} words")


def search(config: PromptQuineConfig, s: Search) -> Policy:
    prompt = Prompt(s, config.shots)
    whole = frozenset(range(len(prompt.words)))
    kept = {prompt.candidate(whole).id: whole}

    def fit(x: Scored) -> tuple[float, float, int]:
        return (*x.rank, -len(kept[x.id]))

    seen: list[Scored] = list((yield s.evaluate([prompt.candidate(whole)])))
    population = seen * config.size
    for _ in s.rounds(config.generations):
        drawn: dict[str, Candidate] = {}
        for _ in range(4 * config.offspring):
            parent = max(s.rng.sample(population, max(1, len(population) // 5)), key=fit)
            free = sorted(kept[parent.id] & prompt.free)
            gone = s.rng.sample(free, min(len(free), s.rng.randint(1, config.most)))
            c = prompt.candidate(kept[parent.id] - set(gone), parent.candidate)
            if c.id not in kept and len(drawn) < config.offspring:
                drawn[c.id], kept[c.id] = c, kept[parent.id] - set(gone)
        if not drawn:
            break
        new = yield s.evaluate(drawn.values(), by=Halving(keep=config.racing) if config.racing else Full())
        seen += [x for x in new if x.alive]
        population = sorted(seen[-(config.offspring + config.size) :], key=fit, reverse=True)[: config.size]
        if sum(len(kept[x.id]) for x in population) <= config.shortest * len(population):
            break
    return sorted(seen, key=fit, reverse=True)[: s.options.finalists]


searching(
    name="promptquine",
    summary="prunes words of the instruction and the demonstrations by evolution",
    config=PromptQuineConfig,
    build=search,
    paper="[Wang et al. 2025](https://arxiv.org/abs/2506.17930)",
)
