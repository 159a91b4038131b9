"""Train builtin:tiny-clip: an image tower and a text tower, on pictures of anacrusis.pictures and their captions.

    python -m reference.train_tiny_clip --minutes 80 --out src/anacrusis/data/tiny-clip

Two halves. First the image tower alone learns to tell what is in the picture, one linear head for each attribute
(from captions alone so small a transformer learns colours in minutes and shapes hardly at all). Then both towers
learn from captions, with the heads still there at a tenth of the weight; the heads are thrown away.

Pairs are positive where the caption is true of the picture (several may be), so equal captions in a batch are no false
negatives: L = cross entropy of the scaled similarities against the normalised table of truth, both ways.
Pictures are of the styles in MIX; the others are never seen. Some classes (HELD_OUT) are never drawn either: the pair
is tested on them as "new" classes. One seed gives one model on one machine and number of threads, but for the limit
on time.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from anacrusis import pictures
from anacrusis.pictures import COLOURS, SHAPES, Scene

SIZE, LENGTH = 64, 32  # pixels; tokens
MIX = {"flat": 0.8, "outline": 0.05, "pastel": 0.1, "grainy": 0.05}  # night and mosaic are never seen
# a quarter of the (colour, shape) pairs, two or three of each colour: never drawn, though every colour and shape is
HELD_OUT = frozenset((c, s) for i, c in enumerate(COLOURS) for j, s in enumerate(SHAPES) if (i + j) % 4 == 1)


def tokenizer() -> Any:
    """Byte-level BPE of the captions' words: any text can be read."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    rng = random.Random(0)
    lines = [pictures.caption(pictures.scene(rng), rng)[0] for _ in range(20_000)]
    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    raw.decoder = decoders.ByteLevel()
    special = ["<|start|>", "<|end|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=600, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    raw.train_from_iterator(lines, trainer)
    ends = [(t, raw.token_to_id(t)) for t in special]
    raw.post_processor = processors.TemplateProcessing(single="<|start|> $A <|end|>", special_tokens=ends)
    return PreTrainedTokenizerFast(
        tokenizer_object=raw, bos_token=special[0], eos_token=special[1], pad_token=special[1], model_max_length=LENGTH
    )


def processor() -> Any:
    from transformers import CLIPImageProcessor

    side = {"height": SIZE, "width": SIZE}
    return CLIPImageProcessor(size={"shortest_edge": SIZE}, crop_size=side, image_mean=[0.5] * 3, image_std=[0.5] * 3)


def network(vocabulary: int, start: int, end: int, *, width: int = 128, layers: int = 4) -> Any:
    from transformers import CLIPConfig, CLIPModel

    common = {"hidden_act": "gelu", "num_attention_heads": 4, "hidden_size": width, "intermediate_size": 3 * width}
    text = {**common, "num_hidden_layers": 3, "vocab_size": vocabulary, "max_position_embeddings": LENGTH,
            "bos_token_id": start, "eos_token_id": end, "pad_token_id": end}  # fmt: skip
    vision = {**common, "num_hidden_layers": layers, "image_size": SIZE, "patch_size": 8}
    return CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=width))


def drawn(n: int, seed: int) -> tuple[Tensor, list[Scene]]:
    """(n, 3, S, S) uint8 and what they show; nothing of HELD_OUT."""
    rng = random.Random(seed)
    scenes, images = [], np.empty((n, SIZE, SIZE, 3), np.uint8)
    while len(scenes) < n:
        scene = pictures.scene(rng)
        if (scene.colour, scene.shape) in HELD_OUT:
            continue
        style = rng.choices(list(MIX), list(MIX.values()))[0]
        images[len(scenes)] = pictures.draw(scene, rng, SIZE, style)
        scenes.append(scene)
    return torch.from_numpy(images).permute(0, 3, 1, 2).contiguous(), scenes


def pixels(images: Tensor) -> Tensor:
    """(B, 3, S, S) uint8 -> float, as the processor's mean and deviation of 0.5 would have it."""
    return images.float() / 127.5 - 1


ATTRIBUTES: dict[str, tuple[Any, ...]] = {
    "shape": SHAPES, "colour": tuple(COLOURS), "texture": pictures.TEXTURES, "size": tuple(pictures.SIZES),
    "count": (1, 2, 3, 4), "background": tuple(pictures.BACKGROUNDS),
}  # fmt: skip


def told_apart(scenes: list[Scene]) -> Tensor:
    """(n, 6): the index of each attribute's value."""
    return torch.tensor([[values.index(getattr(s, a)) for a, values in ATTRIBUTES.items()] for s in scenes])


def by_heads(heads: torch.nn.Linear, pooled: Tensor, golds: Tensor) -> Tensor:
    """Sum over attributes of the cross entropy. pooled: (B, H); golds: (B, 6)."""
    parts = heads(pooled).split([len(v) for v in ATTRIBUTES.values()], 1)
    return torch.stack([F.cross_entropy(z, y) for z, y in zip(parts, golds.T, strict=True)]).sum()


def batches(scenes: list[Scene], size: int, seed: int) -> Iterator[list[int]]:
    rng = random.Random(seed)
    while True:
        order = list(range(len(scenes)))
        rng.shuffle(order)
        yield from (order[i : i + size] for i in range(0, len(order) - size + 1, size))


