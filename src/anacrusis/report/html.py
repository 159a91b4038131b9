"""Reports as one HTML file each: complete without a network or scripts, light and dark, for screens, phones and paper.

Every text of the page is escaped by the templates; nothing is loaded, and the page's own policy forbids it.
"""

from __future__ import annotations

import base64
import hashlib
import io
import math
import platform
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from markupsafe import Markup

from .. import __version__
from ..errors import AnacrusisError, MissingExtra
from ..prompt.store import write_text
from ..prompt.values import Text
from ..registry import get
from ..runs import journal
from ..runs.grid import ALL
from ..runs.grid import read as read_grid
from ..runs.run import Run, load
from ..task import Task, golds_of
from ..task.images import of_array
from ..task.metrics import find
from . import details, search, svg
from .leaderboard import Board, Row

if TYPE_CHECKING:
    from ..assess.measure import Found

TEXTS, PICTURES = 40, 24  # mistakes that are shown, of texts and of pictures
THUMB = 96  # pixels: of a picture's longer side
SQUARE = 20  # classes, up to which a confusion is a square table
PAIRS = 20  # most confused pairs
LINES, POINTS = 60, 80  # in a chart of learning: lines at most, validations of a line
COSTS = (  # attribute of a row, what it is, and below what it is as good as nothing
    ("seconds", "seconds of learning", 0.01), ("parameters", "trained parameters", 0.0),
    ("dollars", "dollars, all seeds", 0.0), ("calls", "calls, all seeds", 0.0),
    ("milliseconds", "milliseconds an answer", 0.01), ("megabytes", "megabytes of memory", 1.0),
)  # fmt: skip
NAV = (
    ("leaderboard", "Leaderboard"), ("failures", "Failures"), ("shots", "Examples"), ("costs", "Cost"),
    ("learning", "Learning"), ("classes", "Classes"), ("mistakes", "Mistakes"), ("words", "Words"),
    ("ran", "What was run"),
)  # fmt: skip


# --- pages


def page(board: Board) -> str:
    """The report of a comparison, finished or not."""
    found, task = board.leaderboard, board.task
    rows = found.of(found.groups[-1]) if found.rows else []
    series = {name: i for i, name in enumerate(dict.fromkeys(r.method for r in (*rows, *found.rows)))}
    methods = {r.method: board.runs(r.method, r.group) for r in rows}
    view: dict[str, Any] = {
        "title": f"Comparison of {len(read_grid(board.folder)['methods'])} methods on {task.name}",
        "about": f"{task.describe()}; model {found.model}",
        "verdict": found.verdict() or "No method has a score yet.",
        "remarks": _unfinished(found.left),
        "metric": task.metric,
        "notes": found.notes,
        "failures": [*found.missing.items(), *((d.cell.name, d.error) for d in board.done
                                               if d.run is None and d.cell.method not in found.missing)],
        "learning": _learning(board, series),
        "learning_note": "Scores on validation examples while learning, one line a seed.",
        "words": [w for name, runs in methods.items() if (w := _words(name, runs))],
        **_leaderboard(board), **_what_ran(board),
    }  # fmt: skip
    if len(found.groups) > 1:
        view["shots"] = _shots(board, series)
    if len(rows) > 1:
        view |= _costs(board, rows, series)
    if rows and (best := [r for r in methods[rows[0].method] if _whole(r, task)]):
        rivals = {n: [_said(r) for r in runs if _whole(r, task)] for n, runs in methods.items() if n != rows[0].method}
        view |= _answers(task, rows[0].method, [_said(r) for r in best], {n: p for n, p in rivals.items() if p})
    return _rendered("report.html", view)


