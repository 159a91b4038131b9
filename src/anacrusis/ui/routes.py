"""The pages: each gathers what looks.py read and fills a template. Only POSTs change anything."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

from fastapi import APIRouter, Depends, Form, HTTPException, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from jinja2 import ChoiceLoader, Environment, PackageLoader

from ..errors import AnacrusisError, ConfigError, DataError
from ..report import details, html, svg
from ..report import search as searches
from ..report.leaderboard import Leaderboard
from ..runs import grid
from ..runs.run import read_plan
from ..runs.running import ask_to_stop
from ..search.person import ByFile, Pair
from . import labels, looks
from .labels import LabelJob
from .looks import ALIVE, Look
from .resuming import Resumes

HERE = Path(__file__).parent / "static"
KINDS = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
FROM_REPORT = {"style.css", "page.js"}
OURS = {"ui.css", "ui.js", "icon.svg"}
MARKS = 60  # points of a curve that are marked; a longer one is a line alone
COSTS = ("parameters", "seconds", "milliseconds", "megabytes", "calls", "dollars")  # columns of a leaderboard
BEST = 10  # candidates of a search that are shown in full
TREE = 15  # of its tree
VALUES = {"first": "1", "second": "2", "neither": "="}
router = APIRouter(default_response_class=HTMLResponse)


@dataclass
class View:
    """What one running view knows. sittings: by folder, the pairs answered since it last went on, for `back`. classes:
    by file to label, in the order in which they were seen, so that a new one moves no key of another."""

    root: Path
    label: Sequence[LabelJob] = ()
    sittings: dict[Path, list[str]] = field(default_factory=dict)
    classes: dict[Path, list[str]] = field(default_factory=dict)
    writing: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self.resumes = Resumes(self.root)
        if len({j.name for j in self.label}) < len(self.label):
            raise DataError("two files to label have one name: rename one of them")

    def look(self, folder: Path) -> Look:
        """With what this view itself has begun."""
        begun, found = self.resumes.starting(folder), looks.look(folder)
        ended = found.state == "done" and not found.failed
        return replace(found, state="starting") if begun and not ended and found.state not in ALIVE else found

    def ordered(self, job: LabelJob, classes: Sequence[str]) -> list[str]:
        """The classes, those that were seen before in their old order."""
        with self.writing:
            before = [c for c in self.classes.get(job.file, ()) if c in classes]
            self.classes[job.file] = list(dict.fromkeys([*before, *classes]))
            return self.classes[job.file]


def view_of(request: Request) -> View:
    found: View = request.app.state.view
    return found


def signed(request: Request, sign: Annotated[str, Form()] = "") -> None:
    """Every POST: only from our own pages."""
    if not request.scope["mine"](sign):
        raise HTTPException(403, "This page is from before the view was started again: go back and reload it.")


Viewed = Annotated[View, Depends(view_of)]
Posted = Depends(signed)


@lru_cache(maxsize=1)
def environment() -> Environment:
    """The reports' templates and filters, and ours before them."""
    usual: Environment = html.environment()
    assert usual.loader is not None
    made = usual.overlay(loader=ChoiceLoader([PackageLoader("anacrusis.ui", "templates"), usual.loader]),
                         lstrip_blocks=True)  # fmt: skip
    made.filters = {**usual.filters, "ago": ago, "between": between, "share": "{:.0%}".format}
    return made


def page(request: Request, template: str, status: int = 200, **given: Any) -> HTMLResponse:
    with told():
        text = environment().get_template(template).render(sign=request.scope["sign"], status=status, **given)
    return HTMLResponse(text.encode(errors="replace"), status)  # a file may hold half characters


