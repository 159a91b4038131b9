"""AMPO: an instruction grows branches, one for each pattern of mistakes, and loses those that do not help.

    analyse:   `cases` wrong answers of the best so far -> a cause each
    summarise: causes -> patterns, the most important first
    revise:    for each of the first `patterns`: deepen one branch, or add a branch "if .., then .."; a candidate each,
        and one with all of them; the best by f takes the place of the instruction iff it is better
    prune:     before: after `patience` rounds without a gain nothing grows any more. After: each branch without which
        f is not lower is cut off, the newest first

Paper: Yang et al. 2024, https://arxiv.org/abs/2410.08696 (section 3)
Departure: the counts (cases, patterns, rounds) and both pruning rules are ours: the paper's were not at hand, and no
    code is public. The tree is the main instruction and one level of branches; a deeper branch is a longer text.
    Which operation is meant is read from the reply: it begins with a branch's number to deepen that one.
On the planted task, with a writer that does not advise what is said already: 1500 calls.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from ..registry import searching
from ..search.candidate import Candidate
from ..search.engine import Policy
from ..search.ledger import Scored
from ..search.search import Search


@dataclass(frozen=True, kw_only=True)
class AMPOConfig:
    rounds: int = 10  # of growing
    cases: int = 5  # wrong answers that are analysed in a round
    patterns: int = 2  # of mistakes that are met in a round
    patience: int = 3  # rounds without a gain after which growing ends
    temperature: float = 1.0


@dataclass(frozen=True)
class Tree:
    """The main instruction and its branches. said: as it is shown to the model."""

    main: str
    branches: tuple[str, ...] = ()

    @property
    def said(self) -> str:
        return "\n".join([self.main, *(f"- {b}" for b in self.branches)])

    def revised(self, reply: str) -> Tree:
        """ "2: text" takes the place of branch 2; anything else is a new branch."""
        number, _, text = reply.partition(":")
        if number.strip().isdigit() and 0 < int(number) <= len(self.branches) and text.strip():
            several = list(self.branches)
            several[int(number) - 1] = text.strip()
            return replace(self, branches=tuple(several))
        return replace(self, branches=tuple(dict.fromkeys([*self.branches, reply])))

    def without(self, i: int) -> Tree:
        return replace(self, branches=self.branches[:i] + self.branches[i + 1 :])


def search(config: AMPOConfig, s: Search) -> Policy:
    tree = Tree(s.text(s.start))
    [best] = yield s.evaluate([s.start])
    idle = 0
    for _ in s.rounds(config.rounds):
        cases = s.shuffled(best.wrong)[: config.cases]
        if not cases or idle == config.patience:
            break
        replies = yield from revisions(config, s, tree, [s.show(c) for c in cases])
        grown = [tree.revised(r) for r in replies]
        together = tree
        for r in replies:
            together = together.revised(r)
        trees = {made(s, t, best, "revise"): t for t in [*grown, together]}
        kids = yield s.evaluate(list(trees))
        top = s.best([best, *kids])
        idle = 0 if top.mean > best.mean else idle + 1
        if top.mean > best.mean:
            tree, best = trees[top.candidate], top
    kept = best
    for i in reversed(range(len(tree.branches))):
        [less] = yield s.evaluate([made(s, tree.without(i), kept, "prune")])
        if less.mean >= kept.mean:
            tree, kept = tree.without(i), less
    return list(dict.fromkeys([kept.candidate, best.candidate]))


def made(s: Search, tree: Tree, parent: Scored, op: str) -> Candidate:
    return s.child(parent, tree.said, op)


def revisions(config: AMPOConfig, s: Search, tree: Tree, cases: list[str]) -> Policy:
    """What the three roles of the writer come to: a text for each pattern of mistakes."""
    asked = [s.template("ampo_analyse", about=s.about(), text=tree.said, case=c) for c in cases]
    causes = yield s.ask(asked, parse="tag:cause", temperature=config.temperature)
    listed = "\n\n".join(c for c in causes if c)
    if not listed:
        return []
    asked = [s.template("ampo_summarise", causes=listed, n=config.patterns)]
    [found] = yield s.ask(asked, parse="tags:pattern", temperature=config.temperature)
    branches = "\n".join(f"{i}: {b}" for i, b in enumerate(tree.branches, 1)) or "none"
    asked = [
        s.template("ampo_revise", about=s.about(), main=tree.main, branches=branches, pattern=p)
        for p in s.several(found)[: config.patterns]
    ]
    replies = (yield s.ask(asked, parse="tag:branch", temperature=config.temperature)) if asked else []
    return [r for r in replies if r]


searching(
    name="ampo",
    summary="an instruction with branches: one for each pattern of mistakes, cut off again where it does not help",
    config=AMPOConfig,
    build=search,
    paper="[Yang et al. 2024](https://arxiv.org/abs/2410.08696)",
    roles=frozenset({"writer"}),
)
