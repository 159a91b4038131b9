"""Every error that a user can cause: what was given, what was expected, what to type next."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class AnacrusisError(Exception):
    """Base of all errors below. The command line prints it without a traceback and exits with 2."""


class DataError(AnacrusisError):
    """The task's data cannot be used as it is. Names file, line and column where there is one."""


class ModelError(AnacrusisError):
    """A model cannot be opened, or lacks what a method or prompt needs."""


class PromptError(AnacrusisError):
    """A prompt folder is damaged, of another format, or was learned for another model."""


class ConfigError(AnacrusisError, ValueError):
    """An option's name or value is wrong."""


class RunError(AnacrusisError):
    """A run cannot be found, continued or read."""


class RunStopped(RunError):
    """Somebody asked the run to stop. What it has done is kept."""


class ServiceError(AnacrusisError):
    """An endpoint cannot be used: a wrong key, an unknown model, nothing but failures. Holds the provider's words."""


class BudgetExhausted(AnacrusisError):
    """A request does not fit into what is left of a budget. Raised before anything of it is spent."""


class MissingExtra(AnacrusisError, ImportError):
    """An optional package is needed. The message holds the install command."""

    def __init__(self, package: str, extra: str, purpose: str):
        super().__init__(f'{purpose} needs the package {package!r}. Install it: pip install "anacrusis[{extra}]"')


def did_you_mean(given: str, known: Iterable[str]) -> str:
    """A sentence with the closest known names, then all of them: for 'unknown X' messages."""
    names = sorted(known)
    close = difflib.get_close_matches(given, names, n=2)
    hint = f" Did you mean {' or '.join(repr(c) for c in close)}?" if close else ""
    return f"{hint} Known: {', '.join(names) or 'none'}."
