"""Decoupled prompt learning: factors of one are deep prompting, of zero none; between them by hand and by a mask."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from anacrusis.errors import ConfigError
from anacrusis.methods import ivlp
from anacrusis.methods.dpl import DPLConfig, WeighedRows, build
from anacrusis.model.images import ImageBatch
from anacrusis.model.sight import Sight
from anacrusis.model.tower import Rows, attend
from anacrusis.prompt.values import Paired, Tokens
from anacrusis.tune.makers import Maker
from anacrusis.tune.sight_makers import PairMaker
from anacrusis.tune.trainer import Trainer
from tests.test_sight import batch_of, model_of
from tests.test_vpt import L, problem

N, D = 3, 32


def maker_of(model: Sight, **options: Any) -> Maker:
    return build(DPLConfig(**{"visual": N, **options}), problem(model)).maker


def image_of(maker: Maker) -> Tokens:
    prompt = maker(None)
    assert isinstance(prompt, Paired) and isinstance(prompt.image, Tokens)
    return prompt.image


@torch.no_grad()
def look(model: Sight, batch: ImageBatch, prompt: Tokens | None) -> Tensor:
    with model.frozen():
        return model.look(batch, prompt)


def test_attention_is_a_mixture_of_two_with_the_share_of_the_rows() -> None:
    """One query of size 1 over two own tokens and one row, weights 1, 1 and 2; factor 3 makes the row's 6."""
    q = torch.ones(1, 1, 2, 1)  # an own query and a row's, the same
    k = torch.tensor([0.0, 0.0, math.log(2)]).view(1, 1, 3, 1)
    v = torch.tensor([1.0, 3.0, 10.0]).view(1, 1, 3, 1)
    mass = torch.tensor([[3.0, 0.5]])  # rows as own tokens read them; own tokens as rows read them
    out = attend(q, k, v, 2, Rows(mass=mass), 0, own=1).flatten().tolist()
    r = 3 * 2 / (3 * 2 + 2)
    assert out[0] == pytest.approx(r * 10 + (1 - r) * (1 + 3) / 2)
    r = 2 / (2 + 0.5 * 2)
    assert out[1] == pytest.approx(r * 10 + (1 - r) * (1 + 3) / 2)


@pytest.mark.parametrize("family", ["clip", "siglip"])
def test_with_factors_of_one_it_is_deep_prompting_of_both_towers(family: str) -> None:
    model = model_of(family)
    given, batch = problem(model), batch_of(model)
    plain = ivlp.build(ivlp.IVLPConfig(visual=N, depth=2), problem(model))
    ours = build(DPLConfig(visual=N, depth=2), given)
    prompt, expected = ours.maker(None), plain.maker(None)
    assert isinstance(prompt, Paired) and isinstance(expected, Paired) and ours.frame == plain.frame
    assert prompt.text.same(expected.text)
    assert torch.allclose(look(model, batch, image_of(ours.maker)), look(model, batch, expected.image), atol=1e-5)  # type: ignore[arg-type]


@pytest.mark.parametrize("family", ["clip", "siglip"])
def test_unread_rows_leave_the_tower_as_it_is(family: str) -> None:
    model, batch = model_of(family), batch_of(model_of(family))
    unread = image_of(maker_of(model, read=0.0, learned=False))
    assert torch.allclose(look(model, batch, unread), look(model, batch, None), atol=1e-5)
    assert not torch.allclose(look(model, batch, replace(unread, mass=None)), look(model, batch, None), atol=1e-3)
    text = build(DPLConfig(visual=N, read=0.0, learned=False), problem(model))
    prompt = text.maker(None)
    assert isinstance(prompt, Paired) and prompt.text.length == 4  # the texts' rows are there all the same


def test_rows_that_do_not_read_are_the_same_beside_every_picture() -> None:
    """With g' = 0 a row sees rows alone: what the tower makes of it does not depend on the picture."""
    model = model_of("clip")
    tower = model.image.tower
    assert tower is not None
    prompt, x = image_of(maker_of(model, reading=0.0, depth=1, learned=False)), model.enter(batch_of(model).normalised)
    with torch.no_grad(), model.frozen():
        _, rows = tower.run(x, Rows(at=prompt.layers, mass=prompt.mass))
        assert torch.allclose(rows[0], rows[1], atol=1e-5)
        _, rows = tower.run(x, Rows(at=prompt.layers))
        assert not torch.allclose(rows[0], rows[1], atol=1e-2)


