"""Paraphrases and template ensembles: rewordings, votes and means by hand, and runs on a rule and tiny models."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from anacrusis.assess import Subject
from anacrusis.assess.paraphrases import (
    AROUND,
    ENSEMBLE,
    MOST,
    SYNONYMS,
    paraphrases,
    refuses,
    reworded,
    run,
    together,
    votes,
)
from anacrusis.assess.variants import framed
from anacrusis.model.rows import parse
from anacrusis.prompt.values import Frame, Text
from anacrusis.task import Example, Task
from anacrusis.testing import WORDS, planted, tiny
from tests.ruled import LABELS, gold, right, ruled

LIST = "Classify the text. Answer with one of: billing, delivery, returns."


def test_rewordings_by_hand() -> None:
    assert reworded(LIST, SYNONYMS[0], LABELS) == (
        "Categorise the passage. Reply with one of these: billing, delivery, returns.")  # fmt: skip
    assert reworded("READ {text}s: {text}, texts", SYNONYMS[1]) == "CONSIDER {text}s: {text}, texts"
    assert reworded("about a text question", SYNONYMS[0], ("Text question",)) == "concerning a text question"
    assert reworded("", SYNONYMS[0]) == ""


def test_paraphrases_of_an_instruction() -> None:
    frame = Frame(labels=LABELS, words=LABELS, instruction="Answer with one of: billing, delivery, returns.",
                  template="{text}\nAnswer:")  # fmt: skip
    found = [(f.instruction, f.template) for _, f in paraphrases(frame)]
    assert len(found) == len(set(found)) == MOST and (frame.instruction, frame.template) not in found
    assert ("Please answer with one of: billing, delivery, returns.", frame.template) in found
    assert ("Could you answer with one of: billing, delivery, returns?", frame.template) in found
    assert (frame.instruction, "{text}\nResponse:") in found
    assert all(i.count("billing, delivery, returns") == 1 for i, _ in found)
    assert not any(i.startswith("Could you") for _, f in paraphrases(replace(frame, instruction=LIST))
                   for i in [f.instruction])  # two sentences make no question  # fmt: skip


def test_paraphrases_of_templates() -> None:
    bare = [f.template for _, f in paraphrases(Frame(fields=("message",), template="{message}"))]
    assert bare == [a.format("{message}") for a in AROUND] and "This text is about: {message}" in bare
    masked = [f.template for _, f in paraphrases(Frame(template="{text} It is about {mask}."))]
    assert "{text} It is concerning {mask}." in masked
    for template in (*bare, *masked):
        parse(template, ("message",) if "message" in template else ("text",))
    given = paraphrases(Frame(instruction="Go."), ("Run.", "Go.", "Run.", "Walk."))
    assert [f.instruction for _, f in given] == ["Run.", "Walk."]
    assert len(paraphrases(Frame(), tuple(f"{i}." for i in range(40)))) == 40  # what is given is all tried


def test_votes_by_hand() -> None:
    answers = np.array([[0, 2, -1, 1, -1], [1, 1, -1, 2, 2], [1, 0, -1, -1, -1]])
    assert votes(answers, 3).tolist() == [1, 2, -1, 1, 2]  # of equal votes the first
    assert votes(answers[:1], 3).tolist() == answers[0].tolist()


def test_an_ensemble_is_the_mean_of_the_rows() -> None:
    model = tiny("gpt2")
    task, teacher = planted(model, examples=60)
    subject = Subject(teacher, model, task)
    frames = [replace(teacher.frame, template=t) for t in ("{text} Answer :", "w1 {text} Answer :", "{text} w2 w3")]
    inputs = [e.inputs for e in task.test]
    rows = np.mean([subject.probabilities(framed(subject, f), inputs) for f in frames], axis=0)
    assert (together(subject, frames, inputs) == rows.argmax(1)).all()
    assert (together(subject, frames[:1], inputs) == subject.predictions(inputs=inputs)).all()  # k = 1 is plain
    assert (together(subject, frames[::-1], inputs) == together(subject, frames, inputs)).all()
    # the model is not this indifferent: the three do not answer alike
    assert any((subject.predictions(framed(subject, f), inputs) != rows.argmax(1)).any() for f in frames)


def test_a_sure_minority_does_not_outvote_a_mean() -> None:
    """By hand: the class with the largest mean is not the one with the largest single probability."""
    rows = {"{text}": (0.1, 0.45, 0.45), "a {text}": (0.5, 0.05, 0.45), "b {text}": (0.3, 0.7, 0.0)}
    rows |= {"c {text}": (0.65, 0.1, 0.25)}
    subject = ruled(lambda frame, x: tuple(np.log(np.array(rows[frame.template]) + 1e-9)), n=3, template="{text}")
    frames = [replace(subject.prompt.frame, template=t) for t in rows]
    assert np.mean(list(rows.values()), axis=0) == pytest.approx([0.3875, 0.325, 0.2875])
    inputs = [e.inputs for e in subject.examples]
    assert together(subject, frames, inputs).tolist() == [0, 0, 0]
    assert together(subject, frames[:1] + frames[2:3], inputs).tolist() == [1, 1, 1]


def politeness(frame: Frame, inputs: tuple[str, ...]) -> tuple[float, ...]:
    """Right iff asked with "please"; else only for even numbers of parcels."""
    return right(inputs, "please" in frame.instruction.lower() or (gold(inputs) + len(inputs[0])) % 2 == 0)


def test_the_wording_that_matters_is_found() -> None:
    subject = ruled(politeness, instruction="Answer with one of: billing, delivery, returns.")
    found = run(subject)
    scores = {w["instruction"]: w["accuracy"] for w in found.details["wordings"]}
    assert scores["Please answer with one of: billing, delivery, returns."] == 1.0
    assert found.value == pytest.approx(1 - found.details["own"]) and (found.low or 0) > 0.2
    subject.paraphrases = ("Please answer.", "Say it.")
    given = run(subject).details
    of, accuracy = given["ensemble"], [w["accuracy"] for w in given["wordings"]]
    assert sorted(of["wordings"]) == [0, 1, 2] and of["wordings"][0] == 0 and accuracy[0] == accuracy[2] < accuracy[1]
    assert of["gain_over_mean"] == pytest.approx(of["accuracy"] - np.mean(accuracy))
    assert of["gain"] == pytest.approx(of["accuracy"] - accuracy[0])
    subject.paraphrases = ()
    assert run(ruled(politeness, instruction="Answer with one of: billing, delivery, returns.")) == found


def test_wordings_that_are_all_alike_have_no_spread_and_no_gain() -> None:
    found = run(ruled(lambda frame, x: right(x, len(x[0]) % 2 == 0), instruction=LIST))
    assert found.value == 0 and found.details["ensemble"]["gain"] == found.details["ensemble"]["gain_over_mean"] == 0
    assert len(found.details["ensemble"]["wordings"]) == ENSEMBLE


def test_an_ensemble_of_different_mistakes_gains() -> None:
    """Each wording is wrong, and unsure, on its own fifth of the examples."""

    def rule(frame: Frame, inputs: tuple[str, ...]) -> tuple[float, ...]:
        number = int("".join(c for c in inputs[0] if c.isdigit()))
        fault = number % 5 == int(frame.instruction[-2]) % 5
        return right(inputs, not fault, sure=0.5 if fault else 3.0)

    subject = ruled(rule, instruction="Way 0.")
    subject.paraphrases = tuple(f"Way {i}." for i in range(1, 5))
    found = run(subject).details
    assert [w["accuracy"] for w in found["wordings"]] == pytest.approx([0.8] * 5)
    gains = found["ensemble"]
    assert (gains["accuracy"], gains["gain"], gains["gain_over_mean"]) == pytest.approx((1, 0.2, 0.2))
    assert gains["gain_low"] > 0.05 and gains["gain_over_mean_low"] > 0
    subject = ruled(rule, instruction="Way 0.")  # the same of replies: no probabilities, so they vote
    subject.paraphrases = tuple(f"Way {i}." for i in range(1, 5))
    subject.model = SimpleNamespace(arrangement="endpoint")
    replies = subject._ask
    subject._ask = lambda p, x: [int(z.argmax()) for z in replies(p, x)]  # type: ignore
    asked = run(subject)
    assert asked.details["ensemble"] == {**gains, "how": "votes"} and "votes of 5 wordings" in asked.headline


@pytest.mark.parametrize("cells", [40, 130, 700])
def test_it_stays_within_the_answers_it_may_take(cells: int) -> None:
    subject = ruled(politeness, n=100, cells=cells, instruction=LIST)
    assert not refuses(subject)
    found = run(subject)
    assert subject.asked <= cells and any("to stay within" in n for n in found.notes)


def test_refusals() -> None:
    assert "39 are allowed" in refuses(ruled(politeness, cells=39))
    subject = ruled(politeness, template="{text} xyz", instruction="Xyz abc.")
    assert "give some: paraphrases=" in refuses(subject)
    subject.paraphrases = ("Abc xyz.",)
    assert not refuses(subject)


def test_texts_that_are_written_have_a_spread_and_no_ensemble() -> None:
    examples = tuple(Example((f"w{i} w{i + 1}",), f"w{i}") for i in range(30))
    task = Task("t", "generation", ("text",), (), (), (), (), examples)
    frame = Frame(readout="generate", instruction="Write it.")
    rule = lambda frame, x: x[0].split()[0] if "Please" in frame.instruction else "no"  # noqa: E731
    base = ruled(rule)
    subject = type(base)(Text(frame=frame), None, task, rule=rule)
    found = run(subject)
    assert found.value == 1.0 and "rougeL" in found.headline and "ensemble" not in found.details


@pytest.mark.parametrize("family", ["gpt2", "minilm"])
def test_a_tiny_model_is_measured(family: str) -> None:
    model = tiny(family)
    task, teacher = planted(model, examples=60)
    subject = Subject(replace(teacher, frame=replace(teacher.frame, instruction=f"{WORDS[3]} one of")), model, task)
    found = run(subject)
    assert (found.low or 0) <= (found.value or 0) <= (found.high or 0) and found.details["ensemble"]["gain"] <= 1
    assert subject.asked <= subject.cells
