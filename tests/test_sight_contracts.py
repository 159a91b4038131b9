"""Every method for images keeps these promises; a new one gets these tests by registering."""

from __future__ import annotations

import functools
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import anacrusis as ana
from anacrusis.errors import AnacrusisError, PromptError
from anacrusis.measure.predict import scores
from anacrusis.model.frames import default_frame
from anacrusis.model.sight import Sight
from anacrusis.prompt.values import Conditioned, Paired, Tokens, for_classes, sides
from anacrusis.registry import Method, all_methods, require
from anacrusis.task import Task
from anacrusis.testing import planted_sight, sight
from anacrusis.tune.recipe import Problem, Recipe, Training
from anacrusis.tune.trainer import Trainer
from tests import plain
from tests.test_model import state, unchanged

SEEING = {"dual", "vision", "classifier"}
# tai-dpt learns from captions, not pictures: tests/test_class_texts.py
LOOKING = [n for n, m in all_methods().items() if m.engine == "tune" and m.arrangements & SEEING and n != "tai-dpt"]
FAMILIES = ("clip", "siglip", "vit")
PAIRS = [(n, f) for n in LOOKING for f in FAMILIES if ("vision" if f == "vit" else "dual")
         in all_methods()[n].arrangements]  # fmt: skip
QUICK = {"epochs": "2", "batch": "16", "save_seconds": "0"}


@functools.cache
def model_of(family: str) -> Sight:
    return sight(family)


@functools.cache
def task_of(family: str) -> Task:
    return planted_sight(model_of(family))[0]


def problem(method: Method, family: str, **options: str) -> Problem:
    try:
        require(method, model_of(family), task_of(family))
    except AnacrusisError as error:
        pytest.skip(str(error))
    model, task = model_of(family), task_of(family)
    training = Training(**method.training).changed({**QUICK, **options})
    return Problem(model, task, default_frame(model, task), torch.Generator().manual_seed(1), training)


def build(name: str, family: str, **options: str) -> tuple[Problem, Recipe]:
    method = all_methods()[name]
    given = problem(method, family, **options)
    return given, method.build(method.config(), given)


def moved(trainer: Trainer) -> None:
    """Off the start, where a second factor of zero hides the first."""
    g = torch.Generator().manual_seed(3)
    for p in trainer.maker.parameters():
        with torch.no_grad():
            p.add_(0.02 * torch.randn(p.shape, generator=g))
    if trainer.head is not None:
        torch.nn.init.normal_(trainer.head.weight, generator=g)


@pytest.mark.parametrize(("name", "family"), PAIRS)
def test_a_fit_leaves_the_network_alone_and_folds_exactly(name: str, family: str, tmp_path: Path) -> None:
    given, recipe = build(name, family)
    before = state(given.model)
    trainer = Trainer(given, recipe, seed=1)
    out = trainer.fit()
    assert unchanged(before, state(given.model))
    assert out.steps == 2 * trainer.per_epoch
    inputs = [e.inputs for e in given.task.valid]
    z = scores(out.prompt, inputs, given.model)
    out.prompt.save(tmp_path / "p")
    loaded = ana.load(tmp_path / "p")
    assert loaded.same(out.prompt)
    assert torch.equal(scores(loaded, inputs, given.model), z)
    rows = trainer.read.rows(inputs, out.prompt)
    batch = trainer.read.batch(rows)
    with torch.no_grad(), given.model.frozen():
        made = trainer.maker(None if trainer.maker.reads == "nothing" else given.model.reads(batch))
        unfolded = trainer.read.scores(batch, given.model.place(made, batch), out.prompt.head)
    if recipe.average is None:  # an average is not what the maker holds at the end
        assert torch.allclose(unfolded, z, atol=1e-4)
    alone = torch.cat([scores(out.prompt, [x], given.model) for x in inputs[:3]])
    assert torch.allclose(alone, z[:3], atol=1e-4)  # who else is in the batch changes nothing


@pytest.mark.parametrize(("name", "family"), PAIRS)
def test_every_parameter_gets_a_gradient_and_nothing_else_wants_one(name: str, family: str) -> None:
    given, recipe = build(name, family, head_init="zeros")
    trainer = Trainer(given, recipe, seed=1)
    trainer.began = 0.0
    with given.model.frozen():
        trainer._prepare()
        moved(trainer)
        losses = trainer._losses(list(range(12)), None, recipe.stages[-1])
        sum(losses.values()).backward()
        for group in trainer.groups:
            for p in group.parameters:
                assert p.grad is not None and p.grad.abs().sum() > 0, f"{group.role} {tuple(p.shape)}"
        assert [n for n, p in given.model.network.named_parameters() if p.requires_grad] == []


