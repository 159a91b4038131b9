"""Bootstrapped demonstrations: only what the model answered right, in its own words; the planted set is found."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path

import anacrusis as ana
from anacrusis.methods.bootstrap import BootstrapConfig, apart, bootstrapped, demonstration_sets, search
from anacrusis.model.calls import Call
from anacrusis.prompt.values import Frame
from anacrusis.runs.searching import Means
from anacrusis.search.search import Searching
from tests.search_oracle import Oracle, a_search
from tests.world import LABELS, TOPICS, Direct, World

READ = 4  # demonstrations that the planted model reads: the last ones


def knows(world: World, demonstrations: list[str], text: str) -> bool:
    need = world.needs[text]
    return need is None or any(f"about {TOPICS[need]}" in d for d in demonstrations[-READ:])


def answer(world: World, call: Call) -> str:
    *shown, text = re.findall(r"^Text: (.*)$", call.messages[-1][1], re.MULTILINE)
    gold = world.gold[text]
    return gold if knows(world, shown, text) else LABELS[(LABELS.index(gold) + 1) % 3]


def skill(world: World, frame: Frame) -> float:
    shown = [inputs[0] for inputs, _ in frame.demonstrations]
    return sum(knows(world, shown, t) for t in world.gold) / len(world.gold)


def test_finds_the_planted_demonstrations() -> None:
    skills, first = [], []
    for seed in range(10):
        world = World(seed)
        with tempfile.TemporaryDirectory() as folder:
            run = ana.fit(
                "bootstrap-random-search", Direct(world, answer=lambda call, w=world: answer(w, call)), world.task,
                seed=seed, folder=Path(folder) / "run", options={"sets": 40, "labelled": 4, "shots": 3},
                means=Means(budget="3000calls"),
            )  # fmt: skip
        assert run.cost["calls"] <= 3000
        skills.append(skill(world, run.prompt.frame))
        some = [e.inputs for e in world.task.train[:READ]]
        first.append(skill(world, Frame(demonstrations=tuple((i, "") for i in some))))
    assert sum(k >= 0.95 for k in skills) >= 9, skills
    assert sum(first) / 10 < 0.85, first  # some demonstrations are not good enough


def test_only_right_answers_are_shown_in_the_words_of_the_model() -> None:
    s = a_search()
    pool, scored = apart(s, 0.25)
    right = {pool[1], pool[4], pool[5]}
    oracle = Oracle(s, lambda c, e: float(e in right))
    oracle_says = oracle.fill

    def fill(pairs: object) -> None:
        oracle_says(pairs)
        for key, o in s.ledger.cells.items():
            object.__setattr__(o, "output", f"I say {s.gold(key[1])}" if o.value else "nonsense")

    oracle.fill = fill  # type: ignore[method-assign]
    shown = oracle.run(bootstrapped(s, pool, pool[:2], 2, 4, 0.5))
    wanted = [pool[1], pool[4]]  # the first two that were right, then right answers of others
    assert [i for i, _ in shown] == [s.examples[e].inputs for e in (*wanted, pool[0], pool[2])]
    assert [a for _, a in shown] == [f"I say {s.gold(e)}" for e in wanted] + [s.gold(pool[0]), s.gold(pool[2])]
    assert not s.ledger.scored(s.start, s.dev).n  # the teacher is shown examples
    for c, e in s.ledger.cells:
        teacher = s.ledger.candidates[c].parts["demonstrations"]
        assert s.examples[e].inputs not in [i for i, _ in teacher]  # never the one that is asked
        assert len(teacher) == 2 - (e in pool[:2])
    assert (len(s.ledger.cells), pool[5] in {e for _, e in s.ledger.cells}) == (5, False)  # enough after pool[4]


def test_sets_begin_with_none_and_labels_only_and_differ_in_size() -> None:
    s = a_search()
    pool, _ = apart(s, 0.25)
    sets = Oracle(s, lambda c, e: 1.0).run(demonstration_sets(s, pool, 30, 4, 4, 0.5))
    assert sets[0] == () and len(sets) == len(set(sets)) and all(len(d) == 4 for d in sets[1:])
    assert [i for i, _ in sets[2]] == [s.examples[e].inputs for e in pool[:4]]  # unshuffled


def test_no_example_is_both_shown_and_scored() -> None:
    s = a_search()
    pool, scored = apart(s, 0.25)
    assert (len(pool), len(scored), set(pool) & set(scored)) == (20, 60, set())
    wide = a_search(options=Searching(examples=30))
    pool, scored = apart(wide, 0.25)  # unused examples first
    assert scored == wide.dev and len(pool) == 50 and not set(pool) & set(scored)
    oracle = Oracle(s, lambda c, e: 1.0)
    found = oracle.run(search(BootstrapConfig(sets=6), s))
    asked = oracle.requests("evaluate")[0]
    texts = {s.examples[e].inputs for e in asked.examples}
    assert not texts & {i for c in asked.candidates for i, _ in c.parts.get("demonstrations", ())} and found