def ago(at: float) -> str:
    seconds = max(0.0, time.time() - at)
    for size, name in ((86400, "day"), (3600, "hour"), (60, "minute")):
        if seconds >= size:
            n = int(seconds // size)
            return f"{n} {name}{'s' if n > 1 else ''} ago"
    return "just now"


def between(said: Any) -> str:
    return f"{said['value']:.3f} [{said['low']:.3f}, {said['high']:.3f}]"


@contextmanager
def told() -> Iterator[None]:
    """Errors as a page that says them: those that a user can cause, and whatever a damaged file leads to."""
    try:
        yield
    except HTTPException:
        raise
    except Exception as error:
        raise HTTPException(409, looks.reason(error)) from error


def troubled(request: Request, error: Exception) -> Response:
    """What went wrong, as a page; after an answer, with the way back to the question."""
    status, said = getattr(error, "status_code", 500), str(getattr(error, "detail", error))
    if isinstance(error, RequestValidationError):
        status, said = 400, "The form was not complete: go back and reload the page."
    path = quote("/" + request.scope["path"].lstrip("/"))
    asked = request.method == "POST" and path.startswith(("/answer/", "/label/"))
    return page(request, "error.html", refresh=False, status=status, said=said, again=path if asked else "")


# --- where a name leads


def run_at(view: View, name: str, cell: str = "") -> Path:
    """The folder of a run, or of a comparison's run. 404 for anything else."""
    folder = looks.child(view.root, name, *(["cells", cell] if cell else []))
    if folder is None or not looks.is_run(folder):
        raise HTTPException(404, f"There is no run {'/'.join(filter(None, (name, cell)))} here.")
    return folder


def comparison_at(view: View, name: str) -> Path:
    folder = looks.child(view.root, name)
    if folder is None or not looks.is_comparison(folder):
        raise HTTPException(404, f"There is no comparison {name} here.")
    return folder


def whole_at(view: View, name: str) -> Path:
    """What is stopped and resumed: a run of its own, or a whole comparison."""
    folder = looks.child(view.root, name)
    if folder is None or not (looks.is_run(folder) or looks.is_comparison(folder)):
        raise HTTPException(404, f"There is no run or comparison {name} here.")
    return folder


def job_at(view: View, name: str) -> LabelJob:
    with told():
        job = next((j for j in labels.found(view.root, view.label) if j.name == name), None)
    if job is None:
        raise HTTPException(404, f"There is no file {name} to label here.")
    return job


# --- looking


@router.get("/")
def overview(request: Request, view: Viewed) -> Response:
    with told():
        every = sorted((view.look(f) for f in looks.folders(view.root)), key=lambda x: (-x.at, x.name))
    jobs, trouble = list[tuple[LabelJob, str]](), ""
    try:
        jobs = [(j, _progress(j)) for j in labels.found(view.root, view.label)]
    except OSError as error:  # a folder that may not be read hides no runs
        trouble = str(error)
    return page(request, "overview.html", looks=every, jobs=jobs, trouble=trouble, root=view.root.resolve(),
                refresh=True)  # fmt: skip


def _progress(job: LabelJob) -> str:
    try:
        said = labels.read(job)
    except Exception as error:  # one broken file hides no other
        return looks.reason(error)
    return f"{len(said.items) - said.open} of {len(said.items)} labelled"


@router.get("/run/{name}")
@router.get("/run/{name}/{cell}")
def run(request: Request, view: Viewed, name: str, cell: str = "") -> Response:
    folder = run_at(view, name, cell)
    now = view.look(folder)
    given: dict[str, Any] = {"now": now, "of": name if cell else "", "open": 0, "failed": "", "search": None,
                             "facts": [], "prompt": {}, "curve": None, "steps": [], "costs": [], "record": None,
                             "trouble": ""}  # fmt: skip
    if now.state != "damaged":
        try:
            given |= _run_facts(folder, now)
        except Exception as error:  # the state above is shown all the same
            given["trouble"] = looks.reason(error)
    if now.state in ("unfinished", "failed", "damaged") and not cell:
        given["failed"] = view.resumes.failed(folder)
    return page(request, "run.html", refresh=now.state in ALIVE, **given)


def _run_facts(folder: Path, now: Look) -> dict[str, Any]:
    plan = read_plan(folder)
    out: dict[str, Any] = {"open": looks.waits(folder)}
    began = next((e for e in looks.events(folder) if e.get("event") == "fit"), {})
    rows = [("method", plan.method), ("model", plan.model), ("task", str(began.get("task", plan.task))),
            ("seed", str(plan.seed))]  # fmt: skip
    rows += [(f"option {k}", str(v)) for k, v in plan.options.items()]
    rows += [(k, str(plan.means[k])) for k in ("writer", "judge", "budget") if plan.means.get(k)]
    if now.state == "done":
        record = looks.result(folder)
        rows.append(("trained", f"{record['parameters']:,} parameters"))
        rows.append(("learning took", f"{record['seconds']:.1f} s"))
        if record["valid"] is not None:
            rows.append(("on validation examples", f"{record['valid']:.3f}"))
        out |= {"record": record, "prompt": looks.prompt(folder)}
        roles = (record.get("cost") or {}).get("roles", {})
        out["costs"] = [(role, c) for role, c in roles.items() if c["calls"]]
    if plan.means:
        out |= _search_facts(folder, plan)
    elif steps := looks.validations(folder):
        out |= {"curve": _learning(steps)}
    return {**out, "facts": rows}


def _learning(steps: Sequence[dict[str, Any]]) -> svg.Chart:
    """The learning curve: the validation score over steps."""
    loss = looks.by_loss(steps[-1])
    points = [(float(s["step"]), *[float(s["loss"] if loss else s["score"])] * 3) for s in steps]
    return _chart("loss" if loss else steps[-1]["metric"], "validation", "step", points)


def _chart(measure: str, what: str, along: str, points: Sequence[Any]) -> svg.Chart:
    low, high = svg.room_for([p[1] for p in points])
    line = svg.Line(what, 0, points, thin=len(points) > MARKS)
    last = max(1.0, *(p[0] for p in points))
    drawn = svg.curve("curve", "", [line], svg.Scale(along, 0.0, last), svg.Scale(measure, low, high))
    return replace(drawn, heads=(along, measure), rows=tuple((f"{p[0]:,.0f}", f"{p[1]:.4f}") for p in points))


def _search_facts(folder: Path, plan: Any) -> dict[str, Any]:
    try:
        course = looks.history(folder, plan)
    except AnacrusisError as error:
        return {"trouble": str(error)}
    if not course.candidates:
        return {"trouble": "No candidate has been scored yet."}
    ranked, tops = looks.ranked(course), looks.best_so_far(course)
    start, best = (details.spoken(s.candidate) for s in (course.candidates[0], ranked[0]))
    return {
        "search": course, "tree": course.tree(TREE), "steps": details.way(course),
        "known": bool(course.chosen or ranked[0].n),
        "changes": [(k, details.words(start.get(k, ""), text)) for k, text in best.items()] if start != best else [],
        "best": [(s, searches.said(s.candidate), details.spoken(s.candidate)) for s in ranked[:BEST]],
        "course": [(k, v) for k, v in course.facts() if k not in ("method", "state")],
        "curve": _chart("score", "best so far", "candidate", tops) if tops else None,
    }  # fmt: skip


@router.get("/compare/{name}")
def comparison(request: Request, view: Viewed, name: str) -> Response:
    folder = comparison_at(view, name)
    now = view.look(folder)
    board, cells, trouble, bars = None, [], "", {}
    if now.state != "damaged":
        try:
            cells = looks.cells(folder, grid.read(folder))
            if any(c.state == "done" for c in cells):
                board = looks.board(folder).leaderboard
                bars = _bars(board)
        except Exception as error:  # a file that was damaged or moved
            trouble = looks.reason(error)
    failed = view.resumes.failed(folder) if now.state in ("unfinished", "failed") else ""
    shown = [name for name in COSTS if board is not None and any(getattr(r, name) for r in board.rows)]
    return page(request, "compare.html", now=now, board=board, bars=bars, shown=shown, cells=cells, trouble=trouble,
                failed=failed, refresh=now.state in ALIVE)  # fmt: skip


def _bars(board: Leaderboard) -> dict[str, list[Any]]:
    """By group, each row's score as a drawing."""
    ends = [v for r in board.rows for v in (r.score.low, r.score.high, *r.by_seed)]
    if not ends:
        return {}
    room = svg.room_for(ends)
    return {g: [svg.interval(r.score.value, r.score.low, r.score.high, room, r.by_seed) for r in board.of(g)]
            for g in board.groups}  # fmt: skip


@router.get("/report/{name}")
def report(view: Viewed, name: str) -> Response:
    """The whole report, as the command line writes it."""
    folder = whole_at(view, name)
    with told():
        return _report(html.page(looks.board(folder)) if looks.is_comparison(folder) else html.run_page(folder))


def _report(text: str) -> Response:
    """A report is one file: it brings style and script, and may run these two and load nothing."""
    own = html.policy(html.asset("style.css"), html.asset("page.js"))
    return HTMLResponse(text, headers={"content-security-policy": f"{own}; frame-ancestors 'none'"})


@router.get("/static/{name}")
def static(name: str) -> Response:
    if name not in FROM_REPORT | OURS:
        raise HTTPException(404, f"There is no {name} here.")
    text = html.asset(name) if name in FROM_REPORT else (HERE / name).read_text(encoding="utf-8")
    return Response(text, media_type=KINDS[Path(name).suffix], headers={"cache-control": "max-age=60"})


# --- stopping and resuming


@router.post("/stop/{name}", dependencies=[Posted])
def stop(view: Viewed, name: str) -> Response:
    folder = whole_at(view, name)
    with told():
        ask_to_stop(folder)
    return _to(folder)


@router.post("/resume/{name}", dependencies=[Posted])
def resume(view: Viewed, name: str, back: Annotated[str, Form()] = "") -> Response:
    """back: "answer" where a person who answers goes on."""
    folder = whole_at(view, name)
    with view.writing, told():
        view.resumes.begin(folder)
        view.sittings = {f: s for f, s in view.sittings.items() if folder not in (f, *f.parents)}
    return RedirectResponse(f"/answer/{_quoted(name)}", 303) if back == "answer" else _to(folder)


def _to(folder: Path) -> Response:
    return RedirectResponse(f"/{'compare' if looks.is_comparison(folder) else 'run'}/{_quoted(folder.name)}", 303)


def _quoted(name: str) -> str:
    return quote(name, safe="")


# --- a person answers


def pair_id(pair: Pair) -> str:
    return hashlib.sha256("\0".join(pair).encode()).hexdigest()[:16]


@router.get("/answer/{name}")
@router.get("/answer/{name}/{cell}")
def answer(request: Request, view: Viewed, name: str, cell: str = "", pair: str = "") -> Response:
    """pair: the one that is shown again; else the first that is open."""
    folder = run_at(view, name, cell)
    now, whole = view.look(folder), view.look(whole_at(view, name))
    with told():
        pairs = ByFile(folder).pairs()
    open_ = [p for p, said in pairs.items() if not said]
    shown = next((p for p in pairs if pair and pair_id(p) == pair), None) or (open_[0] if open_ else None)
    sitting = view.sittings.get(folder, [])
    before = sitting[: sitting.index(pair)] if pair in sitting else sitting
    busy = now.state in ALIVE or whole.state in ALIVE
    return page(
        request, "answer.html", now=now, whole=whole, of=name if cell else "", cell=cell, name=name, pairs=pairs,
        shown=None if busy or now.state == "done" else shown, said=pairs.get(shown, "") if shown else "",
        id=pair_id(shown) if shown else "", left=len(open_), back=before[-1] if before else "", busy=busy,
        failed=view.resumes.failed(whole.folder) if now.state == "unfinished" else "", refresh=busy,
    )  # fmt: skip


@router.post("/answer/{name}", dependencies=[Posted])
@router.post("/answer/{name}/{cell}", dependencies=[Posted])
def answered(
    view: Viewed, name: str, pair: Annotated[str, Form()], better: Annotated[str, Form()], cell: str = "",
    was: Annotated[str, Form()] = "",
) -> Response:  # fmt: skip
    """was: the answer that the page showed."""
    folder = run_at(view, name, cell)
    if better not in VALUES:
        raise HTTPException(400, f"better is {better!r}; expected one of {', '.join(VALUES)}")
    with view.writing, told():
        if any(view.look(f).state in ALIVE for f in (folder, whole_at(view, name))):
            raise ConfigError("the run goes on already; it will ask again when it needs more answers")
        file = ByFile(folder)
        chosen = next((p for p in file.pairs() if pair_id(p) == pair), None)
        if chosen is None:
            raise ConfigError("this pair is no longer asked for: go back and reload the page")
        file.answer(chosen, VALUES[better], was)
        sitting = view.sittings.setdefault(folder, [])
        if pair not in sitting:
            sitting.append(pair)
    return RedirectResponse("/answer/" + "/".join(_quoted(n) for n in (name, cell) if n), 303)


# --- labels for examples


@router.get("/label/{name}")
def label(
    request: Request, view: Viewed, name: str, at: Annotated[int | None, Query(ge=0)] = None
) -> Response:  # fmt: skip
    job = job_at(view, name)
    with told():
        state = labels.read(job)
    items = state.items
    place = at if at is not None and at < len(items) else state.next()
    item = items[place] if place is not None else None
    return page(
        request, "label.html", job=job, state=state, item=item, place=place, of=len(items), open=state.open,
        said=state.said.get(item.texts, "") if item else "", columns=state.source.text,
        skip=state.next(place) if place is not None else None, classes=view.ordered(job, state.classes), refresh=False,
    )  # fmt: skip


@router.post("/label/{name}", dependencies=[Posted])
def labelled(
    view: Viewed, name: str, item: Annotated[str, Form()], label: Annotated[str, Form()] = "",
    other: Annotated[str, Form(max_length=200)] = "", was: Annotated[str, Form()] = "",
) -> Response:  # fmt: skip
    """label: a class; other: one that the person adds. was: the label that the page showed."""
    job = job_at(view, name)
    with view.writing, told():
        said = other.strip() or label
        if not said.strip():
            raise ConfigError("no class was given: press one of the buttons, or write one")
        state = labels.answer(job, item, said, was)
        after = state.next(state.place(item) or 0)
    return RedirectResponse(f"/label/{_quoted(name)}" + (f"?at={after}" if after is not None else ""), 303)
