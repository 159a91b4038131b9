"""Visual prompting: what changes of a picture and what does not, on every kind of model."""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import anacrusis as ana
from anacrusis.errors import ConfigError
from anacrusis.measure.predict import scores
from anacrusis.methods.visual_prompting import PixelMaker, VisualPromptingConfig, build, place
from anacrusis.model.frames import default_frame
from anacrusis.model.images import Preparation, picture
from anacrusis.model.open_sight import wrap_sight
from anacrusis.model.sight import Sight
from anacrusis.prompt.values import Pixels
from anacrusis.registry import get, require
from anacrusis.task import Split, Task
from anacrusis.tune.makers import build_quietly, seeded
from anacrusis.tune.recipe import Problem, Recipe, Training
from anacrusis.tune.trainer import Trainer
from tests.test_model import state, unchanged
from tests.test_sight import batch_of, model_of

S = 32
NAMES = ("lynx", "heron", "carp", "newt")


@functools.cache
def classifier() -> Sight:
    """A small convolutional network of four classes, with weights by chance."""
    net = build_quietly(lambda: nn.Sequential(
        nn.Conv2d(3, 8, 5, stride=2), nn.ReLU(), nn.Conv2d(8, 8, 3, stride=2), nn.ReLU(), nn.AdaptiveAvgPool2d(1),
        nn.Flatten(), nn.Linear(8, 4)))  # fmt: skip
    seeded(net, torch.Generator().manual_seed(0))
    return wrap_sight(net.eval().requires_grad_(False), name="cnn", classes=NAMES, prepare=Preparation(S))


def task_for(labels: tuple[str, ...], n: int = 60) -> Task:
    """Pictures that are darker or brighter: another class for each step."""
    rng = np.random.default_rng(0)
    gold = [i % len(labels) for i in range(n)]
    pictures = [rng.integers(60 * g, 60 * g + 60, (S, S, 3), dtype=np.uint8) for g in gold]
    return Task.from_arrays(pictures, [labels[g] for g in gold], name="bright", split=Split(seed=0))


def problem(model: Sight, labels: tuple[str, ...] = ("w1", "w2", "w3"), **options: Any) -> Problem:
    task = task_for(labels)
    training = Training(**{"lr": 0.05, "epochs": 3, "batch": 16, "patience": 0, **options})
    return Problem(model, task, default_frame(model, task), torch.Generator().manual_seed(5), training)


def fit_on(model: Sight, name: str, labels: tuple[str, ...], **options: Any) -> tuple[Problem, Any]:
    given, method = problem(model, labels, **options), get(name)
    require(method, model, given.task)
    before = state(model)  # type: ignore[arg-type]
    out = Trainer(given, method.build(method.config(), given), seed=1).fit()
    assert unchanged(before, state(model))  # type: ignore[arg-type]
    return given, out


def maker_of(made: Recipe) -> PixelMaker:
    assert isinstance(made.maker, PixelMaker)
    return made.maker


def test_the_number_of_values_is_the_papers() -> None:
    assert 3 * int(place("frame", 30, 224).sum()) == 69_840 == 2 * 3 * 30 * (2 * 224 - 2 * 30)
    assert int(place("frame", 0, 224).sum()) == int(place("frame", 30, 224).sum())
    assert int(place("patch", 3, S).sum()) == 9 and int(place("dense", 3, S).sum()) == S * S


@pytest.mark.parametrize("space", ["normalised", "raw"])
@pytest.mark.parametrize("shape", ["frame", "patch"])
def test_outside_its_shape_the_picture_is_the_same_bit_for_bit(space: str, shape: str) -> None:
    model = model_of("clip")
    made = build(VisualPromptingConfig(shape=shape, width=4, space=space, start=1.0), problem(model))  # type: ignore[arg-type]
    batch = batch_of(model)
    with torch.no_grad():
        changed = model.pixels(batch, made.maker(None)) - batch.normalised
    inside = torch.zeros(S, S, dtype=torch.bool)
    if shape == "patch":
        inside[:4, :4] = True
    else:
        inside[:4] = inside[-4:] = True
        inside[:, :4] = inside[:, -4:] = True
    assert not changed[:, :, ~inside].any() and bool((changed[:, :, inside] != 0).all())


