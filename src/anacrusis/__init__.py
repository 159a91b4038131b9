"""Anacrusis learns what to put in front of a frozen model, says what that gained and cost, and ships it.

    import anacrusis as ana
    task = ana.Task.from_csv("tickets.csv", text="message", label="team")
    run = ana.fit("residual-prompt-tuning", ana.open("builtin:minilm"), task)
    print(run.score)

Importing this package loads neither torch nor transformers; the names below load what they need when first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_PLACES = {
    "Task": "task",
    "Split": "task",
    "open": "model.open",
    "wrap": "model.open",
    "Model": "model.model",
    "fit": "runs.run",
    "resume": "runs.run",
    "Run": "runs.run",
    "Means": "runs.searching",
    "compare": "report.leaderboard",
    "Grid": "runs.grid",
    "evaluate": "measure.evaluate",
    "predict": "measure.predict",
    "load": "prompt.store",
    "Frame": "prompt.values",
    "Text": "prompt.values",
    "Soft": "prompt.values",
    "Prefix": "prompt.values",
    "methods": "registry",
}
_RENAMED = {"methods": "all_methods"}

__all__ = ["__version__", *_PLACES]  # noqa: PLE0604

if TYPE_CHECKING:
    from .measure.evaluate import evaluate as evaluate
    from .measure.predict import predict as predict
    from .model.model import Model as Model
    from .model.open import open as open
    from .model.open import wrap as wrap
    from .prompt.store import load as load
    from .prompt.values import Frame as Frame
    from .prompt.values import Prefix as Prefix
    from .prompt.values import Soft as Soft
    from .prompt.values import Text as Text
    from .registry import all_methods as methods
    from .report.leaderboard import compare as compare
    from .runs.grid import Grid as Grid
    from .runs.run import Run as Run
    from .runs.run import fit as fit
    from .runs.run import resume as resume
    from .runs.searching import Means as Means
    from .task import Split as Split
    from .task import Task as Task


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module 'anacrusis' has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_PLACES[name]}", __name__), _RENAMED.get(name, name))
