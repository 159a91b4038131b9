"""Commands that compare: compare, report."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .. import _options as o
from .. import console
from .._guard import Stopped
from .._inputs import check_out, run_folder
from ..errors import ConfigError, RunStopped
from .shared import quietly, reading

if TYPE_CHECKING:
    from ..report.leaderboard import Board, Leaderboard
    from ..runs.grid import Comparing
    from ..runs.race import Raced

BASELINES: tuple[str, ...] = ("majority", "zero-shot", "linear-probe")
PAGE = "report.html"
Methods = Annotated[
    str, o.option(o.LEARNING, "Names, separated by commas; or auto: race those that suit.", "--methods")
]
Counts = Annotated[
    str, o.option(o.LEARNING, "Examples a class to learn from, such as 1,4,16; all: every one.", "--shots")
]


def compare(
    ctx: typer.Context,
    data: o.DataFile,
    text: o.Text = None,
    label: o.Label = None,
    image: o.Image = None,
    test: o.Test = None,
    valid: o.Valid = None,
    kind: o.Kind = None,
    metric: o.Metric = None,
    skip_bad: o.SkipBad = False,
    encoding: o.Encoding = "utf-8",
    no_quotes: o.NoQuotes = False,
    delimiter: o.Delimiter = None,
    separator: o.Separator = "|",
    split_column: o.SplitColumn = None,
    word: o.Words = None,
    classes: o.Half = None,
    methods: Methods = "auto",
    seeds: Annotated[
        int | None, o.option(o.LEARNING, "How often each method learns, each time from another draw; else 5.")
    ] = None,
    counts: Counts = "all",
    baselines: Annotated[bool, typer.Option(help="Compare with majority, zero-shot and linear-probe too.")] = True,
    settings: o.Settings = None,
    seed: Annotated[int, o.option(o.LEARNING, "Of the draw of test examples, where no file has them.")] = 0,
    model: o.ModelName = None,
    dtype: o.Dtype = "auto",
    device: o.Device = "auto",
    quantise: o.Quantise = None,
    base_url: o.BaseURL = None,
    concurrency: o.Concurrency = None,
    writer: o.Writer = None,
    judge: o.Judge = None,
    budget: Annotated[
        str | None,
        o.option(o.SEARCH, "Of each run: $2, 500calls, 10min or none; with --methods auto: of all.", "--budget"),
    ] = None,
    price: o.Prices = None,
    store: o.StoreAt = None,
    person: o.Asked = "file",
    jobs: Annotated[int, o.option(o.LEARNING, "Processes that learn at a time.")] = 1,
    ray: Annotated[
        str | None, o.option(o.LEARNING, "Learn on a Ray cluster: auto, local or its address.", metavar="WHERE")
    ] = None,
    out: Annotated[
        Path | None, o.option(o.OUTPUT, "Keep the comparison here; an unfinished one goes on.", metavar="FOLDER")
    ] = None,
    as_json: o.Json = False,
    quiet: o.Quiet = False,
) -> None:
    """Compare methods on DATA over several seeds: one leaderboard with intervals, ties and costs, and a report.

    For example: anacrusis compare tickets.csv --methods prompt-tuning,p-tuning-v2 --seeds 5 --shots 4,16
    """
    shots = _shots(counts)
    check_out(out, "compare.json", "race")
    from ..registry import get

    if budget not in (None, "none"):
        from ..search.budget import parse

        parse(str(budget))  # a misspelt one is refused now
    if seeds is not None and seeds < 1:
        raise ConfigError(f"--seeds {seeds}: expected at least 1")
    if methods == "auto" and len(shots) > 1:
        raise ConfigError(f"--shots {counts}: auto races with one number of examples a class; give one")
    if "auto" in methods.split(",") and methods != "auto":
        raise ConfigError(f"--methods {methods}: auto stands alone: it finds its candidates itself")

    chosen = [] if methods == "auto" else [get(n.strip()).name for n in methods.split(",") if n.strip()]
    if not chosen and methods != "auto":
        raise ConfigError(f"--methods {methods}: no methods. Name some, such as prompt-tuning,p-tuning-v2, or auto")
    with console.Progress(quiet) as show:
        task = quietly(lambda: o.group(o.Data, ctx).read(reading(show)))
    with console.Progress(quiet) as show:
        for note in task.notes:
            show.note(note)
        show.phase("loading", brief=True)
        from ..runs.grid import Comparing, Grid, fresh
        from ..runs.race import Race, candidates

        usual = "builtin:tiny-clip" if task.modality == "image" else "builtin:minilm"
        opening = replace(o.group(o.Opening, ctx), model=model or usual)
        opened, means = opening.open(show), o.group(o.Searches, ctx).means(opening)
        folder = out or fresh(task)
        options, keep = _options(settings), "valid" in task.source.get("given", ())
        race, raced = None, None
        if methods == "auto":
            _affordable(["auto"], budget, opened, writer, judge)
            race = Race(candidates(opened, task), task, opened, folder / "race", means, options, shots[-1], keep)
            with _stoppable(folder):
                raced = race.run(_spread(jobs, ray), show)
            chosen, seeds = [raced.winner], seeds or max(1, raced.seeds)
            show.title = ""
        names = [*chosen, *(b for b in BASELINES if baselines and b not in chosen and _fits(b, opened, task))]
        _affordable([n for n in chosen if get(n).engine == "search"], budget, opened, writer, judge)
        if raced is not None:
            options = _left(options, names)
        grid = Grid(
            methods=tuple(names), seeds=5 if seeds is None else seeds, shots=shots, options=options, keep_valid=keep
        )
        if race is not None and race.limits:  # what the race left is for all that is scored on test
            means = replace(means, budget=race.last(len(grid.cells)))
        comparing = Comparing(grid, task, opened, folder, means)
        if race is not None and raced is not None:
            race.adopt(raced, comparing)
        found = _run(comparing, show, _spread(jobs, ray))
    _tell(found, folder, as_json, raced)


def go_on_comparing(folder: Path, as_json: bool, quiet: bool) -> None:
    """What `resume` does with a comparison."""
    with console.Progress(quiet) as show:
        show.phase("loading", brief=True)
        from ..runs.grid import again

        comparing = quietly(lambda: again(folder))
        found = _run(comparing, show, _spread(1, None))
    _tell(found, folder, as_json)


def _affordable(paid: Sequence[str], budget: str | None, model: Any, *others: str | None) -> None:
    """Nothing is asked of a model behind an API without a word on what it may cost."""
    if paid and not budget and any((n or "").startswith("openai:") for n in (model.name, *others)):
        raise ConfigError(
            f"{', '.join(paid)}: a model behind an API is asked again and again, and that may cost money: say how much "
            "each run may take (auto: all of them) with --budget, such as 500calls or $2; --budget none sets no limit"
        )


def _left(options: dict[str, dict[str, Any]], names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """The options that still have somebody to go to."""
    from ..registry import get
    from ..runs.grid import has

    common = {k: v for k, v in options.get("", {}).items() if any(has(get(n), k) for n in names)}
    return {"": common, **{k: v for k, v in options.items() if k in names}}


def _spread(jobs: int, ray: str | None) -> Any:
    from ..runs.spread import here, on_ray, processes

    return on_ray(ray) if ray else processes(jobs) if jobs != 1 else here


@contextmanager
def _stoppable(folder: Path) -> Iterator[None]:
    try:
        yield
    except (KeyboardInterrupt, RunStopped):
        raise Stopped(f"stopped; go on with the same command and --out {console.shown(folder)}") from None


def _run(comparing: Comparing, show: console.Progress, spread: Any) -> Board:
    """Run what is left of a comparison and write its report."""
    from ..report import files, leaderboard
    from ..report.html import page, write

    with _stoppable(comparing.folder):
        comparing.run(spread, show)
    show.title = ""
    show.phase("comparing")
    found = leaderboard.of(comparing)
    files.write(found.leaderboard, comparing.folder)
    write(page(found), comparing.folder / PAGE)
    return found


def _tell(found: Board, folder: Path, as_json: bool, raced: Raced | None = None) -> None:
    from ..report.leaderboard import HEADS, RIGHT, cells_of

    board = found.leaderboard
    if as_json:
        race = {} if raced is None else {"race": raced.to_json()}
        console.emit({"folder": str(folder), **board.to_json(), **race})
        return
    if raced is not None:
        heads = ("candidate", "validation", "trained", "learning", "")
        console.table(heads, [
            (e.method, "" if e.valid is None else f"{e.valid:.3f}", f"{e.parameters:,}", f"{e.seconds:.1f} s",
             e.out or "won")
            for e in raced.entrants
        ], right=heads[1:4])  # fmt: skip
        console.line(f"The race took {raced.fits} runs of {raced.seconds:.0f} s together. On test examples:")
        for note in raced.notes:
            console.line(f"note: {note}")
    if board.rows:
        shots = board.groups != ["all"]
        keep = [i for i, head in enumerate(HEADS) if (head != "shots" or shots) and _said(board, i)]
        shown = [HEADS[i] for i in keep]
        console.table(shown, [[cells_of(r)[i] for i in keep] for r in board.rows], right=RIGHT)
        console.line(board.verdict())
    for method, why in board.missing.items():
        console.line(f"{method} has no score: {why}")
    for note in board.notes:
        console.line(f"note: {note}")
    console.line(f"In {console.shown(folder)}: {PAGE}, leaderboard.md, .csv and .json, and each run in cells/.")
    if board.best is not None:
        cells = [d.cell for d in found.done if d.run is not None and d.cell.method == board.best.method]
        cell = next((c for c in cells if c.shots == board.best.shots), cells[0])
        what = '"text"' if found.task.modality == "text" else "picture.jpg"
        console.line(f"Next:  anacrusis predict {console.shown(folder / 'cells' / cell.name)} {what}")


def _said(board: Leaderboard, column: int) -> bool:
    """Whether any row has something in the column."""
    from ..report.leaderboard import cells_of

    return any(cells_of(r)[column] for r in board.rows)


def _shots(counts: str) -> tuple[int | None, ...]:
    said = [c.strip() for c in counts.split(",") if c.strip()]
    if not said or not all(c == "all" or (c.isdecimal() and int(c) > 0) for c in said):
        raise ConfigError(f"--shots {counts}: expected whole numbers above 0, or all, such as 1,4,16,all")
    numbers = sorted({int(c) for c in said if c != "all"})
    return (*numbers, *([None] if "all" in said else []))


def _options(settings: Sequence[str] | None) -> dict[str, dict[str, Any]]:
    """NAME=VALUE for all methods that have it, METHOD:NAME=VALUE for one."""
    found: dict[str, dict[str, Any]] = {}
    for name, value in o.pairs(settings, "--set", "NAME=VALUE or METHOD:NAME=VALUE").items():
        method, _, option = name.rpartition(":")
        found.setdefault(method, {})[option] = value
    return found


def _fits(name: str, model: Any, task: Any) -> bool:
    from ..errors import AnacrusisError
    from ..registry import get, require

    try:
        require(get(name), model, task)
    except AnacrusisError:
        return False
    return True


def report(
    folder: Annotated[str, o.argument("FOLDER", "A comparison's or a run's folder, or a name from `anacrusis runs`.")],
    html: Annotated[Path | None, o.option(o.OUTPUT, "A page that works offline.", metavar="HTML")] = None,
    plots: Annotated[Path | None, o.option(o.OUTPUT, "Charts as pictures, into this folder.", metavar="FOLDER")] = None,
    pdf: Annotated[bool, o.option(o.OUTPUT, "Those as PDF instead of PNG.", "--pdf")] = False,
    tensorboard: Annotated[
        Path | None, o.option(o.OUTPUT, "Learning curves for TensorBoard, into this folder.", metavar="FOLDER")
    ] = None,
    mlflow: Annotated[
        str | None, o.option(o.OUTPUT, "Runs and prompts to this MLflow server or database.", metavar="URI")
    ] = None,
    as_json: o.Json = False,
    quiet: o.Quiet = False,
) -> None:
    """Show a comparison or a run again, and write it as a page, as charts, or for TensorBoard and MLflow.

    For example: anacrusis report my-comparison --html my-comparison.html
    """
    place = run_folder(folder, "compare.json")
    compared = (place / "compare.json").exists()
    written: dict[str, Any] = {}
    with console.Progress(quiet) as show:
        show.phase("loading", brief=True)
        from ..report import files, leaderboard

        found = quietly(lambda: leaderboard.board(place)) if compared else None
        if plots is not None and found is None:
            raise ConfigError(f"--plots draws comparisons; {place} holds a single run")
        if html is not None:
            show.phase("writing the page")
            from ..report.html import page, run_page, write

            write(page(found) if found is not None else run_page(place), html)
            written["html"] = str(html)
        if plots is not None and found is not None:
            show.phase("drawing")
            from ..report.figures import figures

            written["plots"] = [str(p) for p in figures(found, plots, "pdf" if pdf else "png")]
        if tensorboard is not None:
            from ..report.trackers import to_tensorboard

            written["tensorboard"] = to_tensorboard(place, tensorboard)
        if mlflow is not None:
            from ..report.trackers import to_mlflow

            written["mlflow"] = to_mlflow(place, mlflow)
        if found is not None:
            files.write(found.leaderboard, place)
    if as_json:
        board = {} if found is None else found.leaderboard.to_json()
        console.emit({"folder": str(place), **written, **board})
        return
    if found is not None:
        _tell(found, place, False)
    said = {"html": "Page", "plots": "Charts", "tensorboard": "Runs for TensorBoard", "mlflow": "Runs new in MLflow"}
    for name, what in written.items():
        console.line(f"{said[name]}: {', '.join(what) if isinstance(what, list) else what}")
    if not written and found is None:
        console.line(
            f"{console.shown(place)} is a single run. As a page: --html FILE; for trackers: --tensorboard, --mlflow"
        )
