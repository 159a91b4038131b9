"""What goes over the wire: bodies of requests, replies in responses, and what a failure means. Pure functions."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from email.utils import parsedate_to_datetime
from itertools import accumulate, pairwise
from typing import Any

from .calls import Call, Reply

DROPPABLE = {"max_tokens": "max_completion_tokens", "temperature": "temperature", "n": "'n'"}  # and how errors name it
TRANSIENT = (408, 409, 425, 429)  # and every 5xx


@dataclass(frozen=True)
class Trouble:
    """Why a request has no answer. kind: "retry"; "refused" (by the provider's filter); "stop"; "model" (another one
    answered); "late" (after the deadline); or the parameter that the provider does not take. words: its own."""

    kind: str
    words: str
    status: int = 0


def request(model: str, call: Call, n: int, without: frozenset[str]) -> dict[str, Any]:
    """The body of a request."""
    body: dict[str, Any] = {
        "model": model,
        "messages": [{"role": role, "content": content} for role, content in call.messages],
        "max_completion_tokens" if "max_tokens" in without else "max_tokens": call.tokens,
    }
    if "temperature" not in without:
        body["temperature"] = call.temperature
    if call.stop:
        body["stop"] = list(call.stop)
    return body | ({"n": n} if n > 1 else {})


def usable(said: Any) -> bool:
    """Whether a response has what every answer has: choices with a message of text, nothing or text parts."""
    choices = said.get("choices") if isinstance(said, dict) else None
    return (
        isinstance(choices, list)
        and bool(choices)
        and all(isinstance(c, dict) and isinstance(c.get("message"), dict) for c in choices)
        and all(isinstance(c["message"].get("content"), str | list | None) for c in choices)
    )


def replies_of(said: dict[str, Any], call: Call, n: int) -> list[Reply]:
    """At most n replies from a usable response. Their tokens sum to what was billed."""
    choices = said["choices"][:n]
    texts = [_content(c["message"].get("content")) for c in choices]
    sizes = [len(t.encode(errors="replace")) for t in texts]
    asked = sum(len(content.encode()) for _, content in call.messages)
    usage = said.get("usage")
    paid = _tokens(usage, "prompt_tokens", -(-asked // 4))
    total = _tokens(usage, "completion_tokens", sum(-(-s // 4) for s in sizes))
    ends = [0, *accumulate(s + 1 for s in sizes)]  # + 1: an empty answer too may have cost thoughts
    shares = [total * b // ends[-1] - total * a // ends[-1] for a, b in pairwise(ends)]
    return [
        replace(_reply(c, text), input=0 if i else paid, output=share)
        for i, (c, text, share) in enumerate(zip(choices, texts, shares, strict=True))
    ]


def _reply(choice: dict[str, Any], text: str) -> Reply:
    """A choice's text and outcome. Thoughts in front of the answer are not the answer."""
    reason, refusal = choice.get("finish_reason"), choice["message"].get("refusal")
    if refusal or reason == "content_filter":
        return Reply("", "refused", detail=str(refusal or reason))
    if text.lstrip().startswith("<think>"):
        _, closed, text = text.partition("</think>")
        if not closed:
            return Reply("", "truncated", detail="cut off while thinking")
        text = text.lstrip()
    if reason == "length":
        return Reply(text, "truncated")
    return Reply(text) if text.strip() else Reply("", "empty")


def _content(content: Any) -> str:
    if isinstance(content, list):
        return "".join(str(p.get("text") or "") for p in content if isinstance(p, dict))
    return content or ""


def _tokens(usage: Any, name: str, otherwise: int) -> int:
    count = usage.get(name) if isinstance(usage, dict) else None
    return count if isinstance(count, int) and count >= 0 else otherwise


def classify(status: int, text: str) -> Trouble:
    """What an error response means for us. text: its body, JSON or not."""
    try:
        said = json.loads(text)
    except ValueError:
        said = None
    error = said.get("error", said) if isinstance(said, dict) else said
    error = error if isinstance(error, dict) else {"message": error or text}
    words, code = str(error.get("message") or text).strip() or "no reason given", error.get("code")
    if status in TRANSIENT or status >= 500:
        return Trouble("stop" if "insufficient_quota" in (code, error.get("type")) else "retry", words, status)
    if status == 400 and code in ("content_filter", "content_policy_violation"):
        return Trouble("refused", words, status)
    if status == 400 and re.search(r"(un|not |n't )support|at most 1", words.lower()):
        for parameter, sign in DROPPABLE.items():
            if sign in words:
                return Trouble(parameter, words, status)
    return Trouble("stop", words, status)


def told(headers: Mapping[str, str], status: int, now: float) -> float:
    """Seconds that the provider asks to wait before the next request of anybody. now: seconds since 1970."""
    waits = [0.0]
    if status >= 400:
        after = headers.get("retry-after", "")
        if (milliseconds := duration(headers.get("retry-after-ms", ""))) is not None:
            waits.append(milliseconds / 1000)
        elif (seconds := duration(after)) is not None:
            waits.append(seconds)
        else:
            try:
                waits.append(parsedate_to_datetime(after).timestamp() - now)
            except ValueError:
                pass
    for what in ("requests", "tokens"):
        if headers.get(f"x-ratelimit-remaining-{what}", "").strip() == "0":
            waits.append(duration(headers.get(f"x-ratelimit-reset-{what}", "")) or 0.0)
    return max(waits)


def duration(text: str) -> float | None:
    """Seconds of "20ms", "1s", "6m0s", "1h2m3.5s" or a bare number of seconds; None for anything else."""
    units = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "": 1.0}
    text = text.strip().lower()
    if not re.fullmatch(r"\d+(\.\d+)?|(\d+(\.\d+)?(ms|[smhd]))+", text):
        return None
    return sum(float(number) * units[unit] for number, _, unit in re.findall(r"(\d+(\.\d+)?)(ms|[smhd]|)", text))


def same_model(asked: str, said: str) -> bool:
    """Whether two names may be one model: "gpt-4o" and "gpt-4o-2024-08-06", "llama" and "meta/llama"."""
    a, b = (name.rsplit("/", 1)[-1].lower() for name in (asked, said))
    return a.startswith(b) or b.startswith(a)


def request_key(call: Call, model: str, salt: str, n: int, without: frozenset[str]) -> str:
    """The same after a crash as before it, so that a provider that honours it does the work once."""
    said = json.dumps([call.key(model), salt, n, sorted(without - {"n"})])
    return hashlib.sha256(said.encode()).hexdigest()
