"""Where things stand in a row: placements, templates, answers, cutting."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from anacrusis.errors import ConfigError
from anacrusis.model.rows import Row, collate, parse
from anacrusis.prompt.values import Frame, Soft
from anacrusis.testing import WORDS, tiny

BOS, EOS, MASK = 1, 2, 4


def ids(text: str) -> list[int]:
    return list(tiny("gpt2").tokenizer(text)["input_ids"])


def lay(
    family: str, template: str = "{text}", place: str = "auto", P: int = 3, text: str = "w1 w2", **kw: object
) -> Row:
    model = tiny(family)
    prompt = Soft(vectors=torch.zeros(P, model.hidden))
    frame = Frame(template=template, place=place, **kw)  # type: ignore[arg-type]
    return next(iter(model.renderer(frame, prompt).rows([(text,)])))


W = ids("w1 w2")


@pytest.mark.parametrize(
    ("family", "place", "codes"),
    [
        ("gpt2", "auto", [-1, -2, -3, *W]),
        ("llama", "auto", [-1, -2, -3, BOS, *W]),
        ("llama", "after-bos", [BOS, -1, -2, -3, *W]),
        ("llama", "back", [BOS, *W, -1, -2, -3]),
        ("bert", "auto", [BOS, -1, -2, -3, *W, EOS]),
        ("bert", "front", [-1, -2, -3, BOS, *W, EOS]),
        ("bert", "back", [BOS, *W, EOS, -1, -2, -3]),
        ("t5", "auto", [-1, -2, -3, *W, EOS]),
    ],
)
def test_places(family: str, place: str, codes: list[int]) -> None:
    row = lay(family, place=place)
    assert list(row.codes) == codes
    if family in ("gpt2", "llama"):
        assert row.at == (len(codes) - 1,)  # the answer follows the last token


def test_slots_stand_where_the_template_says() -> None:
    row = lay("bert", "{soft:2}{text}{soft:1} a {mask}")
    assert list(row.codes) == [BOS, -1, -2, *W, -3, *ids("a"), MASK, EOS]
    assert row.at == (7,)
    row = lay("bert", "{soft}{text}{soft:1} {mask}")  # an open slot takes what the numbered ones leave
    assert list(row.codes) == [BOS, -1, -2, *W, -3, MASK, EOS]
    row = lay("gpt2", "{text}{soft}")
    assert list(row.codes) == [*W, -1, -2, -3]


def test_instruction_and_demonstrations_come_first() -> None:
    row = lay("gpt2", "{text} Answer:", P=2, instruction="w9", demonstrations=((("w5",), "w6"),))
    assert list(row.codes) == [-1, -2, *ids("w9 w5 Answer : w6 w1 w2 Answer :")]


def test_pairs_have_segments() -> None:
    model = tiny("bert")
    frame = Frame(fields=("a", "b"), template="{a}{sep}{b}")
    row = next(iter(model.renderer(frame).rows([("w1 w2", "w3")])))
    assert list(row.codes) == [BOS, *ids("w1 w2"), EOS, *ids("w3"), EOS]
    assert list(row.types) == [0, 0, 0, 0, 1, 1]


def test_the_second_segment_is_seen_by_the_network() -> None:
    model = tiny("bert")
    frame = Frame(fields=("a", "b"), template="{a}{sep}{b}")
    b = collate(list(model.renderer(frame).rows([("w1 w2", "w3")])))
    with torch.no_grad():
        ours = model.run(b)
        theirs = model.network.bert(input_ids=b.codes, token_type_ids=b.types).last_hidden_state
    assert torch.allclose(ours, theirs, atol=1e-6)


def test_taught_answers_are_read_one_before() -> None:
    model = tiny("gpt2")
    row = next(iter(model.renderer(Frame()).rows([("w1 w2",)], ["w7 w8"], end=True)))
    goal = [*ids("w7 w8"), EOS]
    assert list(row.targets) == goal and list(row.codes) == [*W, *goal[:-1]] and row.at == (1, 2, 3)
    t5 = next(iter(tiny("t5").renderer(Frame()).rows([("w1 w2",)], ["w7 w8"], end=True)))
    assert list(t5.decoder) == [0, *goal[:-1]] and list(t5.targets) == goal and t5.at == (0, 1, 2)
    bart = next(iter(tiny("bart").renderer(Frame()).rows([("w1",)], ["w7 w8"])))
    assert list(bart.decoder) == [EOS, BOS, *ids("w7")] and bart.at == (1, 2)  # it begins with a forced token


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 5), st.sampled_from(["front", "after-bos", "back"]))
def test_dropping_virtual_tokens_equals_a_shorter_prompt(k: int, place: str) -> None:
    whole = lay("llama", place=place, P=5)
    assert whole.without(k) == lay("llama", place=place, P=k)


@pytest.mark.parametrize("family", ["gpt2", "bert", "t5"])
def test_long_texts_lose_their_end_and_say_so(family: str) -> None:
    text = " ".join(WORDS[i % 90] for i in range(2000))
    template = "{text} a {mask}" if family == "bert" else "{text} Answer:"
    row = lay(family, template, text=text)
    limit = tiny(family).limit
    assert len(row.codes) == limit and row.cut >= 2000 - limit
    assert ids("w0 w1 w2")[0] in row.codes  # its beginning stays
    if family == "gpt2":
        assert list(row.codes[-2:]) == ids("Answer :")  # and so does what the template says after it


def test_a_prompt_that_does_not_fit_at_all_is_refused() -> None:
    with pytest.raises(ConfigError, match="use a shorter prompt"):
        lay("gpt2", P=200)


def test_the_longer_text_of_a_pair_is_cut() -> None:
    model = tiny("bert")
    frame = Frame(fields=("a", "b"), template="{a}{sep}{b}")
    row = next(iter(model.renderer(frame).rows([("w1 w2", "w3 " * 500)])))
    assert list(row.codes[:4]) == [BOS, *ids("w1 w2"), EOS] and len(row.codes) == model.limit


@pytest.mark.parametrize(
    ("template", "said"),
    [("{txt}", "slot {txt}"), ("hello", r"leaves out the field \{text\}"), ("{text}{soft:x}", "slot {soft:x}")],
)
def test_templates_are_checked(template: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        parse(template, ["text"])


def test_slots_must_hold_the_whole_prompt() -> None:
    with pytest.raises(ConfigError, match="ask for 2 vectors, the prompt has 3"):
        lay("gpt2", "{soft:2}{text}")
    with pytest.raises(ConfigError, match=r"has no \{soft\} slot"):
        lay("gpt2", place="slots")


def test_template_braces_in_data_are_data() -> None:
    """A text that looks like a slot is not filled in."""
    model = tiny("gpt2")
    frame = Frame(fields=("a", "b"), template="{a} {b}")
    row = next(iter(model.renderer(frame).rows([("{b}", "w3")])))
    assert row.codes.count(ids("w3")[0]) == 1


def test_batches_pad_on_either_side() -> None:
    rows = [Row((5, 6, 7), (0, 0, 0), (2,)), Row((8,), (0,), (0,))]
    right, left = collate(rows), collate(rows, "left")
    assert right.codes.tolist() == [[5, 6, 7], [8, 0, 0]] and right.at.tolist() == [[2], [0]]
    assert left.codes.tolist() == [[5, 6, 7], [0, 0, 8]] and left.at.tolist() == [[2], [2]]
    assert left.mask.tolist() == [[True] * 3, [False, False, True]]
