"""Demonstrations: training examples with their answers, shown before the text (few-shot prompting). Nothing is trained.

    x = [instruction ; text_1 answer_1 ; .. ; text_k answer_k ; text]        scores as zero-shot's label words, (B, C)

    k = rounds times C: each round shows one example of every class, in an order of its own. As many rounds as fit.

Paper: Brown et al. 2020, https://arxiv.org/abs/2005.14165 (section 2, few-shot)
Departure: shown examples are drawn once and are the same for every input; the paper draws anew for each. Classes are
    balanced and interleaved, because models lean to the answers that they saw often and last.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from ..errors import ConfigError
from ..model.frames import default_frame
from ..model.readout import LabelWords, reader
from ..prompt.values import Frame, Text
from ..registry import Method, register
from ..task.task import Example
from ..tune.recipe import Problem

Shown = tuple[tuple[tuple[str, ...], str], ...]


@dataclass(frozen=True, kw_only=True)
class DemonstrationsConfig:
    shots: int = 4  # examples per class at most (a generation task: in all)
    instruction: str = ""  # stands before the examples

    def __post_init__(self) -> None:
        if self.shots < 1:
            raise ConfigError(f"shots must be at least 1, got {self.shots}; without examples it is zero-shot")


def build(config: DemonstrationsConfig, problem: Problem) -> Text:
    model, task, frame = problem.model, problem.task, problem.frame
    if frame.readout not in ("label-words", "lm", "generate", "answer"):
        frame = default_frame(model, task, "label-words", place=frame.place)
    frame = replace(frame, instruction=config.instruction)
    if model.arrangement == "endpoint":  # how much fits is not known: some rounds, and the provider says if too many
        rounds = draw(task.train, task.words, config.shots, problem.generator)
        return Text(frame=replace(frame, demonstrations=tuple(pair for r in rounds for pair in r)))
    read = reader(model, frame)
    if isinstance(read, LabelWords) and frame.words:
        read.ids  # noqa: B018  (asked for its error, before anything is computed)
    rounds = draw(task.train, task.words, config.shots, problem.generator)
    typical, shown = _typical(problem, frame), frame
    for k in range(1, len(rounds) + 1):
        wider = replace(frame, demonstrations=tuple(pair for r in rounds[:k] for pair in r))
        if not _fits(problem, wider, typical):
            break
        shown = wider
    if not shown.demonstrations:
        raise ConfigError(
            f"no demonstrations fit: {len(rounds[0])} examples, one of each class, and the text to be answered are "
            f"longer than the {model.limit} tokens that {model.name} reads. Use a model that reads more, or zero-shot."
        )
    return Text(frame=shown)


def draw(examples: Sequence[Example], words: Sequence[str], shots: int, generator: torch.Generator) -> list[Shown]:
    """At most `shots` rounds of (inputs, answer), one of each class that has examples left, in random order."""
    by_class: dict[object, list[Example]] = {}
    for i in torch.randperm(len(examples), generator=generator).tolist():
        gold = examples[i].gold
        if gold is not None:
            by_class.setdefault(gold if isinstance(gold, int) else "text", []).append(examples[i])
    pools = [by_class[c] for c in sorted(by_class, key=str)]
    rounds: list[Shown] = []
    for r in range(min(shots, max(len(p) for p in pools))):
        left = [p[r] for p in pools if r < len(p)]
        order = torch.randperm(len(left), generator=generator).tolist()
        rounds.append(tuple((left[i].inputs, _answer(left[i], words)) for i in order))
    return rounds


def _answer(example: Example, words: Sequence[str]) -> str:
    return words[example.gold] if isinstance(example.gold, int) else str(example.gold)


def _typical(problem: Problem, frame: Frame, most: int = 500) -> tuple[str, ...]:
    """A long training text, by the number of its tokens: one in twenty is longer."""
    some = problem.task.train[:: max(1, len(problem.task.train) // most)]
    rows = list(problem.model.renderer(frame).rows(e.inputs for e in some))
    order = sorted(range(len(rows)), key=lambda i: len(rows[i].codes) + rows[i].cut)
    return some[order[int(0.95 * (len(order) - 1))]].inputs


def _fits(problem: Problem, frame: Frame, inputs: tuple[str, ...]) -> bool:
    try:
        return next(problem.model.renderer(frame).rows([inputs])).cut == 0
    except ConfigError:  # the demonstrations alone are too long
        return False


register(
    Method(
        name="demonstrations",
        summary="baseline: training examples shown before the text (few-shot prompting)",
        config=DemonstrationsConfig,
        build=build,
        races=True,
        paper="[Brown et al. 2020](https://arxiv.org/abs/2005.14165)",
        engine="baseline",
        needs=frozenset(),
        kinds=frozenset({"classification", "generation"}),
        arrangements=frozenset({"masked", "causal", "encoder-decoder", "endpoint"}),
    )
)
