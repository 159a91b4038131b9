"""PromptQuine: what harms is pruned away; parents die; placeholders and answers stay."""

from __future__ import annotations

from typing import Any

from anacrusis.methods.promptquine import Prompt, PromptQuineConfig, search
from anacrusis.prompt.values import Frame
from anacrusis.search.ledger import Observation
from anacrusis.search.racing import Halving
from anacrusis.search.search import Search, Searching
from tests.search_contract import finds_what_was_planted, one
from tests.world import BAD, BASE, GOOD, PHRASES, World

START = " ".join([BASE, *(p[0].upper() + p[1:] + "." for p in PHRASES)])


def searched(start: str = "a b c d e f", fields: tuple[str, ...] = ("text",), **options: Any) -> Search:
    task = World().task
    base = Frame(fields=fields, labels=task.labels, words=task.words, instruction=start, template="say {text} now")
    return Search(task, base, ["instruction"], Searching(**{"examples": 4, "finalists": 1000, **options}), 0)


def test_what_harms_is_pruned_from_a_prompt_that_holds_everything() -> None:
    assert World(0).skill(START) < 0.7
    got = finds_what_was_planted("promptquine", "6000calls", {"start": START})
    for run in got.runs:
        left = run.prompt.frame.instruction.lower()
        assert len(left.split()) < len(START.split()) and all(g in left for g in GOOD)
        assert not any(b in left for b in BAD)


def test_racing_spends_less_for_the_same() -> None:
    skill, run = one("promptquine", 0, "4000calls", {"start": START, "racing": 4})
    assert skill >= 0.95 and run.cost["calls"] <= 4000


def drive(config: PromptQuineConfig, s: Search, value: Any) -> tuple[list[Any], list[Any]]:
    asked, send, policy = [], None, search(config, s)
    try:
        while True:
            request = policy.send(send)
            asked.append(request)
            for c in request.candidates:
                s.ledger.add([c], [Observation(c.id, e, value(s.text(c))) for e in s.dev])
            send = [s.ledger.scored(c, s.dev) for c in request.candidates]
    except StopIteration as end:
        return end.value, asked


def test_words_only_go_and_parents_die() -> None:
    s = searched("a b c d e f g h i j k l m n o p q r s t")
    whole = s.text(s.start).split()
    config = PromptQuineConfig(size=2, offspring=3, most=2, generations=6, shortest=1)
    _, asked = drive(config, s, lambda t: float(len(t.split())) / 20)  # the longer the better: only death shortens
    born: list[list[str]] = [[s.start.id]]
    for request in asked[1:]:
        window = [i for batch in born for i in batch][-(config.offspring + config.size) :]
        for c in request.candidates:
            words, parent = s.text(c).split(), s.text(s.ledger.candidates[c.parents[0]]).split()
            assert 1 <= len(parent) - len(words) <= 2 and words == [w for w in whole if w in words]  # order is kept
            assert c.parents[0] in window  # all older ones are dead, however good they were
        born.append([c.id for c in request.candidates])
    assert len(asked) == 7 and not any(s.start.id in c.parents for c in asked[-1].candidates)


def test_equal_scores_prefer_the_shorter_and_it_ends_when_short() -> None:
    s = searched("a b c d e f g h")
    out, asked = drive(PromptQuineConfig(size=3, offspring=4, shortest=5), s, lambda t: 1.0)
    lengths = [len(s.text(x).split()) for x in out]
    assert lengths == sorted(lengths) and lengths[0] < 8 and len(asked) < 10


def test_placeholders_and_answers_stay_and_nothing_shown_is_scored() -> None:
    s = searched()
    task = s.task
    s = Search(task, s.base, ["template"], Searching(examples=8), 0)
    prompt = Prompt(s, 2)
    none = prompt.candidate(frozenset(range(len(prompt.words))) - prompt.free)
    assert none.text("template") == "{text}"
    assert none.parts["demonstrations"] == tuple((("",), s.gold(e)) for e in prompt.shots)
    full = prompt.candidate(frozenset(range(len(prompt.words))))
    assert full.text("template") == "say {text} now"
    assert full.parts["demonstrations"] == tuple((e.inputs, s.gold(e)) for e in prompt.shots)
    assert not {e.id for e in prompt.shots} & set(s.dev)


def test_racing_is_halving() -> None:
    s = searched()
    policy = search(PromptQuineConfig(racing=2, offspring=4), s)
    [c] = policy.send(None).candidates
    s.ledger.add([c], [Observation(c.id, e, 1.0) for e in s.dev])
    assert policy.send([s.ledger.scored(c, s.dev)]).by == Halving(keep=2)
