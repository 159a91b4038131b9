"""The frame that a task and a model get when nobody says otherwise."""

from __future__ import annotations

from typing import Any

from ..errors import ConfigError
from ..prompt.values import Frame
from ..task.task import Task
from .classtexts import PLAIN
from .model import Model
from .readout import LabelWords

ENDPOINT_READOUTS = {"classification": "answer", "generation": "generate"}


def default_frame(model: Any, task: Task, readout: str = "auto", template: str = "", place: str = "auto") -> Frame:
    """How `model` reads `task`.

    readout "auto": a head for encoders and several labels, label words where the classes begin with different tokens
    (otherwise a head), written text for generation tasks. template "": the fields, then a place for the answer.
    """
    if model.arrangement == "endpoint":
        return _asked(task, readout, template)
    if "images" in model.can:
        return _looked_at(model, task, readout, template)
    if readout == "auto":
        readout = _readout(model, task)
    if task.kind == "generation" and readout != "generate":
        raise ConfigError(f"readout is {readout!r}; a generation task is read by 'generate'")
    spoken = readout in ("label-words", "words", "lm", "generate")
    return Frame(
        fields=task.fields,
        labels=task.labels,
        words=task.words,
        template=template or _template(model, task, spoken),
        place=place,
        readout=readout,
        pool=model.pool,
        multi=task.kind == "multilabel",
    )


def _looked_at(model: Any, task: Task, readout: str, template: str) -> Frame:
    """For a model of images: class texts where it has a text tower, its own classes where the task's are among them,
    else a head."""
    if readout == "auto":
        own = bool(model.classes) and set(task.labels) <= set(model.classes)
        readout = "match" if "class-texts" in model.can else "classes" if own else "head"
    if template and readout == "match" and "{label}" not in template:
        raise ConfigError(f"template {template!r}: a class text needs the class: {{label}}, as in {PLAIN!r}")
    return Frame(
        fields=("image",), labels=task.labels, words=task.words, template=template or PLAIN, readout=readout,
        pool=model.pool, multi=task.kind == "multilabel",
    )  # fmt: skip


def _asked(task: Task, readout: str, template: str) -> Frame:
    """For a model that only writes: the fields by name, and the place of the answer."""
    wanted = ENDPOINT_READOUTS.get(task.kind, "")
    if readout not in ("auto", wanted) or not wanted:
        raise ConfigError(f"readout {readout!r}: an endpoint only writes; a {task.kind} task is read by {wanted!r}")
    fields = "\n".join(f"{name.capitalize()}: {{{name}}}" for name in task.fields)
    return Frame(
        fields=task.fields, labels=task.labels, words=task.words, readout=wanted,
        template=template or fields + "\nAnswer:",
    )  # fmt: skip


def _readout(model: Model, task: Task) -> str:
    if task.kind == "generation":
        return "generate"
    if model.arrangement == "encoder" or task.kind == "multilabel":
        return "head"
    words = Frame(labels=task.labels, words=task.words, template="{text}")
    try:
        LabelWords(model, words).ids  # noqa: B018  (asked for its error)
    except ConfigError:
        return "head"
    return "label-words"


def _template(model: Model, task: Task, spoken: bool) -> str:
    slots = ["{" + f + "}" for f in task.fields]
    if model.arrangement == "masked" and spoken:
        return " ".join(slots) + " It is about {mask}."
    if model.arrangement == "causal" and spoken:
        return "\n".join(slots) + "\nAnswer:"
    if model.arrangement in ("encoder", "masked"):
        return "{sep}".join(slots)
    return "\n".join(slots)