def run_page(folder: str | Path, task: Task | None = None) -> str:
    """The report of one finished run. task: else it is read again from where it was; without one, its mistakes and
    classes are left out. Raises RunError where there is no finished run."""
    run = load(folder)
    plan, notes = run.plan, []
    if task is None and plan.source:
        try:
            task = Task.from_source(plan.source)
        except AnacrusisError as error:
            notes.append(f"The examples cannot be read again, so no mistakes are shown: {error}")
    elif task is None:
        notes.append("Learned from data in memory: give the task to see classes and mistakes.")
    if task is not None and task.fingerprint != plan.data:
        notes.append("The data has changed since the run: classes and mistakes are left out.")
        task = None
    score, metric = run.score, run.score.metric if run.score else ""
    facts = [("method", f"{plan.method} on {plan.model}")]
    if score:
        facts.append((f"{score.metric}, {score.n} {score.split} examples", _interval(score)))
        facts += [(name, _interval(i)) for name, i in score.others.items()]
    if run.valid is not None:
        facts.append(("validation", _score(run.valid)))
    facts += [(k, v) for k, v in (search.facts(run) if run.cost else []) if k not in ("says", "seconds", "note")]
    facts += [("trained parameters", _count(run.parameters)), ("learning", _seconds(run.seconds))]
    course = details.course(Path(folder))
    lines = [] if not course.points else [svg.Line(plan.method, 0, _thinned(course))]
    words = _words(plan.method, [run])
    view: dict[str, Any] = {
        "title": f"{plan.method} on {plan.task}",
        "about": task.describe() if task else f"{plan.task}; model {plan.model}",
        "verdict": _verdict(run),
        "remarks": notes,
        "metric": metric,
        "facts": facts,
        "learning": [_learned("learning", "Validation while learning", lines, task)] if lines else [],
        "learning_note": "Scores on validation examples while learning.",
        "words": [words] if words else [],
        "ran": [*_data(plan.to_json()), ("seed", str(plan.seed)), ("options", _pairs(plan.options) or "the usual ones"),
                *_time(_span([Path(folder)]), run.seconds), ("folder", Path(folder).name)],
        "configs": [(plan.method, _config(run))] if _config(run) else [],
        "run_notes": _notes_of([run]),
    }  # fmt: skip
    if task is not None and _whole(run, task):
        view |= _answers(task, plan.method, [_said(run)], {})
    return _rendered("report.html", view)


def assess_page(found: Sequence[Found], about: Mapping[str, str]) -> str:
    """The report of an assessment: what each measure found. about: facts of the prompt, its model and its task."""
    from ..assess.measure import MEASURES

    measured = [_finding(f, MEASURES.get(f.name)) for f in found if f.finding is not None]
    skipped = [(f.name, f.skipped) for f in found if f.finding is None]
    nav = [(m["id"], m["name"].capitalize()) for m in measured] + [("skipped", "Not measured")] * bool(skipped)
    title = f"Assessment of {about.get('prompt', 'a prompt')}"
    view = {"title": title, "facts": list(about.items()), "found": measured, "skipped": skipped}
    return _rendered("assess.html", view, nav)


def write(text: str, path: str | Path) -> Path:
    """Write a page in one step, its folder made. Returns its path."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, text)
    return path


@lru_cache(1)
def environment() -> Any:
    """Jinja2's, with our templates and number formats: for the reports and the web view. Escapes everything."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    made = Environment(loader=PackageLoader("anacrusis.report", "templates"), autoescape=True, trim_blocks=True,
                       undefined=StrictUndefined)  # fmt: skip
    made.filters |= {"score": _score, "interval": _interval, "signed": _signed, "count": _count, "seconds": _seconds,
                     "ms": _ms, "mb": _mb, "dollars": _dollars}  # fmt: skip
    return made


def asset(name: str) -> str:
    """style.css or page.js."""
    loader = environment().loader
    assert loader is not None
    return str(loader.get_source(environment(), name)[0])


