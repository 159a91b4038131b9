"""Networks for images as models: which of their parts are the towers, by family."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..errors import ConfigError, MissingExtra, ModelError
from .images import Preparation
from .sight import ImageSide, Sight, TextSide
from .tower import tower

DUAL = ("clip", "siglip")
VISION = ("vit", "deit", "vit_mae", "dinov2", "dinov2_with_registers", "siglip_vision_model",
          "clip_vision_model")  # fmt: skip


def wrap_sight(
    network: Any, *, name: str, tokenizer: Any = None, prepare: Preparation | None = None, why: str = "",
    classes: tuple[str, ...] = (),
) -> Sight:  # fmt: skip
    """A Sight from a network that you already hold: of transformers (CLIP, SigLIP, ViT, DeiT, MAE, DINOv2), timm or
    open_clip; any other module that maps (B, 3, S, S) to scores needs `classes` and `prepare`. The network is used as
    it is, never changed."""
    kind = getattr(getattr(network, "config", None), "model_type", "")
    root = type(network).__module__.split(".")[0]
    if kind in DUAL:
        return _dual(network, tokenizer, name, prepare, why)
    if kind in VISION or (kind and hasattr(network, "base_model") and network.base_model.config.model_type in VISION):
        return _vision(network, name, prepare, why)
    if root == "open_clip":
        return _open_clip(network, tokenizer, name, prepare, why)
    if root == "timm" and hasattr(network, "blocks"):
        return _timm(network, name, prepare, why)
    if classes and prepare is not None:

        def outputs(x: Tensor) -> Tensor:
            z = network(x)
            return z if isinstance(z, Tensor) else z.logits

        side = ImageSide(enter=outputs, pool=lambda z: z, size=len(classes))
        return Sight(name, network, None, "classifier", side, prepare, classes=classes, logits=outputs, why=why)
    raise ModelError(
        f"{name} is a {type(network).__name__} ({kind or root}); known are {', '.join(DUAL + VISION)}, ViTs of timm "
        "and open_clip, and, with classes= and prepare=, any classifier"
    )


def preparation(processor: Any, size: int) -> Preparation:
    """From an image processor of transformers."""
    mean, deviation = tuple(processor.image_mean), tuple(processor.image_std)
    return Preparation(size, mean, deviation, processor)


def _dual(network: Any, tokenizer: Any, name: str, prepare: Preparation | None, why: str) -> Sight:
    seen, read = network.vision_model, network.text_model
    v, t = network.config.vision_config, network.config.text_config
    D = int(getattr(network.config, "projection_dim", 0) or v.hidden_size)
    image = _hf_image(seen, D, getattr(network, "visual_projection", None))
    final = read.final_layer_norm
    project = getattr(network, "text_projection", None) or read.head
    causal = hasattr(network, "text_projection")  # CLIP's; SigLIP reads both ways and pools the last column
    embeddings = read.embeddings
    text = TextSide(
        embeddings.token_embedding.weight, embeddings.position_embedding.weight, lambda x: project(final(x)),
        tower(read.encoder.layers, causal=causal), "end" if causal else "last",
        int(t.pad_token_id if t.pad_token_id is not None else 0) if not causal else 0,
    )  # fmt: skip
    bias = float(network.logit_bias) if hasattr(network, "logit_bias") else 0.0
    return Sight(name, network, tokenizer, "dual", image, prepare or Preparation(int(v.image_size)), text,
                 float(network.logit_scale.detach().exp()), bias, why=why)  # fmt: skip


def _vision(network: Any, name: str, prepare: Preparation | None, why: str) -> Sight:
    core = network.base_model
    config = network.config
    head = getattr(network, "classifier", None)
    image = _hf_image(core, int(config.hidden_size), None)
    classes = tuple(config.id2label[i] for i in range(len(config.id2label))) if isinstance(
        head, torch.nn.Linear) and head.out_features == len(config.id2label) else ()  # fmt: skip
    logits = (lambda x: network(x).logits) if classes else None
    size = config.image_size if isinstance(config.image_size, int) else config.image_size[0]
    return Sight(name, network, None, "vision", image, prepare or Preparation(int(size)), classes=classes,
                 logits=logits, why=why)  # fmt: skip


def _hf_image(core: Any, size: int, projection: Any) -> ImageSide:
    """The image side of a network of transformers."""
    norm = getattr(core, "pre_layrnorm", None)
    final = getattr(core, "post_layernorm", None) or core.layernorm
    layers = core.encoder.layers if hasattr(core, "encoder") and hasattr(core.encoder, "layers") else (
        core.layers if hasattr(core, "layers") else core.encoder.layer)  # fmt: skip
    embed: Callable[[Tensor], Tensor] = core.embeddings
    if hasattr(core.embeddings, "random_masking"):  # MAE hides most patches by chance; here all are seen
        embed = lambda x: _all_patches(core.embeddings, x)  # noqa: E731
    if (head := getattr(core, "head", None)) is not None:  # SigLIP: attention pooling over all tokens
        return ImageSide(embed, lambda x: _pooled_by(head, final, x), size, None, tower(layers))

    def pool(x: Tensor) -> Tensor:
        z = final(x[:, 0])
        return projection(z) if projection is not None else z

    return ImageSide(embed, pool, size, norm, tower(layers), first=True)


def _pooled_by(head: Any, final: Any, x: Tensor) -> Tensor:
    """(B, n, d) -> (B, d); a row that only reads comes alone, n = 1, and its own state is what it saw."""
    return head(final(x))


def _all_patches(e: Any, pixels: Tensor) -> Tensor:
    x = e.patch_embeddings(pixels) + e.position_embeddings[:, 1:]
    cls = (e.cls_token + e.position_embeddings[:, :1]).expand(len(x), -1, -1)
    return torch.cat([cls, x], 1)


def _timm(network: Any, name: str, prepare: Preparation | None, why: str) -> Sight:
    given = network.pretrained_cfg
    size = int(network.patch_embed.img_size[0])
    head = network.get_classifier()
    first = network.global_pool == "token"

    def pool(x: Tensor) -> Tensor:
        return network.forward_head(network.norm(x), pre_logits=True)

    side = ImageSide(lambda x: network._pos_embed(network.patch_embed(x)), pool, int(network.num_features),
                     network.norm_pre, tower(network.blocks), first)  # fmt: skip
    ready = prepare or Preparation(size, tuple(given.get("mean", (0.5,) * 3)), tuple(given.get("std", (0.5,) * 3)))
    classes = tuple(str(i) for i in range(head.out_features)) if isinstance(head, torch.nn.Linear) else ()
    return Sight(name, network, None, "vision", side, ready, classes=classes, logits=network if classes else None,
                 why=why)  # fmt: skip


def _open_clip(network: Any, tokenizer: Any, name: str, prepare: Preparation | None, why: str) -> Sight:
    seen = network.visual
    if not hasattr(seen, "transformer"):
        raise ModelError(f"{name}: its image tower is a {type(seen).__name__}; prompts enter ViT towers of open_clip")
    read = network if hasattr(network, "token_embedding") else network.text

    def pool(x: Tensor) -> Tensor:
        pooled, _ = seen._pool(seen.ln_post(x)) if not seen.final_ln_after_pool else seen._pool(x)
        pooled = seen.ln_post(pooled) if seen.final_ln_after_pool else pooled
        return pooled @ seen.proj if seen.proj is not None else pooled

    def finish(x: Tensor) -> Tensor:
        x = read.ln_final(x)
        p = read.text_projection
        return p(x) if isinstance(p, torch.nn.Module) else x @ p

    causal = read.attn_mask is not None
    side = ImageSide(lambda x: _patches(seen, x), pool, int(seen.output_dim), seen.ln_pre,
                     tower(seen.transformer.resblocks), seen.pool_type == "tok")  # fmt: skip
    text = TextSide(read.token_embedding.weight, read.positional_embedding, finish,
                    tower(read.transformer.resblocks, causal=causal),
                    "end" if read.text_pool_type in ("argmax", "eos") else "last")  # fmt: skip
    size = seen.image_size[0] if isinstance(seen.image_size, tuple) else seen.image_size
    mean = tuple(getattr(seen, "image_mean", None) or (0.48145466, 0.4578275, 0.40821073))
    deviation = tuple(getattr(seen, "image_std", None) or (0.26862954, 0.26130258, 0.27577711))
    bias = float(network.logit_bias) if getattr(network, "logit_bias", None) is not None else 0.0
    return Sight(name, network, tokenizer, "dual", side, prepare or Preparation(int(size), mean, deviation), text,
                 float(network.logit_scale.detach().exp()), bias, why=why)  # fmt: skip


def _patches(seen: Any, pixels: Tensor) -> Tensor:
    """open_clip's tokens with positions, before ln_pre."""
    x = seen.conv1(pixels).flatten(2).transpose(1, 2)
    cls = seen.class_embedding.to(x).expand(len(x), 1, -1)
    return torch.cat([cls, x], 1) + seen.positional_embedding.to(x)


