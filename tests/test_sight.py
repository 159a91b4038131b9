"""Models for images: the towers as they are without a prompt, and prompts in them against the slow way."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

import anacrusis as ana
from anacrusis.measure.predict import mixed_scores, scores
from anacrusis.model.images import ImageBatch, Preparation, rows_of
from anacrusis.model.open_sight import wrap_sight
from anacrusis.model.sight import Sides, Sight
from anacrusis.prompt.values import Frame, Pixels, Tokens
from anacrusis.testing import DUALS, SEEING, sight
from tests import plain

FRAME = Frame(fields=("image",), labels=("a", "b", "c"), words=("w2 w3", "w4 w5 w6", "w1"), template="a {label} x",
              readout="match")  # fmt: skip


@functools.cache
def model_of(family: str) -> Sight:
    return sight(family, layers=3)


def batch_of(model: Sight, n: int = 3) -> ImageBatch:
    g = np.random.default_rng(0)
    pictures = [(g.integers(0, 255, (32, 32, 3), dtype=np.uint8),) for _ in range(n)]
    return ImageBatch(rows_of(pictures, model.prepare), model.prepare, model.device, model.dtype)


def some(*shape: int, seed: int = 0, scale: float = 0.3) -> Tensor:
    return (scale * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))).requires_grad_()


@pytest.mark.parametrize("family", SEEING)
def test_without_a_prompt_it_is_the_network(family: str) -> None:
    model = model_of(family)
    batch = batch_of(model)
    with torch.no_grad(), model.frozen():
        if family in DUALS:
            laid = model.lay(FRAME, 0)
            mask = (torch.arange(laid.codes.shape[1])[None] <= laid.last[:, None]).long()
            out = model.network(input_ids=laid.codes, pixel_values=batch.normalised,
                                attention_mask=mask if family == "clip" else None)  # fmt: skip
            ours = model.match(model.look(batch, None), model.texts(FRAME))
            assert torch.allclose(ours, out.logits_per_image, atol=1e-4)
        elif family == "vit_mae":  # its own forward hides patches by chance: put them back into their order
            noise = torch.arange(16.0).expand(3, -1)
            model.network.config.mask_ratio = 0.0
            out = model.network(pixel_values=batch.normalised, noise=noise)
            model.network.config.mask_ratio = 0.75
            assert torch.allclose(model.pooled(batch, None), out.last_hidden_state[:, 0], atol=1e-5)
        else:
            out = model.network(pixel_values=batch.normalised)
            assert torch.allclose(model.pooled(batch, None), out.last_hidden_state[:, 0], atol=1e-5)


def _text(**entries: Any) -> Tokens:
    return Tokens(side="text", **entries)


def _image(**entries: Any) -> Tokens:
    return Tokens(side="image", **entries)


CASES: dict[str, tuple[Any, str]] = {
    "context at the end": (lambda: Sides(_text(layers={0: some(4, 32)})), "{soft} {label} x"),
    "context in the middle": (lambda: Sides(_text(layers={0: some(4, 32)})), "{soft:2} {label} {soft:2}"),
    "context in front": (lambda: Sides(_text(layers={0: some(4, 32)})), "{label} {soft}"),
    "class-specific": (lambda: Sides(_text(layers={0: some(3, 4, 32)}, per="class")), "{soft} {label}"),
    "by input": (lambda: Sides(_text(layers={0: some(3, 4, 32)}, per="input")), "{soft} {label}"),
    "by input, in the middle": (
        lambda: Sides(_text(layers={0: some(3, 4, 32)}, per="input")), "{soft:1} {label} {soft}"),
    "deep text": (lambda: Sides(_text(layers={0: some(2, 32), 1: some(2, 32, seed=1)})), "{soft} a {label}"),
    "shallow image": (lambda: Sides(None, _image(layers={0: some(5, 32)})), "a {label}"),
    "behind the norm": (lambda: Sides(None, _image(layers={0: some(5, 32)}, entry="after-norm")), "a {label}"),
    "deep image": (lambda: Sides(None, _image(layers={i: some(4, 32, seed=i) for i in range(3)})), "a {label}"),
    "image, ragged": (
        lambda: Sides(None, _image(layers={0: some(4, 32), 1: some(0, 32), 2: some(2, 32, seed=2)})), "a {label}"),
    "image from layer 1": (lambda: Sides(None, _image(layers={1: some(2, 32)})), "a {label}"),
    "image by input": (lambda: Sides(None, _image(layers={0: some(3, 2, 32)}, per="input")), "a {label}"),
    "deep pair": (
        lambda: Sides(_text(layers={0: some(2, 32), 1: some(2, 32, seed=1)}),
                      _image(layers={0: some(2, 32, seed=2), 1: some(2, 32, seed=3)})), "{soft} {label}"),
    "read-only": (
        lambda: Sides(_text(layers={0: some(4, 32)}, read_only=True),
                      _image(layers={0: some(4, 32, seed=1)}, read_only=True)), "a {label} x"),
    "pixels": (lambda: Sides(None, Pixels(delta=some(3, 32, 32, scale=0.1))), "a {label}"),
    "pixels by input": (
        lambda: Sides(None, Pixels(delta=some(3, 3, 32, 32, scale=0.1), clip=False)), "a {label}"),
    "pixels, normalised": (
        lambda: Sides(None, Pixels(delta=some(3, 32, 32, scale=0.1), space="normalised")), "a {label}"),
}  # fmt: skip


@pytest.mark.parametrize("family", DUALS)
@pytest.mark.parametrize("case", CASES)
def test_the_fast_way_is_the_slow_way_and_so_are_its_gradients(family: str, case: str) -> None:
    make, template = CASES[case]
    model, batch = model_of(family), batch_of(model_of(family))
    frame = Frame(**{**FRAME.__dict__, "template": template})
    golds = torch.tensor([0, 1, 2])
    found = []
    for way in ("fast", "slow"):
        sides = make()
        leaves = [t for side in (sides.text, sides.image) if side is not None for t in side.tensors().values()]
        with model.frozen():
            if way == "fast":
                z = ana.model.readout.reader(model, frame).scores(batch, sides, None)
            else:
                z = plain.scores(model, frame, sides, batch)
            F.cross_entropy(z, golds).backward()
        found.append((z.detach(), [t.grad for t in leaves]))
    (fast, fast_grads), (slow, slow_grads) = found
    assert torch.allclose(fast, slow, atol=1e-4 if family == "siglip" else 1e-5 * float(slow.abs().max()))
    for a, b in zip(fast_grads, slow_grads, strict=True):
        if b is not None and b.numel():
            assert a is not None and float(b.abs().max()) > 0
            assert torch.allclose(a, b, atol=1e-5 * max(1.0, float(b.abs().max())), rtol=1e-4)


def test_many_classes_are_computed_in_parts_with_the_same_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of("clip")
    frame = Frame(**{**FRAME.__dict__, "template": "{soft} {label}"})
    grads = []
    for at_once in (128, 2):
        monkeypatch.setattr("anacrusis.model.sight.AT_ONCE", at_once)
        v = some(4, 32)
        with model.frozen():
            model.texts(frame, _text(layers={0: v})).square().cumsum(0).sum().backward()
        grads.append(v.grad)
    assert torch.allclose(grads[0], grads[1], atol=1e-6) and float(grads[0].abs().max()) > 0  # type: ignore[union-attr]


def test_a_picture_is_encoded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    model, batch = model_of("clip"), batch_of(model_of("clip"))
    calls = []
    monkeypatch.setattr(
        type(model), "look", lambda self, part, prompt: calls.append(len(part)) or torch.ones(len(part), 2)
    )
    model.features(batch)
    again = ImageBatch(batch.rows[:2], batch.prepare, batch.device, batch.dtype)
    assert model.features(again).shape == (2, 2) and calls == [3]


def test_several_texts_of_a_class_are_averaged_by_hand() -> None:
    model = model_of("clip")
    frame = Frame(**{**FRAME.__dict__, "templates": ("a {label}", "{label} x")})
    with torch.no_grad():
        each = [model.texts(Frame(**{**FRAME.__dict__, "template": t})) for t in frame.templates]
        assert torch.allclose(model.texts(frame), F.normalize(each[0] + each[1], dim=-1), atol=1e-6)
        told = Frame(**{**FRAME.__dict__, "texts": (("w1",), ("w2", "w3 w3"), ("w4",))})
        second = F.normalize(model.encode(["w2"]) + model.encode(["w3 w3"]), dim=-1)
        assert torch.allclose(model.texts(told)[1], second[0], atol=1e-6)


def test_a_name_that_does_not_fit_is_named() -> None:
    long = Frame(**{**FRAME.__dict__, "words": ("w1", "w2 " * 30, "w3")})
    with pytest.raises(ana.errors.ConfigError, match="class 'b' has 34 tokens.*reads 24"):
        model_of("clip").texts(long)


@pytest.mark.parametrize("family", SEEING)
def test_a_prompt_of_no_rows_changes_nothing_at_all(family: str) -> None:
    model, batch = model_of(family), batch_of(model_of(family))
    with torch.no_grad(), model.frozen():
        empty = _image(layers={0: torch.zeros(0, 32)})
        assert torch.equal(model.pooled(batch, empty), model.pooled(batch, None))


def test_a_batch_of_several_prompts_is_one_run_of_each() -> None:
    model = model_of("clip")
    g = np.random.default_rng(3)
    inputs = [(g.integers(0, 255, (32, 32, 3), dtype=np.uint8),) for _ in range(6)]
    frame = Frame(**{**FRAME.__dict__, "template": "{soft} {label}"})
    prompts = [
        _text(layers={0: some(4, 32).detach()}, frame=frame), _image(layers={0: some(3, 32).detach()}, frame=FRAME),
        Pixels(delta=some(3, 32, 32).detach(), frame=FRAME),
    ]  # fmt: skip
    which = [0, 1, 2, 0, 2, 1]
    mixed = mixed_scores(prompts, which, inputs, model)  # type: ignore[arg-type]
    for z, w, x in zip(mixed, which, inputs, strict=True):
        assert torch.allclose(z, scores(prompts[w], [x], model)[0], atol=1e-4)


def test_the_same_weights_with_another_preparation_are_another_model() -> None:
    one = sight("vit")
    other = wrap_sight(one.network, name="other", prepare=Preparation(32, (0.4, 0.4, 0.4)))
    assert one.fingerprint != other.fingerprint and one.fingerprint == sight("vit").fingerprint
