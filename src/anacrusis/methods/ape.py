"""APE: instructions are induced from worked examples, and the best of the pool is found by a bandit.

    pool = union over `subsets` random sets of `demos` examples of `draws` answers to "what was the instruction?"
    best = UCB(pool): mean + c sqrt(log t / n), each pull `samples` examples, `pulls` rounds of `arms` pulls
    iterative APE, `rounds` times:   pool <- the `kept` best + `variations` paraphrases of each;   best = UCB(pool)

The plain form promises cheap choosing only: its writer sees no scores, so nothing leads it to what was planted. On the
planted task, iterative APE: 5000 calls.

Paper: Zhou et al. 2022, https://arxiv.org/abs/2211.01910 (algorithm 1; constants of the release's simple_ape)
Departure: f is the score, not the likelihood of the right answers. A pull takes the next examples of one fixed order,
    without replacement, not random ones. `kept` and `variations` of the iterative form are chosen: the release has no
    such code. Instructions are drawn whole, not cut at 50 tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..registry import searching
from ..search.candidate import Candidate
from ..search.engine import Policy
from ..search.racing import UCB
from ..search.search import Search


@dataclass(frozen=True, kw_only=True)
class APEConfig:
    subsets: int = 5  # random sets of examples that instructions are induced from
    demos: int = 5  # examples in each
    draws: int = 10  # instructions drawn from each
    temperature: float = 0.9
    pulls: int = 20  # rounds of the bandit
    arms: int = 16  # instructions that are pulled in each of them
    samples: int = 5  # examples a pull
    c: float = 1.0  # weight of the bandit's exploration
    rounds: int = 0  # of iterative APE; 0 = plain
    kept: int = 10  # instructions that the bandit returns, and that a round of iterative APE varies
    variations: int = 4  # of each of them


def select(config: APEConfig, s: Search, pool: Sequence[Candidate]) -> Policy:
    """The `kept` best of a pool, by UCB."""
    rule = UCB(rounds=config.pulls, arms=config.arms, samples=config.samples, c=config.c, keep=config.kept,
               seed=s.rng.randrange(2**31))  # fmt: skip
    raced = yield s.evaluate(pool, by=rule)
    return s.top((x for x in raced if x.alive), config.kept)


def search(config: APEConfig, s: Search) -> Policy:
    shown = [s.template("ape", examples=s.shown(s.batch(config.demos))) for _ in range(config.subsets)]
    texts = yield s.propose([t for t in shown for _ in range(config.draws)], temperature=config.temperature)
    best = yield from select(config, s, s.children(texts, [s.start] * len(texts), "induce"))
    for _ in s.rounds(config.rounds):
        parents = [p for p in best for _ in range(config.variations)]
        asked = [s.template("paraphrase", text=s.text(p)) for p in parents]
        texts = yield s.propose(asked, temperature=config.temperature)
        kids = s.children(texts, parents, "paraphrase")
        best = yield from select(config, s, [*(p.candidate for p in best), *kids])
    return best


searching(
    name="ape",
    summary="instructions induced from worked examples, the best found by a bandit; optionally varied and chosen again",
    config=APEConfig,
    build=search,
    races=True,
    paper="[Zhou et al. 2022](https://arxiv.org/abs/2211.01910)",
    roles=frozenset({"writer"}),
)
