"""Leakage: planted rows, addresses and keys are found, clean prompts stay clean, and the attack by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from anacrusis.assess.leakage import advantage, losses, overlaps, refuses, run, secrets, sequences, words_of
from anacrusis.prompt.values import Frame, Head, Text
from anacrusis.task import Example

from .test_assess_calibration import Given, given

TEXTS = [
    "My parcel was left in the rain at the wrong door on Monday and nobody rang.",
    "The kettle stopped working after two weeks, and I want my money back, please.",
    "Why was I charged twice for the same order in one week, with two different amounts?",
    "It came late.",
]
SEEN = ["The lamp flickers whenever the heating comes on in the next room over there.", "seen 1", "seen 2"]


def prompted(texts: Any = TEXTS, **frame: Any) -> Given:
    """Four test texts (two right of four), three to learn from, and a prompt of words."""
    p, golds = [[0.9, 0.1], [0.2, 0.8], [0.9, 0.1], [0.2, 0.8]], [0, 1, 1, 0]
    labels = ("c0", "c1")
    prompt = Text(frame=Frame(**{"labels": labels, "words": labels, **frame}))
    subject = given(p, golds, texts=texts, train=([[0.9, 0.1]] * 3, [0, 0, 1]), prompt=prompt)
    seen = tuple(replace(e, inputs=(t,)) for e, t in zip(subject.train, SEEN, strict=True))
    subject.train = seen
    return subject


def test_a_clean_prompt_is_clean() -> None:
    finding = run(prompted(instruction="Say which team should read the message about an order, parcel or kettle."))
    assert finding.value == 0 and finding.rows == () and finding.notes == ()
    assert finding.headline == "no test example is in the prompt's words"


@pytest.mark.parametrize(
    ("planted", "how"),
    [
        (TEXTS[0], "verbatim"),
        (f"For example: {TEXTS[0].upper()} Answer!", "verbatim"),
        ("it was left, in THE rain at the wrong door on Tuesday", "8 words"),
        ("thatmyparcel was left in the rain at the wrong", "8 words"),
        ("twice for the same order in one wee", ""),  # 8 words need to be whole
    ],
)
def test_a_planted_row_is_found_wherever_it_is(planted: str, how: str) -> None:
    for frame in ({"instruction": planted}, {"template": planted.replace("{", "") + " {text}"},
                  {"demonstrations": (((planted,), "c0"),)}):  # fmt: skip
        finding = run(prompted(**frame))
        (part,) = frame
        assert finding.rows == ((("test", "test:0", part, how),) if how else ())
        assert finding.value == len(finding.rows)


def test_scripts_without_spaces_are_compared_by_characters() -> None:
    text = "".join(chr(0x4E00 + i) for i in range(120))
    rows = [("test", Example((text[:80] + "x",), 0, "a")), ("test", Example((text[70:] + "y",), 0, "b"))]
    found = overlaps([("instruction", text)], rows)
    assert [(r.where, r.how) for r in found] == [("a", "50 characters"), ("b", "50 characters")]
    for n, how in ((49, "20 characters"), (20, "20 characters"), (19, "")):
        found = overlaps([("instruction", text)], [("test", Example((text[:n] + "x",), 0, "a"))])
        assert [r.how for r in found] == [how] * bool(how)
    assert len(sequences([text])) == 71 + 101 and len(sequences([str(i) for i in range(10)])) == 3


def test_a_sentence_without_spaces_is_found_where_it_stands() -> None:
    row = "我的包裹星期一被放在雨里了"
    for said in (f"请判断哪个团队应该阅读，例如：{row}。", f"例如{row}请回答", row):
        assert [r.how for r in overlaps([("instruction", said)], [("test", Example((row + "！",), 0, "a"))])] == [
            "verbatim"
        ]
    assert overlaps([("instruction", "请判断哪个团队应该阅读这条消息。")], [("test", Example((row,), 0, "a"))]) == []
    short = [("test", Example(("包裹在雨里",), 0, "a"))]  # 5 characters: only as they stand
    assert overlaps([("instruction", "例如包裹在雨里了")], short) == []
    thai = "พัสดุของฉันถูกทิ้งไว้กลางสายฝน"
    assert overlaps([("template", f"ตัวอย่าง{thai}ครับ")], [("test", Example((thai,), 0, "a"))])[0].how == "verbatim"


def test_words_are_not_cut_at_their_vowel_signs() -> None:
    assert words_of("मेरी किताब, नहीं!") == ["मेरी", "किताब", "नहीं"]
    two = [("test", Example(("मेरी किताब",), 0, "a"))]  # two words are too few to be a row's own
    assert overlaps([("instruction", "क्या मेरी किताब आई है")], two) == []


def test_short_rows_are_found_only_as_they_stand() -> None:
    examples = [("test", Example(("late",), 0, "a")), ("test", Example(("It came late.",), 0, "b"))]
    assert [r.where for r in overlaps([("instruction", "Say whether it came late or not.")], examples)] == ["b"]
    assert [r.where for r in overlaps([("demonstrations", "Late!")], examples)] == ["a"]


def test_phrases_that_many_rows_share_are_no_rows() -> None:
    common = "please answer the following question about my recent order"
    for n, found in ((10, 10), (11, 0)):
        rows = [("test", Example((f"{common} number {i}",), 0, str(i))) for i in range(n)]
        assert len(overlaps([("instruction", f"They {common} often.")], rows)) == found


def test_the_score_without_what_is_in_the_prompt() -> None:
    finding = run(prompted(demonstrations=(((TEXTS[2],), "c1"), ((SEEN[0],), "c0"))))
    assert finding.value == 1 and finding.details["with"].startswith("0.50 [")
    assert finding.details["without"].startswith("0.67 [")  # the one that was wrong is gone: 2 of 3
    assert finding.headline.startswith("1 of 4 test examples are in the prompt's words; accuracy 0.50 [")
    assert finding.notes == ("1 training examples are in its demonstrations, as is usual",)
    assert ("train", "train:0", "demonstrations", "verbatim") in finding.rows
    elsewhere = run(prompted(instruction=f"Not like: {SEEN[0]}"))
    assert elsewhere.details["train_elsewhere"] == 1 and "1 training examples are outside" in elsewhere.headline
    twice = run(prompted([TEXTS[0]] * 4, instruction=TEXTS[0]))
    assert twice.details["test"] == 2 and twice.details["without"] == "no score"  # by content: two golds of one text


def test_addresses_numbers_and_keys_are_found_and_not_repeated() -> None:
    text = ("Mail ann.lee@mail.example.org or call +44 20 7946 0958 (or 0171-555-0199); use sk-abcdEFGH1234abcdEFGH, "
            "AKIAABCDEFGHIJKLMNOP or 0123456789abcdef0123456789abcdef.")  # fmt: skip
    found = secrets([("instruction", text)])
    assert [k for k, _, _ in found] == ["e-mail address", "phone number", "phone number", "key", "key", "key"]
    assert [s for k, _, s in found if k == "key"] == ["sk-a...", "AKIA...", "0123..."]
    clean = (
        "Answer with 1, 2 or 3. In 2024 of 10,000 orders 12.5 % were late; order 12345678; deadbeef; ask-me-anything"
    )
    assert secrets([("instruction", clean)]) == []
    finding = run(prompted(instruction=text))
    assert "1 e-mail address(s), 2 phone number(s), 3 key(s)" in finding.headline
    assert "abcdEFGH1234" not in str(finding)


def test_the_attack_by_hand() -> None:
    """t = 2.2; of the learned 4 of 5 are at most that, of the others 1 of 4."""
    learned, others = np.array([1.0, 1, 1, 2, 6]), np.array([0.5, 3, 4, 5])
    assert advantage(learned, others) == pytest.approx(0.8 - 0.25)
    assert advantage(learned, learned) == 0
    subject = given([[0.25, 0.75], [0.5, 0.5]], [1, 0])
    assert losses(subject, subject.examples) == pytest.approx([-np.log(0.75), np.log(2)])


def learned_of(train: Any, test: Any) -> Given:
    """A prompt of learned values; p of the right class of the examples it was learned from, and of others."""
    rows = [np.stack([np.asarray(x), 1 - np.asarray(x)], 1) for x in (test, train)]
    labels = ("c0", "c1")
    prompt = Text(frame=Frame(labels=labels, words=labels), head=Head(torch.zeros(2, 3), torch.zeros(2)))
    return given(rows[0], [0] * len(test), train=(rows[1], [0] * len(train)), prompt=prompt)


def test_learned_values_that_remember_and_that_do_not() -> None:
    rng = np.random.default_rng(0)
    found = [run(learned_of(rng.uniform(0.4, 1, 80), rng.uniform(0.4, 1, 80))) for _ in range(40)]
    held = [f.low <= 0 <= f.high for f in found]  # type: ignore[operator]
    assert np.mean(held) >= 0.85 and abs(np.mean([f.value for f in found])) < 0.05  # type: ignore[misc]
    finding = run(learned_of(np.full(60, 0.99), rng.uniform(0.2, 0.9, 60)))
    assert finding.value == 1 and "an advantage of 1.00 [1.00, 1.00]" in finding.headline
    assert "is right about 100% of as many of each kind" in finding.headline
    some = run(learned_of([0.9, 0.9, 0.2, 0.2], [0.9, 0.2, 0.2, 0.2]))  # half of one and a quarter of the other
    assert some.value == pytest.approx(0.25) and "is right about 62% of as many of each kind" in some.headline
    member = finding.details["membership"]
    wrong = 1 - run(learned_of([0.9], rng.uniform(0.2, 0.9, 60))).details["membership"]["gap"][0]
    assert member["learned"] == member["others"] == 60 and 0 < wrong < 1
    assert member["gap"][1] < member["gap"][0] < member["gap"][2]


def test_what_has_neither_words_nor_known_examples_is_refused() -> None:
    subject = prompted(words=(), labels=("c0", "c1"))
    assert "no words of its own" in refuses(subject)
    assert refuses(prompted()) == "" and refuses(learned_of([0.9], [0.9])) == ""
