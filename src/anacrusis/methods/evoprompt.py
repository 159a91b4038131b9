"""EvoPrompt: evolution in which a writer does the crossing and the mutating. GA, and differential evolution.

    GA: size children a generation, each of two different parents drawn by roulette on f; the best `size` of all stay
    DE: for each member j: a, b drawn from the others; the writer mutates what differs between a and b, combines that
        with the best so far and crosses the result with j; the child takes j's place iff f(child) > f(j)

Paper: Guo et al. 2023, https://arxiv.org/abs/2309.08532 (algorithms 2 and 3)
Departure: the first population is the start and shipped wordings, filled up with the writer's paraphrases of them; the
    paper has instructions written by hand for each data set. Generations end early when a member is perfect. The
    templates hold no worked example.

On the planted task: 9000 calls, 20 generations.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..registry import searching
from ..search.engine import Policy
from ..search.ledger import Scored
from ..search.search import Search


@dataclass(frozen=True, kw_only=True)
class EvoPromptConfig:
    size: int = 10  # of the population
    generations: int = 10
    temperature: float = 0.5


def population(s: Search, size: int, temperature: float) -> Policy:
    """Seeds, scored; the best are paraphrased until there are `size`."""
    members = yield s.evaluate(s.seeds(size))
    if len(members) < size:
        parents = (s.top(members, size) * size)[: size - len(members)]
        asked = [s.template("paraphrase", text=s.text(p)) for p in parents]
        texts = yield s.propose(asked, temperature=temperature)
        members += yield s.evaluate(s.children(texts, parents, "paraphrase"))
    return s.top(members, size)


def ga(config: EvoPromptConfig, s: Search) -> Policy:
    pop: list[Scored] = yield from population(s, config.size, config.temperature)
    for _ in s.rounds(config.generations):
        pairs = [s.roulette(pop, 2) for _ in range(config.size)]
        asked = [
            s.template("crossover_mutate", about=s.about(), first=s.text(p[0]), second=s.text(p[-1])) for p in pairs
        ]
        texts = yield s.propose(asked, temperature=config.temperature)
        kids = yield s.evaluate(s.children(texts, pairs, "cross-mutate"))
        pop = s.top([*pop, *kids], config.size)
        if pop[0].mean == 1.0:
            break
    return pop


def de(config: EvoPromptConfig, s: Search) -> Policy:
    pop: list[Scored] = yield from population(s, config.size, config.temperature)
    for _ in s.rounds(config.generations):
        best = s.best(pop)
        asked, parents = [], []
        for j in pop:
            a, b = s.rng.sample([m for m in pop if m is not j], 2)
            texts = {"a": s.text(a), "b": s.text(b), "best": s.text(best), "own": s.text(j)}
            asked.append(s.template("differential", about=s.about(), **texts))
            parents.append((j, a, b, best))
        texts_ = yield s.propose(asked, temperature=config.temperature)
        place = {text: n for n, text in enumerate(texts_) if text is not None}
        kids = yield s.evaluate(s.children(texts_, parents, "differential"))
        for kid in kids:
            n = place[s.text(kid)]
            if kid.rank > pop[n].rank:
                pop[n] = kid
        if s.best(pop).mean == 1.0:
            break
    return s.top(pop, config.size)


for name, build, said in (
    ("evoprompt-ga", ga, "a genetic algorithm whose crossing and mutating is done by a writer"),
    ("evoprompt-de", de, "differential evolution in words, done by a writer"),
):
    searching(
        name=name,
        summary=said,
        config=EvoPromptConfig,
        build=build,
        paper="[Guo et al. 2023](https://arxiv.org/abs/2309.08532)",
        roles=frozenset({"writer"}),
    )
