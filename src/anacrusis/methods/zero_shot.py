"""Zero-shot: the frozen model as it is, asked in words. No example is used.

    label words (models that predict words): scores_c = log p(word_c | instruction, text) up to a constant, (B, C)
    match (dual encoders): scores_c = s <f(image), mean of g(texts of c)>, (B, C); --set ensemble=true asks with several
        templates. classes (classifiers): the network's own scores
    similarity (encoders): scores_c = 20 cos(pool(text), pool(word_c)), (B, C)
    answer (endpoints): the class that the written reply names

Paper: Reimers and Gurevych 2019, https://arxiv.org/abs/1908.10084 (similarity of pooled states); asking in words has
    many sources.
Departure: only the first token of a label word is scored, as long as the words differ there; whole words otherwise
    (masked models: similarity, which they are bad at: give the task other words).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from ..errors import ModelError
from ..model.frames import default_frame
from ..model.readout import reader
from ..prompt.values import Frame, Text
from ..registry import ANYWHERE, SEEING, Method, register
from ..tune.recipe import Problem

TEMPLATES = (
    "a photo of a {label}.", "a picture of a {label}.", "an image of a {label}.", "a drawing of a {label}.",
    "a close photo of a {label}.", "a blurry photo of a {label}.", "a dark photo of a {label}.",
    "this shows a {label}.",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class ZeroShotConfig:
    instruction: str = "auto"  # stands before the text; auto: one that lists the label words, if words are scored
    ensemble: bool = False  # images: average over several templates of class texts, instead of one


def build(config: ZeroShotConfig, problem: Problem) -> Text:
    frame = problem.frame
    if "images" in problem.model.can:
        if frame.readout == "head":
            raise ModelError(f"{problem.model.name} knows no classes by itself: its readouts need a trained head. Use "
                             "linear-probe, or a dual encoder such as builtin:tiny-clip")  # fmt: skip
        return Text(frame=replace(frame, templates=TEMPLATES) if config.ensemble else frame)
    if frame.readout == "answer":  # an endpoint
        said = f"Answer with one of: {', '.join(frame.words)}." if config.instruction == "auto" else config.instruction
        return Text(frame=replace(frame, instruction=said))
    if problem.model.arrangement == "endpoint":
        return Text(frame=replace(frame, instruction="" if config.instruction == "auto" else config.instruction))
    if frame.readout == "head":  # nothing is trained here
        spoken = problem.model.arrangement in ("causal", "encoder-decoder") and problem.task.kind == "classification"
        readout = "words" if spoken else "similarity"
        frame = default_frame(problem.model, problem.task, readout, place=frame.place)
    instruction = _options(problem, frame) if config.instruction == "auto" else config.instruction
    frame = replace(frame, instruction=instruction)
    reader(problem.model, frame)  # says so when the model cannot do it
    return Text(frame=frame)


def _options(problem: Problem, frame: Frame) -> str:
    """An instruction that lists the label words, or nothing where they would fill a quarter of the model."""
    if frame.readout not in ("label-words", "words", "lm"):
        return ""
    text = f"Answer with one of: {', '.join(frame.words)}."
    return text if len(problem.model.renderer(frame).ids(text)) <= problem.model.limit // 4 else ""


register(
    Method(
        name="zero-shot",
        summary="baseline: the model as it is, by label words or by similarity to them",
        config=ZeroShotConfig,
        build=build,
        learns=False,
        captions=True,
        paper="[Reimers and Gurevych 2019](https://arxiv.org/abs/1908.10084)",
        engine="baseline",
        needs=frozenset(),
        kinds=frozenset({"classification", "generation"}),
        arrangements=ANYWHERE | SEEING,
    )
)
