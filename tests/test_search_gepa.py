"""GEPA: instance fronts without dominated members, the gate on the parent's batch, the merge; the planted prompt."""

from __future__ import annotations

from collections import Counter

import pytest

from anacrusis.methods.gepa import GEPAConfig, drawn, instance_fronts, search, survivors
from anacrusis.methods.gepa_merge import contested, mergeable
from anacrusis.search.candidate import Candidate
from anacrusis.search.ledger import Observation, Scored
from anacrusis.search.racing import Gate
from tests.search_contract import finds_what_was_planted
from tests.search_oracle import Oracle, a_search


def test_finds_what_was_planted() -> None:
    finds_what_was_planted("gepa", "1500calls")


def member(name: str, values: str, *parents: Candidate, **parts: str) -> Scored:
    """values: "1" or "0" an example, named a, b, c, .."""
    c = Candidate(parts or {"instruction": name}).born("x", *parents)
    seen = {e: Observation(c.id, e, float(v)) for e, v in zip("abcdefgh", values, strict=False)}
    return Scored(c, seen)


def test_fronts_hold_who_is_best_on_an_example() -> None:
    p, q, r = member("p", "110"), member("q", "011"), member("r", "010")
    fronts = instance_fronts([p, q, r], "abc")
    assert fronts == {"a": {p.id}, "b": {p.id, q.id, r.id}, "c": {q.id}}


def test_dominated_members_are_removed_the_worst_first() -> None:
    p, q, r = member("p", "110"), member("q", "011"), member("r", "010")
    left = survivors(instance_fronts([p, q, r], "abc"), {m.id: m.mean for m in (p, q, r)})
    assert left == {"a": {p.id}, "b": {p.id, q.id}, "c": {q.id}}  # r is never alone
    # three that cover one another in a ring: the worst goes, the other two then stand alone somewhere
    x, y, z = member("x", "11000"), member("y", "01100"), member("z", "10100")
    ring = {"a": {x.id, z.id}, "b": {x.id, y.id}, "c": {y.id, z.id}}
    left = survivors(ring, {x.id: 0.9, y.id: 0.5, z.id: 0.1})
    assert left == {"a": {x.id}, "b": {x.id, y.id}, "c": {y.id}}


def test_parents_are_drawn_by_the_number_of_examples_that_they_top() -> None:
    s = a_search()
    fronts = {"a": {"p"}, "b": {"p", "q"}, "c": {"p"}}
    counts = Counter(drawn(s, fronts) for _ in range(4000))
    assert counts["p"] / 4000 == pytest.approx(3 / 4, abs=0.03) and set(counts) == {"p", "q"}


def test_a_child_joins_only_if_it_beats_its_parent_on_the_batch() -> None:
    s = a_search()
    values = {"seed": 0.2, "equal": 0.2, "better": 0.4}
    oracle = Oracle(s, lambda c, e: values[c.text("instruction")], ["equal", "better"])
    got = oracle.run(search(GEPAConfig(proposals=2), s))
    assert [s.text(c) for c in got] == ["better", "seed"]
    seen = [c.text("instruction") for c, _ in ((s.ledger.candidates[c], e) for c, e in s.ledger.cells)]
    assert Counter(seen) == {"seed": 80, "equal": 3, "better": 80}
    gates = [r.by for r in oracle.seen if isinstance(getattr(r, "by", None), Gate)]
    assert all(list(g.parents.values()) == [s.start.id] and g.size == 3 and not g.ties for g in gates)


def test_a_parent_without_mistakes_on_its_batch_is_not_changed() -> None:
    s = a_search()
    oracle = Oracle(s, lambda c, e: float(e != s.dev[0]), ["never asked for"] * 9)
    oracle.run(search(GEPAConfig(proposals=20), s))
    asked = sum(r.verb == "ask" for r in oracle.seen)
    assert asked == sum(r.verb == "cells" and any(e == s.dev[0] for _, e in r.pairs) for r in oracle.seen) <= 1
    batches = [[e for _, e in r.pairs] for r in oracle.seen if r.verb == "cells"]
    assert len({e for b in batches for e in b}) == 60  # an epoch repeats nothing


def test_merge_takes_what_each_side_changed() -> None:
    s = a_search("instruction", "template", template="{text}")
    old = member("", "0000", instruction="i0", template="t0")
    a = member("", "1100", old.candidate, instruction="i1", template="t0")
    b = member("", "0010", old.candidate, instruction="i0", template="t1")
    known = {m.id: m for m in (old, a, b)}
    fronts = instance_fronts([old, a, b], "abcd")
    first, second, kid = mergeable(s, known, survivors(fronts, {m.id: m.mean for m in known.values()}))  # type: ignore[misc]
    assert (first.id, second.id) == (a.id, b.id) and dict(kid.parts) == {"instruction": "i1", "template": "t1"}
    assert kid.parents == (a.id, b.id)
    # not with its own ancestor, and not when the ancestor was better than one of the two
    assert mergeable(s, known, {"a": {a.id, old.id}}) is None
    good = member("", "1111", instruction="i0", template="t0")
    assert mergeable(s, {**known, good.id: good}, {"a": {a.id, b.id}}) is None


def test_merge_is_tried_on_examples_that_are_contested() -> None:
    s = a_search()
    a, b = member("a", "11110000"), member("b", "00001110")
    first = contested(s, a, b, 5)
    signs = Counter((a.values[e] > b.values[e]) - (a.values[e] < b.values[e]) for e in first)
    assert signs == {1: 2, -1: 2, 0: 1} and len(set(first)) == 5
