"""The gate: what a writer said becomes a proposal, or is turned away with a reason, before anything is spent on it."""

from __future__ import annotations

import re
from collections.abc import Callable

from ..errors import ConfigError
from ..model.calls import Reply
from .requests import Ask

_ITEM = re.compile(r"^\s*(?:\d+[.):]|[-*•])\s+(.*\S)\s*$", re.MULTILINE)


def _tag(text: str, name: str) -> list[str]:
    """The last <name>...</name> of a reply: what models think aloud before it often holds others."""
    return _tags(text, name)[-1:]


def _tags(text: str, name: str) -> list[str]:
    a, b = f"<{re.escape(name)}>", f"</{re.escape(name)}>"  # from the last opening: models name the tag before
    return [t.strip() for t in re.findall(rf"{a}((?:(?!{a}).)*?){b}", text, re.DOTALL)]


def _fenced(text: str, name: str) -> list[str]:
    found = re.findall(r"```[^\n`]*\n(.*?)```", text, re.DOTALL)
    return [found[-1].strip()] if found else []


def _whole(text: str, name: str) -> list[str]:
    return [text.strip().strip('"').strip()]


def _items(text: str, name: str) -> list[str]:
    """A numbered or bulleted list."""
    return _ITEM.findall(text)


# tag, fenced, whole: one text a reply; tags, items: several, joined by SEVERAL
PARSERS: dict[str, Callable[[str, str], list[str]]] = {
    "tag": _tag, "tags": _tags, "fenced": _fenced, "whole": _whole, "items": _items,
}  # fmt: skip
SEVERAL = "\x1e"


def parse(how: str, text: str) -> str | None:
    """The wanted text of a reply, or None. how: "whole", "fenced", "tag:NAME"; "items" and "tags:NAME" give several,
    joined by SEVERAL. Raises ConfigError for an unknown one."""
    kind, _, name = how.partition(":")
    if kind not in PARSERS:
        raise ConfigError(f"unknown parser {how!r}; known: {', '.join(PARSERS)}")
    found = [t for t in PARSERS[kind](text, name) if t]
    return SEVERAL.join(found) if found else None


def gate(ask: Ask, reply: Reply) -> tuple[str | None, str]:
    """(text, "") when it passes, (None, reason) when it does not. Of several texts in a reply those that pass."""
    if reply.outcome != "ok":
        return None, reply.outcome
    text = parse(ask.parse, reply.text)
    if text is None:
        return None, "unparsed"
    why, good = "", []
    for one in text.split(SEVERAL):
        if len(one) > ask.longest:
            why = f"too long: {len(one)} characters, {ask.longest} allowed"
        elif lost := [k for k in ask.keep if k not in one]:
            why = f"lost the placeholder {lost[0]}"
        else:
            good.append(one)
    return (SEVERAL.join(good), "") if good else (None, why)


def repair(ask: Ask, text: str, reason: str) -> tuple[tuple[str, str], ...]:
    """The conversation's second turn, after a reply that did not pass."""
    kind, _, name = ask.parse.partition(":")
    form = {"tag": f"inside <{name}> and </{name}>", "tags": f"each inside <{name}> and </{name}>",
            "fenced": "inside a ``` block", "items": "as a numbered list"}.get(kind, "and nothing else")  # fmt: skip
    more = f" Keep {', '.join(ask.keep)} in it." if ask.keep else ""
    short = f" Use at most {ask.longest} characters." if reason.startswith("too long") else ""
    return (
        ("assistant", text),
        ("user", f"That could not be used ({reason}). Give only the result, {form}.{more}{short}"),
    )
