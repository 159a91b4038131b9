"""What a report shows beside a leaderboard: which methods pay, what the best gets wrong, how its words came about.

Letters: S seeds, N examples, C classes.
"""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..measure.intervals import each
from ..runs import journal
from ..search.candidate import Candidate
from ..search.ledger import Scored
from ..task import Example, Task, golds_of
from ..task.metrics import aligned, find
from .search import History

EACH = {"classification": "accuracy", "multilabel": "exact-match", "generation": "rougeL"}  # one number an example
RIGHT = 0.5  # of that number, from which an answer counts as right
NONE = "no answer"  # of a reply that names no class
LONG = 600  # characters of an input that are shown


# --- what pays


def front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Indexes of the (cost, score) pairs that no other beats: none costs at most as much and scores at least as high,
    one of the two truly. From the cheapest on. Equal pairs are all kept."""
    order = sorted(range(len(points)), key=lambda i: (points[i][0], -points[i][1]))
    kept: list[int] = []
    for i in order:
        if not kept or points[i][1] > points[kept[-1]][1] or points[i] == points[kept[-1]]:
            kept.append(i)
    return kept


# --- classes


@dataclass(frozen=True)
class ClassRow:
    label: str
    precision: float
    recall: float
    f1: float
    n: int  # examples of it


def by_class(task: Task, golds: Sequence[Any], said: Sequence[Any]) -> list[ClassRow]:
    """Precision, recall and F1 of each class, over all seeds' answers together. golds: (N,); said: S times (N,), or
    (N, C) scores of several labels. 0 where a class is never given or never gold."""
    from sklearn.metrics import precision_recall_fscore_support

    true, given = _pooled(task, golds, said)
    p, r, f, n = precision_recall_fscore_support(true, given, labels=range(len(task.labels)), zero_division=0)
    return [
        ClassRow(label, float(p[c]), float(r[c]), float(f[c]), int(n[c]) // len(said))
        for c, label in enumerate(task.labels)
    ]


def confusion(task: Task, golds: Sequence[int], said: Sequence[Any]) -> NDArray[np.int64]:
    """(C, C + 1) answers by gold class (rows) and answer (columns; the last: no class named), over all seeds."""
    from sklearn.metrics import confusion_matrix

    C = len(task.labels)
    return np.asarray(confusion_matrix(*_pooled(task, golds, said), labels=[*range(C), -1]))[:C]


def confused(counts: NDArray[np.int64], labels: Sequence[str], most: int) -> list[tuple[str, str, int, float]]:
    """The most frequent mistakes of a confusion: (gold, answer, times, share of the gold's answers)."""
    names, sums = [*labels, NONE], counts.sum(1)
    found = [(names[g], names[a], int(n), float(n / sums[g])) for (g, a), n in np.ndenumerate(counts) if n and g != a]
    return sorted(found, key=lambda x: -x[2])[:most]


def _pooled(task: Task, golds: Sequence[Any], said: Sequence[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    if task.kind == "multilabel":
        true = np.zeros((len(golds), len(task.labels)), np.int64)
        for i, several in enumerate(golds):
            true[i, list(several)] = 1
        return np.concatenate([true] * len(said)), np.concatenate([np.asarray(x) > 0 for x in said]).astype(np.int64)
    return np.tile(np.asarray(golds), len(said)), np.concatenate([np.asarray(x) for x in said])


# --- mistakes


@dataclass(frozen=True)
class Mistake:
    """An example that most seeds of a method get wrong. inputs: (field, text); said: (answer, by how many seeds).
    better: the other methods that most of their seeds get it right, of `rivals`."""

    at: int  # in the test examples
    inputs: tuple[tuple[str, str], ...]
    gold: str
    said: tuple[tuple[str, int], ...]
    seeds: int
    better: tuple[str, ...]
    rivals: int
    where: str

    @property
    def others(self) -> int:
        return len(self.better)


def mistakes(task: Task, said: Sequence[Any], rivals: Mapping[str, Sequence[Any]]) -> list[Mistake]:
    """The test examples that most seeds get wrong; first those that most other methods get right.

    said: the predictions of each seed; rivals: those of the other methods.
    """
    share = right(task, said)  # (N,)
    theirs = {name: right(task, given) >= 0.5 for name, given in rivals.items()}
    wrong = [int(i) for i in np.flatnonzero(share < 0.5)]
    found = [
        Mistake(
            i, tuple((name, _shown(task, text)) for name, text in zip(task.fields, task.test[i].inputs, strict=True)),
            short(gold_of(task, task.test[i])), tuple(Counter(short(answer(task, p[i])) for p in said).most_common()),
            len(said), tuple(name for name, ok in theirs.items() if ok[i]), len(theirs), task.test[i].where,
        )
        for i in wrong
    ]  # fmt: skip
    return sorted(found, key=lambda m: (-m.others, share[m.at], m.at))


def _shown(task: Task, text: str) -> str:
    """An input; of a picture, its file's name: where the file lies is nobody's business."""
    return Path(text).name if task.modality == "image" else short(text)


def right(task: Task, said: Sequence[Any]) -> NDArray[np.float64]:
    """(N,) the share of seeds that answer each test example rightly."""
    metric, golds = find(EACH[task.kind]), golds_of(task.test)
    values = [each(metric, aligned(metric, p, golds, len(task.labels) or None)) for p in said]
    return np.asarray((np.array(values) >= RIGHT).mean(0))


def gold_of(task: Task, example: Example) -> str:
    gold = example.gold
    if isinstance(gold, tuple):
        return ", ".join(task.labels[i] for i in gold) or "no label"
    return task.labels[gold] if isinstance(gold, int) else str(gold)


def answer(task: Task, said: Any) -> str:
    """One prediction in words."""
    if isinstance(said, str):
        return said or "(nothing)"
    if task.kind == "multilabel":
        return ", ".join(label for label, z in zip(task.labels, said, strict=True) if z > 0) or "no label"
    return task.labels[int(said)] if said >= 0 else NONE


def short(text: str) -> str:
    return text if len(text) <= LONG else f"{text[:LONG].rstrip()} ... ({len(text) - LONG:,} more characters)"


# --- words


Words = list[tuple[str, str]]  # ("same" | "ins" | "del", text)
_WORD = re.compile(r"\S+\s*")


def words(before: str, after: str) -> Words:
    """The change from one text to another, word by word; white space goes with the word before it, and is no change."""
    a, b = _WORD.findall(before), _WORD.findall(after)
    matcher = difflib.SequenceMatcher(None, [w.rstrip() for w in a], [w.rstrip() for w in b], autojunk=False)
    found: Words = []
    for what, i, j, k, m in matcher.get_opcodes():
        if what == "equal":
            found.append(("same", "".join(b[k:m])))
            continue
        if i < j:
            found.append(("del", "".join(a[i:j])))
        if k < m:
            found.append(("ins", "".join(b[k:m])))
    return found


@dataclass(frozen=True)
class Step:
    """One text on the way to the winner. changes: (slot, words) of each text that changed."""

    what: str
    mean: float
    n: int
    changes: tuple[tuple[str, Words], ...]


def way(history: History) -> list[Step]:
    """From the start to the winner, each beside the one before: by first parents. Empty while no winner is known."""
    by_id = {s.id: s for s in history.candidates}
    chain: list[Scored] = []
    at = by_id.get(history.chosen)
    while at is not None and at not in chain:
        chain.append(at)
        at = next((by_id[p] for p in at.candidate.parents if p in by_id), None)
    chain.reverse()
    start = history.candidates[0] if history.candidates else None
    if chain and start is not None and start.id != chain[0].id:
        chain.insert(0, start)  # its ancestors were never tried: what it is compared with is the start
    steps: list[Step] = []
    for i, s in enumerate(chain):
        old = spoken(chain[i - 1].candidate) if i else spoken(s.candidate)
        new = spoken(s.candidate)
        slots = [k for k in {**old, **new} if not i or old.get(k, "") != new.get(k, "")]
        several = len({**old, **new}) > 1
        changes = tuple((k if several else "", words(old.get(k, ""), new.get(k, ""))) for k in slots)
        steps.append(Step("start" if not i else s.candidate.op or "written", s.mean, s.n, changes))
    return steps


def spoken(candidate: Candidate) -> dict[str, str]:
    """A candidate's texts by slot."""
    found: dict[str, str] = {}
    for name, part in candidate.parts.items():
        if isinstance(part, str):
            found[name] = part
        elif name == "demonstrations":
            found[name] = "\n\n".join("\n".join([*map(str, inputs), f"-> {said}"]) for inputs, said in part)
        else:
            found[name] = "\n".join(map(_line, part)) if isinstance(part, tuple | list) else str(part)
    return found


def _line(part: Any) -> str:
    return " / ".join(map(str, part)) if isinstance(part, tuple | list) else str(part)


# --- learning


@dataclass(frozen=True)
class Course:
    """A run's validations in order: (step, score, loss)."""

    points: tuple[tuple[int, float, float | None], ...] = field(default=())

    @property
    def best(self) -> tuple[int, float, float | None]:
        return max(self.points, key=lambda p: p[1])


def course(folder: Path) -> Course:
    """A run's validations from its journal; a step that was done twice, before and after a crash, counts once."""
    found: dict[int, tuple[int, float, float | None]] = {}
    for e in journal.read(folder):
        if e.get("event") == "validate" and e.get("score") is not None:
            found[int(e["step"])] = (int(e["step"]), float(e["score"]), e.get("loss"))
    return Course(tuple(found[k] for k in sorted(found)))
