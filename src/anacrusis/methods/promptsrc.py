"""PromptSRC: rows in both towers, held to what the frozen towers see, and averaged over the epochs.

    loss = CE(z, y) + v (a mean|t_c - t_c0| + b mean|f(x) - f0(x)|) + k KL(softmax z0 || softmax z) / (B C)
    t: (C, D), f: (B, D), z: (B, C) under the prompt; t0: features of an ensemble of templates, f0: of the frozen
    tower, z0 = s <f0, t0>; means are over all elements; v = sqrt(D / 512)
    kept: sum_e w_e P_e, w_e ~ exp(-(e - m E)^2 / (2 (r E)^2)): a Gaussian over epochs e = 1 .. E that sums to 1

Paper: Khattak et al. 2023, https://arxiv.org/abs/2307.06948
Departure: rows as in ivlp; v, which is 1 in the paper, makes a and b mean the same for any D (elements of a unit
    vector are of size D^-1/2, and the paper's D is 512); centre m and width r are shares of the epochs (the paper's 15
    and 1 of 20); f0 is of the same picture, which is not augmented, and kept; each template's feature is at unit length
    before the mean (the released code takes the mean first), and there are eight templates instead of 60, or the task's
    own. Several labels: Bernoulli divergences.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from ..errors import ConfigError
from ..prompt.values import Frame
from ..registry import looking
from ..tune.recipe import Problem, Recipe, Term, View
from ..tune.sight_makers import plain
from . import ivlp
from .zero_shot import TEMPLATES


@dataclass(frozen=True, kw_only=True)
class PromptSRCConfig(ivlp.IVLPConfig):
    text_weight: float = 25.0  # a, of the distance to the frozen class features
    image_weight: float = 10.0  # b, of the distance to the frozen features of the picture
    score_weight: float = 1.0  # k, of the divergence from the frozen model's answers
    centre: float = 0.75  # m, epoch that counts most in the average, as a share of all
    width: float = 0.05  # r, deviation of the weights, as a share of all epochs

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("text_weight", "image_weight", "score_weight"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name} must be at least 0, got {getattr(self, name)}")
        if self.width <= 0:
            raise ConfigError(f"width must be above 0, got {self.width}; a large one weighs all epochs alike")


def terms(config: PromptSRCConfig, asked: Frame, size: int) -> tuple[Term, ...]:
    """The three ties to the frozen model. asked: the frame of its class texts. size: D."""
    v = math.sqrt(size / 512)

    def text(view: View) -> Tensor:
        return (view.seen.text - view.model.texts(asked)).abs().mean()

    def image(view: View) -> Tensor:
        return (view.seen.image - view.model.features(view.batch)).abs().mean()

    def scores(view: View) -> Tensor:
        frozen = view.model.match(view.model.features(view.batch), view.model.texts(asked)).float()
        z = view.scores
        assert z is not None
        return F.kl_div(logs(z, asked.multi), logs(frozen, asked.multi), reduction="sum", log_target=True) / z.numel()

    every = (
        Term("text", v * config.text_weight if config.side != "image" else 0.0, text),
        Term("image", v * config.image_weight if config.side != "text" else 0.0, image),
        Term("scores", config.score_weight, scores),
    )
    return tuple(t for t in every if t.weight)


def logs(z: Tensor, multi: bool) -> Tensor:
    """Log probabilities: over classes, or of each class's yes and no."""
    return torch.stack([F.logsigmoid(z), F.logsigmoid(-z)]) if multi else F.log_softmax(z, dim=1)


def gaussian(centre: float, width: float) -> Callable[[int, int], float]:
    """(epoch from 1, epochs) -> its weight; they sum to 1 over the epochs."""

    def weight(epoch: int, epochs: int) -> float:
        logs = [-((e / epochs - centre) ** 2) / (2 * width**2) for e in range(1, epochs + 1)]
        return math.exp(logs[epoch - 1] - max(logs)) / sum(math.exp(x - max(logs)) for x in logs)

    return weight


def build(config: PromptSRCConfig, problem: Problem) -> Recipe:
    asked = plain(problem.frame)
    if not asked.templates and not asked.texts:
        asked = replace(asked, templates=TEMPLATES)
    ties, average = terms(config, asked, problem.model.hidden), gaussian(config.centre, config.width)
    return replace(ivlp.build(config, problem), terms=ties, average=average)


looking(
    name="promptsrc",
    summary="rows in both towers, held to the frozen features and scores, averaged over epochs",
    config=PromptSRCConfig,
    build=build,
    needs=frozenset({"gradients", "class-texts", "tokens"}),
    paper="[Khattak et al. 2023](https://arxiv.org/abs/2307.06948)",
    training={"lr": 0.1, "epochs": 20, "batch": 32, "patience": 0},
)
