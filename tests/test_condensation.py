"""Prompt condensation: what the score is, which rows it keeps, and that nothing else changes."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

import anacrusis as ana
from anacrusis.errors import ConfigError
from anacrusis.methods.condensation import CondensationConfig, CondensingMaker, build
from anacrusis.model.sight import Sight
from anacrusis.prompt.values import Tokens
from anacrusis.tune.recipe import Problem
from anacrusis.tune.trainer import Trainer
from tests.test_sight import batch_of, model_of
from tests.test_vpt import L, problem

M, D = 6, 32


def made_for(model: Sight, keep: float = 0.3, **training: Any) -> tuple[Problem, CondensingMaker, Any]:
    given = problem(model, **training)
    recipe = build(CondensationConfig(length=M, keep=keep), given)
    assert isinstance(recipe.maker, CondensingMaker)
    return given, recipe.maker, recipe


def loss(model: Sight, prompt: Tokens, golds: list[int]) -> Tensor:
    with model.frozen():
        return F.cross_entropy(model.pooled(batch_of(model), prompt), torch.tensor(golds))


@pytest.mark.parametrize("family", ["clip", "vit"])
def test_the_score_is_the_gradient_of_a_mask_at_one(family: str) -> None:
    model = model_of(family)
    _, maker, _ = made_for(model)
    rows = maker.vectors.detach().clone()
    by_mask, by_product = torch.zeros(L, M), torch.zeros(L, M)
    for golds in ([0, 1, 2], [3, 1, 0]):
        loss(model, maker(None), golds).backward()
        mask, free = torch.ones(L, M, requires_grad=True), rows.clone().requires_grad_()
        each = {i: rows[i] * mask[i, :, None] for i in range(L)}
        loss(model, Tokens(side="image", layers=each, entry="after-norm"), golds).backward()
        loss(model, Tokens(side="image", layers=dict(enumerate(free)), entry="after-norm"), golds).backward()
        by_mask += mask.grad.abs()  # type: ignore[union-attr]
        by_product += (rows * free.grad).sum(2).abs()  # type: ignore[operator]
    assert torch.allclose(maker.scores, by_mask, rtol=1e-4) and torch.allclose(by_mask, by_product, atol=1e-6)
    assert float(maker.scores.min()) > 0


def test_the_score_by_hand() -> None:
    """Loss <P, G>: |<P, G>| of each row, summed with its size over two steps, whatever its sign."""
    maker = CondensingMaker(torch.tensor([[[1.0, 2.0], [0.0, 1.0]]]), 0.5, 1.0)
    for sign in (1.0, -1.0):
        (maker(None).layers[0] * torch.tensor([[3.0, -1.0], [5.0, 4.0]]) * sign).sum().backward()
    assert maker.scores.tolist() == [[2.0, 8.0]]
    maker.condense()
    assert maker(None).layers[0].tolist() == [[0.0, 1.0]]


def test_the_best_rows_of_all_layers_are_kept_so_that_a_layer_may_have_none() -> None:
    _, maker, _ = made_for(model_of("vit"), keep=0.25)
    maker.scores.copy_(torch.tensor([[5.0, 0, 0, 0, 0, 0], [0.1] * 6, [3.0, 0, 9, 0, 2, 0]]))
    maker.condense()
    layers = maker(None).layers  # 0.25 of 18 rows: 4
    assert [len(t) for t in layers.values()] == [1, 0, 3] and sorted(layers) == [0, 1, 2]
    assert torch.equal(layers[2], maker.vectors[2][[0, 2, 4]])


@pytest.mark.parametrize("family", ["clip", "vit"])
def test_fewer_rows_answer_as_rows_that_nobody_sees(family: str) -> None:
    """Kept rows alone give what all rows give when the others are masked out, and the layer of none has none."""
    model = model_of(family)
    _, maker, _ = made_for(model, keep=0.25)
    maker.scores.copy_(torch.tensor([[5.0, 0, 0, 0, 0, 0], [0.1] * 6, [3.0, 0, 9, 0, 2, 0]]))
    maker.condense()
    batch, prompt = batch_of(model), maker.fold()
    assert isinstance(prompt, Tokens)
    with torch.no_grad(), model.frozen():
        x = model.enter(batch.normalised)
        for i, block in enumerate(model.image.tower.blocks):  # type: ignore[union-attr]
            n = x.shape[1]
            q, k, v = block.keys_and_values(torch.cat([x, maker.vectors[i].expand(len(x), -1, -1)], 1))
            seen = torch.cat([torch.ones(n), maker.kept[i]]) > 0.5
            mixed = F.scaled_dot_product_attention(q[:, :, :n], k, v, attn_mask=seen[None])
            x = block.finish(x, mixed)
        assert torch.allclose(model.pooled(batch, prompt), model.image.pool(x), atol=1e-5)


def test_keeping_all_changes_no_answer() -> None:
    model, (_, maker, _) = model_of("clip"), made_for(model_of("clip"), keep=1.0)
    batch = batch_of(model)
    with torch.no_grad():
        before = model.look(batch, maker(None))
        maker.condense()
        assert torch.equal(model.look(batch, maker(None)), before)


def test_dropped_rows_get_no_gradient() -> None:
    model, (_, maker, _) = model_of("vit"), made_for(model_of("vit"))
    loss(model, maker(None), [0, 1, 2]).backward()
    maker.condense()
    maker.zero_grad()
    loss(model, maker(None), [0, 1, 2]).backward()
    assert maker.vectors.grad is not None
    assert torch.equal(maker.vectors.grad.abs().sum(2) > 0, maker.kept > 0.5)


def test_the_stages_of_a_fit(tmp_path: Path) -> None:
    """All rows are trained, one pass only scores, the rest trains what was kept; the end is what is returned."""
    given, maker, recipe = made_for(model_of("vit"), steps=0, epochs=10, batch=8)
    seen: list[tuple[Tensor, Tensor, Tensor]] = []
    observe = lambda e: seen.append(tuple(t.clone() for t in (  # noqa: E731
        maker.vectors.detach(), maker.scores, maker.kept))) if e["event"] == "step" else None  # type: ignore[arg-type]  # fmt: skip
    trainer = Trainer(given, recipe, seed=1, observe=observe)
    out = trainer.fit()
    E = trainer.per_epoch
    assert len(seen) == 10 * E and E > 2
    still = [i for i in range(1, len(seen)) if torch.equal(seen[i][0], seen[i - 1][0])]
    assert still == list(range(6 * E, 7 * E))  # a pass over the data after 0.6 of all steps
    assert bool((seen[6 * E][1] < seen[6 * E - 1][1]).any()), "the score began anew"
    kept = seen[7 * E][2]
    assert all(bool((s[2] == 1).all()) for s in seen[: 7 * E])
    assert all(torch.equal(s[2], kept) for s in seen[7 * E :])
    scores = seen[7 * E - 1][1].flatten()
    assert torch.equal(kept.flatten() > 0.5, scores >= scores.topk(5).values[-1])  # 0.3 of 18 rows: 5
    assert isinstance(out.prompt, Tokens) and sum(len(t) for t in out.prompt.layers.values()) == 5
    last = seen[-1][0]
    for i, rows in out.prompt.layers.items():
        assert torch.allclose(rows, last[i][kept[i] > 0.5])
    assert len(recipe.stages) == 3 and math.isclose(sum(s.share for s in recipe.stages), 1.0)
    out.prompt.save(tmp_path / "p")
    assert ana.load(tmp_path / "p").same(out.prompt)


def test_without_gradients_nothing_is_scored() -> None:
    _, maker, _ = made_for(model_of("vit"))
    with torch.no_grad():
        maker(None)
    maker.fold()
    assert not maker.scores.any()


def test_early_stopping_is_refused() -> None:
    with pytest.raises(ConfigError, match="patience=0"):
        made_for(model_of("vit"), patience=3)


@pytest.mark.parametrize("options", [{"length": 0}, {"keep": 0.0}, {"keep": 1.1}, {"wide": 0.9}])
def test_wrong_options_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(options))):
        CondensationConfig(**options)
