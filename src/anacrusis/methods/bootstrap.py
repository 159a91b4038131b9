"""Bootstrapped demonstrations, random search: show the model its own right answers; of many sets the best is kept.

    teacher: the start with up to `labelled` training examples and their right answers, without the one that is asked
    set:     the first `size` examples of the pool that the teacher answers right, each with what it answered, filled
        up to `labelled` with other examples and their right answers
    sets:    none; labels only; the pool as it stands; then the pool shuffled, size ~ U{1 .. shots}
    result:  the set with the best f on the scoring examples

Paper: Khattab et al. 2023, https://arxiv.org/abs/2310.03714 (section 4, BootstrapFewShotWithRandomSearch of DSPy)
Departure: every set has the same teacher, at temperature 0, so what it answered once is known for all. Demonstrations
    come from examples that are not scored: the unused ones, or a share of the scoring examples.
On the planted task (a model that reads the last four demonstrations and needs one of each topic): 3000 calls, 40 sets.
    The words of the instruction, which the usual planted task is about, are not its business.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ..registry import searching
from ..search.candidate import Candidate
from ..search.engine import Policy
from ..search.search import Search

Shown = tuple[tuple[tuple[str, ...], str], ...]  # (inputs, answer) pairs
SPOKEN = frozenset({"masked", "causal", "encoder-decoder", "endpoint"})  # arrangements that read demonstrations


@dataclass(frozen=True, kw_only=True)
class BootstrapConfig:
    sets: int = 19  # of demonstrations that are tried: none, labels only, unshuffled, and 16 shuffled ones
    shots: int = 4  # bootstrapped demonstrations of a set, at most
    labelled: int = 16  # demonstrations of a set, at most, those with right answers included
    threshold: float = 0.5  # score from which an answer is good enough to be shown
    pool: float = 0.25  # share of the scoring examples that demonstrations are taken from, where no others are left


def apart(s: Search, share: float) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(ids to take demonstrations from, ids to score on): no example is in both."""
    scored = set(s.dev)
    spare = tuple(e for e in s.train if e not in scored)
    n = max(1, round(share * len(s.dev)))
    return (spare, s.dev) if len(spare) >= n else (s.dev[:n], s.dev[n:])


def with_demonstrations(candidate: Candidate, shown: Shown) -> Candidate:
    return candidate.put("demonstrations", shown) if shown else candidate


def labels(s: Search, ids: Iterable[str]) -> Shown:
    return tuple((s.examples[e].inputs, s.gold(e)) for e in ids)


def bootstrapped(
    s: Search, order: Sequence[str], teacher: Sequence[str], size: int, labelled: int, threshold: float
) -> Policy:
    """A set: at most `size` of the examples, in this order, that the teacher answers right; then right answers."""
    found: list[tuple[str, str]] = []
    left = list(order)
    while left and len(found) < size:
        need = size - len(found)
        now, left = left[:need], left[need:]
        asked = [(with_demonstrations(s.start, labels(s, [t for t in teacher if t != e])), e) for e in now]
        seen = yield s.cells(asked)
        found += [(o.example, o.output) for o in seen if o.value is not None and o.value >= threshold and o.output]
    ours = {e for e, _ in found}
    more = [e for e in order if e not in ours][: max(0, labelled - len(found))]
    return tuple((s.examples[e].inputs, said) for e, said in found) + labels(s, more)


def demonstration_sets(
    s: Search, pool: Sequence[str], sets: int, shots: int, labelled: int, threshold: float
) -> Policy:
    """`sets` of them, without repetitions: fewer where the pool is small."""
    teacher = list(pool[:labelled])
    found: list[Shown] = [(), labels(s, s.shuffled(pool)[:labelled])][:sets]
    for k in range(len(found), sets):
        order, size = (list(pool), shots) if k == 2 else (s.shuffled(pool), s.rng.randint(1, max(1, shots)))
        found.append((yield from bootstrapped(s, order, teacher, size, labelled, threshold)))
    return list(dict.fromkeys(found))


def search(config: BootstrapConfig, s: Search) -> Policy:
    pool, scored = apart(s, config.pool)
    sets = yield from demonstration_sets(s, pool, config.sets, config.shots, config.labelled, config.threshold)
    candidates = [with_demonstrations(s.start, d).born("bootstrap" if d else "start") for d in sets]
    found = yield s.evaluate(candidates, on=scored)
    return s.top(found, s.options.finalists)


searching(
    name="bootstrap-random-search",
    summary="demonstrations that the model answered right itself; of many random sets the best is kept",
    config=BootstrapConfig,
    build=search,
    paper="[Khattab et al. 2023](https://arxiv.org/abs/2310.03714)",
    arrangements=SPOKEN,
)
