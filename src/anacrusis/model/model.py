"""Models: what is frozen. Opening one, what it can do, and one forward pass with a prompt in it."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import ModelError
from ..prompt.values import Conditioned, Frame, Prefix, Prompt, Soft
from .attention import Session, Site, find_sites
from .frozen import Frozen
from .rows import Batch, Renderer, Row, collate

CAPABILITIES = {
    "gradients": "learns by gradient through the network",
    "features": "states of a text, to classify by a head or by similarity",
    "logprobs": "probabilities of words",
    "text": "writes text",
    "prefixes": "keys and values per layer",
}

# What stands between the last hidden state and the output embedding of a masked-LM head, by model type.
_MASKED_HEADS: dict[str, Callable[[Any, Tensor], Tensor]] = {
    "bert": lambda n, h: n.cls.predictions.transform(h),
    "roberta": lambda n, h: n.lm_head.layer_norm(nn.functional.gelu(n.lm_head.dense(h))),
    "distilbert": lambda n, h: n.vocab_layer_norm(n.activation(n.vocab_transform(h))),
    "modernbert": lambda n, h: n.head(h),
}
_MASKED_HEADS["xlm-roberta"] = _MASKED_HEADS["camembert"] = _MASKED_HEADS["roberta"]


@dataclass(frozen=True)
class Reads:
    """What a prompt's maker may look at, of the caller's own tokens only.

    embeddings: (B, T, H), input embeddings, zero at padding. mask: (B, T) bool.
    """

    embeddings: Tensor
    mask: Tensor


@dataclass(frozen=True)
class Placed:
    """A prompt (or one per row) in the form in which it enters the network."""

    vectors: Tensor | None = None  # (1 or B, P, H)
    offset: Tensor | None = None  # (1 or B, T_max, H)
    keys: dict[str, Sequence[Tensor]] = field(default_factory=dict)  # stack -> layers of (1 or B, heads, P, d)
    values: dict[str, Sequence[Tensor]] = field(default_factory=dict)
    seen: dict[str, Tensor] = field(default_factory=dict)  # stack -> (B, P)
    shift: int | Tensor = 0  # () or (B,) positions

    def repeated(self, n: int) -> Placed:
        """Each row's n times, one after the other."""

        def rows(t: Tensor | None) -> Any:
            return t if t is None or t.shape[0] == 1 else t.repeat_interleave(n, 0)

        def sides(given: dict[str, Sequence[Tensor]]) -> dict[str, Sequence[Tensor]]:
            return {s: [rows(t) for t in layers] for s, layers in given.items()}

        shift = rows(self.shift) if isinstance(self.shift, Tensor) and self.shift.dim() else self.shift
        seen = {s: rows(t) for s, t in self.seen.items()}
        return Placed(rows(self.vectors), rows(self.offset), sides(self.keys), sides(self.values), seen, shift)


