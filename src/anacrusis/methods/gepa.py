"""GEPA: reflective evolution. A parent that is best on some example sees its mistakes; its child must beat it there.

    front:   F_i = members of the pool with the best score on example i; a member is dominated when on every F_i that
             it is in there is another survivor too; dominated ones are removed, the worst first
    parent:  a survivor, with probability proportional to the number of F_i that it is in
    reflect: b = `batch` examples; child = writer(one slot of the parent, its answers on b)
    gate:    the child joins the pool, and is scored on all examples, iff its sum on b is greater than the parent's
    merge:   two front members with a common ancestor that is no better than either: slot by slot what was changed

Paper: Agrawal et al. 2025, https://arxiv.org/abs/2507.19457 (algorithms 1-4; constants of release 0.1.4)
Departure: batches are drawn from all training examples, scoring examples (the paper's D_pareto) among them, so a
    parent's answers are mostly known already. Feedback is the right answer beside the given one. Merging needs
    several slots: with an instruction alone there is nothing to merge. Ends early when a member is perfect.
On the planted task: 1500 calls.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from ..registry import searching
from ..search.engine import Policy
from ..search.ledger import Scored
from ..search.racing import Gate
from ..search.search import Search
from .gepa_merge import contested, mergeable

Fronts = dict[str, set[str]]


@dataclass(frozen=True, kw_only=True)
class GEPAConfig:
    proposals: int = 300  # iterations, at most; one whose parent makes no mistake on its batch writes nothing
    batch: int = 3  # examples on which a child must beat its parent
    merges: int = 5  # at most; 0: never
    overlap: int = 5  # examples on which a merged child must reach its better parent
    temperature: float = 1.0


def search(config: GEPAConfig, s: Search) -> Policy:
    pool: list[Scored] = yield s.evaluate([s.start])
    merges, turn, fresh = 0, dict[str, int](), False
    epoch: list[str] = []
    for _ in s.rounds(config.proposals):
        if s.best(pool).mean == 1.0:
            break
        known = {p.id: p for p in pool}
        fronts = survivors(instance_fronts(pool, s.dev), {p.id: p.mean for p in pool})
        if fresh and merges < config.merges and (pair := mergeable(s, known, fronts)) is not None:
            fresh, merges = False, merges + 1
            a, b, kid = pair
            first = contested(s, a, b, config.overlap)
            rival = max((a, b), key=lambda p: sum(p.values.get(e, 0.0) for e in first))
            gate = Gate({kid.id: rival.id}, size=len(first), ties=True)
        else:
            parent = known[drawn(s, fronts)]
            if len(epoch) < config.batch:  # a new epoch; what is left of the last one comes first
                epoch += [e for e in s.shuffled(s.train) if e not in epoch]
            first, epoch = tuple(epoch[: config.batch]), epoch[config.batch :]
            seen = yield s.cells([(parent, e) for e in first])
            if all(o.value in (1.0, None) for o in seen):
                continue
            slot = s.slots[turn.get(parent.id, 0) % len(s.slots)]
            turn[parent.id] = turn.get(parent.id, 0) + 1
            text = s.text(parent, slot)
            asked = s.template("gepa", about=s.about(), examples=s.shown(seen), text=text)
            keep = tuple("{" + f + "}" for f in s.base.fields if "{" + f + "}" in text)
            [new] = yield s.propose([asked], keep=keep, temperature=config.temperature)
            if new is None:
                continue
            kid = parent.candidate.put(slot, new).born("reflect", parent.candidate)
            gate = Gate({kid.id: parent.id}, size=len(first))
        if kid.id in s.ledger.candidates:
            continue
        [child] = yield s.evaluate([kid], on=tuple(dict.fromkeys([*first, *s.dev])), by=gate)
        if child.alive:
            pool.append(s.ledger.scored(kid, s.dev))
            fresh = True
    return s.top(pool, s.options.finalists)


def instance_fronts(pool: Iterable[Scored], examples: Sequence[str]) -> Fronts:
    """By example: ids of the members with the best score on it."""
    members = list(pool)
    best = {e: max((p.values[e] for p in members if e in p.values), default=None) for e in examples}
    return {e: {p.id for p in members if p.values.get(e) == b} for e, b in best.items() if b is not None}


def survivors(fronts: Mapping[str, set[str]], mean: Mapping[str, float]) -> Fronts:
    """The fronts without dominated members: the worst is looked at first."""
    left = {e: set(f) for e, f in fronts.items()}
    for m in sorted({m for f in fronts.values() for m in f}, key=lambda m: (mean[m], m)):
        if all(len(f) > 1 for f in left.values() if m in f):
            left = {e: f - {m} for e, f in left.items()}
    return left


def drawn(s: Search, fronts: Mapping[str, set[str]]) -> str:
    tickets = [m for f in fronts.values() for m in sorted(f)]  # one for each example that a member tops
    return s.rng.choice(tickets)


searching(
    name="gepa",
    summary="reflective evolution: members that are best on some example are improved from their mistakes, and merged",
    config=GEPAConfig,
    build=search,
    paper="[Agrawal et al. 2025](https://arxiv.org/abs/2507.19457)",
    roles=frozenset({"writer"}),
)
