"""Commands that use or list: predict, methods, export, import, draw."""

from __future__ import annotations

import sys
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .. import _options as o
from .. import console
from .._inputs import (
    answers_to,
    check_out,
    chunks,
    frame_for,
    from_arguments,
    from_stdin,
    load_prompt,
)
from ..errors import ConfigError, DataError, did_you_mean
from . import shared
from .shared import say_next

if TYPE_CHECKING:
    pass


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


def methods(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="Show this one, with its options.")] = None,
    as_json: o.Json = False,
) -> None:
    """List the methods, or show one with its options and their defaults."""
    from .. import _docs
    from ..registry import get

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
    from ..prompt import peft

    with console.Progress(quiet) as show:
        opened = o.group(o.Opening, ctx).open(show) if model else None
        peft.export(prompt, out, opened, drop_head=drop_head)
    if as_json:
        console.emit({"prompt": str(folder), "format": to, "folder": str(out)})
    else:
        console.line(f"Written to {console.shown(out)}. With the peft package, on the same network:")
        console.line(f"  PeftModel.from_pretrained(network, {str(out)!r})")


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
    from ..prompt import peft

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
        say_next(out, prompt)


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
    from .. import pictures

    with console.Progress(quiet) as show:
        total = per_class * len(pictures.classes_of(classes))
        count = show.count(f"drawing {total:,} pictures", total) if total >= shared.MANY else None
        files = pictures.write(
            folder, classes=classes, per_class=per_class, style=style, size=size, seed=seed, done=count
        )
    names = sorted({file.parent.name for file in files})
    if as_json:
        console.emit({"folder": str(folder), "pictures": len(files), "classes": names})
        return
    console.line(f"{len(files):,} pictures of {len(names)} classes in {console.shown(folder)}: {', '.join(names)}.")
