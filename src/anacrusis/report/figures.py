"""A comparison as figures for papers and slides: PNG or PDF, drawn with matplotlib in colours that the colour-blind
tell apart. Nothing global is touched: no pyplot, no settings, no backend."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from ..errors import ConfigError, MissingExtra
from ..runs.grid import ALL
from . import details, svg
from .curves import COLOURS, DPI, FAINT, INK, MARKS, shots_curve
from .html import Cost, costs_of, rough
from .leaderboard import Board, Row

SUFFIXES = ("png", "pdf")
GREY = "#595b63"
STANDING = {"best": "#009E73", "tied": "#0072B2", "worse": "#D55E00"}
SHAPE = {"best": "o", "tied": "s", "worse": "v"}  # so that standing is not in colours alone


def figures(board: Board, folder: str | Path, suffix: str = "png") -> list[Path]:
    """Draw a comparison: the leaderboard as a forest plot for each number of shots, scores over shots where there are
    several, and the score against each cost that differs, with its Pareto front.

    Returns the files' paths. Raises ConfigError for another suffix and a comparison without a score, MissingExtra
    without matplotlib.
    """
    if suffix not in SUFFIXES:
        raise ConfigError(f"suffix={suffix!r}: expected one of {', '.join(SUFFIXES)}")
    found = board.leaderboard
    if not found.rows:
        raise ConfigError(f"the comparison in {board.folder} has no scores to draw yet")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    made = []
    for group in found.groups:
        rows = found.of(group)
        name = "leaderboard" if len(found.groups) == 1 else f"leaderboard-{group}"
        path = folder / f"{name}.{suffix}"
        _drawn(path, (6.4, 0.9 + 0.34 * len(rows)), partial(_forest, rows=rows, board=board, group=group))
        made.append(path)
    if len(numbers := [g for g in found.groups if g != ALL]) > 1:
        methods = dict.fromkeys(r.method for r in (*found.of(found.groups[-1]), *found.rows))  # colours as below
        points = {
            m: [(float(r.group), r.score.value, r.score.low, r.score.high)
                for r in found.rows if r.method == m and r.group in numbers]
            for m in methods
        }  # fmt: skip
        made.append(
            shots_curve({m: p for m, p in points.items() if p}, folder / f"shots.{suffix}", measure=found.metric)
        )
    rows = found.of(found.groups[-1])
    for cost in costs_of(rows) if len(rows) > 1 else ():
        path = folder / f"cost-{cost.name}.{suffix}"
        _drawn(path, (5.6, 4.0), partial(_against, rows=rows, cost=cost, metric=found.metric))
        made.append(path)
    return made


def _drawn(path: Path, size: tuple[float, float], draw: Callable[[Any], None]) -> None:
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.backends.backend_pdf import FigureCanvasPdf
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtra("matplotlib", "plots", "drawing figures") from error
    figure = Figure(figsize=size, dpi=DPI, facecolor="white", layout="constrained")
    canvas = (FigureCanvasPdf if path.suffix == ".pdf" else FigureCanvasAgg)(figure)
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(GREY)
    axes.tick_params(colors=INK, labelsize=9, length=3)
    axes.set_axisbelow(True)
    draw(axes)
    metadata = {"CreationDate": None} if path.suffix == ".pdf" else {}  # the same numbers make the same file
    canvas.print_figure(path, dpi=DPI, metadata=metadata)


def _forest(axes: Any, rows: Sequence[Row], board: Board, group: str) -> None:
    """One line a method, the best on top: its interval, its score, and its seeds as small rings."""
    axes.grid(axis="x", color=FAINT, linewidth=0.7)
    for i, r in enumerate(rows):
        colour, y = STANDING[r.standing], len(rows) - 1 - i
        axes.hlines(y, r.score.low, r.score.high, color=colour, linewidth=2, zorder=2)
        axes.plot(r.score.value, y, SHAPE[r.standing], color=colour, markersize=7, zorder=4)
        if len(r.by_seed) > 1:
            axes.plot(r.by_seed, [y] * len(r.by_seed), "o", markerfacecolor="white", markeredgecolor=INK,
                      markeredgewidth=0.8, markersize=3.5, zorder=3)  # fmt: skip
        said = f"{r.score.value:.3f} [{r.score.low:.3f}, {r.score.high:.3f}]  {r.standing}"
        axes.annotate(said, (1, y), xycoords=("axes fraction", "data"), xytext=(8, 0), textcoords="offset points",
                      va="center", fontsize=8.5, color=INK, annotation_clip=False)  # fmt: skip
    axes.set_yticks(range(len(rows)), labels=[_plain(r.method) for r in reversed(rows)])
    axes.set_ylim(-0.6, len(rows) - 0.4)
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0)
    shots = "" if group == ALL else f", {group} example{'s' * (group != '1')} a class"
    axes.set_xlabel(f"{board.leaderboard.metric} on {board.leaderboard.examples} test examples{shots}", color=INK)


def _against(axes: Any, rows: Sequence[Row], cost: Cost, metric: str) -> None:
    """Scores over a cost; what costs nothing stands at the left end."""
    axes.grid(axis="y", color=FAINT, linewidth=0.7)
    x = svg.Scale(cost.label, *svg.log_room(cost.values), "log", form=rough, zero=min(cost.values) <= 0)
    places = [x(v) for v in cost.values]
    best = details.front([(v, r.score.value) for v, r in zip(cost.values, rows, strict=True)])
    axes.step([places[i] for i in best], [rows[i].score.value for i in best], where="post", color=INK,
              linewidth=1, linestyle=":", zorder=1)  # fmt: skip
    for i, (v, r) in enumerate(zip(places, rows, strict=True)):
        colour = COLOURS[i % len(COLOURS)]
        axes.vlines(v, r.score.low, r.score.high, color=colour, linewidth=1.2, zorder=2)
        axes.plot(v, r.score.value, MARKS[(i + i // len(COLOURS)) % len(MARKS)], color=colour, markersize=7, zorder=3,
                  label=_plain(r.method))  # fmt: skip
        if i in best:
            axes.plot(v, r.score.value, "o", markerfacecolor="none", markeredgecolor=INK, markersize=12, zorder=2)
    axes.set_xlim(0, 1)
    axes.set_xticks([x(t) for t in x.ticks], labels=[rough(t) for t in x.ticks])
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False, fontsize=8.5, labelcolor=INK)
    axes.set_xlabel(f"{cost.label} (log; ringed: no other is cheaper and better)", color=INK, fontsize=9)
    axes.set_ylabel(metric, color=INK)


def _plain(text: str) -> str:
    """On one line, and no formula whatever it holds."""
    return " ".join(text.split()).replace("$", r"\$")