def policy(style: str, script: str) -> str:
    """What a page may load: nothing but its own style and script, known by their hashes, and pictures inside it."""
    css, js = (base64.b64encode(hashlib.sha256(t.encode()).digest()).decode() for t in (style, script))
    return (
        f"default-src 'none'; style-src 'sha256-{css}'; script-src 'sha256-{js}'; img-src data:; base-uri 'none'; "
        "form-action 'none'"
    )


def _rendered(name: str, view: Mapping[str, Any], nav: Sequence[tuple[str, str]] = ()) -> str:
    style, script = asset("style.css"), asset("page.js")
    usual: dict[str, Any] = {key: () for key, _ in NAV} | {
        "facts": (), "remarks": (), "methods": (), "configs": (), "run_notes": (), "confusion": None, "confused": (),
        "notes": (), "pooled": False, "mistakes_note": "", "pictures": (),
    }  # fmt: skip
    made = f"Written by anacrusis {__version__} on {_date(time.time())}. This file needs no network."
    view = {**usual, **view}
    return str(environment().get_template(name).render(
        **view, nav=nav or [(id, name) for id, name in NAV if view[f"{id}_note" if id == "mistakes" else id]],
        policy=policy(style, script), style=Markup(style), script=Markup(script), made=made,
    ))  # fmt: skip


# --- numbers, the same everywhere


UNKNOWN = "not known"  # what is no number: the loss of a run that ran away


def _score(v: float) -> str:
    return f"{v:.3f}" if svg.known(v) else UNKNOWN


def _interval(i: Any) -> str:
    return f"{i.value:.3f} [{i.low:.3f}, {i.high:.3f}]"


def _signed(i: Any) -> str:
    return f"{i.value:+.3f} [{i.low:+.3f}, {i.high:+.3f}]"


def _count(v: float) -> str:
    return f"{v:,.0f}"


def _seconds(v: float) -> str:
    if v < 100:
        return "< 0.01 s" if 0 < v < 0.01 else f"{v:.2f} s" if v < 1 else f"{v:.1f} s"
    return f"{v / 60:.1f} min" if v < 6000 else f"{v / 3600:.1f} h"


def _ms(v: float) -> str:
    return "< 0.01 ms" if 0 < v < 0.01 else f"{v:.2f} ms" if v < 1 else f"{v:,.1f} ms"


def _mb(v: float | None) -> str:
    return "" if v is None else f"{v:,.0f} MB"


def _dollars(v: float) -> str:
    return f"${v:.4f}" if v < 1 else f"${v:,.2f}"


def rough(v: float) -> str:
    """Of a tick, or a rough number: 1500 is 1.5 k."""
    v = float(f"{v:.3g}")
    for size, unit in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if v >= size:
            return f"{v / size:g}{unit}"
    return f"{v:g}"


def _date(at: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(at))


def _span(folders: Sequence[Path]) -> tuple[float, float] | None:
    """When the first record of the runs was written, and the last one."""
    times = [e["time"] for f in folders for e in journal.read(f) if "time" in e]
    return (min(times), max(times)) if times else None


# --- a comparison


def _unfinished(left: int) -> list[str]:
    return (
        [f"{left} run{'s' * (left != 1)} of the plan {'have' if left != 1 else 'has'} no result yet."] if left else []
    )


def _leaderboard(board: Board) -> dict[str, Any]:
    found = board.leaderboard
    if not found.rows:
        return {}
    ends = [v for r in found.rows for v in (r.score.low, r.score.high, *r.by_seed)]
    domain = math.floor(min(ends) * 20) / 20, math.ceil(max(ends) * 20) / 20
    domain = domain if domain[0] < domain[1] else (domain[0] - 0.05, domain[1] + 0.05)
    groups = []
    for g in found.groups:
        rows = found.of(g)
        bars = [svg.interval(r.score.value, r.score.low, r.score.high, domain, r.by_seed) for r in rows]
        groups.append({"rows": rows, "bars": bars, "caption": _caption(g, found.groups)})
    shown = {name for name, *_ in COSTS if any(getattr(r, name) for r in found.rows)}
    several = any(len(r.by_seed) > 1 for r in found.rows)
    return {"leaderboard": groups, "shown": shown, "domain": domain, "dots": several}


