"""PE2: parents are the best of all nodes ever made, and each child comes from mistakes that are reasoned through."""

from __future__ import annotations

import pytest

from anacrusis.methods.pe2 import PE2Config, search
from anacrusis.search.candidate import Candidate
from tests.by_hand import graded, prompts, search_of
from tests.search_contract import finds_what_was_planted


def test_finds_what_was_planted() -> None:
    finds_what_was_planted("pe2", "4000calls", {"steps": 10})


def score(c: Candidate, e: int) -> float:
    return float(e < int(c.text("instruction")))


@pytest.mark.parametrize("backtrack", [True, False])
def test_backtracking_chooses_over_all_nodes(backtrack: bool) -> None:
    s = search_of("10")
    policy = search(PE2Config(beam=2, expand=1, backtrack=backtrack), s)
    ask = policy.send(graded(s, next(policy), score))
    assert [prompts(p) for p in ask.prompts] == [["10"]]
    ask = policy.send(graded(s, policy.send(["30"]), score))
    assert [prompts(p) for p in ask.prompts] == ([["30"], ["10"]] if backtrack else [["30"]])
    kids = ["20", "5"] if backtrack else ["20"]
    ask = policy.send(graded(s, policy.send(kids), score))
    assert [prompts(p) for p in ask.prompts] == ([["30"], ["20"]] if backtrack else [["20"]])
    kids = ["12", "11"] if backtrack else ["12"]
    ask = policy.send(graded(s, policy.send(kids), score))  # worse than their parents
    assert [prompts(p) for p in ask.prompts] == ([["30"], ["20"]] if backtrack else [["12"]])


def test_the_writer_sees_layout_mistakes_and_the_limit() -> None:
    s = search_of("10")
    policy = search(PE2Config(expand=3, batch=2, words=7), s)
    ask = policy.send(graded(s, next(policy), score))
    assert len(ask.prompts) == 3 and len(set(ask.prompts)) > 1  # mistakes are drawn anew for each child
    for said in ask.prompts:
        assert said.count("Given answer: said 0.0") == 2 and "said 1.0" not in said
        assert f"[the instruction]\n\n{s.base.template}" in said and "Change at most 7 words." in said


def test_a_perfect_node_ends_the_search_and_comes_first() -> None:
    s = search_of("10")
    policy = search(PE2Config(expand=1), s)
    policy.send(graded(s, next(policy), score))
    with pytest.raises(StopIteration) as end:
        policy.send(graded(s, policy.send(["80"]), score))
    assert [s.text(x) for x in end.value.value] == ["80", "10"]
