"""PTEC: a head on the last state, two learning rates, rare classes weighted, vectors from label names."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from anacrusis.errors import ConfigError
from anacrusis.measure.predict import scores
from anacrusis.methods.ptec import PTECConfig, balance, build, weights
from anacrusis.model.frames import default_frame
from anacrusis.model.model import Model
from anacrusis.model.readout import classification_loss
from anacrusis.model.rows import Row, collate
from anacrusis.prompt.store import load
from anacrusis.prompt.values import Head, Soft
from anacrusis.registry import get
from anacrusis.runs.run import fit
from anacrusis.task import Task
from anacrusis.testing import tiny
from anacrusis.tune.recipe import Problem, Recipe, Training, View
from anacrusis.tune.trainer import Trainer

TEXTS = [f"w{i} w{i + 1} w{2 * i}" for i in range(40)]
ONE = Task.from_lists(TEXTS, ["a", "b"] * 20, words={"a": "w5 w7", "b": "w6"})
MANY = Task.from_lists(TEXTS, [("p", "q"), ("p",), ("q", "s"), ("p",)] * 10, words={"p": "w5", "q": "w6", "s": "w7"})


def problem(model: Model, task: Task, template: str = "", readout: str = "auto", **training: object) -> Problem:
    frame = default_frame(model, task, template=template, readout=readout)
    options = Training(**{**get("ptec").training, **training})
    return Problem(model, task, frame, torch.Generator().manual_seed(3), options)


def recipe(model: Model, task: Task, template: str = "", **options: object) -> Recipe:
    return build(PTECConfig(**options), problem(model, task, template))  # type: ignore[arg-type]


@pytest.mark.parametrize("family", ["gpt2", "bert", "minilm", "t5"])
def test_the_answer_is_read_by_a_head(family: str) -> None:
    model = tiny(family)
    for task in (ONE, MANY):
        frame = recipe(model, task).frame
        assert frame.readout == "head" and frame.multi == (task is MANY)
        assert frame.template == "{text}", "a template that asks for a word is of no use to a head"
    assert recipe(model, ONE, "{text} w1 w2").frame.template == "{text} w1 w2"


def test_a_causal_model_is_read_at_the_texts_last_token() -> None:
    model = tiny("gpt2")
    r = recipe(model, ONE, length=3)
    vectors = r.maker.fold().tensors()["vectors"]
    head = Head(torch.randn(2, 32, generator=torch.Generator().manual_seed(0)), torch.tensor([0.5, -0.5]))
    prompt = Soft(vectors=vectors, frame=r.frame, head=head)
    own = model.tokenizer("w1 w2 w3")["input_ids"]
    row = Row((-1, -2, -3, *own), (0,) * (3 + len(own)), inputs=3 + len(own))
    batch = collate([row])
    with torch.no_grad(), model.frozen():
        last = model.run(batch, model.place(prompt, batch))[0, -1]
    expected = head.weight @ last + head.bias
    assert torch.allclose(scores(prompt, [("w1 w2 w3",), ("w4",)], model)[0], expected, atol=1e-5)


@pytest.mark.parametrize("family", ["gpt2", "minilm", "t5"])
def test_a_head_of_zeros_is_undecided_about_every_class(family: str) -> None:
    model = tiny(family)
    p = problem(model, MANY, head_init="zeros", steps=1, lr=1e-12)
    found: list[dict] = []
    prompt = Trainer(p, build(PTECConfig(), p), seed=0, observe=found.append).fit().prompt
    assert prompt.head is not None and prompt.head.weight.abs().max() < 1e-9
    chances = scores(prompt, [("w1 w2",), ("w3",)], model).sigmoid()
    assert torch.allclose(chances, torch.full((2, 3), 0.5))
    losses = [e["loss"] for e in found if e["event"] == "validate"]
    assert losses[0] == pytest.approx(torch.log(torch.tensor(2.0)).item(), abs=1e-5)


def test_prompt_and_head_have_two_rates() -> None:
    """The paper's rates are 3e-3 and 1e-5: the head is by far the slower one, and head_lr sets it."""
    model = tiny("minilm")
    for factor in (get("ptec").training["head_lr"], 0.5):
        p = problem(model, ONE, head_lr=factor, steps=1)
        trainer = Trainer(p, build(PTECConfig(), p), seed=0)
        trainer.fit()
        rates = {g.role: group["base"] for g, group in zip(trainer.groups, trainer.optimizer.param_groups, strict=True)}
        assert rates["prompt"] == pytest.approx(p.training.lr * model.scale)
        assert rates["head"] == pytest.approx(p.training.lr * factor / trainer._spread)
    assert get("ptec").training["head_lr"] <= 0.01


def test_vectors_start_from_the_names_of_the_labels() -> None:
    model = tiny("gpt2")
    words = model.tokenizer("w5 w7 w6", add_special_tokens=False)["input_ids"]
    start = recipe(model, ONE, length=7).maker.fold().tensors()["vectors"]
    assert torch.equal(start, model.embeddings[(words * 3)[:7]])


def test_a_class_weighs_as_often_as_the_commonest_class_outnumbers_it() -> None:
    p = problem(tiny("minilm"), MANY)
    counts = [sum(isinstance(e.gold, tuple) and c in e.gold for e in MANY.train) for c in range(3)]
    assert weights(p).tolist() == pytest.approx([max(counts) / n for n in counts])
    assert weights(p)[2] > 1.5


def test_the_weighted_loss_is_torchs_own() -> None:
    """Plain loss and the term together are binary cross entropy with pos_weight."""
    g = torch.Generator().manual_seed(0)
    z, golds = torch.randn(6, 3, generator=g), torch.randint(0, 2, (6, 3), generator=g).float()
    w = torch.tensor([1.0, 4.0, 2.5])
    model = tiny("minilm")
    empty = Soft(vectors=torch.zeros(0, 32))
    view = View(model, collate([Row((5,), (0,))]), golds, empty, empty, z)
    term = balance(w)
    ours = classification_loss(z, golds).mean() + term.weight * term.value(view)
    assert torch.allclose(ours, F.binary_cross_entropy_with_logits(z, golds, pos_weight=w))


def test_only_several_labels_of_unequal_number_are_weighted() -> None:
    model = tiny("minilm")
    assert [t.name for t in recipe(model, MANY).terms] == ["rare classes"]
    assert recipe(model, MANY, balance=False).terms == ()
    assert recipe(model, ONE).terms == ()
    even = Task.from_lists(TEXTS, [("p", "q")] * 40)
    assert recipe(model, even).terms == ()


def test_it_is_saved_with_its_head_and_refuses_to_write(tmp_path: Path) -> None:
    model = tiny("gpt2")
    run = fit("ptec", model, MANY, folder=tmp_path / "r", options={"steps": "2"})
    again = load(tmp_path / "r" / "prompt")
    assert again.head is not None and again.head.weight.shape == (3, 32) and again.same(run.prompt)
    with pytest.raises(ConfigError, match="ptec is for classification, multilabel tasks"):
        fit("ptec", model, Task.from_lists(TEXTS, TEXTS, kind="generation"), folder=tmp_path / "g")


def test_wrong_options_are_refused() -> None:
    with pytest.raises(ConfigError, match="length"):
        replace(PTECConfig(), length=0)
