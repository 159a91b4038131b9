"""What the commands read: prompts' and runs' folders, examples to score, texts to answer."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ._options import Data
from .errors import ConfigError, DataError, RunError, did_you_mean

if TYPE_CHECKING:
    from .model.model import Model
    from .prompt.values import Frame, Prompt
    from .task import Example, Task

MAX_LINE = 10_000_000  # bytes of one line on stdin; a longer one is a mistake, and must not fill the memory
Inputs = tuple[str, ...]
FLATTERS = (
    "the prompt was learned from a part of these examples, so this score flatters; --split test scores those that it "
    "has not seen"
)

LEARNED = "the prompt was learned from these very examples, so any score on them flatters: give others"
UNKNOWN = "if the prompt was learned from some of these examples, a score on them flatters: that cannot be told here"


# --- folders


def check_out(folder: Path | None, *marks: str, option: str = "--out") -> None:
    """Refuse a folder that holds something else: a prompt's three files would replace a README.md there.

    marks: files of which one tells that the folder is what it should be; else prompt.json.
    """
    if folder is None or not folder.exists():
        return
    if not folder.is_dir():
        raise ConfigError(f"{option} {folder} is a file; name a folder")
    if any(folder.iterdir()) and not any((folder / mark).exists() for mark in marks or ("prompt.json",)):
        raise ConfigError(f"{option} {folder} holds other files; name a new folder")


def load_prompt(folder: Path) -> Prompt:
    from .prompt.store import load

    inside = folder / "prompt"
    return load(inside if not (folder / "prompt.json").exists() and (inside / "prompt.json").exists() else folder)


def run_folder(run: str, *more: str) -> Path:
    """The folder of a run, by its path or name. more: files that mark what else is meant, such as compare.json."""
    marks = ("run.json", *more)
    from .runs.run import runs_folder

    for path in (Path(run), runs_folder() / run):
        if any((path / mark).exists() for mark in marks):
            return path
    names = [file.parent.name for mark in marks for file in runs_folder().glob(f"*/{mark}")]
    raise RunError(f"no run {run!r} here or in {runs_folder()}.{did_you_mean(run, names)}")


# --- examples to score


def _kind_of(prompt: Prompt) -> str:
    if prompt.frame.readout == "generate" or not prompt.frame.labels:
        return "generation"
    return "multilabel" if prompt.frame.multi else "classification"


def reads_pictures(columns: Sequence[str]) -> bool:
    """Whether these are the fields of a prompt for pictures."""
    return tuple(columns) == ("image",)


def to_score(
    prompt: Prompt, given: Data, split: str | None, done: Callable[[int, int], None] | None = None
) -> tuple[Task, list[str]]:
    """The wanted examples as the test part of a task with the prompt's classes, and what is to be known about them.

    Where --classes asks for classes that the prompt was not learned on, the task keeps its own.
    done: called with (pictures opened so far, all of them).
    """
    from .task.shift import half_of, redrawn
    from .task.splits import pooled

    if split not in (None, "train", "valid", "test"):
        raise ConfigError(f"--split {split}: expected train, valid or test")
    if split is None and (given.test or given.valid or given.shots):
        raise ConfigError("--test, --valid and --shots divide the data: say which part is to be scored, --split test")
    card = prompt.card
    seed = card.get("split_seed", card.get("seed", 0)) if given.seed is None else given.seed
    given = replace(_for_fields(given, prompt.frame.fields), kind=_kind_of(prompt), seed=seed)
    whole = given.whole(done) if split else given.whole(done, valid=0.0, test=0.0)
    if split in ("train", "valid") and card.get("redrawn"):
        whole = redrawn(whole, *card["redrawn"])
    task = half_of(whole, given.classes or "all")
    if len(task.fields) != len(prompt.frame.fields):
        raise ConfigError(
            f"the prompt reads {len(prompt.frame.fields)} texts ({', '.join(prompt.frame.fields)}), but --text names "
            f"{len(task.fields)}"
        )
    if (task.modality == "image") != reads_pictures(prompt.frame.fields):
        raise ConfigError(
            f"the prompt reads {' and '.join(prompt.frame.fields)}, and {given.data} holds "
            f"{'pictures' if task.modality == 'image' else 'texts'}"
        )
    examples: tuple[Example, ...] = getattr(task, split) if split else (*task.train, *task.valid, *task.test)
    notes = list(task.notes)
    divided = whole if split else divided_by(whole, seed, card.get("shots"))
    if card.get("redrawn") and split in (None, "test"):
        divided = redrawn(divided, *card["redrawn"])
    halves = ("all", "base") if given.classes == "all" and len(whole.labels) >= 4 else (given.classes or "all",)
    known = {half_of(divided, half).fingerprint for half in halves}
    if card.get("data") in known and split in (None, "train", "valid"):
        notes.append(FLATTERS)
    elif split is None and card.get("learned") == pooled(examples):
        notes.append(LEARNED)
    labels = prompt.frame.labels
    if given.classes and (unseen := [name for name in task.labels if name not in labels]):
        notes.append(f"{len(unseen)} of {len(task.labels)} classes are new to the prompt, such as {unseen[0]!r}")
        return replace(task, train=(), valid=(), test=examples), notes
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


def _for_fields(given: Data, columns: Sequence[str]) -> Data:
    """The data with the prompt's own field for a column that is not named."""
    if given.data.is_dir():
        return given
    if reads_pictures(columns):
        if given.text:
            raise ConfigError(f"--text {given.text[0]}: this prompt reads pictures; name their column with --image")
        return replace(given, image=given.image or columns[0])
    return given if given.image else replace(given, text=given.text or list(columns))


