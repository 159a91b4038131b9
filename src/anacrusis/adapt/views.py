"""Several views of one picture. The first is always the picture itself.

A view maker is a function (pixels (3, S, S) uint8, number, generator) -> (number, 3, S, S) floats in 0..1; anything of
that form can be plugged in (a generative model's variations, for one). Shapes as everywhere: V views, S pixels a side.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from ..errors import ConfigError, did_you_mean

Views = Callable[[Tensor, int, torch.Generator], Tensor]


@dataclass(frozen=True)
class Crops:
    """Random crops, resized and flipped. smallest: of a crop's area, as a share of the picture's. mix: blend each view
    with a change of its brightness, contrast and saturation, by a random share (in the manner of AugMix)."""

    smallest: float = 0.3
    mix: bool = False
    flip: bool = True

    def __call__(self, pixels: Tensor, n: int, generator: torch.Generator) -> Tensor:
        raw = pixels.float() / 255
        if n <= 1:
            return raw[None]
        u = torch.rand(n - 1, 5, generator=generator)
        area = self.smallest + (1 - self.smallest) * u[:, 0]
        ratio = torch.exp((2 * u[:, 1] - 1) * math.log(4 / 3))
        w, h = (area * ratio).sqrt().clamp(max=1), (area / ratio).sqrt().clamp(max=1)
        x, y = (2 * u[:, 2] - 1) * (1 - w), (2 * u[:, 3] - 1) * (1 - h)  # the crop's middle, in -1..1
        sign = torch.where(u[:, 4] < 0.5, -1.0, 1.0) if self.flip else torch.ones(n - 1)
        zero = torch.zeros_like(w)
        grid = F.affine_grid(
            torch.stack([torch.stack([w * sign, zero, x], 1), torch.stack([zero, h, y], 1)], 1),
            [n - 1, *raw.shape], align_corners=False,
        )  # fmt: skip
        views = F.grid_sample(raw.expand(n - 1, -1, -1, -1), grid.to(raw), padding_mode="reflection",
                              align_corners=False)  # fmt: skip
        if self.mix:
            views = self._mixed(views, generator)
        return torch.cat([raw[None], views]).clamp(0, 1)

    @staticmethod
    def _mixed(views: Tensor, generator: torch.Generator) -> Tensor:
        k = torch.rand(len(views), 4, generator=generator).to(views)[:, :, None, None, None]
        grey, mean = views.mean(1, keepdim=True), views.mean((1, 2, 3), keepdim=True)
        changed = (views * (0.7 + 0.6 * k[:, 0])).clamp(0, 1)
        changed = mean + (changed - mean) * (0.7 + 0.6 * k[:, 1])
        changed = grey + (changed - grey) * (0.5 + k[:, 2])
        return views + k[:, 3] * (changed - views)


@dataclass(frozen=True)
class Joined:
    """Views of two makers: `share` of them from the first, the rest from the second (whose first, the picture, counts
    once)."""

    first: Views
    second: Views
    share: float = 0.5

    def __call__(self, pixels: Tensor, n: int, generator: torch.Generator) -> Tensor:
        m = max(1, round(n * self.share))
        return torch.cat([self.first(pixels, m, generator), self.second(pixels, n - m + 1, generator)[1:]])


_NAMED: dict[str, Views] = {"crops": Crops(), "mixed-crops": Crops(mix=True)}


def register(name: str, make: Views) -> None:
    """Give a view maker a name that options can say (DiffTPT's --set generator=NAME)."""
    _NAMED[name] = make


def find(name: str, imports: bool = False) -> Views:
    """A view maker by its name; with `imports` also "package.module:attribute", which runs that module's code. A saved
    prompt only names what was registered here: it must not choose what is imported.

    Raises ConfigError where there is none.
    """
    if name in _NAMED:
        return _NAMED[name]
    module, colon, attribute = name.partition(":")
    if colon and not imports:
        raise ConfigError(
            f"this prompt wants views of {name!r}, and a saved prompt imports nothing. If you trust it: "
            f"adapt.views.register({name!r}, that function), then again"
        )
    if not colon:
        raise ConfigError(f"no view maker {name!r}.{did_you_mean(name, _NAMED)} Or name one as package.module:function")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"the view maker {name!r} cannot be imported: {error}") from error
    if not callable(found):
        raise ConfigError(f"{name!r} is no function (pixels, number, generator) -> views")
    made: Views = found
    return made
