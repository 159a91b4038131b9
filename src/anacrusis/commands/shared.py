"""What several commands share."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import console
from .._inputs import (
    reads_pictures,
)
from ..errors import ConfigError

if TYPE_CHECKING:
    from ..measure.evaluate import Score
    from ..prompt.values import Prompt

MANY = 500  # pictures: fewer are opened or drawn at once


def reading(show: console.Progress) -> Callable[[int, int], None]:
    """Shows how many pictures have been opened, where that takes a while."""
    counts: list[Callable[[int], None]] = []

    def done(_: int, total: int) -> None:
        if total < MANY:
            return
        if not counts:
            counts.append(show.count(f"opening {total:,} pictures", total))
        counts[0](1)

    return done


def drawn_at(path: Path | None) -> None:
    """Raises ConfigError for a picture's name that nothing can be drawn under, before anything is computed."""
    if path is not None:
        from ..report.pictures import png

        png(path)


def strength(corruption: str | None, severity: int | None) -> int:
    """Of a corruption, 1 to 5; 3 where nothing is said. Raises ConfigError before anything is read."""
    strength = 3 if severity is None else severity
    if corruption is not None:
        from ..task.corruptions import check

        check(corruption, strength)
    elif severity is not None:
        raise ConfigError(f"--severity {severity}: of what? Name it with --corruption, such as --corruption fog")
    return strength


def some(items: Sequence[Any], most: int, seed: int) -> list[Any]:
    from ..search.search import some

    return some(items, most, seed)


def quietly(read: Callable[[], Any]) -> Any:
    """Reads data without Python's warnings: the same sentences are in Task.notes, which are shown."""
    from ..task import DataWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DataWarning)
        return read()


def score_facts(score: Score) -> list[tuple[str, str]]:
    what = "examples" if score.split == "all" else f"{score.split} examples"
    rows = [(score.metric, f"{console.between(score.value, score.low, score.high)}  (95 % interval, {score.n} {what})")]
    return rows + [(k, console.between(i.value, i.low, i.high)) for k, i in score.others.items()]


def say_next(folder: Path, prompt: Prompt) -> None:
    columns = prompt.frame.fields
    texts = " ".join(f'"{name}"' for name in columns) if len(columns) > 1 else '"text"'
    texts = "picture.jpg" if reads_pictures(columns) else texts
    console.line(f"Next:  anacrusis predict {console.shown(folder)} {texts}")
