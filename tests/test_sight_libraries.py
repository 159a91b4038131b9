"""Towers of timm and open_clip against their own forward passes. Skipped where the libraries cannot be imported."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from anacrusis.errors import MissingExtra, ModelError
from anacrusis.model import open as opening
from anacrusis.model.images import ImageBatch, rows_of
from anacrusis.model.open_sight import OpenClipTokenizer, wrap_sight
from anacrusis.model.sight import Sight
from anacrusis.prompt.values import Frame, Tokens


def library(name: str) -> Any:
    try:
        return __import__(name)
    except (ImportError, RuntimeError) as error:  # torchvision of another build than torch's raises RuntimeError
        pytest.skip(f"{name} cannot be imported: {str(error).splitlines()[0]}")


def batch_of(model: Sight) -> ImageBatch:
    g, S = np.random.default_rng(0), model.prepare.size
    pictures = [(g.integers(0, 255, (S, S, 3), dtype=np.uint8),) for _ in range(3)]
    return ImageBatch(rows_of(pictures, model.prepare), model.prepare, model.device, model.dtype)


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "vit_base_patch16_siglip_224", "vit_small_patch14_dinov2"])
def test_timm_towers(name: str) -> None:
    timm = library("timm")
    with torch.random.fork_rng():
        network = timm.create_model(name, img_size=28 if "dinov2" in name else 32, embed_dim=48, depth=2, num_heads=4,
                                    num_classes=0, pretrained=False).eval()  # fmt: skip
    model = wrap_sight(network, name=name)
    batch = batch_of(model)
    with torch.no_grad():
        own = network.forward_head(network.forward_features(batch.normalised), pre_logits=True)
        assert torch.allclose(model.pooled(batch, None), own, atol=1e-5)
        rows = Tokens(side="image", layers={0: torch.randn(3, 48, generator=torch.Generator().manual_seed(0))})
        assert not torch.equal(model.pooled(batch, rows), own)  # DINOv2 starts with layer scales of 1e-5


def test_open_clip_towers() -> None:
    open_clip = library("open_clip")
    with torch.random.fork_rng():
        network = open_clip.CLIP(
            embed_dim=24, vision_cfg={"layers": 2, "width": 64, "head_width": 16, "patch_size": 8, "image_size": 32},
            text_cfg={"context_length": 24, "vocab_size": 49408, "width": 32, "heads": 4, "layers": 2},
        ).eval()  # fmt: skip
    tokenizer = open_clip.SimpleTokenizer(context_length=24)
    model = wrap_sight(network, name="open_clip", tokenizer=OpenClipTokenizer(tokenizer))
    frame = Frame(labels=("a", "b"), words=("red star", "dog"), template="a photo of a {label}.", readout="match")
    batch = batch_of(model)
    with torch.no_grad():
        images = network.encode_image(batch.normalised, normalize=True)
        texts = network.encode_text(tokenizer(["a photo of a red star.", "a photo of a dog."]), normalize=True)
        own = network.logit_scale.exp() * images @ texts.T
        assert torch.allclose(model.match(model.look(batch, None), model.texts(frame)), own, atol=1e-4)


def test_missing_libraries_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib

    def absent(name: str) -> Any:
        raise ImportError(name)

    monkeypatch.setattr(importlib, "import_module", absent)
    with pytest.raises(MissingExtra, match=r"anacrusis\[open-clip\]"):
        opening.open("open_clip:ViT-B-32/laion2b_s34b_b79k")
    with pytest.raises(MissingExtra, match=r"anacrusis\[timm\]"):
        opening.open("timm:vit_tiny_patch16_224")


def test_open_clip_weights_must_be_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib
    import types

    monkeypatch.setattr(importlib, "import_module", lambda name: types.SimpleNamespace())
    with pytest.raises(ModelError, match="say which weights"):
        opening.open("open_clip:ViT-B-32")