@dataclass(frozen=True)
class Place:
    """Where a model is computed, and which version of it is read. Raises ConfigError for fewer bits a weight."""

    device: torch.device
    dtype: torch.dtype
    why: str
    revision: str | None = None
    quantise: int | None = None

    def __post_init__(self) -> None:
        if self.quantise is not None:
            raise ConfigError(f"quantise={self.quantise}: models of images are not read in fewer bits; leave it out")


class OpenClipTokenizer:
    """open_clip's tokenizer with the calls of transformers' that class texts need."""

    def __init__(self, tokenizer: Any):
        self.own = tokenizer

    def __len__(self) -> int:
        return int(self.own.vocab_size)

    def __call__(self, text: str, add_special_tokens: bool = True) -> dict[str, list[int]]:
        ids = list(self.own.encode(text))
        return {"input_ids": [self.own.sot_token_id, *ids, self.own.eot_token_id] if add_special_tokens else ids}

    def decode(self, ids: list[int]) -> str:
        return str(self.own.decode(ids))


def open_other(name: str, place: Place) -> Sight:
    """ "timm:NAME" with its pretrained weights, or "open_clip:NAME/PRETRAINED". Raises MissingExtra, ModelError."""
    library, _, said = name.partition(":")
    package = {"timm": "timm", "open_clip": "open_clip_torch"}[library]
    try:
        module = importlib.import_module(library)
    except ImportError as error:
        raise MissingExtra(package, library.replace("_", "-"), f"the model {name}") from error
    tokenizer = None
    try:
        if library == "timm":
            network = module.create_model(said, pretrained=True)
        else:
            architecture, _, pretrained = said.partition("/")
            if not pretrained:
                raise ModelError(f"{name}: say which weights, as in open_clip:ViT-B-32/laion2b_s34b_b79k")
            network, _, _ = module.create_model_and_transforms(architecture, pretrained=pretrained)
            tokenizer = OpenClipTokenizer(module.get_tokenizer(architecture))
    except (RuntimeError, OSError, ValueError) as error:
        raise ModelError(f"cannot open {name!r}: {str(error).splitlines()[0][:300]}") from error
    network = network.to(place.device, place.dtype).eval().requires_grad_(False)
    return wrap_sight(network, name=name, tokenizer=tokenizer, why=place.why)


