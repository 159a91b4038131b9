"""LoRA: low-rank changes of the attention's weights. No prompt; the yardstick for what changing the model gains.

    W' = W + (alpha / r) B A        W: (out, in) frozen, A: (r, in) and B: (out, r) trained, B zero at the start

Paper: Hu et al. 2021, https://arxiv.org/abs/2106.09685 (section 4.1); through the package peft
Departure: no dropout. The deltas are kept beside the network and are in it only while it is trained or asked.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from ..errors import ConfigError, did_you_mean
from ..model.model import Model, Reads
from ..prompt.values import Adapter, Text
from ..registry import Method, register
from ..tune import adapter
from ..tune.makers import Group, Maker
from ..tune.recipe import Problem, Recipe


@dataclass(frozen=True, kw_only=True)
class LoRAConfig:
    rank: int = 8  # r
    alpha: float = 16.0  # the change is scaled by alpha / r
    targets: tuple[str, ...] = ()  # names of linear layers ("q_proj", "v_proj"); (): peft's usual ones for the model

    def __post_init__(self) -> None:
        object.__setattr__(self, "targets", tuple(self.targets))  # JSON knows lists only
        if self.rank < 1 or self.alpha <= 0:
            raise ConfigError(f"rank must be at least 1 and alpha above 0, got {self.rank} and {self.alpha}")


class LowRank(Maker):
    """entries: of peft's LoraConfig. weights: by peft's names; while inside a network, they are its parameters."""

    def __init__(self, entries: Mapping[str, Any], weights: Mapping[str, Tensor]):
        super().__init__()
        self.entries, self.names = dict(entries), tuple(weights)
        self.deltas = nn.ParameterList([nn.Parameter(t) for t in weights.values()])

    def forward(self, reads: Reads | None = None) -> Text:
        return Text()

    def inside(self, model: Model) -> AbstractContextManager[Any]:
        return adapter.worn(model, self.entries, dict(zip(self.names, self.deltas, strict=True)))

    def groups(self) -> list[Group]:
        return [Group("adapter", list(self.deltas), rate=0.02)]

    def fold(self) -> Adapter:
        deltas = zip(self.names, self.deltas, strict=True)
        return Adapter(config=self.entries, weights={n: p.detach().float().cpu().clone() for n, p in deltas})


def build(config: LoRAConfig, problem: Problem) -> Recipe:
    adapter.import_peft()
    model, frame = problem.model, problem.frame
    if frame.readout == "similarity":
        raise ConfigError("lora changes how the label texts are read too: use readout=head or readout=label-words")
    targets = _targets(model, config.targets, encoder_only=model.two_stacks and frame.readout == "head")
    # GPT-2's Conv1D keeps its weight the other way round
    turned = any(type(model.network.get_submodule(t)).__name__ == "Conv1D" for t in targets)
    entries = {"r": config.rank, "lora_alpha": config.alpha, "target_modules": targets, "fan_in_fan_out": turned}
    return Recipe(LowRank(entries, adapter.fresh(model, entries, problem.generator)), frame)


def _targets(model: Model, names: tuple[str, ...], encoder_only: bool) -> list[str]:
    """Full paths of the linear layers to be changed. encoder_only: the decoder is not run, so leave it alone."""
    from peft.utils import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING as USUAL

    output = model.network.get_output_embeddings()  # its rows are read without running it
    linear = {p for p, m in model.network.named_modules() if _linear(m) and m is not output}
    inside = {id(m) for site in model.sites for m in site.module.modules()}
    attention = {p for p in linear if id(model.network.get_submodule(p)) in inside}
    wanted = names or tuple(USUAL.get(model.config.model_type, ()))
    found = {p for p in linear for n in wanted if p == n or p.endswith("." + n)}
    if names and (missing := [n for n in names if not any(p == n or p.endswith("." + n) for p in linear)]):
        raise ConfigError(
            f"targets: {model.name} has no linear layer {missing[0]!r}."
            f"{did_you_mean(missing[0], {p.rsplit('.', 1)[-1] for p in linear})}"
        )
    if not names:
        found = found & attention or attention
    if encoder_only:
        decoder = {id(m) for m in model.network.get_decoder().modules()}
        found = {p for p in found if id(model.network.get_submodule(p)) not in decoder}
    if not found:
        raise ConfigError(f"no linear layers to change were found in {model.name}; name them: targets=q_proj,v_proj")
    return sorted(found)


def _linear(module: nn.Module) -> bool:
    return isinstance(module, nn.Linear) or type(module).__name__ == "Conv1D"


register(
    Method(
        name="lora",
        summary="baseline: low-rank changes of the attention's weights, through peft",
        config=LoRAConfig,
        build=build,
        paper="[Hu et al. 2021](https://arxiv.org/abs/2106.09685)",
    )
)
