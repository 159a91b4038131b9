"""From an example to what a network reads: rows of codes, and batches of rows.

A code is a token id (>= 0) or a virtual token (-1 - j stands for the prompt's vector j). Everything about where a
prompt stands is said by the order of codes; masks, positions and alignment follow from it.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from ..errors import ConfigError
from ..prompt.values import Frame

_SLOT = re.compile(r"\{([^{}]*)\}")
_SAID = ("text", "mask")  # parts of a template that a person would read


@dataclass(frozen=True)
class Row:
    """One example, tokenised and laid out."""

    codes: tuple[int, ...]
    types: tuple[int, ...]  # segment of a text pair: 0 or 1
    at: tuple[int, ...] = ()  # columns whose output is read
    targets: tuple[int, ...] = ()  # token ids expected at `at`, when an answer is taught
    inputs: int = 0  # codes before the answer
    decoder: tuple[int, ...] = ()  # decoder tokens of an encoder-decoder; `at` then counts in these
    cut: int = 0  # tokens of the example that did not fit

    def without(self, keep: int) -> Row:
        """The same row with only the first `keep` virtual tokens (all of them: itself)."""
        if keep >= sum(c < 0 for c in self.codes):
            return self
        kept = [i for i, c in enumerate(self.codes) if c >= -keep]
        # a read column that is dropped moves to the last one kept before it (the prompt's end, behind the input)
        at = self.at if self.decoder else tuple(bisect_right(kept, i) - 1 for i in self.at)
        return replace(
            self,
            codes=tuple(self.codes[i] for i in kept),
            types=tuple(self.types[i] for i in kept),
            at=at,
            inputs=sum(i < self.inputs for i in kept),
        )


@dataclass(frozen=True)
class Batch:
    """Rows as tensors. S columns, B rows; columns beyond a row's end are padding on `side`."""

    codes: Tensor  # (B, S) int64, padding 0
    mask: Tensor  # (B, S) bool
    types: Tensor  # (B, S) int64
    at: Tensor  # (B, R) int64, padding repeats the row's first entry
    read: Tensor  # (B, R) bool: which of `at` are real
    targets: Tensor  # (B, R) int64, -100 where nothing is expected
    inputs: Tensor  # (B,) codes before the answer
    decoder: Tensor | None = None  # (B, D) int64, right-padded with the start token

    @property
    def own(self) -> Tensor:
        """(B, S): the caller's tokens, virtual ones and padding excluded."""
        return self.mask & (self.codes >= 0)

    def to(self, device: torch.device) -> Batch:
        return Batch(**{k: v.to(device) if isinstance(v, Tensor) else v for k, v in self.__dict__.items()})


def collate(rows: Sequence[Row], side: str = "right") -> Batch:
    """Stack rows; `side` says where padding goes ("left" for generation)."""
    S = max(len(r.codes) for r in rows)
    R = max(1, *(len(r.at) for r in rows))
    codes, mask, types, at, read, targets = [], [], [], [], [], []
    for r in rows:
        pad = S - len(r.codes)
        left, right = (pad, 0) if side == "left" else (0, pad)
        codes.append([0] * left + list(r.codes) + [0] * right)
        types.append([0] * left + list(r.types) + [0] * right)
        mask.append([False] * left + [True] * len(r.codes) + [False] * right)
        first = (r.at[0] if r.at else 0) + (0 if r.decoder else left)
        columns = [c + (0 if r.decoder else left) for c in r.at]
        at.append(columns + [first] * (R - len(columns)))
        read.append([True] * len(columns) + [False] * (R - len(columns)))
        goal = list(r.targets) or [-100] * len(columns)
        targets.append(goal + [-100] * (R - len(goal)))
    decoder = None
    if any(r.decoder for r in rows):
        D = max(len(r.decoder) for r in rows)
        decoder = torch.tensor([list(r.decoder) + [r.decoder[0]] * (D - len(r.decoder)) for r in rows])
    return Batch(
        torch.tensor(codes),
        torch.tensor(mask),
        torch.tensor(types),
        torch.tensor(at),
        torch.tensor(read),
        torch.tensor(targets),
        torch.tensor([r.inputs for r in rows]),
        decoder,
    )


@dataclass(frozen=True)
class _Part:
    """A piece of a template: text with field names to fill in, or one of mask, sep, soft."""

    kind: str  # "text", "mask", "sep", "soft"
    text: str = ""
    count: int = 0  # virtual tokens of a soft slot; 0 = all that are left


