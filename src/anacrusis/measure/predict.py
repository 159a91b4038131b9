"""Answers of a prompt on a model: for one prompt, or for a batch in which every row has its own."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import ModelError, PromptError, ServiceError
from ..model import open as _open
from ..model.calls import Reply
from ..model.model import Model, batches_by_length
from ..model.readout import Reader, reader, score_all
from ..model.rows import collate
from ..model.say import call, understood
from ..model.warm import warm
from ..model.write import write
from ..prompt.store import check
from ..prompt.values import Adapter, Adaptive, Constant, Prompt

Inputs = Sequence[tuple[Any, ...]]  # texts, or pictures: paths, arrays (H, W, 3), PIL images
ANSWER_TOKENS = 256  # of an endpoint's reply, at most


def as_inputs(texts: Any, fields: Sequence[str]) -> list[tuple[Any, ...]]:
    """One text, texts, or tuples of texts (pairs) as a list of tuples, one text a field; or one picture or several."""
    if tuple(fields) == ("image",):
        shape: tuple[int, ...] = getattr(texts, "shape", ())
        whole = len(shape) == 2 or (len(shape) == 3 and shape[-1] in (1, 3))  # one array, not several
        single = isinstance(texts, str | bytes | os.PathLike) or hasattr(texts, "convert") or whole
        several = [texts] if single else list(texts)
        # a path is a picture; plain texts are captions, which only examples of a task are
        return [(Path(x) if isinstance(x, str) and not hasattr(x, "load") else x,) for x in several]
    if isinstance(texts, str):
        texts = [texts]
    out = [(t,) if isinstance(t, str) else tuple(t) for t in texts]
    for i, t in enumerate(out):
        if len(t) != len(fields):
            raise PromptError(f"input {i} has {len(t)} texts; this prompt reads {len(fields)}: {', '.join(fields)}")
    return out


def predict(prompt: Prompt, texts: Any, model: Any = None) -> list[Any]:
    """Class names (tuples of them where several may hold), or written texts, in the order given."""
    if model is None and not isinstance(prompt, Constant):
        name = prompt.card.get("model")
        if not name:
            raise PromptError("this prompt's card names no model; give one: predict(texts, model=ana.open(...))")
        model = _open.open(str(name))
    inputs = as_inputs(texts, prompt.frame.fields)
    if prompt.frame.readout == "generate":
        return written(prompt, inputs, model)
    if prompt.frame.readout == "answer" and not isinstance(prompt, Constant):
        return [None if c is None else prompt.frame.labels[c] for c in named(prompt, inputs, model)]
    return answers(prompt, scores(prompt, inputs, model))


def named(prompt: Prompt, inputs: Inputs, model: Any, done: Any = None) -> list[int | None]:
    """Class indexes that an endpoint's replies name, None for a reply that names none. Raises ServiceError."""
    return [understood(prompt.frame, r)[0] for r in _replies(prompt, inputs, model, done)]


def _replies(prompt: Prompt, inputs: Inputs, model: Any, done: Any = None) -> list[Reply]:
    if model.arrangement != "endpoint":
        raise ModelError(
            f"the readout {prompt.frame.readout!r} is for models that only write; {model.name} is {model.arrangement}. "
            "Learn a prompt for it"
        )
    check(prompt, model.name, model.fingerprint)
    # as many tokens as it was scored with, so that a score can be made again
    tokens = int(prompt.card.get("answer_tokens", ANSWER_TOKENS))
    calls = [call(prompt.frame, x, tokens=tokens) for x in inputs]
    replies = model.complete(calls, lambda several: done(len(several)) if done else None)
    if lost := [r for r in replies if r.outcome == "failed"]:
        raise ServiceError(
            f"{len(lost)} of {len(calls)} calls to {model.name} failed: {lost[0].detail}. Try again later"
        )
    return list(replies)


def answers(prompt: Prompt, z: Tensor) -> list[Any]:
    """Class names from scores (N, C): the best one, or all above 0 where several may hold."""
    labels = prompt.frame.labels
    if prompt.frame.multi:
        return [tuple(labels[c] for c in range(len(labels)) if row[c] > 0) for row in z.tolist()]
    return [labels[c] for c in z.argmax(1).tolist()]


