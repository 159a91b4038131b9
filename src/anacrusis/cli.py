"""The command line: parse, call, print. What is heavy is imported inside the commands, so that --help is quick."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import __version__, console
from . import _options as o
from ._guard import EXIT_CODES, Commands, Stopped
from ._inputs import (
    answers_to,
    check_out,
    chunks,
    frame_for,
    from_arguments,
    from_stdin,
    load_prompt,
    reads_pictures,
    run_folder,
    to_score,
)
from .errors import ConfigError, DataError, did_you_mean

if TYPE_CHECKING:
    from .measure.evaluate import Score
    from .prompt.values import Prompt
    from .runs.run import Run

MANY = 500  # pictures: fewer are opened or drawn at once
DEFAULT_ENDPOINT = "opro"
DEFAULT_IMAGE = "coop"
DEFAULT_METHOD = {
    "classification": "residual-prompt-tuning",
    "multilabel": "residual-prompt-tuning",
    "generation": "prefix-tuning",
}

# --- commands

app = typer.Typer(
    cls=Commands,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit codes: " + "; ".join(f"{code} {said}" for code, said in EXIT_CODES.items()) + ".",
)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"anacrusis {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def anacrusis(
    ctx: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks and all warnings. Goes anywhere.")] = False,
) -> None:
    """Learn what to put in front of a frozen model, from labelled examples. Begin with: anacrusis demo"""
    if ctx.invoked_subcommand is None:
        print(ctx.get_help())


@app.command()
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
        task = _quietly(lambda: o.group(o.Data, ctx).read(_opening(show)))
    with console.Progress(quiet or not first) as show, _resumable(show, run):
        show.phase("loading", brief=True)
        from .registry import get
        from .runs.run import divide
        from .runs.run import fit as learn

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
            from .runs.searching import forecast

            show.phase("planning")
            config, settings_, frame = divide(get(name), options)
            foreseen = forecast(get(name), config, settings_, frame, opened, task, seed=seed, means=means)
        else:
            done = learn(name, opened, task, seed=seed, folder=run, options=options, observe=show, means=means)
    if plan:
        _forecast(name, foreseen, as_json)
    elif first:
        _result(done, out, as_json, task.notes)


@app.command()
def evaluate(
    ctx: typer.Context,
    folder: o.Folder,
    data: o.DataFile,
    text: o.Text = None,
    label: o.Label = None,
    image: o.Image = None,
    test: o.Test = None,
    valid: o.Valid = None,
    metric: o.Metric = None,
    shots: o.Shots = None,
    seed: o.PromptSeed = None,
    skip_bad: o.SkipBad = False,
    encoding: o.Encoding = "utf-8",
    no_quotes: o.NoQuotes = False,
    delimiter: o.Delimiter = None,
    separator: o.Separator = "|",
    split_column: o.SplitColumn = None,
    split: o.Part = None,
    classes: o.Half = None,
    corruption: o.Corruption = None,
    severity: o.Severity = None,
    protocol: o.Protocol = None,
    sheet: o.Sheet = None,
    model: o.AnyModel = None,
    dtype: o.Dtype = "auto",
    device: o.Device = "auto",
    quantise: o.Quantise = None,
    base_url: o.BaseURL = None,
    as_json: o.Json = False,
    quiet: o.Quiet = False,
) -> None:
    """Score a saved prompt on DATA: on all of it, or on the part that --split names.

    For example: anacrusis evaluate tickets new-tickets.csv --text message --label team

    Pictures: anacrusis evaluate prompt photos/ --protocol base-to-new --sheet mistakes.png
    """
    if protocol is not None:
        if protocol != "base-to-new":
            raise ConfigError(f"--protocol {protocol}: this one is not known.{did_you_mean(protocol, ['base-to-new'])}")
        if classes is not None:
            raise ConfigError("--protocol base-to-new scores both halves of the classes: leave --classes out")
    strength = _strength(corruption, severity)
    _drawn_at(sheet)
    with console.Progress(quiet) as show:
        show.phase("loading", brief=True)
        from .measure.evaluate import evaluate as score_on
        from .measure.protocols import moved, score_halves

        prompt = load_prompt(folder)
        given = o.group(o.Data, ctx)
        if protocol is not None:
            given = replace(given, classes="all")
        task, notes = _quietly(lambda: to_score(prompt, given, split, _opening(show)))
        if corruption is not None:
            from .task.corruptions import corrupted

            task = corrupted(task, corruption, strength, seed or 0)
        for note in notes:
            show.note(note)
        opened = None if prompt.kind == "constant" else o.group(o.Opening, ctx).open(show, prompt)
        count = show.count(f"scoring {len(task.test)} examples", len(task.test))
        if protocol is not None:
            halves = score_halves(prompt, opened, task, done=count)
        else:
            score = replace(score_on(moved(prompt, task), opened, task, done=count), split=split or "all")
        if sheet is not None:
            from .report.pictures import contact_sheet, mistakes

            contact_sheet(mistakes(moved(prompt, task), opened, task), task, sheet)
    found = halves.to_json() if protocol is not None else score.to_json()
    if as_json:
        console.emit({"prompt": str(folder), "data": str(data), **found, "notes": notes})
        return
    if protocol is not None:
        rows = [(f"{k} classes", str(i)) for k, i in (("base", halves.base), ("new", halves.new))]
        console.facts([*rows, ("harmonic mean", str(halves.harmonic))])
    else:
        console.facts([*_score_facts(score), ("seconds", f"{score.seconds:.1f}")])
    if sheet is not None:
        console.line(f"The hardest mistakes: {console.shown(sheet)}")


@app.command()
def adapt(
    ctx: typer.Context,
    data: o.DataFile,
    image: o.Image = None,
    label: o.Label = None,
    test: o.Test = None,
    shots: o.Shots = None,
    skip_bad: o.SkipBad = False,
    classes: o.Half = None,
    corruption: o.Corruption = None,
    severity: o.Severity = None,
    method: Annotated[str, o.option(o.LEARNING, "How it adapts: tpt, dynaprompt, ...", metavar="NAME")] = "tpt",
    settings: o.Settings = None,
    seed: o.Seed = 0,
    most: Annotated[int, typer.Option(min=1, help="Pictures of the stream, at most.")] = 1000,
    plot: Annotated[Path | None, o.option(o.OUTPUT, "Draw accuracy over the stream here.", metavar="PNG")] = None,
    model: o.ModelName = None,
    dtype: o.Dtype = "auto",
    device: o.Device = "auto",
    out: o.CopyTo = None,
    as_json: o.Json = False,
    quiet: o.Quiet = False,
) -> None:
    """Adapt to DATA's test pictures as they come, without labels, and score each answer when it is given.

    For example: anacrusis adapt photos/ --method dynaprompt --corruption fog --severity 4
    """
    options = o.pairs(settings, "--set", "NAME=VALUE, such as --set views=32")
    check_out(out)
    strength = _strength(corruption, severity)
    _drawn_at(plot)
    from .registry import all_methods, get, require

    chosen = get(method)
    if chosen.engine != "adapt":
        able = ", ".join(m.name for m in all_methods().values() if m.engine == "adapt")
        raise ConfigError(
            f"{method} does not adapt while in use; {able} do. To learn with it: anacrusis fit DATA --method {method}"
        )
    with console.Progress(quiet) as show:
        task = _quietly(lambda: o.group(o.Data, ctx).read(_opening(show)))
    if task.modality != "image":
        raise ConfigError(f"{data} holds texts, and {method} adapts to pictures: name their column with --image")
    with console.Progress(quiet) as show:
        for note in task.notes:
            show.note(note)
        show.phase("loading", brief=True)
        import torch

        from .adapt.prompts import keep
        from .measure.protocols import score_stream
        from .model.frames import default_frame
        from .task.corruptions import corrupted
        from .tune.recipe import Problem

        task = corrupted(task, corruption, strength, seed) if corruption else task
        task = replace(task, test=tuple(_some(task.test, most, seed)))
        opened = replace(o.group(o.Opening, ctx), model=model or "builtin:tiny-clip").open(show)
        require(chosen, opened, task)
        config = chosen.configure(options)
        problem = Problem(opened, task, default_frame(opened, task), torch.Generator().manual_seed(seed))
        prompt = keep(chosen.build(config, problem), method, config).with_card(
            model=opened.name, fingerprint=opened.fingerprint, method=method, task=task.name, seed=seed)  # fmt: skip
        count = show.count(f"adapting to {len(task.test)} pictures", len(task.test))
        found = score_stream(prompt, opened, task, seed=seed, done=count)
        if plot is not None:
            from .report.curves import stream_curve

            stream_curve({method: [(n, a) for n, a, _ in found.over_time],
                          "no adaptation": [(n, b) for n, _, b in found.over_time]}, plot)  # fmt: skip
    if out is not None:
        prompt.save(out)
    if as_json:
        console.emit({"data": str(data), "method": method, "model": opened.name, **found.to_json()})
        return
    d = found.difference
    console.facts([
        ("method", f"{method} on {opened.name}"), ("accuracy", f"{found.after}  ({found.after.n} pictures)"),
        ("without adapting", str(found.before)), ("difference", f"{d.value:+.3f} [{d.low:+.3f}, {d.high:+.3f}]"),
        ("calibration error", f"{found.ece[0]:.3f}, without {found.ece[1]:.3f}"),
        ("a picture", f"{found.milliseconds:.1f} ms, {found.megabytes:.0f} MB above before"),
    ])  # fmt: skip
    heads = ("pictures", "accuracy", "without")
    console.table(heads, [(str(n), f"{a:.3f}", f"{b:.3f}") for n, a, b in found.over_time], right=heads)
    if plot is not None:
        console.line(f"Drawn: {console.shown(plot)}")
    if out is not None:
        _next(out, prompt)


@app.command()
def shots(
    ctx: typer.Context,
    data: o.DataFile,
    text: o.Text = None,
    label: o.Label = None,
    image: o.Image = None,
    test: o.Test = None,
    kind: o.Kind = None,
    skip_bad: o.SkipBad = False,
    methods: Annotated[str, typer.Option(help="Names, separated by commas.")] = "coop,linear-probe",
    counts: Annotated[str, typer.Option(help="Examples a class, separated by commas.")] = "1,2,4,8,16",
    seed: o.Seed = 0,
    plot: Annotated[Path, o.option(o.OUTPUT, "Where the curve is drawn.", metavar="PNG")] = Path("shots.png"),
    model: o.ModelName = None,
    dtype: o.Dtype = "auto",
    device: o.Device = "auto",
    as_json: o.Json = False,
    quiet: o.Quiet = False,
) -> None:
    """Learn from 1, 2, 4, ... examples a class with several methods, and draw the test scores, beside zero-shot.

    For example: anacrusis shots photos/ --methods coop,vpt,linear-probe --counts 1,4,16
    """
    from .registry import get

    names = [get(n.strip()).name for n in methods.split(",") if n.strip()]
    if not all(c.strip().isdigit() and int(c) > 0 for c in counts.split(",")):
        raise ConfigError(f"--counts {counts}: expected whole numbers above 0, such as 1,2,4,8,16")
    numbers = sorted({int(c) for c in counts.split(",")})
    with console.Progress(quiet) as show:
        show.phase("loading", brief=True)
        from .report.curves import shots_curve
        from .report.pictures import png
        from .runs.run import fit as learn

        png(plot)
        points: dict[str, list[tuple[Any, ...]]] = {n: [] for n in names}
        opened: Any = None
        given = o.group(o.Data, ctx)
        for k in numbers:
            task = _quietly(partial(replace(given, shots=k).read, _opening(show)))
            if opened is None:
                usual = "builtin:tiny-clip" if task.modality == "image" else "builtin:minilm"
                opened = replace(o.group(o.Opening, ctx), model=model or usual).open(show)
            if k == numbers[0] and task.kind == "classification":
                bare = learn("zero-shot", opened, task, seed=seed).score
                if bare is not None:
                    points["zero-shot"] = [(0, bare.value, bare.low, bare.high)]
            for name in names:
                show.phase(f"{name}, {k} a class")
                score = learn(name, opened, task, seed=seed).score
                if score is None:
                    raise DataError("there are no test examples to score on: give more rows, or --test")
                points[name].append((k, score.value, score.low, score.high))
        shots_curve(points, plot)
    if as_json:
        console.emit({"data": str(data), "points": points, "plot": str(plot)})
        return
    rows = [(n, str(k), console.between(v, low, high)) for n, mine in points.items() for k, v, low, high in mine]
    console.table(("method", "a class", "score"), rows, right=("a class",))
    console.line(f"Drawn: {console.shown(plot)}")


@app.command()
def look(
    ctx: typer.Context,
    folder: o.Folder,
    picture: Annotated[Path, o.argument("PICTURE", "A picture's file.")],
    out: Annotated[Path, o.option(o.OUTPUT, "Where it is drawn.", metavar="PNG")] = Path("look.png"),
    attention: Annotated[
        bool, typer.Option("--attention", help="What the prompt's rows attend to, instead of where scores change.")
    ] = False,
    model: o.AnyModel = None,
    dtype: o.Dtype = "auto",
    device: o.Device = "auto",
    as_json: o.Json = False,
    quiet: o.Quiet = False,
) -> None:
    """Draw where a prompt acts in a picture: where its change of the answer's score comes from.

    For example: anacrusis look prompt photos/red-star/01.png --out where.png
    """
    _drawn_at(out)
    prompt = load_prompt(folder)
    [(key,)] = list(from_arguments([str(picture)], ("image",)))
    with console.Progress(quiet) as show:
        opened: Any = o.group(o.Opening, ctx).open(show, prompt)
        show.phase("looking")
        from .model.images import picture as read
        from .report.pictures import overlay
        from .report.where import attention_of, map_of

        shown = read(key)
        where = attention_of(prompt, opened, shown) if attention else map_of(prompt, opened, shown)
        overlay(shown, where, out, prepare=opened.prepare)
    if as_json:
        console.emit({"prompt": str(folder), "picture": str(picture), "drawn": str(out)})
    else:
        console.line(f"Drawn: {console.shown(out)}")


@app.command()
def predict(
    ctx: typer.Context,
    folder: o.Folder,
    texts: Annotated[
        list[str] | None,
        typer.Argument(metavar="TEXT", help="Texts to answer, or pictures' files; for pairs of texts, two by two."),
    ] = None,
    batch: Annotated[
        int, typer.Option(min=1, help="Lines of stdin answered at a time; 1 answers each as it comes.")
    ] = 256,
    model: o.AnyModel = None,
    dtype: o.Dtype = "auto",
    device: o.Device = "auto",
    quantise: o.Quantise = None,
    base_url: o.BaseURL = None,
    as_json: o.Json = False,
    quiet: o.Quiet = False,
) -> None:
    """Answer texts with a saved prompt: those on the command line, else the lines of stdin.

    One answer a line, in the same order. Pairs on stdin: the two texts of a line are separated by a tab.
    A prompt for pictures takes the paths of their files. One that adapts while in use reads all of them first.
    Several labels are separated by |, none at all is a | alone; line breaks of a written text become blanks.
    With --json: a list of objects with input, answer, and scores from 0 to 1 by class.

    For example: anacrusis predict tickets "my card was charged twice"
    """
    prompt = load_prompt(folder)
    columns = prompt.frame.fields
    lines = from_arguments(texts, columns) if texts else from_stdin(columns)
    if not texts and sys.stdin.isatty():
        batch = 1
        if not quiet:
            console.say("reading lines from the terminal; Ctrl-D ends")
    if prompt.kind == "adaptive":  # what it learns from a picture must not be lost between two batches
        batch = sys.maxsize
    parts = chunks(lines, batch)
    first = next(parts, None)  # before the model is opened: what is wrong with it should not take seconds to tell
    if first is None:
        raise DataError('nothing to answer: give texts behind the folder, or lines on stdin, as in: echo "text" | ...')
    opened = None
    if prompt.kind != "constant":
        with console.Progress(quiet) as show:
            opened = o.group(o.Opening, ctx).open(show, prompt)
    with console.Answers(as_json) as write:
        for chunk in chain([first], parts):
            for inputs, (answer, scores) in zip(chunk, answers_to(prompt, opened, chunk), strict=True):
                write(inputs, answer, scores)
            write.flush()


@app.command()
def methods(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="Show this one, with its options.")] = None,
    as_json: o.Json = False,
) -> None:
    """List the methods, or show one with its options and their defaults."""
    from . import _docs
    from .registry import get

    if name is None:
        found = _docs.by_engine()
        if as_json:
            console.emit([_method_record(m) for m in found])
            return
        console.table(("method", "what it does", "paper"), [(m.name, m.summary, _docs.paper_of(m)[0]) for m in found])
        console.line("One method with its options: anacrusis methods NAME")
        return
    method = get(name)
    groups = {
        "options": _docs.own_options(method),
        "options of its engine": _docs.training_options(method),
        "options of all methods": _docs.frame_options(),
    }
    if as_json:
        described = {
            k: [{"name": x.name, "default": x.default, "meaning": x.meaning} for x in v] for k, v in groups.items()
        }
        console.emit({**_method_record(method), "description": _docs.source_of(method), **described})
        return
    console.line(f"{method.name}: {method.summary}", style="bold")
    console.line(" ".join(p for p in _docs.paper_of(method) if p))
    console.line(f"tasks: {_docs.serves(method)}; models: {', '.join(sorted(method.arrangements))}")
    console.line()
    console.line(_docs.source_of(method))
    for title, options in groups.items():
        if options:
            console.line()
            console.table((title, "default", "meaning"), [(x.name, x.shown, x.meaning) for x in options])
    console.line(f"Change them: anacrusis fit DATA --method {method.name} --set NAME=VALUE")


def _method_record(method: Any) -> dict[str, Any]:
    return {
        "name": method.name, "summary": method.summary, "paper": method.paper, "engine": method.engine,
        "tasks": sorted(method.kinds), "models": sorted(method.arrangements), "needs": sorted(method.needs),
    }  # fmt: skip


@app.command()
def runs(as_json: o.Json = False) -> None:
    """List the runs in $ANACRUSIS_RUNS, or in ./anacrusis-runs, the newest first."""
    from .runs.run import listing, runs_folder

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


@app.command()
def show(
    run: Annotated[str, o.argument("RUN", "A name from `anacrusis runs`, or a run's folder.")],
    most: Annotated[int, typer.Option("--most", min=1, help="Candidates shown, at most.")] = 15,
    as_json: o.Json = False,
) -> None:
    """Show the course of a search: its candidates as a tree, their scores, and what it has cost so far."""
    from .report import search as report

    history = report.read(run_folder(run))
    if as_json:
        console.emit(history.to_json())
        return
    console.facts(history.facts())
    console.tree(f"{len(history.candidates)} candidates; the best, under their ancestors", history.tree(most))


@app.command()
def resume(
    run: Annotated[str, o.argument("RUN", "A name from `anacrusis runs`, or a run's folder.")],
    out: o.CopyTo = None,
    as_json: o.Json = False,
    quiet: o.Quiet = False,
) -> None:
    """Continue a run that was stopped; show the result of one that has ended."""
    check_out(out)
    with console.Progress(quiet) as show:
        show.phase("loading", brief=True)
        from .runs.run import load, read_plan
        from .runs.run import resume as go_on

        folder = run_folder(run)
        plan = read_plan(folder)
        with _resumable(show, folder):
            if (folder / "result.json").exists():
                show.note(f"the run in {folder} has ended before: this is its result")
                done = load(folder)
            else:
                show.phase(f"opening {plan.model}")
                done = _quietly(lambda: go_on(folder, observe=show))
    _result(done, out, as_json, ())


@app.command()
def export(
    ctx: typer.Context,
    folder: o.Folder,
    out: o.Out,
    to: Annotated[str, o.option(None, "The format: peft.")] = "peft",
    drop_head: o.DropHead = False,
    model: o.AnyModel = None,
    dtype: o.Dtype = "auto",
    device: o.Device = "auto",
    as_json: o.Json = False,
    quiet: o.Quiet = False,
) -> None:
    """Write a prompt in the format of another library. The model is opened only if you name it."""
    if to != "peft":
        raise ConfigError(f"--to {to}: this format is not known.{did_you_mean(to, ['peft'])}")
    check_out(out, "prompt.json", "adapter_config.json")
    prompt = load_prompt(folder)
    from .prompt import peft

    with console.Progress(quiet) as show:
        opened = o.group(o.Opening, ctx).open(show) if model else None
        peft.export(prompt, out, opened, drop_head=drop_head)
    if as_json:
        console.emit({"prompt": str(folder), "format": to, "folder": str(out)})
    else:
        console.line(f"Written to {console.shown(out)}. With the peft package, on the same network:")
        console.line(f"  PeftModel.from_pretrained(network, {str(out)!r})")


@app.command("import")
def bring_in(
    ctx: typer.Context,
    folder: Annotated[Path, o.argument("PEFT", "A PEFT folder, or a file with one matrix of vectors.")],
    model: Annotated[str, o.option(o.MODEL, "The model that it was learned for.")],
    out: o.Out,
    text: o.Fields = None,
    template: o.Template = None,
    word: o.Classes = None,
    readout: o.Readout = None,
    task: Annotated[int | None, o.option(None, "Which task of a multitask prompt.", metavar="N")] = None,
    drop_head: o.DropHead = False,
    dtype: o.Dtype = "auto",
    device: o.Device = "auto",
    as_json: o.Json = False,
    quiet: o.Quiet = False,
) -> None:
    """Make a prompt's folder from a PEFT checkpoint, which does not say how inputs and answers are laid out: say it.

    For example: anacrusis import checkpoint --model gpt2 --out tone --template "{text} Tone:" --word good=nice
    """
    check_out(out)
    words = o.pairs(word, "--word", "LABEL=WORD")
    if not folder.exists():
        raise DataError(f"no such folder or file: {folder}")
    from .prompt import peft

    with console.Progress(quiet) as show:
        opened = o.group(o.Opening, ctx).open(show)
        if not words and readout is None and "text" not in opened.can:
            raise ConfigError(f"{model} writes no text, so name the classes: --word LABEL=WORD, once a class")
        said = text or template or words or readout
        frame = frame_for(opened, text or ["text"], template, words, readout) if said else None
        prompt = peft.load(folder, opened, frame, task=task, drop_head=drop_head)
    prompt.save(out)
    if as_json:
        console.emit({"prompt": str(out), "kind": prompt.kind, "values": prompt.size})
    else:
        console.line(f"A {prompt.kind} prompt of {prompt.size:,} values, saved in {console.shown(out)}.")
        _next(out, prompt)


@app.command()
def demo(
    out: o.Out = Path("anacrusis-demo"),
    as_json: o.Json = False,
    quiet: o.Quiet = False,
) -> None:
    """Learn a prompt on 328 messages to a webshop, beside three baselines. About two minutes, no download."""
    check_out(out)
    with console.Progress(quiet) as show:
        show.phase("loading", brief=True)
        from . import demo as show_case

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
    _next(out, found.learned.prompt)


@app.command()
def draw(
    folder: Annotated[Path, o.argument("FOLDER", "A new folder.")],
    classes: Annotated[
        str, o.option(None, "What tells them apart: pairs, shape, colour, texture, count or background.")
    ] = "pairs",
    per_class: Annotated[int, o.option(None, "Pictures of each class.", "--per-class")] = 20,
    style: Annotated[str, o.option(None, "flat, outline, night, pastel, grainy or mosaic.")] = "flat",
    size: Annotated[int, o.option(None, "Of a side, in pixels.")] = 64,
    seed: Annotated[int, o.option(None, "Of everything random.")] = 0,
    as_json: o.Json = False,
    quiet: o.Quiet = False,
) -> None:
    """Draw pictures in a folder per class, to try things with. No download.

    For example: anacrusis draw photos --classes pairs --per-class 40
    """
    from . import pictures

    with console.Progress(quiet) as show:
        total = per_class * len(pictures.classes_of(classes))
        count = show.count(f"drawing {total:,} pictures", total) if total >= MANY else None
        files = pictures.write(
            folder, classes=classes, per_class=per_class, style=style, size=size, seed=seed, done=count
        )
    names = sorted({file.parent.name for file in files})
    if as_json:
        console.emit({"folder": str(folder), "pictures": len(files), "classes": names})
        return
    console.line(f"{len(files):,} pictures of {len(names)} classes in {console.shown(folder)}: {', '.join(names)}.")


# --- what they share


def _opening(show: console.Progress) -> Callable[[int, int], None]:
    """Shows how many pictures have been opened, where that takes a while."""
    counts: list[Callable[[int], None]] = []

    def done(_: int, total: int) -> None:
        if total < MANY:
            return
        if not counts:
            counts.append(show.count(f"opening {total:,} pictures", total))
        counts[0](1)

    return done


def _drawn_at(path: Path | None) -> None:
    """Raises ConfigError for a picture's name that nothing can be drawn under, before anything is computed."""
    if path is not None:
        from .report.pictures import png

        png(path)


