"""Demonstrations: training examples before the text (methods/demonstrations.py)."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import torch

import anacrusis as ana
from anacrusis.errors import ConfigError, ModelError
from anacrusis.methods.demonstrations import DemonstrationsConfig, draw
from anacrusis.model.frames import default_frame
from anacrusis.model.model import Model
from anacrusis.prompt.values import Frame, Text
from anacrusis.registry import get
from anacrusis.task import Task
from anacrusis.testing import tiny
from anacrusis.tune.recipe import Problem

TEXTS = [f"w{i} w{i + 1}" for i in range(36)]
LABELS = ["w50", "w51", "w52"] * 12


def task_of(size: int = 24, words: int = 2) -> Task:
    texts = [" ".join([t] + ["w60"] * (words - 2)) for t in TEXTS]
    parts = [(texts[a:b], LABELS[a:b]) for a, b in ((0, size), (24, 30), (30, 36))]
    return Task.from_lists(*parts[0], valid=parts[1], test=parts[2])


def prompt_of(model: Model, task: Task, seed: int = 0, **options: object) -> Text:
    p = Problem(model, task, default_frame(model, task), torch.Generator().manual_seed(seed))
    prompt = get("demonstrations").build(DemonstrationsConfig(**options), p)  # type: ignore[arg-type]
    assert isinstance(prompt, Text)
    return prompt


def test_shown_are_training_examples_with_their_own_answers() -> None:
    task = task_of()
    shown = prompt_of(tiny("gpt2"), task).frame.demonstrations
    known = {(e.inputs, task.words[e.gold]) for e in task.train}
    others = {e.inputs for e in (*task.valid, *task.test)}
    assert shown and set(shown) <= known and not {inputs for inputs, _ in shown} & others
    assert len(set(shown)) == len(shown)


@pytest.mark.parametrize("shots", [1, 2, 4])
def test_classes_are_balanced_and_interleaved(shots: int) -> None:
    answers = [a for _, a in prompt_of(tiny("gpt2"), task_of(), shots=shots).frame.demonstrations]
    assert Counter(answers) == {w: shots for w in ("w50", "w51", "w52")}
    for r in range(shots):
        assert set(answers[3 * r : 3 * r + 3]) == {"w50", "w51", "w52"}


def test_the_seed_decides() -> None:
    model, task = tiny("gpt2"), task_of()
    a, b, c = (prompt_of(model, task, seed, shots=2).frame.demonstrations for seed in (1, 1, 2))
    assert a == b and set(a) != set(c)


@pytest.mark.parametrize("words", [7, 8, 9, 10, 13])
def test_as_many_rounds_as_fit_beside_the_text(words: int) -> None:
    model, task = tiny("gpt2"), task_of(words=words)
    frame = prompt_of(model, task, shots=8).frame
    rounds = len(frame.demonstrations) // 3
    assert 1 <= rounds < 8
    rows = list(model.renderer(frame).rows(e.inputs for e in task.train))
    assert max(r.cut for r in rows) == 0
    each = len(model.renderer(frame).ids(model.renderer(frame).lead)) / rounds
    assert len(rows[0].codes) + each > model.limit  # one more would not fit


def test_a_class_with_fewer_examples_shows_what_it_has() -> None:
    task = Task.from_lists(["w1", "w2", "w3", "w4"], ["w50", "w51", "w50", "w50"], valid=(["w5"], ["w50"]),
                           test=(["w6"], ["w50"]))  # fmt: skip
    rounds = draw(task.train, task.words, 3, torch.Generator().manual_seed(0))
    assert [Counter(a for _, a in r) for r in rounds] == [{"w50": 1, "w51": 1}, {"w50": 1}, {"w50": 1}]


def test_when_nothing_fits_it_says_so() -> None:
    with pytest.raises(ConfigError, match="3 examples, one of each class.*128 tokens"):
        prompt_of(tiny("gpt2"), task_of(words=60))


def test_how_they_are_laid_out() -> None:
    model = tiny("gpt2")
    frame = prompt_of(model, task_of(), shots=1, instruction="w80 :").frame
    row = next(model.renderer(frame).rows([("w9",)]))
    shown = "".join(f"{inputs[0]}\nAnswer: {answer}\n\n" for inputs, answer in frame.demonstrations)
    assert model.tokenizer.decode(row.codes) == model.tokenizer.decode(
        model.tokenizer(f"w80 :\n\n{shown}w9\nAnswer:")["input_ids"]
    )


@pytest.mark.parametrize("family", ["gpt2", "bert", "t5"])
def test_runs(family: str, tmp_path: Path) -> None:
    run = ana.fit("demonstrations", tiny(family), task_of(), folder=tmp_path, options={"shots": 2})
    assert run.prompt.frame.readout == "label-words" and len(run.prompt.frame.demonstrations) == 6
    assert ana.load(tmp_path / "prompt").frame == run.prompt.frame


def test_written_answers_are_shown_too() -> None:
    task = Task.from_lists(["w0", "w1", "w2"], ["w2 w3", "w4", "w5"], kind="generation", valid=(["w5"], ["w6"]),
                           test=(["w7"], ["w8"]))  # fmt: skip
    shown = prompt_of(tiny("gpt2"), task, shots=2).frame.demonstrations
    assert len(shown) == 2 and set(shown) <= {(("w0",), "w2 w3"), (("w1",), "w4"), (("w2",), "w5")}


def test_it_needs_words_that_can_be_told_apart(tmp_path: Path) -> None:
    task = Task.from_lists(["w0", "w1"], ["w2 w3", "w2 w4"], kind="classification", valid=(["w5"], ["w2 w3"]),
                           test=(["w7"], ["w2 w4"]))  # fmt: skip
    with pytest.raises(ConfigError, match="same token"):
        prompt_of(tiny("gpt2"), task)
    with pytest.raises(ModelError, match="demonstrations is for causal"):
        ana.fit("demonstrations", tiny("minilm"), task_of(), folder=tmp_path)
    with pytest.raises(ConfigError, match="shots"):
        DemonstrationsConfig(shots=0)
    assert Frame().demonstrations == ()
