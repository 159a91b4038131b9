"""Low-rank weight deltas (LoRA) inside a frozen network, for as long as a `with` block lasts.

peft puts its layers around the targeted ones. On leaving, also by an error, every module of the network has the
children, hooks, attributes and flags that it had before: the same objects, so the network is bit for bit what it was.
The deltas are ours (float32 tensors by peft's own names), so peft draws nothing from the global random state.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import MissingExtra, ModelError, PromptError
from ..model.model import Model
from ..prompt.values import Adapter


@contextmanager
def attached(model: Model, prompt: Adapter) -> Iterator[None]:
    """The network with an adapter's deltas in it. Raises PromptError when they do not fit."""
    weights = {k: nn.Parameter(t.to(model.device), requires_grad=False) for k, t in prompt.weights.items()}
    with worn(model, prompt.config, weights):
        yield


@contextmanager
def worn(model: Model, config: Mapping[str, Any], weights: Mapping[str, nn.Parameter]) -> Iterator[None]:
    """The network with `weights` themselves in it: what trains them trains these objects."""
    with _injected(model, config) as slots:
        if slots.keys() != weights.keys():
            odd = sorted(slots.keys() ^ weights.keys())[0]
            raise PromptError(f"the adapter does not fit {model.name}: {odd} is only in one of them")
        for name, slot in slots.items():
            if slot.weight.shape != weights[name].shape:
                raise PromptError(
                    f"the adapter does not fit {model.name}: {name} is {tuple(weights[name].shape)}, expected "
                    f"{tuple(slot.weight.shape)}"
                )
            slot.weight = weights[name]
        yield


def fresh(model: Model, config: Mapping[str, Any], generator: torch.Generator) -> dict[str, Tensor]:
    """Deltas that are zero: A (r, in) uniform in +-1/sqrt(in) as peft starts it, B (out, r) zero. By name, float32."""
    with _injected(model, config) as slots:
        shapes = {name: tuple(slot.weight.shape) for name, slot in slots.items()}
    weights = {name: torch.zeros(shape) for name, shape in shapes.items()}
    for name, t in weights.items():
        if ".lora_A." in name:
            t.uniform_(-(t.shape[1] ** -0.5), t.shape[1] ** -0.5, generator=generator)
    return weights


@contextmanager
def _injected(model: Model, config: Mapping[str, Any]) -> Iterator[dict[str, nn.Linear]]:
    """The network with peft's layers in it, their deltas still without values: the linear maps A and B by name."""
    peft = import_peft()
    from peft.tuners.lora import LoraLayer

    if hasattr(model.network, "peft_config"):
        raise ModelError(f"{model.name} has an adapter of its own already; open the model without it")
    _ = model.fingerprint, model.sites  # known from the bare network, before it is changed
    with _restored(model.network):
        given = {k: list(v) if isinstance(v, tuple) else v for k, v in config.items()}
        peft.inject_adapter_in_model(peft.LoraConfig(**given), model.network, low_cpu_mem_usage=True)
        yield {
            f"{path}.{side}.weight": getattr(module, side)["default"]
            for path, module in model.network.named_modules()
            if isinstance(module, LoraLayer)
            for side in ("lora_A", "lora_B")
        }


@contextmanager
def _restored(network: nn.Module) -> Iterator[None]:
    """Afterwards every module has the attributes that it had, and its dictionaries (children, parameters, buffers,
    hooks) have the entries that they had."""
    before = [(m, dict(m.__dict__)) for m in network.modules()]
    inside = [(d, dict(d)) for _, attributes in before for d in attributes.values() if isinstance(d, dict)]
    wants = [(p, p.requires_grad) for p in network.parameters()]
    try:
        yield
    finally:
        for module, attributes in before:
            module.__dict__.clear()
            module.__dict__.update(attributes)
        for entries, content in inside:
            entries.clear()
            entries.update(content)
        for p, want in wants:
            p.requires_grad_(want)


def import_peft() -> Any:
    """The package peft. Raises MissingExtra where it is not installed."""
    try:
        import peft
    except ImportError as error:
        raise MissingExtra("peft", "peft", "the method lora") from error
    return peft
