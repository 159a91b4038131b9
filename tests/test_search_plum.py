"""Plum: the six rules by hand with a fake oracle, edits that keep what must stay, and the planted prompt."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import anacrusis as ana
from anacrusis.methods.plum import Edits, PlumConfig
from anacrusis.prompt.values import Frame
from anacrusis.search.candidate import Candidate
from anacrusis.search.edits import KINDS, LEVELS, bare, crossed, edited, join, locked, pools, spans, split, spread
from anacrusis.search.ledger import Observation
from anacrusis.search.search import Search, Searching
from tests.search_contract import finds_what_was_planted
from tests.test_contracts import model_of, task_of
from tests.world import PHRASES, World

POOL = ("one", "two", "three")


@pytest.mark.parametrize(
    ("rule", "budget", "more"),
    [("hill-climbing", "8000calls", {}), ("annealing", "8000calls", {}), ("tabu", "8000calls", {}),
     ("genetic", "14000calls", {}), ("genetic-crossover", "14000calls", {}), ("harmony", "14000calls", {"memory": 5})],
)  # fmt: skip
def test_finds_what_was_planted(rule: str, budget: str, more: dict[str, Any]) -> None:
    options = {"vocabulary": PHRASES, "iterations": 100, "level": "sentence", **more}
    finds_what_was_planted(f"plum-{rule}", budget, options)


# --- the rules


class Oracle:
    """Runs a method on texts of words; `value` says what a text is worth."""

    def __init__(self, name: str, value: Any, seed: int = 0, **options: Any):
        task = World().task
        self.s = Search(task, Frame(labels=task.labels, words=task.words, instruction="a b"), ["instruction"],
                        Searching(examples=4, finalists=1000), seed)  # fmt: skip
        config = PlumConfig(**{"level": "word", "vocabulary": POOL, **options})
        self.asked: list[list[str]] = []
        self.born: list[Any] = []
        policy = ana.registry.get(name).build(config, self.s)
        send = None
        try:
            while True:
                request = policy.send(send)
                self.asked.append([self.s.text(c) for c in request.candidates])
                self.born += request.candidates
                for c in request.candidates:
                    self.s.ledger.add([c], [Observation(c.id, e, self.worth(c, value)) for e in self.s.dev])
                send = [self.s.ledger.scored(c, self.s.dev) for c in request.candidates]
        except StopIteration as end:
            self.out = [self.s.text(c) for c in end.value]

    def worth(self, c: Candidate, value: Any) -> float:
        """value None: 0.01 less than the parent's."""
        if value is not None:
            return float(value(self.s.text(c)))
        if (known := self.s.ledger.scored(c, self.s.dev)).n:
            return known.mean
        before = [self.s.ledger.scored(self.s.ledger.candidates[p], self.s.dev).mean for p in c.parents]
        return before[0] - 0.01 if before else 1.0


def far(a: str, b: str) -> int:
    """Pieces that one has and the other has not."""
    x, y = Counter(a.split()), Counter(b.split())
    return ((x - y) + (y - x)).total()


def worth(text: str) -> float:
    return min(1.0, sum(w in POOL for w in text.split()) / 4)


def test_hill_climbing_moves_only_upwards() -> None:
    got = Oracle("plum-hill-climbing", worth, iterations=12, width=3)
    base = "a b"
    for around in got.asked[1:]:
        assert len(around) <= 3 and all(far(base, t) <= 2 for t in around)  # one edit of the base
        base = max([base, *around], key=worth)
    assert worth(base) == 0.75 == worth(got.out[0])  # each phrase of the pool once


def test_annealing_takes_worse_steps_and_fewer_when_cold() -> None:
    """Every text is worth 1 point less than its parent: T = 10 exp(-i / 10), so P = exp(-exp(i / 10) / 10) is 0.88
    over the first six of 20 iterations and 0.62 over the last."""
    took = {"warm": 0, "cold": 0, "n": 0}
    many = tuple(f"v{i}" for i in range(300))
    for seed in range(60):
        got = Oracle("plum-annealing", None, seed, iterations=20, width=1, vocabulary=many)
        pairs = list(zip(got.born[1:], got.born[2:], strict=False))
        for i, (a, b) in enumerate(pairs):
            took["warm"] += i < 6 and a.id in b.parents
            took["cold"] += i >= len(pairs) - 6 and a.id in b.parents
        took["n"] += 6
    assert 0.82 < took["warm"] / took["n"] < 0.94 and 0.55 < took["cold"] / took["n"] < 0.7


def test_tabu_leaves_a_peak_and_does_not_come_back_at_once() -> None:
    got = Oracle("plum-tabu", lambda t: float(t == "a b"), iterations=30, width=4, table=100)
    assert all("a b" not in around for around in got.asked[1:])  # hill climbing never leaves it
    assert any(far("a b", t) > 2 for around in got.asked for t in around)
    short = Oracle("plum-tabu", lambda t: float(t == "a b"), iterations=30, width=4, table=1)
    assert any("a b" in around for around in short.asked[1:])


