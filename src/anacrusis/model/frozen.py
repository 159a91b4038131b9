"""What every model that is held in memory has in common: it is frozen, and it can be told from others."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import torch

from ..errors import ModelError
from ..prompt.values import Conditioned


class Frozen:
    """Base of models. network: a torch module; tokenizer: None for models that read no text."""

    name: str
    network: Any
    tokenizer: Any
    why: str

    @property
    def beside(self) -> str:
        """What tells two models with the same weights apart."""
        return ""

    def maker_of(self, prompt: Conditioned) -> Any:
        """The network that a prompt holds. Raises ModelError where its method cannot restore it."""
        from ..registry import get

        restore = get(prompt.method).restore
        if restore is None:
            raise ModelError(f"the method {prompt.method!r} cannot restore the network of its prompt")
        return restore(self, prompt)

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Evaluation mode and no gradients for the network's own weights; everything is put back afterwards."""
        modes = [(m, m.training) for m in self.network.modules()]
        wants = [(p, p.requires_grad) for p in self.network.parameters()]
        try:
            for m, _ in modes:
                m.training = False
            for p, _ in wants:
                p.requires_grad_(False)
            yield
        finally:
            for m, mode in modes:
                m.training = mode
            for p, want in wants:
                p.requires_grad_(want)

    @cached_property
    def fingerprint(self) -> str:
        """Hash over architecture, vocabulary and samples of every weight: two models with the same one are the same."""
        digest = hashlib.blake2b(digest_size=12)
        words = 0 if self.tokenizer is None else len(self.tokenizer)
        digest.update(f"{type(self.network).__name__} {words} {self.beside}".encode())
        for name, tensor in sorted(self.network.state_dict().items()):
            flat = tensor.detach().reshape(-1)
            # rounded to bfloat16, so that one checkpoint has one fingerprint on a CPU and on a GPU
            sample = flat[:: max(1, flat.numel() // 256)][:256].to(torch.bfloat16).float().cpu()
            digest.update(f"{name} {tuple(tensor.shape)} ".encode() + sample.numpy().tobytes())
        return digest.hexdigest()

    def described(self, more: str) -> str:
        """One sentence: name, architecture, size, and where it computes. more: between size and dtype."""
        first = next(self.network.parameters())
        count = sum(p.numel() for p in self.network.parameters())
        return (
            f"{self.name}: {type(self.network).__name__}, {count / 1e6:.1f} M parameters, {more}, "
            f"{str(first.dtype).removeprefix('torch.')} on {first.device}{f' ({self.why})' if self.why else ''}"
        )
