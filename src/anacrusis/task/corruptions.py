"""Pictures made worse in known ways and strengths, to see what a prompt is worth where pictures are not as learned.

    corrupt: (H, W, 3) uint8 -> (H, W, 3) uint8, by name and severity 1 to 5

Paper: Hendrycks & Dietterich 2019, Benchmarking Neural Network Robustness to Common Corruptions and Perturbations,
https://arxiv.org/abs/1903.12261
Departure: the kinds are theirs, the code and the constants are ours, so that scores cannot be compared with those on
ImageNet-C. Lengths are shares of the shorter side, where theirs are pixels of 224. Fog and snow are drawn, not
photographed. Darkness and posterize are added; glass blur, frost and elastic are left out.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from io import BytesIO
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError, DataError, MissingExtra, did_you_mean
from .images import Images, Picture

if TYPE_CHECKING:
    from .task import Example, Task

Floats = NDArray[np.float64]  # (H, W, 3) in 0..1
Change = Callable[[Floats, float, np.random.Generator], Floats]


# --- noise


def _gaussian_noise(x: Floats, c: float, rng: np.random.Generator) -> Floats:
    """c: standard deviation, of 1."""
    return x + c * rng.standard_normal(x.shape)


def _shot_noise(x: Floats, c: float, rng: np.random.Generator) -> Floats:
    """c: standard deviation where a channel is full: counts of light, whose noise is the root of their number."""
    return x + c * np.sqrt(x) * rng.standard_normal(x.shape)


def _impulse_noise(x: Floats, c: float, rng: np.random.Generator) -> Floats:
    """c: share of the values that become 0 or 1."""
    chance = rng.random(x.shape)
    return np.where(chance < c, (rng.random(x.shape) < 0.5).astype(float), x)


# --- blur


def _mean_of_shifts(x: Floats, shifts: Sequence[tuple[float, float]]) -> Floats:
    """The mean of copies moved by whole pixels (dy, dx); edges are repeated."""
    places = [(round(dy), round(dx)) for dy, dx in shifts]
    m = max(max(abs(dy), abs(dx)) for dy, dx in places)
    padded = np.pad(x, ((m, m), (m, m), (0, 0)), mode="edge")
    H, W = x.shape[:2]
    return sum((padded[m + dy : m + dy + H, m + dx : m + dx + W] for dy, dx in places), np.zeros_like(x)) / len(places)


def _gaussian_blur(x: Floats, c: float, rng: np.random.Generator) -> Floats:
    """c: standard deviation, of the shorter side."""
    sigma = c * min(x.shape[:2])
    reach = max(1, math.ceil(3 * sigma))
    weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    weights /= weights.sum()
    for axis in (0, 1):
        pad = [(reach, reach) if i == axis else (0, 0) for i in range(3)]
        padded = np.pad(x, pad, mode="edge")
        n = x.shape[axis]
        x = sum((w * padded.take(range(i, i + n), axis) for i, w in enumerate(weights)), np.zeros_like(x))
    return x


def _defocus_blur(x: Floats, c: float, rng: np.random.Generator) -> Floats:
    """c: radius of the disc that a point becomes, of the shorter side."""
    r = max(1.0, c * min(x.shape[:2]))
    steps = range(-math.ceil(r), math.ceil(r) + 1)
    return _mean_of_shifts(x, [(dy, dx) for dy in steps for dx in steps if dy * dy + dx * dx <= r * r])


def _motion_blur(x: Floats, c: float, rng: np.random.Generator) -> Floats:
    """c: length of the way, of the shorter side; its direction is by chance."""
    turn = rng.uniform(0, math.pi)
    length = max(2.0, c * min(x.shape[:2]))
    places = np.linspace(-length / 2, length / 2, math.ceil(length) + 1)
    return _mean_of_shifts(x, [(p * math.sin(turn), p * math.cos(turn)) for p in places])


def _zoom_blur(x: Floats, c: float, rng: np.random.Generator) -> Floats:
    """c: how much nearer the nearest of the pictures is that are laid over each other."""
    H, W = x.shape[:2]
    total = np.zeros_like(x)
    zooms = np.linspace(1, 1 + c, 10)
    for zoom in zooms:
        y = np.rint((np.arange(H) - (H - 1) / 2) / zoom + (H - 1) / 2).astype(int)
        z = np.rint((np.arange(W) - (W - 1) / 2) / zoom + (W - 1) / 2).astype(int)
        total += x[y][:, z]
    return total / len(zooms)


# --- weather


def _clouds(shape: tuple[int, ...], rng: np.random.Generator) -> Floats:
    """(H, W, 1) in 0..1: smooth random planes of every size, each half as strong as the next larger."""
    H, W = shape[:2]
    total, cells, strength = np.zeros((H, W)), 2, 1.0
    while cells <= 64:
        grid = rng.random((cells + 1, cells + 1))
        y, x = (np.linspace(0, cells, n, endpoint=False) for n in (H, W))
        (iy, fy), (ix, fx) = ((p.astype(int), p % 1) for p in (y, x))
        top = grid[iy][:, ix] * (1 - fx) + grid[iy][:, ix + 1] * fx
        bottom = grid[iy + 1][:, ix] * (1 - fx) + grid[iy + 1][:, ix + 1] * fx
        total += strength * (top * (1 - fy)[:, None] + bottom * fy[:, None])
        cells, strength = 2 * cells, strength / 2
    low, high = total.min(), total.max()
    return ((total - low) / max(high - low, 1e-9))[..., None]


def _fog(x: Floats, c: float, rng: np.random.Generator) -> Floats:
    """c: the share of a light grey that covers the picture where the fog is thickest; half as much where thinnest."""
    share = c * (0.5 + 0.5 * _clouds(x.shape, rng))
    return x * (1 - share) + 0.82 * share


def _snow(x: Floats, c: float, rng: np.random.Generator) -> Floats:
    """c: share of the places where a flake begins, as far as it is blown; the scene turns as much paler."""
    H, W = x.shape[:2]
    length = max(2.0, 0.05 * min(H, W))
    m = math.ceil(length) + 1  # flakes come in from outside too
    flakes = (rng.random((H + 2 * m, W + 2 * m, 1)) < c).astype(float)
    turn = rng.uniform(0.2, 0.8) * math.pi
    way = np.linspace(0, length, m)
    blown = _mean_of_shifts(flakes, [(p * math.sin(turn), p * math.cos(turn)) for p in way]) * m / 2
    pale = x * (1 - c) + c * 0.9
    white = np.clip(blown[m : m + H, m : m + W], 0, 1)
    return pale * (1 - white) + white


# --- light and colour


def _brightness(x: Floats, c: float, rng: np.random.Generator) -> Floats:
    """c: added to every channel. (Theirs is added to HSV's value, which pale pictures have no room for.)"""
    return x + c


def _darkness(x: Floats, c: float, rng: np.random.Generator) -> Floats:
    """c: share of the light that is gone."""
    return x * (1 - c)


def _contrast(x: Floats, c: float, rng: np.random.Generator) -> Floats:
    """c: share of the distance from the picture's mean that is gone."""
    mean = x.mean((0, 1), keepdims=True)
    return mean + (x - mean) * (1 - c)


def _saturate(x: Floats, c: float, rng: np.random.Generator) -> Floats:
    """c: factor on the distance from grey of the same light."""
    grey = x @ np.array([0.299, 0.587, 0.114])
    return grey[..., None] + (x - grey[..., None]) * c


def _posterize(x: Floats, c: float, rng: np.random.Generator) -> Floats:
    """c: values that a channel can have."""
    return np.floor(x * c).clip(0, c - 1) / (c - 1)


# --- digital


def _pixelate(x: Floats, c: float, rng: np.random.Generator) -> Floats:
    """c: side of a coarse pixel, of the shorter side."""
    H, W = x.shape[:2]
    n = max(2, round(c * min(H, W)))
    rows, columns = (np.add.reduceat(np.ones(k), np.arange(0, k, n)) for k in (H, W))
    sums = np.add.reduceat(np.add.reduceat(x, np.arange(0, H, n), 0), np.arange(0, W, n), 1)
    mean = sums / (rows[:, None, None] * columns[None, :, None])
    return mean.repeat(n, 0)[:H].repeat(n, 1)[:, :W]


def _jpeg(x: Floats, c: float, rng: np.random.Generator) -> Floats:
    """c: quality, of 100."""
    try:
        from PIL import Image
    except ImportError as error:
        raise MissingExtra("pillow", "images", "compressing pictures") from error
    file = BytesIO()
    Image.fromarray((x * 255).round().astype(np.uint8)).save(file, "JPEG", quality=int(c))
    with Image.open(file) as image:
        return np.asarray(image, float) / 255


CHANGES: dict[str, tuple[Change, tuple[float, float, float, float, float]]] = {  # with what c is at severity 1 to 5
    "gaussian-noise": (_gaussian_noise, (0.08, 0.12, 0.18, 0.26, 0.38)),
    "shot-noise": (_shot_noise, (0.13, 0.20, 0.29, 0.45, 0.58)),
    "impulse-noise": (_impulse_noise, (0.03, 0.06, 0.09, 0.17, 0.27)),
    "gaussian-blur": (_gaussian_blur, (0.006, 0.011, 0.018, 0.027, 0.04)),
    "defocus-blur": (_defocus_blur, (0.016, 0.032, 0.048, 0.064, 0.08)),
    "motion-blur": (_motion_blur, (0.06, 0.10, 0.14, 0.19, 0.25)),
    "zoom-blur": (_zoom_blur, (0.10, 0.16, 0.22, 0.28, 0.35)),
    "fog": (_fog, (0.35, 0.48, 0.60, 0.72, 0.85)),
    "snow": (_snow, (0.03, 0.06, 0.10, 0.15, 0.22)),
    "brightness": (_brightness, (0.1, 0.2, 0.3, 0.4, 0.5)),
    "darkness": (_darkness, (0.2, 0.35, 0.5, 0.65, 0.8)),
    "contrast": (_contrast, (0.4, 0.55, 0.7, 0.82, 0.92)),
    "saturate": (_saturate, (1.4, 1.9, 2.6, 3.8, 6.0)),
    "pixelate": (_pixelate, (0.03, 0.045, 0.065, 0.09, 0.125)),
    "jpeg": (_jpeg, (25, 18, 13, 9, 5)),
    "posterize": (_posterize, (8, 6, 4, 3, 2)),
}
CORRUPTIONS: tuple[str, ...] = tuple(CHANGES)


def corrupt(picture: Picture, name: str, severity: int, seed: int = 0) -> Picture:
    """(H, W, 3) uint8, a new one; the same for the same seed. Raises ConfigError for an unknown name or severity."""
    check(name, severity)
    if not isinstance(picture, np.ndarray) or picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3:
        got = f"{picture.dtype} {picture.shape}" if isinstance(picture, np.ndarray) else type(picture).__name__
        raise DataError(f"expected a picture (H, W, 3) of uint8, got {got}")
    change, strengths = CHANGES[name]
    # the same noise at every severity: more of it, not another one
    key = [seed % 2**64, int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest())]
    x = change(picture / 255.0, strengths[severity - 1], np.random.default_rng(key))
    return (x.clip(0, 1) * 255).round().astype(np.uint8)


