"""One frozen transformer tower, driven block by block, and the one place where rows of a prompt enter it.

Nobody edits a backbone: the blocks' own layers are called, and the attention between them is done here, so that the
rows of a prompt can be put in, replaced, gated, weighed or kept from being read. Every tower of pre-norm blocks has
the same view (CLIP, SigLIP, ViT, DeiT, MAE, DINOv2 of transformers; timm; open_clip).

Shapes: B rows, n own tokens of a row, M prompt rows, d width, h heads. In an image tower the place of a row in the
sequence has no meaning of its own, so prompt rows always stand behind the own ones.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import ModelError

Layer = Callable[[Tensor], Tensor]
Memory = list[tuple[Tensor, Tensor]]  # keys and values of each layer, (B, h, n, d / h)


def _same(x: Tensor) -> Tensor:
    return x


@dataclass(frozen=True)
class Block:
    """x + after1(out(attention(qkv(norm1(x))))), then x + after2(mlp(norm2(x)))."""

    norm1: Layer
    qkv: Callable[[Tensor], tuple[Tensor, Tensor, Tensor]]  # (B, n, d) -> three of (B, h, n, d / h)
    out: Layer  # (B, n, d) -> (B, n, d)
    norm2: Layer
    mlp: Layer
    after1: Layer = _same  # layer scale
    after2: Layer = _same

    def keys_and_values(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return self.qkv(self.norm1(x))

    def finish(self, x: Tensor, mixed: Tensor) -> Tensor:
        """x: (B, n, d) what came in; mixed: (B, h, n, d / h) what attention gave for the same rows."""
        x = x + self.after1(self.out(mixed.transpose(1, 2).flatten(2)))
        return x + self.after2(self.mlp(self.norm2(x)))


@dataclass(frozen=True, kw_only=True)
class Rows:
    """A prompt's rows in one tower, and how attention treats them. What is None is as the tower has it.

    at: {layer: (M, d) or (B, M, d)}: before that layer the rows take the place of those there were (the first time:
        they come in). M may differ by layer and may be 0. Layers not named see what the layer below made of the rows.
    made: {layer: function of the own tokens (B, n, d) giving (B, M, d)}: rows made on the way; only while learning.
    gates: (L,) in 0..1: before layer l > 0 the rows are gates[l] * out + (1 - gates[l]) * in of layer l - 1.
    temperatures: (L,): attention logits are divided by it.
    entries: (L,): own tokens get attention(own) + tanh(entries[l]) * attention(rows): 0 means no effect.
    mass: (L, 2) >= 0: factors on the weight of rows as own tokens read them, and of own tokens as rows read them.
    """

    at: Mapping[int, Tensor] = field(default_factory=dict)
    made: Mapping[int, Callable[[Tensor], Tensor]] = field(default_factory=dict)
    gates: Tensor | None = None
    temperatures: Tensor | None = None
    entries: Tensor | None = None
    mass: Tensor | None = None

    def before(self, layer: int, own: Tensor, rows: Tensor, entered: Tensor) -> Tensor:
        """The rows that layer `layer` sees. rows: as the layer below left them; entered: as it got them."""
        if layer in self.made:
            return self.made[layer](own).to(own)
        if layer in self.at:
            new = self.at[layer].to(own)
            return new.expand(own.shape[0], -1, -1) if new.dim() == 2 else new
        if self.gates is not None and layer > 0:
            g = self.gates[layer].to(own)
            return g * rows + (1 - g) * entered
        return rows


@dataclass(frozen=True)
class Tower:
    """Blocks in order. width: d; heads: h; causal: whether a token sees only what stands before it."""

    blocks: Sequence[Block]
    width: int
    heads: int
    causal: bool = False

    @property
    def depth(self) -> int:
        return len(self.blocks)

    def run(self, x: Tensor, rows: Rows | None = None, *, first: bool = False) -> tuple[Tensor, Tensor]:
        """(B, n, d) through all blocks, with a prompt's rows. Returns own tokens and rows after the last block.

        first: only the first own token is wanted, (B, 1, d): the last block then computes no other.
        """
        rows = rows or Rows()
        n = x.shape[1]
        extra = entered = x.new_zeros(x.shape[0], 0, x.shape[2])
        for i, block in enumerate(self.blocks):
            extra = entered = rows.before(i, x, extra, entered)
            if extra.shape[0] != x.shape[0]:
                extra = entered = extra.expand(x.shape[0], -1, -1)
            late = first and i == len(self.blocks) - 1
            both = torch.cat([x, extra], 1) if extra.shape[1] else x
            q, k, v = block.keys_and_values(both)
            if late:
                q, both = q[:, :, :1], both[:, :1]
            both = block.finish(both, attend(q, k, v, n, rows, i, own=1 if late else n))
            x, extra = (both, extra) if late else (both[:, :n], both[:, n:])
        return x, extra

    def memory(self, x: Tensor) -> Memory:
        """Keys and values of every layer for (B, n, d), without a prompt."""
        kept = []
        for i, block in enumerate(self.blocks):
            q, k, v = block.keys_and_values(x)
            kept.append((k, v))
            if i < len(self.blocks) - 1:
                x = block.finish(x, F.scaled_dot_product_attention(q, k, v, is_causal=self.causal))
        return kept

    def observe(self, rows: Tensor, memory: Memory, seen: Tensor | None = None) -> Tensor:
        """Rows (B, M, d) that read a frozen stream and nothing else: neither each other nor themselves, nor are they
        read. seen: (B, n) tokens of the stream that may be read. Equal to a read-only mask over the concatenation."""
        mask = None if seen is None else seen[:, None, None, :]
        for block, (k, v) in zip(self.blocks, memory, strict=True):
            q, _, _ = block.keys_and_values(rows)
            rows = block.finish(rows, F.scaled_dot_product_attention(q, k, v, attn_mask=mask))
        return rows

    def behind(
        self, lead: Tensor, tail: Tensor, last: Tensor, deep: Callable[[int, Tensor, Tensor], tuple[Tensor, Tensor]]
    ) -> Tensor:
        """A tower over rows whose first columns are shared: lead (G, p, d), tail (R, m, d), R = G * C. Only a causal
        one can share any: else p is 0.

        Returns the states (R, d) at column `last` (R,) of the tail after the last block. deep(layer, lead, tail) puts
        a prompt's rows into their places. The lead is run once for each of its G rows, not for each of the R.
        """
        (G, p, _), (R, m, _) = lead.shape, tail.shape
        each, at = R // G, torch.arange(R, device=tail.device)
        sees = torch.ones(m, p + m, dtype=torch.bool, device=tail.device)
        sees = sees.tril(p) if self.causal else sees
        for i, block in enumerate(self.blocks):
            lead, tail = deep(i, lead, tail)
            final = i == len(self.blocks) - 1
            q, k, v = block.keys_and_values(tail)
            if p:
                lead_q, lead_k, lead_v = block.keys_and_values(lead)
                if not final:
                    mixed = F.scaled_dot_product_attention(lead_q, lead_k, lead_v, is_causal=True)
                    lead = block.finish(lead, mixed)
                k = torch.cat([_each(lead_k, each, R), k], 2)
                v = torch.cat([_each(lead_v, each, R), v], 2)
            if final:  # one column is read: the others are needed as keys and values only
                q, tail = q[at, :, last][:, :, None], tail[at, last][:, None]
                mask = sees[last][:, None, None]
            else:
                mask = sees
            tail = block.finish(tail, F.scaled_dot_product_attention(q, k, v, attn_mask=mask))
        return tail[:, 0]


def _each(t: Tensor, times: int, rows: int) -> Tensor:
    """(G, ...) -> (R, ...): every row `times` times, without copying where there is one."""
    return t.expand(rows, *t.shape[1:]) if t.shape[0] == 1 else t.repeat_interleave(times, 0)


def attend(q: Tensor, k: Tensor, v: Tensor, n: int, rows: Rows, layer: int, own: int) -> Tensor:
    """Attention of q over n own tokens and the prompt's rows behind them, as `rows` wants it in this layer.

    With lambda the share of attention that falls on the rows, attention is lambda * attention(rows)
    + (1 - lambda) * attention(own): entries and mass change only how the two are put together.
    own: how many of the queries are own tokens; the rest are rows.
    """
    if rows.temperatures is not None:
        q = q / rows.temperatures[layer].to(q)
    if k.shape[2] == n:
        return F.scaled_dot_product_attention(q, k, v)
    if rows.entries is not None:
        alone = F.scaled_dot_product_attention(q[:, :, :own], k[:, :, :n], v[:, :, :n])
        more = F.scaled_dot_product_attention(q[:, :, :own], k[:, :, n:], v[:, :, n:])
        mixed = alone + torch.tanh(rows.entries[layer]).to(q) * more
        if q.shape[2] == own:
            return mixed
        return torch.cat([mixed, F.scaled_dot_product_attention(q[:, :, own:], k, v)], 2)
    if rows.mass is not None:
        log = rows.mass[layer].to(q).log()  # a factor of 0 is a mask
        forward = torch.cat([q.new_zeros(n), log[0].expand(k.shape[2] - n)])
        back = torch.cat([log[1].expand(n), q.new_zeros(k.shape[2] - n)])
        bias = torch.cat([forward.expand(own, -1), back.expand(q.shape[2] - own, -1)])
        return F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
    return F.scaled_dot_product_attention(q, k, v)


# --- the blocks of the families


def tower(layers: Sequence[nn.Module], *, causal: bool = False) -> Tower:
    """The view of a list of pre-norm blocks. Raises ModelError for blocks of another kind."""
    made = [_block(layer) for layer in layers]
    if not made:
        raise ModelError("this network has no transformer blocks: prompts cannot enter it as tokens")
    (_, width, heads) = made[0]
    return Tower([b for b, _, _ in made], width, heads, causal)


def _block(layer: Any) -> tuple[Block, int, int]:
    attention = _one(layer, "self_attn", "attn", "attention")
    norm1, norm2 = _one(layer, "layer_norm1", "layernorm_before", "norm1", "ln_1"), _one(
        layer, "layer_norm2", "layernorm_after", "norm2", "ln_2"
    )  # fmt: skip
    after1, after2 = (_any(layer, f"layer_scale{i}", f"ls{i}", f"ls_{i}") or _same for i in (1, 2))
    qkv, out, width, heads = _attention(attention)
    return Block(norm1, qkv, out, norm2, layer.mlp, after1, after2), width, heads


def _attention(a: Any) -> tuple[Any, Layer, int, int]:
    heads = int(_one(a, "num_heads", "num_attention_heads"))

    def split(t: Tensor) -> Tensor:
        return t.unflatten(-1, (heads, -1)).transpose(1, 2)

    if isinstance(a, nn.MultiheadAttention):  # open_clip

        def packed(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            q, k, v = F.linear(x, a.in_proj_weight, a.in_proj_bias).chunk(3, -1)
            return split(q), split(k), split(v)

        return packed, a.out_proj, int(a.embed_dim), heads
    if hasattr(a, "qkv"):  # timm
        q_norm, k_norm = (_any(a, name) or _same for name in ("q_norm", "k_norm"))
        before_out = _any(a, "norm") or _same

        def fused(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            q, k, v = a.qkv(x).chunk(3, -1)
            return q_norm(split(q)), k_norm(split(k)), split(v)

        return fused, lambda x: a.proj(before_out(x)), int(a.qkv.in_features), heads
    if hasattr(a, "q_proj"):  # transformers

        def apart(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            return split(a.q_proj(x)), split(a.k_proj(x)), split(a.v_proj(x))

        return apart, _one(a, "out_proj", "o_proj"), int(a.q_proj.in_features), heads
    raise ModelError(f"attention of the type {type(a).__name__} is not known: prompts cannot enter it as tokens")


def _any(module: Any, *names: str) -> Any:
    return next((getattr(module, n) for n in names if getattr(module, n, None) is not None), None)


def _one(module: Any, *names: str) -> Any:
    found = _any(module, *names)
    if found is None:
        raise ModelError(
            f"a block of the type {type(module).__name__} has none of {', '.join(names)}: prompts cannot enter it"
        )
    return found
