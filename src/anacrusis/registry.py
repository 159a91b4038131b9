"""The one table of methods. CLI choices, documentation tables and contract tests are all read from it."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, field, fields
from typing import Any

from .errors import ConfigError, ModelError, did_you_mean

ENGINES = ("tune", "search", "adapt", "baseline")
TEXTS = frozenset({"encoder", "masked", "causal", "encoder-decoder"})  # arrangements that read texts in memory
ANYWHERE = TEXTS | {"endpoint"}
SEEING = frozenset({"dual", "vision", "classifier"})  # arrangements that look at pictures


@dataclass(frozen=True, kw_only=True)
class Method:
    """One way to learn a prompt. Registered in its own file under methods/.

    engine: "tune" (by gradient), "search" (by trial), "adapt" (while in use) or "baseline" (a yardstick).
    build: tune: (config, problem) -> Recipe; baseline: (config, problem) -> Prompt; search: (config, search) ->
        generator of requests that returns candidates, the best first; adapt: (config, problem) -> Course. A prompt
        that is run again builds its course with problem.task None: its tensors are put in afterwards.
    roles: models beside the task's that a search needs: "writer", "judge", "person".
    needs: capabilities of the model; kinds: task kinds that it serves.
    training: options of the trainer that differ from its defaults for this method.
    captions: whether texts may stand for pictures while it learns, on a dual encoder.
    restore: (model, Conditioned prompt) -> maker, for methods whose prompt does not fold.
    """

    name: str
    summary: str  # one sentence
    config: type
    build: Callable[..., Any]
    paper: str  # Markdown link
    engine: str = "tune"
    needs: frozenset[str] = frozenset({"gradients"})
    roles: frozenset[str] = frozenset()
    kinds: frozenset[str] = frozenset({"classification", "multilabel", "generation"})
    training: Mapping[str, Any] = field(default_factory=dict)
    restore: Callable[..., Any] | None = None
    arrangements: frozenset[str] = TEXTS
    captions: bool = False  # may learn on a dual encoder from texts, which then stand for pictures
    learns: bool = True  # looks at training examples; else it gives the same for every seed
    races: bool = False  # one of those that `compare --methods auto` tries

    def __post_init__(self) -> None:
        if self.engine not in ENGINES:
            raise ConfigError(f"{self.name} is on the engine {self.engine!r}.{did_you_mean(self.engine, ENGINES)}")

    def configure(self, options: Mapping[str, Any]) -> Any:
        """The frozen config from named options; unknown names raise ConfigError with the nearest known one."""
        known = {f.name: f for f in fields(self.config)}
        for name in options:
            if name not in known:
                raise ConfigError(f"{self.name} has no option {name!r}.{did_you_mean(name, known)}")
        return self.config(**{k: cast(known[k], v) for k, v in options.items()})

    def options(self) -> dict[str, Any]:
        """Option names and defaults."""
        return {
            f.name: f.default_factory() if f.default_factory is not MISSING else f.default for f in fields(self.config)
        }


def searching(**entries: Any) -> Method:
    """A method on the search engine, with what nearly all of them have in common: any model, single labels or text."""
    usual: dict[str, Any] = {"engine": "search", "needs": frozenset(), "arrangements": ANYWHERE,
                             "kinds": frozenset({"classification", "generation"})}  # fmt: skip
    return register(Method(**{**usual, **entries}))


def looking(**entries: Any) -> Method:
    """A method for models of images, with what nearly all of them have in common: a dual encoder, learned classes."""
    usual: dict[str, Any] = {"needs": frozenset({"gradients", "class-texts"}), "arrangements": frozenset({"dual"}),
                             "kinds": frozenset({"classification", "multilabel"})}  # fmt: skip
    return register(Method(**{**usual, **entries}))


METHODS: dict[str, Method] = {}


def register(method: Method) -> Method:
    if method.name in METHODS:
        raise ConfigError(f"method {method.name!r} is already registered by {METHODS[method.name].build.__module__}")
    METHODS[method.name] = method
    return method


def all_methods() -> dict[str, Method]:
    """Every method by name, sorted; loads the method files on first use."""
    importlib.import_module("anacrusis.methods")
    return dict(sorted(METHODS.items()))


def get(name: str) -> Method:
    known = all_methods()
    if name not in known:
        raise ConfigError(f"unknown method {name!r}.{did_you_mean(name, known)}")
    return known[name]


def suits(model: Any, task: Any) -> None:
    """Refuse a model that cannot read the task's inputs: a text model would learn from the pictures' file names."""
    if task.modality == "image" and "images" not in model.can:
        raise ModelError(
            f"the examples of {task.name} are pictures, and {model.name} ({model.arrangement}) reads texts. Open a "
            "model for images: builtin:tiny-clip, or a CLIP, SigLIP, ViT or DINOv2 checkpoint (--model)"
        )
    if task.modality == "text" and "images" in model.can and "class-texts" not in model.can:
        raise ModelError(
            f"the examples of {task.name} are texts, and {model.name} ({model.arrangement}) looks at pictures. Open a "
            "text model such as builtin:minilm, or a dual encoder"
        )


def require(method: Method, model: Any, task: Any) -> None:
    """Refuse what cannot work before anything is computed, naming what would."""
    suits(model, task)
    writes = frozenset({"text"}) if task.kind == "generation" else frozenset()
    fits = [
        m.name
        for m in all_methods().values()
        if m.needs | writes <= model.can and task.kind in m.kinds and model.arrangement in m.arrangements
    ]
    others = f"Methods that fit {model.name} and this task: {', '.join(fits) or 'none'}."
    if task.modality == "text" and "images" in model.can and (not method.captions or len(task.fields) > 1):
        able = [m.name for m in all_methods().values() if m.captions and model.arrangement in m.arrangements]
        raise ConfigError(
            f"the examples of {task.name} are {'pairs of ' * (len(task.fields) > 1)}texts, and {model.name} looks at "
            f"pictures. Single texts can stand for pictures with {', '.join(able)}; else open a text model"
        )
    if missing := (method.needs | writes) - model.can:
        raise ModelError(
            f"{method.name} needs a model with {', '.join(sorted(missing))} for this task; {model.name} "
            f"({model.arrangement}) has {', '.join(sorted(model.can))}. {others}"
        )
    if model.arrangement not in method.arrangements:
        raise ModelError(
            f"{method.name} is for {', '.join(sorted(method.arrangements))} models; {model.name} is "
            f"{model.arrangement}. {others}"
        )
    if task.kind not in method.kinds:
        raise ConfigError(
            f"{method.name} is for {', '.join(sorted(method.kinds))} tasks; this one is {task.kind}. {others}"
        )


def cast(option: Any, value: Any) -> Any:
    """A value as the option's type wants it: texts from the command line become numbers and booleans."""
    kind = str(option.type)
    if not isinstance(value, str) or kind.startswith(("str", "Literal")):
        return value
    try:
        if kind.startswith("bool"):
            return {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}[value.lower()]
        if kind.startswith("int"):
            return None if value.lower() == "none" else int(value)
        if kind.startswith("float"):
            return None if value.lower() == "none" else float(value)
        if kind.startswith("tuple"):
            return tuple(v.strip() for v in value.split(",") if v.strip())
    except (KeyError, ValueError) as error:
        raise ConfigError(f"{option.name}={value!r}: expected {kind}") from error
    return value
