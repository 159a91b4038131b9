"""Majority: class shares, by hand (methods/majority.py)."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import anacrusis as ana
from anacrusis.errors import ConfigError
from anacrusis.measure.predict import answers, scores
from anacrusis.prompt.values import Constant
from anacrusis.task import Task
from anacrusis.testing import tiny

TEST = (["w8", "w9"], ["b", "a"])


def fit(task: Task, folder: Path) -> Constant:
    prompt = ana.fit("majority", tiny("minilm"), task, folder=folder).prompt
    assert isinstance(prompt, Constant)
    return prompt


def test_shares_of_train_alone(tmp_path: Path) -> None:
    """3 of 4 in train say b; validation and test, which say otherwise, are not asked."""
    valid = (["w4", "w5", "w6"], ["a", "a", "a"])
    task = Task.from_lists(["w0", "w1", "w2", "w3"], ["b", "a", "b", "b"], valid=valid, test=TEST)
    prompt = fit(task, tmp_path)
    assert task.labels == ("a", "b") and torch.equal(prompt.scores, torch.tensor([0.25, 0.75]))
    assert answers(prompt, scores(prompt, [("w7",)] * 2, tiny("gpt2"))) == ["b", "b"]
    assert ana.evaluate(prompt, None, task).value == 0.5
    assert torch.equal(ana.load(tmp_path / "prompt").tensors()["scores"], prompt.scores)


def test_equal_shares_go_to_the_first_class(tmp_path: Path) -> None:
    task = Task.from_lists(["w0", "w1"], ["b", "a"], valid=(["w2"], ["b"]), test=TEST)
    prompt = fit(task, tmp_path)
    assert answers(prompt, scores(prompt, [("w7",)], tiny("gpt2"))) == ["a"]


def test_several_labels_hold_where_more_than_half_have_them(tmp_path: Path) -> None:
    golds = [["x", "y"], ["x"], ["x", "z"], ["y"]]
    task = Task.from_lists(["w0", "w1", "w2", "w3"], golds, kind="multilabel", valid=(["w4"], [["x"]]),
                           test=(["w5"], [["x", "y"]]))  # fmt: skip
    prompt = fit(task, tmp_path)
    assert torch.equal(prompt.scores, torch.tensor([0.25, 0.0, -0.25]))
    assert answers(prompt, scores(prompt, [("w7",)], tiny("gpt2"))) == [("x",)]


def test_writing_has_no_majority(tmp_path: Path) -> None:
    task = Task.from_lists(["w0", "w1"], ["w2 w3", "w4"], kind="generation", valid=(["w5"], ["w6"]),
                           test=(["w7"], ["w8"]))  # fmt: skip
    with pytest.raises(ConfigError, match="majority is for"):
        ana.fit("majority", tiny("gpt2"), task, folder=tmp_path)
