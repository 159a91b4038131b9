"""Prompts: what was learned, as immutable values. No training state, no code.

Shape letters here and everywhere: B rows, T the caller's tokens, P prompt tokens, H hidden size, V vocabulary,
L layers, C classes. While a prompt is being learned the same classes carry live tensors; `detached()` ends that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from ..errors import ConfigError, PromptError

PLACES = ("auto", "front", "after-bos", "back", "slots")
# words: label words as a whole; answer: a reply that names a class
# match: images with class texts; classes: the outputs that a classifier was trained with
READOUTS = ("label-words", "words", "lm", "head", "similarity", "generate", "answer", "match", "classes")
STACKS = ("encoder", "decoder", "cross")  # the attentions that keys and values can be put in front of


@dataclass(frozen=True, kw_only=True)
class Frame:
    """How an example becomes a sequence, and how the model's output becomes an answer. Plain JSON values only."""

    fields: tuple[str, ...] = ("text",)  # names that `template` may use, in the order of Example.inputs
    labels: tuple[str, ...] = ()  # C class names; empty for text generation
    words: tuple[str, ...] = ()  # C texts, what the model says (or is compared with) for each class
    template: str = "{text}"  # field names, {mask}, {sep}, {soft} or {soft:N} in braces
    instruction: str = ""  # stands before everything
    demonstrations: tuple[tuple[tuple[str, ...], str], ...] = ()  # (inputs, answer) pairs, shown before the example
    place: str = "front"  # where a Soft prompt's vectors stand, one of PLACES
    readout: str = "label-words"  # one of READOUTS
    pool: str = "mean"  # "mean", "cls" or "last" over the caller's own tokens, for head and similarity
    multi: bool = False  # several labels may hold at once
    templates: tuple[str, ...] = ()  # of class texts, instead of `template`: their features are averaged
    texts: tuple[tuple[str, ...], ...] = ()  # C times any number of class texts (descriptions), instead of templates

    def __post_init__(self) -> None:
        for name, value, known in (("place", self.place, PLACES), ("readout", self.readout, READOUTS)):
            if value not in known:
                raise ConfigError(f"{name} is {value!r}; it must be one of {', '.join(known)}")

    def to_json(self) -> dict[str, Any]:
        return {f.name: getattr(self, f.name) for f in fields(self)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Frame:
        def frozen(value: Any) -> Any:
            return tuple(frozen(v) for v in value) if isinstance(value, list) else value

        known = {f.name for f in fields(cls)}
        if extra := set(data) - known:
            raise PromptError(f"the prompt's frame has unknown entries {sorted(extra)}; a newer anacrusis wrote it")
        return cls(**{k: frozen(v) for k, v in data.items()})


@dataclass(frozen=True, eq=False)
class Head:
    """A linear reader of pooled states: scores = states @ weight.T + bias."""

    weight: Tensor  # (C, H)
    bias: Tensor  # (C,)

    def __call__(self, pooled: Tensor) -> Tensor:
        """(B, H) -> (B, C), in float32."""
        return torch.nn.functional.linear(pooled.float(), self.weight.to(pooled.device), self.bias.to(pooled.device))


@dataclass(frozen=True, eq=False, kw_only=True)
class Prompt:
    """Base of all kinds. `card` is JSON: the model's name and fingerprint, method, task, scores, seconds."""

    kind: ClassVar[str] = ""
    frame: Frame = field(default_factory=Frame)
    head: Head | None = None
    card: Mapping[str, Any] = field(default_factory=dict)

    @property
    def length(self) -> int:
        """P: virtual tokens that stand in the input (0 for kinds that work elsewhere)."""
        return 0

    def tensors(self) -> dict[str, Tensor]:
        """All tensors by name, as they are saved."""
        return {} if self.head is None else {"head.weight": self.head.weight, "head.bias": self.head.bias}

    def meta(self) -> dict[str, Any]:
        """The kind's own JSON entries, beside frame and card."""
        return {}

    @classmethod
    def from_parts(cls, meta: Mapping[str, Any], tensors: Mapping[str, Tensor], **common: Any) -> Prompt:
        raise PromptError(f"prompts of kind {cls.kind!r} cannot be loaded from a folder")

    @property
    def size(self) -> int:
        """Number of stored values, the head's included."""
        return sum(t.numel() for t in self.tensors().values())

    def detached(self) -> Prompt:
        """The same prompt without gradients, in float32 on the CPU: what is saved and served."""
        return type(self).from_parts(
            self.meta(),
            {k: t.detach().float().cpu().clone() for k, t in self.tensors().items()},
            frame=self.frame,
            card=self.card,
        )

    def with_card(self, **entries: Any) -> Prompt:
        return replace(self, card={**self.card, **entries})

    def same(self, other: Prompt) -> bool:
        """True when kind, frame and every tensor are equal bit for bit (cards may differ)."""
        a, b = self.tensors(), other.tensors()
        return (
            self.kind == other.kind
            and self.frame == other.frame
            and self.meta() == other.meta()
            and a.keys() == b.keys()
            and all(torch.equal(a[k], b[k]) for k in a)
        )

    # conveniences that read, so that a loaded folder can answer; the work is in measure/
    def predict(self, inputs: Any, model: Any = None) -> list[Any]:
        """Answers for texts (or tuples of texts). `model` defaults to the one that the card names."""
        from ..measure.predict import predict

        return predict(self, inputs, model)

    def save(self, folder: Any) -> None:
        """Write prompt.json, prompt.safetensors and README.md into `folder`."""
        from .store import save

        save(self, folder)


def _head(tensors: Mapping[str, Tensor]) -> Head | None:
    return Head(tensors["head.weight"], tensors["head.bias"]) if "head.weight" in tensors else None


@dataclass(frozen=True, eq=False, kw_only=True)
class Text(Prompt):
    """Words only: the frame's instruction, demonstrations, template and label words. With a head: a linear probe."""

    kind: ClassVar[str] = "text"

    @classmethod
    def from_parts(cls, meta: Mapping[str, Any], tensors: Mapping[str, Tensor], **common: Any) -> Text:
        return cls(head=_head(tensors), **common)


@dataclass(frozen=True, eq=False, kw_only=True)
class Soft(Prompt):
    """Vectors in the model's input-embedding space.

    vectors: (P, H), or (B, P, H) when a network made one prompt per row.
    offset: (T_max, H) or None, added to the embeddings of the caller's own tokens by their position (DePT). Positions
        count the caller's tokens only, so neither padding nor the prompt shifts them.
    """

    kind: ClassVar[str] = "soft"
    vectors: Tensor
    offset: Tensor | None = None

    def __post_init__(self) -> None:
        if self.vectors.dim() not in (2, 3):
            raise PromptError(f"Soft.vectors must be (P, H) or (B, P, H), got {tuple(self.vectors.shape)}")

    @property
    def length(self) -> int:
        return int(self.vectors.shape[-2])

    def tensors(self) -> dict[str, Tensor]:
        own = {"vectors": self.vectors}
        if self.offset is not None:
            own["offset"] = self.offset
        return {**own, **super().tensors()}

    @classmethod
    def from_parts(cls, meta: Mapping[str, Any], tensors: Mapping[str, Tensor], **common: Any) -> Soft:
        return cls(vectors=tensors["vectors"], offset=tensors.get("offset"), head=_head(tensors), **common)


@dataclass(frozen=True, eq=False, kw_only=True)
class Prefix(Prompt):
    """Keys and values that stand before the model's own in its attentions.

    keys, values: by stack ("encoder", "decoder", "cross"), one tensor a layer, (heads, P, d) each, or
        (B, heads, P, d) when they differ by row. heads are key-value heads (grouped-query attention has fewer than
        query heads). Layers may have different P; a layer with P = 0 is left alone.
    shift: positions by which the caller's tokens are moved back: P when the keys are those of real text at positions
        0..P-1 (the convention of caches), 0 when the caller's positions stay as they were.
    seen: by stack, (B, P) booleans or absent: which columns a row may look at.
    """

    kind: ClassVar[str] = "prefix"
    keys: Mapping[str, tuple[Tensor, ...]]
    values: Mapping[str, tuple[Tensor, ...]]
    shift: int | Tensor = 0
    seen: Mapping[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for stack in self.keys:
            if stack not in STACKS:
                raise PromptError(f"unknown attention stack {stack!r}; known: {', '.join(STACKS)}")

    @property
    def tokens(self) -> int:
        """The longest P over layers."""
        return max((int(k.shape[-2]) for ks in self.keys.values() for k in ks), default=0)

    def tensors(self) -> dict[str, Tensor]:
        own = {
            f"{stack}.{i}.{name}": t
            for name, side in (("key", self.keys), ("value", self.values))
            for stack, layers in side.items()
            for i, t in enumerate(layers)
        }
        return {**own, **super().tensors()}

    def meta(self) -> dict[str, Any]:
        return {"shift": int(self.shift), "layers": {s: len(k) for s, k in self.keys.items()}}

    @classmethod
    def from_parts(cls, meta: Mapping[str, Any], tensors: Mapping[str, Tensor], **common: Any) -> Prefix:
        def side(name: str) -> dict[str, tuple[Tensor, ...]]:
            return {s: tuple(tensors[f"{s}.{i}.{name}"] for i in range(n)) for s, n in meta["layers"].items()}

        return cls(keys=side("key"), values=side("value"), shift=meta["shift"], head=_head(tensors), **common)


@dataclass(frozen=True, eq=False, kw_only=True)
class Conditioned(Prompt):
    """A small network that makes a prompt per input. `method` is a registry key: the code is the package's, not the
    folder's; `weights` are the network's tensors and `config` the method's options."""

    kind: ClassVar[str] = "conditioned"
    method: str
    config: Mapping[str, Any]
    weights: Mapping[str, Tensor]
    tokens: int  # P that the network writes

    @property
    def length(self) -> int:
        return self.tokens

    def tensors(self) -> dict[str, Tensor]:
        return {**{f"maker.{k}": t for k, t in self.weights.items()}, **super().tensors()}

    def meta(self) -> dict[str, Any]:
        return {"method": self.method, "config": dict(self.config), "tokens": self.tokens}

    @classmethod
    def from_parts(cls, meta: Mapping[str, Any], tensors: Mapping[str, Tensor], **common: Any) -> Conditioned:
        weights = {k.removeprefix("maker."): t for k, t in tensors.items() if k.startswith("maker.")}
        return cls(
            method=meta["method"],
            config=dict(meta["config"]),
            tokens=int(meta["tokens"]),
            weights=weights,
            head=_head(tensors),
            **common,
        )


@dataclass(frozen=True, eq=False, kw_only=True)
class Adapter(Prompt):
    """Low-rank weight deltas (LoRA), kept beside the prompts as a yardstick. Entered and removed through peft."""

    kind: ClassVar[str] = "adapter"
    config: Mapping[str, Any]  # peft's own LoraConfig entries
    weights: Mapping[str, Tensor]

    def tensors(self) -> dict[str, Tensor]:
        return {**{f"adapter.{k}": t for k, t in self.weights.items()}, **super().tensors()}

    def meta(self) -> dict[str, Any]:
        return {"config": dict(self.config)}

    @classmethod
    def from_parts(cls, meta: Mapping[str, Any], tensors: Mapping[str, Tensor], **common: Any) -> Adapter:
        weights = {k.removeprefix("adapter."): t for k, t in tensors.items() if k.startswith("adapter.")}
        return cls(config=dict(meta["config"]), weights=weights, head=_head(tensors), **common)


@dataclass(frozen=True, eq=False, kw_only=True)
class Constant(Prompt):
    """The same answer for every input: the majority baseline. scores: (C,)."""

    kind: ClassVar[str] = "constant"
    scores: Tensor

    def tensors(self) -> dict[str, Tensor]:
        return {"scores": self.scores}

    @classmethod
    def from_parts(cls, meta: Mapping[str, Any], tensors: Mapping[str, Tensor], **common: Any) -> Constant:
        return cls(scores=tensors["scores"], **common)


@dataclass(frozen=True, eq=False, kw_only=True)
class Tokens(Prompt):
    """Rows in one transformer tower of a model for images: the image tower's own, or the context of class texts.

    side: "image" or "text". layers: what stands in the rows' places from that layer on: (M, d); (C, M, d) where every
        class has its own; (B, M, d) where a network made them for each input. M may differ by layer, and be 0.
    per: "all", "class" or "input". read_only: the rows read the tower's own tokens and are read by nobody; what they
        become is the feature, one a row.
    entry: image side: "before-norm" or "after-norm" of the tower's first normalisation (those that have none: same).
    gates, temperatures, entries, mass: as in model.tower.Rows, where they are explained; None: nothing changes.
    made: by layer, a function of its own tokens (B, n, d) and `texts`, the class features, that writes rows
        (B, M, d): only while a network is learning, or restored; never saved.
    """

    kind: ClassVar[str] = "tokens"
    side: str
    layers: Mapping[int, Tensor]
    per: str = "all"
    read_only: bool = False
    entry: str = "before-norm"
    gates: Tensor | None = None
    temperatures: Tensor | None = None
    entries: Tensor | None = None
    mass: Tensor | None = None
    made: Mapping[int, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        known = {"side": ("image", "text"), "per": ("all", "class", "input"), "entry": ("before-norm", "after-norm")}
        for name, values in known.items():
            if getattr(self, name) not in values:
                raise PromptError(f"Tokens.{name} is {getattr(self, name)!r}; it must be one of {', '.join(values)}")
        ways = [n for n in ("gates", "temperatures", "entries", "mass") if getattr(self, n) is not None]
        if ways and (self.side == "text" or self.read_only):
            raise PromptError(f"{', '.join(ways)}: only rows of the image tower that are read have these ways")
        if self.entries is not None and self.mass is not None:
            raise PromptError("entries and mass both say how rows are weighed: give one of them")
        for layer, rows in self.layers.items():
            if rows.dim() != (2 if self.per == "all" else 3):
                raise PromptError(f"Tokens.layers[{layer}] is {tuple(rows.shape)}, which is not for per={self.per!r}")

    @property
    def length(self) -> int:
        """M where the rows come in."""
        return int(self.layers[min(self.layers)].shape[-2]) if self.layers else 0

    def tensors(self) -> dict[str, Tensor]:
        own = {f"layer.{i}": t for i, t in self.layers.items()}
        ways = {n: getattr(self, n) for n in ("gates", "temperatures", "entries", "mass")}
        return {**own, **{n: t for n, t in ways.items() if t is not None}, **super().tensors()}

    def meta(self) -> dict[str, Any]:
        return {"side": self.side, "per": self.per, "read_only": self.read_only, "entry": self.entry}

    @classmethod
    def from_parts(cls, meta: Mapping[str, Any], tensors: Mapping[str, Tensor], **common: Any) -> Tokens:
        layers = {int(k[6:]): t for k, t in tensors.items() if k.startswith("layer.")}
        ways: dict[str, Any] = {n: tensors[n] for n in ("gates", "temperatures", "entries", "mass") if n in tensors}
        return cls(layers=layers, head=_head(tensors), **meta, **ways, **common)

    def detached(self) -> Prompt:
        if self.made:
            raise PromptError("rows that a network makes cannot be kept as tensors: its maker folds to the network")
        return super().detached()


@dataclass(frozen=True, eq=False, kw_only=True)
class Pixels(Prompt):
    """A change of the picture itself: pixels + delta.

    delta: (3, S, S), or (B, 3, S, S) where a network wrote one for each input. space: "raw" (pixels of 0..1, before
    the model's own normalisation) or "normalised". clip: raw pixels are cut to 0..1 afterwards.
    """

    kind: ClassVar[str] = "pixels"
    delta: Tensor
    space: str = "raw"
    clip: bool = True

    def __post_init__(self) -> None:
        if self.space not in ("raw", "normalised"):
            raise PromptError(f"Pixels.space is {self.space!r}; it must be raw or normalised")

    def tensors(self) -> dict[str, Tensor]:
        return {"delta": self.delta, **super().tensors()}

    def meta(self) -> dict[str, Any]:
        return {"space": self.space, "clip": self.clip}

    @classmethod
    def from_parts(cls, meta: Mapping[str, Any], tensors: Mapping[str, Tensor], **common: Any) -> Pixels:
        return cls(delta=tensors["delta"], head=_head(tensors), **meta, **common)


@dataclass(frozen=True, eq=False, kw_only=True)
class Paired(Prompt):
    """A text side and an image side, of one dual encoder."""

    kind: ClassVar[str] = "paired"
    text: Prompt
    image: Prompt

    @property
    def length(self) -> int:
        return self.text.length

    def tensors(self) -> dict[str, Tensor]:
        sides = {"text": self.text, "image": self.image}
        return {**{f"{s}.{k}": t for s, p in sides.items() for k, t in p.tensors().items()}, **super().tensors()}

    def meta(self) -> dict[str, Any]:
        return {s: {"kind": p.kind, **p.meta()} for s, p in (("text", self.text), ("image", self.image))}

    @classmethod
    def from_parts(cls, meta: Mapping[str, Any], tensors: Mapping[str, Tensor], **common: Any) -> Paired:
        def side(name: str) -> Prompt:
            own = {k.removeprefix(name + "."): t for k, t in tensors.items() if k.startswith(name + ".")}
            rest = {k: v for k, v in meta[name].items() if k != "kind"}
            return KINDS[meta[name]["kind"]].from_parts(rest, own)

        return cls(text=side("text"), image=side("image"), head=_head(tensors), **common)


@dataclass(frozen=True, eq=False, kw_only=True)
class Cache(Prompt):
    """Remembered examples beside the class texts: scores + alpha * exp(-beta * (1 - f . keys)) @ values.

    keys: (N, d), unit length. values: (N, C). f: the image's feature.
    """

    kind: ClassVar[str] = "cache"
    keys: Tensor
    values: Tensor
    alpha: float
    beta: float

    def tensors(self) -> dict[str, Tensor]:
        return {"keys": self.keys, "values": self.values, **super().tensors()}

    def meta(self) -> dict[str, Any]:
        return {"alpha": self.alpha, "beta": self.beta}

    @classmethod
    def from_parts(cls, meta: Mapping[str, Any], tensors: Mapping[str, Tensor], **common: Any) -> Cache:
        return cls(keys=tensors["keys"], values=tensors["values"], head=_head(tensors), **meta, **common)


@dataclass(frozen=True, eq=False, kw_only=True)
class Adaptive(Prompt):
    """A prompt that goes on learning while it is used, without labels: where it starts, and the method by which it
    moves. method: a registry key of the adapt engine; config: its options; weights: tensors of the start."""

    kind: ClassVar[str] = "adaptive"
    method: str
    config: Mapping[str, Any]
    weights: Mapping[str, Tensor]

    def tensors(self) -> dict[str, Tensor]:
        return {**{f"start.{k}": t for k, t in self.weights.items()}, **super().tensors()}

    def meta(self) -> dict[str, Any]:
        return {"method": self.method, "config": dict(self.config)}

    @classmethod
    def from_parts(cls, meta: Mapping[str, Any], tensors: Mapping[str, Tensor], **common: Any) -> Adaptive:
        weights = {k.removeprefix("start."): t for k, t in tensors.items() if k.startswith("start.")}
        return cls(weights=weights, head=_head(tensors), **meta, **common)


_EVERY = (Text, Soft, Prefix, Conditioned, Adapter, Constant, Tokens, Pixels, Paired, Cache, Adaptive)
KINDS: dict[str, type[Prompt]] = {c.kind: c for c in _EVERY}


def for_classes(prompt: Prompt, labels: Sequence[str], words: Sequence[str] | None = None) -> Prompt:
    """The same prompt with other classes: none of their tokens was stored. Raises PromptError where classes were
    learned themselves (a head, vectors or examples of each class, descriptions)."""
    own = {
        "a head": prompt.head is not None,
        "vectors of each class": any(isinstance(p, Tokens) and p.per == "class" for p in sides(prompt)),
        "examples of each class": isinstance(prompt, Cache)
        or (isinstance(prompt, Adaptive) and any(k.startswith("memory.") for k in prompt.weights)),
        "descriptions of each class": bool(prompt.frame.texts),
        "its scores": isinstance(prompt, Constant),
    }
    if found := [k for k, has in own.items() if has]:
        raise PromptError(f"this prompt has learned {found[0]}: it cannot serve other classes. Fit one on those")
    spoken = tuple(words) if words is not None else tuple(n.replace("_", " ").replace("-", " ") for n in labels)
    return replace(prompt, frame=replace(prompt.frame, labels=tuple(labels), words=spoken))


def sides(prompt: Prompt) -> tuple[Prompt, ...]:
    """The parts of a prompt: itself, or both sides of a pair."""
    return (prompt.text, prompt.image) if isinstance(prompt, Paired) else (prompt,)
