"""What makes a prompt from trainable parameters: an encoder (parameters -> (P, W)) and a placement of its output.

A maker is a module whose call returns a live prompt value. It declares what it `reads`; the engine derives from that
what may be cached and folded. Parameters are grouped by role, each with its own rate: steps of the optimiser are
`training.lr * rate * unit`, and for vectors in embedding space the unit is the embedding table's RMS, so that one
learning rate suits models whose tables differ by a factor of a hundred.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, MutableMapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, ClassVar, Literal
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from ..errors import ConfigError, PromptError
from ..model.attention import Site
from ..model.model import Model, Reads
from ..prompt.values import Conditioned, Prefix, Prompt, Soft


@dataclass(frozen=True)
class Group:
    """Parameters that share a learning rate.

    rate: multiplies training.lr. unit: size of the values, so that one AdamW step moves them by lr * rate * unit
    (Adafactor measures the unit itself). decay: multiplies the weight decay.
    """

    role: str
    parameters: Sequence[nn.Parameter]
    rate: float = 1.0
    unit: float = 1.0
    decay: float = 1.0


class Maker(nn.Module):
    """Base. Subclasses return a live Prompt from `forward`; `reads` is what it depends on beside its parameters."""

    reads: ClassVar[Literal["nothing", "embeddings", "picture"]] = "nothing"

    def forward(self, reads: Any = None) -> Prompt:
        raise TypeError(f"{type(self).__name__} does not say what it makes")  # a subclass forgot forward

    def groups(self) -> list[Group]:
        """Every trainable parameter, each in exactly one group."""
        return [Group("prompt", list(self.parameters()))]

    def sample(self, generator: torch.Generator) -> int | None:
        """Before each training step: how many virtual tokens this step uses (None: all)."""
        return None

    def inside(self, model: Model) -> AbstractContextManager[Any]:
        """Entered around a whole fit, folding included: for makers whose parameters live in the network itself. On
        leaving, also by an error, the network must be bit for bit what it was."""
        return nullcontext()

    def constrain(self) -> None:
        """After each step: bring parameters back into the set where they must stay (in place, no gradient)."""

    def fold(self) -> Prompt:
        """The plain tensors that remain when learning ends."""
        with torch.no_grad():
            return self(None).detached()


def seeded(module: nn.Module, generator: torch.Generator) -> nn.Module:
    """Draw a freshly built module's weights from `generator` instead of the global one: linear and recurrent layers
    uniform in +-1/sqrt(fan in), as torch does; normalisation layers stay at one and zero."""
    for m in module.modules():
        if isinstance(m, nn.LayerNorm):
            continue
        own = list(m.parameters(recurse=False))
        if not own:
            continue
        fan = m.hidden_size if isinstance(m, nn.LSTM) else own[0].shape[-1]
        for p in own:
            with torch.no_grad():
                p.uniform_(-(fan**-0.5), fan**-0.5, generator=generator)
    return module


def build_quietly(build: Any) -> nn.Module:
    """Build a module without moving torch's global random state (torch initialises on construction)."""
    with torch.random.fork_rng(devices=[]):
        module: nn.Module = build()
    return module


# encoders: parameters -> (P, W)


class Free(nn.Module):
    """(P, W) = the parameters themselves."""

    def __init__(self, init: Tensor):
        super().__init__()
        self.vectors = nn.Parameter(init.clone().float())

    def forward(self) -> Tensor:
        return self.vectors


class MLP(nn.Module):
    """(P, W) = U tanh(A w + a) + u: anchors w (P, D), hidden width M."""

    def __init__(self, anchors: Tensor, width: int, out: int, generator: torch.Generator):
        super().__init__()
        D = anchors.shape[1]
        self.anchors = nn.Parameter(anchors.clone().float())
        self.net = seeded(
            build_quietly(lambda: nn.Sequential(nn.Linear(D, width), nn.Tanh(), nn.Linear(width, out))), generator
        )

    def forward(self) -> Tensor:
        return self.net(self.anchors)


