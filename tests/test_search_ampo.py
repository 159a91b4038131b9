"""AMPO: branches are added, deepened and cut off; the planted prompt is found as a tree of cues."""

from __future__ import annotations

import re
from typing import Any

import pytest

from anacrusis.methods.ampo import AMPOConfig, Tree, search
from tests import search_contract
from tests.search_oracle import Oracle, a_search
from tests.world import World


class Attentive(World):
    """A writer that does not advise what the instruction says already."""

    def hints(self, said: str) -> list[str]:
        held = "\n".join(re.findall(r"^(?:-|\d+:) .*", said, re.MULTILINE))
        return [h for h in super().hints(said) if h not in held]


def test_finds_what_was_planted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search_contract, "World", Attentive)
    search_contract.finds_what_was_planted("ampo", "1500calls")


def test_a_number_deepens_a_branch_and_anything_else_is_a_new_one() -> None:
    tree = Tree("main", ("a", "b"))
    assert tree.said == "main\n- a\n- b"
    assert tree.revised("2: b, then c").branches == ("a", "b, then c")
    assert tree.revised("If x, then 2: y").branches == ("a", "b", "If x, then 2: y")
    assert tree.revised("3: no such branch").branches == ("a", "b", "3: no such branch")
    assert tree.revised("b").branches == ("a", "b")  # known already
    assert tree.without(0).branches == ("b",)


class Three:
    """The writer's three roles. patterns: those that are met in the first, second, .. round."""

    def __init__(self, *rounds: list[str]):
        self.rounds, self.asked = list(rounds), list[tuple[str, str]]()

    def __call__(self, prompt: str, ask: Any) -> str | None:
        self.asked.append((ask.parse, prompt))
        if ask.parse == "tag:cause":
            return "because"
        if ask.parse == "tags:pattern":
            return "\x1e".join(self.rounds.pop(0)) if self.rounds else None
        return re.search(r"mistakes remains: (.*)", prompt)[1]  # type: ignore[index]


def run(value: dict[str, float], writer: Three, **options: Any) -> tuple[list[str], Oracle]:
    """value: of a phrase that the prompt may hold, added up; every example is worth the same."""
    s = a_search()
    order = {e: i / len(s.dev) for i, e in enumerate(s.dev)}
    oracle = Oracle(
        s, lambda c, e: float(order[e] < sum(v for k, v in value.items() if k in c.text("instruction"))), writer
    )
    found = oracle.run(search(AMPOConfig(**options), s))
    return [s.text(c) for c in found], oracle


def test_each_pattern_is_tried_alone_and_with_the_others_and_the_best_is_kept() -> None:
    writer = Three(["good", "bad", "third"])
    found, oracle = run({"seed": 0.2, "good": 0.4, "bad": -0.1}, writer, rounds=1, patterns=2)
    tried = [c.text("instruction") for c in oracle.requests("evaluate")[1].candidates]
    assert tried == ["seed\n- good", "seed\n- bad", "seed\n- good\n- bad"]  # the third is beyond `patterns`
    assert found[0] == "seed\n- good"
    causes = [p for how, p in writer.asked if how == "tag:cause"]
    assert len(causes) == 5 and all("Given answer: wrong answer" in p for p in causes)
    assert "because" in next(p for how, p in writer.asked if how == "tags:pattern")


def test_branches_that_no_longer_help_are_cut_off() -> None:
    # "rough" helps until "fine" covers what it covered
    s_value = {"seed": 0.2, "rough": 0.2}
    writer = Three(["rough"], ["fine"])
    s = a_search()
    order = {e: i / len(s.dev) for i, e in enumerate(s.dev)}

    def value(c: Any, e: str) -> float:
        text = c.text("instruction")
        return float(order[e] < (0.7 if "fine" in text else sum(v for k, v in s_value.items() if k in text)))

    oracle = Oracle(s, value, writer)
    found = [s.text(c) for c in oracle.run(search(AMPOConfig(rounds=2), s))]
    assert found == ["seed\n- fine", "seed\n- rough\n- fine"]
    assert s.ledger.candidates[oracle.requests("evaluate")[-1].candidates[0].id].op == "prune"


def test_growing_ends_when_it_does_not_help() -> None:
    writer = Three(*[[f"idle {i}"] for i in range(20)])
    found, oracle = run({"seed": 0.2}, writer, rounds=20, patience=3)
    assert found == ["seed"] and len(writer.rounds) == 17
