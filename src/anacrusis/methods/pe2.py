"""PE2: the writer is led through each mistake (answer right? task described? edit needed?) before it edits.

    nodes = {start};   step t:   parents = the `beam` best of all nodes ever made ("backtrack"), or of step t - 1
        each parent: `expand` children, each from `batch` of its mistakes;   nodes <- nodes + children, scored

On the planted task: 4000 calls.

Paper: Ye et al. 2023, https://arxiv.org/abs/2311.05661 (sizes of the released example script)
Departure: mistakes are drawn from the scoring examples, whose answers are known; the paper keeps two sets apart. The
    momentum (a summary of former edits) and the tutorial on prompting are left out: both are off in the released
    script. The limit on the edit's size is in words, and off by default as there.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..registry import searching
from ..search.engine import Policy
from ..search.search import Search


@dataclass(frozen=True, kw_only=True)
class PE2Config:
    steps: int = 4
    beam: int = 4  # parents a step
    expand: int = 4  # children of each
    batch: int = 2  # mistakes shown for a child
    backtrack: bool = True  # parents are the best of all nodes, not only of the last step's
    words: int = 0  # that an edit may change, at most; 0 = any number
    temperature: float = 0.7


def layout(s: Search) -> str:
    """Where the searched text stands in what the model reads."""
    name = s.slot.partition(":")[0]
    return f"[the instruction]\n\n{s.base.template}" if name == "instruction" else "[the instruction]"


def search(config: PE2Config, s: Search) -> Policy:
    nodes = list((yield s.evaluate([s.start])))
    last = nodes
    limit = f" Change at most {config.words} words." if config.words else ""
    for _ in s.rounds(config.steps):
        best = s.top(nodes if config.backtrack else last, config.beam)
        if not best or s.best(nodes).mean == 1.0:
            break
        parents = [p for p in best if p.wrong for _ in range(config.expand)]
        errors = [s.shown(s.rng.sample(p.wrong, min(config.batch, len(p.wrong)))) for p in parents]
        asked = [
            s.template("pe2", about=s.about(), layout=layout(s), text=s.text(p), errors=e, limit=limit)
            for p, e in zip(parents, errors, strict=True)
        ]
        texts = yield s.propose(asked, temperature=config.temperature)
        last = yield s.evaluate(s.children(texts, parents, "edit"))
        nodes += last
    return s.top(nodes, s.options.finalists)


searching(
    name="pe2",
    summary="a beam with backtracking: the writer is led through each mistake before it edits the instruction",
    config=PE2Config,
    build=search,
    paper="[Ye et al. 2023](https://arxiv.org/abs/2311.05661)",
    roles=frozenset({"writer"}),
)
