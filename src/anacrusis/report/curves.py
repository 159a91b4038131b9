"""Scores of several methods as curves, drawn with matplotlib: over examples a class, or over a stream's time.

Nothing global is touched: no pyplot, no settings, no backend.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import ConfigError, MissingExtra
from .pictures import png, shortened

Points = Mapping[str, Sequence[Sequence[float]]]  # by method: (x, value, low, high), or (x, value) without an interval
Curve = list[tuple[float, float, float, float]]

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")  # Okabe and Ito, less yellow
MARKS, DASHES = "osD^vPX", ("-", "--", "-.", ":")  # so that methods differ in more than colour
WIDE, HIGH, LABEL, LINE = 5.6, 3.8, 2.6, 0.2  # inches: the plot; a label at most, and from one label to the next
INK, FAINT, DPI = "#1e1e22", "#d8d8d4", 150


def shots_curve(points: Points, path: str | Path, *, title: str = "", measure: str = "accuracy") -> Path:
    """Draw scores over examples a class (log2), a PNG or a PDF. Returns its path.

    points: {method: [(shots, value, low, high), ...]}, in any order; shots of 0 become a horizontal line.
    Raises ConfigError for points that are none (not finite, fewer than 0 shots, low above high) and another suffix than
    .png or .pdf, MissingExtra without matplotlib.
    """
    curves = _curves(points, "shots")
    level: dict[float, list[str]] = {}
    for name, curve in curves.items():
        for shots, value, _, _ in curve:
            if shots < 0:
                raise ConfigError(f"{name}: {shots:g} shots; expected 0 or more")
            if shots == 0:
                level.setdefault(value, []).append(name)
    asked = sorted({p[0] for curve in curves.values() for p in curve if p[0] > 0})
    along = "examples per class (log scale)" if asked else ""
    with _Plot(path, curves, title, along, measure) as plot:
        i = -1  # a level alone takes no colour
        for name, curve in curves.items():
            if above := [p for p in curve if p[0] > 0]:
                plot.curve(name, above, i := i + 1)
            for _, value, low, high in (p for p in curve if p[0] == 0):
                same = level[value]
                if same[0] == name:  # several methods begin with the same zero-shot prompt: one line
                    said = name if not above and len(same) == 1 else "zero-shot"
                    shared = len(same) > 1 or len(level) == 1 or said == name
                    plot.level(said if shared else f"{name}, zero-shot", value, low, high, None if shared else i)
        ends = (asked[0], asked[-1]) if asked else (1.0, 1.0)
        plot.axes.set_xscale("log", base=2)
        plot.axes.set_xlim(ends[0] / 2**0.25, ends[1] * 2**0.25)
        plot.ticks(asked if len(asked) <= 9 else _powers(*ends))
    return plot.path


def stream_curve(
    points: Points, path: str | Path, *, title: str = "", measure: str = "accuracy", along: str = "pictures seen"
) -> Path:
    """Draw scores over a stream's time, a PNG or a PDF. Returns its path.

    points: {method: [(time, value, low, high), ...]}, in any order. along: what the time is. Errors as `shots_curve`.
    """
    curves = _curves(points, "time")
    with _Plot(path, curves, title, along, measure) as plot:
        for i, (name, curve) in enumerate(curves.items()):
            plot.curve(name, curve, i)
        times = [p[0] for curve in curves.values() for p in curve]
        room = 0.03 * (max(times) - min(times)) or 0.5
        plot.axes.set_xlim(min(times) - room, max(times) + room)
    return plot.path


def _file(path: str | Path) -> Path:
    """Where to draw, its folder made: a PDF, else a PNG. Raises ConfigError for another suffix."""
    if Path(path).suffix.lower() != ".pdf":
        return png(path)
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    return Path(path)


def _powers(low: float, high: float) -> list[float]:
    first, last = math.ceil(math.log2(low)), math.floor(math.log2(high))
    return [2.0**i for i in range(first, last + 1, 1 + (last - first) // 9)] or [low]


def _curves(points: Points, first: str) -> dict[str, Curve]:
    """Points in order, each with an interval. Raises ConfigError."""
    found: dict[str, Curve] = {}
    for name, given in points.items():
        curve = []
        for point in given:
            form = tuple(point)
            if len(form) not in (2, 4) or not all(math.isfinite(v) for v in form):
                raise ConfigError(f"{name}: the point {form}; expected finite ({first}, value, low, high)")
            x, value, low, high = (float(v) for v in (form if len(form) == 4 else (*form, form[1], form[1])))
            if low > high:
                raise ConfigError(f"{name}: at {x:g} the interval is from {low:g} to {high:g}; expected low <= high")
            curve.append((x, value, low, high))
        curve.sort()
        if any(a[0] == b[0] for a, b in zip(curve, curve[1:], strict=False)):
            raise ConfigError(f"{name}: two points at the same {first}; give their mean")
        if curve:
            found[name] = curve
    if not found:
        raise ConfigError("no points to draw: expected {method: [(" + first + ", value, low, high), ...]}")
    return found


class _Plot:
    """One plot, with the name of each line at its right end; drawn when the `with` ends."""

    def __init__(self, path: str | Path, curves: Mapping[str, Curve], title: str, along: str, measure: str) -> None:
        self.path, self.title, self.along, self.measure = _file(path), title, along, measure
        self.ends: list[tuple[str, float, float | None, str]] = []  # name, y, x (None: the right edge), colour
        self.extent = [v for curve in curves.values() for p in curve for v in p[1:]]
        self.names = sum(1 + (c[0][0] == 0) for c in curves.values())
        self.quiet = warnings.catch_warnings()

    def __enter__(self) -> _Plot:
        self.quiet.__enter__()
        warnings.simplefilter("ignore")  # of letters that its font has not, of deprecations in its own imports
        try:
            self._begin()
        except BaseException as error:
            self.quiet.__exit__(None, None, None)
            if isinstance(error, ImportError):
                raise MissingExtra("matplotlib", "plots", "drawing curves") from error
            raise
        return self

    def _begin(self) -> None:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        self.figure = Figure(dpi=DPI, facecolor="white")
        self.canvas = FigureCanvasAgg(self.figure)
        self.high = max(HIGH, LINE * self.names + 0.3)
        self.axes: Any = self.figure.add_axes((0, 0, 1, 1))
        self.axes.spines[["top", "right"]].set_visible(False)
        self.axes.spines[["left", "bottom"]].set_color("#8a8a86")
        self.axes.tick_params(colors=INK, labelsize=9, length=3)
        self.axes.grid(axis="y", color=FAINT, linewidth=0.7)
        self.axes.set_axisbelow(True)
        low, high = min(self.extent), max(self.extent)
        room = 0.05 * (high - low) or 0.05 * abs(high) or 0.05
        self.axes.set_ylim(low - room, high + room)

    def curve(self, name: str, points: Curve, i: int) -> None:
        x, y, low, high = (list(column) for column in zip(*points, strict=True))
        colour = COLOURS[i % len(COLOURS)]
        style = {
            "linestyle": DASHES[i // len(COLOURS) % len(DASHES)],
            "marker": MARKS[(i + i // len(COLOURS)) % len(MARKS)],
        }
        few = {"markersize": 4.5, "markevery": max(1, len(x) // 12), "clip_on": False}
        self.axes.plot(x, y, color=colour, linewidth=1.6, zorder=3, **style, **few)
        if len(x) == 1:
            self.axes.vlines(x, low, high, color=colour, linewidth=1.2, zorder=2)
        else:
            self.axes.fill_between(x, low, high, color=colour, alpha=0.14, linewidth=0, zorder=2)
        self.ends.append((name, y[-1], x[-1], colour))

    def level(self, name: str, value: float, low: float, high: float, i: int | None) -> None:
        colour = "#77777c" if i is None else COLOURS[i % len(COLOURS)]
        self.axes.axhline(value, color=colour, linewidth=1.3, linestyle=(0, (5, 3)), zorder=2.5)
        self.axes.axhspan(low, high, color=colour, alpha=0.08, linewidth=0, zorder=1)
        self.ends.append((name, value, None, colour))

    def ticks(self, at: Sequence[float]) -> None:
        self.axes.set_xticks(list(at), labels=[f"{x:g}" for x in at])
        self.axes.set_xticks([], minor=True)

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        try:
            if kind is None:
                self._finish()
        finally:
            self.quiet.__exit__(None, None, None)

    def _finish(self) -> None:
        said = [self._fit(name, LABEL, 9) for name, *_ in self.ends]
        label = max(self._inches(text, 9) for text in said)
        common: dict[str, Any] = {"color": INK, "parse_math": False}
        self.axes.set_xlabel(self._fit(self.along, WIDE, 10), fontsize=10, **common)
        self.axes.set_ylabel(self._fit(self.measure, self.high, 10), fontsize=10, **common)
        below, above, lead = 0.6, 0.5 if self.title else 0.2, 0.35
        for left in (1.0, 0.0):  # once more with the room that numbers and their name take
            left = left or self._beside() + 0.2
            width, height = left + WIDE + lead + label + 0.15, below + self.high + above
            self.figure.set_size_inches(width, height)
            self.axes.set_position((left / width, below / height, WIDE / width, self.high / height))
        low, high = self.axes.get_ylim()
        last = max((x for _, _, x, _ in self.ends if x is not None), default=0.0)
        places = spread([(y - low) / (high - low) for _, y, _, _ in self.ends], LINE / self.high)
        for text, (_, y, x, colour), place in zip(said, self.ends, places, strict=True):
            line = {
                "arrowstyle": "-",
                "color": colour,
                "linewidth": 0.9,
                "relpos": (0, 0.5),
                "shrinkA": 2,
                "shrinkB": 5,
            }
            if x is not None and x < last:  # it crosses the plot, and is no part of the curve
                line |= {"linestyle": (0, (1, 2.5))}
            self.axes.annotate(
                text, xy=(1 if x is None else x, y), xycoords=("axes fraction" if x is None else "data", "data"),
                xytext=(1 + lead / WIDE, place), textcoords="axes fraction", arrowprops=line, annotation_clip=False,
                va="center", ha="left", fontsize=9, **common,
            )  # fmt: skip
        if self.title:
            title = self._fit(self.title, width - left - 0.15, 12)
            self.figure.text(left / width, 1 - 0.3 / height, title, fontsize=12, va="center", **common)
        fixed = (
            {"CreationDate": None} if self.path.suffix.lower() == ".pdf" else {}
        )  # the same numbers make the same file
        self.figure.savefig(self.path, format=self.path.suffix[1:].lower(), dpi=DPI, metadata=fixed)

    def _beside(self) -> float:
        """Inches to the left of the plot."""
        box = self.axes.yaxis.get_tightbbox(self.canvas.get_renderer())
        return float(box.width) / DPI

    def _inches(self, text: str, size: float) -> float:
        probe = self.figure.text(0, 0, text, fontsize=size, parse_math=False)
        wide = probe.get_window_extent(self.canvas.get_renderer()).width / DPI
        probe.remove()
        return float(wide)

    def _fit(self, text: str, room: float, size: float) -> str:
        return shortened(" ".join(text.split()), room, lambda t: self._inches(t, size))


def spread(wanted: Sequence[float], gap: float) -> list[float]:
    """Places of 0 to 1, in the order given, each as near to the wanted one as a distance of `gap` between any two
    allows (least squares)."""
    order = sorted(range(len(wanted)), key=lambda i: wanted[i])
    pools: list[list[float]] = []  # sum and number of neighbours that want to overlap, less the gaps below them
    for n, i in enumerate(order):
        pools.append([wanted[i] - n * gap, 1])
        while len(pools) > 1 and pools[-2][0] / pools[-2][1] > pools[-1][0] / pools[-1][1]:
            total, count = pools.pop()
            pools[-1][0] += total
            pools[-1][1] += count
    flat = [total / count for total, count in pools for _ in range(int(count))]
    top = max(0.0, 1 - (len(wanted) - 1) * gap)
    places = [0.0] * len(wanted)
    for n, (i, place) in enumerate(zip(order, flat, strict=True)):
        places[i] = min(max(place, 0.0), top) + n * gap
    return places
