"""PromptWizard: variants meet questions until their first wrong answer, the best is refined and dressed; cheap."""

from __future__ import annotations

from typing import Any

from anacrusis.methods.promptwizard import STYLES, PromptWizardConfig, search
from anacrusis.search.candidate import Candidate
from anacrusis.search.racing import UntilWrong
from tests.search_contract import by_chance, trials
from tests.search_oracle import Oracle, a_search


def test_is_cheap_and_better_than_chance_with_as_many_calls() -> None:
    got, chance = trials("promptwizard", "2000calls"), by_chance("500calls")
    assert max(r.cost["calls"] for r in got.runs) <= 500  # it ends by itself
    assert got.mean > chance.mean + 0.05, (got.mean, chance.mean)


def run(value: Any, **options: Any) -> tuple[Any, Oracle, list[Any]]:
    s = a_search()
    asked: list[Any] = []

    def write(prompt: str, ask: Any) -> str:
        asked.append((ask.parse, prompt))
        n = sum(how == ask.parse for how, _ in asked)
        return f"{ask.parse.removeprefix('tag:')} {n}"

    oracle = Oracle(s, value, write)
    found = oracle.run(search(PromptWizardConfig(**options), s))
    return s, oracle, [found, asked]


def cells(s: Any, text: str) -> int:
    return sum(s.ledger.candidates[c].text("instruction") == text for c, _ in s.ledger.cells)


def test_a_variant_costs_one_question_when_it_is_wrong_and_three_when_it_passes() -> None:
    s, oracle, (found, asked) = run(
        lambda c, e: float(c.text("instruction") == "prompt 2"), rounds=1, styles=2, mutations=1, refinements=0, walk=0
    )
    first, again = oracle.requests("evaluate")
    assert [c.text("instruction") for c in first.candidates] == ["seed", *(f"prompt {n}" for n in range(1, 5))]
    assert first.by == again.by == UntilWrong(3) and first.examples == again.examples  # the same questions for all
    assert [cells(s, t) for t in ("seed", "prompt 1", "prompt 2", "prompt 3")] == [1, 1, 3, 1]
    styles = [p for how, p in asked if how == "tag:prompt"][:4]
    assert all(style in p for style, p in zip(STYLES[:2] * 2, styles, strict=True))
    critiques = [p for how, p in asked if how == "tag:critique"]
    assert len(critiques) == 1 and "What makes it good" in critiques[0] and "<prompt>prompt 2</prompt>" in critiques[0]
    assert cells(s, "prompt 5") == 1  # the refined one was wrong at once, so its elder stays
    assert [c.text("instruction") for c in found][-1] == "prompt 2"


def test_a_refined_one_that_is_not_worse_takes_over_and_blame_asks_what_is_wrong() -> None:
    s, oracle, (found, asked) = run(lambda c, e: 0.0, rounds=2, styles=1, mutations=0, refinements=0)
    critiques = [p for how, p in asked if how == "tag:critique"]
    assert len(critiques) == 2 and all("What is wrong" in p and "Given answer: wrong answer" in p for p in critiques)
    assert "<prompt>prompt 2</prompt>" in [p for how, p in asked if how == "tag:prompt"][2]  # 1 varied, 2 refined


def test_the_result_has_a_persona_and_examples_that_were_hard() -> None:
    hard = set(a_search().train[::4])

    def value(c: Candidate, e: str) -> float:
        return float(e not in hard)

    s, oracle, (found, asked) = run(value, rounds=0, refinements=2, shots=3, walk=25, reasons=True)
    final, plain, before = found
    assert before == s.start and plain.text("instruction") == "prompt 2"
    assert final.text("instruction") == "persona 1\nprompt 2"
    seen = oracle.requests("cells")[0].pairs
    wrong = [e for _, e in seen if e in hard][:3]
    assert len(seen) == 25 and len(wrong) == 3
    shown = [(s.examples[e].inputs, f"reason {n}\nAnswer: {s.gold(e)}") for n, e in enumerate(wrong, 1)]
    assert list(final.parts["demonstrations"]) == shown
    s, _, (found, _) = run(value, rounds=0, refinements=0, shots=3, persona=False)
    assert found[0].text("instruction") == "seed"
    assert [a for _, a in found[0].parts["demonstrations"]] == [s.gold(e) for e in wrong]
