"""From a picture to what a network reads: rows of pixels, and batches of rows that keep what is frozen about them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any
from weakref import ref

import numpy as np
import torch
from torch import Tensor

from ..errors import DataError, MissingExtra

TOGETHER = 32  # pictures in one pass of a frozen tower


@dataclass(frozen=True, eq=False)
class Preparation:
    """A model's own way to bring a picture to (3, S, S). processor: of transformers, or None: Pillow resizes and cuts
    the middle. mean, deviation: of the normalisation of pixels in 0..1."""

    size: int
    mean: tuple[float, ...] = (0.5, 0.5, 0.5)
    deviation: tuple[float, ...] = (0.5, 0.5, 0.5)
    processor: Any = None

    def __call__(self, picture: np.ndarray) -> Tensor:
        """(H, W, 3) uint8 -> (3, S, S) uint8."""
        if self.processor is not None:
            out = self.processor(picture, return_tensors="pt", do_rescale=False, do_normalize=False)["pixel_values"][0]
            return out.round().clamp(0, 255).to(torch.uint8) if out.is_floating_point() else out.to(torch.uint8)
        try:
            from PIL import Image
        except ImportError as error:
            raise MissingExtra("pillow", "images", "reading pictures") from error
        image = Image.fromarray(picture)
        short = min(image.size)
        if short != self.size or image.size[0] != image.size[1]:
            scale = self.size / short
            image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BICUBIC)
            left, top = (image.width - self.size) // 2, (image.height - self.size) // 2
            image = image.crop((left, top, left + self.size, top + self.size))
        return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()

    def normalised(self, raw: Tensor) -> Tensor:
        """(B, 3, S, S) of 0..1 -> as the network reads it."""
        mean = torch.tensor(self.mean, device=raw.device, dtype=raw.dtype).view(-1, 1, 1)
        return (raw - mean) / torch.tensor(self.deviation, device=raw.device, dtype=raw.dtype).view(-1, 1, 1)


@dataclass(eq=False)
class ImageRow:
    """One picture, prepared. pixels: (3, S, S) uint8. kept: what the frozen network makes of it, by name. mates: the
    rows that are run together with it, always the same, so that what is kept is the same bit for bit in every run."""

    pixels: Tensor
    kept: dict[str, Tensor] = field(default_factory=dict)
    mates: Sequence[ref[ImageRow]] = ()
    order: int = 0  # among those that were laid out together
    codes: tuple[int, ...] = ()  # no tokens: batches need not be of like length
    cut: int = 0

    def without(self, keep: int) -> ImageRow:
        return self


@dataclass(eq=False)
class ImageBatch:
    rows: Sequence[ImageRow]
    prepare: Preparation
    device: torch.device
    dtype: torch.dtype

    def __len__(self) -> int:
        return len(self.rows)

    @cached_property
    def raw(self) -> Tensor:
        """(B, 3, S, S) of 0..1, in float32 whatever the model computes in."""
        return torch.stack([r.pixels for r in self.rows]).to(self.device).float() / 255

    @cached_property
    def normalised(self) -> Tensor:
        return self.prepare.normalised(self.raw).to(self.dtype)

    def kept(self, name: str, compute: Callable[[ImageBatch], Tensor]) -> Tensor:
        """(B, ...): what `compute` gives for these pictures, computed without gradient and once a picture."""
        for row in self.rows:
            if name not in row.kept:
                group = [mate for one in row.mates if (mate := one()) is not None] or [row]
                with torch.inference_mode(False), torch.no_grad():
                    found = compute(ImageBatch(group, self.prepare, self.device, self.dtype))
                for mate, value in zip(group, found, strict=True):
                    mate.kept[name] = value.clone()
        return torch.stack([r.kept[name] for r in self.rows])


def rows_of(inputs: Iterable[Sequence[Any]], prepare: Preparation) -> list[ImageRow]:
    """Inputs as rows: one picture each, a path, an array (H, W, 3), a PIL image, or anything that has `load()`."""
    rows = [ImageRow(prepare(picture(one[0]))) for one in inputs]
    for i, row in enumerate(rows):
        row.order = i
    for start in range(0, len(rows), TOGETHER):
        for row in rows[start : start + TOGETHER]:
            row.mates = [ref(mate) for mate in rows[start : start + TOGETHER]]  # no cycles: kept tensors are large
    return rows


def is_text(given: Any) -> bool:
    """Whether it is a plain text, not a picture or the key of one."""
    return isinstance(given, str) and not callable(getattr(given, "load", None))


def picture(given: Any) -> np.ndarray:
    """(H, W, 3) uint8. Raises DataError where it is none."""
    from ..task.images import load, of_array

    if isinstance(given, np.ndarray):
        found = of_array(given)
    elif callable(getattr(given, "load", None)) and not hasattr(given, "convert"):
        found = given.load()
    elif hasattr(given, "convert"):
        found = np.asarray(given.convert("RGB"))
    elif isinstance(given, str | os.PathLike):
        found = load(str(given))
    else:
        raise DataError(
            f"a {type(given).__name__} is no picture: give a path, an array of uint8 (height, width, 3), or a PIL image"
        )
    if found.ndim != 3 or found.shape[2] != 3 or found.dtype != np.uint8:
        raise DataError(f"a picture is {found.dtype} of shape {found.shape}; expected uint8 of (height, width, 3)")
    return found
