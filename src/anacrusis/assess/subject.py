"""What is assessed: one prompt on one model and some examples, and what its variants answer there.

Every answer is computed once: measures that look at the same variant share it. Calls to a model behind an API go
through the desk of the search engine: stored when they arrive, never paid twice, never beyond the budget.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..errors import ConfigError
from ..measure.predict import ANSWER_TOKENS, scores, written
from ..model.calls import Reply
from ..model.model import Model
from ..model.say import call, understood
from ..prompt.values import Prompt
from ..search.desk import Desk
from ..task import Example, Task, golds_of
from ..task.metrics import aligned, find

EACH = {"classification": "accuracy", "multilabel": "exact-match", "generation": "rougeL"}  # one number an example
Floats = NDArray[np.float64]
Inputs = tuple[Any, ...]


@dataclass(eq=False)
class Subject:
    """prompt, model: as `evaluate` takes them. task: its test part is what variants are scored on.

    train: what the prompt may have been learned from, for leakage and for calibrating. groups: by Example.where, the
    group that an example belongs to. cells: how many answers (one variant on one example) one measure may take, at
    most. desk: of a model behind an API. done: called with a number of answers as they come. paraphrases: instructions
    that say the same, to try in place of those that rules make.
    """

    prompt: Prompt
    model: Any
    task: Task
    train: tuple[Example, ...] = ()
    groups: dict[str, str] = field(default_factory=dict)
    seed: int = 0
    cells: int = 20_000
    desk: Desk | None = None
    done: Callable[[int], Any] = lambda n: None
    asked: int = 0  # answers computed so far
    paraphrases: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.examples:
            raise ConfigError(f"the task {self.task.name} has no examples to assess a prompt on")
        if self.endpoint and self.desk is None:
            raise ConfigError("a model behind an API is assessed through a desk: desk=Kept(model, store).desk, with "
                              "anacrusis.search.kept.Kept and anacrusis.search.store.Store")  # fmt: skip
        if self.prompt.frame.labels != self.task.labels:
            raise ConfigError("the prompt answers other classes than the task has")
        self._kept: dict[tuple[Hashable, ...], Any] = {}
        self._held: list[Prompt] = [self.prompt]  # alive, so that the identities of their tensors stay theirs

    @property
    def examples(self) -> tuple[Example, ...]:
        return self.task.test

    @property
    def endpoint(self) -> bool:
        return bool(self.model is not None and self.model.arrangement == "endpoint")

    @property
    def local(self) -> bool:
        """Whether the model is in memory and reads texts."""
        return isinstance(self.model, Model)

    @property
    def classes(self) -> bool:
        """Whether there is one right class for each example."""
        return self.task.kind == "classification"

    def rng(self, name: str) -> np.random.Generator:
        """A measure's own random numbers: the same whichever other measures run."""
        return np.random.default_rng([self.seed, *name.encode()])

    def affordable(self, name: str, variants: int, least: int = 20) -> tuple[int, tuple[Example, ...], tuple[str, ...]]:
        """(how many variants, on which examples, notes): their product is at most `cells`. Where it would be more,
        fewer examples (drawn by the measure's own random numbers, not below `least`), then fewer variants."""
        every = len(self.examples)
        n = min(every, max(self.cells // variants, min(every, least)))
        kept = min(variants, self.cells // n)
        index = sorted(self.rng(f"{name} examples").permutation(every)[:n])
        notes = [f"{kept} of {variants} variants"] * (kept < variants) + [f"{n} of {every} examples"] * (n < every)
        said = (f"{' on '.join(notes)}, to stay within {self.cells} answers",) if notes else ()
        return kept, tuple(self.examples[i] for i in index), said

    def drawn(self, name: str, examples: Sequence[Example], most: int) -> tuple[Example, ...]:
        """At most so many of the examples, in their order; drawn by the measure's own random numbers."""
        index = sorted(self.rng(f"{name} examples").permutation(len(examples))[: max(1, most)])
        return tuple(examples[i] for i in index)

    def framed(self, **parts: Any) -> Prompt:
        """The prompt with other parts of its frame: instruction, template, words, demonstrations, ..."""
        return replace(self.prompt, frame=replace(self.prompt.frame, **parts))

    # --- answers

    def probabilities(self, prompt: Prompt | None = None, inputs: Iterable[Inputs] | None = None) -> Floats:
        """(N, C) probabilities of the classes; of several labels, each on its own. Raises ConfigError where the model
        gives none."""
        if self.endpoint or not self.task.labels:
            raise ConfigError("this model only writes: it gives no probabilities of classes")
        z = self._answers(prompt or self.prompt, self._inputs(inputs))
        stacked = torch.stack(z)
        p = stacked.sigmoid() if self.task.kind == "multilabel" else stacked.softmax(1)
        return p.double().numpy()

    def predictions(self, prompt: Prompt | None = None, inputs: Iterable[Inputs] | None = None) -> Any:
        """In the form that metrics take: (N,) class indexes, -1 for a reply that names none; (N, C) scores; N texts."""
        found = self._answers(prompt or self.prompt, self._inputs(inputs))
        if self.task.kind == "generation":
            return found
        if self.endpoint:
            return np.array(found)
        z = torch.stack(found)
        return z.numpy() if self.task.kind == "multilabel" else z.argmax(1).numpy()

    def values(self, prompt: Prompt | None = None, examples: Sequence[Example] | None = None,
               inputs: Sequence[Inputs] | None = None) -> Floats:  # fmt: skip
        """(N,) how well each example is answered, from 0 to 1: right or wrong where there are classes.

        examples: those of the task unless given. inputs: what is read instead of their own.
        """
        examples = self.examples if examples is None else examples
        said = self.predictions(prompt, [e.inputs for e in examples] if inputs is None else inputs)
        return self.judged(said, examples)

    def judged(self, predictions: Any, examples: Sequence[Example]) -> Floats:
        """(N,) how well each example is answered by predictions in the form that metrics take, from 0 to 1."""
        metric, n = find(EACH[self.task.kind]), len(examples)
        given, gold, classes = aligned(metric, predictions, golds_of(examples), len(self.task.labels) or None)
        assert metric.weigh is not None
        value = metric.weigh(given, gold, classes)
        # an example weighs n and the others nothing; some at a time, as the weights are (n, n)
        return np.concatenate([value(n * np.eye(min(1000, n - i), n, k=i)) for i in range(0, n, 1000)])

    @cached_property
    def base(self) -> Floats:
        """(N,) values of the prompt as it is."""
        return self.values()

    def _inputs(self, inputs: Iterable[Inputs] | None) -> list[Inputs]:
        return [e.inputs for e in self.examples] if inputs is None else [tuple(x) for x in inputs]

    def _answers(self, prompt: Prompt, inputs: Sequence[Inputs]) -> list[Any]:
        """Rows of scores (C,), class indexes of replies, or texts; in the order of `inputs`."""
        if all(prompt is not p for p in self._held) and prompt.tensors():
            self._held.append(prompt)
        about = (prompt.frame, prompt.kind, *(id(t) for t in prompt.tensors().values()))
        new = [x for x in dict.fromkeys(inputs) if (*about, x) not in self._kept]
        if new:
            for x, answer in zip(new, self._ask(prompt, new), strict=True):
                self._kept[(*about, x)] = answer
            self.asked += len(new)
        return [self._kept[(*about, x)] for x in inputs]

    def _ask(self, prompt: Prompt, inputs: list[Inputs]) -> list[Any]:
        if self.endpoint:
            replies = self._replies(prompt, inputs)
            if self.task.kind == "generation":
                return [r.text for r in replies]
            return [-1 if (c := understood(prompt.frame, r)[0]) is None else c for r in replies]
        if self.task.kind == "generation":
            return list(written(prompt, inputs, self.model))
        z: Tensor = scores(prompt, inputs, self.model, done=self.done)
        return list(z)

    def _replies(self, prompt: Prompt, inputs: list[Inputs]) -> list[Reply]:
        assert self.desk is not None, "a model behind an API is assessed through a desk"
        tokens = int(prompt.card.get("answer_tokens", ANSWER_TOKENS))
        calls = [call(prompt.frame, x, tokens=tokens) for x in inputs]
        known = self.desk.known("task", calls)  # what was paid before costs nothing of the budget either
        missing = [i for i, reply in enumerate(known) if reply is None]
        fresh, refused = self.desk.ask("task", [calls[i] for i in missing]) if missing else ([], None)
        if refused is not None:
            raise refused
        for i, reply in zip(missing, fresh, strict=True):
            known[i] = reply
        return [r for r in known if r is not None]
