"""Language models as black-box optimisers: a writer sees the best and the worst templates and writes a better one.

    pool <- shipped templates of class texts, each scored on the training pictures
    step: ask("these are good, these are bad", the `top` best, the `bottom` worst) -> `width` templates
          pool <- pool + {(p, f(p))};   restart from the shipped ones after `patience` steps without a gain

A picture is encoded once; a template costs C short texts and one product of matrices. Pictures are not shown.

Paper: Liu et al. 2024, https://arxiv.org/abs/2309.05950
Departure: f is the mean log-probability of the right class (--set objective=score for accuracy), which tells templates
    apart where accuracies tie; the shipped templates are ours, not drawn from LAION's captions.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import ConfigError
from ..registry import searching
from ..search.candidate import Candidate
from ..search.engine import Policy
from ..search.search import Search


@dataclass(frozen=True, kw_only=True)
class LLMBlackBoxConfig:
    steps: int = 10  # rounds in all
    width: int = 4  # templates drawn a round
    top: int = 3  # best templates shown
    bottom: int = 3  # worst templates shown
    patience: int = 4  # rounds without a better template, then the writer sees the shipped ones again
    temperature: float = 1.0  # of the writer


def fitting(s: Search, candidates: list[Candidate]) -> list[Candidate]:
    """Those whose class texts the model can read whole."""
    kept = []
    for c in candidates:
        try:
            if model := s.model.get("model"):
                model.lay(s.form(c).frame, 0)
            kept.append(c)
        except ConfigError:  # longer than the model reads
            continue
    return kept


def search(config: LLMBlackBoxConfig, s: Search) -> Policy:
    first = yield s.evaluate(s.seeds(12))
    every, pool, best, waited = list(first), list(first), s.best(first).mean, 0
    for _ in s.rounds(config.steps):
        ranked = s.top(pool, len(pool))
        prompt = s.template(
            "llm_black_box",
            bad="\n".join(f"<prompt>{s.text(c)}</prompt>" for c in ranked[-config.bottom :]),
            good="\n".join(f"<prompt>{s.text(c)}</prompt>" for c in reversed(ranked[: config.top])),
        )
        [texts] = yield s.propose([prompt], n=config.width, temperature=config.temperature, longest=200)
        new = yield s.evaluate(fitting(s, s.children(texts, [ranked[0]] * len(texts), "llm-black-box")))
        pool, every = pool + new, every + new
        waited = waited + 1 if s.best(every).mean <= best else 0
        best = s.best(every).mean
        if waited >= config.patience:
            pool, waited = list(first), 0
    return s.top(every, s.options.finalists)


searching(
    name="llm-black-box",
    summary="a writer improves templates of class texts, shown the best and the worst",
    config=LLMBlackBoxConfig,
    build=search,
    paper="[Liu et al. 2024](https://arxiv.org/abs/2309.05950)",
    roles=frozenset({"writer"}),
    needs=frozenset({"class-texts"}),
    kinds=frozenset({"classification"}),
    arrangements=frozenset({"dual"}),
)
