"""A small world of pictures that this project draws itself: shapes, colours, textures, sizes, counts, backgrounds.

It exists so that methods for images can be seen working offline, with no data from elsewhere. Pictures are (S, S, 3)
uint8 arrays; captions are short English sentences that say some of what is there. Everything follows from a seed.
Styles other than "flat" are shifts of the domain: the same things, drawn otherwise.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import ConfigError, MissingExtra, did_you_mean

Picture = NDArray[np.uint8]

SHAPES = ("circle", "square", "triangle", "star", "cross", "ring", "hexagon", "moon", "heart", "arrow")
COLOURS = {
    "red": (214, 40, 40), "green": (44, 160, 60), "blue": (40, 90, 210), "yellow": (245, 210, 50),
    "purple": (130, 50, 160), "orange": (245, 130, 30), "pink": (245, 140, 190), "brown": (120, 75, 40),
}  # fmt: skip
TEXTURES = ("plain", "striped", "dotted", "checkered")
SIZES = {"small": 0.55, "large": 1.0}  # of the room that a thing has
COUNTS = ("one", "two", "three", "four")
BACKGROUNDS = {
    "white": ((250, 250, 250), (235, 235, 235)), "black": ((12, 12, 12), (35, 35, 35)),
    "grey": ((150, 150, 150), (120, 120, 120)), "sky": ((150, 205, 245), (205, 230, 250)),
    "sand": ((230, 210, 165), (210, 185, 135)), "grass": ((120, 180, 95), (85, 145, 65)),
}  # fmt: skip
STYLES = ("flat", "outline", "night", "pastel", "grainy", "mosaic")
_SYNONYMS = {
    "circle": ("circle", "disc"), "square": ("square", "box"), "triangle": ("triangle",), "star": ("star",),
    "cross": ("cross", "plus sign"), "ring": ("ring", "hoop"), "hexagon": ("hexagon",), "moon": ("moon", "crescent"),
    "heart": ("heart",), "arrow": ("arrow",), "striped": ("striped",), "dotted": ("dotted", "spotted"),
    "checkered": ("checkered", "chequered"), "small": ("small", "tiny", "little"), "large": ("large", "big"),
}  # fmt: skip
_FRAMES = (
    "a photo of {}",
    "a picture of {}",
    "{}",
    "an image of {}",
    "there is {} here",
    "this shows {}",
    "a drawing of {}",
)
_CORNERS = {  # x, y of the corners in a square from -1 to 1
    "square": [(-0.8, -0.8), (0.8, -0.8), (0.8, 0.8), (-0.8, 0.8)],
    "triangle": [(0.0, -0.95), (0.9, 0.75), (-0.9, 0.75)],
    "cross": [(-0.3, -0.9), (0.3, -0.9), (0.3, -0.3), (0.9, -0.3), (0.9, 0.3), (0.3, 0.3), (0.3, 0.9), (-0.3, 0.9),
              (-0.3, 0.3), (-0.9, 0.3), (-0.9, -0.3), (-0.3, -0.3)],
    "arrow": [(-0.9, -0.3), (0.1, -0.3), (0.1, -0.75), (0.95, 0.0), (0.1, 0.75), (0.1, 0.3), (-0.9, 0.3)],
}  # fmt: skip


@dataclass(frozen=True)
class Scene:
    """What a picture shows."""

    shape: str
    colour: str
    texture: str = "plain"
    size: str = "large"
    count: int = 1  # 1 to 4
    background: str = "white"

    def __post_init__(self) -> None:
        known: dict[str, Sequence[str]] = {
            "shape": SHAPES, "colour": tuple(COLOURS), "texture": TEXTURES, "size": tuple(SIZES),
            "background": tuple(BACKGROUNDS),
        }  # fmt: skip
        for name, names in known.items():
            if getattr(self, name) not in names:
                raise ConfigError(f"no {name} {getattr(self, name)!r}.{did_you_mean(getattr(self, name), names)}")
        if not 1 <= self.count <= len(COUNTS):
            raise ConfigError(f"count is {self.count}; it must be from 1 to {len(COUNTS)}")


def scene(rng: random.Random, **fixed: Any) -> Scene:
    """A scene by chance, but for what is fixed."""
    drawn = {
        "shape": rng.choice(SHAPES), "colour": rng.choice(tuple(COLOURS)), "texture": rng.choice(TEXTURES),
        "size": rng.choice(tuple(SIZES)), "count": rng.choices(range(1, 5), (6, 2, 1, 1))[0],
        "background": rng.choice(tuple(BACKGROUNDS)),
    }  # fmt: skip
    return Scene(**{**drawn, **fixed})


# --- words


def caption(of: Scene, rng: random.Random, said: Sequence[str] | None = None) -> tuple[str, frozenset[str]]:
    """(a sentence, the attributes that it tells). said: which ones; else shape and colour mostly, others at times."""
    if said is None:
        odds = {"shape": 0.95, "colour": 0.9, "texture": 0.6, "size": 0.3, "count": 0.4, "background": 0.3}
        said = [name for name, p in odds.items() if rng.random() < p] or ["shape"]
    word: Callable[[str], str] = lambda name: rng.choice(_SYNONYMS.get(name, (name,)))  # noqa: E731
    noun = word(of.shape) if "shape" in said else rng.choice(("thing", "object", "shape"))
    adjectives = [word(of.size)] if "size" in said else []
    adjectives += [word(of.texture)] if "texture" in said and of.texture != "plain" else []
    adjectives += [of.colour] if "colour" in said else []
    phrase = " ".join([*adjectives, noun])
    several = of.count > 1 and "count" in said
    if several:
        plural = f"{phrase}es" if phrase.endswith(("s", "x")) else f"{phrase}s"
        phrase = f"{COUNTS[of.count - 1]} {plural}"
    else:
        phrase = f"{'an' if phrase[0] in 'aeiou' else 'a'} {phrase}"
    if "background" in said:
        place = {"sky": "in the sky", "sand": "on sand", "grass": "on grass"}.get(of.background)
        phrase += f" {place or f'on a {of.background} background'}"
    return rng.choice(_FRAMES).format(phrase), frozenset(said)


def agrees(told: frozenset[str], of: Scene, other: Scene) -> bool:
    """Whether a caption that tells these attributes of one scene is true of another."""
    if "count" in told and of.count == 1:  # "a star" is said of one, and is not wrong of several
        told = told - {"count"}
    return all(getattr(of, name) == getattr(other, name) for name in told)


# --- pictures


def draw(of: Scene, rng: random.Random, size: int = 64, style: str = "flat") -> Picture:
    """(size, size, 3). Places, turns and small changes of colour are by chance. Raises ConfigError for a style."""
    if style not in STYLES:
        raise ConfigError(f"no style {style!r}.{did_you_mean(style, STYLES)}")
    S = 2 * size  # drawn larger, so that edges are smooth
    picture = _background(of, rng, S)
    colour = np.clip(np.array(COLOURS[of.colour], float) + [rng.gauss(0, 10) for _ in range(3)], 0, 255)
    surface = _surface(of.texture, colour, rng, S)
    for x, y, room in _places(of, rng, S):
        turn = rng.uniform(-0.3, 0.3)
        mask = _mask(of.shape, x, y, room, turn, S)
        if style == "outline":
            inner = _mask(of.shape, x, y, room * 0.78, turn, S) if of.shape != "ring" else mask * 0
            mask = np.clip(mask - inner, 0, 1)
        picture = picture * (1 - mask[..., None]) + surface * mask[..., None]
    small = picture.reshape(size, 2, size, 2, 3).mean((1, 3))
    return _styled(small, style, rng).round().clip(0, 255).astype(np.uint8)


def _background(of: Scene, rng: random.Random, S: int) -> NDArray[np.float64]:
    top, bottom = (np.array(c, float) for c in BACKGROUNDS[of.background])
    share = np.linspace(0, 1, S)[:, None, None]
    plane = top * (1 - share) + bottom * share + rng.gauss(0, 6)
    return np.broadcast_to(plane, (S, S, 3)).copy()


def _surface(texture: str, colour: NDArray[np.float64], rng: random.Random, S: int) -> NDArray[np.float64]:
    y, x = np.mgrid[:S, :S].astype(float)
    turn, step = rng.uniform(0, np.pi), S / rng.uniform(14, 18)
    u, v = x * np.cos(turn) + y * np.sin(turn), -x * np.sin(turn) + y * np.cos(turn)
    light = colour * 0.35 + 255 * 0.65 if colour.mean() < 150 else colour * 0.35
    if texture == "striped":
        second = np.floor(u / step) % 2 == 1
    elif texture == "checkered":
        second = (np.floor(u / step) + np.floor(v / step)) % 2 == 1
    elif texture == "dotted":
        second = np.hypot(u % (1.6 * step) - 0.8 * step, v % (1.6 * step) - 0.8 * step) < 0.45 * step
    else:
        second = np.zeros((S, S), bool)
    return np.where(second[..., None], light, colour)


def _places(of: Scene, rng: random.Random, S: int) -> list[tuple[float, float, float]]:
    """x, y and half the width of each thing, in pixels; they do not overlap."""
    cells = [(0.5, 0.5)] if of.count == 1 else [(0.27, 0.27), (0.73, 0.73), (0.73, 0.27), (0.27, 0.73)]
    rng.shuffle(cells)
    room = (0.44 if of.count == 1 else 0.23) * S * SIZES[of.size]
    free = 0.5 * S - room if of.count == 1 else 0.27 * S - room
    jitter: Callable[[], float] = lambda: rng.uniform(-0.9, 0.9) * max(0.0, min(free, 0.2 * S))  # noqa: E731
    return [(x * S + jitter(), y * S + jitter(), room * rng.uniform(0.88, 1.0)) for x, y in cells[: of.count]]


def _mask(shape: str, x: float, y: float, room: float, turn: float, S: int) -> NDArray[np.float64]:
    """(S, S) of 0 and 1."""
    try:
        from PIL import Image, ImageDraw
    except ImportError as error:
        raise MissingExtra("pillow", "images", "drawing pictures") from error
    image = Image.new("L", (S, S))
    pen = ImageDraw.Draw(image)

    def box(scale: float, dx: float = 0.0) -> tuple[float, float, float, float]:
        r = room * scale
        return (x + dx * room - r, y - r, x + dx * room + r, y + r)

    def polygon(corners: Sequence[tuple[float, float]]) -> None:
        c, s = np.cos(turn), np.sin(turn)
        pen.polygon([(x + room * (a * c - b * s), y + room * (a * s + b * c)) for a, b in corners], fill=255)

    if shape in ("circle", "ring", "moon"):
        pen.ellipse(box(0.9), fill=255)
        if shape == "ring":
            pen.ellipse(box(0.5), fill=0)
        elif shape == "moon":
            pen.ellipse(box(0.8, 0.45), fill=0)
    elif shape == "heart":
        pen.ellipse((x - 0.9 * room, y - 0.8 * room, x + 0.05 * room, y + 0.15 * room), fill=255)
        pen.ellipse((x - 0.05 * room, y - 0.8 * room, x + 0.9 * room, y + 0.15 * room), fill=255)
        pen.polygon(
            [(x - 0.84 * room, y - 0.1 * room), (x + 0.84 * room, y - 0.1 * room), (x, y + 0.9 * room)], fill=255
        )
    elif shape in ("star", "hexagon"):
        n = 10 if shape == "star" else 6
        radii = [0.95, 0.42] if shape == "star" else [0.9, 0.9]
        angles = [2 * np.pi * i / n - np.pi / 2 for i in range(n)]
        polygon([(radii[i % 2] * np.cos(a), radii[i % 2] * np.sin(a)) for i, a in enumerate(angles)])
    else:
        polygon(_CORNERS[shape])
    return np.asarray(image, float) / 255


def _styled(picture: NDArray[np.float64], style: str, rng: random.Random) -> NDArray[np.float64]:
    """Night: dark and bluish. Pastel: pale. Grainy: noise. Mosaic: coarse pixels."""
    g = np.random.default_rng(rng.getrandbits(32))
    if style == "night":
        return picture * np.array([0.35, 0.4, 0.55]) + g.normal(0, 6, picture.shape)
    if style == "pastel":
        return picture * 0.4 + 255 * 0.58
    if style == "grainy":
        return picture + g.normal(0, 38, picture.shape)
    if style == "mosaic":
        n, S = 3, len(picture)
        edge = S - S % n
        coarse = picture[:edge, :edge].reshape(edge // n, n, edge // n, n, 3).mean((1, 3))
        return np.pad(coarse.repeat(n, 0).repeat(n, 1), ((0, S - edge), (0, S - edge), (0, 0)), mode="edge")
    return picture + g.normal(0, 2, picture.shape)


# --- folders of pictures, to try things with

PAIRS = tuple(
    (colour, shape) for colour in ("red", "green", "blue", "yellow") for shape in ("circle", "square", "star", "moon")
)
CLASSES = ("pairs", "shape", "colour", "texture", "count", "background")


def classes_of(kind: str) -> dict[str, dict[str, Any]]:
    """What is fixed in each class's scenes, by the class's name. Raises ConfigError for an unknown kind."""
    if kind not in CLASSES:
        raise ConfigError(f"no classes {kind!r}.{did_you_mean(kind, CLASSES)}")
    if kind == "pairs":
        return {f"{colour} {shape}": {"colour": colour, "shape": shape} for colour, shape in PAIRS}
    if kind == "count":
        return {name: {"count": i} for i, name in enumerate(COUNTS, 1)}
    names = {"shape": SHAPES, "colour": COLOURS, "texture": TEXTURES, "background": BACKGROUNDS}[kind]
    return {name: {kind: name} for name in names}


def write(
    folder: str | Path,
    *,
    classes: str = "pairs",
    per_class: int = 20,
    style: str = "flat",
    size: int = 64,
    seed: int = 0,
    names: Mapping[str, str] | None = None,
    done: Callable[[int], Any] | None = None,
) -> list[Path]:
    """PNG files in a folder per class; what is not the class's is by chance.

    classes: one of CLASSES; "pairs" are 16 such as "red circle". names: other names of class folders, by class.
    done: called with a number of pictures as they are written. Raises ConfigError for a wrong option or a class that
    there is not, and where the folder holds something.
    """
    folder, fixed = Path(folder), classes_of(classes)
    if style not in STYLES:
        raise ConfigError(f"no style {style!r}.{did_you_mean(style, STYLES)}")
    if per_class < 1 or not 8 <= size <= 1024:
        raise ConfigError(f"per_class={per_class}, size={size}: expected at least 1 picture of 8 to 1024 pixels")
    for name in names or ():
        if name not in fixed:
            raise ConfigError(f"names: no class {name!r}.{did_you_mean(name, fixed)}")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(f"{folder} holds other files, or is one; name a new folder")
    try:
        from PIL import Image
    except ImportError as error:
        raise MissingExtra("pillow", "images", "drawing pictures") from error
    written = []
    for name, entries in fixed.items():
        inside = folder / (names or {}).get(name, name)
        inside.mkdir(parents=True)
        for i in range(per_class):
            rng = random.Random(f"{seed} {style} {name} {i}")  # so that more of a class are the same and others
            path = inside / f"{i:0{len(str(per_class - 1))}d}.png"
            Image.fromarray(draw(scene(rng, **entries), rng, size, style)).save(path)
            written.append(path)
            if done is not None:
                done(1)
    return written
