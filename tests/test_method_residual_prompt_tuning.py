"""Residual prompt tuning: the skip connection, the layer norm and the bottleneck, by hand."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from anacrusis.errors import ConfigError
from anacrusis.methods.prompt_tuning import PromptTuningConfig
from anacrusis.methods.prompt_tuning import build as prompt_tuning
from anacrusis.methods.residual_prompt_tuning import ResidualPromptTuningConfig, build
from anacrusis.model.frames import default_frame
from anacrusis.model.model import Model
from anacrusis.model.readout import reader
from anacrusis.model.rows import collate
from anacrusis.prompt.values import Soft
from anacrusis.task import Task
from anacrusis.testing import tiny
from anacrusis.tune.makers import Residual, SoftMaker
from anacrusis.tune.recipe import Problem, Recipe

TEXTS = [f"w{i} w{i + 1} w{2 * i}" for i in range(20)]
TASK = Task.from_lists(TEXTS, ["a", "b"] * 10, words={"a": "w5", "b": "w6"})


def problem(model: Model) -> Problem:
    return Problem(model, TASK, default_frame(model, TASK), torch.Generator().manual_seed(3))


def recipe(model: Model, **options: object) -> Recipe:
    return build(ResidualPromptTuningConfig(**options), problem(model))  # type: ignore[arg-type]


def encoder_of(r: Recipe) -> Residual:
    assert isinstance(r.maker, SoftMaker) and isinstance(r.maker.encoder, Residual)
    return r.maker.encoder


def vectors(r: Recipe) -> torch.Tensor:
    folded = r.maker.fold()
    assert isinstance(folded, Soft)
    return folded.vectors


def test_the_equation_by_hand() -> None:
    """p + s LN(U relu(A p/s + a) + u), on one vector of three values with a bottleneck of two; s = 2."""
    net = Residual(torch.tensor([[2.0, -4.0, 6.0]]), 2, 2.0, torch.Generator())
    layers: list[Any] = list(net.net.children())
    down, _, up, norm = layers
    with torch.no_grad():
        down.weight.copy_(torch.tensor([[1.0, 0.0, 1.0], [0.0, 1.0, 0.0]]))
        down.bias.copy_(torch.tensor([-1.0, 0.5]))
        up.weight.copy_(torch.tensor([[1.0, 5.0], [2.0, 5.0], [-1.0, 5.0]]))
        up.bias.copy_(torch.tensor([0.0, 0.0, 1.0]))
        norm.weight.copy_(torch.tensor([1.0, 2.0, 1.0]))
        norm.bias.copy_(torch.tensor([0.0, 0.0, 0.25]))
    # p/s = (1, -2, 3); A p/s + a = (3, -1.5), relu: (3, 0); U . + u = (3, 6, -2): mean 7/3, variance 98/9
    mean, spread = 7 / 3, math.sqrt(98 / 9 + 1e-5)
    ln = [(3 - mean) / spread, 2 * (6 - mean) / spread, (-2 - mean) / spread + 0.25]
    expected = [2 + 2 * ln[0], -4 + 2 * ln[1], 6 + 2 * ln[2]]
    assert net().tolist()[0] == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("family", ["gpt2", "t5"])
def test_what_is_added_is_layer_normalised(family: str) -> None:
    model = tiny(family, scale=3.0)
    r = recipe(model)
    added = (vectors(r) - encoder_of(r).vectors.detach()) / model.scale
    assert torch.allclose(added.mean(1), torch.zeros(10), atol=1e-4)
    assert torch.allclose(added.var(1, unbiased=False), torch.ones(10), atol=1e-2)


@pytest.mark.parametrize("family", ["gpt2", "bert", "minilm", "t5"])
def test_without_its_layer_norm_it_is_prompt_tuning(family: str) -> None:
    model = tiny(family)
    r = recipe(model, length=5)
    plain = prompt_tuning(PromptTuningConfig(length=5), problem(model))
    assert not torch.allclose(vectors(r), vectors(plain), atol=1e-3)
    with torch.no_grad():
        encoder_of(r).get_parameter("net.3.weight").zero_()  # of the layer norm
    assert torch.equal(vectors(r), vectors(plain)) and r.frame == plain.frame


def test_one_network_serves_all_vectors() -> None:
    r = recipe(tiny("gpt2"), length=2)
    with torch.no_grad():
        encoder_of(r).vectors[1] = encoder_of(r).vectors[0]
    out = vectors(r)
    assert torch.allclose(out[0], out[1])


@pytest.mark.parametrize(("length", "bottleneck"), [(10, 128), (3, 5)])
def test_the_number_of_parameters(length: int, bottleneck: int) -> None:
    H, M = 32, bottleneck
    maker = recipe(tiny("bert"), length=length, bottleneck=M).maker
    assert sum(p.numel() for p in maker.parameters()) == length * H + (H * M + M) + (M * H + H) + 2 * H


def test_folding_changes_no_score() -> None:
    for family in ("gpt2", "bert", "t5"):
        model = tiny(family)
        r = recipe(model)
        read, folded = reader(model, r.frame), r.maker.fold()
        batch = collate(read.rows([(t,) for t in TEXTS], folded))
        with model.frozen(), torch.no_grad():
            a = read.scores(batch, model.place(r.maker(None), batch), None)
            b = read.scores(batch, model.place(folded, batch), None)
        assert torch.equal(a, b)


def test_vectors_move_in_units_of_the_table_and_the_network_in_its_own() -> None:
    model = tiny("t5", scale=3.0)
    prompt, network = recipe(model).maker.groups()
    assert (prompt.role, prompt.unit) == ("prompt", model.scale)
    assert (network.role, network.unit, network.rate) == ("network", 1.0, 0.02)


@pytest.mark.parametrize("name", ["length", "bottleneck"])
def test_wrong_options_are_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=name):
        ResidualPromptTuningConfig(**{name: 0})  # type: ignore[arg-type]
