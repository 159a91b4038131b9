"""Where in a picture a prompt acts: maps of one number a pixel, as the model sees the picture."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ..errors import ConfigError, ModelError, PromptError, did_you_mean
from ..model.images import ImageBatch, rows_of
from ..model.sight import Sides, Sight
from ..model.sighted import image_reader
from ..prompt.store import check
from ..prompt.values import Adaptive, Pixels, Prompt, Tokens
from .pictures import Map, sees


def map_of(prompt: Prompt, model: Sight, picture: Any, label: str | None = None) -> Map:
    """(S, S) of 0..1: where in a picture the prompt acts, as the model sees the picture (S pixels a side).

    For pixel prompts: how much each pixel changes (absolute, summed over colours). For others: |d (z - z0) / d pixels|,
    summed over colours and averaged in each patch; z and z0 are the class's score with and without the prompt. Both
    relative to the largest. 0 everywhere: nothing changes, as without a learned part.
    label: whose score; else the answer's. Raises ConfigError for an unknown class, PromptError for a prompt of another
    model or one that moves while it is used, ModelError for a model of texts.
    """
    read, batch, sides = _placed(prompt, model, picture)
    with model.frozen(), torch.enable_grad():
        if isinstance(sides.image, Pixels):
            return _relative(_change(sides.image, batch.raw).abs().sum(1)[0])
        z = read.scores(batch, sides, prompt.head)[0]
        labels = prompt.frame.labels
        if label is not None and label not in labels:
            raise ConfigError(f"no class {label!r}.{did_you_mean(label, labels)}")
        c = int(z.argmax()) if label is None else labels.index(label)
        change = z[c] - read.scores(batch, Sides(), prompt.head)[0, c]
        g = torch.autograd.grad(change, batch.raw, allow_unused=True)[0] if change.requires_grad else None
    if g is None:
        return np.zeros((model.prepare.size,) * 2, np.float32)
    side, patch = _grid(model)
    return _spread(F.avg_pool2d(g.float().abs().sum(1), patch)[0, :side, :side], model.prepare.size, patch)


def attention_of(prompt: Prompt, model: Sight, picture: Any) -> Map:
    """(S, S) of 0..1: how much the prompt's rows look at each patch in the last block that they are in, as a mean over
    rows and heads, relative to the largest.

    Raises PromptError for a prompt without rows in the image tower; else as `map_of`.
    """
    sees(model)
    if model.image.tower is None:
        raise ModelError(f"{model.name} has no transformer blocks, so no attention")
    kept: list[tuple[int, Tensor, Tensor]] = []  # block, queries and keys, in the order in which they are computed
    tower = model.image.tower

    def kept_by(i: int) -> Any:
        def qkv(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            q, k, v = tower.blocks[i].qkv(x)
            kept.append((i, q, k))
            return q, k, v

        return replace(tower.blocks[i], qkv=qkv)

    seen = replace(tower, blocks=[kept_by(i) for i in range(tower.depth)])
    watched = replace(model, image=replace(model.image, tower=seen))  # the same network, looked at on the way
    read, batch, sides = _placed(prompt, watched, picture)
    if not isinstance(sides.image, Tokens):
        raise PromptError(f"this {prompt.kind} prompt has no rows in the image tower: nothing looks at patches")
    kept.clear()
    with torch.no_grad(), model.frozen():
        n = model.enter(batch.normalised).shape[1]
        read.scores(batch, sides, prompt.head)
    rows = sides.image
    if rows.read_only:  # they read what the frozen tower has
        i, q, _ = kept[-1]
        k = next(k for j, _, k in kept if j == i and k.shape[2] == n)
    else:
        among = [(i, q[:, :, n:], k) for i, q, k in kept if k.shape[2] > n]
        if not among:
            raise PromptError("this prompt has 0 rows in every block: nothing looks at patches")
        i, q, k = among[-1]
    logits = (q.float() @ k.float().transpose(-1, -2)) / q.shape[-1] ** 0.5
    if rows.temperatures is not None:
        logits = logits / rows.temperatures[i].to(logits)
    if rows.mass is not None:
        logits[..., :n] += rows.mass[i, 1].to(logits).log()
    side, patch = _grid(model)
    weight = logits.softmax(-1).nan_to_num()[..., n - side**2 : n].mean((0, 1, 2))  # patches stand behind other tokens
    return _spread(weight.view(side, side), model.prepare.size, patch)


@dataclass(eq=False)
class _Live(ImageBatch):
    """Pictures as pixels that gradients reach: nothing about them is kept."""

    @cached_property
    def raw(self) -> Tensor:
        return torch.stack([r.pixels for r in self.rows]).to(self.device, self.dtype).div(255).requires_grad_()

    def kept(self, name: str, compute: Callable[[ImageBatch], Tensor]) -> Tensor:
        return compute(self)


def _placed(prompt: Prompt, model: Sight, picture: Any) -> tuple[Any, _Live, Sides]:
    sees(model)
    if isinstance(prompt, Adaptive):
        raise PromptError("an adaptive prompt is another one for each picture: show the one that it starts from")
    check(prompt, model.name, model.fingerprint)
    read = image_reader(model, prompt.frame)
    batch = _Live(rows_of([(picture,)], model.prepare), model.prepare, model.device, model.dtype)
    with model.frozen(), torch.enable_grad():
        return read, batch, model.place(prompt, batch)


def _change(prompt: Pixels, raw: Tensor) -> Tensor:
    """(1, 3, S, S): what a pixel prompt adds, less what is cut off."""
    delta = prompt.delta.detach().to(raw).expand(raw.shape)
    raw = raw.detach()
    return (raw + delta).clamp(0, 1) - raw if prompt.space == "raw" and prompt.clip else delta


def _grid(model: Sight) -> tuple[int, int]:
    """Patches a side, and pixels a side of one. Networks without patches: 16 cells."""
    S = model.prepare.size
    with torch.no_grad(), model.frozen():
        side = math.isqrt(model.enter(model.grey()).shape[1]) if model.image.tower is not None else min(16, S)
    return side, S // side


def _spread(cells: Tensor, size: int, patch: int) -> Map:
    """(g, g) -> (size, size): every cell on its patch; 0 on an edge that no patch covers."""
    wide = cells.repeat_interleave(patch, 0).repeat_interleave(patch, 1)
    return _relative(F.pad(wide, (0, size - wide.shape[1], 0, size - wide.shape[0])))


def _relative(x: Tensor) -> Map:
    x = x.detach().float().cpu()
    return (x / x.max() if x.max() > 0 else x).numpy()