def scores(prompt: Prompt, inputs: Inputs, model: Any, *, size: int = 32, done: Any = None) -> Tensor:
    """(N, C) scores over classes, in the order of `inputs`. Refuses a model that the prompt was not learned for."""
    if isinstance(prompt, Constant):
        return prompt.scores.repeat(len(inputs), 1)
    if isinstance(prompt, Adaptive):
        from ..adapt.prompts import scores as adapted

        check(prompt, model.name, model.fingerprint)
        return adapted(prompt, inputs, model, done)
    with _at_work(prompt, model):
        prompt = warm(model, prompt)
        read = reader(model, prompt.frame)
        return score_all(read, read.rows(inputs, prompt), prompt, size=size, done=done)


def written(prompt: Prompt, inputs: Inputs, model: Model) -> list[str]:
    """Texts that the model writes under the prompt, in the order of `inputs`."""
    if model.arrangement == "endpoint":
        return [r.text for r in _replies(prompt, inputs, model)]
    with _at_work(prompt, model):
        tokens = prompt.card.get("answer_tokens")
        return write(model, prompt, inputs, **({"tokens": int(tokens)} if tokens else {}))


@contextmanager
def _at_work(prompt: Prompt, model: Model) -> Iterator[None]:
    """The model as the prompt was learned for it; low-rank deltas are in the network meanwhile."""
    check(prompt, model.name, model.fingerprint)
    if isinstance(prompt, Adapter):
        from ..tune.adapter import attached

        with attached(model, prompt):
            yield
    else:
        yield


@torch.no_grad()
def mixed_scores(
    prompts: Sequence[Prompt],
    which: Sequence[int],
    inputs: Inputs,
    model: Model,
    *,
    size: int = 32,
    ready: bool = False,
) -> list[Tensor]:
    """Scores of a batch in which row b is answered under prompts[which[b]]; kinds, lengths and classes may differ.

    Returns one (C,) tensor a row. Equal to running each prompt alone. ready: the prompts have been checked and warmed.
    """
    if "images" in model.can:
        return _mixed_pictures(prompts, which, inputs, model, size)
    if not ready:
        prompts = ready_to_mix(prompts, model)
    readers: list[Reader] = [reader(model, p.frame) for p in prompts]
    out: list[Tensor] = [torch.empty(0)] * len(inputs)
    rows = [readers[w].rows([x], prompts[w])[0] for w, x in zip(which, inputs, strict=True)]
    with model.frozen():
        for index in batches_by_length(rows, size):
            batch = collate([rows[i] for i in index]).to(model.device)
            wanted = [which[i] for i in index]
            placed = model.mix(prompts, wanted, batch)
            whole = any(readers[w].at(batch) is None for w in set(wanted))
            if whole and model.two_stacks and any(readers[w].at(batch) is not None for w in set(wanted)):
                raise ModelError("heads on the encoder and label words of the decoder cannot share a batch")
            if whole:
                states = model.run(batch, placed)
            else:
                at = torch.stack([readers[w].at(batch)[b] for b, w in enumerate(wanted)])  # type: ignore[index]
                states = model.run(replace(batch, at=at), placed, read=True)
            for w in set(wanted):
                mine = [b for b, x in enumerate(wanted) if x == w]
                part = replace(batch, **{k: getattr(batch, k)[mine] for k in ("codes", "mask", "types", "at", "read")})
                own = states[mine]
                columns = readers[w].at(part)
                if whole and columns is not None:
                    own = own.gather(1, columns[..., None].expand(-1, -1, own.shape[-1]))
                z = readers[w].judge(readers[w].vector(own, part), prompts[w].head).cpu()
                for b, row in zip(mine, z, strict=True):
                    out[index[b]] = row
    return out


def _mixed_pictures(
    prompts: Sequence[Prompt], which: Sequence[int], inputs: Inputs, model: Any, size: int
) -> list[Tensor]:
    """Pictures are prepared together and keep what is frozen about them; each prompt's own then run under it."""
    out: list[Tensor] = [torch.empty(0)] * len(inputs)
    rows: Any = reader(model, prompts[0].frame).rows(inputs, None)
    for w in set(which):
        check(prompts[w], model.name, model.fingerprint)
        mine = [i for i, x in enumerate(which) if x == w]
        read = reader(model, prompts[w].frame)
        z = score_all(read, [rows[i] for i in mine], prompts[w], size=size)
        for i, row in zip(mine, z, strict=True):
            out[i] = row
    return out


def ready_to_mix(prompts: Sequence[Prompt], model: Model) -> list[Prompt]:
    """Check prompts against the model and compute what they need once."""
    for p in prompts:
        check(p, model.name, model.fingerprint)
        if isinstance(p, Adapter | Constant):
            raise PromptError(f"a {p.kind} prompt cannot share a batch with others; run it alone")
    return [warm(model, p) for p in prompts]
