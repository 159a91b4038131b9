"""EvoPrompt: the best of parents and children survive (GA); a child replaces only its own parent, if better (DE)."""

from __future__ import annotations

from typing import Any

from anacrusis.methods.evoprompt import EvoPromptConfig, de, ga
from anacrusis.prompt.values import Frame
from anacrusis.search.ledger import Observation
from anacrusis.search.requests import Ask, Evaluate
from anacrusis.search.search import Search, Searching
from tests.search_contract import finds_what_was_planted
from tests.world import World


def test_ga_finds_what_was_planted() -> None:
    finds_what_was_planted("evoprompt-ga", "9000calls", {"generations": 20})


def test_de_finds_what_was_planted() -> None:
    finds_what_was_planted("evoprompt-de", "9000calls", {"generations": 20})


def drive(policy: Any, s: Search, score: Any, write: Any, rounds: int = 99) -> list[list[Any]]:
    """Results of a generator against an oracle: the texts it had scored, request by request."""
    seen: list[list[Any]] = []
    send = None
    for _ in range(rounds):
        try:
            request = policy.send(send)
        except StopIteration as end:
            seen.append([s.text(c) for c in end.value])
            break
        if isinstance(request, Ask):
            send = [write(p) for p in request.prompts]
        else:
            assert isinstance(request, Evaluate)
            for c in request.candidates:
                s.ledger.add([c], [Observation(c.id, e, score(s.text(c))) for e in s.dev])
            send = [s.ledger.scored(c, s.dev) for c in request.candidates]
            seen.append([s.text(c) for c in request.candidates])
    return seen


def search() -> Search:
    task = World().task
    frame = Frame(labels=task.labels, words=task.words, instruction="0")
    return Search(task, frame, ["instruction"], Searching(), 0)


def test_survivors_are_the_best_of_parents_and_children() -> None:
    s = search()
    counter = iter(range(1, 100))
    number = {t: 0.1 for t in (s.text(c) for c in s.seeds(4))}

    def write(prompt: str) -> str:
        return f"child {next(counter)}"

    def score(text: str) -> float:  # the 2nd child of each generation is good, the others are bad
        return number.get(text, 0.5 + int(text.split()[1]) / 100 if text in ("child 2", "child 6") else 0.0)

    seen = drive(ga(EvoPromptConfig(size=4, generations=2), s), s, score, write)
    assert [len(x) for x in seen] == [4, 4, 4, 4]
    assert seen[-1][:2] == ["child 6", "child 2"] and not any(t == "child 1" for t in seen[-1])


def test_a_child_takes_its_own_parent_s_place_only_if_it_is_better() -> None:
    s = search()
    seeds = [s.text(c) for c in s.seeds(4)]
    value = dict(zip(seeds, (0.4, 0.3, 0.2, 0.1), strict=True))
    asked: list[str] = []

    def write(prompt: str) -> str:
        asked.append(prompt)
        return f"child of {prompt.split('basic instruction: <prompt>')[1].split('</prompt>')[0]}"

    def score(text: str) -> float:
        if text in value:
            return value[text]
        return 0.35 if text in (f"child of {seeds[0]}", f"child of {seeds[3]}") else 0.0

    *_, last = drive(de(EvoPromptConfig(size=4, generations=1), s), s, score, write)
    # the child of the first is worse than it, that of the last is better than it
    assert last == [seeds[0], f"child of {seeds[3]}", seeds[1], seeds[2]]
    for own, prompt in zip(seeds, asked, strict=True):
        a, b, best, basic = (p.split("</prompt>")[0] for p in prompt.split("<prompt>")[1:5])
        assert basic == own and best == seeds[0] and own not in (a, b) and a != b