def parse(template: str, fields: Iterable[str]) -> list[_Part]:
    """Split a template at its {mask}, {sep} and {soft} slots. `{{` is not needed: unknown names are errors."""
    fields = list(fields)
    parts: list[_Part] = []
    end, text = 0, ""
    for match in _SLOT.finditer(template):
        name = match[1].strip()
        text += template[end : match.start()]
        end = match.end()
        if name in fields:
            text += match[0]
        elif name in ("mask", "sep") or re.fullmatch(r"soft(:\d+)?", name):
            parts += [_Part("text", text)] if text else []
            text = ""
            word, _, count = name.partition(":")
            parts.append(_Part(word, count=int(count or 0)))
        else:
            raise ConfigError(
                f"the template {template!r} has the slot {match[0]}; expected one of "
                f"{', '.join('{' + f + '}' for f in fields)}, {{mask}}, {{sep}}, {{soft}}, {{soft:N}}"
            )
    text += template[end:]
    parts += [_Part("text", text)] if text else []
    if missing := [f for f in fields if "{" + f + "}" not in template]:
        raise ConfigError(f"the template {template!r} leaves out the field {{{missing[0]}}}; every field must appear")
    return parts


@dataclass
class Renderer:
    """Lays examples out for one model, frame and prompt length.

    length: P, virtual tokens. limit: codes that fit the model, virtual ones included. arrangement: "encoder", "masked",
    "causal" or "encoder-decoder". Rows that are too long lose the end of their longest field; `Row.cut` counts it.
    """

    tokenizer: Any
    arrangement: str
    frame: Frame
    length: int = 0
    limit: int = 512
    start: tuple[int, ...] = ()  # what a decoder begins with
    place: str = field(default="", init=False)

    def __post_init__(self) -> None:
        self.parts = parse(self.frame.template, self.frame.fields)
        slots = [p for p in self.parts if p.kind == "soft"]
        place = self.frame.place
        if place == "auto":
            place = "slots" if slots else ("after-bos" if self.arrangement in ("encoder", "masked") else "front")
        if place == "slots" and not slots and self.length:
            raise ConfigError('place is "slots" but the template has no {soft} slot, e.g. "{soft:3}{text}{soft:3}"')
        if place == "slots" and self.length:
            asked = sum(p.count for p in slots)
            if asked > self.length or (asked < self.length and all(p.count for p in slots)):
                raise ConfigError(
                    f"the template's {{soft:N}} slots ask for {asked} vectors, the prompt has {self.length}"
                )
        self.place = place

    @property
    def open_slot(self) -> int:
        """Vectors of a {soft} slot without a number: all that the numbered ones leave."""
        return max(0, self.length - sum(p.count for p in self.parts))

    @cached_property
    def specials(self) -> tuple[list[int], list[int]]:
        """Token ids that the tokenizer puts before and after a text."""
        bare = self.ids("a")
        full = list(self.tokenizer("a", add_special_tokens=True)["input_ids"])
        for i in range(len(full) - len(bare) + 1):
            if full[i : i + len(bare)] == bare:
                return full[:i], full[i + len(bare) :]
        return [], []

    def ids(self, text: str) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])

    def answer_ids(self, text: str, end: bool = False) -> list[int]:
        """Tokens of an answer as it continues a text ("Answer:" -> " billing"). end: with the end-of-text token."""
        if self.arrangement == "encoder-decoder":
            ids = self.ids(text)
        else:
            head = self.ids("x:")
            both = self.ids("x: " + text)
            ids = both[len(head) :] if both[: len(head)] == head else self.ids(" " + text)
        if end and self.tokenizer.eos_token_id is not None:
            ids = ids + [self.tokenizer.eos_token_id]
        return ids

    def rows(
        self, inputs: Iterable[Sequence[str]], answers: Iterable[str | None] | None = None, end: bool = False
    ) -> Iterator[Row]:
        """Rows in order. answers: texts to teach (with `end`: and the end token), None where there is none."""
        known: dict[str, list[int]] = {}
        for i, (texts, answer) in enumerate(zip(inputs, answers or _nothing(), strict=False)):
            if len(texts) != len(self.frame.fields):
                raise ConfigError(
                    f"input {i} has {len(texts)} texts; the prompt reads {len(self.frame.fields)} "
                    f"({', '.join(self.frame.fields)})"
                )
            if answer is None:
                goal: list[int] = []
            elif (goal := known.get(answer, [])) == []:
                goal = known[answer] = self.answer_ids(answer, end)
            yield self._row(texts, goal)

    def _row(self, texts: Sequence[str], goal: list[int]) -> Row:
        taught = goal if self.arrangement == "causal" else []
        room = self.limit - max(0, len(taught) - 1)
        codes, types, mask = self._lay(texts)
        cut, tries = 0, 0
        while len(codes) > room:
            # tokens that are written out and read again may number more than before: take one more each time
            shorter, lost = self._shorten(texts, len(codes) - room + tries)
            tries += 1
            if lost == 0:
                raise ConfigError(
                    f"the prompt's own {len(codes)} tokens do not fit the model's {self.limit}; use a shorter prompt"
                )
            texts, cut = shorter, cut + lost
            codes, types, mask = self._lay(texts)
        n = len(codes)
        if self.arrangement == "encoder-decoder":
            decoder = (*self.start, *goal[:-1])
            at = tuple(range(len(self.start) - 1, len(self.start) - 1 + max(1, len(goal))))
            return Row(tuple(codes), tuple(types), at, tuple(goal), n, decoder, cut)
        if self.arrangement == "causal":
            codes += taught[:-1]
            types += [0] * max(0, len(taught) - 1)
            return Row(tuple(codes), tuple(types), tuple(range(n - 1, len(codes))), tuple(goal), n, (), cut)
        at = (mask,) if mask is not None else ()
        return Row(tuple(codes), tuple(types), at, tuple(goal[:1]) if mask is not None else (), n, (), cut)

    def _lay(self, texts: Sequence[str]) -> tuple[list[int], list[int], int | None]:
        """Codes, segment types and the mask token's column for one example."""
        before, after = self.specials
        named = dict(zip(self.frame.fields, texts, strict=True))
        virtual = iter(range(self.length))
        body: list[int] = []
        types: list[int] = []
        segment, mask = 0, None
        lead = self.lead
        for n, part in enumerate(self.parts):
            if part.kind == "text":
                text = _fill(part.text, named)
                new = self.ids(lead + text if n == 0 else text)
            elif part.kind == "mask":
                mask = len(body)
                new = [self.tokenizer.mask_token_id]
            elif part.kind == "sep":
                new = after[:1]
                types += [segment] * len(new)
                body += new
                segment, new = 1, []
            else:
                new = [-1 - j for _, j in zip(range(part.count or self.open_slot), virtual, strict=False)]
            body += new
            types += [segment] * len(new)
        if self.parts and self.parts[0].kind != "text" and lead:
            body, types = self.ids(lead) + body, [0] * len(self.ids(lead)) + types
        soft = [-1 - j for j in virtual]
        where = {"front": 0, "after-bos": len(before), "back": len(before) + len(body) + len(after)}
        codes = [*before, *body, *after]
        types = [0] * len(before) + types + [segment] * len(after)
        if mask is not None:
            mask += len(before) + (len(self.ids(lead)) if self.parts[0].kind != "text" and lead else 0)
        if soft:
            spot = where[self.place]
            codes[spot:spot] = soft
            types[spot:spot] = [types[spot - 1] if spot else 0] * len(soft)
            if mask is not None and mask >= spot:
                mask += len(soft)
        return codes, types, mask

    @cached_property
    def lead(self) -> str:
        """Instruction and demonstrations, each shown the way the example is shown."""
        shown = [self.frame.instruction] if self.frame.instruction else []
        for texts, answer in self.frame.demonstrations:
            named = dict(zip(self.frame.fields, texts, strict=True))
            text = "".join(_fill(p.text, named) if p.kind == "text" else answer for p in self.parts if p.kind in _SAID)
            shown.append(text if any(p.kind == "mask" for p in self.parts) else f"{text} {answer}")
        return "".join(s + "\n\n" for s in shown)

    def _shorten(self, texts: Sequence[str], excess: int) -> tuple[list[str], int]:
        """Take about `excess` tokens off the end of the longest text."""
        ids = [self.ids(t) for t in texts]
        longest = max(range(len(texts)), key=lambda i: len(ids[i]))
        keep = max(0, len(ids[longest]) - excess)
        out = list(texts)
        out[longest] = self.tokenizer.decode(ids[longest][:keep], skip_special_tokens=True) if keep else ""
        return out, len(ids[longest]) - keep


def _fill(template: str, named: dict[str, str]) -> str:
    return _SLOT.sub(lambda m: named.get(m[1].strip(), m[0]), template)


def _nothing() -> Iterator[None]:
    while True:
        yield None
