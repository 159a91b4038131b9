"""A prompt that stands first in a causal model has the same keys and values for every input: compute them once."""

from __future__ import annotations

import torch

from ..prompt.values import Prefix, Prompt, Soft
from .model import Model
from .rows import Row, collate


@torch.no_grad()
def warm(model: Model, prompt: Prompt) -> Prompt:
    """The same prompt as keys and values where that is exact, otherwise the prompt itself.

    Exact for soft prompts in front of a causal model's input (the input cannot change what stands before it), not
    under a sliding window (which would stop seeing the prompt) and not for prompts that change the input's embeddings.
    """
    if (
        not isinstance(prompt, Soft)
        or model.arrangement != "causal"
        or prompt.frame.place not in ("auto", "front")
        or "{soft" in prompt.frame.template
        or prompt.offset is not None
        or prompt.vectors.dim() != 2
        or prompt.length == 0
        or getattr(model.config, "sliding_window", None) is not None
        or not model.sites
    ):
        return prompt
    P = prompt.length
    batch = collate([Row(tuple(-1 - j for j in range(P)), (0,) * P, inputs=P)]).to(model.device)
    with model.frozen():
        layers = model.keys_and_values(batch, model.place(prompt, batch))["decoder"]
    return Prefix(
        keys={"decoder": tuple(k[0] for k, _ in layers)},
        values={"decoder": tuple(v[0] for _, v in layers)},
        shift=P,
        frame=prompt.frame,
        head=prompt.head,
        card=prompt.card,
    )
