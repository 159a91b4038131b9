"""Tip-Adapter: the training pictures are remembered and asked, beside the class texts; nothing is trained. A yardstick.

    z = s <f, t> + s alpha exp(-beta (1 - f K^T)) V      K: (N, D) features of the examples, V: (N, C) their classes

Paper: Zhang et al. 2022, https://arxiv.org/abs/2207.09550
Departure: keys are features of the pictures as they are (the paper: the mean over ten augmented passes); alpha and beta
    are chosen on validation (the released code chooses them on test), or, without one, by leaving each example out of
    the cache that it asks. alpha counts in cosines times the model's scale, as the text scores do.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from ..errors import ConfigError
from ..model.readout import reader
from ..model.sight import Sides
from ..model.sighted import Match
from ..prompt.values import Cache
from ..registry import looking
from ..tune.recipe import Problem
from ..tune.trainer import golds_of

ALPHAS, BETAS = (0.0, 0.01, 0.03, 0.1, 0.3, 1.0), (1.0, 3.0, 5.5, 10.0, 20.0)


@dataclass(frozen=True, kw_only=True)
class TipAdapterConfig:
    alpha: float = -1.0  # weight of the cache; -1: chosen on validation
    beta: float = -1.0  # how fast a remembered picture's say falls with distance; -1: chosen on validation

    def __post_init__(self) -> None:
        if self.beta == 0:
            raise ConfigError("beta is 0: then every remembered picture says as much as any other; give one above 0")


def build(config: TipAdapterConfig, problem: Problem) -> Cache:
    model, task = problem.model, problem.task
    read = reader(model, problem.frame)
    assert isinstance(read, Match)
    C = len(task.labels)
    values = F.one_hot(golds_of(task.train, task.kind, C), C).float()

    def seen(examples: object) -> tuple[Tensor, Tensor]:
        rows = read.rows([e.inputs for e in examples], None)  # type: ignore[attr-defined]
        parts = [read.batch(rows[i : i + 32]) for i in range(0, len(rows), 32)]
        features = torch.cat([model.features(b) for b in parts])
        return features.cpu(), torch.cat([read.scores(b, Sides(), None) for b in parts]).cpu()

    with torch.no_grad(), model.frozen():
        keys, own = seen(task.train)
        asked, z = seen(task.valid) if task.valid else (keys, own)
        golds = golds_of(task.valid or task.train, task.kind, C)
    apart = 1 - asked @ keys.T
    if not task.valid:
        apart.fill_diagonal_(float("inf"))
    alphas = ALPHAS if config.alpha < 0 else (config.alpha,)
    betas = BETAS if config.beta < 0 else (config.beta,)
    scored = [
        (float((z + a * model.logit_scale * torch.exp(-b * apart) @ values).argmax(1).eq(golds).float().mean()), -a, b)
        for a in alphas for b in betas
    ]  # fmt: skip
    _, alpha, beta = max(scored)
    return Cache(keys=keys, values=values, alpha=-alpha * model.logit_scale, beta=beta,
                 frame=problem.frame)  # fmt: skip


looking(
    name="tip-adapter",
    summary="baseline: the training pictures are remembered and asked beside the class texts",
    config=TipAdapterConfig,
    build=build,
    races=True,
    captions=True,
    paper="[Zhang et al. 2022](https://arxiv.org/abs/2207.09550)",
    engine="baseline",
    needs=frozenset({"images", "class-texts"}),
    kinds=frozenset({"classification"}),
)
