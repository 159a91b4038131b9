"""The command choose: the best of many prompts without scoring all of them on everything."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .. import _options as o
from .. import console
from .._inputs import LEARNED, UNKNOWN, check_out, divided_by, load_prompt
from ..errors import ConfigError, DataError
from .assessing import Asking
from .shared import quietly, reading, some

if TYPE_CHECKING:
    from ..prompt.values import Prompt
    from ..task import Example, Task


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
        whole = quietly(lambda: o.group(o.Data, ctx).whole(reading(show), valid=0.0, test=0.0))
    with console.Progress(quiet) as show:
        show.phase("loading", brief=True)
        from ..assess import Subject
        from ..measure.cheap import choose as by_share
        from ..measure.evaluate import evaluate

        given = [load_prompt(f) for f in folders or ()]
        parts = _parts(whole, {str(f): p.card for f, p in zip(folders or (), given, strict=True)}, seed)
        task = parts.task
        for note in parts.notes:
            show.note(note)
        usual = "builtin:tiny-clip" if task.modality == "image" else "builtin:minilm"
        named = model or (given[0].card.get("model") if given else usual)
        opened: Any = replace(o.group(o.Opening, ctx), model=str(named)).open(show)
        names, prompts = _prompts(given, folders or (), lines, opened, task)
        pool = replace(task, test=tuple(some(parts.choosing, most, seed)))
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
        if found.best >= len(given):  # made here; the others say themselves what they were learned from
            best = best.with_card(model=opened.name, fingerprint=opened.fingerprint, task=task.name, **parts.card)
        best.save(out)
    order = sorted(range(len(prompts)), key=lambda i: (i != found.best, -found.estimates[i]))
    rows = [{"prompt": names[i], "estimate": float(found.estimates[i]), "answers": int((found.seen[i] >= 0).sum())}
            for i in order]  # fmt: skip
    if as_json:
        console.emit({"best": names[found.best], "prompts": rows, "cells": found.cells, "of": total, "how": how,
                      "score": None if score is None else score.to_json(), "notes": list(parts.notes)})  # fmt: skip
        return
    heads = ("prompt", "estimate", "answers")
    shown = [(str(r["prompt"]), f"{r['estimate']:.3f}", str(r["answers"])) for r in rows]
    console.table(heads, shown, right=heads[1:])
    console.line(f"{found.cells:,} of {total:,} answers were computed. Best: {names[found.best]}")
    if score is not None:
        said = console.between(score.value, score.low, score.high)
        console.line(f"On {score.n} test examples, which chose nothing: {score.metric} {said}")


@dataclass(frozen=True)
class _Parts:
    """The data, divided so that no prompt is chosen or scored on what it was learned from."""

    task: Task  # its test examples chose nothing
    choosing: tuple[Example, ...]
    card: Mapping[str, Any]  # of a prompt that is made here: how its data was divided
    notes: tuple[str, ...]


def _parts(whole: Task, cards: Mapping[str, Mapping[str, Any]], seed: int) -> _Parts:
    """The data, divided as it was when the prompts were learned from it, and by `seed` where none of them was.

    cards: by the prompt's folder. Raises DataError where nothing is left that the prompts have not seen.
    """
    from ..runs.run import learned_from
    from ..task.splits import pooled

    everything = (*whole.train, *whole.valid, *whole.test)
    own: list[tuple[Task, Mapping[str, Any]]] = []
    seen: set[tuple[str, ...]] = set()
    notes: list[str] = []
    for folder, card in cards.items():
        found = _as_learned(card, whole)
        if found is not None:
            own.append((found[0], card))
            seen |= {e.same for e in found[1]}
        elif card.get("learned") == pooled(everything):
            raise DataError(f"{folder}: {LEARNED}, or name with --test the test examples that it had")
        elif card.get("data"):
            notes.append(f"{folder}: {UNKNOWN}")
    task, card = own[0] if own else (divided_by(whole, seed, None), {"seed": seed})
    clean = set.intersection(*({e.same for e in t.test} for t, _ in own or [(task, card)])) - seen
    test = tuple(e for e in task.test if e.same in clean)
    choosing = tuple(e for e in everything if e.same not in seen | clean)
    if not choosing:
        raise DataError(
            f"each of the {len(everything) - len(test)} examples to choose on is one that a prompt was learned from. "
            "Give other examples, more of them, or prompts that were learned from fewer (--shots)"
        )
    if own:
        notes.append(f"the prompts are chosen on {len(choosing)} of {len(everything)} examples: none was learned from "
                     f"these, nor from the {len(test)} test examples")  # fmt: skip
    how = {k: card[k] for k in ("seed", "split_seed", "redrawn", "shots") if k in card}
    task = replace(task, test=test)
    return _Parts(task, choosing, {**how, "data": task.fingerprint, "learned": learned_from(task)}, tuple(notes))


def _as_learned(card: Mapping[str, Any], whole: Task) -> tuple[Task, tuple[Example, ...]] | None:
    """The data divided as it was for this prompt, and what of it may have been trained on; None: other data, or it
    cannot be told."""
    from ..runs.run import learned_from
    from ..task.shift import redrawn

    try:
        task = divided_by(whole, card.get("split_seed", card.get("seed", 0)), card.get("shots"))
        if card.get("redrawn"):
            task = redrawn(task, *card["redrawn"])
    except DataError:  # too few examples for its shots
        return None
    if card.get("data") in (task.fingerprint, replace(task, test=()).fingerprint):
        return task, task.train
    if card.get("learned") == learned_from(task):  # but under another metric, or with validation drawn differently
        return task, (*task.train, *task.valid)
    return None


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
