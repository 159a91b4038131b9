"""ProTeGi: a beam search in which the writer says why an instruction fails ("gradient") and mends it.

    round: a minibatch; for each p of the beam:
        g_1 .. g_`gradients` = why(p, `errors` of its mistakes),    p'_i = fix(p, mistakes, g_i)
        p'' = `paraphrases` of each p' and of p;    at most `expansion` of all p', p'' stay, drawn at random
    beam <- the `beam` best of (children + beam) by a bandit with about `cells` questions

On the planted task: 6000 calls.

Paper: Pryzant et al. 2023, https://arxiv.org/abs/2305.03495 (algorithms 1 to 4; constants of the released code)
Departure: bandits meet the examples in one fixed order, not random ones, so that instructions are compared on the same.
    "halving" keeps half of the arms a rung; the release drops what is below the average. The release also scores the
    beam on test examples every round: not copied. Texts that were tried before are not tried again, and a beam whose
    best member is perfect ends the search. One reason a call and one instruction a reason, its defaults, are fixed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..errors import ConfigError
from ..registry import searching
from ..search.candidate import Candidate
from ..search.engine import Policy
from ..search.ledger import Scored
from ..search.racing import UCB, Halving, Minibatch, Rule, SuccessiveRejects
from ..search.search import Search

BANDITS = ("uniform", "ucb", "ucb-e", "successive-rejects", "halving")


@dataclass(frozen=True, kw_only=True)
class ProTeGiConfig:
    rounds: int = 6
    beam: int = 4  # instructions that go on
    minibatch: int = 64  # examples a round on which the beam's mistakes are looked for
    gradients: int = 4  # reasons asked for, each from mistakes drawn anew
    errors: int = 4  # mistakes shown
    paraphrases: int = 2  # of each new instruction and of its origin
    expansion: int = 8  # children of one instruction, at most
    bandit: str = "ucb"  # uniform, ucb, ucb-e, successive-rejects or halving
    cells: int = 2048  # questions that a bandit may ask, about; halving asks what its rungs need
    arms: int = 8  # of ucb and ucb-e: instructions pulled at a time
    samples: int = 32  # of ucb and ucb-e: examples a pull
    c: float = 1.0  # of ucb and ucb-e: weight of exploration
    temperature: float = 1.0

    def __post_init__(self) -> None:
        if self.bandit not in BANDITS:
            raise ConfigError(f"bandit is {self.bandit!r}; it must be one of {', '.join(BANDITS)}")


def bandit(config: ProTeGiConfig, arms: int, seed: int) -> Rule:
    """The rule that the config names, for so many arms."""
    if config.bandit == "uniform":
        return Minibatch(max(1, config.cells // max(1, arms)))
    if config.bandit == "successive-rejects":
        return SuccessiveRejects(keep=config.beam, cells=config.cells, least=4)
    if config.bandit == "halving":
        return Halving(keep=config.beam)
    turns = max(1, config.cells // (config.arms * config.samples))
    return UCB(rounds=turns, arms=config.arms, samples=config.samples, c=config.c, form=config.bandit,
               keep=config.beam, seed=seed)  # fmt: skip


def expand(config: ProTeGiConfig, s: Search, beam: Sequence[Scored]) -> Policy:
    """New candidates: mended, paraphrased, and thinned to `expansion` a parent."""
    cases = [(p, s.rng.sample(p.wrong, min(config.errors, len(p.wrong))))
             for p in beam if p.wrong for _ in range(config.gradients)]  # fmt: skip
    asked = [s.template("protegi_why", text=s.text(p), errors=s.shown(wrong)) for p, wrong in cases]
    reasons = yield s.ask(asked, parse="tag:reason", temperature=config.temperature)
    known = [(p, wrong, g) for (p, wrong), g in zip(cases, reasons, strict=True) if g is not None]
    asked = [s.template("protegi_fix", text=s.text(p), errors=s.shown(wrong), reason=g) for p, wrong, g in known]
    texts = yield s.propose(asked, temperature=config.temperature)
    kids: dict[str, list[Candidate]] = {p.id: [] for p in beam}
    for (p, _, _), text in zip(known, texts, strict=True):
        kids[p.id] += s.children([text], [p], "fix")
    origins = [(p, c) for p in beam for c in (p.candidate, *kids[p.id]) for _ in range(config.paraphrases)]
    asked = [s.template("paraphrase", text=s.text(c)) for _, c in origins]
    texts = yield s.propose(asked, temperature=config.temperature)
    for (p, c), text in zip(origins, texts, strict=True):
        kids[p.id] += s.children([text], [c], "paraphrase")
    unique = [list(dict.fromkeys(found)) for found in kids.values()]
    return [c for found in unique for c in s.rng.sample(found, min(config.expansion, len(found)))]


def search(config: ProTeGiConfig, s: Search) -> Policy:
    beam = [s.start]
    for _ in s.rounds(config.rounds):
        scored = yield s.evaluate(beam, on=s.batch(config.minibatch))
        pool = list(dict.fromkeys([*(yield from expand(config, s, scored)), *beam]))
        raced = yield s.evaluate(pool, by=bandit(config, len(pool), s.rng.randrange(2**31)))
        best = s.top((x for x in raced if x.alive), config.beam)
        beam = [x.candidate for x in best]
        if best[0].mean == 1.0 and best[0].n == len(s.dev):
            break
    return beam


searching(
    name="protegi",
    summary="a beam of instructions: the writer says why each fails and mends it, a bandit chooses",
    config=ProTeGiConfig,
    build=search,
    races=True,
    paper="[Pryzant et al. 2023](https://arxiv.org/abs/2305.03495)",
    roles=frozenset({"writer"}),
)
