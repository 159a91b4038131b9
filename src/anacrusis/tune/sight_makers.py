"""What makes a prompt for a model of images: contexts of class texts, rows of the image tower, both."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ..errors import ConfigError
from ..model.classtexts import PLAIN
from ..model.sight import Sight
from ..prompt.values import Frame, Paired, Tokens
from .makers import Group, Maker, by_role

WORDS = "a photo of a"


def context(model: Sight, words: str, length: int, generator: torch.Generator) -> tuple[Tensor, str]:
    """(M, d) where a context starts, and the words that stay words behind it.

    words: "" draws M rows by chance (of the table's RMS). Else the rows are the words' tokens (M of them, not of the
    words: 0 takes all); with more rows than tokens the first rows are drawn; with fewer, the other tokens stay text.
    """
    assert model.text is not None
    d = model.text.table.shape[1]
    ids = list(model.tokenizer(words, add_special_tokens=False)["input_ids"]) if words else []
    M = length or len(ids)
    if M < 1:
        raise ConfigError("a context needs a length, or words to start from")
    drawn = model.scale * torch.randn(max(0, M - len(ids)), d, generator=generator)
    taken = model.text.table[torch.tensor(ids[:M], dtype=torch.long)].detach().float().cpu()
    rest = model.tokenizer.decode(ids[M:]).strip() if len(ids) > M else ""
    return torch.cat([drawn, taken.view(-1, d)]), rest


def around(length: int, position: str = "end", rest: str = "") -> str:
    """The template of class texts with a context of `length` rows: at the "end" stands the name, or "middle", "front"
    (CoOp's words for where the name is)."""
    tail = f" {rest}" if rest else ""
    half = length // 2
    forms = {
        "end": f"{{soft}}{tail} {{label}}.",
        "middle": f"{{soft:{half}}}{tail} {{label}} {{soft:{length - half}}}.",
        "front": "{label} {soft}.",
    }
    if position not in forms:
        raise ConfigError(f"position is {position!r}; it must be one of {', '.join(forms)}")
    return forms[position]


def plain(frame: Frame) -> Frame:
    """The frame of class texts in words, as the frozen model would be asked."""
    return frame if frame.texts or frame.templates or "{soft" not in frame.template else Frame(
        **{**frame.__dict__, "template": PLAIN})  # fmt: skip


class ContextMaker(Maker):
    """An encoder's rows as the context of class texts: (M, d), or (C, M, d) with per="class"."""

    def __init__(self, encoder: nn.Module, scale: float, per: Literal["all", "class"] = "all", rate: float = 0.02):
        super().__init__()
        self.encoder, self.scale, self.per, self.rate = encoder, scale, per, rate

    def forward(self, reads: Any = None) -> Tokens:
        return Tokens(side="text", layers={0: self.encoder()}, per=self.per)

    def groups(self) -> list[Group]:
        return by_role(self.encoder, self.scale, self.rate)


class RowsMaker(Maker):
    """Free rows of one tower, of their own for each layer that is named. ways: further fields of Tokens."""

    def __init__(self, layers: Mapping[int, Tensor], side: str, scale: float, **ways: Any):
        super().__init__()
        self.order, self.side, self.scale, self.ways = tuple(layers), side, scale, ways
        self.layers = nn.ParameterList([nn.Parameter(t.clone().float()) for t in layers.values()])

    def forward(self, reads: Any = None) -> Tokens:
        return Tokens(side=self.side, layers=dict(zip(self.order, self.layers, strict=True)), **self.ways)

    def groups(self) -> list[Group]:
        return [Group("prompt", list(self.layers), unit=self.scale)]


class PairMaker(Maker):
    """Two makers, one for each side."""

    def __init__(self, text: Maker, image: Maker):
        super().__init__()
        self.text, self.image = text, image

    def forward(self, reads: Any = None) -> Paired:
        return Paired(text=self.text(reads), image=self.image(reads))

    def groups(self) -> list[Group]:
        return [*self.text.groups(), *self.image.groups()]