def test_genetic_draws_from_all_that_was_kept_and_keeps_the_best_of_each_iteration() -> None:
    got = Oracle("plum-genetic", worth, iterations=10, width=4)
    kept = ["a b"]
    for around in got.asked[1:]:
        assert any(all(far(k, t) <= 2 for t in around) for k in kept)
        kept.append(max(around, key=worth))
    assert set(got.out) == set(kept)


def test_crossover_joins_two_parents() -> None:
    rng = random.Random(0)
    children = {crossed(("a b c d", "e f g h"), rng, "word") for _ in range(60)}
    assert children == {"e f g h", "a f g h", "a b g h", "a b c h", "a b c d"}
    assert crossed(("{text} a", "b {text}"), random.Random(2), "word").count("{text}") == 1
    got = Oracle("plum-genetic-crossover", worth, iterations=10, width=4)
    assert worth(got.out[0]) > 0.5


def test_harmony_takes_segment_j_from_member_j_and_loses_no_last_phrase() -> None:
    texts = [" ".join(f"{m}{i}" for i in range(10)) for m in "abcde"]
    assert crossed(texts, random.Random(0), "word", 5) == "a0 a1 b2 b3 c4 c5 d6 d7 e8 e9"
    got = Oracle("plum-harmony", worth, iterations=10, width=4, memory=3)
    assert len(got.out) <= 3 and worth(got.out[0]) > 0.5


# --- edits


@given(st.text(alphabet="ab{}. ,\n", max_size=30), st.sampled_from(list(LEVELS)))
def test_a_text_is_the_join_of_its_pieces(text: str, level: str) -> None:
    assert join(split(text, level), level) == text.strip()


@given(st.sampled_from(["{text}", "x {text}\ny z", "{a}{sep}{b} of c.", "say: {text}. Is it, or no?"]),
       st.sampled_from(KINDS), st.sampled_from(list(LEVELS)), st.integers(0, 99))  # fmt: skip
def test_an_edit_changes_one_piece_and_never_loses_a_placeholder(text: str, kind: str, level: str, seed: int) -> None:
    made = edited(text, kind, POOL, random.Random(seed), level)
    if made is None:
        pieces = split(text, level)
        assert kind != "add" and (len(pieces) == 1 or all(map(locked, pieces)))
        return
    new, lost = made
    assert all(new.count(h) == text.count(h) for h in ("{text}", "{a}", "{sep}", "{b}"))
    before, after = Counter(map(bare, split(text, level))), Counter(map(bare, split(new, level)))
    gone, come = before - after, after - before
    assert gone.total() == (kind in ("delete", "substitute")) and come.total() == (kind in ("add", "substitute"))
    assert [bare(lost)] == list(gone) if gone else lost == ""


def test_a_deleted_phrase_can_come_back() -> None:
    task = World().task
    base = Frame(labels=task.labels, words=task.words, instruction="First this. Then that.")
    s = Search(task, base, ["instruction"], Searching(), 0)
    edits = Edits(PlumConfig(vocabulary=("idle",)), s)
    short = edits.one(s.start, kinds=("delete",))
    assert {s.text(edits.one(short, kinds=("add",))) for _ in range(30)} >= {"First this. Then that."}


def test_the_text_of_a_class_is_made_of_spans_of_its_training_texts() -> None:
    assert spans(["a1 b2 c3", "b2 c3"], 2) == ("a1 b2", "b2 c3")
    assert spans(["a1 b2 c3", "b2 c3"], 0) == ("a1 b2 c3", "b2 c3")
    assert spread(tuple("abcdefg"), 3) == ("a", "d", "g") and spread(tuple("ab"), 3) == ("a", "b")
    task = World().task
    s = Search(task, Frame(labels=task.labels, words=task.words, readout="similarity"), ["words"], Searching(), 0)
    found = pools(s, dict.fromkeys(s.slots, "word"), size=50)
    mine = [t for e in task.train if e.gold == 1 for t in e.inputs]
    assert all(any(p in t for t in mine) for p in found["words:1"]) and {len(p.split()) for p in found["words:1"]} >= {
        1,
        2,
        3,
    }


def test_every_slot_of_a_model_with_features_has_a_pool_and_is_edited(tmp_path: Any) -> None:
    model, task = model_of("minilm"), task_of()
    run = ana.fit("plum-hill-climbing", model, task, folder=tmp_path / "r", options={"iterations": "40"})
    assert "{text}" in run.prompt.frame.template and run.prompt.frame.readout == "similarity"
    assert ana.load(tmp_path / "r" / "prompt").predict(["w1 w2"], model) == run.prompt.predict(["w1 w2"], model)
    s = Search(task, run.prompt.frame, ["template", "words"], Searching(), 0)
    found = pools(s, dict.fromkeys(s.slots, "word"))
    assert list(found) == ["template", "words:0", "words:1"] and "This" in found["template"]
    edits = Edits(PlumConfig(), s)
    assert {edits.one(s.start).note for _ in range(60)} == set(s.slots)
