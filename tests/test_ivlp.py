"""Independent rows of both towers: where they stand, where they are dropped, that neither side sees the other's."""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from anacrusis.errors import ConfigError
from anacrusis.methods import coop
from anacrusis.methods.ivlp import IVLPConfig, build
from anacrusis.model.frames import default_frame
from anacrusis.model.images import ImageBatch, rows_of
from anacrusis.model.readout import reader
from anacrusis.model.sight import Sides, Sight
from anacrusis.prompt.values import Paired, Tokens
from anacrusis.task import Task
from anacrusis.testing import sight
from anacrusis.tune.recipe import Problem, Recipe
from tests import plain

PICTURES = list(np.random.default_rng(5).integers(0, 256, (12, 32, 32, 3), dtype=np.uint8))
TASK = Task.from_arrays(PICTURES, ["a", "b", "c"] * 4, words={"a": "w5", "b": "w6 w7", "c": "w8"})


@functools.cache
def model_of(family: str = "clip", layers: int = 3) -> Sight:
    return sight(family, layers=layers)


def problem(model: Sight, seed: int = 3) -> Problem:
    return Problem(model, TASK, default_frame(model, TASK), torch.Generator().manual_seed(seed))


def batch_of(model: Sight, n: int = 3) -> ImageBatch:
    return ImageBatch(rows_of([(p,) for p in PICTURES[:n]], model.prepare), model.prepare, model.device, model.dtype)


def recipe(model: Sight, **options: Any) -> Recipe:
    return build(IVLPConfig(**options), problem(model))


def both(made: Any) -> tuple[Tokens, Tokens]:
    assert isinstance(made, Paired) and isinstance(made.text, Tokens) and isinstance(made.image, Tokens)
    return made.text, made.image


def test_every_layer_up_to_the_depth_has_rows_of_its_own() -> None:
    model = model_of()
    for depth, layers in ((1, [0]), (2, [0, 1]), (9, [0, 1, 2])):
        maker = recipe(model, depth=depth, length=4, visual=5).maker
        text, image = both(maker(None))
        assert list(text.layers) == list(image.layers) == layers
        assert {t.shape for t in text.layers.values()} == {(4, 32)}
        assert {t.shape for t in image.layers.values()} == {(5, 32)}
        assert sum(p.numel() for p in maker.parameters()) == len(layers) * (4 + 5) * 32


def test_drawn_rows_have_the_size_of_what_they_stand_beside_and_move_in_it() -> None:
    model = model_of()
    maker = recipe(model, length=200, visual=200, words="").maker
    text, image = both(maker.fold())
    assert float(text.layers[1].square().mean().sqrt()) == pytest.approx(model.scale, rel=0.05)
    for rows in image.layers.values():
        assert float(rows.square().mean().sqrt()) == pytest.approx(model.row_scale, rel=0.05)
    assert [g.unit for g in maker.groups()] == [model.scale, model.row_scale]


def test_one_layer_of_the_texts_alone_is_coop() -> None:
    model = model_of()
    mine = recipe(model, side="text", depth=1, length=0)
    theirs = coop.build(coop.CoOpConfig(), problem(model))
    assert mine.maker.fold().same(theirs.maker.fold()) and mine.frame == theirs.frame
    assert mine.frame.template == "{soft} {label}."


@pytest.mark.parametrize("family", ["clip", "siglip"])
def test_rows_are_replaced_up_to_the_depth_and_go_on_behind_it(family: str) -> None:
    model = model_of(family)
    batch = batch_of(model)
    found = []
    for depth in (1, 2, 3):
        r = recipe(model, depth=depth)
        with torch.no_grad(), model.frozen():
            placed = model.place(r.maker(None), batch)
            z = reader(model, r.frame).scores(batch, placed, None)
            assert torch.allclose(z, plain.scores(model, r.frame, placed, batch), atol=1e-4)
        found.append(z)
    assert not torch.allclose(found[0], found[1], atol=1e-2) and not torch.allclose(found[1], found[2], atol=1e-2)


def test_neither_side_sees_the_rows_of_the_other() -> None:
    model, r = model_of(), recipe(model_of())
    batch = batch_of(model)
    made = r.maker(None)
    text, image = both(made)
    with model.frozen():
        seen = reader(model, r.frame).seen(batch, model.place(made, batch))  # type: ignore[attr-defined]
    rows = [*text.layers.values(), *image.layers.values()]
    for feature, mine in ((seen.text, set(range(3))), (seen.image, {3, 4, 5})):
        grads = torch.autograd.grad(feature.square().cumsum(0).sum(), rows, allow_unused=True, retain_graph=True)
        assert {i for i, g in enumerate(grads) if g is not None and g.abs().sum() > 0} == mine


def test_one_side_alone_leaves_the_other_frozen() -> None:
    model, batch = model_of(), batch_of(model_of())
    r = recipe(model, side="image")
    sides = model.place(r.maker(None), batch)
    assert isinstance(sides, Sides) and sides.text is None and r.frame == problem(model).frame
    sides = model.place(recipe(model, side="text").maker(None), batch)
    assert sides.image is None


def test_a_soft_template_is_not_asked_of_the_frozen_texts() -> None:
    given = problem(model_of())
    given = replace(given, frame=replace(given.frame, template="{soft} {label} x"))
    assert build(IVLPConfig(side="image"), given).frame.template == "a photo of a {label}."


@pytest.mark.parametrize("options", [{"depth": 0}, {"visual": 0}, {"length": -1}, {"length": 0, "words": ""}])
def test_wrong_options_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(options))):
        IVLPConfig(**options)


def test_an_unknown_side_is_refused() -> None:
    with pytest.raises(ConfigError, match="side is 'vision'; it must be both, text or image"):
        IVLPConfig(side="vision")  # type: ignore[arg-type]
