"""The command line: parse, call, print. What is heavy is imported inside the commands, so that --help is quick."""

from __future__ import annotations

import os
import sys
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from . import __version__, console
from .errors import AnacrusisError, ConfigError, DataError, RunError, did_you_mean

if TYPE_CHECKING:
    from .measure.evaluate import Score
    from .model.model import Model
    from .prompt.values import Frame, Prompt
    from .runs.run import Run
    from .task import Example, Task

DEFAULT_METHOD = {
    "classification": "residual-prompt-tuning",
    "multilabel": "residual-prompt-tuning",
    "generation": "prefix-tuning",
}
EXIT_CODES = {
    0: "done",
    1: "an error that nobody foresaw; --debug shows its traceback",
    2: "wrong usage, or data, a model or a folder that cannot be used as it is",
    130: "stopped by Ctrl-C",
    141: "the reader of the output has gone (as in `| head`)",
}
MAX_LINE = 10_000_000  # bytes of one line on stdin; a longer one is a mistake, and must not fill the memory


class Stopped(Exception):
    """Ctrl-C, with what can be done now."""


class Commands(TyperGroup):
    """The commands, with one place for what goes wrong in any of them."""

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        windows_expand_args: bool = True,
        **extra: Any,
    ) -> Any:
        given = list(sys.argv[1:] if args is None else args)
        end = given.index("--") if "--" in given else len(given)
        debug = "--debug" in given[:end]  # taken anywhere on the line: it is added when something has gone wrong
        given, flags = [a for a in given[:end] if a != "--debug"] + given[end:], given[:end]

        def call() -> Any:
            return super(Commands, self).main(
                given, prog_name, complete_var, False, windows_expand_args=windows_expand_args, **extra
            )

        code = _guarded(call, "--json" in flags, debug)
        if standalone_mode:
            sys.exit(code)
        return code

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:  # before Typer makes an exit code of it
            raise Stopped("stopped") from None


def _guarded(call: Callable[[], Any], as_json: bool, debug: bool) -> int:
    """The exit code of a call; errors are told on stderr, and as JSON on stdout where that was asked for."""
    try:
        with _spoken_warnings(debug):
            code = call()
            sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except (BrokenPipeError, SystemExit) as end:
        if isinstance(end, SystemExit) and not isinstance(end.__context__, BrokenPipeError):
            raise  # else Rich or Typer made an exit of a closed pipe
        return _pipe_closed()
    except (Stopped, typer.Abort) as error:
        return _tell(error, str(error) or "stopped", 130, as_json)
    except Exception as error:
        if debug:
            traceback.print_exc()
        if isinstance(error, AnacrusisError):
            return _tell(error, f"error: {error}", 2, as_json)
        if hasattr(error, "format_message"):  # click's errors of usage, whoever's copy of click Typer carries
            return _tell(error, _usage(error), 2, as_json)
        if isinstance(error, OSError) and error.filename:
            return _tell(error, f"error: {error.filename}: {error.strerror}", 2, as_json)
        first = (str(error).strip().splitlines() or ["no message"])[0]
        hint = "" if debug else "; run with --debug for the traceback"
        return _tell(error, f"unexpected error: {type(error).__name__}: {first}{hint}", 1, as_json)


def _tell(error: BaseException, text: str, code: int, as_json: bool) -> int:
    console.say(text, style="bold" if code == 130 else "red")
    if as_json and not getattr(error, "told", False):
        console.emit({"error": text.removeprefix("error: ")})
    return code


def _usage(error: Any) -> str:
    known = getattr(error, "possibilities", None)
    said = f"{error.message}. Did you mean {' or '.join(known)}?" if known else error.format_message()
    path = error.ctx.command_path if getattr(error, "ctx", None) else "anacrusis"
    return f"error: {said}\nSee: {path} --help"


