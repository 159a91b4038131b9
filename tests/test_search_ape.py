"""APE: induced instructions, chosen by a bandit that asks less than the whole grid; iterated, it finds the planted."""

from __future__ import annotations

import pytest

from anacrusis.methods.ape import APEConfig, search
from anacrusis.search.candidate import Candidate
from anacrusis.search.racing import UCB
from tests.by_hand import graded, prompts, search_of
from tests.search_contract import finds_what_was_planted

ITERATIVE = {"rounds": 30, "draws": 4, "kept": 5, "variations": 4, "pulls": 10, "arms": 5, "samples": 16, "c": 0.3}


def test_iterated_finds_what_was_planted() -> None:
    finds_what_was_planted("ape", "5000calls", ITERATIVE)


def test_ucb_spends_less_than_the_grid_and_finds_the_best_of_the_pool() -> None:
    s = search_of()
    policy = search(APEConfig(c=0.3, kept=3), s)
    ask = next(policy)
    assert len(ask.prompts) == 50 and len(set(ask.prompts)) == 5  # 10 draws for each of 5 sets of examples
    assert ask.prompts[0].count("Right answer: ") == 5
    race = policy.send([f"p{i}" for i in range(50)])
    assert isinstance(race.by, UCB)

    def worth(c: Candidate, e: int) -> float:  # p7 is right on 9 of 10 examples, the others on 2 to 5 of them
        i = int(c.text("instruction")[1:])
        return float((e * 7 + i) % 10 < (9 if i == 7 else 2 + i % 4))

    scored = graded(s, race, worth)
    with pytest.raises(StopIteration) as end:
        policy.send(scored)
    assert s.text(end.value.value[0]) == "p7" and len(end.value.value) == 3
    grid = 50 * len(s.dev)
    assert len(s.ledger.cells) < grid / 2
    spent = {x.candidate.text("instruction"): x.n for x in scored}
    assert spent["p7"] == len(s.dev) and min(spent.values()) == 5  # the best is pulled out, the bad once


def test_a_round_varies_the_best_and_keeps_them_in_the_race() -> None:
    s = search_of()
    policy = search(APEConfig(subsets=1, draws=3, kept=2, variations=2, rounds=1, arms=3, samples=80), s)
    next(policy)
    mean = {"a": 0.5, "b": 0.9, "c": 0.1, "b1": 0.95, "b2": 0.2, "a1": 0.3}
    ask = policy.send(graded(s, policy.send(["a", "b", "c"]), lambda c, e: float(e < 80 * mean[c.text("instruction")])))
    assert [prompts(p) for p in ask.prompts] == [["b"], ["b"], ["a"], ["a"]]
    race = policy.send(["b1", "b2", "a1", "c"])  # c was tried before
    assert [c.text("instruction") for c in race.candidates] == ["b", "a", "b1", "b2", "a1"]
    assert race.candidates[2].parents == (race.candidates[0].id,)
