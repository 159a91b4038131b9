"""PromptAgent: Monte Carlo tree search over instructions; an edge is a reflection on mistakes and a rewriting.

    r(n) = score of n on a fixed set;   Q(n) = mean of n's cumulative rewards (r(n) while there are none)
    select:    from the root, argmax over children of Q(n) + w sqrt(ln(N(parent) + 1) / max(1, N(n))), down to a leaf
    expand:    `width` children, each from the mistakes of a fresh batch and the path of instructions from the root
    simulate:  on to the child of greatest r, expanding, until r > the best so far (below min_depth), or terminal:
               depth = `depth`, or below min_depth r(n) < (r(root) + r(parent)) / 2
    back up:   every node of the path gets the sum of the rewards from it to the path's end;   N = number of such sums

On the planted task: 4000 calls.

Paper: Wang et al. 2023, https://arxiv.org/abs/2310.16427 (section 3; constants of the released code)
Departure: a batch without a mistake gives no child (the paper lets right answers speak, the release draws again); a
    node without children is terminal.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from ..registry import searching
from ..search.engine import Policy
from ..search.ledger import Scored
from ..search.search import Search


@dataclass(frozen=True, kw_only=True)
class PromptAgentConfig:
    iterations: int = 12
    width: int = 3  # children of a node
    depth: int = 8  # of the tree
    min_depth: int = 2  # below it a path may be stopped by its rewards
    w: float = 2.5  # weight of exploration
    batch: int = 5  # examples whose mistakes make a child
    reward: int = 50  # scoring examples that measure the reward; batches are drawn from the others, if any
    temperature: float = 1.0


@dataclass(eq=False)
class Node:
    scored: Scored
    parent: Node | None = None
    children: list[Node] = field(default_factory=list)
    returns: list[float] = field(default_factory=list)  # cumulative rewards
    terminal: bool = False

    @property
    def r(self) -> float:
        return self.scored.mean

    @property
    def q(self) -> float:
        return math.fsum(self.returns) / len(self.returns) if self.returns else self.r

    @property
    def path(self) -> list[Node]:
        """From the root to this node."""
        return [*(self.parent.path if self.parent else ()), self]

    def uct(self, w: float) -> float:
        above = len(self.parent.returns) if self.parent else 0
        return self.q + w * math.sqrt(math.log(above + 1) / max(1, len(self.returns)))


def select(root: Node, w: float) -> list[Node]:
    path = [root]
    while path[-1].children and not path[-1].terminal:
        path.append(max(path[-1].children, key=lambda n: n.uct(w)))
    return path


def back_up(path: Sequence[Node]) -> None:
    total = 0.0
    for node in reversed(path):
        total += node.r
        node.returns.append(total)


def expand(config: PromptAgentConfig, s: Search, node: Node) -> Policy:
    fixed, others = s.dev[: config.reward], s.dev[config.reward :] or s.dev
    batches = [s.batch(config.batch, others) for _ in range(config.width)]
    [seen] = yield s.evaluate([node.scored], on=list(dict.fromkeys(e for b in batches for e in b)))
    mistakes = [[o for o in seen.wrong if o.example in b] for b in batches]
    errors = [s.shown(wrong) for wrong in mistakes if wrong]
    asked = [s.template("promptagent_why", about=s.about(), text=s.text(node.scored), errors=e) for e in errors]
    reasons = yield s.ask(asked, parse="tag:reason", temperature=config.temperature)
    path = "\n\n".join(f"<prompt>{s.text(n.scored)}</prompt>" for n in node.path)
    asked = [
        s.template("promptagent_write", about=s.about(), path=path, errors=e, reason=why)
        for e, why in zip(errors, reasons, strict=True) if why is not None
    ]  # fmt: skip
    texts = yield s.propose(asked, temperature=config.temperature)
    made = [s.child(node.scored, text, "reflect") for text in texts if text is not None]
    kids = yield s.evaluate(made, on=fixed)
    node.children = [Node(kid, node) for kid in kids]
    deep, low = len(node.path), (node.path[0].r + node.r) / 2  # deep: of the children
    for kid in node.children:
        kid.terminal = deep >= config.depth or (deep > config.min_depth and kid.r < low)
    node.terminal = not node.children
    return node.children


def search(config: PromptAgentConfig, s: Search) -> Policy:
    [first] = yield s.evaluate([s.start], on=s.dev[: config.reward])
    root = Node(first)
    best, nodes = root.r, [root]
    for _ in s.rounds(config.iterations):
        path = select(root, config.w)
        if not path[-1].terminal:
            nodes += yield from expand(config, s, path[-1])
        while not path[-1].terminal:
            node, deep = path[-1], len(path) - 1
            stop, best = deep > config.min_depth and node.r > best, max(best, node.r)
            if stop:
                break
            if not node.children:
                nodes += yield from expand(config, s, node)
            if node.children:
                path.append(max(node.children, key=lambda n: n.r))
        best = max(best, path[-1].r)
        back_up(path)
    return s.top((n.scored for n in nodes), s.options.finalists)


searching(
    name="promptagent",
    summary="Monte Carlo tree search over instructions that reflect on their mistakes",
    config=PromptAgentConfig,
    build=search,
    paper="[Wang et al. 2023](https://arxiv.org/abs/2310.16427)",
    roles=frozenset({"writer"}),
)
