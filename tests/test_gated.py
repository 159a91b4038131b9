"""Gated prompt tuning: gates and temperatures at their ends, between them against transformers' own blocks."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from anacrusis.errors import ConfigError
from anacrusis.methods.gated import GatedConfig, GatedMaker, build
from anacrusis.model.images import ImageBatch
from anacrusis.model.sight import Sight
from anacrusis.prompt.values import Tokens
from anacrusis.tune.trainer import Trainer
from tests.test_sight import batch_of, model_of
from tests.test_vpt import L, problem

M, D = 4, 32
FAMILIES = ("clip", "siglip", "vit", "dinov2")


def maker_of(model: Sight) -> GatedMaker:
    made = build(GatedConfig(length=M), problem(model)).maker
    assert isinstance(made, GatedMaker)
    return made


def set_to(maker: GatedMaker, gates: Any = None, temperatures: Any = None) -> Tokens:
    with torch.no_grad():
        if gates is not None:
            maker.gates.copy_(torch.tensor(gates))
        if temperatures is not None:
            maker.temperatures.copy_(torch.tensor(temperatures))
        return maker(None)


@torch.no_grad()
def pooled(model: Sight, batch: ImageBatch, prompt: Tokens | None) -> Tensor:
    with model.frozen():
        return model.pooled(batch, prompt)


def where(**entries: Any) -> Tokens:
    return Tokens(side="image", entry="after-norm", **entries)


@pytest.mark.parametrize("family", FAMILIES)
def test_with_all_gates_shut_every_block_sees_the_same_rows(family: str) -> None:
    model = model_of(family)
    batch, prompt = batch_of(model), set_to(maker_of(model), [-100.0] * (L - 1))
    again = where(layers=dict.fromkeys(range(L), prompt.layers[0]))
    assert torch.allclose(pooled(model, batch, prompt), pooled(model, batch, again), atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_with_all_gates_open_and_no_temperature_it_is_shallow_prompt_tuning(family: str) -> None:
    model = model_of(family)
    batch, prompt = batch_of(model), set_to(maker_of(model), [100.0] * (L - 1))
    shallow = where(layers={0: prompt.layers[0]})
    assert torch.allclose(pooled(model, batch, prompt), pooled(model, batch, shallow), atol=1e-5)
    shut = set_to(maker_of(model), [-100.0] * (L - 1))
    assert not torch.allclose(pooled(model, batch, prompt), pooled(model, batch, shut), atol=1e-3)


def slowly(model: Sight, batch: ImageBatch, rows: Tensor, gates: list[float], temperatures: list[float]) -> Tensor:
    """(B, D): whole blocks of copies whose queries are divided by the temperature; rows in front of the patches."""
    core = model.network.vision_model if model.arrangement == "dual" else model.network
    with torch.no_grad():
        x = core.embeddings(batch.normalised)
        if hasattr(core, "pre_layrnorm"):
            x = core.pre_layrnorm(x)
        blocks = core.encoder.layers if hasattr(core.encoder, "layers") else core.encoder.layer
        entered = rows.expand(len(x), -1, -1)
        for i, block in enumerate(blocks):
            block = copy.deepcopy(block)
            for part in block.modules():
                if hasattr(part, "q_proj"):
                    part.q_proj.weight /= temperatures[i]
                    part.q_proj.bias /= temperatures[i]
            if i:
                entered = gates[i - 1] * x[:, 1 : 1 + M] + (1 - gates[i - 1]) * entered
                x = torch.cat([x[:, :1], x[:, 1 + M :]], 1)
            x = torch.cat([x[:, :1], entered, x[:, 1:]], 1)
            x = block(x, attention_mask=None) if model.arrangement == "dual" else block(x)
            x = x if isinstance(x, Tensor) else x[0]
        if model.arrangement == "dual":
            return model.network.visual_projection(core.post_layernorm(x[:, 0]))
        return core.layernorm(x[:, 0])


@pytest.mark.parametrize("family", ["clip", "dinov2"])
def test_between_the_ends_against_whole_blocks(family: str) -> None:
    model = model_of(family)
    batch, temperatures = batch_of(model), [0.5, 1.7, 3.0]
    prompt = set_to(maker_of(model), [-0.5, 1.2], temperatures)
    gates = [1 / (1 + math.exp(0.5)), 1 / (1 + math.exp(-1.2))]
    expected = slowly(model, batch, prompt.layers[0], gates, temperatures)
    assert torch.allclose(pooled(model, batch, prompt), expected, atol=1e-5)
    assert not torch.allclose(expected, slowly(model, batch, prompt.layers[0], gates[::-1], temperatures), atol=1e-3)
    assert not torch.allclose(expected, slowly(model, batch, prompt.layers[0], gates, [1.0] * L), atol=1e-3)


def test_nearly_all_blocks_are_skipped_at_first() -> None:
    prompt = maker_of(model_of("clip"))(None)
    assert prompt.gates is not None and prompt.temperatures is not None
    assert prompt.gates[1:].tolist() == pytest.approx([1 / (1 + math.exp(5))] * (L - 1))
    assert prompt.temperatures.tolist() == [1.0] * L


def test_every_gate_and_every_temperature_gets_a_gradient() -> None:
    model = model_of("vit")
    maker, batch = maker_of(model), batch_of(model)
    with model.frozen():
        F.cross_entropy(model.pooled(batch, maker(None)), torch.tensor([0, 1, 2])).backward()
    assert maker.gates.grad is not None and bool((maker.gates.grad != 0).all())
    assert maker.temperatures.grad is not None and bool((maker.temperatures.grad != 0).all())


def test_temperatures_stay_in_their_bounds_and_can_come_back() -> None:
    maker = maker_of(model_of("vit"))
    folded = set_to(maker, temperatures=[-3.0, 25.0, 2.0]).temperatures
    assert folded is not None and folded.tolist() == pytest.approx([0.01, 10.0, 2.0])
    with torch.no_grad():
        maker.constrain()
    maker(None).temperatures.sum().backward()
    assert maker.temperatures.grad is not None and maker.temperatures.grad.tolist() == [1.0] * L


def test_what_is_kept_are_gates_not_logits() -> None:
    given = problem(model_of("vit"))
    made = build(GatedConfig(length=M, gate=0.3), given)
    prompt = Trainer(given, made, seed=1).fit().prompt
    assert isinstance(prompt, Tokens) and prompt.gates is not None and prompt.gates.shape == (L,)
    assert bool(((prompt.gates >= 0) & (prompt.gates <= 1)).all()) and prompt.layers[0].shape == (M, D)
    assert prompt.head is not None


def test_wrong_options_are_refused() -> None:
    with pytest.raises(ConfigError, match="length"):
        GatedConfig(length=0)
