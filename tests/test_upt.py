"""UPT: attention goes over the rows, both sides come out of one call, and what is kept are plain rows."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from anacrusis.errors import ConfigError
from anacrusis.methods.upt import Mixer, Unified, UPTConfig, build
from anacrusis.model.readout import reader
from anacrusis.model.sight import Sides
from anacrusis.prompt.values import Tokens
from anacrusis.tune.makers import build_quietly
from tests import plain
from tests.test_ivlp import batch_of, both, model_of, problem


def unified(n: int = 4) -> Unified:
    maker = build(UPTConfig(length=n), problem(model_of())).maker
    assert isinstance(maker, Unified)
    return maker


def rows(maker: Unified) -> tuple[Tensor, Tensor]:
    text, image = both(maker.fold())
    return text.layers[0], image.layers[0]


def test_a_visual_row_changes_the_context_and_a_text_row_the_visual_rows() -> None:
    maker = unified()
    text, image = rows(maker)
    with torch.no_grad():
        maker.rows[7] += 1.0
    after, _ = rows(maker)
    assert all(float((a - b).abs().max()) > 1e-4 for a, b in zip(text, after, strict=True))  # every row of the context
    with torch.no_grad():
        maker.rows[7] -= 1.0
        maker.rows[0] += 1.0
    _, after = rows(maker)
    assert all(float((a - b).abs().max()) > 1e-4 for a, b in zip(image, after, strict=True))


def test_the_block_is_attention_over_rows_as_torch_has_it() -> None:
    maker = unified()
    x, m = maker.rows, maker.mixer
    assert isinstance(m, Mixer)
    attention: Any = build_quietly(lambda: nn.MultiheadAttention(32, 1, batch_first=True))
    with torch.no_grad():
        m.norm1.weight.mul_(1.5)
        m.norm2.bias.add_(0.3)
        attention.in_proj_weight.copy_(m.qkv.weight)
        attention.in_proj_bias.copy_(m.qkv.bias)
        attention.out_proj.weight.copy_(m.out.weight)
        attention.out_proj.bias.copy_(m.out.bias)
        mixed, shares = attention(x[None], x[None], x[None])
        assert shares.shape == (1, 8, 8)
        a = 1.5 * F.layer_norm(x + mixed[0], (32,))
        more = (F.layer_norm(a, (32,)) + 0.3) @ m.up.weight.T + m.up.bias
        expected = a + more.clamp(min=0) @ m.down.weight.T + m.down.bias
    text, image = rows(maker)
    assert torch.allclose(text, maker.scale * expected[:4], atol=1e-5)
    link = list(maker.link.parameters())
    assert torch.allclose(image, maker.unit * (expected[4:] @ link[0].T + link[1]).detach(), atol=1e-4)


def test_rows_have_no_places_of_their_own() -> None:
    maker, order = unified(), torch.tensor([2, 0, 3, 1, 5, 4, 7, 6])
    text, image = rows(maker)
    with torch.no_grad():
        maker.rows.copy_(maker.rows[order])
    again_text, again_image = rows(maker)
    assert torch.allclose(again_text, text[order[:4]], atol=1e-5)
    assert torch.allclose(again_image, image[order[4:] - 4], atol=1e-4)


@pytest.mark.parametrize("family", ["clip", "siglip"])
def test_without_the_transformer_it_is_a_context_and_shallow_visual_rows(family: str) -> None:
    model = model_of(family)
    r, batch = build(UPTConfig(), problem(model)), batch_of(model_of(family))
    maker = r.maker
    assert isinstance(maker, Unified)
    maker.mixer = nn.Identity()
    with torch.no_grad(), model.frozen():
        alone = Sides(
            Tokens(side="text", layers={0: model.scale * maker.rows[:4]}),
            Tokens(side="image", layers={0: model.row_scale * maker.link(maker.rows[4:])}),
        )
        z = reader(model, r.frame).scores(batch, model.place(maker(None), batch), None)
        assert torch.allclose(z, plain.scores(model, r.frame, alone, batch), atol=1e-4)
    assert r.frame.template == "{soft} {label}."


def test_what_is_kept_are_the_rows_of_the_first_layers() -> None:
    kept = unified(3).fold()
    assert {k: tuple(t.shape) for k, t in kept.tensors().items()} == {"text.layer.0": (3, 32), "image.layer.0": (3, 32)}


def test_what_the_norms_make_is_brought_to_the_size_of_what_it_stands_beside() -> None:
    model, maker = model_of(), unified(50)
    text, image = rows(maker)
    assert float(text.square().mean().sqrt()) / model.scale == pytest.approx(1.0, abs=0.3)
    assert 0.3 < float(image.square().mean().sqrt()) / model.row_scale < 1.2


def test_a_context_without_rows_is_refused() -> None:
    with pytest.raises(ConfigError, match="length must be at least 1, got 0"):
        UPTConfig(length=0)
