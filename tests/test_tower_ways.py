"""Ways in which a tower can treat rows: entries that begin without effect, and the short way through the last block."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from anacrusis.model.images import ImageBatch
from anacrusis.model.sight import Sight
from anacrusis.model.tower import Rows, attend
from anacrusis.prompt.values import Tokens
from tests.test_sight import batch_of, model_of, some

L, M, D = 3, 4, 32
FAMILIES = ("clip", "siglip", "vit", "dinov2")
DEPTHS = {"shallow": (0,), "deep": (0, 1, 2), "late": (1,)}


def rows_at(layers: tuple[int, ...], **ways: Any) -> Tokens:
    return Tokens(side="image", layers={i: some(M, D, seed=i, scale=1.0) for i in layers}, **ways)


@torch.no_grad()
def pooled(model: Sight, batch: ImageBatch, prompt: Tokens | None) -> Tensor:
    with model.frozen():
        return model.pooled(batch, prompt)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("depth", DEPTHS)
def test_shut_entries_change_nothing_and_yet_have_a_gradient(family: str, depth: str) -> None:
    model, batch = model_of(family), batch_of(model_of(family))
    entries = torch.zeros(L, requires_grad=True)
    prompt = rows_at(DEPTHS[depth], entries=entries)
    with model.frozen():
        found = model.pooled(batch, prompt)
        F.cross_entropy(found, torch.tensor([0, 1, 2])).backward()
    assert torch.allclose(found, pooled(model, batch, None), atol=1e-5)
    assert entries.grad is not None
    first = DEPTHS[depth][0]
    assert bool((entries.grad[first:].abs() > 1e-6).all()) and not entries.grad[:first].any()
    for rows in prompt.layers.values():  # behind a shut entry the rows themselves have none
        assert rows.grad is None or not rows.grad.any()


def test_rows_of_zeros_without_entries_do_change_it() -> None:
    """Even a row of zeros takes its share of attention: entries are needed to begin without effect."""
    model, batch = model_of("vit"), batch_of(model_of("vit"))
    zeros = Tokens(side="image", layers={i: torch.zeros(M, D) for i in range(L)})
    assert not torch.allclose(pooled(model, batch, zeros), pooled(model, batch, None), atol=1e-3)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_gradient_of_an_entry_is_what_a_small_step_changes(family: str) -> None:
    model, batch = model_of(family), batch_of(model_of(family))
    at = torch.zeros(L, dtype=torch.float32, requires_grad=True)
    step = 1e-2
    with model.frozen():
        model.pooled(batch, rows_at((0, 1, 2), entries=at))[:, 0].sum().backward()
    for i in range(L):
        ends = [pooled(model, batch, rows_at((0, 1, 2), entries=s * step * F.one_hot(torch.tensor(i), L).float()))
                for s in (1, -1)]  # fmt: skip
        slope = float((ends[0][:, 0].sum() - ends[1][:, 0].sum()) / (2 * step))
        assert at.grad is not None and float(at.grad[i]) == pytest.approx(slope, rel=0.02, abs=2e-3)


def test_an_entry_by_hand() -> None:
    """Own query over own values 1 and 3 (weights 1, 1) and rows 10 and 20 (weights 1, 3): two softmaxes, one factor.
    The rows' own queries read everything in one."""
    q = torch.ones(1, 1, 3, 1)
    k = torch.tensor([0.0, 0.0, 0.0, math.log(3)]).view(1, 1, 4, 1)
    v = torch.tensor([1.0, 3.0, 10.0, 20.0]).view(1, 1, 4, 1)
    out = attend(q, k, v, 2, Rows(entries=torch.tensor([0.0, 0.4])), 1, own=1).flatten().tolist()
    assert out[0] == pytest.approx(2 + math.tanh(0.4) * (10 + 3 * 20) / 4)
    assert out[1] == out[2] == pytest.approx((1 + 3 + 10 + 3 * 20) / 6)


@pytest.mark.parametrize("family", ["clip", "vit"])
def test_entries_against_a_slow_tower(family: str) -> None:
    """Every block on its own: weights of both parts computed by hand, head by head."""
    model, batch = model_of(family), batch_of(model_of(family))
    entries = torch.tensor([0.3, -0.8, 1.5])
    prompt = rows_at((0, 2), entries=entries, entry="after-norm")
    tower = model.image.tower
    assert tower is not None
    with torch.no_grad(), model.frozen():
        x = model.enter(batch.normalised)
        n = x.shape[1]
        x = torch.cat([x, prompt.layers[0].expand(len(x), -1, -1)], 1)
        for i, block in enumerate(tower.blocks):
            if i == 2:
                x = torch.cat([x[:, :n], prompt.layers[2].expand(len(x), -1, -1)], 1)
            q, k, v = block.keys_and_values(x)
            logits = q @ k.transpose(2, 3) / math.sqrt(q.shape[-1])
            own = logits[..., :n].softmax(-1) @ v[:, :, :n]
            more = logits[..., n:].softmax(-1) @ v[:, :, n:]
            every = logits.softmax(-1) @ v
            mixed = torch.cat([(own + math.tanh(entries[i]) * more)[:, :, :n], every[:, :, n:]], 2)
            x = block.finish(x, mixed)
        assert torch.allclose(pooled(model, batch, prompt), model.image.pool(x[:, :n]), atol=1e-5)


def test_a_layer_without_rows_needs_no_entry() -> None:
    model, batch = model_of("vit"), batch_of(model_of("vit"))
    layers = {0: torch.ones(M, D), 1: torch.zeros(0, D)}
    prompt = Tokens(side="image", layers=layers, entries=torch.tensor([0.0, 2.0, 2.0]))
    assert torch.allclose(pooled(model, batch, prompt), pooled(model, batch, None), atol=1e-5)


WAYS = {
    "plain": {},
    "gates": {"gates": torch.tensor([1.0, 0.3, 0.8])},
    "temperatures": {"temperatures": torch.tensor([0.5, 2.0, 3.0])},
    "entries": {"entries": torch.tensor([0.5, -1.0, 2.0])},
    "mass": {"mass": torch.tensor([[0.5, 2.0], [3.0, 0.2], [0.0, 1.0]])},
    "all but mass": {"gates": torch.tensor([1.0, 0.3, 0.8]), "temperatures": torch.tensor([0.5, 2.0, 3.0]),
                     "entries": torch.tensor([0.5, -1.0, 2.0])},
}  # fmt: skip


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("layers", [(0,), (0, 2)])
def test_the_first_token_alone_is_the_first_of_all(way: str, layers: tuple[int, ...]) -> None:
    model, batch = model_of("vit"), batch_of(model_of("vit"))
    tower = model.image.tower
    assert tower is not None
    rows = Rows(at={i: some(M, D, seed=i).detach() for i in layers}, **WAYS[way])  # type: ignore[arg-type]
    with torch.no_grad(), model.frozen():
        x = model.enter(batch.normalised)
        whole, _ = tower.run(x, rows)
        first, _ = tower.run(x, rows, first=True)
    assert first.shape == (3, 1, D) and torch.allclose(first[:, 0], whole[:, 0], atol=1e-5)
