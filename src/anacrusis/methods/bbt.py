"""BBT and BBTv2: a soft prompt without gradients, by CMA-ES in a random subspace of a few hundred dimensions.

    bbt:    P = p0 + A z                 z in R^d by CMA-ES, on the mean loss over the scoring examples
            A (P H, d) ~ N(0, (alpha std / (sqrt(d) sigma))^2), fixed; std: of the embedding table's values
            so that for z ~ N(0, sigma^2) every value of A z has the standard deviation alpha std
    bbtv2:  P_l = p0_l + A_l z_l for every layer l; one CMA-ES a layer, in turn from the bottom: a generation for
            layer l with the others at their best. std_l: of that layer's own states, clipped at 3 standard deviations

Paper: Sun et al. 2022, https://arxiv.org/abs/2201.03078 (BBT) and https://arxiv.org/abs/2205.11200 (BBTv2)
Departure: losses are always of the searched frame's readout, cross-entropy. bbtv2's prompts are keys and values before
    those of each layer, where the paper puts tokens among its hidden states: the same reach, and the states of the
    input stay the model's own. p0 is words drawn from the vocabulary (bbtv2: their keys and values). The prompt stands
    beside the words of the input, where the paper adds it to the first of them. d is 100, for short searches (paper:
    500), the prompt 10 vectors (50). Finalists meet by their score, not only at the end but whenever a generation is
    better than all before.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import ConfigError, MissingExtra
from ..prompt.values import Prefix, Prompt, Soft
from ..registry import searching
from ..search.candidate import Candidate, as_frame, as_prompt
from ..search.engine import Policy
from ..search.search import Search
from ..tune import initial
from ..tune.makers import split_sites


@dataclass(frozen=True, kw_only=True)
class BBTConfig:
    length: int = 10  # P, vectors of the prompt
    dim: int = 100  # d, of the subspace (bbtv2: of each layer's)
    alpha: float = 1.0  # size of the prompt's values, in units of the model's own
    sigma: float = 1.0  # of CMA-ES at its start
    popsize: int = 20  # evaluations a generation
    evaluations: int = 8000  # of the loss over the scoring examples, at most

    def __post_init__(self) -> None:
        if min(self.length, self.dim, self.popsize) < 1 or min(self.alpha, self.sigma) <= 0:
            raise ConfigError("length, dim and popsize must be at least 1; alpha and sigma above 0")


def projection(rows: int, dim: int, alpha: float, std: float, sigma: float, generator: torch.Generator) -> Tensor:
    """A: (rows, d)."""
    return torch.randn(rows, dim, generator=generator) * (alpha * std / (math.sqrt(dim) * sigma))


def clipped(values: Tensor, rounds: int = 5) -> float:
    """Standard deviation after what lies beyond 3 of them was pulled in, a few times."""
    x = values.flatten().float()
    for _ in range(rounds):
        mean, std = x.mean(), x.std()
        x = x.clamp(float(mean - 3 * std), float(mean + 3 * std))
    return float(x.std())


def cma_es(config: BBTConfig, seed: int) -> Any:
    """pycma, with a random generator of its own: its default is numpy's global one."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it says that it cannot plot
            import cma
    except ImportError as error:
        raise MissingExtra("cma", "optimisers", "bbt") from error
    g = np.random.default_rng(seed)
    options = {"popsize": config.popsize, "seed": math.nan, "verbose": -9,
               "randn": lambda *shape: g.standard_normal(shape)}  # fmt: skip
    return cma.CMAEvolutionStrategy(np.zeros(config.dim), config.sigma, options)


def optimise(config: BBTConfig, s: Search, parts: int, form: Callable[[Candidate], Prompt]) -> Policy:
    """One CMA-ES for each of the parts z_0 .. z_(parts-1), in turn."""
    s.form = lambda c: form(c) if "z" in c.parts else as_prompt(c, s.base)
    solvers = [cma_es(config, s.seed + i) for i in range(parts)]
    z: tuple[Any, ...] = ((0.0,) * config.dim,) * parts
    seen = {z: math.inf}
    for turn in s.rounds(config.evaluations // config.popsize):
        i = turn % parts
        drawn = solvers[i].ask()
        tried = [(*z[:i], tuple(float(v) for v in x), *z[i + 1 :]) for x in drawn]
        losses = yield s.forward([s.start.put("z", t).born("cma") for t in tried])
        solvers[i].tell(drawn, losses)
        best = min(range(len(tried)), key=losses.__getitem__)
        if losses[best] < min(seen.values()):
            seen[tried[best]] = losses[best]
            z = tried[best]
            yield s.evaluate([s.start.put("z", z).born("cma", note=f"loss {losses[best]:.4f}")])
    found = sorted((t for t in seen if seen[t] < math.inf), key=seen.__getitem__)
    return [s.start.put("z", t).born("cma", note=f"loss {seen[t]:.4f}") for t in found[: s.options.finalists]]


def bbt(config: BBTConfig, s: Search) -> Policy:
    g = torch.Generator().manual_seed(s.seed)
    table = s.model["embeddings"].detach()
    p0 = initial.vectors(s.model["model"], s.base, config.length, "vocab", "", g)
    A = projection(p0.numel(), config.dim, config.alpha, float(table.float().std()), config.sigma, g)

    def form(c: Candidate) -> Prompt:
        return Soft(vectors=p0 + (A @ torch.tensor(c.parts["z"][0])).view(p0.shape), frame=as_frame(c, s.base))

    return (yield from optimise(config, s, 1, form))


def bbtv2(config: BBTConfig, s: Search) -> Policy:
    g = torch.Generator().manual_seed(s.seed)
    model = s.model["model"]
    pooled = model.two_stacks and s.base.readout == "similarity"  # reads the encoder, runs no decoder
    sites = [x for x in model.sites if x.stack == "encoder" or not pooled]
    table = initial.prefix(model, sites, config.length, "text", "", g)  # (P, W)
    parts = table.split([2 * x.heads * x.dim for x in sites], dim=1)
    A = [projection(t.numel(), config.dim, config.alpha, clipped(t), config.sigma, g) for t in parts]
    shift = config.length if model.takes_positions and model.arrangement == "causal" else 0

    def form(c: Candidate) -> Prompt:
        moved = [t + (a @ torch.tensor(z)).view(t.shape) for t, a, z in zip(parts, A, c.parts["z"], strict=True)]
        keys, values = split_sites(torch.cat(moved, dim=1), [(x.stack, x.heads, x.dim) for x in sites])
        return Prefix(keys=keys, values=values, shift=shift, frame=as_frame(c, s.base))

    return (yield from optimise(config, s, len(sites), form))


for name, build, said, paper in (
    ("bbt", bbt, "soft prompt without gradients: CMA-ES in a random subspace", "2201.03078"),
    ("bbtv2", bbtv2, "keys and values of every layer without gradients: a CMA-ES a layer, in turn", "2205.11200"),
):
    searching(
        name=name,
        summary=said,
        config=BBTConfig,
        build=build,
        paper=f"[Sun et al. 2022](https://arxiv.org/abs/{paper})",
        needs=frozenset({"gradients"}),  # what only local models have: it looks at losses, not at gradients
        arrangements=frozenset({"masked", "causal", "encoder", "encoder-decoder"}),
    )
