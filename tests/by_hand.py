"""Driving a method's generator by hand: a search without a model, and requests that a made-up score answers."""

from __future__ import annotations

import re
from collections.abc import Callable

from anacrusis.prompt.values import Frame
from anacrusis.search.candidate import Candidate
from anacrusis.search.ledger import Observation, Scored
from anacrusis.search.requests import Cells, Evaluate
from anacrusis.search.search import Search, Searching
from tests.world import World

Worth = Callable[[Candidate, int], float]  # the score of a candidate on example number i of `s.dev`


def search_of(instruction: str = "seed", seed: int = 0, **options: int) -> Search:
    task = World().task
    frame = Frame(labels=task.labels, words=task.words, instruction=instruction)
    return Search(task, frame, ["instruction"], Searching(**options), seed)


def graded(s: Search, request: Evaluate, worth: Worth) -> list[Scored]:
    """What the engine would answer."""
    s.ledger.add(request.candidates, ())
    race = request.by.race(list(dict.fromkeys(request.candidates)), request.examples, s.ledger)
    try:
        while True:
            fill(s, next(race), worth)
    except StopIteration as end:
        return [s.ledger.scored(c, request.examples, c.id in end.value) for c in request.candidates]


def filled(s: Search, request: Cells, worth: Worth) -> list[Observation]:
    s.ledger.add([c for c, _ in request.pairs], ())
    fill(s, [(c.id, e) for c, e in request.pairs], worth)
    return [s.ledger.cells[c.id, e] for c, e in request.pairs]


def fill(s: Search, cells: list[tuple[str, str]], worth: Worth) -> None:
    for c, e in s.ledger.missing(cells):
        value = worth(s.ledger.candidates[c], s.dev.index(e))
        s.ledger.add((), [Observation(c, e, value, None, f"said {value}", "ok")])


def prompts(text: str) -> list[str]:
    """The prompts that a question to the writer shows, in order."""
    return re.findall(r"<prompt>(?! and </prompt>)(.*?)</prompt>", text, re.DOTALL)
