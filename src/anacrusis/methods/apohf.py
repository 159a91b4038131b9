"""APOHF: a person says which of two prompts is better; a small network learns from this which pair to ask about next.

    pool: K prompts of the writer with features x (E,);    f: (E,) -> 32 -> 32 -> 1, trained anew after each answer on
        sum of -y log sigmoid(f(x1) - f(x2)) - (1 - y) log sigmoid(f(x2) - f(x1))  +  decay |theta|^2
    the first `random` duels are between prompts drawn blindly; after them
        arm 1 = argmax f(x);   arm 2 = argmax f(x) + sqrt(nu sum((g(x) - g(arm 1))^2 / U)),  g = gradient of f by theta
        U = decay + sum over past duels of (g1 - g2)^2, diagonal
    result: the prompt with the largest f among those that were in a duel

Paper: Lin et al. 2024, https://arxiv.org/abs/2405.17346 (algorithm 1)
Departure: features are hashed words where the model has no embeddings of its own; the paper has a sentence encoder.
    Each pass is a step of Adam at rate 0.01 on all duels; the paper's rate was not at hand. "Neither" counts as half a
    win for each. Several duels may be asked at a time, so that a person who answers by file need not wait for each.
On the planted task: 165 duels, no right answer seen, with a person who is not always sure: within 0.05 of the skill of
    the best of 112 prompts, in 9 of 10 seeds (random 65, batch 10, passes 60).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import BudgetExhausted, ConfigError
from ..registry import searching
from ..search.candidate import Candidate
from ..search.engine import Policy
from ..search.search import Search
from ..search.whole import Decided
from .apohf_net import Net, hashed

Pair = tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class APOHFConfig:
    pool: int = 200  # K, prompts that the writer is asked for
    duels: int = 165  # that the person is asked for, in all
    random: int = 40  # of them, between prompts drawn blindly, asked all at once
    batch: int = 1  # duels asked at a time after those
    inputs: int = 1  # on which the person sees both prompts' answers; 0: the prompts themselves are shown
    nu: float = 1.0  # weight of what is not known yet
    decay: float = 0.1  # weight of theta's square
    passes: int = 30  # of training, each time
    size: int = 256  # E, of hashed words
    temperature: float = 1.0

    def __post_init__(self) -> None:
        if min(self.pool, self.duels, self.random, self.batch) < 1 or self.decay <= 0:
            raise ConfigError("pool, duels, random and batch must be at least 1, and decay above 0")


def search(config: APOHFConfig, s: Search) -> Policy:
    asked = s.template("random", about=s.about(), text=s.text(s.start))
    texts = yield s.propose([asked] * config.pool, temperature=config.temperature)
    pool = list(dict.fromkeys([*s.seeds(config.pool), *s.children(texts, [s.start] * len(texts), "pool")]))
    said = [s.text(c) for c in pool]
    if "model" in s.model and "features" in s.model["model"].can:
        x = torch.tensor((yield s.embed(said)), dtype=torch.float64)
    else:
        x = torch.stack([hashed(t, config.size) for t in said])
    duels: list[Pair] = []
    wins: list[float] = []
    f = Net(x.shape[1], s.seed, config.decay, config.passes)
    try:
        yield from asking(config, s, f, x, pool, duels, wins)
    except BudgetExhausted:  # what the person said so far is not lost
        duels = duels[: len(wins)]
    if not duels:
        return []
    f.fit(x, duels, wins)
    met = sorted({i for d in duels for i in d})
    value = f.value(f.theta, x)
    order = sorted(met, key=lambda i: -float(value[i]))
    return Decided(pool[order[0]])  # the person has chosen: no score overrules that


def asking(
    config: APOHFConfig, s: Search, f: Net, x: Tensor, pool: list[Candidate], duels: list[Pair], wins: list[float]
) -> Policy:
    """Fills duels and wins."""
    while len(duels) < config.duels:
        left = config.duels - len(duels)
        if not duels:
            blind = [s.rng.sample(range(len(pool)), 2) for _ in range(min(config.random, left))]
            pairs = [(a, b) for a, b in blind]
        else:
            f.fit(x, duels, wins)
            pairs = f.next(x, duels, min(config.batch, left), config.nu)
        shown: Sequence[tuple[str, str]] = ()
        if config.inputs:
            shown = yield from answers(config, s, [(pool[a], pool[b]) for a, b in pairs])
        wins += yield s.duel([(pool[a], pool[b]) for a, b in pairs], shown)
        duels += [(a, b) for a, b in pairs]


def answers(config: APOHFConfig, s: Search, pairs: list[tuple[Candidate, Candidate]]) -> Policy:
    """What the person sees of each side: inputs, the same for both, with the answers."""
    asked = [(c, e) for a, b in pairs for e in s.batch(config.inputs, s.train) for c in (a, b)]
    texts = yield s.answer(asked)
    lines = [
        " / ".join(s.examples[e].inputs) + "\n  -> " + (t or "(no answer)")
        for (_, e), t in zip(asked, texts, strict=True)
    ]
    n = len(lines) // len(pairs)
    return [("\n".join(lines[i : i + n : 2]), "\n".join(lines[i + 1 : i + n : 2])) for i in range(0, len(lines), n)]


searching(
    name="apohf",
    summary="a person prefers one of two prompts again and again; a small network learns what to ask next",
    config=APOHFConfig,
    build=search,
    paper="[Lin et al. 2024](https://arxiv.org/abs/2405.17346)",
    roles=frozenset({"writer", "person"}),
)