@dataclass(eq=False)
class Model(Frozen):
    """A frozen network with its tokenizer.

    arrangement: "encoder" (states only), "masked", "causal" or "encoder-decoder". can: subset of CAPABILITIES.
    why: how dtype and device were chosen, one sentence. The network's weights, buffers and mode are never changed.
    """

    name: str
    network: Any  # a transformers model
    tokenizer: Any
    arrangement: str
    limit: int = 512  # positions, in tokens
    pool: str = "mean"
    normalise: bool = False
    why: str = ""
    opening: dict[str, Any] = field(default_factory=dict)  # options of `open` that were given, so that a run can repeat

    def __post_init__(self) -> None:
        self.config: Any = self.network.config
        self.two_stacks = self.arrangement == "encoder-decoder"
        core: Any = self.network.get_encoder() if self.two_stacks else self.network.base_model
        self.core = core
        taken = inspect.signature(core.forward).parameters
        self.takes_positions = "position_ids" in taken
        self.takes_types = "token_type_ids" in taken and getattr(self.config, "type_vocab_size", 0) > 1
        # RoBERTa's family counts positions from padding_idx + 1
        table = getattr(getattr(core, "embeddings", None), "position_embeddings", None)
        padded = getattr(table, "padding_idx", None)
        self.first_position = padded + 1 if padded is not None and hasattr(core.embeddings, "padding_idx") else 0

    # what it is

    @property
    def can(self) -> frozenset[str]:
        """Capabilities, by name; CAPABILITIES explains them."""
        have = {"gradients", "features"}
        if self.arrangement != "encoder":
            have.add("logprobs")
        if self.arrangement in ("causal", "encoder-decoder"):
            have.add("text")
        if self.sites:
            have.add("prefixes")
        return frozenset(have)

    @property
    def device(self) -> torch.device:
        return self.embeddings.device

    @property
    def dtype(self) -> torch.dtype:
        return self.embeddings.dtype

    @property
    def embeddings(self) -> Tensor:
        """(V, H): the input table."""
        return self.network.get_input_embeddings().weight

    @property
    def hidden(self) -> int:
        return int(self.embeddings.shape[1])

    @cached_property
    def scale(self) -> float:
        """Root mean square of the input table's values: the natural unit of a soft prompt's values and steps."""
        with torch.no_grad():
            return float(self.embeddings.float().square().mean().sqrt())

    @cached_property
    def sites(self) -> tuple[Site, ...]:
        """The attentions that take a prefix; empty where the network does not use transformers' interface."""
        ids = torch.zeros(1, 3, dtype=torch.long, device=self.device)

        def probe() -> None:
            more = {"decoder_input_ids": ids[:, :2]} if self.two_stacks else {}
            self.network(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False, **more)

        with self.frozen():
            return find_sites(self.network, probe, encoder_length=3)

    def describe(self) -> str:
        return self.described(f"hidden size {self.hidden}")

    # using it

    def renderer(self, frame: Frame, prompt: Prompt | None = None) -> Renderer:
        """Lays examples out for this model and `prompt`."""
        length = prompt.length if prompt is not None else 0
        shift = int(prompt.shift) if isinstance(prompt, Prefix) else 0
        start: tuple[int, ...] = ()
        if self.two_stacks:
            writes = self.network.generation_config  # what `generate` begins with; older folders say it in the config
            first = getattr(self.config, "decoder_start_token_id", None)
            forced = getattr(writes, "forced_bos_token_id", None) or getattr(self.config, "forced_bos_token_id", None)
            start = tuple(t for t in (first if first is not None else 0, forced) if t is not None)
        return Renderer(self.tokenizer, self.arrangement, frame, length, self.limit - shift, start)

    def embed(self, codes: Tensor) -> Tensor:
        """(B, S) codes -> (B, S, H); virtual tokens get row 0 and are to be overwritten."""
        return self.network.get_input_embeddings()(codes.clamp(min=0))

    def reads(self, batch: Batch) -> Reads:
        """The caller's own tokens of a batch, pressed together to (B, T, ...). A taught answer is not among them."""
        index, mask = _press(self._given(batch))
        states = self.embed(batch.codes)
        states = states.gather(1, index[..., None].expand(-1, -1, states.shape[-1]))
        return Reads(states * mask[..., None], mask)

    def place(self, prompt: Prompt | None, batch: Batch) -> Placed:
        """Bring one prompt into the form in which it enters the network."""
        if isinstance(prompt, Conditioned):
            return self.place(self.maker_of(prompt)(self.reads(batch)), batch)
        if isinstance(prompt, Soft):
            vectors = prompt.vectors if prompt.vectors.dim() == 3 else prompt.vectors[None]
            offset = prompt.offset
            return Placed(vectors=vectors, offset=offset[None] if offset is not None else None)
        if isinstance(prompt, Prefix):
            keys, values = _four(prompt.keys), _four(prompt.values)
            return Placed(keys=keys, values=values, seen=dict(prompt.seen), shift=prompt.shift)
        return Placed()

    def mix(self, prompts: Sequence[Prompt], which: Sequence[int], batch: Batch) -> Placed:
        """One prompt per row: row b of `batch` gets prompts[which[b]]. Kinds and lengths may differ."""
        used = {i: self.place(prompts[i], _rows(batch, [b for b, w in enumerate(which) if w == i])) for i in set(which)}
        turn = {i: iter(range(len(which))) for i in used}
        parts = [(used[i], next(turn[i])) for i in which]
        vectors = _stack([_row(p.vectors, b) for p, b in parts], self)
        offset = _stack([_row(p.offset, b) for p, b in parts], self)
        shift = torch.tensor([int(p.shift if isinstance(p.shift, int) else p.shift[b]) for p, b in parts])
        keys: dict[str, Sequence[Tensor]] = {}
        values: dict[str, Sequence[Tensor]] = {}
        seen: dict[str, Tensor] = {}
        for stack in {s for p, _ in parts for s in p.keys}:
            own = [s for s in self.sites if s.stack == stack]
            longest = max(p.keys[stack][0].shape[2] for p, _ in parts if stack in p.keys)
            if any(len({k.shape[2] for k in p.keys[stack]}) > 1 for p, _ in parts if stack in p.keys):
                raise ModelError("prompts whose layers differ in length cannot be mixed in one batch; run them alone")
            sides: dict[str, list[Tensor]] = {"keys": [], "values": []}
            for site in own:
                for side, out in sides.items():
                    rows = []
                    for p, b in parts:
                        have = getattr(p, side).get(stack)
                        t = _row(have[site.layer], b) if have else self.embeddings.new_zeros(site.heads, 0, site.dim)
                        rows.append(nn.functional.pad(t.to(self.embeddings), (0, 0, 0, longest - t.shape[1])))
                    out.append(torch.stack(rows))
            keys[stack], values[stack] = sides["keys"], sides["values"]
            lengths = [p.keys[stack][0].shape[2] if stack in p.keys else 0 for p, _ in parts]
            mask = torch.arange(longest)[None] < torch.tensor(lengths)[:, None]
            for b, (p, n) in enumerate(parts):
                if stack in p.seen:
                    mask[b, : p.seen[stack].shape[1]] &= p.seen[stack][n].cpu()
            seen[stack] = mask.to(self.device)
        return Placed(vectors, offset, keys, values, seen, shift.to(self.device))

    def run(self, batch: Batch, placed: Placed | None = None, *, read: bool = False, recompute: bool = False) -> Tensor:
        """One forward pass. Returns last hidden states: (B, S, H) of the input's columns, or with `read` only those
        that the batch asks for, (B, R, H) (for an encoder-decoder: of the decoder)."""
        placed = placed or Placed()
        late = read and not self.two_stacks and not recompute and bool(self.sites)
        session = self.session(placed, late_at=batch.at if late else None, recompute=recompute)
        with session.open():
            states = self._core(self.inputs(batch, placed), batch.mask, placed.shift, batch.types)
            if not read:
                return states
            if not self.two_stacks:
                return states.gather(1, batch.at[..., None].expand(-1, -1, states.shape[-1]))
            decoder = self.network.get_decoder()
            out = decoder(
                input_ids=batch.decoder,
                encoder_hidden_states=states,
                encoder_attention_mask=batch.mask.long(),
                use_cache=False,
            ).last_hidden_state
            return out.gather(1, batch.at[..., None].expand(-1, -1, out.shape[-1]))

    def session(self, placed: Placed, **options: Any) -> Session:
        self._check_shapes(placed)
        needed = placed.keys or options.get("late_at") is not None or options.get("record") or options.get("recompute")
        sites = self.sites if needed else ()
        return Session(self.network, sites, dict(placed.keys), dict(placed.values), dict(placed.seen), **options)

    def inputs(self, batch: Batch, placed: Placed) -> Tensor:
        """(B, S, H): embeddings with the prompt's vectors in their places and its offsets added."""
        x = self.embed(batch.codes)
        if placed.offset is not None:
            x = x + self._offsets(batch, placed.offset).to(x)
        virtual = batch.codes < 0
        if placed.vectors is not None and placed.vectors.shape[1]:
            n, P, H = placed.vectors.shape
            row, column = virtual.nonzero(as_tuple=True)
            index = -1 - batch.codes[row, column] + (row * P if n > 1 else 0)
            # index_select: its gradient is summed in order; that of [index] is not, with several threads
            x = x.index_put((row, column), placed.vectors.reshape(n * P, H).to(x).index_select(0, index))
        return x

    def _offsets(self, batch: Batch, offset: Tensor) -> Tensor:
        """(B, S, H): offset[t] at the caller's t-th input token, zero elsewhere and beyond T_max."""
        B = len(batch.codes)
        mine = self._given(batch)
        turn = mine.long().cumsum(1) - 1
        mine = mine & (turn < offset.shape[1])
        index = turn.clamp(0, offset.shape[1] - 1)[..., None].expand(-1, -1, offset.shape[2])
        return offset.expand(B, -1, -1).gather(1, index) * mine[..., None]

    def _given(self, batch: Batch) -> Tensor:
        """(B, S): the caller's own tokens, without the answer that is taught behind them."""
        first = batch.mask.long().argmax(1, keepdim=True)
        column = torch.arange(batch.codes.shape[1], device=batch.codes.device)[None] - first
        return batch.own & (column < batch.inputs[:, None])

    def positions(self, mask: Tensor, shift: int | Tensor = 0) -> Tensor:
        """(B, S) position ids from a mask, so that padding on either side moves nothing."""
        moved = shift[:, None] if isinstance(shift, Tensor) and shift.dim() else shift
        return (mask.long().cumsum(1) - 1).clamp(min=0) + moved + self.first_position

    def _core(self, x: Tensor, mask: Tensor, shift: int | Tensor, types: Tensor) -> Tensor:
        more: dict[str, Any] = {}
        if self.takes_positions:
            more["position_ids"] = self.positions(mask, shift)
        elif isinstance(shift, Tensor) and bool(shift.any()) or isinstance(shift, int) and shift:
            raise ModelError(f"{self.name} takes no positions from outside; its prefixes must have shift 0")
        if self.takes_types:
            more["token_type_ids"] = types
        if "use_cache" in inspect.signature(self.core.forward).parameters:
            more["use_cache"] = False
        out = self.core(inputs_embeds=x, attention_mask=mask.long(), **more)
        return out.last_hidden_state

    def logits(self, states: Tensor, ids: Tensor | None = None) -> Tensor:
        """Scores of words, (..., V), or (..., C) for the C token ids given: only those rows of the output embedding
        are read. states: (..., H) last hidden states at the places where a word is predicted."""
        out = self.network.get_output_embeddings()
        if out is None:
            raise ModelError(f"{self.name} predicts no words (no language-model head); it can: {', '.join(self.can)}")
        if self.arrangement == "masked":
            states = _MASKED_HEADS[self.config.model_type](self.network, states)
        if self.config.model_type in ("t5", "mt5") and getattr(self.config, "scale_decoder_outputs", False):
            states = states * self.hidden**-0.5
        weight, bias = out.weight, out.bias
        if bias is None:
            bias = getattr(self.network, "final_logits_bias", None)  # BART
            bias = bias[0] if bias is not None else None
        if ids is not None:
            weight = weight[ids]
            bias = bias[ids] if bias is not None else None
        z = nn.functional.linear(states, weight, bias)
        z = z * getattr(self.config, "logit_scale", 1.0) / getattr(self.config, "logits_scaling", 1.0)
        cap = getattr(self.config, "final_logit_softcapping", None)
        return torch.tanh(z / cap) * cap if cap else z

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None, prompt: Prompt | None = None) -> Tensor:
        """Last hidden states of the caller's own tokens, (B, T, H), aligned to `input_ids` (B, T) whatever its padding
        side and wherever the prompt stands. Rows at padding are zero. For an encoder-decoder: the encoder's states.

        Raises ModelError or PromptError when the prompt does not fit.
        """
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        prompt = prompt or Soft(vectors=self.embeddings.new_zeros(0, self.hidden))
        place = prompt.frame.place
        lead = 1 if place == "after-bos" or (place == "auto" and self.arrangement in ("encoder", "masked")) else 0
        soft = tuple(-1 - j for j in range(prompt.length))
        rows = []
        for ids, keep in zip(input_ids.tolist(), mask.tolist(), strict=True):
            own = [i for i, k in zip(ids, keep, strict=True) if k]
            spot = len(own) if place == "back" else lead
            codes = (*own[:spot], *soft, *own[spot:])
            rows.append(Row(codes, (0,) * len(codes), inputs=len(codes)))
        batch = collate(rows).to(self.device)
        with self.frozen():
            states = self.run(batch, self.place(prompt, batch))
        index, real = _press(batch.own)
        states = states.gather(1, index[..., None].expand(-1, -1, states.shape[-1]))
        out = states.new_zeros(*input_ids.shape, states.shape[-1])
        return out.index_put(mask.bool().nonzero(as_tuple=True), states[real])

    def keys_and_values(self, batch: Batch, placed: Placed | None = None) -> dict[str, list[tuple[Tensor, Tensor]]]:
        """What every attention computes for itself on `batch`: by stack, a (keys, values) pair a layer, each
        (B, heads, S, d). Keys are as cached, rotary positions applied."""
        session = self.session(placed or Placed(), record=True)
        with session.open():
            x = self.inputs(batch, placed or Placed())
            shift = placed.shift if placed else 0
            states = self._core(x, batch.mask, shift, batch.types)
            if self.two_stacks:
                self.network.get_decoder()(
                    input_ids=batch.decoder,
                    encoder_hidden_states=states,
                    encoder_attention_mask=batch.mask.long(),
                    use_cache=False,
                )
        out: dict[str, list[tuple[Tensor, Tensor]]] = {}
        for site in self.sites:
            out.setdefault(site.stack, []).append(session.recorded[site.module][0])
        return out

    def _check_shapes(self, placed: Placed) -> None:
        if placed.vectors is not None and placed.vectors.shape[-1] != self.hidden:
            raise ModelError(
                f"the prompt's vectors have {placed.vectors.shape[-1]} values each, {self.name} has hidden size "
                f"{self.hidden}"
            )
        for stack, layers in placed.keys.items():
            own = [s for s in self.sites if s.stack == stack]
            if len(own) != len(layers):
                raise ModelError(
                    f"the prompt has keys for {len(layers)} {stack} layers, {self.name} has {len(own)} of them"
                )
            for site, k in zip(own, layers, strict=True):
                if (k.shape[1], k.shape[3]) != (site.heads, site.dim):
                    raise ModelError(
                        f"the prompt's keys at {stack} layer {site.layer} are {k.shape[1]} heads x {k.shape[3]}, "
                        f"{self.name} has {site.heads} x {site.dim}"
                    )


