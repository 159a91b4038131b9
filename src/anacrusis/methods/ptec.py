"""PTEC: a soft prompt and a classification head, trained together at two learning rates.

    logits = head(h)        h: (B, H) last layer's state of the text's last token under [p ; E(text)], p: (P, H)
    loss: cross entropy, or with several labels a sigmoid a class, where a positive of class c counts n_max / n_c times

No text is written, so no answer can be outside the labels, and all labels are scored by one pass.

Paper: Buchner et al. 2023, https://arxiv.org/abs/2309.12075; code: EQTPartners/PTEC
Departure: the head has a bias and starts at a linear probe (head_init=zeros: at nothing), not at random. Models that
    pool by their mean or first token keep doing so; causal models read the last token, as the paper's. AdamW in units
    of the table's RMS, warm-up and cosine in place of the one-cycle schedule, both with a 30 % rise. Embeddings of
    label names are laid end to end and repeated to fill p. No trie: that is for PTEC's text-writing rival.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from ..errors import ConfigError
from ..model.frames import default_frame
from ..prompt.values import Frame
from ..registry import Method, register
from ..tune import initial
from ..tune.makers import Free, SoftMaker
from ..tune.recipe import Problem, Recipe, Term, View
from ..tune.trainer import golds_of


@dataclass(frozen=True, kw_only=True)
class PTECConfig:
    length: int = 20  # P, in tokens; the paper takes 100 and searches 50 to 200
    init: Literal["labels", "vocab", "random", "text", "prompt"] = "labels"
    source: str = ""  # the text for init=text, the prompt's folder for init=prompt
    balance: bool = True  # with several labels: rare classes weigh more

    def __post_init__(self) -> None:
        if self.length < 1:
            raise ConfigError(f"length must be at least 1 token, got {self.length}")


def headed(problem: Problem) -> Frame:
    """The problem's frame, read by a head; a template that nobody chose no longer asks for a word."""
    model, task, frame = problem.model, problem.task, problem.frame
    chosen = frame.template != default_frame(model, task, readout=frame.readout).template
    template = frame.template if chosen else default_frame(model, task, readout="head").template
    return replace(frame, readout="head", template=template)


def weights(problem: Problem) -> Tensor:
    """(C,) at least 1: how often the commonest class of the training split occurs for each time that this one does."""
    counts = golds_of(problem.task.train, problem.task.kind, len(problem.task.labels)).sum(0)
    return torch.where(counts > 0, counts.max() / counts.clamp(min=1), 1.0)


def balance(weight: Tensor) -> Term:
    """What a positive of a rare class adds to the plain loss: (w - 1) * -log sigmoid(z), mean over classes and rows."""

    def value(view: View) -> Tensor:
        assert view.scores is not None
        return ((weight.to(view.scores) - 1) * view.golds * F.softplus(-view.scores)).mean()

    return Term("rare classes", 1.0, value)


def build(config: PTECConfig, problem: Problem) -> Recipe:
    model, frame = problem.model, headed(problem)
    start = initial.vectors(model, frame, config.length, config.init, config.source, problem.generator)
    terms: tuple[Term, ...] = ()
    if config.balance and frame.multi and bool((weights(problem) > 1).any()):
        terms = (balance(weights(problem)),)
    return Recipe(SoftMaker(Free(start), model.scale), frame, terms)


register(
    Method(
        name="ptec",
        summary="a soft prompt and a classification head, each at its own rate",
        config=PTECConfig,
        build=build,
        races=True,
        paper="[Buchner et al. 2023](https://arxiv.org/abs/2309.12075)",
        kinds=frozenset({"classification", "multilabel"}),
        training={"lr": 0.3, "head_lr": 0.005, "warmup": 0.3, "schedule": "cosine", "batch": 32},
    )
)
