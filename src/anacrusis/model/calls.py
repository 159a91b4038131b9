"""A question to a model that writes, and its answer: values that endpoints, cache and budget share."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Any

OUTCOMES = ("ok", "truncated", "refused", "empty", "failed")


@dataclass(frozen=True)
class Call:
    """One question. Two calls that differ only in `sample` are two draws of the same question."""

    messages: tuple[tuple[str, str], ...]  # (role, content); role is system, user or assistant
    temperature: float = 0.0
    tokens: int = 256  # output tokens at most
    sample: int = 0
    stop: tuple[str, ...] = ()

    def key(self, model: str) -> str:
        """64 hex digits of the whole question and the model asked: equal keys have equal answers."""
        said = json.dumps([model, asdict(self)], ensure_ascii=False, sort_keys=True)
        return hashlib.sha256(said.encode()).hexdigest()

    @property
    def bound(self) -> int:
        """Input tokens at most: no tokenizer in use makes more tokens than bytes; 16 a message for its frame."""
        return sum(len(content.encode()) + 16 for _, content in self.messages) + 16


@dataclass(frozen=True)
class Reply:
    """One answer.

    outcome: "ok"; "truncated" (cut off at the limit), "refused", "empty": the model's doing, evidence about the
    question; "failed": the transport's doing, evidence of nothing, never stored, never scored.
    """

    text: str
    outcome: str = "ok"
    input: int = 0  # tokens billed
    output: int = 0
    detail: str = ""  # the provider's own words where it refused or failed

    def to_json(self) -> dict[str, Any]:
        return asdict(self)
