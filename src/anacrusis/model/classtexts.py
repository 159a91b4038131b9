"""From class names to what a text tower reads: rows of codes. Made anew for every set of classes, never stored.

A code is a token id (>= 0) or a virtual token (-1 - j stands for the prompt's vector j), as in rows.py.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ..errors import ConfigError
from ..prompt.values import Frame

_SLOT = re.compile(r"\{(label|soft(?::\d+)?)\}")
PLAIN = "a photo of a {label}."


@dataclass(frozen=True)
class ClassTexts:
    """codes: (R, S); last: (R,) the column that is read; owner: (R,) the class of each text; classes: C."""

    codes: Tensor
    last: Tensor
    owner: Tensor
    classes: int

    @classmethod
    def of(cls, tokenizer: Any, frame: Frame, length: int, limit: int, full: bool, pad: int) -> ClassTexts:
        """Lay out the class texts of a frame. length: M, virtual tokens of each; limit: columns at most; full: pad all
        to the limit and read the last column. Raises ConfigError for a text that does not fit, naming its class."""
        rows, owner = [], []
        start, end = _specials(tokenizer)
        for c, (label, word) in enumerate(zip(frame.labels, frame.words, strict=True)):
            for text in _texts(frame, c, word):
                row = [*start, *_codes(tokenizer, text, length), *end]
                if frame.texts and not length and len(row) > limit:  # a description loses its end, not its class
                    row = [*row[: limit - len(end)], *end]
                if len(row) > limit:
                    raise ConfigError(
                        f"the text of the class {label!r} has {len(row)} tokens with its prompt of {length}; the "
                        f"model reads {limit}. Give it a shorter name (words={{{label!r}: ...}}, --word LABEL=NAME) or "
                        "a shorter prompt"
                    )
                rows.append(row)
                owner.append(c)
        S = limit if full else max(map(len, rows))
        codes = torch.full((len(rows), S), pad)
        for i, row in enumerate(rows):
            codes[i, : len(row)] = torch.tensor(row)
        last = torch.full((len(rows),), S - 1) if full else torch.tensor([len(r) - 1 for r in rows])
        return cls(codes, last, torch.tensor(owner), len(frame.labels))

    def shared(self, per: str) -> int:
        """How many leading columns are the same in all texts (virtual ones too, where all classes have them)."""
        same = (self.codes == self.codes[:1]).all(0)
        if per == "class":
            same &= (self.codes >= 0).all(0)
        n = int(same.long().cumprod(0).sum())
        return min(n, int(self.last.min()))  # the read column is not among them

    def averaged(self, z: Tensor, dim: int = 0) -> Tensor:
        """Features by text (R along `dim`) -> by class: the mean of each class's texts, at unit length."""
        if len(self.owner) == self.classes:
            return z
        shape = list(z.shape)
        shape[dim] = self.classes
        summed = z.new_zeros(shape).index_add(dim, self.owner.to(z.device), z)
        return F.normalize(summed, dim=-1)

    @property
    def key(self) -> tuple[Any, ...]:
        return (*self.codes.shape, *self.codes.flatten().tolist())


def _texts(frame: Frame, c: int, word: str) -> Sequence[str]:
    if frame.texts:
        return frame.texts[c]
    return [t.replace("{label}", word) for t in frame.templates or (frame.template,)]


def _codes(tokenizer: Any, text: str, length: int) -> list[int]:
    """Token ids, with virtual codes where the text says {soft}; they stand first where it does not say so."""
    out: list[int] = []
    used = 0
    if length and "{soft" not in text:
        text = "{soft} " + text
    pieces = re.split(r"(\{soft(?::\d+)?\})", text)
    named = sum(int(p[6:-1]) for p in pieces if p.startswith("{soft:"))
    for piece in pieces:
        if piece.startswith("{soft"):
            n = min(int(piece[6:-1]) if ":" in piece else length - named, length - used)
            out += [-1 - j for j in range(used, used + n)]
            used += n
        elif piece.strip():
            out += tokenizer(piece.strip(), add_special_tokens=False)["input_ids"]
    if used != length:
        raise ConfigError(f"the template {text!r} has places for {used} vectors; the prompt has {length}")
    return out


def _specials(tokenizer: Any) -> tuple[list[int], list[int]]:
    """Ids that the tokenizer puts before and after a text."""
    whole, bare = tokenizer("a")["input_ids"], tokenizer("a", add_special_tokens=False)["input_ids"]
    for i in range(len(whole) - len(bare) + 1):
        if whole[i : i + len(bare)] == bare:
            return list(whole[:i]), list(whole[i + len(bare) :])
    raise ConfigError("the tokenizer reads 'a' in two ways; its special tokens cannot be found")
