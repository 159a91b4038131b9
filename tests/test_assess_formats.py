"""FormatSpread: layouts by hand, the search on planted accuracies, and runs on a rule, an endpoint and a tiny model."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import anacrusis as ana
from anacrusis.assess import Subject
from anacrusis.assess.formats import (
    BATCH,
    Layout,
    laid,
    layouts,
    pieces,
    prior,
    refuses,
    run,
    styles,
    thompson,
)
from anacrusis.assess.variants import listed, over_examples, picked
from anacrusis.model.rows import parse
from anacrusis.prompt.values import Constant, Frame, Text
from anacrusis.search.budget import Budget
from anacrusis.search.budget import parse as limits
from anacrusis.search.desk import Desk
from anacrusis.search.plan import Nowhere
from anacrusis.testing import planted, planted_sight, sight, tiny
from tests.loopback import Loopback
from tests.ruled import LABELS, right, ruled, task_of

WILD = Layout(" - ", " | ", "upper", "[{}]", "; ")


# --- layouts


@pytest.mark.parametrize(
    ("template", "fields", "expected"),
    [
        ("Text: {text}\nAnswer:", ("text",), "[TEXT] - {text} | [ANSWER] -"),
        ("{text}\nAnswer:", ("text",), "[TEXT] - {text} | [ANSWER] -"),
        ("{my_text}", ("my_text",), "[MY TEXT] - {my_text}"),
        ("<Text> = {text} || Mood -> {mask}", ("text",), "[TEXT] - {text} | || Mood -> {mask}"),  # no name: it stays
        ("[Text]: {text}\n**Mood:** {mask}", ("text",), "[TEXT] - {text} | **Mood:** {mask}"),
        ("{text} It is about {mask}.", ("text",), "[TEXT] - {text} | It is about {mask}."),
        ("a photo of {text}!", ("text",), "a photo of {text}!"),
        ("{a}{sep}{b}", ("a", "b"), "[A] - {a}{sep}[B] - {b}"),
        ("{soft:2} {text}{soft:3}", ("text",), "{soft:2} [TEXT] - {text}{soft:3}"),
        ("Premise: {a}\nHypothesis: {b}\nSo: {mask}", ("a", "b"),
         "[PREMISE] - {a} | [HYPOTHESIS] - {b} | [SO] - {mask}"),
    ],
)  # fmt: skip
def test_layouts_by_hand(template: str, fields: tuple[str, ...], expected: str) -> None:
    frame = Frame(fields=fields, template=template)
    assert laid(frame, WILD).template == expected


def test_the_list_in_the_instruction_is_laid_out_too() -> None:
    frame = Frame(labels=LABELS, words=LABELS, instruction="Answer with one of: billing, delivery, returns.")
    assert laid(frame, WILD).instruction == "Answer with one of: billing; delivery; returns."
    bullets = laid(frame, replace(WILD, options="\n- ")).instruction
    assert bullets == "Answer with one of:\n- billing\n- delivery\n- returns."
    quoted = replace(frame, instruction='"billing", "delivery" or "returns"?')  # quotes belong to the words: left alone
    assert laid(quoted, WILD).instruction == quoted.instruction
    assert listed(quoted.instruction, LABELS) is not None and listed("billing, delivery", LABELS) is None


@pytest.mark.parametrize("template", ["{text}\nAnswer:", "{text} It is about {mask}.", "{text}{soft:3}", "Re: {text}"])
def test_a_layout_keeps_words_and_slots(template: str) -> None:
    """Nothing but case, white space and marks differs between layouts; all can be read by a model."""
    frame = Frame(template=template, labels=LABELS, words=LABELS, instruction="One of billing, delivery, returns.")
    found = layouts(frame, 40, np.random.default_rng(0))
    texts = {(f.template, f.instruction) for _, f in found}
    assert len(texts) == len(found) == 40 and (frame.template, frame.instruction) not in texts
    with_names = laid(frame, Layout()).template

    def bare(text: str) -> list[str]:
        return re.findall(r"\{[^{}]*\}|\w+", text.replace("<sep>", "").casefold())

    for _, f in found:
        parse(f.template, f.fields)
        assert bare(f.template) == bare(with_names) and bare(f.instruction) == bare(frame.instruction)


def test_styles_by_hand() -> None:
    frame = Frame(template='Text: {text}\nIt is "about" {mask}.', instruction='Say "yes".')
    found = {name: (f.instruction, f.template) for name, f in styles(frame)}
    assert found["plain"] == ('Say "yes".', 'Text: {text}\nanswer: It is "about" {mask}.')
    assert found["markdown"] == ('## Instruction\nSay "yes".', '## Text\n{text}\n\n## Answer\nIt is "about" {mask}.')
    assert found["yaml"] == ('instruction: "Say \\"yes\\"."', 'text: "{text}"\nanswer: "It is \\"about\\" {mask}."')
    instruction, template = (json.loads(t) for t in found["json"])
    assert instruction == {"instruction": 'Say "yes".'}
    assert template == {"text": "{text}", "answer": 'It is "about" {mask}.'}
    asked = dict(styles(Frame(template="{text}\nAnswer:")))
    assert asked["json"].template == '{"text": "{text}", "answer":' and asked["json"].instruction == ""
    assert not styles(Frame(fields=("a", "b"), template="{a}{sep}{b}"))
    for _, f in (*styles(frame), *asked.items()):
        parse(f.template, f.fields)


def test_pieces_join_to_the_template() -> None:
    frame = Frame(template="{soft:2} {text} It is about {mask}.")
    found = [(p.gap, p.name, p.text, p.slot) for p in pieces(frame)]
    assert found == [("", "", "", "{soft:2}"), (" ", "Text", "", "{text}"), (" ", "", "It is about ", "{mask}"),
                     ("", "", ".", "")]  # fmt: skip


# --- the search


def table(accuracies: list[float], examples: int, seed: int = 0) -> tuple[Any, list[tuple[int, int, int]]]:
    rng = np.random.default_rng(seed)
    values = np.array([rng.permutation(np.arange(examples) < round(a * examples)) for a in accuracies], dtype=float)
    asked: list[tuple[int, int, int]] = []

    def score(k: int, i: int, j: int) -> Any:
        asked.append((k, i, j))
        return values[k, i:j]

    return score, asked


@pytest.mark.parametrize("seed", range(5))
def test_the_search_finds_the_planted_best_and_worst(seed: int) -> None:
    accuracies = [0.5] * 30
    accuracies[7], accuracies[21] = 0.95, 0.05
    score, asked = table(accuracies, 400, seed)
    hits, seen = np.zeros(30), np.zeros(30)
    hits[0], seen[0] = 200, 400
    hits, seen = thompson(score, hits, seen, 400, 3000, np.random.default_rng(seed))
    a, b = prior(200, 400)
    assert (a, b) == (5.0, 5.0)
    means = (a + hits) / (a + b + seen)
    assert means.argmax() == 7 and means.argmin() == 21
    assert 2000 <= sum(j - i for _, i, j in asked) <= 3000 < 30 * 400
    assert all(i == sum(b - a for k2, a, b in asked[:n] if k2 == k) for n, (k, i, j) in enumerate(asked))  # in order
    half = sum(1 for _ in asked) // 2
    assert [k for k, _, _ in asked[:half]].count(7) > 10 and [k for k, _, _ in asked[half:]].count(21) > 10
    assert all(k != 0 for k, _, _ in asked)  # fully scored formats leave


@pytest.mark.parametrize("budget", [0, BATCH - 1, BATCH, 77, 10_000])
def test_the_search_stays_within_its_budget(budget: int) -> None:
    score, asked = table([0.3, 0.5, 0.8, 0.1], 50)
    _, seen = thompson(
        score, np.array([15.0, 0, 0, 0]), np.array([50.0, 0, 0, 0]), 50, budget, np.random.default_rng(0)
    )
    spent = sum(j - i for _, i, j in asked)
    assert spent <= budget and spent == seen[1:].sum() <= 150
    assert spent == (150 if budget == 10_000 else spent)


def test_the_prior_is_defined_at_the_ends() -> None:
    assert [*prior(18, 18), *prior(0, 18)] == pytest.approx([9.5, 0.5, 0.5, 9.5])


# --- values and intervals over examples


def test_values_of_many_examples() -> None:
    subject = ruled(lambda frame, x: right(x, hash_of(x) % 7 != 0), n=2300)
    assert subject.values().tolist() == [float(i // 3 % 7 != 0) for i in range(2300)]


def test_the_best_and_the_worst_are_judged_where_they_were_not_chosen() -> None:
    rng = np.random.default_rng(0)
    luck = [picked((np.random.default_rng(s).random((20, 40)) < 0.5).astype(float), rng).mean() for s in range(40)]
    assert abs(np.mean(luck)) < 0.05  # all are alike: the range of 20 means would be 0.3
    values = np.array([[1.0] * 10, [0.0] * 10, [1, 0] * 5])
    assert (picked(values, rng) == 1).all() and (picked(values[[1, 1]], rng) == 0).all()


def test_intervals_of_numbers_that_agree_are_widened() -> None:
    found = over_examples(np.zeros(10), 0)
    u = 1.959964**2 / (10 + 1.959964**2)
    assert found.value == 0 and [found.low, found.high] == pytest.approx([-u, u])
    assert over_examples(np.ones(10), 0, (0, np.inf)).high == 1
    some = over_examples(np.array([0.0, 1.0] * 50), 0)
    assert some.low == pytest.approx(0.4, abs=0.02) and some.high == pytest.approx(0.6, abs=0.02)


# --- the measure


def newlines(frame: Frame, inputs: tuple[str, ...]) -> tuple[float, ...]:
    return right(inputs, "\n" in frame.template)


def test_a_rule_about_line_breaks_is_found() -> None:
    subject = ruled(newlines)
    found = run(subject)
    assert found.value == 1.0 and (found.low or 0) > 0.8
    assert "\n" in found.details["best"]["template"] and "\n" not in found.details["worst"]["template"]
    assert found.details["all_examples"]["spread"] == 1.0 and found.details["all_examples"]["n"] == 60
    assert found.details["n"] == 30 and found.headline.startswith("format spread 1.000 [0.")
    assert found.details["own"] == 1.0 and 0.1 < found.details["better_than"] < 0.9
    assert found.details["styles"] == {"plain": 1.0, "markdown": 1.0, "json": 0.0, "yaml": 1.0}
    assert run(ruled(newlines)) == found and run(subject) == found  # the same seed, and again


def test_formats_that_are_all_alike_have_no_spread() -> None:
    found = run(ruled(lambda frame, x: right(x, hash_of(x) % 2 == 0)))
    assert found.value == 0 and found.low is not None and found.low <= 0 <= (found.high or 0)
    assert found.details["better_than"] == 0.5


def hash_of(inputs: tuple[str, ...]) -> int:
    return int("".join(c for c in inputs[0] if c.isdigit())) // 3


def test_luck_is_no_spread() -> None:
    """Answers by chance: the pair that was chosen for its luck shows none on the examples that did not choose it, and
    those are what the finding is of."""

    def chance(frame: Frame, inputs: tuple[str, ...]) -> tuple[float, ...]:
        seed = [*frame.template.encode(), *inputs[0].encode()]
        return right(inputs, bool(np.random.default_rng(seed).random() < 0.5))

    found = [run(ruled(chance, n=60, seed=s, cells=1500, template=f"Text: {{text}}\nAnswer {s}:")) for s in range(24)]
    values, whole = ([f.details[k] for f in found] for k in ("spread", "all_examples"))
    assert np.mean([w["spread"] for w in whole]) > 0.1 and np.mean([w["low"] > 0 for w in whole]) > 0.2
    assert abs(np.mean(values)) < 0.06 and [f.value for f in found] == values
    assert np.mean([f.low <= 0 <= f.high for f in found]) >= 0.87  # type: ignore[operator]
    first = found[0]
    assert first.headline.startswith(f"format spread {values[0]:.3f} [{first.low:.3f}")
    best, worst = (float(r[2]) for r in first.rows[:2])
    assert best - worst == pytest.approx(values[0], abs=0.002)  # the table is of the same examples


@pytest.mark.parametrize("cells", [280, 400, 1000, 2500])
def test_it_stays_within_the_answers_it_may_take(cells: int) -> None:
    subject = ruled(newlines, n=200, cells=cells)
    assert not refuses(subject)
    found = run(subject)
    assert subject.asked <= cells and any("200 examples" in n for n in found.notes) == (cells < 2800)


def test_refusals() -> None:
    assert "at least 280 answers; 279" in refuses(ruled(newlines, cells=279))
    subject = ruled(newlines)
    subject.prompt = Constant(scores=np.zeros(3), frame=subject.prompt.frame)  # type: ignore[arg-type]
    assert "whatever it reads" in refuses(subject)
    assert "at least 2 examples" in refuses(ruled(newlines, n=1))
    model = sight("clip")
    task, teacher = planted_sight(model, examples=12)
    assert "pictures" in refuses(Subject(teacher, model, task))


def test_an_endpoint_is_asked_through_its_desk(monkeypatch: pytest.MonkeyPatch) -> None:
    """It answers rightly unless the layout has double colons; each question is paid once."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-loopback")

    def brain(body: dict[str, Any], index: int) -> str:
        said = body["messages"][-1]["content"]
        gold = int("".join(c for c in said if c.isdigit())) % 3
        return LABELS[gold if "::" not in said else (gold + 1) % 3]

    with Loopback(brain) as server, ana.open("openai:task", base_url=server.url) as model:
        budget = Budget(limits("400calls"), {}, ("task",))
        desk = Desk({"task": model}, Nowhere(), budget, "0", lambda n: None)  # type: ignore[arg-type]
        frame = Frame(labels=LABELS, words=LABELS, template="Text: {text}\nAnswer:", readout="answer",
                      instruction="Answer with one of: billing, delivery, returns.")  # fmt: skip
        subject = Subject(Text(frame=frame), model, task_of(20), cells=320, desk=desk)
        assert not refuses(subject)
        found = run(subject)
    assert found.value == 1.0 and "::" in found.details["worst"]["template"] and found.details["own"] == 1.0
    assert server.charged == subject.asked <= 320


@pytest.mark.parametrize("family", ["gpt2", "minilm"])
def test_a_tiny_model_is_measured(family: str) -> None:
    model = tiny(family)
    task, teacher = planted(model, examples=80)
    subject = Subject(teacher, model, task, cells=300)  # a Soft prompt: its vectors stay, the words around them change
    assert not refuses(subject)
    found = run(subject)
    assert 200 < subject.asked <= 300 and -1 <= (found.low or 0) <= (found.value or 0) <= (found.high or 0) <= 1
    assert len(found.details["formats"]) > 5