def test_what_is_added_by_hand() -> None:
    maker = PixelMaker(place("patch", 2, 4), torch.arange(12.0).view(3, 4), 1.0)
    prompt = maker(None)
    assert prompt.delta[1].tolist() == [[4.0, 5.0, 0.0, 0.0], [6.0, 7.0, 0.0, 0.0], [0.0] * 4, [0.0] * 4]


def test_where_it_is_added() -> None:
    """mean 0.5, deviation 0.5: 0.1 on a raw pixel is 0.2 behind the normalisation; clipped where it leaves 0..1."""
    model, batch = model_of("clip"), batch_of(model_of("clip"))
    delta = torch.full((3, S, S), 0.1)
    raw = (batch.raw + 0.1 - 0.5) / 0.5
    assert torch.allclose(model.pixels(batch, Pixels(delta=delta, clip=False)), raw)
    assert torch.allclose(model.pixels(batch, Pixels(delta=delta)), raw.clamp(max=1.0))
    assert torch.allclose(model.pixels(batch, Pixels(delta=delta, space="normalised")), batch.normalised + 0.1)


@pytest.mark.parametrize("family", ["clip", "vit", "cnn"])
def test_at_zero_the_answers_are_those_without_a_prompt(family: str) -> None:
    model = classifier() if family == "cnn" else model_of(family)
    given = problem(model, NAMES if family == "cnn" else ("w1", "w2", "w3"))
    made = build(VisualPromptingConfig(start=0.0), given)
    batch = batch_of(model)
    prompt = made.maker(None)
    with torch.no_grad(), model.frozen():
        assert torch.equal(model.pooled(batch, prompt), model.pooled(batch, None))
    assert made.frame == given.frame


def test_a_classifier_by_hand() -> None:
    model = classifier()
    given, out = fit_on(model, "visual-prompting", NAMES[:3])
    assert given.frame.readout == "classes" and out.prompt.head is None
    inputs = [e.inputs for e in given.task.valid]
    raw = torch.stack([torch.from_numpy(picture(x[0])).permute(2, 0, 1) for x in inputs]) / 255
    with torch.no_grad():
        z = model.network((raw - 0.5) / 0.5 + out.prompt.delta)
    z = z[:, [NAMES.index(name) for name in given.task.labels]]  # of the task's classes, in the task's order
    assert given.task.labels != NAMES[:3]
    assert torch.allclose(scores(out.prompt, inputs, model), z, atol=1e-5)
    assert bool((out.prompt.delta[:, 8:24, 8:24] == 0).all()) and bool(out.prompt.delta.any())


@pytest.mark.parametrize("name", ["visual-prompting", "pixel-network"])
def test_a_classifier_learns_to_answer(name: str) -> None:
    """The network with weights by chance always says one class; under a prompt its loss falls."""
    given, out = fit_on(classifier(), name, NAMES, epochs=12, lr=0.2)
    assert out.history[-1]["loss"] < 0.9 * out.history[0]["loss"]


def test_a_vision_tower_gets_a_head() -> None:
    given, out = fit_on(model_of("vit"), "visual-prompting", ("w1", "w2", "w3"))
    assert given.frame.readout == "head" and out.prompt.head is not None
    assert ana.evaluate(out.prompt, given.model, given.task).value > 0.4


def test_raw_values_move_in_a_pixels_deviation() -> None:
    given = problem(model_of("clip"))
    assert [g.unit for g in build(VisualPromptingConfig(space="raw"), given).maker.groups()] == [0.5]
    normalised = maker_of(build(VisualPromptingConfig(), given))
    assert [g.unit for g in normalised.groups()] == [1.0]
    assert normalised.values.shape == (3, 4 * 4 * (S - 4))  # 30 of 224 pixels are 4 of 32


def test_words_stay_words() -> None:
    given = problem(model_of("clip"))
    given = replace(given, frame=replace(given.frame, template="{soft:2} {label}"))
    assert build(VisualPromptingConfig(), given).frame.template == "a photo of a {label}."


@pytest.mark.parametrize(("options", "said"), [({"clip": True}, "space=raw"), ({"width": -1}, "width"),
                                               ({"start": -1.0}, "start")])  # fmt: skip
def test_wrong_options_are_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        VisualPromptingConfig(**options)


@pytest.mark.parametrize(("shape", "width", "said"), [("frame", 17, "at most 16"), ("patch", 33, "at most 32"),
                                                      ("ring", 3, "one of frame")])  # fmt: skip
def test_shapes_that_do_not_fit_are_refused(shape: str, width: int, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        place(shape, width, S)
