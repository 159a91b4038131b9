"""Writing text with a prompt in front: transformers' own generate, with the prompt in the network."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from ..prompt.values import Prompt
from .attention import _override
from .model import Model, Placed, batches_by_length
from .rows import collate


@torch.no_grad()
def write(
    model: Model, prompt: Prompt, inputs: Sequence[Sequence[str]], *, tokens: int = 64, size: int = 16, **options: Any
) -> list[str]:
    """Texts that the model writes for `inputs`, greedily unless `options` (of transformers' generate) say otherwise."""
    rows = list(model.renderer(prompt.frame, prompt).rows(inputs))
    out = [""] * len(rows)
    for index in batches_by_length(rows, size):
        ids = generate(model, prompt, [rows[i] for i in index], tokens=tokens, **options)
        for i, row in zip(index, ids.tolist(), strict=True):
            out[i] = model.tokenizer.decode(row, skip_special_tokens=True).strip()
    return out


@torch.no_grad()
def generate(model: Model, prompt: Prompt, rows: Sequence[Any], *, tokens: int = 64, **options: Any) -> Tensor:
    """New token ids, (B, up to `tokens`), padded with the padding token."""
    side = "right" if model.two_stacks else "left"
    batch = collate(rows, side).to(model.device)
    with model.frozen():
        placed = model.place(prompt, batch)
        x = model.inputs(batch, placed)
        options = {"do_sample": False, "num_beams": 1, "pad_token_id": _pad(model), **options}
        with model.session(placed).open(), _positions(model, placed):
            out = model.network.generate(
                inputs_embeds=x, attention_mask=batch.mask.long(), max_new_tokens=tokens, **options
            )
    return out[:, 1:] if model.two_stacks else out


def _pad(model: Model) -> int:
    pad = model.tokenizer.pad_token_id
    return int(pad if pad is not None else model.tokenizer.eos_token_id or 0)


@contextmanager
def _positions(model: Model, placed: Placed) -> Iterator[None]:
    """While generating: position ids from the whole mask, moved by the prefix's shift, at every step."""
    if not model.takes_positions or model.two_stacks:
        yield
        return
    forward: Callable[..., Any] = model.core.forward

    def run(*args: Any, **kw: Any) -> Any:
        given = next((t for t in (*args[:1], kw.get("input_ids"), kw.get("inputs_embeds")) if t is not None), None)
        mask = kw.get("attention_mask")
        if given is not None:
            B, new = given.shape[:2]
            if not isinstance(mask, Tensor) or mask.dim() != 2:  # generate drops a mask that hides nothing
                cache = kw.get("past_key_values")
                before = cache.get_seq_length() if cache is not None else 0
                mask = torch.ones(B, before + new, dtype=torch.long, device=given.device)
            kw["position_ids"] = model.positions(mask, placed.shift)[:, -new:]
        return forward(*args, **kw)

    back = _override(model.core, run)
    try:
        yield
    finally:
        back()
