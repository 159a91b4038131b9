"""Where a prompt starts. Each function returns (P, H) in float32, or (P, W) for prefixes; none keeps the model's table.

Which start is used moves results by more than the choice of method does, so it is an option of every method.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

import torch
from torch import Tensor

from ..errors import ConfigError, PromptError
from ..model.attention import Site
from ..model.model import Model
from ..model.rows import Row, collate
from ..prompt import store
from ..prompt.values import Frame, Prefix, Soft
from .makers import join_sites

INITS = ("random", "vocab", "text", "labels", "prompt")


def vectors(model: Model, frame: Frame, length: int, init: str, source: str, generator: torch.Generator) -> Tensor:
    """(P, H). init: one of INITS. source: the text for "text", the folder for "prompt"."""
    table = model.embeddings.detach()
    if init == "random":  # the table's own spread: vectors of another size saturate the first layer
        return torch.randn(length, model.hidden, generator=generator) * model.scale
    if init == "vocab":
        return _rows(table, torch.randint(table.shape[0], (length,), generator=generator).tolist())
    if init == "text":
        if not source:
            raise ConfigError("init=text needs the text: source='Sort this message by team.'")
        return _fill(table, _ids(model, source), length)
    if init == "labels":
        if not frame.words:
            raise ConfigError("init=labels needs a classification task; use init=vocab or init=text")
        ids = [i for word in frame.words for i in _ids(model, word)]
        return _fill(table, ids, length)
    if init == "prompt":
        prompt = loaded(model, source)
        if not isinstance(prompt, Soft):
            raise PromptError(f"{source} holds a {prompt.kind} prompt; a soft prompt is needed to start another")
        return cycle(prompt.vectors.float(), length)
    raise ConfigError(f"init is {init!r}; it must be one of {', '.join(INITS)}")


def prefix(
    model: Model, sites: Sequence[Site], length: int, init: str, source: str, generator: torch.Generator
) -> Tensor:
    """(P, W) keys and values. init: "random", "text" (those that the model computes for a real text) or "prompt"."""
    from .makers import width

    if init == "random":
        return 0.02 * torch.randn(length, width(sites), generator=generator)
    if init == "text":
        ids = _ids(model, source) if source else None
        if source and not ids:
            raise ConfigError(f"init=text: {source!r} has no tokens")
        if not ids:  # words drawn from the vocabulary are a real text too
            ids = torch.randint(model.embeddings.shape[0], (length,), generator=generator).tolist()
        before, _ = model.renderer(Frame()).specials
        codes = tuple((before + [ids[i % len(ids)] for i in range(length)])[:length])
        decoder = codes if model.two_stacks else ()
        batch = collate([Row(codes, (0,) * len(codes), inputs=len(codes), decoder=decoder)]).to(model.device)
        with torch.no_grad(), model.frozen():
            return join_sites(model.keys_and_values(batch), sites).float().cpu()
    if init == "prompt":
        prompt = loaded(model, source)
        if not isinstance(prompt, Prefix):
            raise PromptError(f"{source} holds a {prompt.kind} prompt; a prefix is needed to start another")
        if missing := {s.stack for s in sites} - set(prompt.keys):
            raise PromptError(f"the prefix in {source} has no keys for the {', '.join(sorted(missing))} attention")
        pairs = {s: list(zip((k[None] for k in ks), (v[None] for v in prompt.values[s]), strict=True))
                 for s, ks in prompt.keys.items()}  # fmt: skip
        return cycle(join_sites(pairs, sites).float(), length)
    raise ConfigError(f"init is {init!r}; for a prefix it must be random, text or prompt")


def loaded(model: Model, source: str) -> Soft | Prefix:
    if not source or not os.path.isdir(source):
        raise ConfigError(f"init=prompt needs a prompt's folder in source=..., got {source!r}")
    prompt = store.load(source)
    store.check(prompt, model.name, model.fingerprint)
    if not isinstance(prompt, Soft | Prefix):
        raise PromptError(f"{source} holds a {prompt.kind} prompt, which has no vectors to start from")
    return prompt


def cycle(rows: Tensor, length: int) -> Tensor:
    """The first `length` rows, from the beginning again where there are fewer."""
    return rows[torch.arange(length) % rows.shape[0]].clone()


def _ids(model: Model, text: str) -> list[int]:
    return list(model.tokenizer(text, add_special_tokens=False)["input_ids"])


def _rows(table: Tensor, ids: Sequence[int]) -> Tensor:
    return table[torch.tensor(ids, device=table.device)].float().cpu()


def _fill(table: Tensor, ids: Sequence[int], length: int) -> Tensor:
    return cycle(_rows(table, ids), length)
