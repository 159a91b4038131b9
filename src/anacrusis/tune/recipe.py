"""What a gradient method hands to the trainer, and what the trainer is told by the user."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal

import torch
from torch import Tensor

from ..errors import ConfigError, did_you_mean
from ..prompt.values import Frame, Prompt
from ..registry import cast
from ..task.task import Task
from .makers import Maker


@dataclass(frozen=True, kw_only=True)
class Training:
    """Options of the trainer. Every method sets those that its paper or our measurements ask for."""

    lr: float = 0.05  # per step; prompt vectors move in units of the embedding table's RMS
    optimizer: Literal["adamw", "adafactor"] = "adamw"
    schedule: Literal["linear", "cosine", "constant"] = "linear"  # after the warm-up
    warmup: float = 0.06  # share of all steps
    weight_decay: float = 0.0
    clip: float = 1.0  # largest gradient norm over all parameters; 0 = none
    epochs: int = 20  # passes over the training split, at most
    steps: int = 0  # optimiser steps in all; 0 = by epochs
    batch: int = 16  # examples a step
    accumulate: int = 1  # micro-batches that make up one step's batch
    patience: int = 6  # validations without improvement before it stops; 0 = never
    validate_every: int = 0  # steps between validations; 0 = once an epoch
    validate_on: int = 1000  # validation examples used, at most
    recompute: bool = False  # activation checkpointing: less memory, about a third more time
    cache: bool = True  # keep keys and values of what stands before the prompt, where that is exact
    cache_gb: float = 2.0  # how much memory that may take
    head_lr: float = 0.003  # of a trained head, relative to lr: faster, and the head alone learns the training set
    head_init: Literal["probe", "zeros"] = "probe"  # start the head at the linear probe, or at nothing
    save_seconds: float = 20.0  # between checkpoints

    def __post_init__(self) -> None:
        for name in ("lr", "epochs", "batch", "accumulate", "validate_on"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be above 0")
        for name, known in (("optimizer", ("adamw", "adafactor")), ("schedule", ("linear", "cosine", "constant"))):
            if getattr(self, name) not in known:
                raise ConfigError(f"{name} is {getattr(self, name)!r}; it must be one of {', '.join(known)}")
        if self.batch % self.accumulate:
            raise ConfigError(f"batch {self.batch} cannot be divided into accumulate={self.accumulate} equal parts")

    def changed(self, options: Mapping[str, Any]) -> Training:
        known = {f.name: f for f in fields(self)}
        for name in options:
            if name not in known:
                raise ConfigError(f"the trainer has no option {name!r}.{did_you_mean(name, known)}")
        return replace(self, **{k: cast(known[k], v) for k, v in options.items()})


@dataclass(frozen=True)
class Problem:
    """What a method is built for. generator: the run's own random numbers; the global ones are never used."""

    model: Any  # a Model, or a Sight for images
    task: Task
    frame: Frame
    generator: torch.Generator
    training: Training = Training()


@dataclass(frozen=True)
class View:
    """What an objective's term may look at in one step."""

    model: Any  # a Model, or a Sight for images
    batch: Any  # its Batch, or ImageBatch
    golds: Tensor  # (B,) class indexes, (B, C) of 0 and 1, or (B,) of -1 for written answers
    prompt: Prompt  # live
    initial: Prompt  # as it was before the first step, without gradient
    scores: Tensor | None  # (B, C), live
    seen: Any = None  # of a model for images: what its towers gave, live (model.sighted.Seen)


@dataclass(frozen=True)
class Term:
    """A weighted part of the loss beside the answer's own. value: View -> scalar, in nats where a likelihood."""

    name: str
    weight: float
    value: Callable[[View], Tensor]


@dataclass(frozen=True)
class Stage:
    """A stretch of training. share: of all steps. roles: parameter groups that move (None: all).
    terms: replace the recipe's. begin: called with the maker when the stage starts."""

    name: str
    share: float = 1.0
    roles: frozenset[str] | None = None
    terms: tuple[Term, ...] | None = None
    begin: Callable[[Maker], None] | None = None


def backward(losses: Mapping[str, Tensor], parameters: Sequence[Tensor]) -> None:
    """The plain direction: the gradient of the losses' sum. Other rules (projection, two passes) have this form."""
    del parameters
    sum(losses.values()).backward()  # type: ignore[union-attr]


@dataclass(frozen=True)
class Recipe:
    """A method's three choices, and what departs from plain training."""

    maker: Maker
    frame: Frame
    terms: tuple[Term, ...] = ()
    stages: tuple[Stage, ...] = (Stage("all"),)
    direction: Callable[[Mapping[str, Tensor], Sequence[Tensor]], None] = backward
    average: Callable[[int, int], float] | None = None  # (epoch from 1, epochs) -> weight of its end
    notes: tuple[str, ...] = field(default=())  # sentences for the person who runs it
