"""The pixel network: what it adds is bounded, its own for each picture, and made again from what is saved."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

import anacrusis as ana
from anacrusis.errors import ConfigError, PromptError
from anacrusis.measure.predict import scores
from anacrusis.methods.pixel_network import PixelNetwork, PixelNetworkConfig, build, restore
from anacrusis.model.images import ImageBatch
from anacrusis.model.sight import Looks, Sight
from anacrusis.prompt.values import Conditioned, Pixels
from tests.test_sight import batch_of, model_of
from tests.test_visual_prompting import NAMES, classifier, fit_on, problem


def loud(hidden: int = 4, eps: float = 0.1, clip: bool = True, size: float = 3.0) -> PixelNetwork:
    """A network far from its start."""
    net, g = PixelNetwork(hidden, 2, eps, clip, torch.Generator().manual_seed(0)), torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in net.parameters():
            p.copy_(size * torch.randn(p.shape, generator=g))
    return net.requires_grad_(False)


def looks(x: Tensor) -> Looks:
    return Looks(lambda: x.mean(), x)


def test_the_network_by_hand() -> None:
    """Padded convolutions and GELU written out for one picture, then spread over its 4 by 4 pixels and bounded."""
    net, x = loud(hidden=2, size=0.3), torch.rand(1, 3, 4, 4, generator=torch.Generator().manual_seed(2))
    w = list(net.parameters())

    def convolved(x: Tensor, weight: Tensor, bias: Tensor, stride: int) -> Tensor:
        x, n = F.pad(x, (1, 1, 1, 1)), (x.shape[-1] - 1) // stride + 1
        out = torch.empty(weight.shape[0], n, n)
        for o in range(weight.shape[0]):
            for i in range(n):
                for j in range(n):
                    out[o, i, j] = (x[:, stride * i :, stride * j :][:, :3, :3] * weight[o]).sum() + bias[o]
        return out

    def gelu(t: Tensor) -> Tensor:
        return t * (1 + torch.erf(t / math.sqrt(2))) / 2

    h = gelu(convolved(2 * x[0] - 1, w[0], w[1], 2))
    h = gelu(convolved(h, w[2], w[3], 2))
    h = convolved(h, w[4], w[5], 1)  # (3, 1, 1): one value a colour
    assert h.shape == (3, 1, 1)
    prompt = net(looks(x))
    assert torch.allclose(prompt.delta[0], 0.1 * torch.tanh(h).expand(3, 4, 4), atol=1e-6) and prompt.clip


@pytest.mark.parametrize("clip", [True, False])
def test_no_pixel_changes_by_more_than_eps(clip: bool) -> None:
    model = model_of("clip")
    batch, net = batch_of(model), loud(clip=clip)
    prompt = net(model.reads(batch))
    assert float(prompt.delta.abs().max()) == pytest.approx(0.1, abs=1e-3)  # reached
    shown = (model.pixels(batch, prompt) + 1) / 2  # mean and deviation are 0.5
    assert float((shown - batch.raw).abs().max()) <= 0.1 + 1e-6
    assert (float(shown.min()) >= 0 and float(shown.max()) <= 1) == clip


@pytest.mark.parametrize("family", ["clip", "vit", "cnn"])
def test_the_first_answers_are_those_without_a_prompt(family: str) -> None:
    model: Sight = classifier() if family == "cnn" else model_of(family)
    made = build(PixelNetworkConfig(), problem(model, NAMES if family == "cnn" else ("w1", "w2", "w3")))
    batch = batch_of(model)
    with torch.no_grad(), model.frozen():
        prompt = made.maker(model.reads(batch))
        assert isinstance(prompt, Pixels) and not prompt.delta.any()
        assert torch.allclose(model.pooled(batch, prompt), model.pooled(batch, None), atol=1e-6)


def test_a_pictures_prompt_is_its_own() -> None:
    model, net = model_of("clip"), loud()
    batch = batch_of(model)
    every = net(model.reads(batch)).delta
    alone = ImageBatch(batch.rows[1:2], batch.prepare, batch.device, batch.dtype)
    assert torch.allclose(every[1:2], net(model.reads(alone)).delta, atol=1e-5)
    assert not torch.allclose(every[0], every[1], atol=1e-2)
    assert dict(net.named_buffers()) == {}  # no statistics of batches


@pytest.mark.parametrize("size", [30, 33])
def test_sizes_that_four_does_not_divide(size: int) -> None:
    assert loud()(looks(torch.rand(2, 3, size, size, generator=torch.Generator()))).delta.shape == (2, 3, size, size)


def test_it_starts_as_torch_would_draw_it() -> None:
    net = PixelNetwork(64, 2, 0.1, True, torch.Generator().manual_seed(0))
    first, second = net.net.get_parameter("0.weight").detach(), net.net.get_parameter("2.weight").detach()
    assert float(first.abs().max()) == pytest.approx(1 / math.sqrt(27), rel=0.02)
    assert float(second.abs().max()) == pytest.approx(1 / math.sqrt(9 * 64), rel=0.02)


def test_what_is_saved_answers_alike(tmp_path: Path) -> None:
    model = classifier()
    given, out = fit_on(model, "pixel-network", NAMES)
    assert isinstance(out.prompt, Conditioned) and out.prompt.length == 0
    out.prompt.save(tmp_path / "p")
    loaded, inputs = ana.load(tmp_path / "p"), [e.inputs for e in given.task.valid]
    assert torch.equal(scores(loaded, inputs, model), scores(out.prompt, inputs, model))
    assert not torch.allclose(scores(loaded, inputs, model), scores(ana.prompt.values.Text(frame=loaded.frame), inputs,
                                                                   model), atol=1e-4)  # fmt: skip


def test_a_network_of_another_shape_is_refused() -> None:
    model = model_of("clip")
    _, out = fit_on(model, "pixel-network", ("w1", "w2", "w3"), steps=1)
    assert isinstance(out.prompt, Conditioned)
    other: Any = replace(out.prompt, config={**out.prompt.config, "hidden": 5})
    with pytest.raises(PromptError, match="does not fit the method pixel-network"):
        restore(model, other)


@pytest.mark.parametrize("options", [{"hidden": 0}, {"eps": 0.0}])
def test_wrong_options_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="hidden and stride must be at least 1"):
        PixelNetworkConfig(**options)
