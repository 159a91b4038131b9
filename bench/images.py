"""Prompts for images beside a plain implementation of the same step, in one process, on the same random towers.

"plain" is what the papers' code does: class texts padded to the full length, every class run whole and anew in each
step, the image tower run for every picture in every step (without gradient where nothing in it is learned). It is
written on transformers' own layers, with fused attention. The towers: a ViT of 6 blocks of 384 at 224 pixels, a text
tower of 6 blocks of 384 and 77 positions.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from anacrusis.adapt.course import Course
from anacrusis.adapt.engine import Stream
from anacrusis.model.images import Preparation, rows_of
from anacrusis.model.open_sight import wrap_sight
from anacrusis.model.readout import reader
from anacrusis.model.sight import Sight
from anacrusis.prompt.values import Frame, Paired, Tokens
from anacrusis.testing import tokenizer
from anacrusis.tune.makers import Free
from anacrusis.tune.sight_makers import ContextMaker

from .common import Line, interleaved

M, FULL = 16, 77


def towers(width: int = 384, layers: int = 6, size: int = 224) -> Sight:
    import transformers as tf

    tok = tokenizer("clip")
    common = {"hidden_size": width, "intermediate_size": 4 * width, "num_hidden_layers": layers,
              "num_attention_heads": width // 64}  # fmt: skip
    text = {**common, "vocab_size": len(tok), "max_position_embeddings": FULL, "eos_token_id": tok.eos_token_id,
            "bos_token_id": 1, "pad_token_id": 0}  # fmt: skip
    vision = {**common, "image_size": size, "patch_size": 16}
    config = tf.CLIPConfig(text_config=text, vision_config=vision, projection_dim=width)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = tf.CLIPModel(config).eval().requires_grad_(False)
    return wrap_sight(network, name="bench", tokenizer=tok, prepare=Preparation(size))


def frame_of(classes: int, template: str = "{soft} {label}.") -> Frame:
    """Class names of one to three words, as real ones are."""
    names = tuple(" ".join(f"w{(7 * i + 31 * j) % 90}" for j in range(1 + i % 3)) + f" w{i % 90} w{i // 90}"
                  for i in range(classes))  # fmt: skip
    return Frame(fields=("image",), labels=names, words=names, template=template, readout="match")


def pictures(n: int, size: int = 224) -> list[tuple[Any]]:
    rng = np.random.default_rng(0)
    return [(rng.integers(0, 256, (size, size, 3), dtype=np.uint8),) for _ in range(n)]


# --- the plain way


def plain_texts(model: Sight, frame: Frame, vectors: Tensor | None, readers: Tensor | None = None) -> Tensor:
    """(C, D), or (C, K, D) of rows that only read: all classes at full length."""
    core, side = model.network.text_model, model.text
    assert side is not None
    laid = model.lay(frame, 0 if vectors is None else len(vectors))
    codes = F.pad(laid.codes, (0, FULL - laid.codes.shape[1]))
    x = core.embeddings.token_embedding(codes.clamp(min=0))
    if vectors is not None:
        x = torch.where(
            (codes < 0)[..., None], F.embedding((-1 - codes).clamp(min=0, max=len(vectors) - 1), vectors), x
        )
    x = x + core.embeddings.position_embedding.weight
    mask = torch.full((FULL, FULL), float("-inf")).triu(1)[None, None]
    if readers is not None:
        K = len(readers)
        x = torch.cat([x, readers.expand(len(x), -1, -1)], 1)
        each = F.pad(mask, (0, K, 0, K), value=float("-inf")).repeat(len(x), 1, 1, 1)
        seen = torch.arange(FULL)[None] <= laid.last[:, None]
        each[:, 0, FULL:, :FULL] = torch.where(seen[:, None], 0.0, float("-inf"))
        mask = each
    for layer in core.encoder.layers:
        x = layer(x, attention_mask=mask)
    x = core.final_layer_norm(x)
    out = x[:, FULL:] if readers is not None else x[torch.arange(len(x)), laid.last]
    return F.normalize(model.network.text_projection(out), dim=-1)


def plain_images(model: Sight, pixels: Tensor, readers: Tensor | None = None) -> Tensor:
    core = model.network.vision_model
    if readers is None:
        return F.normalize(model.network.visual_projection(core(pixel_values=pixels).pooler_output), dim=-1)
    x = core.embeddings(pixels)
    n, K = x.shape[1], len(readers)
    x = core.pre_layrnorm(torch.cat([x, readers.expand(len(x), -1, -1)], 1))
    mask = torch.zeros(1, 1, n + K, n + K)
    mask[..., n:] = float("-inf")
    for layer in core.encoder.layers:
        x = layer(x, attention_mask=mask)
    return F.normalize(model.network.visual_projection(core.post_layernorm(x[:, n:])), dim=-1)


def _apart(grads: dict[str, Any]) -> float:
    """Largest difference, as a share of the largest value."""
    return float((grads["ours"] - grads["plain"]).abs().max() / grads["plain"].abs().max())


# --- lines


def coop(classes: int) -> Callable[[int], Line]:
    def line(rounds: int) -> Line:
        model, frame = towers(), frame_of(classes)
        given, golds = pictures(32), torch.arange(32) % classes
        read = reader(model, frame)  # type: ignore[arg-type]
        start = 0.02 * torch.randn(M, 384, generator=torch.Generator().manual_seed(0))
        epochs, grads = 50, {}  # the method's own number

        def ours() -> None:
            rows, v = read.rows(given, None), start.clone().requires_grad_()  # every epoch's share of the encoding
            for _ in range(epochs):
                v.grad = None
                batch = read.batch(rows)
                read.loss(
                    batch, model.place(Tokens(side="text", layers={0: v}), batch), None, golds
                ).each.mean().backward()  # type: ignore[arg-type]
            grads["ours"] = v.grad

        batch = read.batch(read.rows(given, None))
        pixels = batch.normalised  # type: ignore[attr-defined]

        def plain() -> None:  # one epoch; ours are fifty
            v = start.clone().requires_grad_()
            with torch.no_grad():
                f = plain_images(model, pixels)
            F.cross_entropy(model.logit_scale * f @ plain_texts(model, frame, v).T, golds).backward()
            grads["plain"] = v.grad

        found = interleaved({"ours": ours, "plain": plain}, max(2, rounds // 3))
        return Line(
            f"CoOp, an epoch of 32 pictures, {classes} classes", found["ours"] / epochs, {"plain": found["plain"]},
            targets={"plain": 0.09 if classes == 10 else 0.05},
            note="ours is a fiftieth of fifty epochs (the method's default), with the pictures' one encoding; "
            f"gradients differ by {_apart(grads):.0e} of their size",
        )  # fmt: skip

    return line


def rpo(rounds: int) -> Line:
    """A step of 4 pictures, 10 classes, 24 rows a side; frozen keys and values are kept over the epochs."""
    model, frame, K = towers(), frame_of(10, "a x of {label}."), 24
    g = torch.Generator().manual_seed(0)
    t0, v0 = (0.02 * torch.randn(K, 384, generator=g) for _ in range(2))
    golds, grads = torch.arange(4), {}
    read = reader(model, frame)  # type: ignore[arg-type]
    rows = read.rows(pictures(4), None)
    pixels = read.batch(rows).normalised  # type: ignore[attr-defined]

    def ours() -> None:
        t, v = t0.clone().requires_grad_(), v0.clone().requires_grad_()
        prompt = Paired(text=Tokens(side="text", layers={0: t}, read_only=True),
                        image=Tokens(side="image", layers={0: v}, read_only=True))  # fmt: skip
        batch = read.batch(rows)
        read.loss(batch, model.place(prompt, batch), None, golds).each.mean().backward()  # type: ignore[arg-type]
        grads["ours"] = t.grad

    def plain() -> None:
        t, v = t0.clone().requires_grad_(), v0.clone().requires_grad_()
        z = torch.einsum("bkd,ckd->bc", plain_images(model, pixels, v), plain_texts(model, frame, None, t)) / K
        F.cross_entropy(model.logit_scale * z, golds).backward()
        grads["plain"] = t.grad

    found = interleaved({"ours": ours, "plain": plain}, rounds)
    return Line(
        "RPO, one step", found["ours"], {"plain": found["plain"]}, targets={"plain": 0.3},
        note="4 pictures, 10 classes, 24 rows a side, from the second epoch on; "
        f"gradients differ by {_apart(grads):.0e} of their size",
    )  # fmt: skip


def tpt(rounds: int) -> Line:
    """A picture: 64 views, 100 classes, one step, the answer."""
    model, frame = towers(), frame_of(100)
    start = 0.02 * torch.randn(4, 384, generator=torch.Generator().manual_seed(0))
    course = Course(frame=frame, members=[ContextMaker(Free(start), model.scale)], lr=0.25)
    stream = Stream(model, course)
    [row] = rows_of(pictures(1), model.prepare)
    views = stream._views(row)
    pixels, said = views.batch.normalised, {}

    def ours() -> None:
        said["ours"] = next(stream.answers([row])).z

    def plain() -> None:
        v = start.clone().requires_grad_()
        optimizer = torch.optim.AdamW([v], lr=0.25 * model.scale, weight_decay=0.01)
        with torch.no_grad():
            f = plain_images(model, pixels)
        z = model.logit_scale * f @ plain_texts(model, frame, v).T
        course.loss(z[course.select(z.detach())]).backward()
        optimizer.step()
        with torch.no_grad():
            said["plain"] = model.logit_scale * plain_images(model, pixels[:1])[0] @ plain_texts(model, frame, v).T

    found = interleaved({"ours": ours, "plain": plain}, rounds)
    apart = float((said["ours"] - said["plain"]).abs().max())
    return Line(
        "TPT, a picture of 64 views, 100 classes", found["ours"], {"plain": found["plain"]}, targets={"plain": 0.35},
        note=f"the 64 views' encoding is the same in both; answers differ by {apart:.0e}",
    )  # fmt: skip


def many_arm(name: str) -> Callable[[], Any]:
    """A training step of a context with 1000 classes at a text width of 512 and 12 blocks."""
    model, frame = towers(512, 12, 32), frame_of(1000)
    f = F.normalize(torch.randn(32, 512, generator=torch.Generator().manual_seed(0)), dim=-1)
    golds, v = torch.arange(32), (0.02 * torch.randn(M, 512)).requires_grad_()

    def step() -> None:
        t = model.texts(frame, Tokens(side="text", layers={0: v})) if name == "ours" else plain_texts(model, frame, v)
        F.cross_entropy(model.logit_scale * f @ t.T, golds).backward()

    return step


def many(rounds: int) -> Line:
    found = {}
    for name in ("ours", "plain"):
        out = subprocess.run([sys.executable, "-m", "bench.images", name], capture_output=True, text=True)
        # the plain step needs more memory than many machines have: what it had reached when it was killed
        found[name] = json.loads(out.stdout.splitlines()[-1]) if out.returncode == 0 else float("inf")
    return Line("peak memory of a step, 1000 classes, text width 512", found["ours"], {"plain": found["plain"]}, "MB",
                note="12 text blocks, 16 vectors, 32 pictures' features; to reach: below 4000 MB")  # fmt: skip


def main() -> None:
    import psutil

    process = psutil.Process()
    run = many_arm(sys.argv[1])
    before, peak, ended = process.memory_info().rss, 0, False

    def watch() -> None:
        nonlocal peak
        while not ended:
            peak = max(peak, process.memory_info().rss)
            if peak > 20e9:  # enough is known
                print(json.dumps((peak - before) / 1e6), flush=True)
                import os

                os._exit(0)
            time.sleep(0.002)

    thread = threading.Thread(target=watch)
    thread.start()
    run()
    ended = True
    thread.join()
    print(json.dumps((peak - before) / 1e6))


if __name__ == "__main__":
    main()
