"""Commands that measure: evaluate, adapt, look."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .. import _options as o
from .. import console
from .._inputs import (
    check_out,
    from_arguments,
    load_prompt,
    to_score,
)
from ..errors import ConfigError, did_you_mean
from .shared import drawn_at, quietly, reading, say_next, score_facts, some, strength

if TYPE_CHECKING:
    pass


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
    level = strength(corruption, severity)
    drawn_at(sheet)
    with console.Progress(quiet) as show:
        show.phase("loading", brief=True)
        from ..measure.evaluate import evaluate as score_on
        from ..measure.protocols import moved, score_halves

        prompt = load_prompt(folder)
        given = o.group(o.Data, ctx)
        if protocol is not None:
            given = replace(given, classes="all")
        task, notes = quietly(lambda: to_score(prompt, given, split, reading(show)))
        if corruption is not None:
            from ..task.corruptions import corrupted

            task = corrupted(task, corruption, level, seed or 0)
        for note in notes:
            show.note(note)
        opened = None if prompt.kind == "constant" else o.group(o.Opening, ctx).open(show, prompt)
        count = show.count(f"scoring {len(task.test)} examples", len(task.test))
        if protocol is not None:
            halves = score_halves(prompt, opened, task, done=count)
        else:
            score = replace(score_on(moved(prompt, task), opened, task, done=count), split=split or "all")
        if sheet is not None:
            from ..report.pictures import contact_sheet, mistakes

            contact_sheet(mistakes(moved(prompt, task), opened, task), task, sheet)
    found = halves.to_json() if protocol is not None else score.to_json()
    if as_json:
        console.emit({"prompt": str(folder), "data": str(data), **found, "notes": notes})
        return
    if protocol is not None:
        rows = [(f"{k} classes", str(i)) for k, i in (("base", halves.base), ("new", halves.new))]
        console.facts([*rows, ("harmonic mean", str(halves.harmonic))])
    else:
        console.facts([*score_facts(score), ("seconds", f"{score.seconds:.1f}")])
    if sheet is not None:
        console.line(f"The hardest mistakes: {console.shown(sheet)}")


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
    level = strength(corruption, severity)
    drawn_at(plot)
    from ..registry import all_methods, get, require

    chosen = get(method)
    if chosen.engine != "adapt":
        able = ", ".join(m.name for m in all_methods().values() if m.engine == "adapt")
        raise ConfigError(
            f"{method} does not adapt while in use; {able} do. To learn with it: anacrusis fit DATA --method {method}"
        )
    with console.Progress(quiet) as show:
        task = quietly(lambda: o.group(o.Data, ctx).read(reading(show)))
    if task.modality != "image":
        raise ConfigError(f"{data} holds texts, and {method} adapts to pictures: name their column with --image")
    with console.Progress(quiet) as show:
        for note in task.notes:
            show.note(note)
        show.phase("loading", brief=True)
        import torch

        from ..adapt.prompts import keep
        from ..measure.protocols import score_stream
        from ..model.frames import default_frame
        from ..task.corruptions import corrupted
        from ..tune.recipe import Problem

        task = corrupted(task, corruption, level, seed) if corruption else task
        task = replace(task, test=tuple(some(task.test, most, seed)))
        opened = replace(o.group(o.Opening, ctx), model=model or "builtin:tiny-clip").open(show)
        require(chosen, opened, task)
        config = chosen.configure(options)
        problem = Problem(opened, task, default_frame(opened, task), torch.Generator().manual_seed(seed))
        prompt = keep(chosen.build(config, problem), method, config).with_card(
            model=opened.name, fingerprint=opened.fingerprint, method=method, task=task.name, seed=seed)  # fmt: skip
        count = show.count(f"adapting to {len(task.test)} pictures", len(task.test))
        found = score_stream(prompt, opened, task, seed=seed, done=count)
        if plot is not None:
            from ..report.curves import stream_curve

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
        say_next(out, prompt)


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
    drawn_at(out)
    prompt = load_prompt(folder)
    [(key,)] = list(from_arguments([str(picture)], ("image",)))
    with console.Progress(quiet) as show:
        opened: Any = o.group(o.Opening, ctx).open(show, prompt)
        show.phase("looking")
        from ..model.images import picture as read
        from ..report.pictures import overlay
        from ..report.where import attention_of, map_of

        shown = read(key)
        where = attention_of(prompt, opened, shown) if attention else map_of(prompt, opened, shown)
        overlay(shown, where, out, prepare=opened.prepare)
    if as_json:
        console.emit({"prompt": str(folder), "picture": str(picture), "drawn": str(out)})
    else:
        console.line(f"Drawn: {console.shown(out)}")
