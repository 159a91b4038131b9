"""Commands that look into a prompt: assess, interpret."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .. import _options as o
from .. import console
from .._inputs import FLATTERS, LEARNED, UNKNOWN, load_prompt, to_score
from ..errors import ConfigError, DataError
from .shared import quietly, reading, some

if TYPE_CHECKING:
    from ..assess import Found
    from ..prompt.values import Prompt
    from ..task import Example, Task

STORE = "assess.sqlite"  # replies of models behind an API, in the folder of runs


def assess(
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
    group: Annotated[str | None, o.option(o.DATA, "Column whose groups are compared.", metavar="COL")] = None,
    measures: Annotated[
        str | None, typer.Option(help="Names, separated by commas; else all. See docs/assess.md.")
    ] = None,
    most: Annotated[int, typer.Option(min=1, help="Examples that variants are tried on, at most.")] = 300,
    cells: Annotated[
        int, typer.Option(min=1, help="Answers (one variant on one example) that one measure may take, at most.")
    ] = 6000,
    paraphrase: Annotated[
        list[str] | None, typer.Option(help="An instruction that means the same; can be given several times.")
    ] = None,
    model: o.AnyModel = None,
    dtype: o.Dtype = "auto",
    device: o.Device = "auto",
    quantise: o.Quantise = None,
    base_url: o.BaseURL = None,
    concurrency: o.Concurrency = None,
    budget: Annotated[
        str | None, o.option(o.MODEL, "Of a model behind an API: $2, 500calls, or none.", "--budget")
    ] = None,
    price: o.Prices = None,
    html: Annotated[Path | None, o.option(o.OUTPUT, "Write a page with tables and charts.", metavar="HTML")] = None,
    as_json: o.Json = False,
    quiet: o.Quiet = False,
) -> None:
    """Assess a prompt on DATA: how it fares when format, wording, order or inputs change; calibration, leakage, cost.

    For example: anacrusis assess tickets tickets.csv --text message --label team --html tickets.html
    """
    names = [n.strip() for n in (measures or "").split(",") if n.strip()]
    with console.Progress(quiet) as show:
        show.phase("loading", brief=True)
        from ..assess import Subject
        from ..assess import assess as run
        from ..assess.measure import get

        for name in names:
            get(name)  # a misspelt one is refused before anything is read
        prompt = load_prompt(folder)
        given = o.group(o.Data, ctx)
        groups = _groups(given, group)
        task, train, notes = _parts(prompt, given, split, reading(show))
        task = replace(task, test=tuple(some(task.test, most, 0)))
        for note in notes:
            show.note(note)
        opening = o.group(o.Opening, ctx)
        opened: Any = None if prompt.kind == "constant" else opening.open(show, prompt)
        with Asking(opened, budget, o.pairs(price, "--price", "ROLE=IN/OUT")) as desk:
            subject = Subject(prompt, opened, task, train, groups, cells=cells, desk=desk,
                              paraphrases=tuple(paraphrase or ()))  # fmt: skip
            found = run(subject, names, show)
            base = None if subject.endpoint and "base" not in subject.__dict__ else float(subject.base.mean())
    about = {"prompt": str(folder), "model": str(prompt.card.get("model", "")), "data": task.describe(),
             "method": str(prompt.card.get("method", ""))}  # fmt: skip
    if html is not None:
        from ..report.html import assess_page, write

        write(assess_page(found, about), html)
    if as_json:
        console.emit({**about, "examples": len(task.test), "measures": [f.to_json() for f in found], "notes": notes})
        return
    what = "mean rougeL" if task.kind == "generation" else "answered rightly"
    said = "" if base is None else f", {base:.3f} {what} by the prompt as it is"
    console.line(f"{len(task.test)} examples{said}.")
    _tell(found, bool(names))
    if html is not None:
        console.line(f"Page: {console.shown(html)}")


def _tell(found: list[Found], tables: bool) -> None:
    for f in found:
        console.line()
        console.line(f.name, style="bold")
        if f.finding is None:
            console.line(f"  not measured: {f.skipped}")
            continue
        console.line(f"  {f.finding.headline}")
        if tables and f.finding.rows:
            console.table(f.finding.heads, f.finding.rows)
        for note in f.finding.notes:
            console.line(f"  note: {note}")
    if not tables:
        console.line()
        console.line("With its table: --measures NAME. As a page: --html FILE")


def _parts(
    prompt: Prompt, given: o.Data, split: str | None, done: Callable[[int, int], None]
) -> tuple[Task, tuple[Example, ...], list[str]]:
    """What the prompt is assessed on, what it was learned from (where the data holds that), and notes.

    Data that the prompt was learned on is divided again, and only what it has not seen is used.
    """
    task, notes = quietly(lambda: to_score(prompt, given, split, done))
    if split is None and FLATTERS in notes:
        notes = [f"of {given.data} only the examples that the prompt has not seen are used"]
        split = "test"
        task, more = quietly(lambda: to_score(prompt, given, split, done))
        notes += more
    if split is None:
        return task, (), notes if LEARNED in notes or not prompt.card.get("data") else [*notes, UNKNOWN]
    try:
        train = quietly(lambda: to_score(prompt, given, "train", done))[0].test
    except DataError:
        train = ()
    return task, train, notes


def _groups(given: o.Data, column: str | None) -> dict[str, str]:
    """By Example.where, what the column says of it."""
    if column is None:
        return {}
    from ..task.readers import Reading, open_table, require

    reading = Reading(encoding=given.encoding, quotes=not given.no_quotes,
                      delimiter=given.delimiter and given.delimiter.replace("\\t", "\t"))  # fmt: skip
    found: dict[str, str] = {}
    paths = [p for p in (given.data, given.test, given.valid) if p is not None]
    if len({p.name for p in paths}) < len(paths):
        raise ConfigError(
            f"--group: two of {', '.join(map(str, paths))} have the same name, and rows go by it: rename one"
        )
    for path in paths:
        if path.is_dir():
            raise ConfigError(f"--group {column} names a column, and {path} is a folder")
        table = open_table(path, reading)
        require(table, column)
        for where, row in table.rows((column,)):
            if isinstance(row, tuple):
                found[where] = str(row[0]).strip() or "(empty)"
    return found


class Asking:
    """Where a model behind an API is asked: replies are kept in the folder of runs. None for others.

    Raises ConfigError for such a model without a word on what it may cost.
    """

    def __init__(self, model: Any, budget: str | None, prices: dict[str, str]):
        self.model, self.budget, self.prices = model, budget or "", prices
        self.store: Any = None
        if self._paid and not budget:
            raise ConfigError(
                f"{model.name} is behind an API, and will be asked many times: say how much it may take with --budget, "
                "such as 500calls or $2; --budget none sets no limit"
            )

    @property
    def _paid(self) -> bool:
        return self.model is not None and self.model.arrangement == "endpoint"

    def __enter__(self) -> Any:
        if not self._paid:
            return None
        from ..runs.run import runs_folder
        from ..search.budget import Budget, Price, parse
        from ..search.desk import Desk
        from ..search.store import Store

        limits = parse(self.budget) if self.budget not in ("", "none") else ()
        budget = Budget(limits, {r: Price.parse(p) for r, p in self.prices.items()}, ("task",))
        self.store = Store(f"sqlite:///{runs_folder().resolve() / STORE}", "assess")
        return Desk({"task": self.model}, self.store, budget, "", lambda n: None)

    def __exit__(self, *_: object) -> None:
        if self.store is not None:
            self.store.close()


def interpret(
    ctx: typer.Context,
    folder: o.Folder,
    data: Annotated[Path | None, typer.Argument(metavar="[DATA]", help="Examples, for scores and attention.")] = None,
    others: Annotated[
        list[Path] | None, typer.Option("--beside", help="Another prompt's folder; can be given several times.")
    ] = None,
    text: o.Text = None,
    label: o.Label = None,
    seed: o.PromptSeed = None,
    split: o.Part = None,
    most: Annotated[int, typer.Option(min=1, help="Examples, at most.")] = 300,
    model: o.AnyModel = None,
    dtype: o.Dtype = "auto",
    device: o.Device = "auto",
    as_json: o.Json = False,
    quiet: o.Quiet = False,
) -> None:
    """Read a prompt of vectors: its nearest words and whether to believe them, what each vector does, what reads it.

    For example: anacrusis interpret tickets tickets.csv --text message --label team
    """
    prompt, beside = load_prompt(folder), [load_prompt(p) for p in others or ()]
    with console.Progress(quiet) as show:
        show.phase("loading", brief=True)
        from ..report.reading import read_prompt

        task = None
        if data is not None:
            task, _, notes = _parts(prompt, o.group(o.Data, ctx), split, reading(show))
            task = replace(task, test=tuple(some(task.test, most, 0)))
            for note in notes:
                show.note(note)
        opened = o.group(o.Opening, ctx).open(show, prompt)
        show.phase("reading the prompt")
        found = read_prompt(prompt, opened, task, beside)
    if as_json:
        console.emit({"prompt": str(folder), **found.to_json()})
        return
    if found.words:
        console.table(found.heads, found.rows, right=found.heads[3:])
    console.line(found.headline)
    if data is None:
        console.line("With examples it also tells how far this can be believed: anacrusis interpret FOLDER DATA")