def _caption(group: str, groups: Sequence[str]) -> str:
    if group == ALL:
        return "Learned from all training examples"
    return f"Learned from {group} example{'s' * (group != '1')} a class"


def _y(metric: str, values: Sequence[float], label: str = "") -> svg.Scale:
    low, high = svg.room_for(values, most=math.inf if any(v > 1 for v in values) else 1.0, least=find(metric).low)
    return svg.Scale(label or metric, low, high, form=lambda v: f"{v:.2f}".replace("-0.00", "0.00"))


def _shots(board: Board, series: Mapping[str, int]) -> svg.Chart:
    found, task = board.leaderboard, board.task
    every = (len(task.train) + len(task.valid)) / max(1, len(task.labels))  # a class, about
    numbers = [float(g) for g in found.groups if g != ALL]
    last = max([every, *(1.5 * n for n in numbers)])

    def at(r: Row) -> float:
        return last if r.shots is None else float(r.shots)

    lines = []
    for name, i in series.items():
        mine = sorted((at(r), r.score.value, r.score.low, r.score.high) for r in found.rows if r.method == name)
        lines.append(svg.Line(name, i, mine))
    asked = sorted({p[0] for line in lines for p in line.points})
    x = svg.Scale("examples a class", asked[0] / 1.1, asked[-1] * 1.1, "log2", at=asked,
                  form=lambda v: ALL if v == last and ALL in found.groups else f"{v:g}")  # fmt: skip
    values = [v for line in lines for p in line.points for v in p[1:]]
    chart = svg.curve("over-shots", f"{task.metric} over examples a class", lines, x, _y(task.metric, values))
    heads = ("method", *(x.form(a) for a in asked))
    rows = tuple(
        (line.name, *(_cell({p[0]: p for p in line.points}.get(a)) for a in asked)) for line in lines
    )  # fmt: skip
    return svg.Chart(chart.title, chart.drawn, chart.key, True, heads, rows)


def _cell(p: Sequence[float] | None) -> str:
    return "" if p is None else f"{p[1]:.3f} [{p[2]:.3f}, {p[3]:.3f}]"


@dataclass(frozen=True)
class Cost:
    """One kind of cost of several rows. values: what is as good as nothing is 0."""

    name: str
    label: str
    values: tuple[float, ...]


def costs_of(rows: Sequence[Row]) -> list[Cost]:
    """The costs that differ between methods, by a fifth at least."""
    found = []
    for name, label, floor in COSTS:
        given = [getattr(r, name) for r in rows]
        if any(v is None for v in given):
            continue
        values = tuple(float(v) if v >= floor else 0.0 for v in given)
        if max(values) > 1.2 * min(values):
            found.append(Cost(name, label, values))
    return found


def _costs(board: Board, rows: Sequence[Row], series: Mapping[str, int]) -> dict[str, Any]:
    charts, fronts = [], []
    y = _y(board.task.metric, [v for r in rows for v in (r.score.low, r.score.high)])
    for cost in costs_of(rows):
        best = details.front([(v, r.score.value) for v, r in zip(cost.values, rows, strict=True)])
        spots = [svg.Spot(r.method, series[r.method], v, r.score.value, r.score.low, r.score.high)
                 for v, r in zip(cost.values, rows, strict=True)]  # fmt: skip
        zero = min(cost.values) <= 0
        x = svg.Scale(f"{cost.label} (log)", *svg.log_room(cost.values), "log", form=rough, zero=zero)
        title = f"{board.task.metric} against {cost.label}"
        charts.append(svg.scatter(f"cost-{cost.name}", title, spots, best, x, y, svg.HALF))
        said = [f"{rows[i].method} ({rows[i].score.value:.3f} for {rough(cost.values[i])})" for i in best]
        fronts.append(f"{cost.label}: {', then '.join(said)}")
    group = rows[0].group
    note = "" if len(board.leaderboard.groups) < 2 else f"{_caption(group, board.leaderboard.groups)}. "
    return {"costs": charts, "fronts": fronts, "cost_note": note}