def check(name: str, severity: int) -> None:
    """Raises ConfigError for an unknown name or severity."""
    if name not in CHANGES:
        raise ConfigError(f"unknown corruption {name!r}.{did_you_mean(name, CORRUPTIONS)}")
    if isinstance(severity, bool) or severity not in (1, 2, 3, 4, 5):
        raise ConfigError(f"severity={severity!r}: expected a whole number from 1 (weak) to 5 (strong)")


@dataclass(frozen=True)
class Corruption:
    """What `Images.change` can be: corrupts a picture by its own content, wherever it lies."""

    name: str
    severity: int
    seed: int = 0

    def __call__(self, key: str, picture: Picture) -> Picture:
        """picture: (H, W, 3) uint8 -> the same shape."""
        seed = str(self.seed).encode()
        own = hashlib.blake2b(np.ascontiguousarray(picture).tobytes(), digest_size=8, key=seed).digest()
        return corrupt(picture, self.name, self.severity, int.from_bytes(own))


@dataclass(frozen=True)
class _Both:
    first: Any
    second: Any

    def __call__(self, key: str, picture: Picture) -> Picture:
        changed: Picture = self.second(key, self.first(key, picture))
        return changed


def corrupted(task: Task, name: str, severity: int, seed: int = 0) -> Task:
    """The task with every picture corrupted as it is loaded; nothing is written. Named as in "photos+fog-3".

    Raises ConfigError for a task of texts, and as `corrupt`.
    """
    check(name, severity)
    if task.images is None:
        raise ConfigError(f"{task.name} is a task of texts: {name} is done to pictures")
    change: Any = Corruption(name, severity, seed)
    if task.images.change is not None:
        change = _Both(task.images.change, change)

    def other(example: Example) -> Example:  # another picture, so another id
        return replace(example, content=f"{'/'.join(example.same)}+{name}-{severity}-{seed}")

    parts: dict[str, Any] = {p: tuple(map(other, getattr(task, p))) for p in ("train", "valid", "test")}
    steps = [*task.source.get("steps", ()), ["corrupted", name, severity, seed]]
    return replace(
        task, name=f"{task.name}+{name}-{severity}", images=Images(task.images.held, change),
        source={**task.source, "steps": steps} if task.source else {}, **parts,
    )  # fmt: skip
