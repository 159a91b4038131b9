"""OPRO: the meta-prompt shows the best instructions in ascending order, and the planted prompt is found."""

from __future__ import annotations

from anacrusis.methods.opro import OPROConfig, search
from anacrusis.prompt.values import Frame
from anacrusis.search.ledger import Observation
from anacrusis.search.search import Search, Searching
from tests.search_contract import finds_what_was_planted
from tests.world import World


def test_finds_what_was_planted() -> None:
    finds_what_was_planted("opro", "8000calls")


def test_history_is_shown_in_ascending_order_and_only_the_best() -> None:
    task = World().task
    s = Search(task, Frame(labels=task.labels, words=task.words, instruction="seed"), ["instruction"], Searching(), 0)
    policy = search(OPROConfig(memory=2, width=2), s)
    scores = {"seed": 0.2, "better": 0.9, "worse": 0.1}

    def observed(request: object) -> list[object]:
        out = []
        for c in request.candidates:  # type: ignore[attr-defined]
            s.ledger.add([c], [Observation(c.id, e, scores[c.text("instruction")]) for e in s.dev])
            out.append(s.ledger.scored(c, s.dev))
        return out

    ask = policy.send(observed(next(policy)))
    assert ask.n == 2 and ask.prompts[0].count("<prompt>seed</prompt>") == 1
    ask = policy.send(observed(policy.send([["better", "worse", None]])))
    shown = ask.prompts[0]
    assert shown.index("<prompt>seed</prompt>\nscore: 20") < shown.index("<prompt>better</prompt>\nscore: 90")
    assert "worse" not in shown  # memory = 2
