"""What a prompt for pictures gets wrong, and pictures of it for people: PNG files that Pillow draws."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError, MissingExtra, ModelError
from ..measure.predict import scores
from ..model.images import Preparation
from ..model.images import picture as picture_of
from ..prompt.values import Constant, Prompt
from ..task import Task, golds_of

Map = NDArray[np.float32]  # (S, S) of 0..1
Ink = tuple[int, int, int]
BACK, DARK, GREY = (250, 250, 248), (30, 30, 34), (105, 105, 112)
BOX, GAP, EDGE = 160, 18, 22  # pixels: a picture's room on a sheet, between two, around all
LONGEST, WIDEST = 230, 1500  # pixels: of a caption; of the pictures of a row
HEAT = ((13, 8, 135), (126, 3, 168), (204, 71, 120), (248, 149, 64), (240, 249, 33))  # dark to light, as "plasma"
STRENGTH = 0.7  # of the heat over the picture where the map is 1


@dataclass(frozen=True)
class Mistake:
    """A picture that was answered wrongly. key: as in the task; probabilities: by class, in the task's order."""

    key: str
    gold: str
    answer: str
    probabilities: Mapping[str, float]

    @property
    def sure(self) -> float:
        """The probability of the answer."""
        return self.probabilities[self.answer]


def mistakes(prompt: Prompt, model: Any, task: Task, *, split: str = "test", most: int = 24) -> list[Mistake]:
    """The wrong answers on a split of which the model was surest, the surest first.

    Raises ConfigError for a task that is not one of pictures with one class each, an empty split, other classes than
    the prompt's, and most < 1; ModelError for a model of texts; DataError for unlabelled pictures.
    """
    if task.modality != "image" or task.kind != "classification":
        raise ConfigError(f"{task.name} is {task.kind} of {task.modality}s; mistakes are of pictures with one class")
    if split not in ("train", "valid", "test"):
        raise ConfigError(f"split is {split!r}; it must be train, valid or test")
    if most < 1:
        raise ConfigError(f"most is {most}; it must be at least 1")
    examples = getattr(task, split)
    if not examples:
        raise ConfigError(f"the task {task.name} has no {split} examples")
    if prompt.frame.labels != task.labels:
        raise ConfigError(f"the prompt answers {', '.join(prompt.frame.labels)}; {task.name}: {', '.join(task.labels)}")
    if not isinstance(prompt, Constant):
        sees(model)
    p = scores(prompt, [e.inputs for e in examples], model).double().softmax(1)
    wrong = []
    for example, gold, row in zip(examples, golds_of(examples), p.tolist(), strict=True):
        answer = max(range(len(row)), key=row.__getitem__)
        if answer != gold:
            names = task.labels
            wrong.append(
                Mistake(str(example.inputs[0]), names[gold], names[answer], dict(zip(names, row, strict=True)))
            )
    return sorted(wrong, key=lambda m: -m.sure)[:most]


def sees(model: Any) -> None:
    """Raises ModelError for a model of texts."""
    if "images" not in getattr(model, "can", ()):
        raise ModelError(f"{getattr(model, 'name', model)} does not look at pictures; open a model for images")


# --- a sheet of pictures


