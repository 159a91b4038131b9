"""A candidate: what a search tries, as a value. Equal content has one id, so duplicates are recognised everywhere."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from ..errors import ConfigError
from ..prompt.values import Frame, Prompt, Text

FRAME_PARTS = ("instruction", "template", "words", "demonstrations", "templates", "texts")


@dataclass(frozen=True)
class Candidate:
    """Named parts, each a JSON value of texts, numbers and tuples.

    parts: "instruction", "template" (texts), "words" (C texts), "demonstrations" ((inputs, answer) pairs), "templates"
    and "texts" (of classes, for pictures) say what they replace in the frame; a method may add its own ("tokens",
    "mask", "vector") and give the search a `form` for them.
    parents, op, note: how it came about; they are not part of the id.
    """

    parts: Mapping[str, Any]
    parents: tuple[str, ...] = field(default=(), compare=False)
    op: str = field(default="", compare=False)
    note: str = field(default="", compare=False)

    @cached_property
    def id(self) -> str:
        """16 hex digits of the content."""
        said = json.dumps(dict(self.parts), sort_keys=True, ensure_ascii=False)
        return hashlib.blake2b(said.encode(), digest_size=8).hexdigest()

    def __hash__(self) -> int:
        return hash(self.id)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Candidate) and self.id == other.id

    def text(self, slot: str) -> str:
        """The text in a slot: "instruction", "template", or "words:2" for the text of class 2."""
        name, _, index = slot.partition(":")
        if name not in self.parts:
            raise ConfigError(f"this candidate has no {name!r}; it has {', '.join(self.parts)}")
        return str(self.parts[name][int(index)] if index else self.parts[name])

    def put(self, slot: str, value: Any) -> Candidate:
        """The same with another value in one slot. History is kept; `born` says a new one."""
        name, _, index = slot.partition(":")
        if index:
            several = list(self.parts[name])
            several[int(index)] = value
            value = tuple(several)
        return replace(self, parts={**self.parts, name: value})

    def born(self, op: str, *parents: Candidate | str, note: str = "") -> Candidate:
        ids = tuple(dict.fromkeys(p if isinstance(p, str) else p.id for p in parents))
        return replace(self, parents=ids, op=op, note=note)

    def to_json(self) -> dict[str, Any]:
        return {"parts": dict(self.parts), "parents": list(self.parents), "op": self.op, "note": self.note}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Candidate:
        return cls(
            {k: frozen(v) for k, v in data["parts"].items()}, tuple(data["parents"]), data["op"], data.get("note", "")
        )


def frozen(value: Any) -> Any:
    """Lists of JSON as tuples, all the way down."""
    return tuple(frozen(v) for v in value) if isinstance(value, list | tuple) else value


def as_frame(candidate: Candidate, base: Frame) -> Frame:
    """`base` with what the candidate says in its place."""
    return replace(base, **{k: v for k, v in candidate.parts.items() if k in FRAME_PARTS})


def as_prompt(candidate: Candidate, base: Frame) -> Prompt:
    """The usual form: a prompt of words only. Raises ConfigError for parts that a frame does not have."""
    if extra := set(candidate.parts) - set(FRAME_PARTS):
        raise ConfigError(f"nobody says what the parts {sorted(extra)} mean: the method must set its search's form")
    return Text(frame=as_frame(candidate, base))
