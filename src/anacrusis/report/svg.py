"""Charts as inline SVG: colours are the page's variables, every text is escaped, every chart says what it shows.

Each chart is drawn twice, wide and narrow; the style shows one of the two, so that its text is readable on a phone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from markupsafe import Markup, escape

from .curves import spread

SERIES = 7  # colours in the style; beyond them lines and marks differ in dashes and shapes only
SHAPES = ("circle", "square", "diamond", "up", "down", "cross")
DASHES = ("", "7 4", "2 3", "9 3 2 3")
WIDE, HALF, NARROW = (700, 380), (500, 330), (340, 290)  # units, about pixels: alone, beside another, on a phone
SIZE = 13  # of text
Form = Callable[[float], str]
Box = tuple[float, float, float, float]  # left, top, right, bottom


@dataclass(frozen=True)
class Line:
    """points: (x, y, low, high) in order of x. series: colour and mark. thin: one of several, without marks."""

    name: str
    series: int
    points: Sequence[tuple[float, float, float, float]]
    thin: bool = False


@dataclass(frozen=True)
class Spot:
    name: str
    series: int
    cost: float
    score: float
    low: float
    high: float


@dataclass(frozen=True)
class Scale:
    """An axis. way: "even", "log" (0 has a place of its own, left of all others) or "log2". at: where ticks stand."""

    label: str
    low: float
    high: float
    way: str = "even"
    form: Form = lambda v: f"{v:g}"
    at: Sequence[float] = ()
    zero: bool = False  # whether 0 occurs on a log scale

    def __call__(self, v: float) -> float:
        """Its place, 0 to 1."""
        if self.way == "even":
            return (v - self.low) / (self.high - self.low)
        room = 0.14 if self.zero else 0.0
        if v <= 0:
            return 0.05
        return room + (1 - room) * math.log(v / self.low) / math.log(self.high / self.low)

    @property
    def ticks(self) -> list[float]:
        inside = [t for t in self.at or _ticks(self.low, self.high, self.way != "even") if 0 <= self(t) <= 1]
        return [0.0, *inside] if self.zero else inside


@dataclass(frozen=True)
class Chart:
    """A figure of a page. key: symbols and their names; direct: where the wide drawing names its lines itself, the key
    is for the narrow one. heads, rows: the same numbers as a table."""

    title: str
    drawn: Markup
    key: tuple[tuple[Markup, str], ...] = ()
    direct: bool = False
    heads: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] = field(default=())


def room_for(values: Sequence[float], most: float = math.inf, least: float = -math.inf) -> tuple[float, float]:
    """A little more than from the smallest to the largest, within bounds; what is no number is left out."""
    finite = [v for v in values if math.isfinite(v)] or [0.0]
    low, high = min(finite), max(finite)
    more = 0.06 * (high - low) or 0.05 * abs(high) or 0.05
    return max(least, low - more), min(most, high + more)


def known(*values: float) -> bool:
    """Whether all are numbers that can be drawn: a loss that ran away is NaN or infinite."""
    return all(map(math.isfinite, values))


def log_room(values: Sequence[float]) -> tuple[float, float]:
    above = [v for v in values if v > 0]
    return min(above) / 1.5, max(above) * 1.5


def _ticks(low: float, high: float, log: bool) -> list[float]:
    """Round numbers within [low, high], about five of them."""
    if log:
        first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
        decades = math.log10(high / low)
        steps = (1, 1.5, 2, 3, 5, 7) if decades < 0.7 else (1, 2, 5) if decades < 2.2 else (1,)
        found = [m * 10.0**e for e in range(first, last + 1) for m in steps if low <= m * 10.0**e <= high]
        return found[:: 1 + (len(found) - 1) // 7] if found else []
    raw = (high - low) / 5
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(s * power for s in (1, 2, 2.5, 5, 10) if s * power >= raw)
    return [i * step for i in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


# --- charts


def curve(id: str, title: str, lines: Sequence[Line], x: Scale, y: Scale, wide: tuple[int, int] = WIDE) -> Chart:
    """Lines over x with intervals, each named at its right end. Points that are no numbers are left out."""
    lines = [replace(line, points=kept) for line in lines if (kept := [p for p in line.points if known(*p)])]

    def draw(plot: _Plot) -> None:
        plot.axes(x, y)
        thick = [line for line in lines if not line.thin]
        for line in lines:
            aside = 0.0  # of several methods' intervals, side by side
            if len(thick) > 1 and not line.thin:
                aside = (thick.index(line) - (len(thick) - 1) / 2) * min(6.0, 30 / len(thick))
            place = [(plot.x(x(p[0])) + aside, plot.y(y(p[1]))) for p in line.points]
            dash = DASHES[line.series // SERIES % len(DASHES)]
            plot.begin(line.series)
            for at, p in zip(place, line.points, strict=True):
                if p[3] > p[2]:
                    plot.add(f'<path class="whisker" d="{_path([(at[0], plot.y(y(v))) for v in p[2:]])}"/>')
            if len(place) > 1:
                dashed = f' stroke-dasharray="{dash}"' if dash else ""
                plot.add(f'<path class="line{" thin" if line.thin else ""}"{dashed} d="{_path(place)}"/>')
            if not line.thin:
                for p, at in zip(line.points, place, strict=True):
                    plot.mark(line.series, at, f"{line.name}\n{x.label}: {x.form(p[0])}\n{_interval(p[1:])}")
            plot.end()
        if plot.labels:
            plot.beside([(n, s, plot.x(x(at[0])), plot.y(y(at[1]))) for n, s, at in _ends(lines)])

    names = {line.series: line.name for line in lines}
    longest = max(names.values(), key=len, default="")
    said = f"{y.label} over {x.label}. " + "; ".join(
        f"{line.name}: {_said(line, x)}" for line in lines if not line.thin or line.series not in _seen(lines, line)
    )
    tall = wide[0], max(wide[1], 72 + 16 * len(names))  # a line of text for each name
    drawn = _both(id, title or f"{y.label} over {x.label}", said, draw, tall, longest)
    return Chart(title, drawn, tuple((_symbol(s), n) for s, n in names.items()), direct=True)


def _seen(lines: Sequence[Line], line: Line) -> set[int]:
    return {other.series for other in lines[: [*map(id, lines)].index(id(line))]}


def _said(line: Line, x: Scale) -> str:
    first, last = line.points[0], line.points[-1]
    end = f"{last[1]:.3f} at {x.form(last[0])}"
    return end if len(line.points) == 1 else f"{first[1]:.3f} at {x.form(first[0])} to {end}"


def _ends(lines: Sequence[Line]) -> list[tuple[str, int, tuple[float, float]]]:
    """One name a series, where its lines end: at the mean of several."""
    found: dict[int, list[Line]] = {}
    for line in lines:
        found.setdefault(line.series, []).append(line)
    return [
        (several[0].name, series, (max(line.points[-1][0] for line in several),
                                   sum(line.points[-1][1] for line in several) / len(several)))
        for series, several in found.items()
    ]  # fmt: skip


def scatter(
    id: str, title: str, spots: Sequence[Spot], best: Sequence[int], x: Scale, y: Scale, wide: tuple[int, int] = WIDE
) -> Chart:
    """Scores over a cost. best: indexes of those that no other beats, from the cheapest on."""
    whole: list[bool] = []

    def draw(plot: _Plot) -> None:
        plot.axes(x, y)
        places = [(plot.x(x(s.cost)), plot.y(y(s.score))) for s in spots]
        if len(best) > 1:
            corners = [places[best[0]]]
            for i in best[1:]:
                corners += [(places[i][0], corners[-1][1]), places[i]]
            plot.add(f'<path class="front" d="{_path(corners)}"/>')
        for i, (s, at) in enumerate(zip(spots, places, strict=True)):
            plot.begin(s.series)
            plot.add(f'<path class="whisker" d="{_path([(at[0], plot.y(y(v))) for v in (s.low, s.high)])}"/>')
            said = f"{s.name}\n{x.label}: {x.form(s.cost)}\n{_interval((s.score, s.low, s.high))}"
            plot.mark(s.series, at, said + ("\nno other is cheaper and better" if i in best else ""))
            plot.end()
            if i in best:
                plot.add(f'<circle class="halo" cx="{at[0]:.1f}" cy="{at[1]:.1f}" r="9"/>')
        if plot.labels:
            whole.append(plot.near(spots, places, y))

    kept = ", ".join(spots[i].name for i in best)
    said = f"{y.label} over {x.label}. No other is cheaper and better than: {kept}. " + "; ".join(
        f"{s.name}: {s.score:.3f} for {x.form(s.cost)}" for s in spots
    )
    drawn = _both(id, title, said, draw, wide)
    rows = tuple((s.name, x.form(s.cost), f"{s.score:.3f} [{s.low:.3f}, {s.high:.3f}]", "yes" if i in best else "")
                 for i, s in enumerate(spots))  # fmt: skip
    key = tuple((_symbol(s.series, dot=True), s.name) for s in spots)
    return Chart(title, drawn, key, all(whole), ("method", x.label, y.label, "on the Pareto front"), rows)


def reliability(id: str, title: str, points: Sequence[tuple[float, float, int]]) -> Chart:
    """points: (mean confidence, share right, examples). Areas of marks are as the number of examples."""
    form: Form = "{:.1f}".format
    x, y = Scale("how sure", 0, 1, form=form), Scale("share right", 0, 1, form=form)
    points = [p for p in points if known(*p)]
    most = max((n for _, _, n in points), default=1)

    def draw(plot: _Plot) -> None:
        plot.axes(x, y)
        plot.add(f'<path class="even" d="{_path([(plot.x(v), plot.y(v)) for v in (0, 1)])}"/>')
        plot.begin(0)
        if len(points) > 1:
            plot.add(f'<path class="line thin" d="{_path([(plot.x(c), plot.y(a)) for c, a, _ in points])}"/>')
        for c, a, n in points:
            tip = escape(f"sure {c:.2f}, right {a:.2f}\n{n} examples").replace("\n", Markup("&#10;"))
            plot.add(f'<circle class="mark" cx="{plot.x(c):.1f}" cy="{plot.y(a):.1f}" '
                     f'r="{3 + 6 * math.sqrt(n / most):.1f}" data-tip="{tip}"/>')  # fmt: skip
        plot.end()

    said = "Share of right answers over confidence; on the dashed line they are equal. " + "; ".join(
        f"sure {c:.2f}: right {a:.2f} of {n}" for c, a, n in points
    )
    return Chart(title, _both(id, title, said, draw, HALF))


# --- drawings in the cells of tables


def interval(
    value: float, low: float, high: float, domain: tuple[float, float], dots: Sequence[float] = (),
    said: str = "95 % interval",
) -> Markup:  # fmt: skip
    """A score as a tick on the bar of a range; dots: of single seeds; said: what the range is. 0 is marked where it
    lies inside. Nothing of what is no number."""
    if not known(value, low, high):
        return Markup()
    width, height = 176, 20

    def at(v: float) -> float:
        return 5 + (width - 10) * min(1.0, max(0.0, (v - domain[0]) / (domain[1] - domain[0])))

    seeds = f"; seeds {', '.join(f'{d:.3f}' for d in dots)}" if len(dots) > 1 else ""
    zero = f'<path class="edge" d="M{at(0):.1f} 3V17"/>' if domain[0] < 0 < domain[1] else ""
    marks = "".join(f'<circle class="dot" cx="{at(d):.1f}" cy="10" r="2.6"/>' for d in dots) if len(dots) > 1 else ""
    return Markup(
        f'<svg class="range" viewBox="0 0 {width} {height}" role="img"><title>{value:.3f}, {escape(said)} {low:.3f} to '
        f'{high:.3f}{seeds}</title><rect class="track" x="0" y="8.5" width="{width}" height="3" rx="1.5"/>{zero}'
        f'<rect class="fill" opacity="0.4" x="{at(low):.1f}" y="6" width="{max(1.0, at(high) - at(low)):.1f}" '
        f'height="8" rx="2"/>{marks}<rect class="fill" x="{at(value) - 1.5:.1f}" y="2" width="3" height="16" rx="1"/>'
        "</svg>"
    )


def bar(value: float, domain: tuple[float, float]) -> Markup:
    """A bar from 0, or from the nearest end of the domain. Nothing of what is no number."""
    if not known(value):
        return Markup()
    width, height = 176, 20

    def at(v: float) -> float:
        return width * min(1.0, max(0.0, (v - domain[0]) / (domain[1] - domain[0])))

    zero = at(0.0)
    left, right = min(zero, at(value)), max(zero, at(value))
    return Markup(
        f'<svg class="range" viewBox="0 0 {width} {height}" role="img"><title>{value:.3f}</title>'
        f'<rect class="track" x="0" y="8.5" width="{width}" height="3" rx="1.5"/>'
        f'<rect class="fill" x="{left:.1f}" y="4" width="{max(1.0, right - left):.1f}" height="12" rx="2"/></svg>'
    )


# --- one drawing


class _Plot:
    """One size of a chart. Places are units of its view box, y down."""

    def __init__(self, size: tuple[int, int], labels: bool, beside: str = "") -> None:
        self.width, self.height = size
        self.labels = labels
        self.parts: list[str] = []
        self.right = min(190.0, _wide(beside) + 34) if labels and beside else 14.0

    def axes(self, x: Scale, y: Scale) -> None:
        left = max(map(_wide, map(y.form, y.ticks)), default=0) + 10
        self.box = (left, 26.0, self.width - self.right, self.height - 46.0)
        for t in y.ticks:
            self.add(f'<path class="grid" d="{_path([(self.box[0], self.y(y(t))), (self.box[2], self.y(y(t)))])}"/>')
            self.text(self.box[0] - 6, self.y(y(t)) + 4.5, y.form(t), "axis", "end")
        self.add(f'<path class="edge" d="{_path([(self.box[0], self.box[3]), (self.box[2], self.box[3])])}"/>')
        last = -math.inf
        for t in x.ticks:
            at, said = self.x(x(t)), x.form(t)
            half = _wide(said) / 2
            if at - half < last + 6:
                continue  # it would run into the one before
            last = at + half
            self.add(f'<path class="edge" d="{_path([(at, self.box[3]), (at, self.box[3] + 4)])}"/>')
            self.text(min(at, self.width - half), self.box[3] + 18, said, "axis", "middle")
        self.text((self.box[0] + self.box[2]) / 2, self.height - 6, x.label, "axis", "middle")
        self.text(2, 13, y.label, "axis", "start")

    def x(self, share: float) -> float:
        return self.box[0] + share * (self.box[2] - self.box[0])

    def y(self, share: float) -> float:
        return self.box[3] - share * (self.box[3] - self.box[1])

    def add(self, part: str) -> None:
        self.parts.append(part)

    def begin(self, series: int) -> None:
        self.add(f'<g class="s{series % SERIES}">')

    def end(self) -> None:
        self.add("</g>")

    def text(self, x: float, y: float, said: str, name: str = "", anchor: str = "start") -> None:
        kind = f' class="{name}"' if name else ""
        self.add(f'<text{kind} x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{SIZE}">{escape(said)}</text>')

    def mark(self, series: int, at: tuple[float, float], tip: str) -> None:
        lines = escape(tip).replace("\n", Markup("&#10;"))
        self.add(f'<path class="mark" d="{_shape(series, at)}" data-tip="{lines}"/>')

    def beside(self, ends: Sequence[tuple[str, int, float, float]]) -> None:
        """Names right of the plot, each joined to the end of its line: (name, series, x, y)."""
        high = self.box[3] - self.box[1]
        wanted = [(self.box[3] - y) / high for *_, y in ends]
        for (name, series, x, y), share in zip(
            ends, spread(wanted, min(16 / high, 1 / max(1, len(ends)))), strict=True
        ):
            at = self.y(share)
            self.begin(series)
            self.add(f'<path class="leader" d="{_path([(x + 7, y), (self.box[2] + 16, at)])}"/>')
            self.end()
            self.text(self.box[2] + 20, at + 4.5, _cut(name, self.right - 22))

    def near(self, spots: Sequence[Spot], places: Sequence[tuple[float, float]], y: Scale) -> bool:
        """Names beside their marks where they run into nothing, into others' intervals at most; whether all found a
        place."""
        marks = [(a - 11, b - 11, a + 11, b + 11) for a, b in places]
        bars = [(a - 3, self.y(y(s.high)), a + 3, self.y(y(s.low))) for s, (a, _) in zip(spots, places, strict=True)]
        names: list[Box] = []
        for i, (spot, place) in enumerate(zip(spots, places, strict=True)):
            w, h = _wide(spot.name), SIZE + 1
            boxes = [(left, top, left + w, top + h) for left, top in _around(place, w, h)]
            inside = [b for b in boxes if self.box[0] <= b[0] and b[2] <= self.width and b[3] <= self.box[3]]
            others = [*names, *marks[:i], *marks[i + 1 :]]
            free = [b for b in inside if not any(_overlap(b, other) for other in others)]
            best = [b for b in free if not any(_overlap(b, bar) for bar in bars)] or free
            if best:
                names.append(best[0])
                self.text(best[0][0], best[0][3] - 3, spot.name, "named")
        return len(names) == len(spots)


def _around(place: tuple[float, float], w: float, h: float) -> list[tuple[float, float]]:
    """Left upper corners of a text of that size beside a mark, where the dotted line is rarest first."""
    x, y = place
    return [(x + 8, y + 7), (x - 8 - w, y - 7 - h), (x + 8, y - 7 - h), (x - 8 - w, y + 7), (x + 13, y - h / 2),
            (x - 13 - w, y - h / 2), (x - w / 2, y - 12 - h), (x - w / 2, y + 12)]  # fmt: skip


def _both(
    id: str, title: str, said: str, draw: Callable[[_Plot], None], wide: tuple[int, int], beside: str = ""
) -> Markup:
    out = []
    for name, size in (("wide", wide), ("narrow", NARROW)):
        plot = _Plot(size, name == "wide", beside)
        draw(plot)
        ids = f"{escape(id)}-{name}"
        kind = f"chart {name} half" if size == HALF else f"chart {name}"
        out.append(
            f'<svg class="{kind}" viewBox="0 0 {size[0]} {size[1]}" role="img" '
            f'aria-labelledby="{ids}-t {ids}-d">'
            f'<title id="{ids}-t">{escape(title)}</title><desc id="{ids}-d">{escape(said)}</desc>'
            f"{''.join(plot.parts)}</svg>"
        )
    return Markup("".join(out))


def _symbol(series: int, dot: bool = False) -> Markup:
    dash = DASHES[series // SERIES % len(DASHES)]
    line = (
        ""
        if dot
        else f'<path class="line" d="M1 6H29"{f" stroke-dasharray={chr(34)}{dash}{chr(34)}" if dash else ""}/>'
    )
    return Markup(
        f'<svg viewBox="0 0 30 12" aria-hidden="true"><g class="s{series % SERIES}">{line}'
        f'<path class="mark" d="{_shape(series, (15, 6))}"/></g></svg>'
    )


def _shape(series: int, at: tuple[float, float]) -> str:
    x, y = at
    outline: Mapping[str, Sequence[tuple[float, float]]] = {
        "square": ((-4.2, -4.2), (4.2, -4.2), (4.2, 4.2), (-4.2, 4.2)),
        "diamond": ((0, -5.8), (5.8, 0), (0, 5.8), (-5.8, 0)),
        "up": ((0, -5.4), (5.4, 4.2), (-5.4, 4.2)),
        "down": ((0, 5.4), (5.4, -4.2), (-5.4, -4.2)),
        "cross": ((-1.8, -5), (1.8, -5), (1.8, -1.8), (5, -1.8), (5, 1.8), (1.8, 1.8), (1.8, 5), (-1.8, 5),
                  (-1.8, 1.8), (-5, 1.8), (-5, -1.8), (-1.8, -1.8)),
    }  # fmt: skip
    shape = SHAPES[(series + series // SERIES) % len(SHAPES)]
    if shape == "circle":
        return f"M{x - 4.8:.1f} {y:.1f}a4.8 4.8 0 1 0 9.6 0a4.8 4.8 0 1 0 -9.6 0Z"
    return _path([(x + a, y + b) for a, b in outline[shape]]) + "Z"


def _path(points: Sequence[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points)


def _interval(v: Sequence[float]) -> str:
    return f"{v[0]:.3f} [{v[1]:.3f}, {v[2]:.3f}]" if v[2] > v[1] else f"{v[0]:.3f}"


def _wide(text: str) -> float:
    """About how wide a text is; nobody knows the reader's font."""
    return SIZE * sum(0.95 if ord(c) > 0x2E7F else 0.32 if c in " .,:;il|'!" else 0.58 for c in text)


def _cut(text: str, room: float) -> str:
    if _wide(text) <= room:
        return text
    keep = next((n for n in range(len(text) - 1, 0, -1) if _wide(text[:n] + "...") <= room), 0)
    return text[:keep] + "..."


def _overlap(a: Box, b: Box) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]
