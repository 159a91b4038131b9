"""Visual prompt tuning: where the rows start, and both depths against transformers' own blocks."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from anacrusis.errors import ConfigError
from anacrusis.methods.vpt import VPTConfig, build, framed
from anacrusis.model.frames import default_frame
from anacrusis.model.images import ImageBatch
from anacrusis.model.readout import reader
from anacrusis.model.sight import Sight
from anacrusis.prompt.values import Tokens
from anacrusis.testing import planted_sight
from anacrusis.tune.recipe import Problem, Recipe, Training
from anacrusis.tune.trainer import Trainer
from tests import plain
from tests.test_sight import batch_of, model_of

L, D = 3, 32  # blocks and width of the tiny models


def problem(model: Sight, **options: Any) -> Problem:
    task, _ = planted_sight(model, examples=45)
    training = Training(**{"lr": 0.05, "steps": 3, "batch": 8, "patience": 0, **options})
    return Problem(model, task, default_frame(model, task), torch.Generator().manual_seed(5), training)


def recipe(family: str, **options: Any) -> tuple[Problem, Recipe]:
    given = problem(model_of(family))
    return given, build(VPTConfig(**options), given)


def rows_of(made: Recipe) -> Tokens:
    prompt = made.maker(None)
    assert isinstance(prompt, Tokens)
    return prompt


@pytest.mark.parametrize("family", ["clip", "siglip", "vit", "deit", "vit_mae", "dinov2"])
def test_the_start_is_uniform_in_the_papers_bounds(family: str) -> None:
    _, made = recipe(family, length=200)
    a = math.sqrt(6 / (3 * 8 * 8 + D))  # patches of 8 by 8, also where other tokens than the class stand beside them
    for rows in map(Tensor.detach, rows_of(made).layers.values()):
        assert float(rows.abs().max()) <= a and float(rows.max()) > 0.97 * a and float(rows.min()) < -0.97 * a
        assert float(rows.std()) == pytest.approx(a / math.sqrt(3), rel=0.05)


@pytest.mark.parametrize(("depth", "layers"), [("shallow", 1), ("deep", L)])
def test_the_number_of_rows(depth: str, layers: int) -> None:
    _, made = recipe("vit", length=5, depth=depth)
    assert sorted(rows_of(made).layers) == list(range(layers))
    assert sum(p.numel() for p in made.maker.parameters()) == layers * 5 * D
    assert [g.unit for g in made.maker.groups()] == [model_of("vit").row_scale]


def slowly(model: Sight, batch: ImageBatch, layers: dict[int, Tensor], M: int) -> Tensor:
    """(B, d) of a ViT: rows behind the class token, in front of the patches; before each named layer they are replaced
    by its own."""
    core = model.network
    x = core.embeddings(batch.normalised)
    x = torch.cat([x[:, :1], layers[0].expand(len(x), -1, -1), x[:, 1:]], 1)
    for i, layer in enumerate(core.encoder.layer if hasattr(core, "encoder") else core.layers):
        if i and i in layers:
            x = torch.cat([x[:, :1], layers[i].expand(len(x), -1, -1), x[:, 1 + M :]], 1)
        out = layer(x)
        x = out if isinstance(out, Tensor) else out[0]
    return core.layernorm(x)[:, 0]


@pytest.mark.parametrize("depth", ["shallow", "deep"])
def test_a_vision_tower_against_its_own_blocks(depth: str) -> None:
    given, made = recipe("vit", length=4, depth=depth)
    prompt, batch = rows_of(made), batch_of(given.model)
    with torch.no_grad(), given.model.frozen():
        found = given.model.pooled(batch, prompt)
        assert torch.allclose(found, slowly(given.model, batch, dict(prompt.layers), 4), atol=1e-5)
        assert not torch.allclose(found, given.model.pooled(batch, None), atol=1e-2)


@pytest.mark.parametrize("family", ["clip", "siglip"])
@pytest.mark.parametrize("depth", ["shallow", "deep"])
def test_a_dual_encoder_matches_pictures_with_rows_to_frozen_words(family: str, depth: str) -> None:
    given = problem(model_of(family))
    given = replace(given, frame=replace(given.frame, template="{soft:3} {label}"))
    made = build(VPTConfig(length=4, depth=depth), given)  # type: ignore[arg-type]
    batch, prompt = batch_of(given.model), rows_of(made)
    assert made.frame.template == "a photo of a {label}." and prompt.side == "image" and prompt.entry == "after-norm"
    with torch.no_grad(), given.model.frozen():
        seen = reader(given.model, made.frame).seen(batch, given.model.place(prompt, batch))  # type: ignore[attr-defined]
        assert torch.equal(seen.text, given.model.texts(made.frame))
        assert torch.allclose(seen.image, F.normalize(plain.images(given.model, batch, prompt), dim=-1), atol=1e-5)


def test_a_head_is_trained_on_a_vision_tower_and_none_on_a_dual_encoder() -> None:
    for family, has in (("vit", True), ("clip", False)):
        given, made = recipe(family, length=2)
        out = Trainer(given, made, seed=1).fit()
        assert (out.prompt.head is not None) == has
        assert out.parameters == L * 2 * D + (3 * D + 3 if has else 0)


def test_own_classes_of_a_network_are_read_by_a_new_head() -> None:
    given = problem(model_of("vit"))
    own = replace(given, frame=replace(given.frame, readout="classes"))
    assert framed(own).readout == "head" and framed(given) == given.frame


@pytest.mark.parametrize("options", [{"length": 0}, {"depth": "middle"}])
def test_wrong_options_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(options))):
        VPTConfig(**options)
