"""The bound by hand, its properties, and what a prompt's words cost."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import binom

from anacrusis.assess.bound import additive, by_the_model, divergence, inverted, parts_of, refuses, run, uniform
from anacrusis.assess.subject import Subject
from anacrusis.model.endpoint import Endpoint
from anacrusis.prompt.values import Frame, Head, Soft, Text
from anacrusis.search.budget import Budget
from anacrusis.search.desk import Desk
from anacrusis.search.store import Store
from anacrusis.task import Example, Task
from anacrusis.testing import tiny

from .loopback import Loopback
from .ruled import Ruled
from .test_assess_calibration import given

WORDS = ("w1", "w2")


def subject_of(model: Any, frame: dict[str, Any], n: int = 12, **more: Any) -> Subject:
    """Two classes; texts of two words; all examples to learn from, one of them to test on."""
    examples = tuple(Example((f"w{10 + i} w{30 + i}",), i % 2, f"row {i}") for i in range(n))
    task = Task("made", "classification", ("text",), ("a", "b"), WORDS, examples, (), examples[:1])
    prompt = Text(frame=Frame(**{"labels": ("a", "b"), "words": WORDS, **frame}))
    return Subject(prompt, model, task, train=examples, **more)


def test_both_forms_by_hand() -> None:
    """n = 100, e = 0.1, KL = 10, delta = 0.05: 10 + log(2 * 10 / 0.05) = 15.9915."""
    assert additive(0.1, 100, 10.0) == pytest.approx(0.1 + math.sqrt(15.991465 / 200))
    assert divergence(0.1, 0.4) == pytest.approx(0.1 * math.log(0.25) + 0.9 * math.log(1.5))
    assert divergence(0.0, 0.3) == pytest.approx(-math.log(0.7)) and divergence(1.0, 1.0) == 0
    assert divergence(0.2, 0.0) == math.inf
    x = inverted(0.1, 100, 10.0)
    assert 100 * divergence(0.1, x) == pytest.approx(15.991465) and 0.1 < x < additive(0.1, 100, 10.0)
    assert inverted(0.0, 50, 3.0) == pytest.approx(1 - math.exp(-(3 + math.log(2 * 50**0.5 / 0.05)) / 50))
    assert inverted(1.0, 50, 3.0) == 1 and inverted(0.3, 10, 1e6) == 1


def test_it_falls_with_examples_and_with_likelihood_and_is_never_looser() -> None:
    for e in (0.0, 0.02, 0.3):
        by_n = [inverted(e, n, 20.0) for n in (50, 100, 1000, 10**6)]
        by_kl = [inverted(e, 200, kl) for kl in (0.0, 5.0, 50.0)]
        assert by_n == sorted(by_n, reverse=True) and by_n[-1] == pytest.approx(e, abs=0.01)
        assert by_kl == sorted(by_kl) and len(set(by_kl)) == 3
        assert all(e <= inverted(e, n, k) <= additive(e, n, k) for n in (20, 300) for k in (0.0, 30.0))


def test_it_holds_as_often_as_it_says() -> None:
    """A prompt of error 0.3, known before (KL = 0): at most 5 of 100 samples may give a bound below it."""
    for n in (80, 300):
        broken = sum(binom.pmf(k, n, 0.3) for k in range(n + 1) if inverted(k / n, n, 0.0) < 0.3)
        assert 0 < broken <= 0.05


def test_the_prior_sums_to_one() -> None:
    assert sum(3**m * math.exp(-uniform(m, 3)) for m in range(500)) == pytest.approx(1, abs=0.01)
    assert uniform(2, 10) == pytest.approx(2 * math.log(10) + math.log(12))


def test_every_text_of_a_prompt_counts() -> None:
    frame = Frame(fields=("q",), labels=("a", "b"), words=WORDS, template="It says {q} so: {mask}{soft:2}",
                  instruction="Choose.", demonstrations=((("one",), "w1"), (("two",), "w2")))  # fmt: skip
    assert parts_of(frame) == {"instruction": ["Choose."], "template": ["It says ", " so: "],
                               "label words": ["w1", "w2"], "demonstrations": ["one", "w1", "two", "w2"]}  # fmt: skip
    assert parts_of(Frame(templates=("a {label}", "the {label}."))) == {"template": ["a ", "the ", "."]}


def test_the_models_own_probability_by_hand() -> None:
    model = tiny("gpt2")
    ids = model.tokenizer("Prompt:\n w5 w6 w7\n w8")["input_ids"]
    with torch.no_grad():
        logs = model.network(torch.tensor([ids])).logits[0].log_softmax(-1)
    each = [-float(logs[i - 1, ids[i]]) for i in range(len(ids) - 4, len(ids))]
    first, second = by_the_model(model, ["w5 w6 w7", "w8"])
    assert first == pytest.approx(sum(each[:3]) + math.log(4 * 5), rel=1e-4)
    assert second == pytest.approx(each[3] + math.log(2 * 3), rel=1e-4)


def test_long_texts_are_scored_in_pieces() -> None:
    model = tiny("gpt2")  # 128 positions: pieces of 16 characters
    long = " ".join(f"w{i % 90}" for i in range(300))
    (found,) = by_the_model(model, [long])
    assert 300 * 3 < found < 300 * 12  # nats a word; alike they would be 4.6
    (cut,) = by_the_model(model, ["w" * 400])
    assert math.isfinite(cut) and cut > 0


def test_of_two_prompts_that_are_as_right_the_likelier_has_the_smaller_bound() -> None:
    model = tiny("gpt2")
    texts = [f"w{i} w{j}" for i in range(20, 24) for j in range(40, 44)]
    costs = [by_the_model(model, [t])[0] for t in texts]
    found = [run(subject_of(model, {"instruction": texts[int(k)], "readout": "label-words"}, 400))
             for k in (np.argmin(costs), np.argmax(costs))]  # fmt: skip
    e = [f.details["train_error"] for f in found]
    kls = [f.details["kl"] for f in found]
    assert kls[0] + 2 < kls[1]
    assert inverted(e[0], 400, kls[0]) == found[0].value and inverted(e[0], 400, kls[1]) > (found[0].value or 1)
    assert "the probability that tiny:gpt2:0 gives these words" in found[0].notes[0]


def test_an_encoder_and_an_endpoint_count_alike_tokens_and_bytes(tmp_path: Path) -> None:
    finding = run(subject_of(tiny("minilm"), {"readout": "similarity", "instruction": "w3 w4 w5"}, 200))
    V = len(tiny("minilm").tokenizer)
    assert finding.details["kl"] == pytest.approx(uniform(3, V) + 2 * uniform(1, V))
    assert [r[0] for r in finding.rows] == ["instruction", "label words"] and f"all {V} tokens alike" in finding.notes[
        0
    ]
    with Loopback(lambda body, index: "w1") as server, Store(f"sqlite:///{tmp_path / 's.sqlite'}", "r") as store:
        with Endpoint("openai:made", base_url=server.url) as model:
            desk = Desk({"task": model}, store, Budget(()), "0", lambda n: None)
            subject = subject_of(model, {"readout": "answer", "instruction": "Söy"}, desk=desk)
            assert refuses(subject) == ""
            finding = run(subject)
    assert finding.details["train_error"] == 0.5
    assert finding.details["kl"] == pytest.approx(uniform(4, 256) + 2 * uniform(2, 256)) and "bytes" in finding.notes[0]


def test_a_bound_that_says_nothing_says_so() -> None:
    finding = run(subject_of(tiny("minilm"), {"readout": "similarity", "instruction": "w3 " * 80}))
    assert finding.value == 1 and finding.details["vacuous"] and finding.headline.startswith("no bound: 12 examples")
    fine = given([[0.9, 0.1]] * 4, [0] * 4, train=([[0.9, 0.1]] * 500, [0] * 490 + [1] * 10), cells=400,
                 prompt=Text(frame=Frame(labels=("c0", "c1"), words=WORDS)))  # fmt: skip
    fine.model = tiny("bert")
    finding = run(fine)
    assert (
        finding.value is not None and 0.02 < finding.value < 0.2 and "with 95 % confidence at most" in finding.headline
    )
    assert finding.details["n"] == 400 and "on 400 of 500 examples, drawn at random" in finding.notes
    assert finding.details["fixed"] < finding.value


def test_written_answers_are_not_said_to_be_wrong() -> None:
    """Half of each answer's words are right: rougeL is 0.5, and its bound is of 1 - rougeL."""
    texts = tuple(Example((f"text {i}",), "a b c d", f"row {i}") for i in range(400))
    task = Task("made", "generation", ("text",), (), (), texts, (), texts[:1])
    subject = Ruled(Text(frame=Frame(readout="generate")), None, task, train=texts, rule=lambda frame, x: "a b x y")
    subject.model = tiny("bert")
    finding = run(subject)
    assert finding.details["train_error"] == pytest.approx(0.5) and finding.details["loss"] == "1 - rougeL"
    assert finding.headline.startswith(
        f"with 95 % confidence the mean of 1 - rougeL is at most {finding.value:.3f} on new"
    )
    assert "wrong" not in finding.headline
    few = Ruled(Text(frame=Frame(readout="generate", instruction="w1 " * 90)), None, task, train=texts[:9],
                rule=subject.rule)  # fmt: skip
    few.model = subject.model
    assert "(mean of 1 - rougeL there: 0.500)" in run(few).headline


def test_what_is_not_words_is_refused() -> None:
    subject = subject_of(tiny("minilm"), {"readout": "head"})
    frame = subject.prompt.frame
    head = Head(torch.zeros(2, 32), torch.zeros(2))
    for prompt in (Soft(vectors=torch.zeros(1, 32), frame=frame), Text(frame=frame, head=head)):
        assert "prompts of words" in refuses(Subject(prompt, subject.model, subject.task, train=subject.train))
    assert "not given" in refuses(Subject(subject.prompt, subject.model, subject.task))
    assert refuses(subject) == ""
