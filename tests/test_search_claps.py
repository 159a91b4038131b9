"""ClaPS: clusters, solo effects, and the strings that are searched."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import anacrusis as ana
from anacrusis.methods.claps import ClaPSConfig, clustered, search
from anacrusis.prompt.values import Frame
from anacrusis.search.ledger import Observation
from anacrusis.search.search import Search, Searching
from tests.search_contract import finds_what_was_planted
from tests.test_contracts import model_of, task_of
from tests.world import PHRASES, World

WORTH = {"red": 0.3, "blue": 0.2, "green": 0.1, "harm": -0.3, "idle": 0.0}


def test_finds_what_was_planted() -> None:
    finds_what_was_planted("claps", "4000calls", {"vocabulary": PHRASES})


@pytest.mark.slow
def test_finds_what_was_planted_by_evolution_too() -> None:
    finds_what_was_planted("claps", "10000calls", {"vocabulary": PHRASES, "by": "genetic", "size": 16})


def searched() -> Search:
    task = World().task
    base = Frame(labels=task.labels, words=task.words, instruction="start")
    return Search(task, base, ["instruction"], Searching(examples=4, finalists=3), 0)


def drive(config: ClaPSConfig, s: Search) -> tuple[list[str], list[list[str]]]:
    asked, send, policy = [], None, search(config, s)
    try:
        while True:
            request = policy.send(send)
            asked.append([s.text(c) for c in request.candidates])
            for c in request.candidates:
                worth = 0.4 + sum(v for w, v in WORTH.items() if w in s.text(c).split())
                s.ledger.add([c], [Observation(c.id, e, worth) for e in s.dev])
            send = [s.ledger.scored(c, s.dev) for c in request.candidates]
    except StopIteration as end:
        return [s.text(x) for x in end.value], asked


def test_words_are_scored_alone_and_the_useless_are_never_used_again() -> None:
    out, asked = drive(ClaPSConfig(vocabulary=tuple(WORTH), length=2, share=0.8), searched())
    assert asked[0] == ["start", *(f"{w} start" for w in WORTH)]
    assert asked[1] == ["red start", "blue start", "green start", "idle start"]  # the best 4 = 0.8 of 5
    assert asked[2] == ["red blue start", "red green start", "red idle start"]
    assert out[0] == "red blue start" and len(asked) == 3


def test_greedy_stops_when_no_word_helps() -> None:
    out, asked = drive(ClaPSConfig(vocabulary=tuple(WORTH), length=5, share=1.0), searched())
    assert out[0] == "red blue green start" and len(asked) == 5


def test_genetic_strings_have_the_length_and_only_kept_words() -> None:
    more = {"size": 6, "mutants": 3, "rate": 0.5, "generations": 12}
    config = ClaPSConfig(vocabulary=tuple(WORTH), length=2, share=0.8, by="genetic", **more)  # type: ignore[arg-type]
    out, asked = drive(config, searched())
    assert len(asked) == 14 and len(asked[1]) == 6 and all(len(batch) <= 6 for batch in asked[2:])
    strings = [t.split() for batch in asked[1:] for t in batch]
    assert all(len(t) == 3 and t[2] == "start" and set(t[:2]) <= {"red", "blue", "green", "idle"} for t in strings)
    assert set(out[0].split()) == {"red", "blue", "start"}


def test_a_cluster_is_stood_for_by_the_word_nearest_to_its_centre() -> None:
    s = searched()
    assert clustered(["a", "b", "c"], s, 2) == ["a", "b", "c"]  # no embeddings: the list as it is
    table = torch.tensor([[0.0, 0.0], [0.1, 0.0], [0.2, 0.0], [9.0, 9.0], [9.0, 9.3], [9.0, 9.1]])
    s.model = {"embeddings": table, "tokenizer": lambda text, **_: {"input_ids": [int(text)]}}
    assert sorted(clustered([str(i) for i in range(6)], s, 2)) == ["1", "5"]


@pytest.mark.parametrize("family", ["minilm", "gpt2"])
def test_words_of_the_training_texts_are_the_vocabulary_of_a_local_model(family: str, tmp_path: Path) -> None:
    options = {"clusters": "6", "length": "2", "share": "0.5"}
    runs = [ana.fit("claps", model_of(family), task_of(), folder=tmp_path / n, options=options) for n in "ab"]
    assert runs[0].prompt.same(runs[1].prompt)
    assert len(ana.load(tmp_path / "a" / "prompt").predict(["w1 w2"], model_of(family))) == 1
