"""Train, validation and test parts: by share or by number of shots, stratified by class, whatever the order of rows.

A row's rank is a hash of the seed and its input. So the same data in another order, or with a row more, is divided
the same way, and no random number generator is involved. Rows with the same input always go together.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..errors import ConfigError, DataError

if TYPE_CHECKING:
    from .task import Example

Group = tuple[bytes, list["Example"]]  # the rows with one input, behind their rank
Pool = dict[str, list[Group]]  # per class: its groups by rank
Part = tuple["Example", ...]


@dataclass(frozen=True)
class Split:
    """How a part that is not given as a file or column of its own is drawn."""

    seed: int = 0
    shots: int | None = None  # examples per class for train, and as many for validation; None: by share
    valid: float = 0.15  # shares of all rows that are there to draw from
    test: float = 0.2

    def __post_init__(self) -> None:
        if self.shots is not None and self.shots < 1:
            raise ConfigError(f"shots={self.shots}: expected at least 1 example per class")
        if not (self.valid >= 0 and self.test >= 0 and self.valid + self.test < 1):
            raise ConfigError(
                f"shares valid={self.valid} and test={self.test}: expected two numbers from 0 with a sum below 1"
            )


def divide(
    train: Sequence[Example],
    valid: Sequence[Example] | None,
    test: Sequence[Example] | None,
    split: Split,
    stratum: Callable[[Example], str],
) -> tuple[Part, Part, Part]:
    """Train, validation and test. `valid` and `test` stay as given; None is drawn from `train`, the test part first.

    stratum: the class that an example counts for.
    Raises DataError where a class has too few examples for the shots.
    """
    if split.shots is None and valid is not None and test is not None:
        return tuple(train), tuple(valid), tuple(test)
    pool = _pool(train, split.seed, stratum)
    sizes = {name: sum(len(group) for _, group in groups) for name, groups in pool.items()}
    if test is None:
        test, pool = _take(pool, _quotas(sizes, pool, split.test))
    if split.shots is not None:
        few, drawn = _shots(pool, split.shots, valid is None)
        return tuple(few), tuple(drawn if valid is None else valid), tuple(test)
    if valid is None:
        valid, pool = _take(pool, _quotas(sizes, pool, split.valid))
    rest = [group for groups in pool.values() for group in groups]
    return tuple(_ordered(rest)), tuple(valid), tuple(test)


def pooled(examples: Sequence[Example]) -> str:
    """16 hex digits of a set of examples, whatever their order."""
    return hashlib.blake2b("".join(sorted(e.id for e in examples)).encode(), digest_size=8).hexdigest()


def content(inputs: Sequence[str]) -> bytes:
    """The inputs as bytes, different for different inputs: each text behind its length."""
    return "".join([f"{len(text)}:{text}" for text in inputs]).encode("utf-8", "surrogatepass")


def _ordered(groups: list[Group]) -> list[Example]:
    return [example for _, group in sorted(groups) for example in group]  # no two ranks are equal


def _pool(examples: Sequence[Example], seed: int, stratum: Callable[[Example], str]) -> Pool:
    by_input: dict[tuple[str, ...], list[Example]] = {}
    for example in examples:
        by_input.setdefault(example.same, []).append(example)
    key = hashlib.blake2b(str(seed).encode()).digest()
    pool: Pool = {}
    for inputs, group in by_input.items():
        rank = hashlib.blake2b(content(inputs), digest_size=16, key=key).digest()
        if len(group) > 1:
            group.sort(key=lambda e: e.id)
        pool.setdefault(stratum(group[0]), []).append((rank, group))
    return {name: sorted(pool[name]) for name in sorted(pool)}


def _quotas(sizes: Mapping[str, int], pool: Pool, share: float) -> dict[str, int]:
    """Examples to take per class: the share of `sizes` by largest remainder, and one group of each class stays."""
    room = {name: sum(len(g) for _, g in groups) - min(len(g) for _, g in groups) for name, groups in pool.items()}
    exact = {name: sizes[name] * share for name in pool}
    quotas = {name: min(int(exact[name]), room[name]) for name in pool}
    missing = (max(1, round(sum(exact.values()))) if share > 0 else 0) - sum(quotas.values())
    for name in sorted(pool, key=lambda name: int(exact[name]) - exact[name]):
        if missing > 0 and quotas[name] < room[name]:
            quotas[name], missing = quotas[name] + 1, missing - 1
    return quotas


def _take(pool: Pool, quotas: Mapping[str, int]) -> tuple[list[Example], Pool]:
    taken: list[Group] = []
    rest: Pool = {}
    for name, groups in pool.items():
        room = quotas[name]
        rest[name] = []
        for group in groups:
            if len(group[1]) <= room:
                taken.append(group)
                room -= len(group[1])
            else:
                rest[name].append(group)
    return _ordered(taken), rest


def _shots(pool: Pool, k: int, with_valid: bool) -> tuple[list[Example], list[Example]]:
    """k different inputs per class, and k others."""
    parts = 2 if with_valid else 1
    for name, groups in pool.items():
        if len(groups) < k * parts:
            best = min(map(len, pool.values())) // parts
            need = f"{k} for train and {k} for validation" if with_valid else f"{k} for train"
            works = f"The largest that works for every class is shots={best}." if best else "Add examples of it."
            who = f"class {name!r}" if name else "the data"
            raise DataError(
                f"{who} has {len(groups)} different examples that are not in test, but shots={k} takes {need}. {works}"
            )
    few = [(rank, group[:1]) for groups in pool.values() for rank, group in groups[:k]]
    drawn = [(rank, group[:1]) for groups in pool.values() for rank, group in groups[k : k * parts]]
    return _ordered(few), _ordered(drawn)


def strata(examples: Sequence[Example], labels: Sequence[str]) -> Callable[[Example], str]:
    """The class that an example counts for: its own, of several the rarest (so that it gets its share), else ""."""
    count = Counter(i for e in examples if isinstance(e.gold, tuple) for i in e.gold)

    def stratum(example: Example) -> str:
        gold = example.gold
        if isinstance(gold, tuple):
            return labels[min(gold, key=lambda i: (count[i], i))] if gold else ""
        return labels[gold] if isinstance(gold, int) else ""

    return stratum


def overlaps(parts: Mapping[str, Sequence[Example]]) -> list[str]:
    """Sentences on examples that two parts share, and on inputs that one part has with several golds."""
    notes = []
    names = list(parts)
    ids = {name: {e.id: e for e in reversed(parts[name])} for name in names}
    for i, a in enumerate(names):
        for b in names[i + 1 :]:
            if shared := [e for e in parts[b] if e.id in ids[a]]:
                one, n = shared[0], len(shared)
                notes.append(
                    f"{n} example{'s' * (n > 1)} of {b} {'are' if n > 1 else 'is'} in {a} too, such as {one.where} = "
                    f"{ids[a][one.id].where}: {_excerpt(one)}. The score on {b} flatters."
                )
    for name in names:
        golds: dict[tuple[str, ...], Example] = {}
        clash = [(golds[e.same], e) for e in parts[name] if golds.setdefault(e.same, e).gold != e.gold]
        if clash:
            one, other = clash[0]
            n = len({e.same for _, e in clash})
            notes.append(
                f"{n} input{'s' * (n > 1)} of {name} {'have' if n > 1 else 'has'} different gold in different rows, "
                f"such as {one.where} and {other.where}: {_excerpt(one)}."
            )
    return notes


def _excerpt(example: Example) -> str:
    text = " / ".join(example.inputs)
    if example.content and len(text) > 60:
        return repr("..." + text[-57:])  # of a path the end tells more
    return repr(text if len(text) <= 60 else text[:57] + "...")