def _thinned(course: details.Course) -> list[tuple[float, float, float, float]]:
    """At most POINTS validations, the first, the last and the best among them."""
    points = list(course.points)
    if len(points) > POINTS:
        kept = {round(i) for i in np.linspace(0, len(points) - 1, POINTS)} | {points.index(course.best)}
        points = [points[i] for i in sorted(kept)]
    return [(float(s), v, v, v) for s, v, _ in points]


def _learning(board: Board, series: Mapping[str, int]) -> list[svg.Chart]:
    charts = []
    for group in reversed(board.leaderboard.groups):
        courses = [
            (r.method, run.plan.seed, c)
            for r in board.leaderboard.of(group)
            for run in board.runs(r.method, group)
            if run.folder is not None and len((c := details.course(run.folder)).points) > 1
        ]
        first = sorted(courses, key=lambda c: c[1])[:LINES]  # by seed: every method has its share
        lines = [svg.Line(m, series[m], _thinned(c), thin=True) for m, _, c in first]
        if not lines:
            continue
        title = _caption(group, board.leaderboard.groups)
        if len(courses) > LINES:
            title += f"; {LINES} of {len(courses)} runs are drawn"
        chart = _learned(f"learning-{group}", title, lines, board.task)
        rows = tuple((m, str(seed), str(c.points[-1][0]), _score(c.best[1]), str(c.best[0]), _loss(c.points[-1][2]))
                     for m, seed, c in courses)  # fmt: skip
        heads = ("method", "seed", "steps", "best score", "at step", "last loss")
        charts.append(svg.Chart(chart.title, chart.drawn, chart.key, True, heads, rows))
    return charts


def _loss(v: float | None) -> str:
    return "" if v is None else _score(v)


def _learned(id: str, title: str, lines: Sequence[svg.Line], task: Task | None) -> svg.Chart:
    values = [p[1] for line in lines for p in line.points]
    written = task is not None and task.kind == "generation"  # such validations are judged by their loss
    metric = task.metric if task is not None else "score"
    low, high = svg.room_for(values)
    y = svg.Scale(
        "validation: minus the loss" if written else f"validation {metric}", low, high, form=lambda v: f"{v:.2f}"
    )
    last = max(p[0] for line in lines for p in line.points)
    return svg.curve(id, title, lines, svg.Scale("steps", 0, max(1.0, last), form=rough), y)


# --- answers of the best


def _whole(run: Run, task: Task) -> bool:
    return run.score is not None and run.score.split == "test" and run.score.n == len(task.test)


def _said(run: Run) -> Any:
    assert run.score is not None
    return run.score.predictions


def _answers(task: Task, method: str, said: Sequence[Any], rivals: Mapping[str, Sequence[Any]]) -> dict[str, Any]:
    """Classes, confusion and mistakes of one method."""
    seeds = f", {len(said)} seeds together" if len(said) > 1 else ""
    view: dict[str, Any] = {"pooled": len(said) > 1, "best_note": f"{method} on {len(task.test)} test examples{seeds}."}
    golds = golds_of(task.test)
    if task.kind != "generation":
        view["classes"] = [(c.label, _score(c.precision), _score(c.recall), _score(c.f1), str(c.n))
                           for c in details.by_class(task, golds, said)]  # fmt: skip
    if task.kind == "classification":
        counts = details.confusion(task, golds, said)
        if len(task.labels) <= SQUARE:
            view["confusion"] = _square(counts, task.labels)
        else:
            view["confused"] = [(g, a, str(n), f"{share:.0%}") for g, a, n, share in
                                details.confused(counts, task.labels, PAIRS)]  # fmt: skip
    wrong = details.mistakes(task, said, rivals)
    most = PICTURES if task.modality == "image" else TEXTS
    shown = wrong[:most]
    left = f" {len(wrong) - most} more are left out." if len(wrong) > most else ""
    seeds = " with most seeds" if len(said) > 1 else ""
    first = " Those that other methods get right come first." if rivals and wrong else ""
    view["mistakes"] = shown
    view["mistakes_note"] = (
        f"{len(wrong)} of {len(task.test)} test examples that {method} gets wrong{seeds}.{first}{left}"
    )
    view["pictures"] = [_thumb(task.test[m.at].inputs[0]) if task.modality == "image" else "" for m in shown]
    return view


