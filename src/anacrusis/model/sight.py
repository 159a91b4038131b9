"""Models that look at pictures: dual encoders, vision transformers, classifiers. What is frozen, and one pass of each.

Shapes: B images, C classes, S pixels a side, n own tokens, M prompt rows, d width of a tower, D of the joint space.
Features are of unit length. Class texts are laid out from names each time: no token of a class is ever stored.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from ..errors import ConfigError, ModelError, PromptError
from ..prompt.values import Cache, Conditioned, Frame, Paired, Pixels, Prompt, Tokens
from .classtexts import ClassTexts
from .frozen import Frozen
from .images import ImageBatch, Preparation
from .tower import Memory, Rows, Tower

MEMORY_GB = 2.0  # of keys and values of pictures that rows read, in all
AT_ONCE = 256  # class texts in one pass with gradients; more go in parts that are computed again on the way back


@dataclass(frozen=True)
class ImageSide:
    """enter: (B, 3, S, S) -> (B, n, d) tokens with positions; norm: before the blocks; pool: (B, n, d) after the last
    block -> (B, D). first: whether pooling reads the first token only. tower: None for networks without blocks, whose
    `enter` and `pool` together are all there is."""

    enter: Callable[[Tensor], Tensor]
    pool: Callable[[Tensor], Tensor]
    size: int  # D
    norm: Callable[[Tensor], Tensor] | None = None
    tower: Tower | None = None
    first: bool = False


@dataclass(frozen=True)
class TextSide:
    """table: (V, d); positions: (length, d); pool: (R, d) at the read column -> (R, D); reads: which column that is,
    "end" (the text's last token) or "last" (of the padded length)."""

    table: Tensor
    positions: Tensor
    pool: Callable[[Tensor], Tensor]
    tower: Tower
    reads: str = "end"
    pad: int = 0


@dataclass(frozen=True)
class Sides:
    """A prompt as it enters the two towers; None: nothing does. cache: remembered examples, after the towers."""

    text: Tokens | None = None
    image: Tokens | Pixels | None = None
    cache: Cache | None = None


@dataclass(frozen=True)
class Looks:
    """What a prompt's maker may look at. features: () -> (B, D) of the frozen tower. pixels: (B, 3, S, S) in 0..1."""

    features: Callable[[], Tensor]
    pixels: Tensor


@dataclass(eq=False)
class Sight(Frozen):
    """A frozen network for images.

    arrangement: "dual" (images and texts in one space), "vision" (a tower whose features a head reads) or
    "classifier" (any network that gives scores of its own classes). classes: their names, () where there are none.
    """

    name: str
    network: Any
    tokenizer: Any
    arrangement: str
    image: ImageSide
    prepare: Preparation
    text: TextSide | None = None
    logit_scale: float = 1.0
    logit_bias: float = 0.0
    classes: tuple[str, ...] = ()
    logits: Callable[[Tensor], Tensor] | None = None  # (B, 3, S, S) -> scores of `classes`
    why: str = ""
    opening: dict[str, Any] = field(default_factory=dict)
    pool: str = "cls"
    normalise: bool = False  # of features that a head reads

    def __post_init__(self) -> None:
        self.config: Any = getattr(self.network, "config", None)
        self.two_stacks, self.sites = False, ()
        self.limit = self.text.positions.shape[0] if self.text is not None else 0
        self._class_texts: dict[Frame, Tensor] = {}
        self._laid: dict[tuple[Frame, int], ClassTexts] = {}

    # what it is

    @property
    def can(self) -> frozenset[str]:
        have = {"gradients", "images"}
        if self.arrangement != "classifier":
            have.add("features")
        if self.image.tower is not None:
            have.add("tokens")
        if self.text is not None:
            have.add("class-texts")
        if self.logits is not None:
            have.add("classes")
        return frozenset(have)

    @property
    def beside(self) -> str:
        """How pictures are prepared, and the order of its own classes."""
        p = self.prepare
        return f"{p.size} {p.mean} {p.deviation} {self.classes} "

    @property
    def device(self) -> torch.device:
        return next(self.network.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        return next(self.network.parameters()).dtype

    @property
    def hidden(self) -> int:
        """D: the features' size."""
        return self.image.size

    @cached_property
    def scale(self) -> float:
        """Root mean square of the text tower's input table (of a vision model: of its first token's states): the
        natural unit of prompt rows."""
        with torch.no_grad():
            if self.text is not None:
                return float(self.text.table.float().square().mean().sqrt())
            return self.row_scale

    @cached_property
    def row_scale(self) -> float:
        """Root mean square of what goes into the image tower's blocks for a grey picture: the unit of visual rows."""
        with torch.no_grad(), self.frozen():
            return float(self.enter(self.grey()).float().square().mean().sqrt())

    @cached_property
    def tokens(self) -> int:
        """n: own tokens of a picture in the image tower."""
        with torch.no_grad(), self.frozen():
            return int(self.enter(self.grey()).shape[1])

    def grey(self) -> Tensor:
        """(1, 3, S, S): a grey picture, normalised."""
        half = torch.full((1, 3, self.prepare.size, self.prepare.size), 0.5)
        return self.prepare.normalised(half.to(self.device, self.dtype))

    def describe(self) -> str:
        tower = self.image.tower
        more = f"features of {self.hidden}" + (f", {tower.depth} blocks of {tower.width}" if tower else "")
        return self.described(more)

    # a prompt in the form in which it enters

    def reads(self, batch: ImageBatch) -> Looks:
        return Looks(lambda: self.features(batch), batch.raw)

    def place(self, prompt: Prompt | None, batch: ImageBatch) -> Sides:
        """Raises PromptError for kinds that do not go with images."""
        if isinstance(prompt, Conditioned):
            return self.place(self.maker_of(prompt)(self.reads(batch)), batch)
        if isinstance(prompt, Paired):
            text, image = self.place(prompt.text, batch), self.place(prompt.image, batch)
            return Sides(text.text, image.image)
        if isinstance(prompt, Cache):
            return Sides(cache=prompt)
        if isinstance(prompt, Tokens):
            return Sides(text=prompt) if prompt.side == "text" else Sides(image=prompt)
        if isinstance(prompt, Pixels):
            return Sides(image=prompt)
        if prompt is not None and prompt.kind not in ("text", "constant"):
            raise PromptError(f"a prompt of kind {prompt.kind!r} is for text models; {self.name} looks at pictures")
        return Sides()

    # images

    def enter(self, pixels: Tensor) -> Tensor:
        """(B, 3, S, S) normalised -> (B, n, d), what goes into the first block."""
        x = self.image.enter(pixels)
        return self.image.norm(x) if self.image.norm is not None else x

    def features(self, batch: ImageBatch) -> Tensor:
        """(B, D) of the frozen image side, unit length; computed once a picture."""
        return batch.kept("features", lambda part: self.look(part, None))

    def look(self, batch: ImageBatch, prompt: Tokens | Pixels | None, texts: Tensor | None = None) -> Tensor:
        """(B, D) features under a prompt, unit length; (B, M, D) of rows that only read. texts: class features, for
        rows that are made from them."""
        if isinstance(prompt, Tokens) and prompt.read_only:
            return self._observe(batch, prompt)
        return F.normalize(self.pooled(batch, prompt, texts), dim=-1)

    def pooled(self, batch: ImageBatch, prompt: Tokens | Pixels | None, texts: Tensor | None = None) -> Tensor:
        """(B, D) before it is brought to unit length."""
        pixels = self.pixels(batch, prompt)
        tower = self.image.tower
        if not isinstance(prompt, Tokens):
            x = self.enter(pixels)
            if tower is not None:
                x, _ = tower.run(x, first=self.image.first)
            return self.image.pool(x).float()
        if tower is None:
            raise ModelError(f"{self.name} has no transformer blocks: prompts enter it as pixels only")
        own, rows = self._entered(pixels, prompt, texts)
        own, _ = tower.run(own, rows, first=self.image.first)
        return self.image.pool(own).float()

    def pixels(self, batch: ImageBatch, prompt: Prompt | None) -> Tensor:
        """(B, 3, S, S), normalised, as a pixel prompt changes them."""
        if not isinstance(prompt, Pixels):
            return batch.normalised
        delta = prompt.delta.to(batch.raw)
        if prompt.space == "normalised":
            return (self.prepare.normalised(batch.raw) + delta).to(self.dtype)
        raw = batch.raw + delta  # in float32: the steps of a pixel prompt are smaller than bfloat16's
        return self.prepare.normalised(raw.clamp(0, 1) if prompt.clip else raw).to(self.dtype)

    def _entered(self, pixels: Tensor, prompt: Tokens, texts: Tensor | None = None) -> tuple[Tensor, Rows]:
        layers = {i: t.to(pixels) for i, t in prompt.layers.items()}
        x = self.image.enter(pixels)
        if self.image.norm is not None:
            if prompt.entry == "before-norm" and 0 in layers:
                layers[0] = self.image.norm(layers[0])
            x = self.image.norm(x)
        ways = {n: getattr(prompt, n) for n in ("gates", "temperatures", "entries", "mass")}
        made = {i: partial(write, texts=texts) for i, write in prompt.made.items()}
        return x, Rows(at=layers, made=made, **ways)

    def memory(self, batch: ImageBatch) -> Memory:
        """Keys and values of every block of the frozen image tower. While learning they are kept with the picture, as
        long as they do not take more than MEMORY_GB in all."""
        tower = self.image.tower
        assert tower is not None
        each = 2 * tower.depth * self.tokens * tower.width * self.dtype.itemsize
        # the first of a split's pictures: which are kept does not depend on what came before, so runs resume exactly
        if not torch.is_grad_enabled() or any((r.order + 1) * each > MEMORY_GB * 1e9 for r in batch.rows):
            with torch.no_grad():
                return tower.memory(self.enter(batch.normalised))

        def compute(part: ImageBatch) -> Tensor:
            kept = tower.memory(self.enter(part.normalised))
            return torch.stack([torch.stack(pair, 1) for pair in kept], 1)  # (B, L, 2, h, n, d / h)

        kept = batch.kept("memory", compute)
        return [(kept[:, i, 0], kept[:, i, 1]) for i in range(tower.depth)]

    def _observe(self, batch: ImageBatch, prompt: Tokens) -> Tensor:
        tower = self.image.tower
        assert tower is not None
        rows = prompt.layers[0].to(self.dtype)
        if self.image.norm is not None and prompt.entry == "before-norm":
            rows = self.image.norm(rows)
        states = tower.observe(rows.expand(len(batch), -1, -1), self.memory(batch))
        return F.normalize(self.image.pool(states.flatten(0, 1)[:, None]).float(), dim=-1).unflatten(
            0, (len(batch), -1)
        )

    # class texts

    def texts(self, frame: Frame, prompt: Tokens | None = None) -> Tensor:
        """(C, D) class features, unit length; (B, C, D) with contexts for each input; (C, M, D) of rows that only
        read. Several texts of a class are averaged, each at unit length. Raises ConfigError for texts too long."""
        if prompt is None:
            found = self._class_texts.get(frame)
            if found is None:
                if len(self._class_texts) > 16:
                    self._class_texts.clear()
                # what is kept may be met by learning later, which inference tensors cannot be
                with torch.inference_mode(False), torch.no_grad():
                    self._class_texts[frame] = found = self._encode(frame, None)
            return found
        return self._encode(frame, prompt)

    def _encode(self, frame: Frame, prompt: Tokens | None) -> Tensor:
        if self.text is None:
            raise ModelError(f"{self.name} ({self.arrangement}) reads no texts; a dual encoder does")
        observing = prompt is not None and prompt.read_only
        laid = self.lay(frame, 0 if prompt is None or observing else prompt.length)
        if observing:
            assert prompt is not None
            return self._observe_texts(laid, prompt)
        if prompt is not None and prompt.per == "class" and len(laid.owner) != len(frame.labels):
            raise ConfigError("vectors of each class go with one text a class: give one template")
        z = F.normalize(self._run_texts(laid, prompt).float(), dim=-1)
        return laid.averaged(z, 1 if prompt is not None and prompt.per == "input" else 0)

    def lay(self, frame: Frame, length: int) -> ClassTexts:
        """The class texts of a frame with so many vectors; the last few are kept, for they are asked at every step."""
        assert self.text is not None
        found = self._laid.get((frame, length))
        if found is None:
            if len(self._laid) > 16:
                self._laid.clear()
            full, pad = self.text.reads == "last", self.text.pad
            found = ClassTexts.of(self.tokenizer, frame, length, self.limit, full, pad)
            self._laid[frame, length] = found
        return found

    def encode(self, sentences: Iterable[str]) -> Tensor:
        """(N, D): features of any sentences, unit length, without a prompt."""
        said = tuple(sentences)
        return self.texts(Frame(labels=tuple(map(str, range(len(said)))), words=said, template="{label}"))

    def _run_texts(self, laid: ClassTexts, prompt: Tokens | None) -> Tensor:
        """(R, D), or (B, R, D). The columns that all texts begin with are run once."""
        side = self.text
        assert side is not None
        per = "all" if prompt is None else prompt.per
        shared = laid.shared(per) if side.tower.causal else 0
        inputs = prompt.layers[0].shape[0] if prompt is not None and per == "input" else 1
        R = len(laid.codes)
        size = max(1, AT_ONCE // inputs)
        needs = torch.is_grad_enabled() and prompt is not None
        parts = []
        for start in range(0, R, size):
            rows = slice(start, min(R, start + size))

            def part(rows: slice = rows) -> Tensor:
                return self._run_part(laid, prompt, rows, shared, inputs)

            many = needs and R * inputs > AT_ONCE
            # equal to one pass: the part is computed again on the way back instead of being kept
            parts.append(checkpoint(part, use_reentrant=False, preserve_rng_state=False) if many else part())
        z = torch.cat(parts, 1 if per == "input" else 0)
        return z

    def _run_part(self, laid: ClassTexts, prompt: Tokens | None, rows: slice, shared: int, inputs: int) -> Tensor:
        side = self.text
        assert side is not None
        codes = laid.codes[rows].to(self.device)
        R, S = codes.shape
        per = "all" if prompt is None else prompt.per
        layers = {} if prompt is None else {i: t.to(side.table) for i, t in prompt.layers.items()}
        own = {i: t[rows] if per == "class" else t for i, t in layers.items()}
        lead_codes, tail_codes = codes[:1, :shared].expand(inputs, -1), codes[:, shared:]
        if inputs > 1:
            tail_codes = tail_codes.repeat(inputs, 1)

        def filled(x: Tensor, at: Tensor, vectors: Tensor, times: int) -> Tensor:
            """x with the prompt's vectors in its virtual columns. vectors: (M, d) or one set for each of some rows."""
            virtual = at < 0
            if not bool(virtual.any()):
                return x
            if vectors.dim() == 2:
                put = F.embedding((-1 - at).clamp(min=0, max=max(0, len(vectors) - 1)), vectors)
            else:
                each = vectors.repeat_interleave(times, 0) if times > 1 else vectors
                put = each.gather(1, (-1 - at).clamp(min=0)[..., None].expand(-1, -1, each.shape[-1]))
            return torch.where(virtual[..., None], put, x)

        times = R if per == "input" else 1

        def begin(at: Tensor, start: int, each: int) -> Tensor:
            x = F.embedding(at.clamp(min=0), side.table)
            if 0 in own:
                x = filled(x, at, own[0], each)
            return x + side.positions[start : start + at.shape[1]]

        def deep(layer: int, lead: Tensor, tail: Tensor) -> tuple[Tensor, Tensor]:
            if layer == 0 or layer not in own:
                return lead, tail
            if own[layer].shape[-2] != own[0].shape[-2]:
                raise PromptError("the text side's rows must be as many in every layer")
            return filled(lead, lead_codes, own[layer], 1), filled(tail, tail_codes, own[layer], times)

        lead = begin(lead_codes, 0, 1) if shared else side.table.new_zeros(inputs, 0, side.table.shape[1])
        tail = begin(tail_codes, shared, times)
        last = laid.last[rows].to(self.device) - shared
        states = side.tower.behind(lead, tail, last.repeat(inputs), deep)
        z = side.pool(states)
        return z.unflatten(0, (inputs, R)) if per == "input" else z

    def _observe_texts(self, laid: ClassTexts, prompt: Tokens) -> Tensor:
        side, M = self.text, prompt.length
        assert side is not None
        codes = laid.codes.to(self.device)
        kept = self._text_memory
        if kept is None or kept[0] != laid.key:
            with torch.inference_mode(False), torch.no_grad():
                x = F.embedding(codes, side.table) + side.positions[: codes.shape[1]]
                self._text_memory = kept = (laid.key, side.tower.memory(x))
        columns = torch.arange(codes.shape[1], device=codes.device)
        seen = columns[None] <= laid.last.to(codes.device)[:, None]
        rows = prompt.layers[0].to(side.table).expand(len(codes), -1, -1)
        z = side.pool(side.tower.observe(rows, kept[1], seen).flatten(0, 1))
        return laid.averaged(F.normalize(z.float(), dim=-1).unflatten(0, (len(codes), M)))

    _text_memory: tuple[Any, Memory] | None = None

    # scores

    def match(self, images: Tensor, texts: Tensor) -> Tensor:
        """(B, C) scores. images: (B, D) or (B, M, D); texts: (C, D), (B, C, D), or (C, M, D) beside (B, M, D), of
        which the mean over M counts."""
        if images.dim() == 3:
            z = torch.einsum("bmd,cmd->bc", images, texts) / images.shape[1]
        elif texts.dim() == 3:
            z = torch.einsum("bd,bcd->bc", images, texts)
        else:
            z = images @ texts.T
        return self.logit_scale * z + self.logit_bias
