"""TFUP: a cache of unlabelled pictures that the model itself was sure of, asked by how alike its answers are. No step.

    for each class the 2K pictures answered with the highest probability, of these the K with the smallest
        sum_j KL(p_i || p_j), the most typical
    A_k = (f . k) S_k,   S_k = 2 (1 - minmax over the cache of KL(p(f) || p_k));   z' = z + alpha exp(-(1 - A)) onehot

    f: (D,) the picture's feature, k: (D,) a remembered one, p: (C,) softmax of the logits each was answered with

Paper: Training-free unsupervised prompts for vision-language models, 2024, https://arxiv.org/abs/2404.16339
Departure: the cache is filled from the training pictures without their labels, or from those that have gone by in the
    stream (source=stream); the released code fills it from the test pictures before they are answered. min-max alone:
    the released code standardises first, which changes nothing. alpha is in logits of the model's own scale.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from ..adapt.course import Course
from ..adapt.memory import ByClass, divergence
from ..errors import ConfigError
from ..model.readout import reader
from ..model.sight import Sides
from ..model.sighted import Match
from ..registry import looking
from ..tune.recipe import Problem


@dataclass(frozen=True, kw_only=True)
class TFUPConfig:
    size: int = 8  # K, remembered pictures of a class that are asked
    alpha: float = 0.3  # weight of what the cache says, in logits a remembered picture
    source: Literal["train", "stream"] = "train"  # what fills the cache: training pictures (unlabelled), or the stream

    def __post_init__(self) -> None:
        if self.size < 1 or self.source not in ("train", "stream"):
            raise ConfigError(f"size is {self.size}, source {self.source!r}: expected at least 1, and train or stream")


@dataclass
class Typical(ByClass):
    alpha: float = 0.3
    open: bool = True  # whether the stream fills it

    def add(self, feature: Tensor, z: Tensor) -> None:
        if self.open:
            super().add(feature, z)

    def asked(self) -> tuple[Tensor, Tensor, Tensor]:
        """features (N, D), log-probabilities (N, C) and classes (N,) of the K most typical of each class."""
        features, logs, classes = [], [], []
        for c, mine in enumerate(self.kept):
            if mine:
                log = torch.stack([one[2] for one in mine])
                apart = divergence(log[:, None], log[None]).sum(1)
                for i in apart.argsort(stable=True)[: self.most // 2].tolist():
                    features.append(mine[i][1])
                    logs.append(log[i])
                    classes.append(c)
        if not features:
            return torch.zeros(0, 0), torch.zeros(0, 0), torch.zeros(0, dtype=torch.long)
        return torch.stack(features), torch.stack(logs), torch.tensor(classes)

    def more(self, feature: Tensor, z: Tensor) -> Tensor:
        keys, logs, classes = (t.to(z.device) for t in self.asked())
        if not len(keys):
            return torch.zeros_like(z)
        apart = divergence(z.float().log_softmax(-1), logs)
        spread = (apart.max() - apart.min()).clamp(min=1e-12)
        near = 2 * (1 - (apart - apart.min()) / spread)
        weight = torch.exp(-(1 - (keys @ feature.to(keys)) * near))
        return self.alpha * weight.to(z) @ F.one_hot(classes, len(z)).to(z)


def build(config: TFUPConfig, problem: Problem) -> Course:
    model, task = problem.model, problem.task
    memory = Typical(len(problem.frame.labels), 2 * config.size, alpha=config.alpha)
    if config.source == "train" and task is not None:
        read = reader(model, problem.frame)
        assert isinstance(read, Match)
        rows = read.rows([e.inputs for e in task.train], None)
        with torch.no_grad(), model.frozen():
            for start in range(0, len(rows), 32):
                batch = read.batch(rows[start : start + 32])
                for feature, z in zip(model.features(batch), read.scores(batch, Sides(), None), strict=True):
                    memory.add(feature, z)
    memory.open = config.source == "stream"
    return Course(frame=problem.frame, memory=memory)


looking(
    name="tfup",
    summary="a cache of unlabelled pictures that the model was sure of; nothing is trained",
    config=TFUPConfig,
    build=build,
    paper="[2024](https://arxiv.org/abs/2404.16339)",
    engine="adapt",
    needs=frozenset({"images", "class-texts"}),
    kinds=frozenset({"classification"}),
)
