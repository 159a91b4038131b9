"""What the commands take: options that several of them share, and the groups that they are read into."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import console
from .errors import ConfigError

if TYPE_CHECKING:
    from .model.model import Model
    from .prompt.values import Prompt
    from .task import Task

DATA, LEARNING, MODEL, OUTPUT = "The data", "Learning", "The model", "Output"  # panels of --help
SEARCH = "Searching (methods that learn by trial)"


def option(panel: str | None, said: str, *names: str, metavar: str | None = None) -> Any:
    return typer.Option(*names, help=said, metavar=metavar, rich_help_panel=panel)


def argument(metavar: str, said: str) -> Any:
    return typer.Argument(metavar=metavar, help=said)


DataFile = Annotated[
    Path,
    argument("DATA", "CSV, TSV, JSON lines, JSON or Parquet, with column names; or a folder of pictures by class."),
]
Folder = Annotated[Path, argument("FOLDER", "A prompt's folder, or the folder of its run.")]

Text = Annotated[
    list[str] | None, option(DATA, "Column of the input; twice for pairs of texts.", "--text", metavar="COL")
]
Label = Annotated[
    list[str] | None, option(DATA, "Column of the answer; several: one 0/1 column a label.", "--label", metavar="COL")
]
Image = Annotated[str | None, option(DATA, "Column of pictures' files, instead of --text.", "--image", metavar="COL")]
Test = Annotated[Path | None, option(DATA, "File of test examples, else a share of DATA.")]
Valid = Annotated[Path | None, option(DATA, "File of validation examples, else a share of DATA.")]
Kind = Annotated[str | None, option(DATA, "classification, multilabel or generation; else told by the labels.")]
Metric = Annotated[str | None, option(DATA, "What is scored, such as accuracy, macro-f1, map or rougeL.")]
Shots = Annotated[int | None, option(DATA, "Learn from this many examples a class, and validate on as many.")]
SkipBad = Annotated[bool, option(DATA, "Leave rows out that cannot be used, and say how many.", "--skip-bad")]
Encoding = Annotated[str, option(DATA, "Of the files, such as utf-8 or cp1252.")]
NoQuotes = Annotated[bool, option(DATA, "A quotation mark is a character like any other.", "--no-quotes")]
Delimiter = Annotated[str | None, option(DATA, "Between cells, else comma or semicolon, or a tab in .tsv.")]
Separator = Annotated[str, option(DATA, "Between the labels of one cell.")]
SplitColumn = Annotated[str | None, option(DATA, "Column that says train, valid or test.", metavar="COL")]
Words = Annotated[
    list[str] | None, option(DATA, "What a language model says for a label.", "--word", metavar="LABEL=WORD")
]
PromptSeed = Annotated[int | None, option(DATA, "Of the split; else the prompt's own.")]
Part = Annotated[str | None, option(DATA, "Score train, valid or test, divided as `fit` does; else all of DATA.")]

Half = Annotated[
    str | None, option(DATA, "base: the first half of the classes by name; new: the others; else all.", "--classes")
]
Protocol = Annotated[
    str | None,
    option(DATA, "base-to-new: scores on the classes that were learned, and on the others.", metavar="NAME"),
]
Sheet = Annotated[Path | None, option(OUTPUT, "Draw the hardest mistakes here, on one sheet.", metavar="PNG")]
Corruption = Annotated[
    str | None, option(DATA, "Make the pictures worse: fog, gaussian-noise, motion-blur and others.", "--corruption")
]
Severity = Annotated[int | None, option(DATA, "Of the corruption, 1 to 5; else 3.", metavar="1..5")]

MethodName = Annotated[
    str | None,
    option(
        LEARNING, "From `anacrusis methods`; else residual-prompt-tuning, prefix-tuning to write, coop for pictures."
    ),
]
Settings = Annotated[
    list[str] | None,
    option(LEARNING, "An option that `anacrusis methods NAME` lists.", "--set", metavar="NAME=VALUE"),
]
Seed = Annotated[int, option(LEARNING, "Of the split and of everything random.")]

Writer = Annotated[str | None, option(SEARCH, "Model that writes proposals; else the model itself, if it writes.")]
Judge = Annotated[str | None, option(SEARCH, "Model that compares answers; else the writer.")]
Spend = Annotated[
    str | None,
    option(SEARCH, "Never more than this: $2, 500calls, 100ktokens, 10min; several with commas; or none.", "--budget"),
]
Prices = Annotated[
    list[str] | None,
    option(SEARCH, "Dollars per million tokens, in and out; roles: task, writer, judge.", "--price",
           metavar="ROLE=IN/OUT"),
]  # fmt: skip
StoreAt = Annotated[
    str | None, option(SEARCH, "File or database (postgresql://...) that runs share; else one in the run.", "--store")
]
Asked = Annotated[str, option(SEARCH, "Where a person is asked: file or terminal.", "--person")]
Planned = Annotated[bool, option(SEARCH, "Show what it would cost, and spend nothing.", "--plan")]
BaseURL = Annotated[
    str | None, option(MODEL, "Of the API behind openai:NAME; else $OPENAI_BASE_URL.", "--base-url", metavar="URL")
]
Concurrency = Annotated[int | None, option(MODEL, "Requests to an API at once; else 8.", "--concurrency")]

ModelName = Annotated[
    str | None,
    option(
        MODEL,
        "builtin:minilm (texts) and builtin:tiny-clip (pictures) unless you name a folder, a name on the Hugging Face "
        "hub, or openai:NAME.",
        "--model",
    ),
]
AnyModel = Annotated[str | None, option(MODEL, "Another place of the model that the prompt names.", "--model")]
Dtype = Annotated[str, option(MODEL, "auto, float32, float16 or bfloat16.")]
Device = Annotated[str, option(MODEL, "auto, cpu, cuda, cuda:1 or mps.")]
Quantise = Annotated[int | None, option(MODEL, "Bits of a frozen weight.", metavar="4|8")]

Out = Annotated[Path, option(OUTPUT, "Where it is written.", metavar="FOLDER")]
CopyTo = Annotated[Path | None, option(OUTPUT, "Save the prompt here too.", "--out", metavar="FOLDER")]
RunAt = Annotated[
    Path | None, option(OUTPUT, "Keep the run here; an unfinished one is continued.", "--run", metavar="FOLDER")
]
Json = Annotated[bool, option(OUTPUT, "Results, and errors, as JSON on stdout.", "--json")]
Quiet = Annotated[bool, option(OUTPUT, "No progress on stderr.", "--quiet")]

DropHead = Annotated[bool, option(None, "Leave out a classifier, which PEFT prompts cannot hold.", "--drop-head")]
Template = Annotated[
    str | None, option(None, 'How inputs are laid out, such as "{text} Topic:"; else just their texts.')
]
Fields = Annotated[list[str] | None, option(None, "Name of an input; else text.", "--text", metavar="NAME")]
Classes = Annotated[
    list[str] | None, option(None, "A class and its word; none: text is written.", "--word", metavar="LABEL=WORD")
]
Readout = Annotated[str | None, option(None, "label-words, lm, similarity or generate; else what the model can do.")]


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
    seed: int | None = 0
    skip_bad: bool = False
    encoding: str = "utf-8"
    no_quotes: bool = False
    delimiter: str | None = None
    separator: str = "|"
    split_column: str | None = None
    word: list[str] | None = None
    image: str | None = None
    classes: str | None = None

    def __post_init__(self) -> None:
        if self.classes is not None:  # now, for pictures take long to read
            from .task.shift import check_half

            check_half(self.classes)

    def read(self, done: Callable[[int, int], None] | None = None) -> Task:
        """The task. done: called with (pictures opened so far, all of them)."""
        from .task.shift import half_of

        return half_of(self.whole(done), self.classes or "all")

    def whole(self, done: Callable[[int, int], None] | None = None, **shares: float) -> Task:
        """The task of all classes. shares: of valid and test, other than the usual ones."""
        from .task import Split, Task

        split = Split(seed=self.seed or 0, shots=self.shots, **shares)
        words = pairs(self.word, "--word", "LABEL=WORD") or None
        if self.data.is_dir():
            for name in ("text", "label", "image", "split_column"):
                if getattr(self, name):
                    raise ConfigError(
                        f"--{name.replace('_', '-')} names a column, and {self.data} is a folder: the names of the "
                        "folders in it are the classes. Leave it out"
                    )
            return Task.from_folder(
                self.data, test=self.test, valid=self.valid, words=words, split=split, metric=self.metric,
                kind=self.kind, skip_bad=self.skip_bad, done=done,
            )  # fmt: skip
        return Task.from_file(
            self.data, _one_or_more(self.text), _one_or_more(self.label), test=self.test, valid=self.valid,
            words=words, metric=self.metric, split=split, kind=self.kind, separator=self.separator,
            split_column=self.split_column, skip_bad=self.skip_bad, encoding=self.encoding,
            delimiter=self.delimiter and self.delimiter.replace("\\t", "\t"), quotes=not self.no_quotes,
            image=self.image, done=done,
        )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Opening:
    """How the model is opened, under the names of the commands' parameters."""

    model: str | None
    dtype: str = "auto"
    device: str = "auto"
    quantise: int | None = None
    base_url: str | None = None
    concurrency: int | None = None

    def open(self, show: console.Progress, prompt: Prompt | None = None) -> Model:
        """The model that was named, else the one that the prompt's card names."""
        name = self.model or (prompt.card.get("model") if prompt else None)
        if not name:
            raise ConfigError("this prompt does not say which model it was learned for: give it with --model")
        show.phase(f"opening {name}")
        from .model.open import open as open_model

        return open_model(str(name), **self.given)

    @property
    def given(self) -> dict[str, Any]:
        return {"dtype": self.dtype, "device": self.device, "quantise": self.quantise, "base_url": self.base_url,
                "concurrency": self.concurrency}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Searches:
    """What a search may use, under the names of the commands' parameters."""

    writer: str | None = None
    judge: str | None = None
    budget: str | None = None
    price: list[str] | None = None
    store: str | None = None
    person: str = "file"

    def means(self, opening: Opening) -> Any:
        from .runs.searching import Means

        budget = "" if self.budget == "none" else self.budget or ""
        return Means(self.writer, self.judge, budget, pairs(self.price, "--price", "ROLE=IN/OUT"),
                     self.store or "", self.person, opening.given)  # fmt: skip

    def given(self) -> str:
        """The first of these options that was given, as it is typed; "" for none."""
        usual = Searches()
        changed = (f.name for f in fields(self) if (getattr(self, f.name) or None) != getattr(usual, f.name))
        return next(("--" + name for name in changed), "")


def group(kind: type, ctx: typer.Context) -> Any:
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
