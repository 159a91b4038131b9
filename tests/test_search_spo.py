"""SPO: no right answer is read; a new instruction is taken only when its answers win more often than they lose."""

from __future__ import annotations

import pytest

from anacrusis.methods.spo import SPOConfig, search
from anacrusis.search.requests import Answer, Ask, Compare
from tests.by_hand import prompts, search_of
from tests.search_contract import finds_what_was_planted


def test_finds_what_was_planted() -> None:
    finds_what_was_planted("spo", "2000calls", {"rounds": 100, "questions": 24})


def test_a_new_instruction_is_taken_only_when_it_wins() -> None:
    s = search_of("start")
    policy = search(SPOConfig(rounds=4, questions=2, repeats=6, requirements="be brief"), s)
    answer = next(policy)
    assert isinstance(answer, Answer) and len(answer.pairs) == 2
    questions = [e for _, e in answer.pairs]
    current, old = "start", ["a1", "a2"]
    ask = policy.send(old)
    for text, wins in (("tie", 0), ("worse", -2), ("better", 1)):
        assert isinstance(ask, Ask) and prompts(ask.prompts[0]) == [current] and "be brief" in ask.prompts[0]
        assert all(f"Answer: {a}" in ask.prompts[0] for a in old)
        answer = policy.send([text])
        assert [(c.text("instruction"), e) for c, e in answer.pairs] == [(text, e) for e in questions]
        new = [f"{text} 1", f"{text} 2"]
        compare = policy.send(new)
        assert isinstance(compare, Compare) and compare.repeats == 6 and compare.requirement == "be brief"
        [(mine, theirs)] = compare.pairs
        assert all(f"Answer: {a}" in mine for a in new) and all(f"Answer: {a}" in theirs for a in old)
        ask = policy.send([wins])
        if wins > 0:
            current, old = text, new
    assert prompts(ask.prompts[0]) == ["better"] and "Answer: better 2" in ask.prompts[0]
    with pytest.raises(StopIteration) as end:
        policy.send(["worse"])  # tried before: not asked again
    assert [c.text("instruction") for c in end.value.value] == ["better", "start"]


def test_no_right_answer_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    s = search_of("start")
    monkeypatch.setattr(s, "gold", lambda e: pytest.fail("a right answer was read"))
    policy = search(SPOConfig(rounds=3, questions=3), s)
    request, seen = next(policy), []
    try:
        while True:
            seen.append(request)
            if isinstance(request, Answer):
                request = policy.send([f"said {len(seen)}"] * 3)
            else:
                request = policy.send([1] if isinstance(request, Compare) else [f"p{len(seen)}"])
    except StopIteration:
        pass
    assert {type(r) for r in seen} == {Ask, Answer, Compare} and len(seen) == 1 + 3 * 3
    assert not any("Right answer" in p for r in seen if isinstance(r, Ask) for p in r.prompts)