def _strength(corruption: str | None, severity: int | None) -> int:
    """Of a corruption, 1 to 5; 3 where nothing is said. Raises ConfigError before anything is read."""
    strength = 3 if severity is None else severity
    if corruption is not None:
        from .task.corruptions import check

        check(corruption, strength)
    elif severity is not None:
        raise ConfigError(f"--severity {severity}: of what? Name it with --corruption, such as --corruption fog")
    return strength


def _some(items: Sequence[Any], most: int, seed: int) -> list[Any]:
    from .search.search import some

    return some(items, most, seed)


def _quietly(read: Callable[[], Any]) -> Any:
    """Reads data without Python's warnings: the same sentences are in Task.notes, which are shown."""
    from .task import DataWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DataWarning)
        return read()


@contextmanager
def _resumable(show: console.Progress, folder: Path | None) -> Iterator[None]:
    """Ctrl-C says how to go on, from the moment when there is a run."""
    try:
        yield
    except KeyboardInterrupt:
        if not show.started:
            raise Stopped("stopped before the run began") from None
        from .runs.run import listing, runs_folder

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
    rows = _score_facts(run.score) if run.score else [("score", none)]
    if run.cost:
        from .report import search as report

        console.facts([("method", f"{run.plan.method} on {run.plan.model}"), *rows, *report.facts(run),
                       ("prompt", console.shown(saved))])  # fmt: skip
        console.line(f"The course of the search: anacrusis show {console.shown(run.folder.name)}")
        _next(saved, run.prompt)
        return
    console.facts([
        ("method", f"{run.plan.method} on {run.plan.model}"), *rows, ("trained parameters", f"{run.parameters:,}"),
        ("seconds of learning", f"{run.seconds:.1f}"), ("prompt", console.shown(saved)),
    ])  # fmt: skip
    _next(saved, run.prompt)


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


def _score_facts(score: Score) -> list[tuple[str, str]]:
    what = "examples" if score.split == "all" else f"{score.split} examples"
    rows = [(score.metric, f"{console.between(score.value, score.low, score.high)}  (95 % interval, {score.n} {what})")]
    return rows + [(k, console.between(i.value, i.low, i.high)) for k, i in score.others.items()]


def _next(folder: Path, prompt: Prompt) -> None:
    columns = prompt.frame.fields
    texts = " ".join(f'"{name}"' for name in columns) if len(columns) > 1 else '"text"'
    texts = "picture.jpg" if reads_pictures(columns) else texts
    console.line(f"Next:  anacrusis predict {console.shown(folder)} {texts}")


def main() -> None:
    app(prog_name="anacrusis")


if __name__ == "__main__":
    main()
