"""SPRIG: all edits are tried, a statement's credit is paired, the bandit prefers what is unknown or good."""

from __future__ import annotations

import math
from typing import Any

import pytest

from anacrusis.methods.sprig import Credit, SPRIGConfig, edits, search
from anacrusis.search.candidate import Candidate
from anacrusis.search.templates import source
from tests.search_contract import finds_what_was_planted
from tests.search_oracle import Oracle, a_search
from tests.world import PHRASES

SMALL: dict[str, Any] = {"components": PHRASES, "beam": 3, "tries": 6, "sample": 16}


def test_finds_what_was_planted() -> None:
    got = finds_what_was_planted("sprig", "8000calls", SMALL)
    assert all(r.cost["roles"]["writer"]["calls"] == 0 for r in got.runs if "writer" in r.cost.get("roles", {}))


def test_edits() -> None:
    got = edits(("a", "b"), ["x"])
    assert got == [
        (("x", "a", "b"), "add", "x"), (("a", "x", "b"), "add", "x"), (("a", "b", "x"), "add", "x"),
        (("b",), "delete", "a"), (("a",), "delete", "b"), (("b", "a"), "swap", ""),
    ]  # fmt: skip


def test_the_bound_is_mean_credit_plus_what_is_not_known() -> None:
    credit = Credit()
    assert credit.best(("a", "b", "c"), 1) == ["a", "b", "c"]  # before anything is known, all
    for gain in (0.2, 0.4):
        credit.add("a", gain)
    credit.add("b", 0.0)
    # a: 0.3 + sqrt(2 ln 3 / 2) = 1.348; b: 0 + sqrt(2 ln 3) = 1.482; c: infinite
    assert 0.3 + math.sqrt(math.log(3)) < math.sqrt(2 * math.log(3))
    assert credit.best(("a", "b", "c"), 3) == ["c", "b", "a"] and credit.best(("a", "b", "c"), 1) == ["c"]


def test_credit_is_paired_on_the_sample_that_parent_and_child_share(monkeypatch: pytest.MonkeyPatch) -> None:
    """Examples differ in hardness, the statement is worth nothing: every credit is exactly 0, whatever the sample."""
    gains: list[tuple[str, float]] = []
    monkeypatch.setattr(Credit, "add", lambda self, c, gain: gains.append((c, gain)))
    s = a_search()

    def hard(c: Candidate, e: str) -> float:
        return (int(e, 16) % 5) / 4 - 0.125 * ("bad" in c.text("instruction"))

    oracle = Oracle(s, hard)
    config = SPRIGConfig(components=("idle", "bad"), beam=2, sample=5, iterations=3)
    oracle.run(search(config, s))
    assert {c for c, _ in gains} == {"idle", "bad"}
    assert all(g == pytest.approx(0.0) for c, g in gains if c == "idle")
    assert {round(g, 9) for c, g in gains if c == "bad"} <= {-0.125, 0.0}  # 0: a second "bad" changes nothing
    parents, children = oracle.requests("evaluate")[2:4]
    assert parents.examples == children.examples != oracle.requests("evaluate")[0].examples
    assert not oracle.requests("ask")


def test_the_beam_is_made_of_children_only() -> None:
    s = a_search()
    oracle = Oracle(s, lambda c, e: 1.0 if c.text("instruction") == "seed" else 0.5)
    got = oracle.run(search(SPRIGConfig(components=("x",), beam=2, sample=5, iterations=1), s))
    assert [s.text(c) for c in got] == ["x seed"]  # the start is better, and leaves all the same


def test_paraphrases_count_under_what_they_stand_for() -> None:
    s = a_search()
    oracle = Oracle(s, lambda c, e: 0.5, lambda prompt, ask: "reworded")
    config = SPRIGConfig(components=("x",), beam=9, sample=5, iterations=3, paraphrases=1)
    oracle.run(search(config, s))
    tried = {c.text("instruction") for c in s.ledger.candidates.values()}
    assert {"reworded seed", "reworded x seed"} <= tried


def test_shipped_statements() -> None:
    lines = source("components").splitlines()
    statements = [t for t in lines if not t.startswith("#")]
    assert len(statements) == len(set(statements)) >= 55 and all(t == t.strip() and t for t in lines)
