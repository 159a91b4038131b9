"""ProTeGi: why, fix, paraphrase; the beam competes with its children; every bandit chooses it."""

from __future__ import annotations

import pytest

from anacrusis.errors import ConfigError
from anacrusis.methods.protegi import BANDITS, ProTeGiConfig, search
from anacrusis.search.candidate import Candidate
from tests.by_hand import graded, prompts, search_of
from tests.search_contract import finds_what_was_planted


def test_finds_what_was_planted() -> None:
    finds_what_was_planted("protegi", "6000calls", {"rounds": 12})


def score(c: Candidate, e: int) -> float:
    """Texts are named by the number of the 80 examples that they get right."""
    return float(e * 37 % 80 < int(c.text("instruction")))


def test_gradients_are_written_from_mistakes_and_mended_and_paraphrased() -> None:
    s = search_of("20")
    policy = search(ProTeGiConfig(gradients=2, errors=3, paraphrases=1, expansion=3, beam=2, minibatch=40), s)
    look = next(policy)
    assert len(look.examples) == 40 and [c.text("instruction") for c in look.candidates] == ["20"]
    why = policy.send(graded(s, look, score))
    assert len(why.prompts) == 2 and why.parse == "tag:reason" and prompts(why.prompts[0]) == ["20"]
    assert why.prompts[0].count("Given answer: said 0.0") == 3 and "said 1.0" not in why.prompts[0]
    fix = policy.send(["too short", None])  # one reply was of no use
    assert len(fix.prompts) == 1 and "too short" in fix.prompts[0]
    shown = why.prompts[0].partition("wrong:")[2].partition("Give one")[0].strip()
    assert shown in fix.prompts[0]  # the mistakes that the reason is about
    again = policy.send(["30"])
    assert [prompts(p) for p in again.prompts] == [["20"], ["30"]]  # the original and the mended one
    race = policy.send(["10", "40"])
    assert {c.text("instruction") for c in race.candidates} == {"30", "10", "40", "20"}
    look = policy.send(graded(s, race, score))
    assert [c.text("instruction") for c in look.candidates] == ["40", "30"]


def test_at_most_so_many_children_of_one_instruction() -> None:
    s = search_of("20")
    policy = search(ProTeGiConfig(gradients=4, paraphrases=2, expansion=5), s)
    policy.send(graded(s, next(policy), score))
    policy.send(["why"] * 4)
    assert len(policy.send([str(i) for i in range(30, 34)]).prompts) == 10
    race = policy.send([str(i) for i in range(40, 50)])
    assert len(race.candidates) == 5 + 1


@pytest.mark.parametrize("bandit", BANDITS)
def test_every_bandit_keeps_the_best_and_spends_less_than_the_grid(bandit: str) -> None:
    s = search_of("0")
    config = ProTeGiConfig(bandit=bandit, cells=400, arms=4, samples=10, c=0.3, beam=2, expansion=16, gradients=4,
                           paraphrases=2, minibatch=1)  # fmt: skip
    policy = search(config, s)
    policy.send(graded(s, next(policy), score))
    policy.send(["why"] * 4)
    policy.send(["2", "4", "78", "5"])
    race = policy.send([str(i) for i in (1, 3, 6, 7, 8, 9, 10, 11, 66, 12)])
    assert len(race.candidates) == 15
    beam = policy.send(graded(s, race, score)).candidates
    assert [c.text("instruction") for c in beam] == ["78", "66"]
    assert len(s.ledger.cells) <= 410 < 15 * 80


def test_the_name_of_a_bandit_is_checked() -> None:
    with pytest.raises(ConfigError, match="one of uniform, ucb"):
        ProTeGiConfig(bandit="luck")
