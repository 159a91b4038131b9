"""Cost: tokens counted by hand, time by a clock that the test sets, money by a price that it sets."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from anacrusis.assess import cost
from anacrusis.assess.cost import REPEATS, Cost, ends, refuses, run, timed, tokens
from anacrusis.assess.subject import Subject
from anacrusis.model.endpoint import Endpoint
from anacrusis.prompt.values import Constant, Frame, Prefix, Prompt, Soft, Text
from anacrusis.search.budget import Budget, Price, parse
from anacrusis.search.desk import Desk
from anacrusis.search.store import Store
from anacrusis.task import Example, Task
from anacrusis.testing import sight, tiny

from .loopback import Loopback

LABELS = ("a", "b")
FRAME: dict[str, Any] = {"labels": LABELS, "words": ("w1", "w2")}


def subject_of(model: Any, prompt: Prompt, texts: Any = ("w3 w4", "w3 w4 w5 w6", "w7"), **more: Any) -> Subject:
    examples = tuple(Example((t,), i % 2, f"row {i}") for i, t in enumerate(texts))
    task = Task("made", "classification", ("text",), LABELS, FRAME["words"], (), (), examples)
    return Subject(prompt, model, task, **more)


def counted(model: Any, prompt: Prompt, texts: Any = ("w3 w4", "w3 w4 w5 w6", "w7")) -> Cost:
    subject = subject_of(model, prompt, texts)
    return tokens(subject, prompt, [e.inputs for e in subject.examples])


def test_tokens_of_every_kind_by_hand() -> None:
    """A BERT puts <s> and </s> around 2, 4 and 1 words: 4, 6 and 3 tokens; the prompt adds its own."""
    bert, gpt2 = tiny("minilm"), tiny("gpt2")
    frame = Frame(**FRAME, readout="similarity")
    assert counted(bert, Text(frame=frame)) == Cost(0, 13 / 3, pytest.approx(5.8), 0, 0)
    soft = Soft(vectors=torch.zeros(5, 32), frame=frame)
    assert counted(bert, soft) == Cost(5, pytest.approx(13 / 3 + 5), pytest.approx(10.8), 0, 160)
    said = Text(frame=Frame(**FRAME, readout="similarity", instruction="w8 w9", template="w7 : {text} w10",
                            demonstrations=((("w3",), "w1"),)))  # fmt: skip
    # w8 w9, then "w7 : w3 w10 w1" of the demonstration, then "w7 :" and "w10" around the text
    assert counted(bert, said).own == 2 + 5 + 3
    kv = tuple(torch.zeros(4, n, 8) for n in (3, 1))
    prefix = Prefix(keys={"decoder": kv}, values={"decoder": kv}, frame=Frame(**FRAME, readout="label-words"))
    assert counted(gpt2, prefix) == Cost(3, pytest.approx(7 / 3 + 3), pytest.approx(6.8), 0, 2 * 4 * 4 * 8)


def test_examples_that_lose_their_end_are_counted() -> None:
    texts = ["w3 " * n for n in (5, 121, 130, 200)]
    cost = counted(tiny("gpt2"), Soft(vectors=torch.zeros(8, 32), frame=Frame(**FRAME)), texts)
    assert cost.cut == 3 and cost.high == 128
    finding = run(subject_of(tiny("gpt2"), Soft(vectors=torch.zeros(8, 32), frame=Frame(**FRAME)), texts))
    assert "3 of 4 examples lose their end" in finding.headline
    assert ("examples cut", "3", "2") in finding.rows


def test_seconds_by_a_clock_that_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """The slow way takes 30 ms an answer, the quick one 10; the first round of each is not counted."""
    now, asked = [0.0], {"slow": 0, "quick": 0}
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])

    def way(name: str, seconds: float, first: float) -> Any:
        def answer(n: int) -> None:
            now[0] += n * (seconds if asked[name] else first)
            asked[name] += n

        return answer

    taken, used = timed([way("slow", 0.03, 0.2), way("quick", 0.01, 0.2)], 64)
    assert taken.shape == (REPEATS, 2) and taken == pytest.approx(np.array([[0.03, 0.01]] * REPEATS))
    assert used == sum(asked.values()) == 2 * (8 + (REPEATS + 1) * 8)  # a second a repeat at most: no more than 8
    assert ends([3.0, 1.0, 2.0, 5.0]) == (2.5, 1.0, 5.0)
    _, used = timed([way("quick", 0.001, 0.001)], 50)
    assert used == 8 + (REPEATS + 1) * 50


def test_it_stays_within_its_answers_and_counts_them() -> None:
    prompt = Soft(vectors=torch.zeros(5, 32), frame=Frame(**FRAME, readout="label-words"))
    subject = subject_of(tiny("gpt2"), prompt, cells=100)
    finding = run(subject)
    assert 16 <= subject.asked <= 100
    assert finding.value is not None and finding.low is not None and finding.high is not None
    assert 0 < finding.low <= finding.value <= finding.high
    assert finding.headline.startswith(
        "5 tokens (3.9% of what the model reads), 2 in the bare frame; 160 stored values"
    )
    assert finding.details["times"][0] > 0 and "times that of the bare frame" in finding.headline
    assert "at least 16 answers" in refuses(subject_of(tiny("gpt2"), prompt, cells=15))


def test_an_endpoint_is_asked_a_few_questions_anew_and_paid_once(tmp_path: Path) -> None:
    prompt = Text(frame=Frame(**FRAME, template="{text}\nAnswer:", instruction="Answer w1 or w2.", readout="answer"))
    with Loopback(lambda body, index: "w1") as server, Store(f"sqlite:///{tmp_path / 's.sqlite'}", "r") as store:
        with Endpoint("openai:made", base_url=server.url) as model:
            budget = Budget((), {"task": Price(2.0, 10.0)})
            desk = Desk({"task": model}, store, budget, "0", lambda n: None)
            subject = subject_of(model, prompt, [f"w{i} w{i}" for i in range(10, 30)], desk=desk)
            subject.values()  # what other measures asked takes no time, so it cannot be timed
            finding = run(subject)
            again = run(subject)
    # "Answer w1 or w2.\n\nw10 w10\nAnswer:" are 16 + 2 + 7 + 8 bytes; one token comes back
    assert finding.details["prompt"]["mean"] == pytest.approx(33 / 4) and finding.details["prompt"]["own"] == round(
        26 / 4
    )
    assert server.charged == 20 + 8 and subject.asked == 20 + 16
    assert finding.details["prompt"]["dollars"] == pytest.approx(1000 * (9 * 2 + 1 * 10) / 1e6)
    assert "$0.0280 for 1,000 answers" in finding.headline and finding.value is not None and finding.value > 0
    assert "8: 9 tokens in, 1 out" in finding.notes[1]
    assert again.value is None and again.notes[1].endswith("all of them were stored, so no time is known")


def test_a_budget_that_ends_leaves_what_was_counted(tmp_path: Path) -> None:
    prompt = Text(frame=Frame(**FRAME, template="{text}", readout="answer"))
    with Loopback(lambda body, index: "w1") as server, Store(f"sqlite:///{tmp_path / 's.sqlite'}", "r") as store:
        with Endpoint("openai:made", base_url=server.url) as model:
            found = []
            for limit in ("3calls", "0calls"):
                desk = Desk({"task": model}, store, Budget(parse(limit)), "0", lambda n: None)
                found.append(run(subject_of(model, prompt, [f"{limit} {i}" for i in range(6)], desk=desk)))
    assert server.charged == 3 and found[0].value is not None and found[1].value is None
    assert "the limit 3calls leaves" in found[0].notes[1] and found[1].notes[1].startswith(
        "no question was asked; the limit"
    )
    assert found[1].details["prompt"]["own"] == 0 and found[1].details["prompt"]["dollars"] is None


def test_the_bare_frame_writes_as_long_answers_as_the_prompt(monkeypatch: pytest.MonkeyPatch) -> None:
    allowed: list[int | None] = []
    monkeypatch.setattr(cost, "written", lambda prompt, inputs, model: allowed.append(prompt.card.get("answer_tokens")))
    examples = tuple(Example((f"w{i}",), "w1", f"row {i}") for i in range(4))
    task = Task("made", "generation", ("text",), (), (), (), (), examples)
    for card, expected in (({"answer_tokens": 3}, {3}), ({}, {None})):
        allowed.clear()
        run(Subject(Text(frame=Frame(readout="generate", instruction="w5"), card=card), tiny("gpt2"), task, cells=32))
        assert set(allowed) == expected and len(allowed) == 2 * (REPEATS + 2)


def test_pictures_have_no_tokens() -> None:
    model = sight("clip")
    pictures = np.random.default_rng(0).integers(0, 256, (12, 32, 32, 3)).astype(np.uint8)
    task = Task.from_arrays(list(pictures[4:]), ["a", "b"] * 4, test=(list(pictures[:4]), ["a", "b"] * 2),
                            words={"a": "w1", "b": "w2"})  # fmt: skip
    frame = Frame(**FRAME, fields=("image",), template="w3 {label}", readout="match")
    finding = run(Subject(Text(frame=frame), model, task, cells=32))
    assert finding.details["prompt"]["mean"] is None and finding.headline.startswith("0 stored values; ")
    assert finding.value is not None and finding.value > 0


def test_what_asks_no_model_is_refused() -> None:
    constant = Constant(scores=torch.zeros(2), frame=Frame(**FRAME))
    assert "costs nothing" in refuses(subject_of(None, constant))
    assert "no head" in refuses(subject_of(tiny("minilm"), Text(frame=Frame(**FRAME, readout="head"))))
