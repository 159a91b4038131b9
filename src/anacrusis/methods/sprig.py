"""SPRIG: a prompt is a list of short statements, edited by adding, deleting, swapping; a bandit says which to add.

    candidates: for each prompt of the beam: add one of the `tries` statements with the largest bound, at every place;
        delete each; swap each pair; substitute each by a paraphrase
    f over one sample that all of an iteration share, the beam included;  beam <- the `beam` best candidates
    credit:     f(child) - f(parent) for an addition, f(parent) - f(child) for a deletion, to the statement
    bound:      mean credit + sqrt(2 ln N / n), N = sum of n over statements; n = 0: infinite

Paper: Zhang et al. 2024, https://arxiv.org/abs/2410.14826 (section 3; constants of the released code)
Departure: the statements stand before the start, which stays: it says what the answers are. The release takes a
    child's score minus its parent's on the sample before; here the beam meets the new sample too, so credit is paired.
    Statements are ours (templates/components.txt), about 60 where the paper has hundreds. Substituting is off unless
    asked for, and done by a writer, not by Pegasus. As in the release the beam is made of children only.
On the planted task: 8000 calls with its phrases as statements (beam 3, tries 6, sample 16).
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, field

from ..registry import searching
from ..search.candidate import Candidate
from ..search.engine import Policy
from ..search.ledger import Scored
from ..search.search import Search
from ..search.templates import source

Statements = tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class SPRIGConfig:
    iterations: int = 25
    beam: int = 10  # prompts kept
    tries: int = 60  # statements that are added, of all, by their bound
    sample: int = 40  # examples an iteration; the paper has 420
    paraphrases: int = 0  # of each statement in a prompt, an iteration; > 0 needs a writer
    components: tuple[str, ...] = ()  # your own statements, in place of the shipped ones


@dataclass
class Credit:
    """What statements were worth so far."""

    gains: dict[str, list[float]] = field(default_factory=dict)

    def add(self, statement: str, gain: float) -> None:
        self.gains.setdefault(statement, []).append(gain)

    def best(self, statements: Statements, k: int) -> list[str]:
        """The k with the largest bound; before anything is known, all."""
        total = sum(map(len, self.gains.values()))

        def bound(c: str) -> float:
            g = self.gains.get(c, [])
            return math.fsum(g) / len(g) + math.sqrt(2 * math.log(total) / len(g)) if g else math.inf

        return sorted(statements, key=bound, reverse=True)[:k] if total else list(statements)


def edits(prompt: Statements, add: list[str]) -> list[tuple[Statements, str, str]]:
    """(prompt, operation, statement) for each edit."""
    out = [((*prompt[:i], c, *prompt[i:]), "add", c) for c in add for i in range(len(prompt) + 1)]
    out += [((*prompt[:i], *prompt[i + 1 :]), "delete", prompt[i]) for i in range(len(prompt))]
    for i, j in itertools.combinations(range(len(prompt)), 2):
        swapped = list(prompt)
        swapped[i], swapped[j] = prompt[j], prompt[i]
        out.append((tuple(swapped), "swap", ""))
    return out


def search(config: SPRIGConfig, s: Search) -> Policy:
    statements = config.components or tuple(t for t in source("components").splitlines() if t and t[0] != "#")
    beam: list[Statements] = [()]
    scored: list[Scored] = []
    origin = {c: c for c in statements}  # of a paraphrase: the statement that it stands for
    credit = Credit()

    def candidate(prompt: Statements, op: str, parent: Statements = ()) -> Candidate:
        text = " ".join([*prompt, s.text(s.start)])
        return s.child(s.start.put(s.slot, " ".join([*parent, s.text(s.start)])), text, op)

    for _ in s.rounds(config.iterations):
        add = credit.best(statements, config.tries)
        made = [(new, op, c, old) for old in beam for new, op, c in edits(old, add)]
        if config.paraphrases:
            places = [(old, i) for old in beam for i in range(len(old))]
            asked = [s.template("paraphrase", text=old[i]) for old, i in places]
            texts = yield s.ask([a for a in asked for _ in range(config.paraphrases)])
            for (old, i), t in zip([p for p in places for _ in range(config.paraphrases)], texts, strict=True):
                if t is not None:
                    origin.setdefault(t, origin[old[i]])
                    made.append(((*old[:i], t, *old[i + 1 :]), "substitute", "", old))
        sample = s.batch(config.sample)
        parents = dict(zip(beam, (yield s.evaluate([candidate(b, "beam") for b in beam], on=sample)), strict=True))
        scored = yield s.evaluate([candidate(new, op, old) for new, op, _, old in made], on=sample)
        best: dict[Statements, Scored] = {}
        for (new, op, c, old), child in zip(made, scored, strict=True):
            if op in ("add", "delete"):
                gain, _, n = child.difference(parents[old])
                if n:
                    credit.add(origin[c], gain if op == "add" else -gain)
            best.setdefault(new, child)
        beam = sorted(best, key=lambda p: best[p].rank, reverse=True)[: config.beam]
        scored = [best[p] for p in beam]
    return scored


searching(
    name="sprig",
    summary="a list of short statements, edited; a bandit says which statements are worth adding. No writer is needed",
    config=SPRIGConfig,
    build=search,
    paper="[Zhang et al. 2024](https://arxiv.org/abs/2410.14826)",
)
