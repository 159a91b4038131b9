"""Asking a model that only writes: an example as a conversation, and its reply as an answer."""

from __future__ import annotations

import re
from collections.abc import Sequence

from ..prompt.values import Frame
from .calls import Call, Reply

_SLOT = re.compile(r"\{([^{}]*)\}")
_ANSWER = re.compile(r"(?:final answer|answer|label|class|category)\s*(?:is|:|=)\s*", re.IGNORECASE)
_EDGES = " \t\r\n\"'`*_.,;:!?()[]{}<>"


def shown(frame: Frame, inputs: Sequence[str]) -> str:
    """One example as the template lays it out; {mask}, {sep} and {soft} say nothing to a model that is asked."""
    named = dict(zip(frame.fields, inputs, strict=True))
    return _SLOT.sub(lambda m: named.get(m[1].strip(), ""), frame.template).rstrip(" ")


def conversation(frame: Frame, inputs: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """One user message: instruction, demonstrations with their answers, the example; blank lines between them."""
    parts = [frame.instruction] if frame.instruction else []
    parts += [f"{shown(frame, texts)} {answer}" for texts, answer in frame.demonstrations]
    parts.append(shown(frame, inputs))
    return (("user", "\n\n".join(parts)),)


def call(frame: Frame, inputs: Sequence[str], *, tokens: int, temperature: float = 0.0, sample: int = 0) -> Call:
    return Call(conversation(frame, inputs), temperature, tokens, sample)


def understood(frame: Frame, reply: Reply) -> tuple[int | None, str]:
    """(class index, "ok"), or (None, outcome) for a reply that names no class, or several, or did not come whole.

    A reply is a class's label or word as it stands (case, quotes and full stops aside); else what follows the last
    "answer:"; else the only class that it names.
    """
    if reply.outcome not in ("ok", "truncated"):
        return None, reply.outcome
    names: dict[str, int] = {}
    for c, label in enumerate(frame.labels):
        names[_bare(label)] = c
    for c, word in enumerate(frame.words):
        names.setdefault(_bare(word), c)
    exact = dict(zip((*frame.words, *frame.labels), (*range(len(frame.words)), *range(len(frame.labels))), strict=True))
    if (whole := exact.get(reply.text.strip(), names.get(_bare(reply.text)))) is not None:  # "US" is not "us"
        return whole, "ok"
    marks = list(_ANSWER.finditer(reply.text))
    for text in ([reply.text[marks[-1].end() :]] if marks else []) + [reply.text]:
        first = names.get(_bare(text.strip().splitlines()[0])) if text.strip() else None
        said = [n for n in names if n and _within(n, text)]
        # "light blue" names light blue, not blue
        found = {first} if first is not None else {names[n] for n in said if not any(n != m and n in m for m in said)}
        if len(found) == 1 and reply.outcome == "ok":
            return found.pop(), "ok"
    return None, "truncated" if reply.outcome == "truncated" else "unparsed"


def _bare(text: str) -> str:
    return (text.strip(_EDGES) or text.strip()).casefold()


def _within(name: str, text: str) -> bool:
    return re.search(rf"(?<!\w){re.escape(name)}(?!\w)", text.casefold()) is not None
