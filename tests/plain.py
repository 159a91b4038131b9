"""The slow way: scores of a prompt on a tiny dual encoder with transformers' own layers, nothing shared or kept.

Texts are padded to the full length, every class is run whole, prompt rows stand where the papers put them (behind the
start token and the class token), rows that only read are kept from being read by a mask. Written apart from the
library's own way through the towers: the tests compare the two.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from anacrusis.model.classtexts import ClassTexts
from anacrusis.model.images import ImageBatch
from anacrusis.model.sight import Sides, Sight
from anacrusis.prompt.values import Frame, Pixels, Tokens

NO = float("-inf")


def texts(model: Sight, frame: Frame, prompt: Tokens | None) -> Tensor:
    """(C, D), (B, C, D) or (C, M, D)."""
    if prompt is not None and prompt.per == "input":
        each = [{i: t[b] for i, t in prompt.layers.items()} for b in range(prompt.layers[0].shape[0])]
        return torch.stack([_texts(model, frame, Tokens(side="text", layers=e)) for e in each])
    return _texts(model, frame, prompt)


def _texts(model: Sight, frame: Frame, prompt: Tokens | None) -> Tensor:
    net = model.network
    core = net.text_model
    causal = hasattr(net, "text_projection")
    reading = prompt is not None and prompt.read_only
    M = 0 if prompt is None or reading else prompt.length
    laid = ClassTexts.of(model.tokenizer, frame, M, model.limit, True, 0)
    true = ClassTexts.of(model.tokenizer, frame, M, model.limit, not causal, 0)
    out = []
    for r, codes in enumerate(laid.codes):
        own = {} if prompt is None else {
            i: t[int(laid.owner[r])] if prompt.per == "class" else t for i, t in prompt.layers.items()}  # fmt: skip
        S = len(codes)
        virtual = (codes < 0).nonzero()[:, 0].tolist()
        x = core.embeddings.token_embedding(codes.clamp(min=0))
        if not reading:
            for at in virtual:
                x = torch.cat([x[:at], own[0][-1 - int(codes[at])][None], x[at + 1 :]])
        x = x + core.embeddings.position_embedding.weight[:S]
        n, last = S, int(true.last[r])
        mask = torch.full((S, S), NO).triu(1) if causal else torch.zeros(S, S)
        if reading:
            K = own[0].shape[0]
            x = torch.cat([x, own[0]])
            mask = F.pad(mask, (0, K, 0, K), value=NO)
            mask[n:, : last + 1] = 0  # rows read the text up to its end, and nothing else
        x = x[None]
        for i, layer in enumerate(core.encoder.layers):
            if i and i in own:
                for at in virtual:
                    x = torch.cat([x[:, :at], own[i][-1 - int(codes[at])][None, None], x[:, at + 1 :]], 1)
            x = layer(x, attention_mask=mask[None, None])
        x = core.final_layer_norm(x[0])
        read = x[n:] if reading else x[last][None]
        out.append(F.normalize((net.text_projection if causal else core.head)(read), dim=-1))
    z = torch.stack(out)
    z = z if reading else z[:, 0]
    rows = [z[laid.owner == c].mean(0) for c in range(laid.classes)]
    return F.normalize(torch.stack(rows), dim=-1) if len(z) > laid.classes else z


def images(model: Sight, batch: ImageBatch, prompt: Any) -> Tensor:
    """(B, D) or (B, M, D)."""
    net = model.network
    core = net.vision_model
    out = []
    for b in range(len(batch)):
        raw = batch.raw[b : b + 1]
        if isinstance(prompt, Pixels):
            delta = prompt.delta[b] if prompt.delta.dim() == 4 else prompt.delta
            raw = raw + delta if prompt.space == "raw" else raw
            raw = raw.clamp(0, 1) if prompt.clip and prompt.space == "raw" else raw
        pixels = model.prepare.normalised(raw)
        if isinstance(prompt, Pixels) and prompt.space == "normalised":
            pixels = pixels + prompt.delta
        x = core.embeddings(pixels)
        norm = getattr(core, "pre_layrnorm", None)
        own = {} if not isinstance(prompt, Tokens) else {
            i: (t[b] if prompt.per == "input" else t)[None] for i, t in prompt.layers.items()}  # fmt: skip
        first = 0 if norm is None else 1  # behind the class token, where there is one
        if norm is not None:
            if 0 in own and prompt.entry == "before-norm":
                own[0] = norm(own[0])
            x = norm(x)
        n, M = x.shape[1], 0
        for i, layer in enumerate(core.encoder.layers):
            if i in own:
                x = torch.cat([x[:, :first], own[i], x[:, first + M :]], 1)
                M = own[i].shape[1]
            mask = torch.zeros(n + M, n + M)
            if isinstance(prompt, Tokens) and prompt.read_only:
                mask[:, first : first + M] = NO
            x = layer(x, attention_mask=mask[None, None])
        rows = x[:, first : first + M]
        x = torch.cat([x[:, :first], x[:, first + M :]], 1)
        out.append(_pool(net, core, rows if isinstance(prompt, Tokens) and prompt.read_only else x, prompt))
    return F.normalize(torch.cat(out), dim=-1)


def _pool(net: Any, core: Any, x: Tensor, prompt: Any) -> Tensor:
    reading = isinstance(prompt, Tokens) and prompt.read_only
    if hasattr(core, "head"):
        x = core.post_layernorm(x)
        return core.head(x.transpose(0, 1))[None] if reading else core.head(x)
    return net.visual_projection(core.post_layernorm(x if reading else x[:, 0]))


def scores(model: Sight, frame: Frame, sides: Sides, batch: ImageBatch) -> Tensor:
    t, f = texts(model, frame, sides.text), images(model, batch, sides.image)
    if f.dim() == 3:
        z = torch.stack([f[:, k] @ t[:, k].T for k in range(f.shape[1])]).mean(0)
    elif t.dim() == 3:
        z = torch.stack([f[b] @ t[b].T for b in range(len(f))])
    else:
        z = f @ t.T
    if sides.cache is not None:
        near = torch.exp(-sides.cache.beta * (1 - f @ sides.cache.keys.T))
        z = z + sides.cache.alpha * near @ sides.cache.values / model.logit_scale
    return model.logit_scale * z + model.logit_bias
