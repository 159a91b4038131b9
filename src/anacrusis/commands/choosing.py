"""The command choose: the best of many prompts without scoring all of them on everything."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .. import _options as o
from .. import console
from .._inputs import check_out, load_prompt
from ..errors import ConfigError, DataError
from .assessing import Asking
from .shared import quietly, reading, some

if TYPE_CHECKING:
    from ..prompt.values import Prompt
    from ..task import Task


def choose(
    ctx: typer.Context,
    data: o.DataFile,
    folders: Annotated[list[Path] | None, typer.Argument(metavar="[FOLDER]...", help="Prompts' folders.")] = None,
    instructions: Annotated[
        Path | None, typer.Option(help="A text file with an instruction a line, each tried as a prompt.")
    ] = None,
    templates: Annotated[
        Path | None, typer.Option(help='A text file with a template a line, such as "Message: {text}".')
    ] = None,
    text: o.Text = None,
    label: o.Label = None,
    image: o.Image = None,
    test: o.Test = None,
    valid: o.Valid = None,
    kind: o.Kind = None,
    metric: o.Metric = None,
    seed: o.Seed = 0,
    skip_bad: o.SkipBad = False,
    encoding: o.Encoding = "utf-8",
    no_quotes: o.NoQuotes = False,
    delimiter: o.Delimiter = None,
    separator: o.Separator = "|",
    split_column: o.SplitColumn = None,
    word: o.Words = None,
    how: Annotated[str, typer.Option(help="uniform, halving, ucb-e, ucb-e-lrf or irt: docs/cheap.md.")] = "halving",
    share: Annotated[float, typer.Option(help="Of all answers (prompts x examples), how many to compute.")] = 0.2,
    most: Annotated[int, typer.Option(min=1, help="Examples that prompts are chosen on, at most.")] = 500,
    model: o.ModelName = None,
    dtype: o.Dtype = "auto",
    device: o.Device = "auto",
    quantise: o.Quantise = None,
    base_url: o.BaseURL = None,
    concurrency: o.Concurrency = None,
    budget: Annotated[
        str | None, o.option(o.MODEL, "Of a model behind an API: $2, 500calls, or none.", "--budget")
    ] = None,
    price: o.Prices = None,
    out: o.CopyTo = None,
    as_json: o.Json = False,
    quiet: o.Quiet = False,
) -> None:
    """Choose the best of many prompts by a share of all answers, and score it on test examples that chose nothing.

    For example: anacrusis choose tickets.csv --templates templates.txt --text message --label team
    """
    check_out(out)
    if not 0 < share <= 1:
        raise ConfigError(f"--share {share:g}: expected a share above 0 and at most 1, such as 0.2")
    lines = {"instruction": _lines(instructions), "template": _lines(templates)}
    with console.Progress(quiet) as show:
        task = quietly(lambda: o.group(o.Data, ctx).read(reading(show)))
    with console.Progress(quiet) as show:
        show.phase("loading", brief=True)
        from ..assess import Subject
        from ..measure.cheap import choose as by_share
        from ..measure.evaluate import evaluate

        given = [load_prompt(f) for f in folders or ()]
        usual = "builtin:tiny-clip" if task.modality == "image" else "builtin:minilm"
        named = model or (given[0].card.get("model") if given else usual)
        opened: Any = replace(o.group(o.Opening, ctx), model=str(named)).open(show)
        names, prompts = _prompts(given, folders or (), lines, opened, task)
        pool = replace(task, test=tuple(some((*task.train, *task.valid), most, seed)))
        total = len(prompts) * len(pool.test)
        cells = max(len(prompts), round(share * total))
        with Asking(opened, budget, o.pairs(price, "--price", "ROLE=IN/OUT")) as desk:
            subject = Subject(prompts[0], opened, pool, desk=desk, seed=seed)
            count = show.count(f"{cells:,} of {total:,} answers", cells)

            def see(row: int, columns: list[int]) -> Sequence[float]:
                values = subject.values(prompts[row], [pool.test[c] for c in columns])
                count(len(columns))
                return [float(v) for v in values]

            found = by_share(see, len(prompts), len(pool.test), budget=cells, how=how, seed=seed)
        best = prompts[found.best]
        score = evaluate(best, opened, task) if task.test and not subject.endpoint else None
    if out is not None:
        best.with_card(model=opened.name, fingerprint=opened.fingerprint, task=task.name, data=task.fingerprint,
                       seed=seed).save(out)  # fmt: skip
    order = sorted(range(len(prompts)), key=lambda i: (i != found.best, -found.estimates[i]))
    rows = [{"prompt": names[i], "estimate": float(found.estimates[i]), "answers": int((found.seen[i] >= 0).sum())}
            for i in order]  # fmt: skip
    if as_json:
        console.emit({"best": names[found.best], "prompts": rows, "cells": found.cells, "of": total, "how": how,
                      "score": None if score is None else score.to_json()})  # fmt: skip
        return
    heads = ("prompt", "estimate", "answers")
    shown = [(str(r["prompt"]), f"{r['estimate']:.3f}", str(r["answers"])) for r in rows]
    console.table(heads, shown, right=heads[1:])
    console.line(f"{found.cells:,} of {total:,} answers were computed. Best: {names[found.best]}")
    if score is not None:
        said = console.between(score.value, score.low, score.high)
        console.line(f"On {score.n} test examples, which chose nothing: {score.metric} {said}")


def _lines(file: Path | None) -> list[str]:
    if file is None:
        return []
    try:
        lines = [line.strip() for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
    except UnicodeDecodeError as error:
        raise DataError(f"{file} is not UTF-8 text: {error}") from error
    if not lines:
        raise DataError(f"{file} has no lines; expected one prompt a line")
    return list(dict.fromkeys(lines))


def _prompts(
    given: Sequence[Prompt], folders: Sequence[Path], lines: dict[str, list[str]], model: Any, task: Task
) -> tuple[list[str], list[Prompt]]:
    """Names and prompts: those of the folders, and the zero-shot prompt with each line in its place."""
    import torch

    from ..prompt.store import check
    from ..registry import get, require
    from ..tune.recipe import Problem

    for prompt in given:
        check(prompt, model.name, model.fingerprint)
        if prompt.frame.labels != task.labels:
            raise ConfigError(f"a prompt answers {', '.join(prompt.frame.labels)}; the data: {', '.join(task.labels)}")
    names, prompts = [str(f) for f in folders], list(given)
    if any(lines.values()):
        from ..model.frames import default_frame

        zero = get("zero-shot")
        require(zero, model, task)
        problem = Problem(model, task, default_frame(model, task), torch.Generator())
        plain = zero.build(zero.configure({}), problem)
        for part, texts in lines.items():
            for line in texts:
                if part == "template" and not all("{" + f + "}" in line for f in _slots(plain)):
                    wanted = " and ".join("{" + f + "}" for f in _slots(plain))
                    raise DataError(f"the template {line!r} lacks {wanted}")
                names.append(line)
                prompts.append(replace(plain, frame=replace(plain.frame, **{part: line})))
    if len(prompts) < 2:
        raise ConfigError(f"{len(prompts)} prompts to choose from: name folders, --instructions or --templates")
    return names, prompts


def _slots(prompt: Prompt) -> tuple[str, ...]:
    """What a template of this prompt must hold."""
    return ("label",) if prompt.frame.readout == "match" else prompt.frame.fields
