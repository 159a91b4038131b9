"""What a method may ask for. Requests are values: the engine performs them, journals what came, and can repeat both.

A request's `signature` is JSON of everything that decides its result; the journal keeps its hash, so that a replay
which would ask something else is noticed at once.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any, ClassVar

from ..errors import ConfigError
from .candidate import Candidate
from .racing import Full, Rule


@dataclass(frozen=True)
class Request:
    """Base. verb: which of the engine's performers does it."""

    verb: ClassVar[str] = ""

    @property
    def signature(self) -> dict[str, Any]:
        return {"verb": self.verb, **{f.name: plain(getattr(self, f.name)) for f in fields(self)}}

    @property
    def hash(self) -> str:
        said = json.dumps(self.signature, sort_keys=True, ensure_ascii=False)
        return hashlib.blake2b(said.encode(), digest_size=8).hexdigest()


@dataclass(frozen=True)
class Ask(Request):
    """A model writes. Result, aligned with `prompts`: a text or None each (n = 1), or the list of good texts (n > 1).

    What does not pass the gate (`parse`, `longest`, `keep`) is None or left out; the journal says why. A reply that
    cannot be parsed gets one repair turn.
    """

    verb: ClassVar[str] = "ask"
    prompts: tuple[str, ...]
    n: int = 1
    parse: str = "tag:prompt"  # see search.parse
    role: str = "writer"
    temperature: float = 1.0
    tokens: int = 1024  # of a reply, at most
    longest: int = 4000  # characters of a parsed text, at most
    keep: tuple[str, ...] = ()  # placeholders that a parsed text must hold, such as {text}


@dataclass(frozen=True)
class Evaluate(Request):
    """Score candidates on examples under a racing rule. Result: one Scored a candidate, in the order given."""

    verb: ClassVar[str] = "evaluate"
    candidates: tuple[Candidate, ...]
    examples: tuple[str, ...]  # ids, in the order in which all candidates meet them
    by: Rule = field(default_factory=Full)


@dataclass(frozen=True)
class Cells(Request):
    """Fill chosen cells. Result: one Observation a pair, in the order given. Known cells cost nothing."""

    verb: ClassVar[str] = "cells"
    pairs: tuple[tuple[Candidate, str], ...]


@dataclass(frozen=True)
class Answer(Request):
    """The task model answers examples under candidates, without any score. Result: a text each, None where it failed.
    sample: several draws of the same question; temperature 0 answers are the same."""

    verb: ClassVar[str] = "answer"
    pairs: tuple[tuple[Candidate, str], ...]
    temperature: float = 0.0
    sample: int = 0


@dataclass(frozen=True)
class Compare(Request):
    """A judge compares two texts under a requirement. Result per pair: wins of the first minus wins of the second over
    `repeats` calls; every pair is shown in both orders equally often, so that a judge who prefers a place gives 0."""

    verb: ClassVar[str] = "compare"
    pairs: tuple[tuple[str, str], ...]
    requirement: str
    repeats: int = 4  # even, so that each order comes as often as the other
    temperature: float = 0.7  # at 0 repetitions would say the same again

    def __post_init__(self) -> None:
        if self.repeats < 2 or self.repeats % 2:
            raise ConfigError(f"repeats is {self.repeats}; it must be even, so that no place is preferred")


@dataclass(frozen=True)
class Duel(Request):
    """A person prefers one of two candidates. Result: 1 for the first, 0 for the second, 0.5 for neither; may take
    days: the run is suspended, and its journal is the waiting room."""

    verb: ClassVar[str] = "duel"
    pairs: tuple[tuple[Candidate, Candidate], ...]
    shown: tuple[tuple[str, str], ...] = ()  # what each side said, where it helps the person


@dataclass(frozen=True)
class Label(Request):
    """An annotator (the judge model) names the class of texts. Result: a class index or None each."""

    verb: ClassVar[str] = "label"
    inputs: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Synthesise(Request):
    """The writer makes n new examples like those shown. Result: (inputs, class index or text) pairs, checked."""

    verb: ClassVar[str] = "synthesise"
    n: int
    like: tuple[str, ...]  # ids of examples
    hint: str = ""


@dataclass(frozen=True)
class Forward(Request):
    """A local model's mean loss of candidates over examples, nats. Result: a float each.
    top: > 0: also, for candidates of tokens, the `top` most promising swaps at every position, by the gradient of the
    loss with respect to the token's one-hot vector. Result then: (loss, ids (P, top), gradients (P, top)).
    """

    verb: ClassVar[str] = "forward"
    candidates: tuple[Candidate, ...]
    examples: tuple[str, ...]
    top: int = 0


@dataclass(frozen=True)
class Next(Request):
    """A local model's `top` likeliest next tokens after each example, laid out under a candidate. Result: a list of
    token ids each."""

    verb: ClassVar[str] = "next"
    candidate: Candidate
    examples: tuple[str, ...]
    top: int = 10


@dataclass(frozen=True)
class Continue(Request):
    """Log-probability of continuations given texts, on a local model: any pairing. Result: (sum in nats, tokens) each.
    How to normalise is the method's."""

    verb: ClassVar[str] = "continue"
    pairs: tuple[tuple[str, str], ...]  # (given, continuation)


@dataclass(frozen=True)
class Embed(Request):
    """Unit vectors of texts, by the local model's pooled states. Result: a tuple of floats each."""

    verb: ClassVar[str] = "embed"
    texts: tuple[str, ...]


def plain(value: Any) -> Any:
    """JSON of a request's values; rules are named by their class."""
    if isinstance(value, Candidate):
        return value.id
    if is_dataclass(value) and not isinstance(value, type):
        return {"rule": type(value).__name__, **{f.name: plain(getattr(value, f.name)) for f in fields(value)}}
    if isinstance(value, Mapping):
        return {k: plain(v) for k, v in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [plain(v) for v in value]
    return value