class Recurrent(nn.Module):
    """(P, H) = MLP(BiLSTM(anchors)): two layers, H/2 each direction, then Linear-ReLU-Linear."""

    def __init__(self, anchors: Tensor, generator: torch.Generator):
        super().__init__()
        H = anchors.shape[1]
        self.anchors = nn.Parameter(anchors.clone().float())
        self.lstm = seeded(
            build_quietly(lambda: nn.LSTM(H, H // 2, num_layers=2, bidirectional=True, batch_first=True)), generator
        )
        self.net = seeded(build_quietly(lambda: nn.Sequential(nn.Linear(H, H), nn.ReLU(), nn.Linear(H, H))), generator)

    def forward(self) -> Tensor:
        return self.net(self.lstm(self.anchors[None])[0][0])


class Residual(nn.Module):
    """(P, H) = w + LN(U relu(A w)): a bottleneck network beside a skip connection, shared by all vectors."""

    def __init__(self, init: Tensor, bottleneck: int, scale: float, generator: torch.Generator):
        super().__init__()
        H = init.shape[1]
        self.vectors = nn.Parameter(init.clone().float())
        self.net = seeded(
            build_quietly(
                lambda: nn.Sequential(nn.Linear(H, bottleneck), nn.ReLU(), nn.Linear(bottleneck, H), nn.LayerNorm(H))
            ),
            generator,
        )
        self.scale = scale

    def forward(self) -> Tensor:
        # the network works at unit scale; the embedding table's scale is put in and taken out
        return self.vectors + self.scale * self.net(self.vectors / self.scale)


# placements of an encoder's output


class SoftMaker(Maker):
    """An encoder's (P, H) as vectors in the input."""

    def __init__(self, encoder: nn.Module, scale: float, network_rate: float = 0.02):
        super().__init__()
        self.encoder, self.scale, self.network_rate = encoder, scale, network_rate

    def forward(self, reads: Reads | None = None) -> Soft:
        return Soft(vectors=self.encoder())

    def groups(self) -> list[Group]:
        return by_role(self.encoder, self.scale, self.network_rate)


class PrefixMaker(Maker):
    """An encoder's (P, W) as keys and values of every layer. W = sum over sites of 2 * heads * d.

    shift: positions by which the caller's tokens move back (P for caches of real text, 0 to leave them).
    """

    def __init__(self, encoder: nn.Module, sites: Sequence[Site], shift: int, network_rate: float = 0.02):
        super().__init__()
        self.encoder, self.shift, self.network_rate = encoder, shift, network_rate
        self.shapes = [(s.stack, s.heads, s.dim) for s in sites]

    def forward(self, reads: Reads | None = None) -> Prefix:
        keys, values = split_sites(self.encoder(), self.shapes)
        return Prefix(keys=keys, values=values, shift=self.shift)

    def groups(self) -> list[Group]:
        return by_role(self.encoder, 1.0, self.network_rate)


def by_role(encoder: nn.Module, scale: float, network_rate: float) -> list[Group]:
    """Vectors move in units of `scale`; a network's own weights at `network_rate`."""
    named = dict(encoder.named_parameters())
    vectors = [p for n, p in named.items() if n in ("vectors", "anchors")]
    network = [p for n, p in named.items() if n not in ("vectors", "anchors")]
    groups = [Group("prompt", vectors, unit=scale)]
    return groups + ([Group("network", network, rate=network_rate)] if network else [])


def split_sites(
    table: Tensor, shapes: Sequence[tuple[str, int, int]]
) -> tuple[dict[str, tuple[Tensor, ...]], dict[str, tuple[Tensor, ...]]]:
    """(P, W) -> keys and values by stack, (heads, P, d) a layer."""
    keys: dict[str, list[Tensor]] = {}
    values: dict[str, list[Tensor]] = {}
    start, P = 0, table.shape[0]
    for stack, heads, dim in shapes:
        for side in (keys, values):
            piece = table[:, start : start + heads * dim].reshape(P, heads, dim).transpose(0, 1)
            side.setdefault(stack, []).append(piece)
            start += heads * dim
    if start != table.shape[1]:
        raise ConfigError(f"a prefix table of width {table.shape[1]} does not fill {start} values of keys and values")
    return {s: tuple(k) for s, k in keys.items()}, {s: tuple(v) for s, v in values.items()}


def join_sites(pairs: Mapping[str, Sequence[tuple[Tensor, Tensor]]], sites: Sequence[Site]) -> Tensor:
    """The inverse: keys and values of one row, (1, heads, P, d) each, as a table (P, W)."""
    columns = []
    for site in sites:
        for t in pairs[site.stack][site.layer]:
            columns.append(t[0].transpose(0, 1).reshape(t.shape[2], -1))
    return torch.cat(columns, dim=1)


def width(sites: Sequence[Site]) -> int:
    """W: values of one prefix position over all sites, keys and values."""
    return sum(2 * s.heads * s.dim for s in sites)


class ConditionedMaker(Maker):
    """Base of makers that read the input. They do not fold: the small network is what is kept."""

    reads: ClassVar[Literal["nothing", "embeddings", "picture"]] = "embeddings"
    method: str  # registry key, for loading
    length: int  # P

    def config_json(self) -> dict[str, Any]:
        """The options that rebuild this network's shapes."""
        raise TypeError(f"{type(self).__name__} does not say how it is rebuilt")

    def fold(self) -> Prompt:
        weights = {k: t.detach().float().cpu().clone() for k, t in self.state_dict().items()}
        return Conditioned(method=self.method, config=self.config_json(), weights=weights, tokens=self.length)


class Restoring:
    """How a saved network comes back: built once a prompt, which is placed anew for each batch.

    make: (model, prompt) -> a maker of the right shapes; the prompt's weights are then put into it.
    """

    def __init__(self, method: str, make: Callable[[Any, Conditioned], ConditionedMaker]):
        self.method, self.make = method, make
        self.kept: MutableMapping[Conditioned, ConditionedMaker] = WeakKeyDictionary()

    def __call__(self, model: Any, prompt: Conditioned) -> Any:
        """The network that a prompt holds, on the model's device. Raises PromptError where it does not fit."""
        maker = self.kept.get(prompt)
        if maker is None:
            try:
                maker = self.make(model, prompt)
                maker.load_state_dict(dict(prompt.weights))
            except (KeyError, TypeError, RuntimeError) as error:
                raise PromptError(f"the prompt's network does not fit the method {self.method}: {error}") from error
            self.kept[prompt] = maker = maker.requires_grad_(False)
        return maker.to(model.device)
