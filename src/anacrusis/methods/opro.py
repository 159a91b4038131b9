"""OPRO: the writer sees the best instructions so far with their scores, and writes better ones.

    history = {(p, f(p))}, f = mean score on the scoring examples, in whole hundredths
    step:   ask(the best `memory` of the history in ascending order, `shots` examples) -> `width` draws
            history <- history + {(p, f(p)) for each new p}

Paper: Yang et al. 2023, https://arxiv.org/abs/2309.03409 (section 3; constants of the released code)
Departure: no instruction is left out for a low score; digits are not forbidden (they were for one data set). Every
    draw is scored on all scoring examples, as in the paper: no racing.

On the planted task: 8000 calls.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..registry import searching
from ..search.engine import Policy
from ..search.search import Search


@dataclass(frozen=True, kw_only=True)
class OPROConfig:
    steps: int = 200
    width: int = 8  # instructions drawn a step
    memory: int = 20  # of the history, shown to the writer
    shots: int = 3  # examples shown
    temperature: float = 1.0
    longest: int = 500  # characters of an instruction


def search(config: OPROConfig, s: Search) -> Policy:
    history = yield s.evaluate([s.start])
    for _ in s.rounds(config.steps):
        best = reversed(s.top(history, config.memory))
        shown = "\n\n".join(f"<prompt>{s.text(h)}</prompt>\nscore: {round(100 * h.mean)}" for h in best)
        prompt = s.template("opro", about=s.about(), history=shown, examples=s.shown(s.batch(config.shots)))
        [texts] = yield s.propose([prompt], n=config.width, temperature=config.temperature, longest=config.longest)
        history += yield s.evaluate(s.children(texts, [s.best(history)] * len(texts), "opro"))
        if s.best(history).mean == 1.0:
            break
    return s.top(history, s.options.finalists)


searching(
    name="opro",
    summary="the writer improves on the best instructions so far, shown with their scores",
    config=OPROConfig,
    build=search,
    races=True,
    paper="[Yang et al. 2023](https://arxiv.org/abs/2309.03409)",
    roles=frozenset({"writer"}),
)