def _pipe_closed() -> int:
    """Nobody reads any more: say nothing, also not when the interpreter flushes at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 141


@contextmanager
def _spoken_warnings(debug: bool) -> Iterator[None]:
    """Our own warnings become notes on stderr; those of libraries are for developers, and shown with --debug."""

    def show(message: Warning | str, *_: Any, **__: Any) -> None:
        console.say(f"note: {message}", style="yellow")

    with warnings.catch_warnings():
        if not debug:
            warnings.simplefilter("ignore")
            warnings.filterwarnings("default", module=r"anacrusis\.")
            warnings.showwarning = show
        yield


# --- options that several commands share

DATA, LEARNING, MODEL, OUTPUT = "The data", "Learning", "The model", "Output"
DataFile = Annotated[
    Path, typer.Argument(metavar="DATA", help="CSV, TSV, JSON lines, JSON or Parquet, with column names.")
]
Folder = Annotated[Path, typer.Argument(metavar="FOLDER", help="A prompt's folder, or the folder of its run.")]
Text = Annotated[
    list[str] | None,
    typer.Option("--text", metavar="COL", rich_help_panel=DATA, help="Column of the input; twice for pairs of texts."),
]
Label = Annotated[
    list[str] | None,
    typer.Option(
        "--label", metavar="COL", rich_help_panel=DATA, help="Column of the answer; several: one 0/1 column a label."
    ),
]
Test = Annotated[Path | None, typer.Option(rich_help_panel=DATA, help="File of test examples, else a share of DATA.")]
Valid = Annotated[
    Path | None, typer.Option(rich_help_panel=DATA, help="File of validation examples, else a share of DATA.")
]
Kind = Annotated[
    str | None,
    typer.Option(rich_help_panel=DATA, help="classification, multilabel or generation; else told by the labels."),
]
Metric = Annotated[
    str | None, typer.Option(rich_help_panel=DATA, help="What is scored, such as accuracy, macro-f1, map or rougeL.")
]
Shots = Annotated[
    int | None,
    typer.Option(rich_help_panel=DATA, help="Learn from this many examples a class, and validate on as many."),
]
SkipBad = Annotated[
    bool, typer.Option("--skip-bad", rich_help_panel=DATA, help="Leave rows out that cannot be used, and say how many.")
]
Encoding = Annotated[str, typer.Option(rich_help_panel=DATA, help="Of the files, such as utf-8 or cp1252.")]
NoQuotes = Annotated[
    bool, typer.Option("--no-quotes", rich_help_panel=DATA, help="A quotation mark is a character like any other.")
]
Delimiter = Annotated[
    str | None, typer.Option(rich_help_panel=DATA, help="Between cells, else comma or semicolon, or a tab in .tsv.")
]
Separator = Annotated[str, typer.Option(rich_help_panel=DATA, help="Between the labels of one cell.")]
SplitColumn = Annotated[
    str | None, typer.Option(metavar="COL", rich_help_panel=DATA, help="Column that says train, valid or test.")
]
Words = Annotated[
    list[str] | None,
    typer.Option("--word", metavar="LABEL=WORD", rich_help_panel=DATA, help="What a language model says for a label."),
]
Seed = Annotated[int, typer.Option(rich_help_panel=LEARNING, help="Of the split and of everything random.")]
ModelName = Annotated[
    str,
    typer.Option("--model", rich_help_panel=MODEL, help="builtin:minilm, a folder, or a name on the Hugging Face hub."),
]
AnyModel = Annotated[
    str | None, typer.Option("--model", rich_help_panel=MODEL, help="Another place of the model that the prompt names.")
]
Dtype = Annotated[str, typer.Option(rich_help_panel=MODEL, help="auto, float32, float16 or bfloat16.")]
Device = Annotated[str, typer.Option(rich_help_panel=MODEL, help="auto, cpu, cuda, cuda:1 or mps.")]
Quantise = Annotated[int | None, typer.Option(metavar="4|8", rich_help_panel=MODEL, help="Bits of a frozen weight.")]
Json = Annotated[bool, typer.Option("--json", rich_help_panel=OUTPUT, help="Results, and errors, as JSON on stdout.")]
Quiet = Annotated[bool, typer.Option("--quiet", rich_help_panel=OUTPUT, help="No progress on stderr.")]


@dataclass(frozen=True, kw_only=True)
class Data:
    """What is said about the data, under the names of the commands' parameters."""

    data: Path
    text: list[str] | None = None
    label: list[str] | None = None
    test: Path | None = None
    valid: Path | None = None
    kind: str | None = None
    metric: str | None = None
    shots: int | None = None
    seed: int = 0
    skip_bad: bool = False
    encoding: str = "utf-8"
    no_quotes: bool = False
    delimiter: str | None = None
    separator: str = "|"
    split_column: str | None = None
    word: list[str] | None = None

    def read(self, **shares: float) -> Task:
        """The task. shares: of valid and test, other than the usual ones."""
        from .task import Split, Task

        return Task.from_file(
            self.data, _one_or_more(self.text), _one_or_more(self.label), test=self.test, valid=self.valid,
            words=pairs(self.word, "--word", "LABEL=WORD") or None, metric=self.metric,
            split=Split(seed=self.seed, shots=self.shots, **shares), kind=self.kind, separator=self.separator,
            split_column=self.split_column, skip_bad=self.skip_bad, encoding=self.encoding,
            delimiter=self.delimiter and self.delimiter.replace("\\t", "\t"), quotes=not self.no_quotes,
        )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Opening:
    """How the model is opened, under the names of the commands' parameters."""

    model: str | None
    dtype: str = "auto"
    device: str = "auto"
    quantise: int | None = None

    def open(self, show: console.Progress, prompt: Prompt | None = None) -> Model:
        """The model that was named, else the one that the prompt's card names."""
        name = self.model or (prompt.card.get("model") if prompt else None)
        if not name:
            raise ConfigError("this prompt does not say which model it was learned for: give it with --model")
        show.phase(f"opening {name}")
        from .model.open import open as open_model

        return open_model(str(name), dtype=self.dtype, device=self.device, quantise=self.quantise)


