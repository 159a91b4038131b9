"""ProAPO: an evolution of class texts by small edits, templates first, then each class's descriptions.

    a candidate is a set of templates (then: for each class a set of texts); edits: add one, delete one, replace one,
    cross (the union's half of two good ones), mutate (a random half of the library)
    each round: `width` children of the best; keep the best `size`; the writer is asked once, for descriptions
    descriptions are added to, taken from or replaced in some classes at a time (`group` of C)

Paper: Qu et al. 2025, https://arxiv.org/abs/2502.19844
Departure: fitness is the mean log-probability of the right class, in the place of accuracy plus a weighted entropy
    term; groups of classes are drawn at random, not by what is confused; without a writer the second half is left out.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ..registry import searching
from ..search.candidate import Candidate
from ..search.engine import Policy
from ..search.search import Search
from .cupl import CuPLConfig, described


@dataclass(frozen=True, kw_only=True)
class ProAPOConfig:
    rounds: int = 6  # of each half
    size: int = 4  # candidates that are kept
    width: int = 8  # children a round
    group: float = 0.5  # share of the classes whose descriptions one edit changes
    draws: int = 3  # descriptions asked for by question; 0: templates only; the writer is named, not asked


def edited(have: Sequence[str], library: Sequence[str], other: Sequence[str], rng: random.Random) -> tuple[str, ...]:
    """The set after one edit; never empty."""
    kept, free = list(have), [t for t in library if t not in have]
    op = rng.choice(("add", "delete", "replace", "cross", "mutate"))
    if op in ("delete", "replace") and kept and (len(kept) > 1 or (op == "replace" and free)):
        kept.remove(rng.choice(kept))
    if op in ("add", "replace") and free:
        kept.append(rng.choice(free))
    if op == "cross":
        union = list(dict.fromkeys([*have, *other]))
        kept = rng.sample(union, max(1, (len(union) + 1) // 2))
    if op == "mutate" and library:
        kept = rng.sample(list(library), max(1, len(library) // 2))
    return tuple(sorted(kept)) or tuple(have)


Child = Callable[[Candidate, Candidate], Candidate]


def evolve(config: ProAPOConfig, s: Search, first: list[Candidate], child: Child) -> Policy:
    found = yield s.evaluate(first)
    for _ in s.rounds(config.rounds):
        parents = s.top(found, config.size)
        new = [child(s.rng.choice(parents).candidate, s.rng.choice(parents).candidate) for _ in range(config.width)]
        found += yield s.evaluate([c for c in dict.fromkeys(new) if c.id not in s.ledger.observed])
    return found


def search(config: ProAPOConfig, s: Search) -> Policy:
    library = [s.text(c) for c in s.seeds(12)]

    def of_templates(a: Candidate, b: Candidate) -> Candidate:
        made = edited(a.parts["templates"], library, b.parts["templates"], s.rng)
        return Candidate({"templates": made}).born("templates", a, b)

    start = yield s.evaluate([s.start])
    first = [Candidate({"templates": (t,)}).born("template", s.start) for t in library]
    found = yield from evolve(config, s, first, of_templates)
    if config.draws:
        said = yield from described(CuPLConfig(draws=config.draws), s)
        best = s.best(found).candidate.parts["templates"]
        plain = tuple(tuple(t.replace("{label}", w) for t in best) for w in s.base.words)
        libraries = [tuple(dict.fromkeys((*mine, *usual))) for mine, usual in zip(said, plain, strict=True)]

        def of_texts(a: Candidate, b: Candidate) -> Candidate:
            texts = list(a.parts["texts"])
            for c in s.rng.sample(range(len(texts)), max(1, int(config.group * len(texts)))):
                texts[c] = edited(texts[c], libraries[c], b.parts["texts"][c], s.rng)
            return Candidate({"texts": tuple(texts)}).born("texts", a, b)

        begun = [Candidate({"texts": t}).born("texts", s.start) for t in (plain, tuple(libraries))]
        found += yield from evolve(config, s, begun, of_texts)
    return s.top(start + found, s.options.finalists)


searching(
    name="proapo",
    summary="templates and descriptions of classes evolve by small edits",
    config=ProAPOConfig,
    build=search,
    paper="[Qu et al. 2025](https://arxiv.org/abs/2502.19844)",
    roles=frozenset({"writer"}),
    needs=frozenset({"class-texts"}),
    kinds=frozenset({"classification"}),
    arrangements=frozenset({"dual"}),
)