def _square(counts: Any, labels: Sequence[str]) -> dict[str, Any]:
    lost = bool(counts[:, -1].any())
    sums = counts.sum(1)
    rows = []
    for g, label in enumerate(labels):
        cells = [
            (int(n), 0 if not n else max(1, math.ceil(5 * n / sums[g])), g == a)
            for a, n in enumerate(counts[g] if lost else counts[g, :-1])
        ]
        rows.append((label, cells))
    return {"heads": [*labels, *([details.NONE] if lost else [])], "rows": rows}


def _thumb(key: Any) -> str:
    """A picture as a data URI, small."""
    try:
        from PIL import Image
    except ImportError as error:
        raise MissingExtra("pillow", "images", "showing pictures") from error
    image = Image.fromarray(of_array(key.load()))
    small = max(image.size) <= THUMB
    image.thumbnail((THUMB * 2, THUMB * 2))  # sharp on dense screens
    out = io.BytesIO()
    image.save(out, "PNG" if small else "JPEG", **({} if small else {"quality": 80}))
    return f"data:image/{'png' if small else 'jpeg'};base64,{base64.b64encode(out.getvalue()).decode()}"


# --- words


def _words(method: str, runs: Sequence[Run]) -> dict[str, Any] | None:
    """The words that a method by trial found: of the run that is best on validation."""
    found = [r for r in runs if isinstance(r.prompt, Text) and r.cost]
    if not found:
        return None
    run = max(found, key=lambda r: -math.inf if r.valid is None else r.valid)
    steps: list[details.Step] = []
    about = f"Seed {run.plan.seed}" + ("" if run.valid is None else f", {_score(run.valid)} on validation examples")
    assert run.folder is not None
    try:
        history = search.read(run.folder)
        steps = details.way(history)
        if not history.candidates:
            about += ". Its history is not where the search kept it"
    except AnacrusisError as error:
        about += f". Its history cannot be read: {error}"
    frame = run.prompt.frame
    texts = [("instruction", frame.instruction)] if frame.instruction else []
    texts += [("template", t) for t in (frame.templates or (frame.template,))]
    if frame.demonstrations:
        shown = [f"{' / '.join(map(str, inputs))}\n-> {said}" for inputs, said in frame.demonstrations]
        texts.append((f"{len(shown)} demonstrations", details.short("\n\n".join(shown))))
    return {"method": method, "about": about + ".", "texts": texts, "steps": steps if len(steps) > 1 else []}


# --- what was run


def _what_ran(board: Board) -> dict[str, Any]:
    plan = read_grid(board.folder)
    runs = [d.run for d in board.done if d.run is not None]
    shots = ", ".join(ALL if k is None else str(k) for k in plan["shots"])
    means = plan["means"]
    asked = [("writer", means["writer"]), ("judge", means["judge"]), ("budget of a run", means["budget"])]
    learned: dict[str, list[Run]] = {}
    for run in runs:
        learned.setdefault(run.plan.method, []).append(run)
    methods = []
    for name in plan["methods"]:
        given = {**plan["options"].get("", {}), **plan["options"].get(name, {})}
        total = sum(r.seconds for r in learned.get(name, []))
        methods.append((name, _pairs(given), _seconds(total) if name in learned else "", _link(get(name).paper)))
    return {
        "ran": [*_data(plan), ("examples a class", shots), ("seeds", str(plan["seeds"])),
                *((role, str(name)) for role, name in asked if name),
                *_time(_span([r.folder for r in runs if r.folder]), sum(r.seconds for r in runs)),
                ("folder", board.folder.name)],
        "methods": methods,
        "configs": [(name, _config(several[0])) for name, several in learned.items() if _config(several[0])],
        "run_notes": _notes_of(runs),
    }  # fmt: skip


