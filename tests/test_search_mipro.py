"""MIPROv2: bookkeeping of trials and promotions, a silent seeded estimator, a good pair without the whole grid."""

from __future__ import annotations

import sys
from collections import Counter
from typing import Any

import pytest

from anacrusis.errors import MissingExtra
from anacrusis.methods.mipro import MIPROConfig, search
from anacrusis.methods.mipro_study import Study
from anacrusis.search.candidate import Candidate
from anacrusis.search.search import Search, Searching
from tests.search_oracle import Oracle, a_search

SIZE = 8  # instructions, and sets


def a_run(seed: int, **options: Any) -> tuple[Search, Oracle, list[Any]]:
    """Instructions "seed", "1", .. "7" and 8 sets; each has a worth, and f of a pair is the sum of both."""
    s = a_search()
    s.seed = seed
    s.rng.seed(seed)
    numbers = iter(range(1, 99))
    worth: dict[Any, float] = {}

    def value(c: Candidate, e: str) -> float:
        shown = c.parts.get("demonstrations", ())
        if c.text("instruction") == "seed" and len(shown) == 15:
            return 1.0  # a teacher
        for part in (c.text("instruction"), shown):
            worth.setdefault(part, s.rng.__class__(f"{seed} {part}").random() / 2)
        chance = sum(worth[p] for p in (c.text("instruction"), shown))
        return float(s.rng.__class__(f"{e} {c.id}").random() < chance)

    def write(prompt: str, ask: Any) -> str:
        return "seen" if ask.parse != "tag:prompt" else str(next(numbers))

    oracle = Oracle(s, value, write)
    given = {"sets": SIZE, "instructions": SIZE, "trials": 25, "minibatch": 15, "looks": 2, **options}
    found = oracle.run(search(MIPROConfig(**given), s))
    return s, oracle, found


def test_finds_the_best_pair_with_a_third_of_the_cells() -> None:
    good, shares, learned = 0, list[float](), list[float]()
    for seed in range(10):
        s, oracle, found = a_run(seed)
        asked = oracle.requests("evaluate")
        examples = asked[0].examples
        pairs = {c for r in asked for c in r.candidates}
        shares.append(sum((c.id, e) in s.ledger.cells for c in pairs for e in examples) / (SIZE * SIZE * len(examples)))
        texts = {c.text("instruction") for c in pairs}
        sets = {c.parts.get("demonstrations", ()) for c in pairs}
        chances = sorted(
            sum(oracle.value(made(s, t, d), e) for e in examples) / len(examples) for t in texts for d in sets
        )
        best = s.ledger.scored(found[0].candidate, examples).mean
        good += best >= chances[-4]  # among the best four of 64
        tried = [s.ledger.scored(r.candidates[0], examples).mean for r in asked if len(r.examples) < len(examples)]
        learned.append(sum(tried[-10:]) / 10 - sum(tried[:10]) / 10)  # the first ten are drawn blindly
    assert good >= 9 and max(shares) < 1 / 3, (good, shares)
    assert sum(learned) / 10 > 0.04, learned  # what is suggested gets better


def made(s: Search, text: str, shown: Any) -> Candidate:
    c = s.start.put("instruction", text)
    return c.put("demonstrations", shown) if shown else c


def test_promotion_goes_to_the_best_mean_that_was_not_scored_in_full() -> None:
    s, oracle, found = a_run(3, trials=12, promote=5)
    asked = oracle.requests("evaluate")
    whole = asked[0].examples
    assert len(whole) == 60 and asked[0].candidates[0] == s.start  # trial 0: the default pair in full
    kinds = [len(r.examples) == 60 for r in asked[1:]]
    assert kinds == [False] * 5 + [True] + [False] * 5 + [True] + [False] * 2 + [True]
    means: dict[str, list[float]] = {}
    full = {s.start.id}
    for r in asked[1:]:
        c = r.candidates[0]
        if len(r.examples) < 60:
            value = [s.ledger.cells[c.id, e].value or 0.0 for e in r.examples]
            means.setdefault(c.id, []).append(sum(value) / len(value))
        else:
            open_ = {i: sum(m) / len(m) for i, m in means.items() if i not in full}
            assert c.id not in full and open_[c.id] == max(open_.values())
            full.add(c.id)
    assert {f.id for f in found} <= full and all(f.n == 60 for f in found)
    assert [f.mean for f in found] == sorted((f.mean for f in found), reverse=True)


def test_a_full_score_is_told_to_the_study_as_a_trial(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[str, Any, float]] = []
    add, tell = Study.add, Study.tell

    def added(self: Study, sizes: Any, params: Any, value: float) -> None:
        told.append(("full", params, value))
        add(self, sizes, params, value)

    def telling(self: Study, trial: Any, value: float) -> None:
        told.append(("trial", trial.params, value))
        tell(self, trial, value)

    monkeypatch.setattr(Study, "add", added)
    monkeypatch.setattr(Study, "tell", telling)
    s, oracle, _ = a_run(0, trials=6, promote=3)
    assert [k for k, _, _ in told] == ["full", "trial", "trial", "trial", "full", "trial", "trial", "trial", "full"]
    for (_, params, value), r in zip(told, oracle.requests("evaluate"), strict=True):
        assert value == s.ledger.scored(r.candidates[0], r.examples).mean
        assert (params["instruction"] == 0) == (s.text(r.candidates[0]) == "seed")
    assert told[0][1] == {"instruction": 0, "demonstrations": 0}


def test_few_examples_are_not_cut_into_minibatches() -> None:
    s = a_search(options=Searching(examples=60))  # 15 or more unused ones: all 60 are scored, so minibatches of 15
    oracle = Oracle(s, lambda c, e: 1.0, lambda prompt, ask: "t")
    oracle.run(search(MIPROConfig(trials=3, minibatch=15, instructions=2), s))
    assert Counter(len(r.examples) for r in oracle.requests("evaluate"))[15] == 3
    s = a_search(options=Searching(examples=40))
    oracle = Oracle(s, lambda c, e: 1.0, lambda prompt, ask: "t")
    oracle.run(search(MIPROConfig(trials=3, minibatch=15, instructions=2), s))
    assert {len(r.examples) for r in oracle.requests("evaluate")} == {40}


def test_the_study_is_seeded_and_silent(capfd: pytest.CaptureFixture[str]) -> None:
    import optuna

    level = optuna.logging.get_verbosity()

    def asked(seed: int) -> list[dict[str, int]]:
        study, out = Study(seed), []
        for _ in range(15):
            token, params = study.ask({"a": 9, "b": 9})
            study.tell(token, params["a"] / 9)
            out.append(params)
        return out

    assert asked(1) == asked(1) != asked(2)
    said = capfd.readouterr()
    assert said.out == said.err == "" and optuna.logging.get_verbosity() == level


def test_without_optuna_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(MissingExtra, match=r"MIPRO needs .*optuna.*anacrusis\[optimisers\]"):
        next(search(MIPROConfig(), a_search()))
