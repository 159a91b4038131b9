"""Operators' wording: text files with named slots in templates/, versioned by hash into the journal."""

from __future__ import annotations

import hashlib
import re
from functools import cache
from importlib.resources import files

from ..errors import ConfigError, did_you_mean

_SLOT = re.compile(r"\{\{(\w+)\}\}")  # {{name}}: single braces belong to prompts' own templates


@cache
def source(name: str) -> str:
    """The text of a template. Raises ConfigError for an unknown name."""
    file = files("anacrusis") / "templates" / f"{name}.txt"
    if not file.is_file():
        known = [f.name.removesuffix(".txt") for f in (files("anacrusis") / "templates").iterdir()]
        raise ConfigError(f"no template {name!r}.{did_you_mean(name, known)}")
    return file.read_text(encoding="utf-8").strip()


def slots(name: str) -> list[str]:
    return list(dict.fromkeys(_SLOT.findall(source(name))))


def fill(name: str, **values: object) -> str:
    """The template with its slots filled. Raises ConfigError for a slot left open and for a value without a slot."""
    wanted = slots(name)
    if sorted(wanted) != sorted(values):
        raise ConfigError(f"the template {name!r} has the slots {sorted(wanted)}; given: {sorted(values)}")
    return _SLOT.sub(lambda m: str(values[m[1]]), source(name))


def version(name: str) -> str:
    """8 hex digits of the wording."""
    return hashlib.blake2b(source(name).encode(), digest_size=4).hexdigest()
