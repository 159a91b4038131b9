"""What a method sees of its run: examples, candidates, a seeded RNG, requests to yield, and pure helpers.

It sees no test example, no model, no money and no clock: between two yields there is only code over results.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from ..errors import ConfigError
from ..prompt.values import Frame, Prompt
from ..task.task import Example, Task
from . import templates
from .candidate import Candidate, as_prompt, frozen
from .ledger import Ledger, Observation, Scored
from .parse import SEVERAL
from .racing import Full, Rule
from .requests import Answer, Ask, Cells, Compare, Duel, Embed, Evaluate, Forward, Label, Next, Synthesise

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Searching:
    """Options of the search engine. They hold for every method of it."""

    examples: int = 100  # training examples on which candidates are scored, at most; 0 = all
    valid: int = 200  # validation examples on which the winner is chosen, at most
    test: int = 0  # test examples on which it is reported, at most; 0 = all
    finalists: int = 5  # candidates that meet on the validation examples, the start included
    answer_tokens: int = 64  # of the task model's reply, at most
    start: str = "auto"  # the text to start from; auto: a plain instruction that lists the answers
    objective: str = "auto"  # score, or likelihood of the right answers; auto: likelihood where texts are compared
    parts: str = "auto"  # what is searched: instruction, template, words (comma-separated); auto: by the model

    def __post_init__(self) -> None:
        if self.objective not in ("auto", "score", "likelihood"):
            raise ConfigError(f"objective is {self.objective!r}; it must be auto, score or likelihood")
        if self.finalists < 2 or self.answer_tokens < 1 or min(self.examples, self.valid, self.test) < 0:
            raise ConfigError(
                "finalists must be at least 2 (the start is one of them), answer_tokens at least 1; examples, valid "
                "and test at least 0"
            )


def some(items: Sequence[T], most: int | None, seed: int) -> list[T]:
    """At most `most` of the items (None: all), drawn at random, in their order: files are often sorted by class."""
    n = len(items) if most is None else min(most, len(items))
    return [items[i] for i in sorted(random.Random(seed).sample(range(len(items)), n))]


class Search:
    """One search, as its method sees it. `rng` is the only source of chance."""

    def __init__(self, task: Task, base: Frame, parts: Sequence[str], options: Searching, seed: int):
        self.task = replace(task, test=(), source={})
        self.base = base
        self.options = options
        self.seed = seed
        self.rng = random.Random(seed)
        smooth = options.objective == "likelihood" or (
            options.objective == "auto" and base.readout in ("similarity", "match")
        )
        self.ledger = Ledger(smooth)
        self.round = (0, 0)  # of how many
        self.wording: dict[str, str] = {}  # templates used so far, with the version of their text
        self.model: Mapping[str, Any] = {}  # facts about a local model: hidden, layers, vocabulary; {} for an endpoint
        self.form: Callable[[Candidate], Prompt] = lambda c: as_prompt(c, base)
        self.examples = {e.id: e for e in (*self.task.valid, *self.task.train)}
        self.train = tuple(dict.fromkeys(e.id for e in self.task.train if e.gold is not None))
        valid = tuple(dict.fromkeys(e.id for e in self.task.valid if e.gold is not None))
        self.valid = tuple(some(valid, options.valid or None, seed))
        self.dev = self._sample(self.train, options.examples)
        self.parts = tuple(parts)
        self.slots = tuple(
            slot for p in parts for slot in ([f"words:{c}" for c in range(len(base.words))] if p == "words" else [p])
        )
        self.start = Candidate({p: frozen(getattr(base, p)) for p in parts}, op="start")

    def _sample(self, ids: Sequence[str], most: int) -> tuple[str, ...]:
        """At most `most` of the ids, all of a run's candidates meet the same; every class in turn."""
        by_class: dict[Any, list[str]] = {}
        for i in random.Random(self.seed).sample(list(ids), len(ids)):
            gold = self.examples[i].gold
            by_class.setdefault(gold if isinstance(gold, int) else None, []).append(i)
        longest = max((len(v) for v in by_class.values()), default=0)
        turns = [v[i] for i in range(longest) for v in by_class.values() if i < len(v)]
        return tuple(turns[: most or None])

    def rounds(self, n: int) -> Iterator[int]:
        """range(n) for a method's outer loop: progress tells from it how long the rest may take."""
        for i in range(n):
            self.round = (i, n)
            yield i

    # requests

    def ask(self, prompts: Sequence[str] | str, **options: Any) -> Ask:
        """options: those of Ask."""
        return Ask((prompts,) if isinstance(prompts, str) else tuple(prompts), **options)

    @property
    def holes(self) -> tuple[str, ...]:
        """What a template must go on saying in braces: the input's fields, or the class of a class text."""
        return ("label",) if self.base.readout == "match" else self.base.fields

    def propose(self, prompts: Sequence[str], **options: Any) -> Ask:
        """`ask` for texts of the first slot, inside <prompt> tags: they keep its placeholders."""
        name = self.slot.partition(":")[0]
        fields = self.holes if name == "template" else ()
        return Ask(tuple(prompts), **{"keep": tuple("{" + f + "}" for f in fields), **options})

    def evaluate(
        self, candidates: Iterable[Candidate | Scored], on: str | Sequence[str] = "train", by: Rule | None = None
    ) -> Evaluate:
        """on: "train" (the scoring examples), "valid", or ids such as those that `batch` draws."""
        return Evaluate(tuple(self._plain(candidates)), self._on(on), by or Full())

    def cells(self, pairs: Iterable[tuple[Candidate | Scored, str]]) -> Cells:
        return Cells(tuple((self._plain([c])[0], e) for c, e in pairs))

    def answer(self, pairs: Iterable[tuple[Candidate, str]], **options: Any) -> Answer:
        return Answer(tuple(pairs), **options)

    def compare(self, pairs: Iterable[tuple[str, str]], requirement: str, repeats: int = 4) -> Compare:
        return Compare(tuple(pairs), requirement, repeats)

    def duel(self, pairs: Iterable[tuple[Candidate, Candidate]], shown: Sequence[tuple[str, str]] = ()) -> Duel:
        return Duel(tuple(pairs), tuple(shown))

    def label(self, inputs: Iterable[tuple[str, ...]]) -> Label:
        return Label(tuple(inputs))

    def synthesise(self, n: int, like: Sequence[str], hint: str = "") -> Synthesise:
        return Synthesise(n, tuple(like), hint)

    def forward(self, candidates: Iterable[Candidate], on: str | Sequence[str] = "train", top: int = 0) -> Forward:
        return Forward(tuple(candidates), self._on(on), top)

    def next(self, candidate: Candidate, on: Sequence[str], top: int = 10) -> Next:
        return Next(candidate, tuple(on), top)

    def embed(self, texts: Iterable[str]) -> Embed:
        return Embed(tuple(texts))

    def _on(self, on: str | Sequence[str]) -> tuple[str, ...]:
        if not isinstance(on, str):
            return tuple(on)
        if on not in ("train", "valid"):
            raise ConfigError(f"candidates are scored on train, valid or chosen training examples, not on {on!r}")
        return self.dev if on == "train" else self.valid

    def _plain(self, candidates: Iterable[Candidate | Scored]) -> list[Candidate]:
        return [c.candidate if isinstance(c, Scored) else c for c in candidates]

    # examples

    def batch(self, size: int, ids: Sequence[str] | None = None) -> tuple[str, ...]:
        """Ids of `size` examples drawn without replacement from the scoring examples, or from `ids`."""
        pool = self.dev if ids is None else ids
        return tuple(self.rng.sample(list(pool), min(size, len(pool))))

    def gold(self, example: str | Example) -> str:
        """What the right answer says."""
        e = self.examples[example] if isinstance(example, str) else example
        return self.task.words[e.gold] if isinstance(e.gold, int) else str(e.gold)

    def show(self, example: str | Observation, said: bool = True) -> str:
        """An example in words: its fields, the right answer and, of an observation, what was answered."""
        e = self.examples[example.example if isinstance(example, Observation) else example]
        lines = [f"{name.capitalize()}: {text}" for name, text in zip(self.task.fields, e.inputs, strict=True)]
        lines.append(f"Right answer: {self.gold(e)}")
        if said and isinstance(example, Observation):
            lines.append(f"Given answer: {example.output or '(' + example.outcome + ')'}")
        return "\n".join(lines)

    def shown(self, examples: Iterable[str | Observation]) -> str:
        return "\n\n".join(self.show(e) for e in examples)

    def about(self) -> str:
        """The task in a sentence, for a writer who has not seen it."""
        reads = " and ".join(self.task.fields)
        if self.task.labels:
            return f"Given the {reads}, answer with one of: {', '.join(self.task.words)}."
        return f"Given the {reads}, write the right answer."

    # candidates

    @property
    def slot(self) -> str:
        """The first searched slot: the only one where an instruction is searched."""
        return self.slots[0]

    def text(self, candidate: Candidate | Scored, slot: str | None = None) -> str:
        return self._plain([candidate])[0].text(slot or self.slot)

    def seeds(self, n: int) -> list[Candidate]:
        """The start and up to n - 1 other plain candidates: shipped wordings of the first slot."""
        name, _, index = self.slot.partition(":")
        if name == "instruction":
            file = "seeds" if self.task.labels else "seeds-writing"
            texts = templates.source(file).replace("{{labels}}", ", ".join(self.task.words)).splitlines()
            others = [self.start.put(self.slot, t).born("seed") for t in texts]
        else:
            match = self.base.readout == "match"
            texts = templates.source("seeds-class-texts" if match else "seeds-template").splitlines()
            fields = " ".join("{" + f + "}" for f in self.holes)
            others = [self._everywhere(t.replace("{{text}}", fields)) for t in texts]
        return list(dict.fromkeys([self.start, *others]))[:n]

    def _everywhere(self, template: str) -> Candidate:
        c = self.start
        for slot in self.slots:
            name, _, index = slot.partition(":")
            word = self.base.words[int(index)] if index else ""
            fields = " ".join("{" + f + "}" for f in self.task.fields)
            c = c.put(slot, template.replace(fields, word) if index else template)
        return c.born("seed")

    def child(self, parent: Candidate | Scored, text: str, op: str, *others: Candidate | Scored) -> Candidate:
        """A candidate with `text` in the first slot of `parent`."""
        parents = self._plain([parent, *others])
        return parents[0].put(self.slot, text).born(op, *parents)

    def children(self, texts: Sequence[str | None], parents: Sequence[Any], op: str) -> list[Candidate]:
        """One candidate a text, parents aligned (a candidate, or several of which the first lends its other parts).
        Texts that did not pass the gate (None) and content that was scored before give none."""
        out = []
        for text, parent in zip(texts, parents, strict=True):
            several = parent if isinstance(parent, tuple | list) else (parent,)
            if text is not None:
                out.append(self.child(several[0], text, op, *several[1:]))
        return [c for c in dict.fromkeys(out) if c.id not in self.ledger.observed]

    @staticmethod
    def several(text: str | None) -> list[str]:
        """The texts of a reply that was parsed with "items" or "tags:NAME"."""
        return text.split(SEVERAL) if text else []

    def template(self, name: str, **slots: object) -> str:
        """A prompt for the writer from templates/NAME.txt. Raises ConfigError for a slot left open."""
        self.wording[name] = templates.version(name)
        return templates.fill(name, **slots)

    # choosing

    @staticmethod
    def top(scored: Iterable[Scored], k: int) -> list[Scored]:
        """The k best, ties by likelihood, then in the order given; equal content once."""
        unique = list({s.id: s for s in scored}.values())
        return sorted(unique, key=lambda s: s.rank, reverse=True)[:k]

    def best(self, scored: Iterable[Scored]) -> Scored:
        return self.top(scored, 1)[0]

    def roulette(self, scored: Sequence[Scored], k: int) -> tuple[Scored, ...]:
        """k different members, drawn one after the other with weights as their scores (equal where all are 0)."""
        left = list(scored)
        out = []
        for _ in range(min(k, len(left))):
            weights = [max(0.0, s.mean) for s in left]
            i = self.rng.choices(range(len(left)), weights if sum(weights) > 0 else None)[0]
            out.append(left.pop(i))
        return tuple(out)

    def tournament(self, scored: Sequence[Scored], size: int = 3) -> Scored:
        return self.best(self.rng.sample(list(scored), min(size, len(scored))))

    def shuffled(self, items: Iterable[T]) -> list[T]:
        found = list(items)
        self.rng.shuffle(found)
        return found