def divided_by(task: Task, seed: int, shots: int | None) -> Task:
    """The task, read without drawing parts, divided as `fit` does it."""
    from .task.splits import Split, divide, strata

    stratum = strata(task.train, list(task.labels))
    train, valid, test = divide(task.train, task.valid or None, task.test or None, Split(seed, shots=shots), stratum)
    return replace(task, train=train, valid=valid, test=test)


# --- texts to answer


def from_arguments(texts: Sequence[str], columns: Sequence[str]) -> Iterator[Inputs]:
    n = len(columns)
    if len(texts) % n:
        raise DataError(f"{len(texts)} texts given; this prompt reads {n} at a time: {', '.join(columns)}")
    for i, text in enumerate(texts, 1):
        if not text.strip():
            raise DataError(f"text {i} is empty")
    if reads_pictures(columns):
        from .task.images import load

        for text in texts:
            load(text)  # a misspelt or broken one is told before the model is opened
    yield from chunks(texts, n)


def chunks(items: Iterable[Any], size: int) -> Iterator[tuple[Any, ...]]:
    them = iter(items)
    while chunk := tuple(islice(them, size)):
        yield chunk


def from_stdin(columns: Sequence[str]) -> Iterator[Inputs]:
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
        if reads_pictures(columns):
            from .task.images import load

            try:
                load(text)
            except DataError as error:
                raise DataError(f"line {number} of stdin: {error}") from error
        yield inputs


def answers_to(prompt: Prompt, model: Model | None, chunk: Sequence[Inputs]) -> Iterator[tuple[Any, Any]]:
    """An answer and the scores by class (None where a model only writes) for each input; the answer is None for a
    reply that names no class."""
    from .measure.predict import answers, as_inputs, scores
    from .measure.predict import predict as write

    if prompt.frame.readout in ("generate", "answer"):
        return ((text, None) for text in write(prompt, chunk, model))
    pictures = reads_pictures(prompt.frame.fields)
    z = scores(prompt, as_inputs([x[0] for x in chunk], prompt.frame.fields) if pictures else chunk, model)
    shares = (z.sigmoid() if prompt.frame.multi else z.softmax(-1)).tolist()
    named = ({k: round(v, 6) for k, v in zip(prompt.frame.labels, row, strict=True)} for row in shares)
    return zip(answers(prompt, z), named, strict=True)


# --- what a PEFT folder leaves open


def frame_for(
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
