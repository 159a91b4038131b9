"""MIPROv2: a tree-structured Parzen estimator chooses among pairs of an instruction and a set of demonstrations.

    demonstrations d_0 .. d_D: bootstrapped sets, d_0 = none;   instructions i_0 .. i_N: i_0 = the start, the others by
        the writer, who sees a summary of the data, a set of demonstrations and a tip
    trial 0: (i_0, d_0) on all examples;  trial t: TPE suggests (i, d); f on `minibatch` random examples is told to it
    every `promote` trials: the pair with the best mean over its minibatches, of those that were not yet scored on
        all examples, is, and this is told to the TPE as one more trial
    result: the best pair by f on all examples

Paper: Opsahl-Ong et al. 2024, https://arxiv.org/abs/2406.11695 (section 4; constants of DSPy 3.3 with auto "light")
Departure: batches of data are looked at side by side, not one after the other. There is no program to be summarised.
    Demonstrations are bootstrapped as in bootstrap-random-search. At most 50 examples: no minibatches, as in DSPy.
On the planted task it does not compete: instructions are written once, before any score is known. Its claim is to
    find a good pair without scoring all: one of the best four of 8 x 8 pairs, in 9 of 10 seeds, with a third of the
    cells.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..registry import searching
from ..search.candidate import Candidate
from ..search.engine import Policy
from ..search.ledger import Scored
from ..search.search import Search
from .bootstrap import SPOKEN, apart, demonstration_sets, with_demonstrations
from .mipro_study import Study

SMALL = 50  # examples up to which every trial is scored on all
TIPS = (
    "", "Be creative.", "Keep it simple and clear.", "Say much and be specific.",
    "Make the situation a serious one: much depends on the answer.", "Give the reader a role that suits the task.",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class MIPROConfig:
    sets: int = 6  # of demonstrations, none included
    instructions: int = 3  # the start included
    trials: int = 10  # pairs suggested
    minibatch: int = 35  # examples of a trial
    promote: int = 5  # trials between two scorings on all examples
    shots: int = 4  # bootstrapped demonstrations of a set, at most
    labelled: int = 4  # demonstrations of a set, at most, those with right answers included
    threshold: float = 0.5  # score from which an answer is good enough to be shown
    pool: float = 0.25  # share of the scoring examples that demonstrations are taken from, where no others are left
    looks: int = 10  # batches of 10 examples that the summary of the data is made from; 0: no summary
    temperature: float = 1.0


def search(config: MIPROConfig, s: Search) -> Policy:
    study = Study(s.seed)
    pool, examples = apart(s, config.pool)
    sets = yield from demonstration_sets(s, pool, config.sets, config.shots, config.labelled, config.threshold)
    texts = yield from instructions(config, s, pool, sets)
    space = {"instruction": len(texts), "demonstrations": len(sets)}

    def pair(params: dict[str, int]) -> Candidate:
        made = s.start.put(s.slot, texts[params["instruction"]]).born("mipro", s.start)
        return with_demonstrations(made, sets[params["demonstrations"]])

    means: dict[str, list[float]] = {}  # of the pairs' trials, by id
    where: dict[str, dict[str, int]] = {}
    full: dict[str, Scored] = {}

    def promote(params: dict[str, int]) -> Policy:
        [scored] = yield s.evaluate([pair(params)], on=examples)
        full[scored.id] = scored
        study.add(space, params, scored.mean)

    yield from promote({"instruction": 0, "demonstrations": 0})
    for trial in (i + 1 for i in s.rounds(config.trials)):
        token, params = study.ask(space)
        few = s.batch(config.minibatch, examples) if len(examples) > SMALL else examples
        [scored] = yield s.evaluate([pair(params)], on=few)
        study.tell(token, scored.mean)
        where[scored.id] = params
        means.setdefault(scored.id, []).append(scored.mean)
        if trial % config.promote == 0 or trial == config.trials:
            open_ = [i for i in means if i not in full]
            if open_:
                yield from promote(where[max(open_, key=lambda i: sum(means[i]) / len(means[i]))])
    return s.top(full.values(), s.options.finalists)


def instructions(config: MIPROConfig, s: Search, pool: Any, sets: Any) -> Policy:
    """The start, then what the writer proposes."""
    summary = "none"
    if config.looks:
        batches = [pool[i : i + 10] for i in range(0, len(pool), 10)][: config.looks]
        asked = [s.template("mipro_look", about=s.about(), examples=s.shown(b)) for b in batches]
        seen = yield s.ask(asked, parse="tag:observations", temperature=config.temperature)
        notes = "\n\n".join(t for t in seen if t)
        [said] = yield s.ask([s.template("mipro_summary", notes=notes)], parse="tag:summary")
        summary = said or notes or "none"
    asked = []
    for k in range(1, config.instructions):
        shown = sets[k % len(sets)][:3]
        examples = "\n\n".join("\n".join([*inputs, f"Right answer: {answer}"]) for inputs, answer in shown) or "none"
        slots = {"summary": summary, "examples": examples, "tip": s.rng.choice(TIPS), "text": s.text(s.start)}
        asked.append(s.template("mipro", about=s.about(), **slots))
    texts = (yield s.propose(asked, temperature=config.temperature)) if asked else []
    return list(dict.fromkeys([s.text(s.start), *(t for t in texts if t)]))


searching(
    name="mipro",
    summary="an estimator of what is promising chooses pairs of an instruction and a set of demonstrations",
    config=MIPROConfig,
    build=search,
    paper="[Opsahl-Ong et al. 2024](https://arxiv.org/abs/2406.11695)",
    roles=frozenset({"writer"}),
    arrangements=SPOKEN,
)