def _link(paper: str) -> Any:
    """A Markdown link as HTML; text that is none stays text."""
    made = re.fullmatch(r"\[([^\]]+)\]\((https?://[^\s)]+)\)", paper.strip())
    if made is None:
        return re.sub(r"\[([^\]]+)\]\([^)]*\)", r"\1", paper)
    return Markup('<a href="{}" rel="noreferrer">{}</a>').format(made[2], made[1])


def _data(plan: Mapping[str, Any]) -> list[tuple[str, str]]:
    source = plan.get("source") or {}
    files = [f"{Path(p).name} ({part})" if len(source["paths"]) > 1 else Path(p).name
             for part, p in source.get("paths", {}).items()]  # fmt: skip
    split = {k: v for k, v in (source.get("split") or {}).items() if v is not None}
    rows = [("model", f"{plan['model']}, fingerprint {plan['fingerprint']}"),
            ("data", f"{', '.join(files) or 'from memory'}, fingerprint {plan['data']}")]  # fmt: skip
    if split:
        rows.append(("split", _pairs(split)))
    if opening := {k: v for k, v in (plan.get("opening") or {}).items() if v}:
        rows.append(("opened with", _pairs(opening)))
    return rows


def _time(span: tuple[float, float] | None, learning: float) -> list[tuple[str, str]]:
    rows = [] if span is None else [("from", f"{_date(span[0])} to {_date(span[1])}")]
    rows.append(("learning in all", _seconds(learning)))
    names = ("torch", "transformers", "numpy", "scikit-learn")
    said = ", ".join([f"anacrusis {__version__}", *(f"{n} {version(n)}" for n in names)])
    return [*rows, ("versions, now", f"{said}, Python {platform.python_version()}")]


def _pairs(options: Mapping[str, Any]) -> str:
    return ", ".join(f"{k}={v}" for k, v in options.items())


def _config(run: Run) -> list[tuple[str, str]]:
    card = run.prompt.card
    return [(k, str(v)) for part in ("config", "training") for k, v in dict(card.get(part) or {}).items()]


def _notes_of(runs: Sequence[Run]) -> list[str]:
    """What the runs remarked, each remark once, with how many runs made it."""
    counts: dict[str, int] = {}
    for run in runs:
        said = [e["text"] for e in journal.read(run.folder) if e.get("event") == "note"] if run.folder else []
        for text in dict.fromkeys([*said, *run.prompt.card.get("notes", ())]):
            counts[f"{run.plan.method}: {text}"] = counts.get(f"{run.plan.method}: {text}", 0) + 1
    return [text + (f" ({n} runs)" if n > 1 else "") for text, n in counts.items()]


def _verdict(run: Run) -> str:
    if run.score is None:
        return f"{run.plan.method} learned a prompt; there were no test examples to score it on."
    said = f"{run.plan.method} reaches {run.score.metric} {_interval(run.score)} on {run.score.n} test examples."
    if run.gain is not None:
        g = run.gain
        sure = (
            "more than chance makes"
            if g.low > 0
            else "less than the start"
            if g.high < 0
            else "no more than chance may make"
        )
        said += f" Over the prompt that it started from: {_signed(g)}, {sure}."
    return said


# --- an assessment


@dataclass(frozen=True)
class _Points:
    rows: list[tuple[str, str, Markup]]
    domain: tuple[float, float]