def _group(kind: type, ctx: typer.Context) -> Any:
    """The options of one group, from all that the command was given."""
    return kind(**{f.name: ctx.params[f.name] for f in fields(kind) if f.name in ctx.params})


def _one_or_more(columns: list[str] | None) -> str | list[str] | None:
    return columns[0] if columns and len(columns) == 1 else columns or None


def pairs(given: Sequence[str] | None, option: str, form: str) -> dict[str, str]:
    """NAME=VALUE texts as a dict. Raises ConfigError for a text of another form, and for a name given twice."""
    found: dict[str, str] = {}
    for text in given or ():
        name, equals, value = text.partition("=")
        if not (name.strip() and equals):
            raise ConfigError(f"{option} {text}: expected {form}, without blanks around the =")
        if name.strip() in found:
            raise ConfigError(f"{option} {text}: {name.strip()!r} is given twice")
        found[name.strip()] = value
    return found


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
    data: DataFile,
    text: Text = None,
    label: Label = None,
    test: Test = None,
    valid: Valid = None,
    kind: Kind = None,
    metric: Metric = None,
    shots: Shots = None,
    skip_bad: SkipBad = False,
    encoding: Encoding = "utf-8",
    no_quotes: NoQuotes = False,
    delimiter: Delimiter = None,
    separator: Separator = "|",
    split_column: SplitColumn = None,
    word: Words = None,
    method: Annotated[
        str | None,
        typer.Option(
            rich_help_panel=LEARNING,
            help="A name from `anacrusis methods`; else residual-prompt-tuning, for generation prefix-tuning.",
        ),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="NAME=VALUE",
            rich_help_panel=LEARNING,
            help="An option of the method or the trainer, see `anacrusis methods NAME`.",
        ),
    ] = None,
    seed: Seed = 0,
    model: ModelName = "builtin:minilm",
    dtype: Dtype = "auto",
    device: Device = "auto",
    quantise: Quantise = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FOLDER", rich_help_panel=OUTPUT, help="Save the prompt here too.")
    ] = None,
    run: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER", rich_help_panel=OUTPUT, help="Keep the run here; an unfinished one is continued."
        ),
    ] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Learn a prompt from DATA and score it on examples that it has not seen.

    For example: anacrusis fit tickets.csv --text message --label team --out tickets
    """
    options = pairs(settings, "--set", "NAME=VALUE, such as --set epochs=5")
    if out is not None:
        _check_out(out)
    task = _quietly(_group(Data, ctx).read)
    first = os.environ.get("RANK", "0") == "0"  # of several processes that train together, one speaks
    with console.Progress(quiet or not first) as show, _resumable(show, run):
        show.phase("loading", brief=True)
        from .registry import get
        from .runs.run import divide
        from .runs.run import fit as learn

        name = method or DEFAULT_METHOD[task.kind]
        divide(get(name), options)  # a misspelt name is refused before the model is opened
        for note in task.notes:
            show.note(note)
        if run is not None and (run / "result.json").exists():
            show.note(f"the run in {run} has ended before: this is its result")
        opened = _group(Opening, ctx).open(show)
        done = learn(name, opened, task, seed=seed, folder=run, options=options, observe=show)
    if first:
        _result(done, out, as_json, task.notes)


@app.command()
def evaluate(
    ctx: typer.Context,
    folder: Folder,
    data: DataFile,
    text: Text = None,
    label: Label = None,
    test: Test = None,
    valid: Valid = None,
    metric: Metric = None,
    shots: Shots = None,
    seed: Annotated[int | None, typer.Option(rich_help_panel=DATA, help="Of the split; else the prompt's own.")] = None,
    skip_bad: SkipBad = False,
    encoding: Encoding = "utf-8",
    no_quotes: NoQuotes = False,
    delimiter: Delimiter = None,
    separator: Separator = "|",
    split_column: SplitColumn = None,
    split: Annotated[
        str | None,
        typer.Option(rich_help_panel=DATA, help="Score train, valid or test, divided as `fit` does; else all of DATA."),
    ] = None,
    model: AnyModel = None,
    dtype: Dtype = "auto",
    device: Device = "auto",
    quantise: Quantise = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Score a saved prompt on DATA: on all of it, or on the part that --split names.

    For example: anacrusis evaluate tickets new-tickets.csv --text message --label team
    """
    with console.Progress(quiet) as show:
        show.phase("loading", brief=True)
        from .measure.evaluate import evaluate as score_on

        prompt = _load(folder)
        given = replace(_group(Data, ctx), kind=_kind_of(prompt), seed=_seed_of(prompt, seed))
        if text is None:
            given = replace(given, text=list(prompt.frame.fields))
        task, notes = _quietly(lambda: _to_score(prompt, given, split))
        for note in notes:
            show.note(note)
        opened = None if prompt.kind == "constant" else _group(Opening, ctx).open(show, prompt)
        count = show.count(f"scoring {len(task.test)} examples", len(task.test))
        score = replace(score_on(prompt, opened, task, done=count), split=split or "all")
    if as_json:
        console.emit({"prompt": str(folder), "data": str(data), **score.to_json(), "notes": notes})
        return
    console.facts([*_score_facts(score), ("seconds", f"{score.seconds:.1f}")])


