"""Random search: variations of the start, drawn without looking at any score. The yardstick of every search.

    p_1 .. p_n ~ writer(start),    the best of them by f on all scoring examples

Paper: Bergstra and Bengio 2012, https://jmlr.org/papers/v13/bergstra12a.html, with a writer as the distribution
"""

from __future__ import annotations

from dataclasses import dataclass

from ..registry import searching
from ..search.engine import Policy
from ..search.search import Search


@dataclass(frozen=True, kw_only=True)
class RandomSearchConfig:
    draws: int = 400  # variations at most
    width: int = 20  # drawn at a time
    temperature: float = 1.0


def search(config: RandomSearchConfig, s: Search) -> Policy:
    found = yield s.evaluate([s.start])
    asked = s.template("random", about=s.about(), text=s.text(s.start))
    for _ in s.rounds(-(-config.draws // config.width)):
        [texts] = yield s.propose([asked], n=config.width, temperature=config.temperature)
        found += yield s.evaluate(s.children(texts, [s.start] * len(texts), "random"))
    return s.top(found, s.options.finalists)


searching(
    name="random-search",
    summary="yardstick: variations of the start, drawn blindly, the best kept",
    config=RandomSearchConfig,
    build=search,
    paper="[Bergstra and Bengio 2012](https://jmlr.org/papers/v13/bergstra12a.html)",
    roles=frozenset({"writer"}),
)
