"""Commands that learn: fit, resume, runs, show, demo."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .. import _options as o
from .. import console
from .._guard import Stopped
from .._inputs import (
    check_out,
    run_folder,
)
from ..errors import ConfigError, RunStopped
from .shared import quietly, reading, say_next, score_facts

if TYPE_CHECKING:
    from ..runs.run import Run

DEFAULT_ENDPOINT = "opro"
DEFAULT_IMAGE = "coop"
DEFAULT_METHOD = {
    "classification": "residual-prompt-tuning",
    "multilabel": "residual-prompt-tuning",
    "generation": "prefix-tuning",
}


def fit(
    ctx: typer.Context,
    data: o.DataFile,
    text: o.Text = None,
    label: o.Label = None,
    image: o.Image = None,
    test: o.Test = None,
    valid: o.Valid = None,
    kind: o.Kind = None,
    metric: o.Metric = None,
    shots: o.Shots = None,
    skip_bad: o.SkipBad = False,
    encoding: o.Encoding = "utf-8",
    no_quotes: o.NoQuotes = False,
    delimiter: o.Delimiter = None,
    separator: o.Separator = "|",
    split_column: o.SplitColumn = None,
    word: o.Words = None,
    classes: o.Half = None,
    method: o.MethodName = None,
    settings: o.Settings = None,
    seed: o.Seed = 0,
    model: o.ModelName = None,
    dtype: o.Dtype = "auto",
    device: o.Device = "auto",
    quantise: o.Quantise = None,
    base_url: o.BaseURL = None,
    concurrency: o.Concurrency = None,
    writer: o.Writer = None,
    judge: o.Judge = None,
    budget: o.Spend = None,
    price: o.Prices = None,
    store: o.StoreAt = None,
    person: o.Asked = "file",
    plan: o.Planned = False,
    out: o.CopyTo = None,
    run: o.RunAt = None,
    as_json: o.Json = False,
    quiet: o.Quiet = False,
) -> None:
    """Learn a prompt from DATA and score it on examples that it has not seen.

    For example: anacrusis fit tickets.csv --text message --label team --out tickets

    By trial, through an API: anacrusis fit tickets.csv --method opro --model openai:NAME --budget 500calls
    """
    options = o.pairs(settings, "--set", "NAME=VALUE, such as --set epochs=5")
    check_out(out)
    check_out(run, "run.json", option="--run")
    first = os.environ.get("RANK", "0") == "0"  # of several processes that train together, one speaks
    with console.Progress(quiet or not first) as show:
        task = quietly(lambda: o.group(o.Data, ctx).read(reading(show)))
    with console.Progress(quiet or not first) as show, _resumable(show, run):
        show.phase("loading", brief=True)
        from ..registry import get
        from ..runs.run import divide
        from ..runs.run import fit as learn

        model = model or ("builtin:tiny-clip" if task.modality == "image" else "builtin:minilm")
        usual = DEFAULT_IMAGE if task.modality == "image" else DEFAULT_METHOD[task.kind]
        name = method or (DEFAULT_ENDPOINT if model.startswith("openai:") else usual)
        divide(get(name), options)  # a misspelt name is refused before the model is opened
        search = o.group(o.Searches, ctx)
        if get(name).engine == "search" and not (budget or plan) and (asked := _asked(model, writer, judge)):
            raise ConfigError(
                f"{name} asks {asked} again and again, and that may cost money: say how much at most with --budget, "
                "such as 500calls or $2; --plan shows what it would take, and --budget none sets no limit"
            )
        if get(name).engine != "search" and (unused := "--plan" if plan else search.given()):
            raise ConfigError(f"{unused} is for methods that learn by trial; {name} does not: anacrusis methods")
        for note in task.notes:
            show.note(note)
        if run is not None and (run / "result.json").exists():
            show.note(f"the run in {run} has ended before: this is its result")
        opening = replace(o.group(o.Opening, ctx), model=model)
        opened, means = opening.open(show), search.means(opening)
        if plan:
            from ..runs.searching import forecast

            show.phase("planning")
            config, settings_, frame = divide(get(name), options)
            foreseen = forecast(get(name), config, settings_, frame, opened, task, seed=seed, means=means)
        else:
            done = learn(name, opened, task, seed=seed, folder=run, options=options, observe=show, means=means)
    if plan:
        _forecast(name, foreseen, as_json)
    elif first:
        _result(done, out, as_json, task.notes)


def resume(
    run: Annotated[str, o.argument("RUN", "A name from `anacrusis runs`, or a run's folder.")],
    out: o.CopyTo = None,
    as_json: o.Json = False,
    quiet: o.Quiet = False,
) -> None:
    """Continue a run or a comparison that was stopped; show the result of one that has ended."""
    check_out(out)
    folder = run_folder(run, "compare.json")
    if (folder / "compare.json").exists():
        from .comparing import go_on_comparing

        if out is not None:
            raise ConfigError(f"--out is for a single run's prompt; {folder} holds a comparison of several")
        go_on_comparing(folder, as_json, quiet)
        return
    with console.Progress(quiet) as show:
        show.phase("loading", brief=True)
        from ..runs.run import load, read_plan
        from ..runs.run import resume as go_on

        plan = read_plan(folder)
        with _resumable(show, folder):
            if (folder / "result.json").exists():
                show.note(f"the run in {folder} has ended before: this is its result")
                done = load(folder)
            else:
                show.phase(f"opening {plan.model}")
                done = quietly(lambda: go_on(folder, observe=show))
    _result(done, out, as_json, ())


def runs(as_json: o.Json = False) -> None:
    """List the runs in $ANACRUSIS_RUNS, or in ./anacrusis-runs, the newest first."""
    from ..runs.run import listing, runs_folder

    found = list(listing())
    if as_json:
        console.emit(found)
    elif not found:
        console.line(f"No runs in {console.shown(runs_folder())} yet. Begin one:")
        console.line("  anacrusis fit DATA --text COL --label COL")
    else:
        console.table(("run", "status", "method", "model", "task", "score"), [_run_row(r) for r in found])


def _run_row(record: dict[str, Any]) -> tuple[str, ...]:
    said = record.get("score")
    score = f"{said['metric']} {console.between(said['value'], said['low'], said['high'])}" if said else ""
    return (record["name"], record["status"], *(record.get(k, "") for k in ("method", "model", "task")), score)


def show(
    run: Annotated[str, o.argument("RUN", "A name from `anacrusis runs`, or a run's folder.")],
    most: Annotated[int, typer.Option("--most", min=1, help="Candidates shown, at most.")] = 15,
    as_json: o.Json = False,
) -> None:
    """Show the course of a search: its candidates as a tree, their scores, and what it has cost so far."""
    from ..report import search as report

    history = report.read(run_folder(run))
    if as_json:
        console.emit(history.to_json())
        return
    console.facts(history.facts())
    console.tree(f"{len(history.candidates)} candidates; the best, under their ancestors", history.tree(most))


def demo(
    out: o.Out = Path("anacrusis-demo"),
    as_json: o.Json = False,
    quiet: o.Quiet = False,
) -> None:
    """Learn a prompt on 328 messages to a webshop, beside three baselines. About two minutes, no download."""
    check_out(out)
    with console.Progress(quiet) as show:
        show.phase("loading", brief=True)
        from .. import demo as show_case

        found = show_case.run(show)
    found.learned.prompt.save(out)
    if as_json:
        console.emit({**found.to_json(), "prompt": str(out)})
        return
    console.line(found.headline)
    console.table(show_case.HEADS, found.rows(), right=show_case.HEADS[1:])
    console.line(found.verdict())
    console.line()
    console.line(f"New sentences, answered with the prompt of {found.learned.plan.method}:")
    console.table(("message", "team"), found.examples)
    console.line(f"The prompt is saved in {console.shown(out)}.")
    say_next(out, found.learned.prompt)


@contextmanager
def _resumable(show: console.Progress, folder: Path | None) -> Iterator[None]:
    """Ctrl-C says how to go on, from the moment when there is a run."""
    try:
        yield
    except (KeyboardInterrupt, RunStopped):
        if not show.started:
            raise Stopped("stopped before the run began") from None
        from ..runs.run import listing, runs_folder

        path = folder or show.folder or runs_folder() / next(listing())["name"]
        name = path.name if path.absolute().parent == runs_folder().absolute() else path
        raise Stopped(f"stopped; continue with: anacrusis resume {console.shown(name)}") from None


def _result(run: Run, out: Path | None, as_json: bool, notes: Sequence[str]) -> None:
    """What a run gave, and what to type next."""
    assert run.folder is not None
    if out is not None:
        run.prompt.save(out)
    saved = out or run.folder / "prompt"
    found = {} if not run.cost else {
        "gain": {"value": run.gain.value, "low": run.gain.low, "high": run.gain.high} if run.gain else None,
        "cost": dict(run.cost), "frame": run.prompt.frame.to_json(),
    }  # fmt: skip
    notes = [*notes, *run.prompt.card.get("notes", ())]
    if as_json:
        console.emit({
            "run": str(run.folder), "prompt": str(saved), "method": run.plan.method, "model": run.plan.model,
            "task": run.plan.task, "seed": run.plan.seed, "score": run.score.to_json() if run.score else None,
            "valid": run.valid, "parameters": run.parameters, "seconds": round(run.seconds, 2), "notes": list(notes),
            **found,
        })  # fmt: skip
        return
    none = "none: there are no test examples" + (", or no budget for them" if run.cost else "")
    rows = score_facts(run.score) if run.score else [("score", none)]
    if run.cost:
        from ..report import search as report

        console.facts([("method", f"{run.plan.method} on {run.plan.model}"), *rows, *report.facts(run),
                       ("prompt", console.shown(saved))])  # fmt: skip
        console.line(f"The course of the search: anacrusis show {console.shown(run.folder.name)}")
        say_next(saved, run.prompt)
        return
    console.facts([
        ("method", f"{run.plan.method} on {run.plan.model}"), *rows, ("trained parameters", f"{run.parameters:,}"),
        ("seconds of learning", f"{run.seconds:.1f}"), ("prompt", console.shown(saved)),
    ])  # fmt: skip
    say_next(saved, run.prompt)


def _asked(*names: str | None) -> str:
    """The first model that is behind an API; "" for none."""
    return next((n for n in names if n and n.startswith("openai:")), "")


def _forecast(method: str, found: Any, as_json: bool) -> None:
    if as_json:
        from dataclasses import asdict

        console.emit({"method": method, **asdict(found)})
        return
    heads = ("what", "role", "calls", "input tokens", "output tokens", "dollars")
    rows = [
        (p["what"], p["role"], f"{p['calls']:,}", f"{p['input']:,}", f"{p['output']:,}",
         "price unknown" if p["dollars"] is None else f"${p['dollars']:.4f}")
        for p in found.parts
    ]  # fmt: skip
    console.table(heads, rows, right=heads[2:])

    def span(pair: tuple[Any, Any], form: str) -> str:
        low, high = (format(v, form) for v in pair)
        return low if low == high else f"{low} to {high}"

    money = f", ${span(found.dollars, ',.4f')}" if found.dollars else ""
    console.line(
        f"{method}: about {span(found.calls, ',')} calls, {span(found.tokens, ',')} tokens{money}; nothing is spent."
    )
    for note in found.notes:
        console.line(f"note: {note}")