@pytest.mark.parametrize("family", ["clip", "siglip"])
def test_factors_against_whole_blocks_with_a_biased_mask(family: str) -> None:
    """transformers' own layers, rows behind the own tokens, log factors as the mask that is added to attention."""
    model, batch = model_of(family), batch_of(model_of(family))
    maker = maker_of(model, depth=2)  # in the third layer the rows go on
    mass = torch.tensor([[0.5, 2.0], [4.0, 0.25], [1.5, 3.0]])
    assert isinstance(maker, PairMaker) and isinstance(maker.image, WeighedRows)
    with torch.no_grad():
        maker.image.mass.copy_(mass.log())
    prompt, core = image_of(maker), model.network.vision_model
    found = look(model, batch, prompt)
    with torch.no_grad(), model.frozen():
        x, norm = core.embeddings(batch.normalised), getattr(core, "pre_layrnorm", lambda t: t)
        x, n = norm(x), x.shape[1]
        for i, layer in enumerate(core.encoder.layers):
            if i in prompt.layers:
                rows = norm(prompt.layers[0]) if i == 0 else prompt.layers[i]
                x = torch.cat([x[:, :n], rows.expand(len(x), -1, -1)], 1)
            bias = torch.zeros(n + N, n + N)
            bias[:n, n:], bias[n:, :n] = mass[i, 0].log(), mass[i, 1].log()
            x = layer(x, attention_mask=bias[None, None])
        x = core.post_layernorm(x[:, :n]) if hasattr(core, "head") else core.post_layernorm(x[:, 0])
        z = core.head(x) if hasattr(core, "head") else model.network.visual_projection(x)
        assert torch.allclose(found, torch.nn.functional.normalize(z, dim=-1), atol=1e-5)
        assert not torch.allclose(found, look(model, batch, replace(prompt, mass=None)), atol=1e-3)


def test_learned_factors_stay_above_zero_and_are_kept_as_factors() -> None:
    model = model_of("clip")
    made = build(DPLConfig(visual=N, depth=1, read=0.5), problem(model))
    assert isinstance(made.maker, PairMaker)
    assert [g.role for g in made.maker.groups()] == ["prompt", "prompt", "mass"]
    prompt = Trainer(problem(model), made, seed=1).fit().prompt
    assert isinstance(prompt, Paired) and isinstance(prompt.image, Tokens) and prompt.image.mass is not None
    assert prompt.image.mass.shape == (L, 2) and bool((prompt.image.mass > 0).all())
    assert not torch.equal(prompt.image.mass, torch.tensor([0.5, 1.0]).repeat(L, 1))


def test_fixed_factors_are_not_parameters() -> None:
    maker = maker_of(model_of("clip"), read=0.5, learned=False)
    assert isinstance(maker, PairMaker)
    assert [g.role for g in maker.groups()] == ["prompt", "prompt"]
    mass = image_of(maker).mass
    assert mass is not None and mass.tolist() == [[0.5, 1.0]] * L


def test_every_factor_that_can_matter_gets_a_gradient() -> None:
    """Rows of one layer go on through the others; the last block's are not read by anybody."""
    model, batch = model_of("clip"), batch_of(model_of("clip"))
    maker = maker_of(model, depth=1)
    assert isinstance(maker, PairMaker) and isinstance(maker.image, WeighedRows)
    with model.frozen():
        model.look(batch, image_of(maker))[:, :5].sum().backward()
    grad = maker.image.mass.grad
    assert grad is not None
    moved = grad.abs() > 0
    assert moved.tolist() == [[True, True]] * (L - 1) + [[True, False]]


@pytest.mark.parametrize("options", [{"read": 0.0}, {"reading": -1.0}, {"visual": 0}, {"depth": 0}])
def test_wrong_options_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(options))):
        DPLConfig(**options)