def _four(side: Mapping[str, Sequence[Tensor]]) -> dict[str, Sequence[Tensor]]:
    """Layers of (heads, P, d) with an axis for rows."""
    return {s: [t if t.dim() == 4 else t[None] for t in layers] for s, layers in side.items()}


def _press(mask: Tensor) -> tuple[Tensor, Tensor]:
    """Columns of the true entries of (B, S), left-aligned: (B, T) indices and which of them are real."""
    counts = mask.sum(1)
    T = int(counts.max())
    index = torch.argsort(~mask, dim=1, stable=True)[:, :T]
    return index, torch.arange(T, device=mask.device)[None] < counts[:, None]


def _rows(batch: Batch, rows: list[int]) -> Batch:
    return Batch(**{k: v[rows] if isinstance(v, Tensor) else v for k, v in batch.__dict__.items()})


def _row(t: Tensor | None, b: int) -> Tensor:
    """Row b of a tensor that may be shared by all rows; an empty one where there is none."""
    return torch.zeros(0) if t is None else t[b if t.shape[0] > 1 else 0]


def _stack(rows: list[Tensor], model: Model) -> Tensor | None:
    """(B, P_max, H) from rows of (P, H), zeros at the end."""
    longest = max((r.shape[0] for r in rows if r.dim() == 2), default=0)
    if not longest:
        return None
    out = model.embeddings.new_zeros(len(rows), longest, model.hidden)
    for b, r in enumerate(rows):
        if r.dim() == 2:
            out[b, : r.shape[0]] = r.to(out)
    return out


def batches_by_length(rows: Sequence[Row], size: int) -> Iterator[list[int]]:
    """Indices of rows in batches of like length, longest first (what does not fit in memory shows at once)."""
    order = sorted(range(len(rows)), key=lambda i: (-len(rows[i].codes), i))
    for start in range(0, math.ceil(len(order) / size) * size, size):
        yield order[start : start + size]
