"""PromptWizard: variants in several styles, scored on a handful of questions, then criticised and refined. Cheap.

    `rounds` times: variants of p by the writer, in `styles` styles, `mutations` + 1 times; each meets one question
        after the other until its first wrong answer or `right` right ones: f = right / tried; the best is criticised
        (praised if f >= 1/2) and refined; the refined one is scored in the same way, and the better one is p
    examples: of `walk` training examples the first `shots` that p gets wrong
    `refinements` times: p is criticised and refined on these examples, unseen by any score
    result: an expert persona before p, the examples after it

Paper: Agarwal et al. 2024, https://arxiv.org/abs/2405.18369 (section 3; constants of the released code)
Departure: all variants of a round meet the same questions; in the release each meets others. The best variant gives way
    to the refined one only if that is not worse. Refinements after the walk are on the examples only: there is no
    synthesis of examples. The examples are shown with their right answers; reasons for them by the writer are off
    unless asked for, since the model would then write reasons too (see answer_tokens). Models that are not shown
    examples get none. The result without persona and examples, and the p before the refinements, are handed on as well.
On the planted task: its claim is to be cheap, so it is judged by that. It ends by itself after about 150 calls of its
    own (at most 500 with choosing and reporting), and is by then nearer to the planted prompt than random search.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..registry import searching
from ..search.candidate import Candidate
from ..search.engine import Policy
from ..search.ledger import Scored
from ..search.racing import UntilWrong
from ..search.search import Search

STYLES = (
    "Break the task into steps.", "Say what must be looked at first.", "Name the usual mistakes.", "Be very short.",
    "Explain what the right answer depends on.", "Speak as to a beginner.", "Speak as to an expert.",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class PromptWizardConfig:
    rounds: int = 3  # of mutating and refining
    mutations: int = 3  # times that all styles are asked for, less one
    styles: int = 5  # variants at a time
    right: int = 3  # right answers with which a variant has passed
    shots: int = 5  # examples that the result shows, at most
    walk: int = 25  # training examples that are looked through for them
    refinements: int = 3  # of the instruction on these examples
    persona: bool = True  # the result begins with who answers
    reasons: bool = False  # the result's examples are shown with reasons
    temperature: float = 1.0


def search(config: PromptWizardConfig, s: Search) -> Policy:
    rule = UntilWrong(config.right)
    p: Candidate = s.start
    for _ in s.rounds(config.rounds):
        styles = [STYLES[k % len(STYLES)] for k in range(config.styles)]
        asked = [
            s.template("promptwizard_style", about=s.about(), style=style, text=s.text(p))
            for style in styles * (config.mutations + 1)
        ]
        texts = yield s.propose(asked, temperature=config.temperature)
        questions = s.batch(config.right)
        scored = yield s.evaluate([p, *s.children(texts, [p] * len(texts), "style")], on=questions, by=rule)
        best = s.best(scored)
        refined = yield from refine(config, s, best.candidate, best.observations.values(), best.mean >= 0.5)
        [again] = yield s.evaluate([refined], on=questions, by=rule)
        p = better(best, again).candidate
    seen = yield s.cells([(p, e) for e in s.batch(config.walk, s.train)])
    wrong = [o for o in seen if o.value is not None and o.value < 0.5][: config.shots]
    before, shown = p, wrong or list(seen)[: config.shots]
    for _ in range(config.refinements if wrong else 0):
        p = yield from refine(config, s, p, wrong, False)
    final = yield from dressed(config, s, p, [o.example for o in shown])
    return list(dict.fromkeys([final, p, before]))


def better(best: Scored, refined: Scored) -> Scored:
    """The refined one, unless it is worse."""
    return refined if refined.mean >= best.mean else best


def refine(config: PromptWizardConfig, s: Search, p: Candidate, seen: object, praise: bool) -> Policy:
    """p as the writer refines it after criticism, or p."""
    wish = "What makes it good, and what could be still better?" if praise else "What is wrong with it or missing?"
    examples = s.shown(seen)  # type: ignore[arg-type]
    asked = s.template("promptwizard_critique", about=s.about(), text=s.text(p), examples=examples, wish=wish)
    [critique] = yield s.ask([asked], parse="tag:critique", temperature=config.temperature)
    if critique is None:
        return p
    asked = s.template("promptwizard_refine", about=s.about(), examples=examples, critique=critique, text=s.text(p))
    [text] = yield s.propose([asked], temperature=config.temperature)
    return p if text is None else s.child(p, text, "refine")


def dressed(config: PromptWizardConfig, s: Search, p: Candidate, ids: list[str]) -> Policy:
    """p with a persona before it and examples after it."""
    made = p
    if config.persona and s.slot == "instruction":
        asked = s.template("promptwizard_persona", about=s.about(), text=s.text(p))
        [persona] = yield s.ask([asked], parse="tag:persona", temperature=config.temperature)
        made = s.child(p, f"{persona}\n{s.text(p)}", "persona") if persona else p
    if not ids or s.base.readout == "similarity":
        return made
    reasons: list[str | None] = [None] * len(ids)
    if config.reasons:
        asked_ = [s.template("promptwizard_reason", text=s.text(p), example=s.show(e)) for e in ids]
        reasons = yield s.ask(asked_, parse="tag:reason", temperature=config.temperature)
    answers = [f"{r}\nAnswer: {s.gold(e)}" if r else s.gold(e) for e, r in zip(ids, reasons, strict=True)]
    shown = tuple((s.examples[e].inputs, a) for e, a in zip(ids, answers, strict=True))
    return made.put("demonstrations", shown).born("examples", made)


searching(
    name="promptwizard",
    summary="variants in several styles, scored until the first wrong answer, criticised and refined; cheap",
    config=PromptWizardConfig,
    build=search,
    paper="[Agarwal et al. 2024](https://arxiv.org/abs/2405.18369)",
    roles=frozenset({"writer"}),
)