def open_sight(name: str, config: Any, source: str, place: Place) -> Sight:
    """A model for images from a folder or hub name of transformers."""
    import transformers

    version = {"revision": place.revision}

    try:
        processor = transformers.AutoImageProcessor.from_pretrained(source, **version)
    except ImportError as error:
        raise MissingExtra("pillow", "images", f"the pictures of {name}") from error
    kind = config.model_type
    labelled = any(a.endswith("ForImageClassification") for a in getattr(config, "architectures", None) or ())
    auto = "AutoModelForImageClassification" if labelled else "AutoModel"
    options = {"add_pooling_layer": False} if kind in ("vit", "deit") and not labelled else {}
    network, report = getattr(transformers, auto).from_pretrained(
        source, config=config, dtype=place.dtype, output_loading_info=True, **version, **options
    )
    missing = [k for k in report["missing_keys"] if "pooler" not in k]
    if missing:
        raise ModelError(f"{name} lacks the weights {', '.join(sorted(missing)[:3])}: they would be random")
    tokenizer = transformers.AutoTokenizer.from_pretrained(source, **version) if kind in DUAL else None
    vision = config.vision_config if kind in DUAL else config
    size = vision.image_size if isinstance(vision.image_size, int) else vision.image_size[0]
    network = network.to(place.device).eval().requires_grad_(False)
    prepare = preparation(processor, int(size))
    return wrap_sight(network, name=name, tokenizer=tokenizer, prepare=prepare, why=place.why)


def reads_images(config: Any) -> bool:
    return getattr(config, "model_type", "") in DUAL + VISION
