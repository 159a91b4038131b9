"""How the output of a model for images becomes an answer: by class texts, by a head, or by its own classes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ..errors import ConfigError, DataError, ModelError
from ..prompt.values import Frame, Head, Pixels, Prompt, Tokens
from .images import ImageBatch, ImageRow, is_text, rows_of
from .readout import Judged, Pooled, Reader, classification_loss
from .sight import Sides, Sight


@dataclass
class Looking(Reader):
    """What the readers of images share: rows are pictures, and a pass is one of both towers."""

    model: Sight  # type: ignore[assignment]  # the same part of a reader, another noun of models

    def rows(self, inputs: Iterable[Sequence[Any]], prompt: Prompt | None, golds: Sequence[Any] = ()) -> list[Any]:
        """Pictures, each prepared: keys, paths (as Path), arrays, PIL images. A plain text is a caption and stands for
        a picture: a dual encoder puts both into one space."""
        inputs = list(inputs)
        told = [is_text(x[0]) for x in inputs]
        if not any(told):
            return rows_of(inputs, self.model.prepare)
        if not all(told):
            raise DataError("texts and pictures in one call: give paths of pictures as pathlib.Path")
        features = self.model.encode(str(x[0]) for x in inputs)
        return [ImageRow(torch.empty(0), {"features": f}) for f in features]

    def batch(self, rows: Sequence[ImageRow]) -> ImageBatch:  # type: ignore[override]
        return ImageBatch(rows, self.model.prepare, self.model.device, self.model.dtype)

    def image(self, batch: ImageBatch, sides: Sides, texts: Tensor | None = None) -> Tensor:
        """(B, D), or (B, M, D) of rows that only read; from memory where no prompt touches the image side."""
        return self.model.features(batch) if sides.image is None else self.model.look(batch, sides.image, texts)


@dataclass(frozen=True)
class Seen:
    """What the towers gave under the prompt: image (B, D) or (B, M, D); text (C, D), (B, C, D) or (C, M, D)."""

    image: Tensor
    text: Tensor


@dataclass
class Match(Looking):
    """Scores: the scaled cosine between an image and the texts of each class."""

    _last: tuple[Tokens, Tensor] | None = field(default=None, repr=False)

    def seen(self, batch: ImageBatch, sides: Sides) -> Seen:
        text = self.texts(sides.text)
        return Seen(self.image(batch, sides, text), text)

    def texts(self, prompt: Tokens | None) -> Tensor:
        """Class features under a prompt; of a prompt that does not change, once."""
        if prompt is None or torch.is_grad_enabled() or prompt.per == "input":
            return self.model.texts(self.frame, prompt)
        if self._last is None or self._last[0] is not prompt:
            self._last = (prompt, self.model.texts(self.frame, prompt))
        return self._last[1]

    def score(self, seen: Seen, sides: Sides) -> Tensor:
        z = self.model.match(seen.image, seen.text)
        if sides.cache is not None:
            cache = sides.cache
            near = torch.exp(-cache.beta * (1 - seen.image @ cache.keys.to(z).T))
            z = z + cache.alpha * near @ cache.values.to(z)
        z = z.float()
        # several labels: a class is held where it is above the picture's mean; raw scores are all above 0
        return z - z.mean(1, keepdim=True) if self.frame.multi else z

    def scores(self, batch: Any, placed: Any, head: Head | None, recompute: bool = False) -> Tensor:
        return self.score(self.seen(batch, placed), placed)

    def loss(self, batch: Any, placed: Any, head: Head | None, golds: Tensor, recompute: bool = False) -> Judged:
        seen = self.seen(batch, placed)
        z = self.score(seen, placed)
        return Judged(classification_loss(z, golds), z, seen)


class ImageHead(Looking, Pooled):
    """A head on the image tower's features: of unit length for a dual encoder, as they are for others."""

    def pooled(self, batch: Any, placed: Any, recompute: bool = False) -> Tensor:
        if self.model.arrangement == "dual":
            return self.image(batch, placed)
        if placed.image is None:
            kept: Tensor = batch.kept("pooled", lambda part: self.model.pooled(part, None))
            return kept
        return self.model.pooled(batch, placed.image)

    def scores(self, batch: Any, placed: Any, head: Head | None, recompute: bool = False) -> Tensor:
        return self.judge(self.pooled(batch, placed), head)


class Classes(Looking):
    """The scores that a classifier gives for the classes it was trained with; prompts enter as pixels."""

    def scores(self, batch: Any, placed: Any, head: Head | None, recompute: bool = False) -> Tensor:
        model = self.model
        logits = model.logits
        if logits is None:
            raise ModelError(f"{model.name} has no classes of its own")
        if placed.image is not None and not isinstance(placed.image, Pixels):
            raise ModelError("the readout 'classes' takes pixel prompts; tokens go with readout=head")
        missing = [w for w in self.frame.labels if w not in model.classes]
        if missing:
            raise ConfigError(
                f"{model.name} does not know the class {missing[0]!r}; its classes are {', '.join(model.classes[:12])}"
            )
        index = torch.tensor([model.classes.index(w) for w in self.frame.labels], device=model.device)
        if placed.image is None:
            z = batch.kept("logits", lambda part: logits(part.normalised))
        else:
            z = logits(model.pixels(batch, placed.image))
        return z.float().index_select(1, index)


IMAGE_READERS: dict[str, type[Looking]] = {"match": Match, "head": ImageHead, "classes": Classes}


def image_reader(model: Sight, frame: Frame) -> Looking:
    fits = {"match": "class-texts", "head": "features", "classes": "classes"}
    if frame.readout not in fits or fits[frame.readout] not in model.can:
        known = [r for r, needs in fits.items() if needs in model.can]
        raise ModelError(
            f"the readout {frame.readout!r} does not go with {model.name} ({model.arrangement}); readouts that fit it: "
            f"{', '.join(known)}"
        )
    return IMAGE_READERS[frame.readout](model, frame)