def contact_sheet(
    found: Sequence[Mistake], task: Task, path: str | Path, *, title: str = "", font: str | Path | None = None
) -> Path:
    """Draw the pictures of mistakes on one sheet, a PNG, with "gold -> answer 0.93" under each. Returns its path.

    title: else the task's name. font: a TrueType file for names in other scripts; Pillow's own font has the letters of
    English, and others are written by those they are made of (é: e) or as "?".
    Raises ConfigError for another suffix than .png, MissingExtra without Pillow, DataError for a lost picture.
    """
    Image, ImageDraw, fonts = _pillow(font)
    target, small, large = png(path), fonts(14), fonts(20)
    captions = [_caption(m, small, LONGEST) for m in found]
    box = max([BOX, *(math.ceil(small.wide(line)) for c in captions for line in c)])
    across = box + GAP
    columns = max(1, min(WIDEST // across, math.ceil(math.sqrt(1.5 * len(found)))))
    lines = max((len(c) for c in captions), default=1)
    head, line, cell = EDGE + 58, 18, box + 8
    rows = -(-len(found) // columns)
    width = 2 * EDGE + max(columns * across - GAP, 380)
    height = head + max(rows * (cell + lines * line + GAP) - GAP, line) + EDGE
    sheet = Image.new("RGB", (width, height), BACK)
    pen = ImageDraw.Draw(sheet)
    many = f"the {len(found)} hardest mistakes" if len(found) > 1 else f"the hardest mistake{'s' * (not found)}"
    room = width - 2 * EDGE
    pen.text((EDGE, EDGE - 4), large.fit(title or f"{task.name}: {many}", room), DARK, font=large.font)
    under = "true class -> answer, and its probability" if found else "no mistakes"
    pen.text((EDGE, EDGE + 24), small.fit(under, room), GREY, font=small.font)
    for i, (mistake, caption) in enumerate(zip(found, captions, strict=True)):
        left, top = EDGE + i % columns * across, head + i // columns * (cell + lines * line + GAP)
        shown = _within(Image.fromarray(picture_of(_loaded(task, mistake.key))), box)
        corner = (left + (box - shown.width) // 2, top + (box - shown.height) // 2)
        pen.rectangle((left - 1, top - 1, left + box, top + box), (238, 238, 235), (222, 222, 218))
        sheet.paste(shown, corner)
        for n, text in enumerate(caption):
            pen.text((left, top + cell + n * line), text, DARK, font=small.font)
    sheet.save(target, "PNG")
    return target


def _loaded(task: Task, key: str) -> Any:
    return task.images.load(key) if task.images is not None else key


def _caption(mistake: Mistake, pen: Pen, room: int) -> list[str]:
    """One line where it fits under a picture, else two."""
    gold, answer = (" ".join(name.split()) for name in (mistake.gold, mistake.answer))
    sure = f"{mistake.sure:.2f}"
    if pen.wide(f"{gold} -> {answer} {sure}") <= BOX:
        return [pen.plain(f"{gold} -> {answer} {sure}")]
    left = room - pen.wide(f"->  {sure}") - 1
    return [pen.fit(gold, room), f"-> {pen.fit(answer, left)} {sure}"]


def _within(image: Any, box: int) -> Any:
    """The picture scaled to fit into a square, its aspect kept; small ones keep their pixels' edges."""
    from PIL import Image

    scale = box / max(image.size)
    way = Image.Resampling.NEAREST if scale >= 2 else Image.Resampling.LANCZOS
    return image.resize((max(1, round(image.width * scale)), max(1, round(image.height * scale))), way)


# --- a map over its picture


def overlay(
    picture: Any,
    map: Map,
    path: str | Path,
    *,
    caption: str = "where the prompt acts",
    prepare: Preparation | None = None,
) -> Path:
    """Draw the picture beside itself with the map as heat over it, a PNG with a caption. Returns its path.

    map: (S, S) of 0..1. prepare: how the model of the map brings pictures to S pixels (model.prepare); else the short
    side is scaled to S and the middle cut out. Raises ConfigError for a map of another form or another suffix than
    .png, MissingExtra without Pillow, DataError for a broken picture.
    """
    S = len(map)
    if map.shape != (S, S) or not np.isfinite(map).all() or map.min() < 0 or map.max() > 1:
        raise ConfigError(f"the map is {map.dtype} of shape {map.shape}; expected (S, S) of 0 to 1")
    Image, ImageDraw, fonts = _pillow(None)
    target, pen_of = png(path), fonts(15)
    prepare = prepare or Preparation(S)
    if prepare.size != S:
        raise ConfigError(f"the map is of {S} pixels a side; prepare makes {prepare.size}")
    pixels = prepare(picture_of(picture)).permute(1, 2, 0).numpy()
    heat = _heated(pixels.mean(2, keepdims=True).repeat(3, 2), map)
    side = max(S, 320)
    sheet = Image.new("RGB", (2 * EDGE + 2 * side + GAP, 2 * EDGE + side + 34), BACK)
    for i, shown in enumerate((pixels, heat)):
        sheet.paste(_within(Image.fromarray(shown), side), (EDGE + i * (side + GAP), EDGE))
    pen, top = ImageDraw.Draw(sheet), EDGE + side + 12
    pen.text((EDGE, top), pen_of.fit(caption, side), DARK, font=pen_of.font)
    left, bar = EDGE + side + GAP, 120
    pen.text((left, top), "least", GREY, font=pen_of.font)
    start = left + round(pen_of.wide("least")) + 8
    scale = np.linspace(0, 1, bar, dtype=np.float32)[None].repeat(12, 0)
    sheet.paste(Image.fromarray(_heated(np.full((12, bar, 3), pixels.mean()), scale)), (start, top + 3))
    pen.text((start + bar + 8, top), "most" if map.max() > 0 else "(nothing)", GREY, font=pen_of.font)
    sheet.save(target, "PNG")
    return target


def _heated(pixels: NDArray[Any], map: Map) -> NDArray[np.uint8]:
    """(h, w, 3) of 0..255 with the heat of a map (h, w) over it, the denser the hotter."""
    at = np.linspace(0, 1, len(HEAT))
    heat = np.stack([np.interp(map, at, [c[i] for c in HEAT]) for i in range(3)], -1)
    dense = STRENGTH * np.sqrt(map)[..., None]
    return (pixels * (1 - dense) + heat * dense).round().astype(np.uint8)


# --- text on pictures


@dataclass(frozen=True)
class Pen:
    """A font of one size, and how wide it writes."""

    font: Any

    def wide(self, text: str) -> float:
        """Pixels."""
        return float(self.font.getlength(self.plain(text)))

    def fit(self, text: str, room: float) -> str:
        """The text, or so much of it that it fits into `room` pixels with an ellipsis."""
        return shortened(self.plain(text), room, self.wide)

    def plain(self, text: str) -> str:
        """The text on one line, in letters that the font has."""
        return "".join(_letters(self.font, c) for c in " ".join(text.split()))


def shortened(text: str, room: float, wide: Callable[[str], float]) -> str:
    """The longest beginning of `text` that is no wider than `room`, with an ellipsis where something is left out."""
    if wide(text) <= room:
        return text
    keep = next((n for n in range(len(text) - 1, 0, -1) if wide(text[:n].rstrip() + "...") <= room), 0)
    return text[:keep].rstrip() + "..."


@lru_cache(4096)
def _letters(font: Any, letter: str) -> str:
    def has(c: str) -> bool:
        return c == " " or bytes(font.getmask(c)) != bytes(font.getmask("\U0010fffd"))  # drawn as no letter is

    if has(letter):
        return letter
    parts = [c for c in unicodedata.normalize("NFKD", letter) if not unicodedata.combining(c)]
    return "".join(c if has(c) else "?" for c in parts)


def _pillow(font: str | Path | None) -> tuple[Any, Any, Callable[[int], Pen]]:
    try:
        from PIL import Image, ImageDraw
    except ImportError as error:
        raise MissingExtra("pillow", "images", "drawing pictures") from error
    return Image, ImageDraw, lambda size: _pen(None if font is None else str(font), size)


@lru_cache(16)
def _pen(font: str | None, size: int) -> Pen:
    from PIL import ImageFont

    try:
        return Pen(ImageFont.load_default(size) if font is None else ImageFont.truetype(font, size))
    except OSError as error:
        raise ConfigError(f"font={font!r} cannot be read: {error}. Name a TrueType file") from error


def png(path: str | Path) -> Path:
    """Where to draw, its folder made. Raises ConfigError for another suffix."""
    path = Path(path)
    if path.suffix.lower() != ".png":
        raise ConfigError(f"{path} is to be a PNG file: end its name with .png")
    path.parent.mkdir(parents=True, exist_ok=True)
    return path
