"""SPO: no right answers: a judge prefers what the model says with one instruction to what it says with another.

    best = start;   each round:   p = writer(best, the answers that best leads to)
        best <- p  iff the answers of p win more of `repeats` comparisons with those of best than they lose

On the planted task, with 24 questions: 2000 calls.

Paper: Xiang et al. 2025, https://arxiv.org/abs/2502.06855 (section 3; constants of the released code)
Departure: places are swapped equally often, not at random. The questions stay the same, so that answers are compared on
    the same; the release draws them anew and compares across draws. No reference answers are shown. Equal answers
    are a draw without asking. Right answers are used only by the engine's last choice, where there are any.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..registry import searching
from ..search.engine import Policy
from ..search.search import Search


@dataclass(frozen=True, kw_only=True)
class SPOConfig:
    rounds: int = 10
    questions: int = 3  # that instructions are judged on
    repeats: int = 4  # comparisons of two sets of answers; an even number
    requirements: str = ""  # what is wanted, in words, for writer and judge; empty: the task in a sentence
    temperature: float = 0.7


def told(s: Search, ids: Sequence[str], answers: Sequence[str | None]) -> str:
    """Questions with what was answered, without what would be right."""
    blocks = []
    for e, answer in zip(ids, answers, strict=True):
        fields = zip(s.task.fields, s.examples[e].inputs, strict=True)
        lines = [f"{name.capitalize()}: {text}" for name, text in fields]
        blocks.append("\n".join([*lines, f"Answer: {answer if answer is not None else '(none)'}"]))
    return "\n\n".join(blocks)


def search(config: SPOConfig, s: Search) -> Policy:
    wanted = config.requirements or s.about()
    ids = s.batch(config.questions, list(dict.fromkeys(e.id for e in s.task.train)))
    held = [s.start]  # the best, latest first
    said = told(s, ids, (yield s.answer((s.start, e) for e in ids)))
    tried = {s.start.id}
    for _ in s.rounds(config.rounds):
        asked = s.template("spo", requirements=wanted, text=s.text(held[0]), answers=said)
        [text] = yield s.propose([asked], temperature=config.temperature)
        if text is None or (new := s.child(held[0], text, "improve")).id in tried:
            continue
        tried.add(new.id)
        now = told(s, ids, (yield s.answer((new, e) for e in ids)))
        if now == said:
            continue
        [wins] = yield s.compare([(now, said)], wanted, config.repeats)
        if wins > 0:
            held.insert(0, new)
            said = now
    return held


searching(
    name="spo",
    summary="without right answers: a judge compares what the model says with the old and the new instruction",
    config=SPOConfig,
    build=search,
    paper="[Xiang et al. 2025](https://arxiv.org/abs/2502.06855)",
    roles=frozenset({"writer", "judge"}),
)
