"""CAPO: worked examples are part of a candidate, losers leave after one block, and length has its price."""

from __future__ import annotations

import pytest

from anacrusis.errors import ConfigError
from anacrusis.methods.capo import CAPOConfig, give, length, search, vary
from anacrusis.search.candidate import Candidate
from anacrusis.search.racing import PairedRace
from tests.by_hand import filled, graded, prompts, search_of
from tests.search_contract import finds_what_was_planted


def test_finds_what_was_planted() -> None:
    finds_what_was_planted("capo", "4000calls", {"size": 4, "block": 15})


def shots(n: int) -> tuple[tuple[tuple[str, ...], str], ...]:
    return tuple(((f"text {i}",), "red") for i in range(n))


def test_worked_examples_say_what_the_model_said_where_it_was_right() -> None:
    s = search_of()
    policy = search(CAPOConfig(size=3, crossovers=2), s)
    cells = next(policy)
    assert all("demonstrations" not in c.parts for c, _ in cells.pairs)  # made under the bare instruction
    right = {e: i % 2 for i, (_, e) in enumerate(cells.pairs)}
    ask = policy.send(filled(s, cells, lambda c, e: float(right[s.dev[e]])))
    assert len(ask.prompts) == 2 and all(len(set(prompts(p))) == 2 for p in ask.prompts)  # two different parents
    ask = policy.send(["merged 1", None])
    assert [prompts(p) for p in ask.prompts] == [["merged 1"]]
    race = policy.send(["mutated 1"])
    if not hasattr(race, "by"):  # an example is added
        race = policy.send(filled(s, race, lambda c, e: 1.0))
    *population, child = race.candidates
    assert child.text("instruction") == "mutated 1" and len(population) == 3
    pool = {e for _, e in cells.pairs}
    assert not pool & set(race.examples)  # what is shown scores nothing
    worked = {inputs: answer for c in population for inputs, answer in c.parts.get("demonstrations", ())}
    gold = {s.examples[e].inputs: s.gold(e) for e in pool}
    said = {s.examples[e].inputs: "said 1.0" for e in pool if right[e]}
    assert worked and all(answer in (gold[i], said.get(i)) for i, answer in worked.items())
    assert {a for a in worked.values() if a.startswith("said")} == {"said 1.0"}


def test_a_child_has_half_of_the_parents_examples_one_more_or_one_less() -> None:
    s = search_of()
    a, b = s.start.put("demonstrations", shots(5)[:3]), s.start.put("demonstrations", shots(5)[2:])
    seen = {(len(kept), more) for kept, more in (vary(s, a, b, 5) for _ in range(60))}
    assert seen == {(3, True), (3, False), (2, False)}  # floor((3 + 3) / 2) = 3
    assert all(not more for _, more in (vary(s, a, b, 3) for _ in range(60)))  # no more than are allowed
    assert give(s, a, ()).id == s.start.id  # content has one id


def test_losers_everywhere_leave_after_one_block_and_length_costs() -> None:
    s = search_of(seed=1)
    size, block = 3, 10
    policy = search(CAPOConfig(size=size, crossovers=2, block=block, steps=1, gamma=0.05), s)

    def worth(c: Candidate, e: int) -> float:
        return float(not c.text("instruction").startswith("bad"))

    policy.send(filled(s, next(policy), worth))
    policy.send(["m1", "m2"])
    race = policy.send(["bad 1", "bad 2"])
    while not isinstance(getattr(race, "by", None), PairedRace):
        race = policy.send(filled(s, race, worth))
    first = [length(s, c) for c in race.candidates[:size]]
    longest = max(first)
    assert first != sorted(first)
    for c in race.candidates:
        assert race.by.offsets[c.id] == pytest.approx(0.05 * length(s, c) / longest)
    before = set(s.ledger.cells)
    scored = graded(s, race, worth)
    asked = set(s.ledger.cells) - before
    assert len(asked) == len(race.candidates) * block  # exactly one block
    assert {x.candidate for x in scored if x.alive} == set(race.candidates[:size])
    with pytest.raises(StopIteration) as end:
        policy.send(scored)
    lengths = [length(s, c) for c in end.value.value]
    assert lengths == sorted(first)  # equal scores: the shortest first


def test_a_population_of_one_is_refused() -> None:
    with pytest.raises(ConfigError, match="at least 2"):
        CAPOConfig(size=1)