def _finding(found: Found, measure: Any) -> dict[str, Any]:
    f = found.finding
    assert f is not None
    kind, points = f.chart.get("kind"), list(f.chart.get("points", ()))
    id = "measure-" + re.sub(r"\W+", "-", found.name)
    chart = None
    if kind == "reliability" and any(svg.known(*p) for p in points):
        chart = svg.reliability(id + "-chart", "How often answers of a confidence are right", points)
    said = str(f.chart.get("said", "95 % interval")) if kind == "ranges" else ""
    drawn = _drawn(kind, points[:TEXTS], said) if kind in ("bars", "ranges") and points else _Points([], (0, 1))
    more = len(points) - len(drawn.rows)
    rows = [[UNKNOWN if cell in ("nan", "inf", "-inf") else cell for cell in row] for row in f.rows]
    keys = _keys(rows)
    right = [h for h, key in zip(f.heads, keys[0], strict=True) if key is not None] if keys else []
    link = (
        re.fullmatch(r"\[([^\]]+)\]\((https?://[^\s)]+)\)", measure.paper.strip())
        if measure and measure.paper
        else None
    )
    return {
        "id": id, "name": found.name, "summary": measure.summary if measure else "", "headline": f.headline,
        "chart": chart, "kind": kind, "bars": drawn.rows, "domain": drawn.domain, "said": said,
        "more": f"{more} more are left out of the drawing." if kind in ("bars", "ranges") and more else "",
        "heads": f.heads, "rows": rows, "sorted_by": keys,
        "right": right[1:] if f.heads and right[:1] == [f.heads[0]] else right,
        "notes": f.notes, "paper": (link[1], link[2]) if link else None,
        "cost": f"{found.answers:,} answers computed for it, {_seconds(found.seconds)}.",
    }  # fmt: skip


def _number(text: str) -> float | None:
    """The number that a cell begins with, before a unit or an interval; None where it does not."""
    found = re.match(r"([-+]?)\$?([\d,]*\.?\d+)(?:\D{0,3}|\s.*)$", text)
    return None if found is None else float(found[1] + found[2].replace(",", ""))


def _keys(rows: Sequence[Sequence[str]]) -> list[list[float | str | None]]:
    """By row and column, what a table is sorted by: numbers, "" for what is not known; None: by the text itself."""
    columns: list[list[float | str | None]] = []
    for cells in zip(*rows, strict=True):
        numbers = [_number(c) for c in cells]
        numeric = all(n is not None or c in ("", UNKNOWN) for n, c in zip(numbers, cells, strict=True))
        columns.append(["" if n is None else n for n in numbers] if numeric else [None] * len(cells))
    return [list(row) for row in zip(*columns, strict=True)]


def _drawn(kind: str, points: Sequence[Sequence[Any]], said: str = "") -> _Points:
    """Bars, or ranges as (label, value, low, high); three numbers in any order: the value is the one between. said:
    what the ranges are. What is no number is said and not drawn."""
    values = [sorted(float(v) for v in p[1:]) if svg.known(*p[1:]) else [] for p in points]
    flat = [0.0, *(v for several in values for v in several)]
    high = 1.0 if 0.5 < max(flat) <= 1 else max(flat) or 1.0  # scores are drawn up to 1
    domain = min(flat), high
    rows: list[tuple[str, str, Markup]] = []
    for p, v in zip(points, values, strict=True):
        if not v:
            rows.append((str(p[0]), UNKNOWN, Markup()))
        elif kind == "bars":
            rows.append((str(p[0]), _score(v[0]), svg.bar(v[0], domain)))
        else:
            rows.append(
                (str(p[0]), f"{v[1]:.3f} [{v[0]:.3f}, {v[2]:.3f}]", svg.interval(v[1], v[0], v[2], domain, (), said))
            )
    return _Points(rows, domain)