@pytest.mark.parametrize(("name", "family"), [(n, f) for n, f in PAIRS if f != "vit"])
def test_a_fast_step_is_a_plain_step(name: str, family: str) -> None:
    """Scores and the gradient of the answer's loss, against towers run whole: full texts, nothing kept or shared."""
    given, recipe = build(name, family)
    trainer = Trainer(given, recipe, seed=1)
    trainer.began = 0.0
    found: list[tuple[Any, Any]] = []
    with given.model.frozen():
        trainer._prepare()
        moved(trainer)
        batch = trainer.read.batch(trainer.rows[:3])
        for way in ("fast", "slow"):
            trainer.maker.zero_grad()
            prompt = trainer.maker(None if trainer.maker.reads == "nothing" else given.model.reads(batch))
            ways = ("gates", "temperatures", "entries", "mass", "made")
            if any(getattr(p, w, None) is not None and getattr(p, w) != {} for p in sides(prompt) for w in ways):
                pytest.skip(f"{name} changes attention itself: its own file compares it")
            placed = given.model.place(prompt, batch)
            if way == "fast":
                z = trainer.read.scores(batch, placed, None)
            else:
                z = plain.scores(given.model, recipe.frame, placed, batch)
            torch.nn.functional.cross_entropy(z, trainer.golds[:3]).backward()
            found.append((z.detach(), [None if p.grad is None else p.grad.clone() for p in trainer.maker.parameters()]))
    (fast, fast_grads), (slow, slow_grads) = found
    assert torch.allclose(fast, slow, atol=1e-5 * max(1.0, float(slow.abs().max())), rtol=1e-4)
    for a, b in zip(fast_grads, slow_grads, strict=True):
        assert (a is None) == (b is None)
        if a is not None and b is not None:
            assert torch.allclose(a, b, atol=2e-5 * max(1.0, float(b.abs().max())), rtol=1e-3)


@pytest.mark.parametrize(("name", "family"), PAIRS)
def test_same_seed_same_prompt(name: str, family: str) -> None:
    outs = []
    for seed in (1, 1, 2):
        method = all_methods()[name]
        given = replace(problem(method, family), generator=torch.Generator().manual_seed(seed))
        outs.append(Trainer(given, method.build(method.config(), given), seed=seed).fit().prompt)
    assert outs[0].same(outs[1]) and not outs[0].same(outs[2])


class Stop(Exception):
    pass


@pytest.mark.parametrize(("name", "family"), PAIRS)
def test_stopped_and_resumed_equals_uninterrupted(name: str, family: str, tmp_path: Path) -> None:
    model, task, method = model_of(family), task_of(family), all_methods()[name]
    problem(method, family)
    options = {**QUICK, "epochs": "3"}
    whole = ana.fit(name, model, task, folder=tmp_path / "whole", options=options, seed=3)
    stops = {3, 8}

    def stop(event: dict[str, Any]) -> None:
        if event["event"] == "step" and event["step"] in stops:
            stops.remove(event["step"])
            raise Stop

    for _ in range(2):
        with pytest.raises(Stop):
            ana.fit(name, model, task, folder=tmp_path / "cut", options=options, seed=3, observe=stop)
    cut = ana.fit(name, model, task, folder=tmp_path / "cut", options=options, seed=3)
    assert cut.prompt.same(whole.prompt)
    assert cut.score is not None and whole.score is not None and cut.score.value == whole.score.value


@pytest.mark.parametrize(("name", "family"), PAIRS)
def test_other_classes_can_be_served_or_are_refused(name: str, family: str) -> None:
    given, recipe = build(name, family, epochs="1")
    prompt = Trainer(given, recipe, seed=1).fit().prompt
    inputs = [e.inputs for e in given.task.valid][:2]
    own = any(isinstance(p, Tokens) and p.per == "class" for p in sides(prompt)) or bool(prompt.frame.texts)
    if prompt.head is not None or own or prompt.kind == "cache":
        with pytest.raises(PromptError, match="cannot serve other classes"):
            for_classes(prompt, ["n1", "n2"])
        return
    other = for_classes(prompt, ["n1", "n2", "n3", "n4"], ["w8", "w9", "w10 w11", "w12"])
    assert scores(other, inputs, given.model).shape == (2, 4)
    assert not isinstance(prompt, Conditioned | Paired) or other.tensors().keys() == prompt.tensors().keys()


@pytest.mark.parametrize("name", LOOKING)
def test_what_was_planted_is_found(name: str) -> None:
    """A hidden prompt labels the pictures; the method gets most of them right on pictures that it has not seen."""
    family = "clip" if "dual" in all_methods()[name].arrangements else "vit"
    method = all_methods()[name]
    task, teacher = planted_sight(model_of(family), examples=240)
    frame = default_frame(model_of(family), task)
    given = replace(problem(method, family), task=task, frame=frame, training=Training(**method.training).changed(
        {"epochs": "30", "batch": "32", "patience": "0"}))  # fmt: skip
    prompt = Trainer(given, method.build(method.config(), given), seed=1).fit().prompt
    score = ana.evaluate(prompt, given.model, task)
    chance = ana.evaluate(replace(teacher, **{"layers": {0: 0 * next(iter(teacher.layers.values()))}}),  # type: ignore[attr-defined]
                          given.model, task)  # fmt: skip
    assert score.value >= 0.8 and score.value > chance.value, f"{score} against {chance}"
