"""GEPA's merge: which two members of the fronts to join, their child, and the examples that decide.

The child takes, slot by slot, what one of the two changed since their common ancestor; where both did, the better's.
Paper: Agrawal et al. 2025, https://arxiv.org/abs/2507.19457 (algorithms 3 and 4)
"""

from __future__ import annotations

from collections.abc import Mapping

from ..search.candidate import Candidate
from ..search.ledger import Scored
from ..search.search import Search


def ancestors(known: Mapping[str, Scored], of: Scored) -> dict[str, Scored]:
    """Of the pool, by id; without itself."""
    direct = [known[p] for p in of.candidate.parents if p in known]
    return {k: v for p in direct for k, v in {p.id: p, **ancestors(known, p)}.items()}


def mergeable(
    s: Search, known: Mapping[str, Scored], fronts: Mapping[str, set[str]]
) -> tuple[Scored, Scored, Candidate] | None:
    """Two members of the fronts, the better one first, and their child, which is new."""
    best = s.top([known[m] for m in sorted({m for f in fronts.values() for m in f})], len(known))
    pairs = s.shuffled((a, b) for i, a in enumerate(best) for b in best[i + 1 :])
    for a, b in pairs:
        over_a, over_b = ancestors(known, a), ancestors(known, b)
        if a.id in over_b or b.id in over_a:
            continue
        for old in (o for k, o in over_a.items() if k in over_b and o.mean <= min(a.mean, b.mean)):
            texts = {slot: tuple(s.text(c, slot) for c in (old, a, b)) for slot in s.slots}
            if any((o == x) != (o == y) for o, x, y in texts.values()):
                kid = a.candidate
                for slot, (o, x, y) in texts.items():
                    kid = kid.put(slot, y if x == o else x)
                if kid.id not in s.ledger.candidates:
                    return a, b, kid.born("merge", a.candidate, b.candidate)
    return None


def contested(s: Search, a: Scored, b: Scored, size: int) -> tuple[str, ...]:
    """Examples in equal parts of those where a is better, where b is, and where they are equal."""
    kinds: dict[int, list[str]] = {1: [], -1: [], 0: []}
    for e in s.shuffled(e for e in a.values if e in b.values):
        kinds[(a.values[e] > b.values[e]) - (a.values[e] < b.values[e])].append(e)
    each = -(-size // 3)
    first = [e for k in kinds.values() for e in k[:each]]
    return tuple([*first, *(e for k in kinds.values() for e in k[each:])][:size])
