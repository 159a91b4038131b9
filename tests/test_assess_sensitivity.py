"""POSIX: the index by hand, against slow references, and its properties."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from anacrusis.assess import Subject
from anacrusis.assess.sensitivity import of_classes, of_texts, psi, refuses, run, variants
from anacrusis.measure.predict import scores
from anacrusis.prompt.values import Frame, Soft, Text
from anacrusis.task import Example, Task
from anacrusis.testing import WORDS, planted, tiny
from tests.ruled import right, ruled


def test_the_index_by_hand() -> None:
    """V = 2: (|log P(y_2 | x_1) - log P(y_2 | x_2)| / L_2 + |log P(y_1 | x_2) - log P(y_1 | x_1)| / L_1) / 2."""
    logs = np.array([[[-1.0, -2.0], [-3.0, -0.5]]])
    assert psi(logs, np.array([[2.0, 1.0]])) == pytest.approx([(1.5 / 1 + 2.0 / 2) / 2])
    # the second answer has no tokens: one answer is left, under one other prompt
    assert psi(logs, np.array([[2.0, 0.0]])) == pytest.approx([2.0 / 2])
    assert psi(logs, np.array([[0.0, 0.0]])) == pytest.approx([0.0])


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 6))
def test_the_index_does_not_know_the_order_of_the_prompts(seed: int, V: int) -> None:
    rng = np.random.default_rng(seed)
    logs, lengths, order = -rng.random((3, V, V)), rng.integers(0, 4, (3, V)).astype(float), rng.permutation(V)
    assert psi(logs[:, order][:, :, order], lengths[:, order]) == pytest.approx(psi(logs, lengths))
    alike = np.broadcast_to(logs[:, :1], logs.shape)  # all prompts give each answer the same probability
    assert (psi(alike, lengths) == 0).all() and (psi(logs, lengths) >= 0).all()
    assert psi(logs, 2 * lengths) == pytest.approx(psi(logs, lengths) / 2)


def test_classes_by_hand() -> None:
    """Under one template the classes have probabilities p, under the other q."""
    p, q = np.array([0.7, 0.2, 0.1]), np.array([0.3, 0.6, 0.1])
    subject = ruled(lambda frame, x: tuple(np.log(p if frame.template == "{text}" else q)), n=4)
    frames = [Frame(**{**subject.prompt.frame.__dict__, "template": t}) for t in ("{text}", "So: {text}")]
    logs, lengths = of_classes(subject, frames, subject.examples)
    assert (lengths == 1).all()
    assert logs[0] == pytest.approx(np.log([[0.7, 0.2], [0.3, 0.6]]))  # [i, j]: under i, the answer of j
    expected = (abs(np.log(0.2 / 0.6)) + abs(np.log(0.3 / 0.7))) / 2
    assert psi(logs, lengths) == pytest.approx([expected] * 4)


def test_a_model_that_reads_all_prompts_alike_is_not_sensitive() -> None:
    found = run(ruled(lambda frame, x: right(x)))
    assert (found.value, found.low, found.high) == (0.0, 0.0, 0.0)
    assert all(v == 0 for v in found.details["by_kind"].values())


def test_what_the_model_is_sensitive_to_is_named() -> None:
    def rule(frame: Frame, inputs: tuple[str, ...]) -> tuple[float, ...]:
        return right(inputs, sure=6.0 if ": {text}\n" in frame.template else 1.0)

    instruction = "Answer with one of: billing, delivery, returns."
    subject = ruled(rule, instruction=instruction)
    found = run(subject)
    kinds = {how for how, _ in variants(subject, subject.rng("sensitivity"))}
    assert kinds == {"the prompt's own", "wording", "layout", "typing errors"} == set(found.details["by_kind"])
    assert found.details["by_kind"]["layout"] > found.details["by_kind"]["wording"] and (found.low or 0) > 0
    assert run(ruled(rule, instruction=instruction)) == found
    assert found.notes[-1].startswith("the range of accuracy is partly luck") and found.details["spread"]["value"] == 0


def test_the_range_of_scores_is_told_apart_from_luck() -> None:
    def chance(frame: Frame, inputs: tuple[str, ...]) -> tuple[float, ...]:
        said = [*frame.template.encode(), *frame.instruction.encode(), *inputs[0].encode()]
        return right(inputs, bool(np.random.default_rng(said).random() < 0.5))

    found = [
        run(ruled(chance, seed=s, instruction="Answer with one of: billing, delivery, returns.")) for s in range(8)
    ]
    ranges = [np.ptp([p["accuracy"] for p in f.details["prompts"]]) for f in found]
    spread = [f.details["spread"]["value"] for f in found]
    assert np.mean(ranges) > 0.15 and abs(np.mean(spread)) < 0.07
    assert f"are {spread[0]:.3f} [" in found[0].notes[-1]


def test_it_stays_within_the_answers_it_may_take() -> None:
    for cells in (40, 150, 700):
        subject = ruled(lambda frame, x: right(x), n=100, cells=cells)
        assert not refuses(subject)
        found = run(subject)
        assert 0 < subject.asked <= cells and any("to stay within" in n for n in found.notes)


def test_refusals() -> None:
    subject = ruled(lambda frame, x: right(x))
    assert "39 are allowed" in refuses(ruled(lambda frame, x: right(x), cells=39))
    subject.model = SimpleNamespace(arrangement="endpoint")
    assert "only writes" in refuses(subject)
    model = tiny("bert")
    examples = tuple(Example((w,), "w1") for w in WORDS[:4])
    task = Task("t", "generation", ("text",), (), (), (), (), examples)
    frame = Frame(readout="generate")
    assert "no probabilities of texts" in refuses(Subject(Text(frame=frame), model, task))
    soft = Soft(vectors=torch.zeros(1, 32), frame=frame)
    assert "this one is soft" in refuses(Subject(soft, tiny("gpt2"), task))


@pytest.mark.parametrize("family", ["gpt2", "t5"])
def test_written_answers_are_scored_under_every_prompt(family: str) -> None:
    """Against log-probabilities of one continuation at a time, token by token."""
    model = tiny(family)
    examples = tuple(Example((" ".join(WORDS[i : i + 3]),), "w1") for i in range(0, 9, 3))
    task = Task("t", "generation", ("text",), (), (), (), (), examples)
    frame = Frame(readout="generate", template="x : {text} a :", instruction="w80 w81")
    subject = Subject(Text(frame=frame, card={"answer_tokens": 3}), model, task)
    frames = [
        frame,
        Frame(**{**frame.__dict__, "instruction": "w5"}),
        Frame(**{**frame.__dict__, "template": "{text}"}),
    ]
    logs, lengths = of_texts(subject, frames, task.test)
    for n, e in enumerate(examples):
        said = [subject.predictions(subject.framed(**f.__dict__), [e.inputs])[0].strip() for f in frames]
        for i, f in enumerate(frames):
            read = (f"{f.instruction}\n\n" if f.instruction else "") + f.template.replace("{text}", e.inputs[0])
            for j, y in enumerate(said):
                total, tokens = by_steps(model, read, y) if y else (0.0, 0)
                assert lengths[n, j] == tokens and logs[n, i, j] == pytest.approx(total, abs=1e-4), (n, i, j)
    found = run(subject)
    assert found.value is not None and found.value > 0 and "nats a token" in found.headline
    assert subject.asked <= subject.cells


def by_steps(model: Any, read: str, said: str) -> tuple[float, int]:
    """log P(said | read), one token after the other."""
    tokens, total = model.renderer(Frame()).answer_ids(said), 0.0
    ids = model.tokenizer(read)["input_ids"]
    start = [model.network.config.decoder_start_token_id] if model.two_stacks else []
    for k, token in enumerate(tokens):
        with torch.no_grad():
            if model.two_stacks:
                z = model.network(torch.tensor([ids]), decoder_input_ids=torch.tensor([start + tokens[:k]])).logits
            else:
                z = model.network(torch.tensor([ids + tokens[:k]])).logits
        total += float(z[0, -1].log_softmax(-1)[token])
    return total, len(tokens)


def test_a_tiny_model_with_label_words() -> None:
    """psi of two prompts from the model's own scores."""
    model = tiny("gpt2")
    task, teacher = planted(model, examples=60)
    subject = Subject(teacher, model, task)
    found = run(subject)
    assert found.value is not None and found.value > 0 and subject.asked <= subject.cells
    frames = [teacher.frame, Frame(**{**teacher.frame.__dict__, "template": "w3 {text} Answer :"})]
    p = [
        scores(subject.framed(template=f.template), [e.inputs for e in task.test], model).softmax(1).double()
        for f in frames
    ]
    by_hand = []
    for n in range(len(task.test)):
        y = [int(p[i][n].argmax()) for i in range(2)]
        by_hand.append((abs(float(p[0][n, y[1]].log() - p[1][n, y[1]].log()))
                        + abs(float(p[1][n, y[0]].log() - p[0][n, y[0]].log()))) / 2)  # fmt: skip
    assert psi(*of_classes(subject, frames, subject.examples)) == pytest.approx(by_hand, abs=1e-6)