def loss(
    model: Any, heads: torch.nn.Linear, tok: Any, images: Tensor, scenes: list[Scene], rng: random.Random
) -> Tensor:
    said = [pictures.caption(s, rng) for s in scenes]
    ids = tok([t for t, _ in said], padding=True, return_tensors="pt")
    out = model(input_ids=ids["input_ids"], attention_mask=ids["attention_mask"], pixel_values=pixels(images))
    # true[i, j]: caption j is true of picture i
    true = torch.tensor([[pictures.agrees(told, own, s) for (_, told), own in zip(said, scenes, strict=True)]
                         for s in scenes], dtype=torch.float)  # fmt: skip
    z = out.logits_per_image
    both = F.cross_entropy(z, true / true.sum(1, keepdim=True)) + F.cross_entropy(z.T, (true / true.sum(0)).T)
    return 0.5 * both + 0.1 * by_heads(heads, out.vision_model_output.pooler_output, told_apart(scenes))


@torch.no_grad()
def zero_shot(model: Any, tok: Any, kind: str, style: str, n: int = 400, seed: int = 10**6) -> float:
    """Accuracy on pictures never trained on. kind: shape, colour, texture (all values), "pairs" (colour and shape,
    those seen), "new" (those never seen, among themselves)."""
    rng = random.Random(seed)
    if kind in ("pairs", "new"):
        every = [(c, s) for c, s in itertools.product(COLOURS, SHAPES) if ((c, s) in HELD_OUT) == (kind == "new")]
        names = [f"a photo of a {c} {s}" for c, s in every]
        golds = [rng.randrange(len(every)) for _ in range(n)]
        scenes = [pictures.scene(rng, colour=every[g][0], shape=every[g][1], count=1) for g in golds]
    else:
        values = {"shape": SHAPES, "colour": tuple(COLOURS), "texture": pictures.TEXTURES}[kind]
        names = [f"a photo of a {v} thing" if kind != "shape" else f"a photo of a {v}" for v in values]
        golds = [rng.randrange(len(values)) for _ in range(n)]
        scenes = [pictures.scene(rng, **{kind: values[g]}) for g in golds]
    images = np.stack([pictures.draw(s, rng, SIZE, style) for s in scenes])
    ids = tok(names, padding=True, return_tensors="pt")
    out = model(input_ids=ids["input_ids"], attention_mask=ids["attention_mask"],
                pixel_values=pixels(torch.from_numpy(images).permute(0, 3, 1, 2)))  # fmt: skip
    return float((out.logits_per_image.argmax(1) == torch.tensor(golds)).float().mean())


def report(model: Any, tok: Any) -> dict[str, dict[str, float]]:
    model.eval()
    found = {
        k: {s: zero_shot(model, tok, k, s) for s in pictures.STYLES}
        for k in ("shape", "colour", "texture", "pairs", "new")
    }
    model.train()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=80.0, help="of training, after the pictures are drawn")
    parser.add_argument("--pictures", type=int, default=60_000)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--apart", type=float, default=0.5, help="share of the time for the image tower alone")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    torch.manual_seed(given.seed)
    began = time.monotonic()
    images, scenes = drawn(given.pictures, given.seed)
    print(f"{len(scenes)} pictures in {time.monotonic() - began:.0f} s", flush=True)
    tok = tokenizer()
    model = network(len(tok), tok.bos_token_id, tok.eos_token_id).train()
    print(f"{sum(p.numel() for p in model.parameters()) / 1e6:.2f} M parameters", flush=True)
    heads = torch.nn.Linear(model.config.vision_config.hidden_size, sum(map(len, ATTRIBUTES.values())))
    golds = told_apart(scenes)
    moving = [*model.parameters(), *heads.parameters()]
    optimiser = torch.optim.AdamW(moving, lr=given.lr, weight_decay=0.05, betas=(0.9, 0.98))
    rng, began, said, limit = random.Random(given.seed), time.monotonic(), 0.0, 60 * given.minutes
    for step, index in enumerate(batches(scenes, given.batch, given.seed)):
        share = (time.monotonic() - began) / limit
        if share >= 1:
            break
        rate = min(1.0, (step + 1) / 200) * (0.5 + 0.5 * math.cos(math.pi * share))
        for group in optimiser.param_groups:
            group["lr"] = given.lr * rate
        if share < given.apart:
            pooled = model.vision_model(pixel_values=pixels(images[index])).pooler_output
            value = by_heads(heads, pooled, golds[index])
        else:
            value = loss(model, heads, tok, images[index], [scenes[i] for i in index], rng)
        optimiser.zero_grad()
        value.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        with torch.no_grad():
            model.logit_scale.clamp_(0, math.log(100))
        if (now := time.monotonic()) - said > 60:
            said = now
            print(f"step {step}, loss {value.item():.3f}, {(1 - share) * given.minutes:.0f} min left", flush=True)
    found = report(model, tok)
    print(json.dumps(found, indent=1))
    model.eval().save_pretrained(given.out)
    tok.save_pretrained(given.out)
    processor().save_pretrained(given.out)
    (given.out / "numbers.json").write_text(
        json.dumps({"steps": step, "pictures": given.pictures, "zero-shot": found}, indent=1)
    )


if __name__ == "__main__":
    main()
