"""Noise: errors by hand, what is never touched, and losses that are known."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anacrusis.assess import Subject
from anacrusis.assess.noise import KEYS, SHARES, _words, careless, noisy_inputs, refuses, run, spoilt, typo
from anacrusis.prompt.values import Frame
from anacrusis.testing import planted, tiny
from tests.ruled import LABELS, right, ruled, texts_of


def loud(word: str, rng: np.random.Generator) -> str:
    return word.upper()


def test_keys_that_touch() -> None:
    assert set(KEYS["g"]) == set("fhtyvb") and set(KEYS["a"]) == set("qwsz") and set(KEYS["p"]) == set("ol")
    assert all(a in KEYS[b] for a in KEYS for b in KEYS[a])


def distance(a: str, b: str) -> int:
    """Edits between two words: a letter put in, left out, replaced, or swapped with the next (Damerau)."""
    d = np.add.outer(np.arange(len(a) + 1), np.arange(len(b) + 1))
    for i in range(1, len(a) + 1):
        for j in range(1, len(b) + 1):
            d[i, j] = min(d[i - 1, j] + 1, d[i, j - 1] + 1, d[i - 1, j - 1] + (a[i - 1] != b[j - 1]))
            if i > 1 and j > 1 and a[i - 1] == b[j - 2] and a[i - 2] == b[j - 1]:
                d[i, j] = min(d[i, j], d[i - 2, j - 2] + 1)
    return int(d[-1, -1])


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet="abzéßж", min_size=2, max_size=8), st.integers(0, 10_000))
def test_a_typing_error_is_one_edit(word: str, seed: int) -> None:
    assert distance(word, typo(word, np.random.default_rng(seed))) == 1


def test_all_four_errors_happen() -> None:
    found = {typo("ab", np.random.default_rng(s)) for s in range(200)}
    assert {"ba", "b", "aab"} <= found and {"qb", "wb", "sb", "zb"} <= found
    assert {careless("the", np.random.default_rng(s)) for s in range(9)} == {""}
    assert {careless("want", np.random.default_rng(s)) for s in range(50)} == {"wish", "want,", "want ", "want!"}
    assert {careless("xyz", np.random.default_rng(s)) for s in range(50)} == {"XYZ", "xyz,", "xyz ", "xyz!"}


HINDI = "मेरी किताब अभी तक नहीं आई है कृपया जल्दी भेजें"


@pytest.mark.parametrize("word", ["मेरी", "包裹", "كتاب", "ספר", "ქართული", "want", "The", "ABC"])
def test_every_careless_edit_changes_the_word(word: str) -> None:
    found = {careless(word, np.random.default_rng(s)) for s in range(60)}
    assert word not in found and (len(found) >= 3 or word == "The")


def test_words_of_other_scripts() -> None:
    whole = [m for m in HINDI.split() if len(m) > 1]
    assert [HINDI[a:b] for a, b in _words(HINDI, False, ())] == whole  # vowel signs are inside words
    for seed in range(20):
        (new,) = spoilt(HINDI, (1.0,), typo, np.random.default_rng(seed))
        assert all(a != b for a, b in zip(whole, new.split(), strict=True))
        (new,) = spoilt(HINDI, (1.0,), careless, np.random.default_rng(seed))
        assert len(new) == len(HINDI) + len(whole)  # a mark or a space each
    text = "请说明退货还是账单{text}"
    assert [text[a:b] for a, b in _words(text, True, ("退货", "账单"))] == ["请说", "还是"]  # two characters; no class
    (new,) = spoilt(text, (1.0,), typo, np.random.default_rng(0), ("退货", "账单"))
    assert "退货" in new and new.endswith("账单{text}") and not new.startswith("请说明")
    assert [text for text in ["a b", "{a b} cd"] for _ in _words(text, False, ())] == ["{a b} cd"]


def test_a_share_of_the_words_is_spoilt() -> None:
    text = " ".join(["word"] * 40)
    none, few, some, every = spoilt(text, (0, 0.05, 0.5, 1.0), loud, np.random.default_rng(0))
    assert none == text and few.split().count("WORD") == 2 and some.split().count("WORD") == 20
    assert every == text.upper()
    assert all(a != "WORD" or b == "WORD" for a, b in zip(few.split(), some.split(), strict=True))  # the same and more
    short = [spoilt("one two three four", (0.1,), loud, np.random.default_rng(s))[0] for s in range(400)]
    assert np.mean([t != "one two three four" for t in short]) == pytest.approx(0.4, abs=0.07)  # 0.4 words on average


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([typo, careless, loud]))
def test_slots_and_class_names_are_never_touched(seed: int, edit: object) -> None:
    text = "Is it Billing or late returns? {text} the texts {soft:3}about{mask} re-billing billings."
    out = spoilt(text, SHARES + (1.0,), edit, np.random.default_rng(seed), LABELS)  # type: ignore[arg-type]
    for new in out:
        assert re.findall(r"\{[^{}]*\}", new) == ["{text}", "{soft:3}", "{mask}"]
        assert "Billing" in new and "returns" in new and "-billing" in new
    if edit is loud:
        assert out[-1] == "IS IT Billing OR LATE returns? {text} THE TEXTS {soft:3}ABOUT{mask} RE-billing BILLINGS."


def test_losses_by_hand() -> None:
    """The model answers wrongly as soon as a word of the input, or of the prompt, is not as it was."""
    clean, template = set(texts_of(60)), "Read the following text {text} then say what the answer is:"

    def rule(frame: Frame, inputs: tuple[str, ...]) -> tuple[float, ...]:
        return right(inputs, inputs[0] in clean and frame.template == template)

    subject = ruled(rule, template=template)
    found = run(subject)
    rng = subject.rng("noise")
    losses = {(x["where"], x["noise"], x["share"]): x["loss"] for x in found.details["losses"]}
    for name, edit in (("typing errors", typo), ("wording", careless)):
        for share, inputs in zip(SHARES, noisy_inputs(subject.examples, edit, rng, LABELS), strict=True):
            expected = np.mean([x[0] not in clean for x in inputs])
            assert losses["inputs", name, share] == pytest.approx(expected)
    assert losses["inputs", "typing errors", 0.2] == 1.0  # 6 words: at least one is hit
    for name in ("typing errors", "wording"):
        of = [losses["prompt", name, s] for s in SHARES]
        assert of == sorted(of) and all(round(3 * x, 9) in (0, 1, 2, 3) for x in of) and of[-1] == 1.0  # 3 draws
    assert found.value == losses["inputs", "typing errors", 0.1] and found.details["clean"] == 1.0
    assert "the inputs alone" not in "".join(found.notes)
    subject.values(subject.framed(template="{text}"))  # what others measure changes nothing
    assert run(subject) == found == run(ruled(rule, template=template))


def test_a_prompt_without_words() -> None:
    subject = ruled(lambda frame, x: right(x), template="{text}")
    found = run(subject)
    assert found.value == 0 and "the inputs alone" in found.notes[-1]
    assert {x["where"] for x in found.details["losses"]} == {"inputs"}


@pytest.mark.parametrize("cells", [80, 200, 600])
def test_it_stays_within_the_answers_it_may_take(cells: int) -> None:
    subject = ruled(lambda frame, x: right(x), n=100, cells=cells)
    assert not refuses(subject)
    found = run(subject)
    assert subject.asked <= cells and any("to stay within" in n for n in found.notes)
    assert "typing errors in the inputs" in found.headline
    assert "79 are allowed" in refuses(ruled(lambda frame, x: right(x), cells=79))


@pytest.mark.parametrize("family", ["gpt2", "minilm"])
def test_a_tiny_model_is_measured(family: str) -> None:
    model = tiny(family)
    task, teacher = planted(model, examples=60)
    found = run(Subject(teacher, model, task))
    assert found.details["clean"] == 1.0 and (found.value or 0) >= 0 and len(found.details["losses"]) in (6, 12)
