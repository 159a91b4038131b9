"""How keys and values enter a network: one attention function for all families of transformers' attention interface.

While a `Session` is open the model's configurations name our attention function. It puts a prefix before the layer's
own keys and values, widens mask and position bias accordingly, and hands over to the function that was set before.
Nothing is written into a cache, so `generate`, left padding and activation checkpointing work as without a prefix.
On leaving, configurations, layers and activations are exactly what they were.

    softmax([q Kp ; q K] + mask) [Vp ; V]      q: (B, heads, T, d); Kp, Vp: (B, kv_heads, P, d); K, V: (.., T, d)

`late` computes the last layer for the rows only that somebody reads: keys and values of all tokens are taken from a
first pass that stops inside the attention, then the layer runs on the read columns alone. Exact, since no later layer
looks at the others.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

NAME = "anacrusis"


@dataclass(frozen=True)
class Site:
    """One attention of the network, found by watching a short forward pass."""

    module: nn.Module
    path: str  # e.g. "transformer.h.3.attn"
    stack: str  # "encoder", "decoder" or "cross"
    layer: int  # index within the stack
    heads: int  # key-value heads
    dim: int  # d, per head


class _Enough(Exception):
    """Keys and values are known; the rest of this pass would be thrown away."""


@dataclass
class _Late:
    at: Tensor  # (B, R) columns that are read
    keys: Tensor | None = None
    values: Tensor | None = None
    mask: Tensor | None = None
    causal: bool = False


@dataclass
class _Slot:
    """What one attention module has to do while a session is open."""

    keys: Tensor | None = None  # (B or 1, heads, P, d)
    values: Tensor | None = None
    seen: Tensor | None = None  # (B, P) bool
    record: list[tuple[Tensor, Tensor]] | None = None
    late: _Late | None = None


_SLOTS: dict[nn.Module, _Slot] = {}
_BASES: dict[int, str] = {}  # id(config) -> the attention implementation that a session replaced
_TRACE: list[tuple[nn.Module, int, int, int]] | None = None  # (module, heads, key length, d) while sites are looked for


def _base(module: nn.Module) -> Callable[..., Any]:
    eager = getattr(sys.modules[type(module).__module__], "eager_attention_forward", None)
    return ALL_ATTENTION_FUNCTIONS.get_interface(_BASES[id(module.config)], eager)


def _is_causal(module: nn.Module, query: Tensor, kw: dict[str, Any]) -> bool:
    said = kw.get("is_causal")
    return query.shape[2] > 1 and bool(getattr(module, "is_causal", True) if said is None else said)


def _attend(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None = None, **kw: Any
) -> tuple[Tensor, Any]:
    if _TRACE is not None:
        _TRACE.append((module, key.shape[1], key.shape[2], key.shape[3]))
    slot = _SLOTS.get(module)
    if slot is None:
        return _base(module)(module, query, key, value, attention_mask, **kw)
    if slot.record is not None:
        slot.record.append((key, value))
    mask, bias = attention_mask, kw.get("position_bias")
    if slot.late is not None and slot.late.keys is not None:
        late = slot.late
        assert late.keys is not None and late.values is not None
        key, value, mask = late.keys, late.values, _rows(late, query)
        kw["is_causal"] = False
    else:
        if slot.keys is not None and slot.values is not None and slot.keys.shape[2]:
            mask, bias = _widen(module, slot, query, key, mask, kw)
            B = key.shape[0]
            key = torch.cat([slot.keys.to(key).expand(B, -1, -1, -1), key], dim=2)
            value = torch.cat([slot.values.to(value).expand(B, -1, -1, -1), value], dim=2)
            kw["is_causal"] = False  # the widened mask says it
        if slot.late is not None:
            slot.late.keys, slot.late.values, slot.late.mask = key, value, mask
            slot.late.causal = _is_causal(module, query, kw)
            raise _Enough
    if "position_bias" in kw:
        kw["position_bias"] = bias
    return _base(module)(module, query, key, value, mask, **kw)


def _widen(
    module: nn.Module, slot: _Slot, query: Tensor, key: Tensor, mask: Tensor | None, kw: dict[str, Any]
) -> tuple[Tensor | None, Tensor | None]:
    """Mask (B or 1, 1, Q, P + K) and position bias for P more columns on the left, which every row may look at."""
    assert slot.keys is not None
    P, Q, K = slot.keys.shape[2], query.shape[2], key.shape[2]
    if mask is None and (_is_causal(module, query, kw) or slot.seen is not None):
        mask = torch.ones(Q, K, dtype=torch.bool, device=query.device)
        if _is_causal(module, query, kw):
            mask = mask.tril(K - Q)
        mask = mask[None, None]
    if mask is not None:
        seen = torch.ones(1, P, dtype=torch.bool, device=mask.device) if slot.seen is None else slot.seen
        seen = seen[:, None, None, :]
        if mask.dtype != torch.bool:  # additive, as eager attention wants it
            seen = torch.zeros(seen.shape, dtype=mask.dtype, device=mask.device).masked_fill(
                ~seen, torch.finfo(mask.dtype).min
            )
        rows = max(mask.shape[0], seen.shape[0])
        left = seen.expand(rows, mask.shape[1], mask.shape[2], P)
        mask = torch.cat([left, mask.expand(rows, -1, -1, -1)], dim=-1)
    bias = kw.get("position_bias")
    if bias is not None:  # T5: a prefix has no position, so its columns get no bias
        bias = torch.cat([bias.new_zeros(*bias.shape[:-1], P), bias], dim=-1)
    return mask, bias


def _rows(late: _Late, query: Tensor) -> Tensor | None:
    """The mask's rows for the columns that are read: (B, 1, R, K)."""
    assert late.keys is not None
    B, R = late.at.shape
    K = late.keys.shape[2]
    if late.mask is None:
        if not late.causal:
            return None
        return (torch.arange(K, device=query.device) <= late.at[..., None])[:, None]
    if late.mask.shape[2] == 1:
        return late.mask
    index = late.at[:, None, :, None].expand(B, late.mask.shape[1], R, K)
    return late.mask.expand(B, -1, -1, -1).gather(2, index)