@app.command()
def predict(
    ctx: typer.Context,
    folder: Folder,
    texts: Annotated[
        list[str] | None,
        typer.Argument(metavar="TEXT", help="Texts to answer; a prompt for pairs takes them two by two."),
    ] = None,
    batch: Annotated[
        int, typer.Option(min=1, help="Lines of stdin answered at a time; 1 answers each as it comes.")
    ] = 256,
    model: AnyModel = None,
    dtype: Dtype = "auto",
    device: Device = "auto",
    quantise: Quantise = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Answer texts with a saved prompt: those on the command line, else the lines of stdin.

    One answer a line, in the same order. Pairs on stdin: the two texts of a line are separated by a tab.
    Several labels are separated by |, none at all is a | alone; line breaks of a written text become blanks.
    With --json: a list of objects with input, answer, and scores from 0 to 1 by class.

    For example: anacrusis predict tickets "my card was charged twice"
    """
    prompt = _load(folder)
    columns = prompt.frame.fields
    lines = _arguments(texts, columns) if texts else _lines(columns)
    if not texts and sys.stdin.isatty():
        batch = 1
        if not quiet:
            console.say("reading lines from the terminal; Ctrl-D ends")
    chunks = _chunks(lines, batch)
    first = next(chunks, None)  # before the model is opened: what is wrong with it should not take seconds to tell
    if first is None:
        raise DataError('nothing to answer: give texts behind the folder, or lines on stdin, as in: echo "text" | ...')
    opened = None
    if prompt.kind != "constant":
        with console.Progress(quiet) as show:
            opened = _group(Opening, ctx).open(show, prompt)
    with console.Answers(as_json) as write:
        for chunk in chain([first], chunks):
            for inputs, (answer, scores) in zip(chunk, _answers(prompt, opened, chunk), strict=True):
                write(inputs, answer, scores)
            write.flush()


@app.command()
def methods(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="Show this one, with its options.")] = None,
    as_json: Json = False,
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
        "options of the trainer": _docs.training_options(method),
        "options of all methods": _docs.frame_options(),
    }
    if as_json:
        described = {
            k: [{"name": o.name, "default": o.default, "meaning": o.meaning} for o in v] for k, v in groups.items()
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
            console.table((title, "default", "meaning"), [(o.name, o.shown, o.meaning) for o in options])
    console.line(f"Change them: anacrusis fit DATA --method {method.name} --set NAME=VALUE")


def _method_record(method: Any) -> dict[str, Any]:
    return {
        "name": method.name, "summary": method.summary, "paper": method.paper, "engine": method.engine,
        "tasks": sorted(method.kinds), "models": sorted(method.arrangements), "needs": sorted(method.needs),
    }  # fmt: skip


@app.command()
def runs(as_json: Json = False) -> None:
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
def resume(
    run: Annotated[str, typer.Argument(metavar="RUN", help="A name from `anacrusis runs`, or a run's folder.")],
    out: Annotated[
        Path | None, typer.Option(metavar="FOLDER", rich_help_panel=OUTPUT, help="Save the prompt here too.")
    ] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Continue a run that was stopped; show the result of one that has ended."""
    if out is not None:
        _check_out(out)
    with console.Progress(quiet) as show:
        show.phase("loading", brief=True)
        from .runs.run import load, read_plan
        from .runs.run import resume as go_on

        folder = _run_folder(run)
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
    folder: Folder,
    out: Annotated[Path, typer.Option(metavar="FOLDER", rich_help_panel=OUTPUT, help="Where it goes.")],
    to: Annotated[str, typer.Option(help="The format: peft.")] = "peft",
    drop_head: Annotated[
        bool, typer.Option("--drop-head", help="Leave out the prompt's classifier, which PEFT cannot hold.")
    ] = False,
    model: AnyModel = None,
    dtype: Dtype = "auto",
    device: Device = "auto",
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Write a prompt in the format of another library. The model is opened only if you name it."""
    if to != "peft":
        raise ConfigError(f"--to {to}: this format is not known.{did_you_mean(to, ['peft'])}")
    _check_out(out, "prompt.json", "adapter_config.json")
    prompt = _load(folder)
    from .prompt import peft

    with console.Progress(quiet) as show:
        opened = _group(Opening, ctx).open(show) if model else None
        peft.export(prompt, out, opened, drop_head=drop_head)
    if as_json:
        console.emit({"prompt": str(folder), "format": to, "folder": str(out)})
    else:
        console.line(f"Written to {console.shown(out)}. With the peft package, on the same network:")
        console.line(f"  PeftModel.from_pretrained(network, {str(out)!r})")


@app.command("import")
def bring_in(
    ctx: typer.Context,
    folder: Annotated[
        Path, typer.Argument(metavar="PEFT", help="A PEFT folder, or a file with one matrix of vectors.")
    ],
    model: Annotated[str, typer.Option(rich_help_panel=MODEL, help="The model that it was learned for.")],
    out: Annotated[Path, typer.Option(metavar="FOLDER", rich_help_panel=OUTPUT, help="Where the prompt goes.")],
    text: Annotated[list[str] | None, typer.Option("--text", metavar="NAME", help="Of an input; else text.")] = None,
    template: Annotated[
        str | None, typer.Option(help='How inputs are laid out, such as "{text} Topic:"; else one after the other.')
    ] = None,
    word: Annotated[
        list[str] | None,
        typer.Option("--word", metavar="LABEL=WORD", help="A class, and what stands for it; else text is written."),
    ] = None,
    readout: Annotated[
        str | None, typer.Option(help="label-words, lm, similarity or generate; else what the model can do.")
    ] = None,
    task: Annotated[int | None, typer.Option(metavar="N", help="Which task of a multitask prompt.")] = None,
    drop_head: Annotated[
        bool, typer.Option("--drop-head", help="Leave out a classifier that was trained along.")
    ] = False,
    dtype: Dtype = "auto",
    device: Device = "auto",
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Make a prompt's folder from a PEFT checkpoint, which does not say how inputs and answers are laid out: say it.

    For example: anacrusis import checkpoint --model gpt2 --out tone --template "{text} Tone:" --word good=nice --word ...
    """
    _check_out(out)
    words = pairs(word, "--word", "LABEL=WORD")
    if not folder.exists():
        raise DataError(f"no such folder or file: {folder}")
    from .prompt import peft

    with console.Progress(quiet) as show:
        opened = _group(Opening, ctx).open(show)
        said = text or template or words or readout
        frame = _frame(opened, text or ["text"], template, words, readout) if said else None
        prompt = peft.load(folder, opened, frame, task=task, drop_head=drop_head)
    prompt.save(out)
    if as_json:
        console.emit({"prompt": str(out), "kind": prompt.kind, "values": prompt.size})
    else:
        console.line(f"A {prompt.kind} prompt of {prompt.size:,} values, saved in {console.shown(out)}.")
        _next(out)


@app.command()
def demo(
    out: Annotated[Path, typer.Option(metavar="FOLDER", rich_help_panel=OUTPUT, help="Save the prompt here.")] = Path(
        "anacrusis-demo"
    ),
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Learn a prompt on 328 messages to a webshop, beside three baselines. About two minutes, no download."""
    _check_out(out)
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
    _next(out)


# --- helpers


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


def _frame(
    model: Model, columns: Sequence[str], template: str | None, words: dict[str, str], readout: str | None
) -> Frame:
    """What a PEFT folder leaves open: how an example is laid out, and how the answer is read."""
    from .prompt.values import Frame

    if readout is None:
        readout = "generate" if not words else "label-words" if "logprobs" in model.can else "similarity"
    return Frame(
        fields=tuple(columns), labels=tuple(words), words=tuple(words.values()), readout=readout, pool=model.pool,
        template=template or " ".join("{" + name + "}" for name in columns),
    )  # fmt: skip


def _check_out(out: Path, *marks: str) -> None:
    """Refuse a folder that holds something else: a prompt's three files would replace a README.md there."""
    if out.exists() and not out.is_dir():
        raise ConfigError(f"--out {out} is a file; name a folder")
    if out.is_dir() and any(out.iterdir()) and not any((out / mark).exists() for mark in marks or ("prompt.json",)):
        raise ConfigError(f"--out {out} holds other files; name a new folder")


def _load(folder: Path) -> Prompt:
    from .prompt.store import load

    inside = folder / "prompt"
    return load(inside if not (folder / "prompt.json").exists() and (inside / "prompt.json").exists() else folder)


def _run_folder(run: str) -> Path:
    from .runs.run import listing, runs_folder

    for path in (Path(run), runs_folder() / run):
        if (path / "run.json").exists():
            return path
    known = did_you_mean(run, [r["name"] for r in listing()])
    raise RunError(f"no run {run!r} here or in {runs_folder()}.{known}")


def _kind_of(prompt: Prompt) -> str:
    if prompt.frame.readout == "generate" or not prompt.frame.labels:
        return "generation"
    return "multilabel" if prompt.frame.multi else "classification"


def _seed_of(prompt: Prompt, seed: int | None) -> int:
    return int(prompt.card.get("seed", 0)) if seed is None else seed


def _to_score(prompt: Prompt, given: Data, split: str | None) -> tuple[Task, list[str]]:
    """The wanted examples as the test part of a task with the prompt's classes, and what is to be known about them."""
    if split not in (None, "train", "valid", "test"):
        raise ConfigError(f"--split {split}: expected train, valid or test")
    if split is None and (given.test or given.valid or given.shots):
        raise ConfigError("--test, --valid and --shots divide the data: say which part is to be scored, --split test")
    task = given.read() if split else given.read(valid=0.0, test=0.0)
    if len(task.fields) != len(prompt.frame.fields):
        raise ConfigError(
            f"the prompt reads {len(prompt.frame.fields)} texts ({', '.join(prompt.frame.fields)}), but --text names "
            f"{len(task.fields)}"
        )
    examples: tuple[Example, ...] = getattr(task, split) if split else (*task.train, *task.valid, *task.test)
    notes = list(task.notes)
    if _learned_from(prompt, given, task if split else None) and split in (None, "train"):
        notes.append(
            "the prompt was learned from a part of these examples, so this score flatters; "
            "--split test scores those that it has not seen"
        )
    labels = prompt.frame.labels
    words = prompt.frame.words if len(prompt.frame.words) == len(labels) else labels
    moved = tuple(_in_classes(e, task.labels, labels) for e in examples)
    return replace(task, labels=labels, words=words, train=(), valid=(), test=moved), notes


def _in_classes(example: Example, names: Sequence[str], labels: Sequence[str]) -> Example:
    """The example with its classes counted as the prompt counts them."""
    gold = example.gold
    if not isinstance(gold, int | tuple):
        return example
    several = gold if isinstance(gold, tuple) else (gold,)
    for name in (names[i] for i in several):
        if name not in labels:
            raise DataError(f"{example.where}: the prompt does not answer {name!r}.{did_you_mean(name, labels)}")
    found = tuple(sorted(labels.index(names[i]) for i in several))
    return replace(example, gold=found if isinstance(gold, tuple) else found[0])


def _learned_from(prompt: Prompt, given: Data, task: Task | None) -> bool:
    """Whether these data, divided as `fit` does, are those of the prompt's card."""
    try:
        return (task or given.read()).fingerprint == prompt.card.get("data")
    except AnacrusisError:  # they cannot be divided, so it did not learn from them
        return False


Inputs = tuple[str, ...]


def _arguments(texts: Sequence[str], columns: Sequence[str]) -> Iterator[Inputs]:
    n = len(columns)
    if len(texts) % n:
        raise DataError(f"{len(texts)} texts given; this prompt reads {n} at a time: {', '.join(columns)}")
    for i, text in enumerate(texts, 1):
        if not text.strip():
            raise DataError(f"text {i} is empty")
    yield from _chunks(texts, n)


def _chunks(items: Iterable[Any], size: int) -> Iterator[tuple[Any, ...]]:
    them = iter(items)
    while chunk := tuple(islice(them, size)):
        yield chunk


def _lines(columns: Sequence[str]) -> Iterator[Inputs]:
    """The lines of stdin; of pairs, split at the tab. Raises DataError that names the line."""
    stream, n, number = sys.stdin.buffer, len(columns), 0
    while raw := stream.readline(MAX_LINE + 1):
        number += 1
        if len(raw) > MAX_LINE:
            raise DataError(f"line {number} of stdin is longer than {MAX_LINE:,} bytes")
        try:
            text = raw.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
        except UnicodeDecodeError as error:
            raise DataError(f"line {number} of stdin is not UTF-8 (byte {error.start})") from error
        inputs = tuple(text.split("\t")) if n > 1 else (text,)
        if len(inputs) != n:
            raise DataError(
                f"line {number} of stdin has {len(inputs)} texts; this prompt reads {n}, separated by tabs: "
                f"{', '.join(columns)}"
            )
        if not all(t.strip() for t in inputs):
            raise DataError(f"line {number} of stdin is empty{' in part' if text.strip() else ''}")
        yield inputs


def _answers(prompt: Prompt, model: Model | None, chunk: Sequence[Inputs]) -> Iterator[tuple[Any, Any]]:
    """An answer and the scores by class (None for written text) for each input."""
    from .measure.predict import answers, scores
    from .measure.predict import predict as write

    if prompt.frame.readout == "generate":
        return ((text, None) for text in write(prompt, chunk, model))
    z = scores(prompt, chunk, model)  # type: ignore[arg-type]  # None only where the answer is constant
    shares = (z.sigmoid() if prompt.frame.multi else z.softmax(-1)).tolist()
    named = ({k: round(v, 6) for k, v in zip(prompt.frame.labels, row, strict=True)} for row in shares)
    return zip(answers(prompt, z), named, strict=True)


def _result(run: Run, out: Path | None, as_json: bool, notes: Sequence[str]) -> None:
    """What a run gave, and what to type next."""
    assert run.folder is not None
    if out is not None:
        run.prompt.save(out)
    saved = out or run.folder / "prompt"
    if as_json:
        console.emit({
            "run": str(run.folder), "prompt": str(saved), "method": run.plan.method, "model": run.plan.model,
            "task": run.plan.task, "seed": run.plan.seed, "score": run.score.to_json() if run.score else None,
            "valid": run.valid, "parameters": run.parameters, "seconds": round(run.seconds, 2), "notes": list(notes),
        })  # fmt: skip
        return
    rows = _score_facts(run.score) if run.score else [("score", "none: there are no test examples")]
    console.facts([
        ("method", f"{run.plan.method} on {run.plan.model}"), *rows, ("trained parameters", f"{run.parameters:,}"),
        ("seconds of learning", f"{run.seconds:.1f}"), ("prompt", console.shown(saved)),
    ])  # fmt: skip
    _next(saved)


def _score_facts(score: Score) -> list[tuple[str, str]]:
    what = "examples" if score.split == "all" else f"{score.split} examples"
    rows = [(score.metric, f"{console.between(score.value, score.low, score.high)}  (95 % interval, {score.n} {what})")]
    return rows + [(k, console.between(i.value, i.low, i.high)) for k, i in score.others.items()]


def _next(folder: Path) -> None:
    console.line(f'Next:  anacrusis predict {console.shown(folder)} "text"')


def main() -> None:
    app(prog_name="anacrusis")


if __name__ == "__main__":
    main()
