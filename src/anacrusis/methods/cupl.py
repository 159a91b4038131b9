"""CuPL: a writer describes what each class looks like; the class is the mean of its descriptions. Nothing is trained.

    t_c = normalise(mean over sentences d of class c of normalise(g(d)))
    sentences: `draws` answers to each of the questions about c; with `both`, the usual templates beside them

Paper: Pratt et al. 2023, https://arxiv.org/abs/2209.03320
Departure: three questions instead of the paper's five for ImageNet; a sentence that does not name the class gets the
    name in front, as the released sentences all hold it. The start keeps its place unless validation prefers the
    descriptions.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..registry import searching
from ..search.candidate import Candidate
from ..search.engine import Policy
from ..search.search import Search


@dataclass(frozen=True, kw_only=True)
class CuPLConfig:
    draws: int = 5  # sentences to each question
    both: bool = True  # the shipped templates count beside the sentences
    temperature: float = 0.99  # of the writer


def questions(s: Search) -> list[list[str]]:
    """By class, what is asked about it."""
    return [[s.template(f"cupl_{i}", thing=word) for i in (1, 2, 3)] for word in s.base.words]


def told(word: str, sentences: list[str | None]) -> tuple[str, ...]:
    """The sentences about a class, each with its name in it, each once."""
    kept = [t.strip() for t in sentences if t and t.strip()]
    return tuple(dict.fromkeys(t if word.lower() in t.lower() else f"{word}: {t}" for t in kept))


def described(config: CuPLConfig, s: Search) -> Policy:
    """The sentences of each class: C tuples."""
    asked = questions(s)
    replies = yield s.ask([q for mine in asked for q in mine], n=config.draws, parse="tag:text",
                          temperature=config.temperature, longest=300)  # fmt: skip
    lists = [r if isinstance(r, list) else [r] for r in replies]
    each = len(asked[0])
    return [told(word, [t for r in lists[c * each : (c + 1) * each] for t in r]) for c, word in enumerate(s.base.words)]


def search(config: CuPLConfig, s: Search) -> Policy:
    found = yield s.evaluate([s.start])
    said = yield from described(config, s)
    usual = [s.text(c) for c in s.seeds(8)] if config.both else []
    texts = tuple(
        tuple(mine) + tuple(u.replace("{label}", word) for u in usual or ([] if mine else [s.text(s.start)]))
        for mine, word in zip(said, s.base.words, strict=True)
    )
    new = Candidate({"texts": texts}).born("cupl", s.start)
    found += yield s.evaluate([new])
    return s.top(found, s.options.finalists)


searching(
    name="cupl",
    summary="a writer describes each class, and the descriptions stand for it",
    config=CuPLConfig,
    build=search,
    paper="[Pratt et al. 2023](https://arxiv.org/abs/2209.03320)",
    roles=frozenset({"writer"}),
    needs=frozenset({"class-texts"}),
    kinds=frozenset({"classification"}),
    arrangements=frozenset({"dual"}),
)