def _mask(*args: Any, config: Any = None, **kw: Any) -> Any:
    return ALL_MASK_ATTENTION_FUNCTIONS[_BASES[id(config)]](*args, config=config, **kw)


AttentionInterface.register(NAME, _attend)
AttentionMaskInterface.register(NAME, _mask)


@contextmanager
def _implementation(network: nn.Module) -> Iterator[None]:
    """Let every configuration of the network name our attention function; nested use is free."""
    configs: dict[int, Any] = {id(m.config): m.config for m in network.modules() if hasattr(m, "config")}
    changed = {i: c for i, c in configs.items() if c._attn_implementation_internal != NAME}
    before = {i: c._attn_implementation_internal for i, c in changed.items()}
    try:
        for i, c in changed.items():
            # flash kernels take no 4-D mask; scaled dot product attention gives the same numbers
            _BASES[i] = "sdpa" if str(before[i]).startswith("flash") else (before[i] or "eager")
            c._attn_implementation_internal = NAME
        yield
    finally:
        for i, c in changed.items():
            c._attn_implementation_internal = before[i]
            del _BASES[i]


def find_sites(network: nn.Module, probe: Callable[[], Any], encoder_length: int) -> tuple[Site, ...]:
    """Watch `probe` (a short forward pass) and return the attentions in the order in which they run.

    encoder_length: tokens that the probe gives an encoder; a decoder attention over that many keys is cross attention.
    """
    global _TRACE
    paths = {m: p for p, m in network.named_modules()}
    try:
        _TRACE = []
        with _implementation(network), torch.no_grad():
            probe()
        seen = _TRACE
    finally:
        _TRACE = None
    two_stacks = bool(getattr(network.config, "is_encoder_decoder", False))
    sites: list[Site] = []
    counts = {"encoder": 0, "decoder": 0, "cross": 0}
    for module, heads, length, dim in seen:
        path = paths[module]
        if two_stacks:
            stack = "encoder" if "decoder" not in path.split(".") else "decoder"
            stack = "cross" if stack == "decoder" and length == encoder_length else stack
        else:
            stack = "decoder" if getattr(module, "is_causal", True) else "encoder"
        sites.append(Site(module, path, stack, counts[stack], heads, dim))
        counts[stack] += 1
    return tuple(sites)


@dataclass
class Session:
    """What one forward pass of a network does beyond its own. Enter it around the pass; it may be entered again.

    keys, values: by stack, a tensor a layer, (B or 1, heads, P, d). seen: by stack, (B, P). record: keep each
    attention's own keys and values in `recorded`. late_at: (B, R), read columns, or None for all. recompute: activation
    checkpointing, one segment a layer.
    """

    network: nn.Module
    sites: Sequence[Site]
    keys: dict[str, Sequence[Tensor]] = field(default_factory=dict)
    values: dict[str, Sequence[Tensor]] = field(default_factory=dict)
    seen: dict[str, Tensor] = field(default_factory=dict)
    record: bool = False
    late_at: Tensor | None = None
    recompute: bool = False
    recorded: dict[nn.Module, list[tuple[Tensor, Tensor]]] = field(default_factory=dict)

    @contextmanager
    def open(self) -> Iterator[Session]:
        before = dict(_SLOTS)
        undo: list[Callable[[], None]] = []
        try:
            with _implementation(self.network):
                for site in self.sites:
                    _SLOTS[site.module] = self._slot(site)
                undo += self._override_layers()
                undo += fuse_activations(self.network)
                yield self
        finally:
            for back in reversed(undo):
                back()
            _SLOTS.clear()
            _SLOTS.update(before)

    def _slot(self, site: Site) -> _Slot:
        slot = _Slot(record=self.recorded.setdefault(site.module, []) if self.record else None)
        if site.stack in self.keys:
            slot.keys, slot.values = self.keys[site.stack][site.layer], self.values[site.stack][site.layer]
            slot.seen = self.seen.get(site.stack)
        return slot

    def _override_layers(self) -> list[Callable[[], None]]:
        undo: list[Callable[[], None]] = []
        layers = layers_of(self.network, self.sites)
        if self.recompute:  # the late layer keeps little, and its first pass must not be recomputed
            for layer in layers if self.late_at is None else layers[:-1]:
                undo.append(_override(layer, self._recomputed(layer.forward)))
        if self.late_at is not None:
            last = [s for s in self.sites if s.stack == "decoder"] or list(self.sites)
            undo.append(_override(layers[-1], self._late(layers[-1].forward, last[-1].module, self.late_at)))
        return undo

    def _recomputed(self, forward: Callable[..., Any]) -> Callable[..., Any]:
        again = Session(self.network, self.sites, self.keys, self.values, self.seen)

        def run(*args: Any, **kw: Any) -> Any:
            with again.open():  # the second time, this session is long closed
                return forward(*args, **kw)

        return lambda *args, **kw: checkpoint(run, *args, use_reentrant=False, preserve_rng_state=False, **kw)

    def _late(self, forward: Callable[..., Any], attention: nn.Module, at: Tensor) -> Callable[..., Any]:
        def take(x: Tensor) -> Tensor:  # (B or 1, S, ...) -> (B, R, ...)
            x = x.expand(at.shape[0], *x.shape[1:])
            index = at.reshape(*at.shape, *([1] * (x.dim() - 2))).expand(*at.shape, *x.shape[2:])
            return x.gather(1, index)

        def put(like: Tensor, x: Tensor) -> Tensor:  # (B, R, H) -> (B, S, H), zero in columns that nobody reads
            once = torch.ones_like(at, dtype=torch.bool)
            once[:, 1:] = at[:, 1:] != at[:, :1]  # padding repeats the first column: it must not count twice
            index = at[..., None].expand(-1, -1, x.shape[-1])
            return torch.zeros_like(like).scatter_add(1, index, x * once[..., None])

        def run(hidden: Tensor, *args: Any, **kw: Any) -> Any:
            slot = _SLOTS[attention]
            slot.late = _Late(at)
            try:
                forward(hidden, *args, **kw)
            except _Enough:
                pass
            if isinstance(kw.get("position_embeddings"), tuple):
                kw["position_embeddings"] = tuple(take(e) for e in kw["position_embeddings"])
            if isinstance(kw.get("position_ids"), Tensor):
                kw["position_ids"] = take(kw["position_ids"])
            out = forward(take(hidden), *args, **kw)
            if isinstance(out, tuple):
                return (put(hidden, out[0]), *out[1:])
            return put(hidden, out)

        return run


def layers_of(network: nn.Module, sites: Sequence[Site]) -> list[nn.Module]:
    """The blocks that hold the sites, each once, in running order: the part of a site's path up to its number."""
    found: dict[str, nn.Module] = {}
    for site in sites:
        parts = site.path.split(".")
        numbers = [i for i, p in enumerate(parts) if p.isdigit()]
        path = ".".join(parts[: numbers[0] + 1]) if numbers else site.path
        found.setdefault(path, network.get_submodule(path))
    return list(found.values())


def _override(module: nn.Module, forward: Callable[..., Any]) -> Callable[[], None]:
    """Give one module instance another forward; returns what takes it back."""
    had = module.__dict__.get("forward")
    module.forward = forward

    def back() -> None:
        if had is None:
            del module.forward
        else:
            module.forward = had

    return back


def fuse_activations(network: nn.Module) -> list[Callable[[], None]]:
    """Let the tanh form of GELU run as one kernel. Equal to 1e-6; transformers' NewGELU is eight passes over memory."""
    return [
        _override(m, lambda x: nn.functional.gelu(x, approximate="tanh"))
        for m in network.modules()
        if type(m).__name__ == "NewGELUActivation"
    ]
