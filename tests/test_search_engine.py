"""The engine: budgets under concurrency, the gate, typed outcomes, replay, the choice of the winner, the plan."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable, Generator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import anacrusis as ana
from anacrusis.errors import BudgetExhausted, ConfigError, RunError, ServiceError
from anacrusis.methods.opro import OPROConfig
from anacrusis.model.calls import Call, Reply
from anacrusis.model.say import conversation, understood
from anacrusis.prompt.values import Frame
from anacrusis.registry import get
from anacrusis.runs.searching import Means, Session, forecast
from anacrusis.search.budget import Budget, parse
from anacrusis.search.candidate import Candidate
from anacrusis.search.desk import Desk
from anacrusis.search.ledger import Ledger, Observation, Scored
from anacrusis.search.parse import gate
from anacrusis.search.racing import UCB, Full, Gate, Halving, Minibatch, PairedRace, SuccessiveRejects, UntilWrong
from anacrusis.search.requests import Ask, Evaluate
from anacrusis.search.search import Search, Searching
from anacrusis.search.store import Store
from anacrusis.search.templates import fill, slots
from anacrusis.search.whole import choose, shrunken
from tests.loopback import Loopback
from tests.world import Direct, World

# --- the gate and the answers (promise 13)


@pytest.mark.parametrize(
    ("reply", "text", "reason"),
    [
        (Reply("<prompt>one</prompt> no: <prompt>two</prompt>"), "two", ""),
        (Reply("<prompt>cut off in the mid", "truncated"), None, "truncated"),
        (Reply("<prompt>yes</prompt>", "refused"), None, "refused"),
        (Reply("I cannot help with that."), None, "unparsed"),
        (Reply("<prompt>" + "x" * 101 + "</prompt>"), None, "too long: 101 characters, 100 allowed"),
        (Reply("<prompt>lost it</prompt>"), None, "lost the placeholder {text}"),
    ],
)
def test_what_does_not_pass_the_gate_is_no_candidate(reply: Reply, text: str | None, reason: str) -> None:
    keep = ("{text}",) if "lost" in reason else ()
    assert gate(Ask(("p",), longest=100, keep=keep), reply) == (text, reason)


def test_a_reply_that_cannot_be_parsed_gets_one_repair_turn(tmp_path: Path) -> None:
    world, turns = World(examples=40), []

    def answer(call: Call) -> str:
        turns.append(len(call.messages))
        return "no tags" if len(call.messages) == 1 else "<prompt>repaired</prompt>"

    def policy(config: Any, s: Search) -> Any:
        texts = yield s.propose(["write one"])
        assert texts == ["repaired"]
        return [s.child(s.start, texts[0], "asked")]

    writer = Direct(world, "openai:writer", answer)
    run_policy(policy, world, tmp_path, means=Means(writer=writer))
    assert turns == [1, 3]  # the question; the question, the reply, the request to put it right


def test_a_writer_that_says_nothing_usable_is_not_asked_for_ever(tmp_path: Path) -> None:
    world = World(examples=40)
    writer = Direct(world, "openai:writer", lambda call: "I am only a small model")
    with pytest.raises(ServiceError, match="none of the first 40 replies of the writer .*small model"):
        ana.fit("opro", Direct(world), world.task, folder=tmp_path / "r", means=Means(writer=writer))
    assert writer.asked == 80  # each with its repair turn


FRAME = Frame(labels=("blue", "light blue", "red"), words=("blue", "light blue", "red"), readout="answer")


@pytest.mark.parametrize(
    ("text", "index", "outcome"),
    [
        ("red", 2, "ok"), (" **Red.** ", 2, "ok"), ("It is light blue, I think", 1, "ok"), ("Answer: blue", 0, "ok"),
        ("red or blue? Final answer: red", 2, "ok"), ("red or blue", None, "unparsed"), ("", None, "unparsed"),
        ("infrared", None, "unparsed"), ("blue\nbecause it is not red", 0, "ok"),
    ],
)  # fmt: skip
def test_a_reply_names_a_class_or_none(text: str, index: int | None, outcome: str) -> None:
    assert understood(FRAME, Reply(text)) == (index, outcome)


@pytest.mark.parametrize("outcome", ["refused", "empty", "truncated"])
def test_what_is_not_an_answer_is_typed(outcome: str) -> None:
    assert understood(FRAME, Reply("thinking about blue and", outcome)) == (None, outcome)


def test_an_example_is_asked_with_its_demonstrations() -> None:
    frame = Frame(instruction="Do it.", template="Text: {text}\nAnswer: {mask}", demonstrations=((("a",), "red"),))
    assert conversation(frame, ("b",)) == (("user", "Do it.\n\nText: a\nAnswer: red\n\nText: b\nAnswer:"),)


def test_a_template_with_an_open_slot_is_refused_before_anything_is_spent() -> None:
    with pytest.raises(ConfigError, match="has the slots"):
        fill("paraphrase")
    with pytest.raises(ConfigError, match="no template 'paraprase'"):
        fill("paraprase", text="x")
    assert slots("paraphrase") == ["text"]


# --- the ledger and the racing rules (promise 15)

E = [f"e{i}" for i in range(12)]


def arms(n: int) -> list[Candidate]:
    return [Candidate({"instruction": f"c{i}"}) for i in range(n)]


def run_rule(
    rule: Any, several: list[Candidate], value: Callable[[int, int], float], n: int = 12
) -> tuple[Ledger, set[int], list[int]]:
    """The ledger, the survivors' numbers, and the number of new cells round by round."""
    ledger, spent = Ledger(), []
    ledger.add(several, ())
    number = {c.id: i for i, c in enumerate(several)}
    race = rule.race(several, E[:n], ledger)
    try:
        while True:
            cells = ledger.missing(next(race))
            ledger.add((), [Observation(c, e, value(number[c], E.index(e))) for c, e in cells])
            spent.append(len(cells))
    except StopIteration as end:
        return ledger, {number[c] for c in end.value}, spent


def test_full_and_minibatch_fill_the_same_cells_for_all() -> None:
    ledger, alive, spent = run_rule(Full(), arms(3), lambda c, e: 1.0)
    assert alive == {0, 1, 2} and spent == [36]
    ledger, _, spent = run_rule(Minibatch(5), arms(3), lambda c, e: 1.0)
    assert spent == [15] and {e for _, e in ledger.cells} == set(E[:5])


def test_halving_keeps_the_better_half_rung_by_rung() -> None:
    ledger, alive, spent = run_rule(Halving(), arms(4), lambda c, e: float(c >= 2 and (c == 3 or e % 2)))
    assert Halving().rungs(4, 12) == [(4, 3), (2, 6), (1, 12)]
    assert spent == [12, 6, 6] and alive == {3}
    assert run_rule(Halving(worst=True), arms(4), lambda c, e: float(c > 0))[1] == {0}


def test_successive_rejects_drops_one_a_phase() -> None:
    _, alive, spent = run_rule(SuccessiveRejects(cells=24), arms(4), lambda c, e: c / 4)
    # logbar(4) = 1/2 + 1/2 + 1/3 + 1/4; n_k = ceil(20 / (logbar (5 - k))) = 4, 5, 7
    assert SuccessiveRejects(cells=24).phases(4, 12) == [4, 5, 7] and alive == {3}
    assert spent == [16, 3, 4, 0]


def test_ucb_pulls_every_arm_first_and_then_the_best_bound() -> None:
    pulls: list[int] = []

    def value(c: int, e: int) -> float:
        pulls.append(c)
        return float(c == 1)

    _, alive, spent = run_rule(UCB(rounds=8, arms=1, samples=2, c=0.1), arms(3), value)
    assert sorted(pulls[:6]) == [0, 0, 1, 1, 2, 2] and set(pulls[6:]) == {1} and alive == {1}
    assert sum(spent) == 16


def test_a_paired_race_drops_who_is_beaten_by_enough_rivals_on_the_same_examples() -> None:
    rule = PairedRace(keep=2, block=4)
    _, alive, spent = run_rule(rule, arms(4), lambda c, e: float(c < 2))
    assert alive == {0, 1} and spent == [16]  # one block was enough
    # length penalty: equal scores, the longer one goes
    several = arms(3)
    rule = PairedRace(keep=2, block=4, offsets={several[1].id: 0.05})
    assert run_rule(rule, several, lambda c, e: 1.0)[1] == {0, 2}


def test_a_gate_lets_through_only_who_beats_its_parent() -> None:
    several = arms(3)
    parents = {several[1].id: several[0].id, several[2].id: several[0].id}
    ledger, spent = Ledger(), []
    ledger.add(several, ())
    race = Gate(parents, size=3).race(several[1:], E, ledger)
    values = {several[0].id: 0.5, several[1].id: 0.5, several[2].id: 0.6}
    try:
        while True:
            cells = ledger.missing(next(race))
            ledger.add((), [Observation(c, e, values[c]) for c, e in cells])
            spent.append(len(cells))
    except StopIteration as end:
        assert end.value == {several[2].id}  # strictly better; a tie stays out
    assert spent == [9, 9]


def test_until_wrong_stops_at_the_first_mistake() -> None:
    _, alive, spent = run_rule(UntilWrong(right=3), arms(2), lambda c, e: float(c == 1 or e < 1))
    assert alive == {1} and spent == [2, 2, 1]


def test_a_cell_is_filled_once_and_differences_are_paired() -> None:
    a, b = arms(2)
    ledger = Ledger()
    ledger.add([a, b], [Observation(a.id, "e0", 1.0), Observation(a.id, "e1", 0.0), Observation(b.id, "e1", 1.0)])
    with pytest.raises(ValueError, match="filled already"):
        ledger.add((), [Observation(a.id, "e0", 0.0)])
    mean, error, n = ledger.scored(a, E).difference(ledger.scored(b, E))
    assert (mean, n) == (-1.0, 1) and math.isinf(error)  # only e1 is shared
    assert ledger.scored(a, E).mean == 0.5


def test_a_missing_answer_is_not_a_wrong_one() -> None:
    [a] = arms(1)
    ledger = Ledger()
    ledger.add([a], [Observation(a.id, "e0", 1.0), Observation(a.id, "e1", None, outcome="failed")])
    found = ledger.scored(a, E)
    assert found.mean == 1.0 and found.n == 1 and not found.wrong


# --- choosing (promise 14)


def scored(name: str, values: list[float]) -> Scored:
    c = Candidate({"instruction": name})
    return Scored(c, {E[i]: Observation(c.id, E[i], v) for i, v in enumerate(values)})


def test_the_winner_is_chosen_by_a_bound_not_by_the_luckiest_mean() -> None:
    start = scored("start", [1, 0, 1, 0, 1, 0, 1, 0, 1, 0])
    lucky = scored("lucky", [0, 1, 0, 1, 1, 1, 1, 0, 1, 0])  # + 0.1, from four changes
    steady = scored("steady", [1, 1, 1, 0, 1, 1, 1, 0, 1, 0])  # + 0.2, never worse
    assert lucky.mean > start.mean
    assert choose(start.candidate, [start, lucky]) is start
    assert choose(start.candidate, [start, lucky, steady]) is steady
    assert choose(start.candidate, [start]) is start


def test_shrinking_does_not_let_three_lucky_examples_win() -> None:
    ledger = Ledger()
    lucky, good, usual = arms(3)
    ledger.add([lucky, good, usual], [Observation(lucky.id, e, 1.0) for e in E[:2]])
    ledger.add((), [Observation(usual.id, e, float(i % 3 == 0)) for i, e in enumerate(E)])
    ledger.add((), [Observation(good.id, e, float(i > 0)) for i, e in enumerate(E)])
    assert shrunken(ledger.scored(good, E), ledger, E) > shrunken(ledger.scored(lucky, E), ledger, E)


# --- runs: test data, budgets, replay


def run_policy(
    policy: Any, world: World, folder: Path, *, means: Means | None = None, seed: int = 0, **options: Any
) -> Any:
    """A run of a policy that is not registered."""
    method = replace(get("opro"), build=policy)
    session = Session(method, Searching(**options), {}, Direct(world), world.task, seed=seed,
                      means=means or Means(writer=Direct(world, "openai:writer")))  # fmt: skip
    return session.learn(OPROConfig(), folder, lambda event: None)


def test_a_method_cannot_reach_test_examples(tmp_path: Path) -> None:
    world = World(examples=40)
    test = {e.id for e in world.task.test}
    asked: list[str] = []

    def policy(config: Any, s: Search) -> Any:
        assert not s.task.test and not test & set(s.examples) and not s.task.source
        asked.extend(s.dev)
        yield s.evaluate([s.start])
        with pytest.raises(ConfigError, match="not on 'test'"):
            s.evaluate([s.start], on="test")
        yield s.evaluate([s.start], on=[next(iter(test))])

    with pytest.raises(KeyError):
        run_policy(policy, world, tmp_path)
    assert asked and not test & set(asked)


def test_a_changed_method_is_noticed_at_the_event_where_it_differs(tmp_path: Path) -> None:
    world, stop = World(examples=40), [True]

    def policy(width: int) -> Any:
        def search(config: Any, s: Search) -> Any:
            yield s.evaluate([s.start])
            yield s.evaluate(s.seeds(width))
            if stop[0]:
                raise KeyboardInterrupt

        return search

    with pytest.raises(KeyboardInterrupt):
        run_policy(policy(2), world, tmp_path)
    stop[0] = False
    with pytest.raises(RunError, match="event 1: the method now asks for evaluate .*, the journal has evaluate"):
        run_policy(policy(3), world, tmp_path)


def test_replay_gives_the_method_what_it_got_and_asks_nothing(tmp_path: Path) -> None:
    world, seen, stop = World(examples=40), [], [True]

    def policy(config: Any, s: Search) -> Any:
        first = yield s.evaluate(s.seeds(3))
        texts = yield s.propose([s.template("paraphrase", text="<p>")], n=3)
        outputs = yield s.answer([(s.start, s.dev[0])])
        seen.append(([f.mean for f in first], texts, outputs, s.rng.random()))
        if stop[0]:
            raise KeyboardInterrupt
        return first

    writer = Direct(world, "openai:writer")
    with pytest.raises(KeyboardInterrupt):
        run_policy(policy, world, tmp_path, means=Means(writer=writer))
    asked, stop[0] = writer.asked, False
    run_policy(policy, world, tmp_path, means=Means(writer=writer))
    assert seen[0] == seen[1] and writer.asked == asked


def test_equal_questions_are_drawn_anew(tmp_path: Path) -> None:
    world, draws = World(examples=40), []

    def policy(config: Any, s: Search) -> Any:
        for _ in range(6):
            draws.extend((yield s.propose([s.template("paraphrase", text="x")])))
        return [s.start]

    run_policy(policy, world, tmp_path)
    assert len(set(draws)) > 1


def test_nothing_paid_is_lost_when_the_budget_ends_a_request(tmp_path: Path) -> None:
    world, kept = World(examples=80), []

    def policy(config: Any, s: Search) -> Any:
        try:
            yield s.evaluate(s.seeds(12))
        except BudgetExhausted as why:
            kept.append((str(why), len(s.ledger.cells)))
        return s.seeds(3)

    result = run_policy(policy, world, tmp_path, means=Means(writer=Direct(world, "openai:writer"), budget="300calls"))
    ((why, cells),) = kept
    assert "300calls" in why and 100 < cells < 300
    assert result.cost["calls"] <= 300 and result.score is not None  # choosing and reporting were set aside


FRESH = itertools.count()  # no question is asked twice, also when an example is tried again


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 60), st.integers(0, 40), st.booleans())
def test_no_budget_is_exceeded_with_64_calls_at_once(server: Loopback, n: int, limit: int, money: bool) -> None:
    """The billed total of a server that answers 64 at a time stays within the limit."""
    before = (server.charged, server.input, server.output)
    text = f"${limit * 40 / 1e6:.6f}" if money else f"{limit}calls"
    from anacrusis.search.budget import Price

    prices = {"task": Price(1.0, 1.0)}
    budget = Budget(parse(text), prices, ("task",))
    with model_at(server, 64) as model, Nowhere_store() as store:
        desk = Desk({"task": model}, store, budget, "0", lambda n: None)
        calls = [Call((("user", f"{next(FRESH)} " + "x" * (i % 7)),), tokens=20) for i in range(n)]
        replies, refused = desk.ask("task", calls)
    billed = server.charged - before[0]
    tokens = server.input - before[1] + server.output - before[2]
    assert (tokens / 1e6 <= limit * 40 / 1e6 + 1e-12) if money else billed <= limit
    assert (refused is None) == all(r is not None for r in replies)
    if not money:
        assert billed == min(n, limit)  # and as much as fits is asked
    elif refused:  # what is left would not have taken the next call
        next_ = next(c for c, r in zip(calls, replies, strict=True) if r is None)
        assert tokens + next_.bound + next_.tokens > limit * 40


@pytest.fixture(scope="module")
def server() -> Iterator[Loopback]:
    import os

    os.environ["OPENAI_API_KEY"] = "sk-loopback"
    with Loopback(lambda body, index: "answer " * (len(str(body["messages"])) % 3 + 1), latency=0.001) as server:
        yield server


def model_at(server: Loopback, concurrency: int = 8) -> Any:
    return ana.open("openai:task", base_url=server.url, concurrency=concurrency)


class Nowhere_store:
    def __enter__(self) -> Any:
        from anacrusis.search.plan import Nowhere

        return Nowhere()

    def __exit__(self, *_: object) -> None: ...


def test_the_wave_that_waits_for_another_is_not_lost(tmp_path: Path) -> None:
    """Reservations are upper bounds: what they block at first is asked when the first wave has settled."""
    world = World(examples=40)
    budget = Budget(parse("1000tokens"), {}, ("task",))
    speaker = Direct(world, answer=lambda call: "x")
    with Store(f"sqlite:///{tmp_path}/s.sqlite", "r") as store:
        desk = Desk({"task": speaker}, store, budget, "0", lambda n: None)
        calls = [Call((("user", f"{i}"),), tokens=300) for i in range(6)]  # 333 a call reserved, about 1 used
        replies, refused = desk.ask("task", calls)
    assert refused is None and all(r is not None for r in replies)


def test_a_transport_failure_stops_the_run_and_nothing_is_scored(tmp_path: Path) -> None:
    world = World(examples=40)

    class Dead(Direct):
        def complete(self, calls: Any, arrived: Any = None, **options: Any) -> list[Reply]:
            return [Reply("", "failed", detail="no route to host")] * len(calls)

    with Store(f"sqlite:///{tmp_path}/s.sqlite", "r") as store:
        desk = Desk({"task": Dead(world)}, store, Budget((), {}, ("task",)), "0", lambda n: None)
        with pytest.raises(ServiceError, match="no route to host.*resume RUN"):
            desk.ask("task", [Call((("user", f"{i}"),)) for i in range(6)])
        assert not store.lost()  # known to have failed: nothing was lost


def test_plan_counts_what_the_run_then_takes(tmp_path: Path) -> None:
    world = World(examples=80)
    options, means = Searching(), Means(writer=Direct(world, "openai:writer"), budget="900calls")
    model = Direct(world)
    foreseen = forecast(get("opro"), OPROConfig(), options, {}, model, world.task, seed=0, means=means)
    assert model.asked == 0
    run = ana.fit("opro", model, world.task, folder=tmp_path / "r", means=means)
    assert run.cost["calls"] <= foreseen.calls[1] <= 900  # less where the writer repeats itself
    assert sum(p["calls"] for p in foreseen.parts) in range(foreseen.calls[0], foreseen.calls[1] + 1)
    assert {p["what"] for p in foreseen.parts} >= {"reporting on test examples", "choosing on validation examples"}


def test_plan_is_exact_where_nothing_depends_on_the_data(tmp_path: Path) -> None:
    world = World(examples=80)

    def policy(config: Any, s: Search) -> Any:
        return (yield s.evaluate(s.seeds(3)))

    method = replace(get("opro"), build=policy)
    means = Means(writer=Direct(world, "openai:writer"))
    foreseen = forecast(method, None, Searching(), {}, Direct(world), world.task, seed=0, means=means)
    result = run_policy(policy, world, tmp_path)
    # the winner may be the start, which is then scored once on test examples, not twice
    assert foreseen.calls[1] - len(world.task.test) <= result.cost["calls"] <= foreseen.calls[1]


def test_plan_warns_when_too_few_proposals_fit() -> None:
    world = World(examples=80)
    means = Means(writer=Direct(world, "openai:writer"), budget="300calls")
    foreseen = forecast(
        get("opro"), OPROConfig(width=2), Searching(), {}, Direct(world), world.task, seed=0, means=means
    )
    assert any("too few for a search" in n for n in foreseen.notes)


def test_dollars_need_prices_before_anything_is_written(tmp_path: Path) -> None:
    world = World(examples=40)
    with pytest.raises(ConfigError, match="--price task=IN/OUT --price writer=IN/OUT$"):
        ana.fit("opro", Direct(world), world.task, folder=tmp_path / "r",
                means=Means(writer=Direct(world, "openai:writer"), budget="$1"))  # fmt: skip
    assert not (tmp_path / "r").exists()


def test_a_missing_writer_is_named(tmp_path: Path) -> None:
    from anacrusis.testing import tiny

    world = World(examples=40)
    with pytest.raises(ConfigError, match="needs a writer.*--writer openai:NAME"):
        ana.fit("opro", tiny("bert"), world.task, folder=tmp_path / "r", options={"template": "{text} {mask}"})


def test_secrets_are_in_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world, secret = World(examples=40), "sk-a-very-secret-key-0123456789"
    monkeypatch.setenv("OPENAI_API_KEY", secret)
    with Loopback(lambda body, index: world.brain(body, index)) as server, model_at(server) as model:
        with ana.open("openai:writer", base_url=server.url) as writer:
            ana.fit("opro", model, world.task, folder=tmp_path / "r", means=Means(writer=writer, budget="200calls"))
    for file in (tmp_path / "r").rglob("*"):
        assert not file.is_file() or secret.encode() not in file.read_bytes(), file
    plan = json.loads((tmp_path / "r" / "run.json").read_text())
    assert plan["means"]["writer"] == "openai:writer"


def test_a_wrong_key_stops_with_the_provider_s_words(server: Loopback, tmp_path: Path) -> None:
    world = World(examples=40)
    with Loopback(lambda body, index: "x") as broken, model_at(broken) as model:
        broken.fail("401")
        with pytest.raises(ServiceError, match="Incorrect API key"):
            ana.fit("opro", model, world.task, folder=tmp_path / "r", means=Means(writer=model))
        broken.heal()


def test_a_duel_waits_for_its_file(tmp_path: Path) -> None:
    import csv

    from anacrusis.search.person import ByFile, Waiting

    person = ByFile(tmp_path)
    with pytest.raises(Waiting, match="2 comparisons wait"):
        person.prefer([("a", "b"), ("c, with a comma", "d")])
    with open(tmp_path / "preferences.csv", newline="") as f:
        rows = list(csv.reader(f))
    rows[1][0] = "1"
    with open(tmp_path / "preferences.csv", "w", newline="") as f:
        csv.writer(f).writerows(rows)
    with pytest.raises(Waiting, match="1 comparisons wait"):
        person.prefer([("a", "b"), ("c, with a comma", "d")])
    assert person.prefer([("a", "b")]) == [1.0]  # the answer was kept when the file was written anew
    rows[1][0] = "first"
    with open(tmp_path / "preferences.csv", "w", newline="") as f:
        csv.writer(f).writerows(rows)
    with pytest.raises(RunError, match="preferences.csv:2: better is 'first'; expected 1, 2 or ="):
        person.prefer([("a", "b")])


def test_requests_may_come_several_at_a_time(tmp_path: Path) -> None:
    world = World(examples=40)

    def policy(config: Any, s: Search) -> Generator[Any, Any, Any]:
        one, two = yield [s.evaluate([s.start]), Evaluate((s.start,), s.dev[:2])]
        assert len(one) == len(two) == 1 and two[0].n == 2
        return one

    run_policy(policy, world, tmp_path)


# --- requests that no shipped method uses yet, or only a few


def test_an_annotator_labels_and_a_writer_makes_examples(tmp_path: Path) -> None:
    world, found = World(examples=40), {}
    said = {
        "Choose the label": "Blue.",
        "Write 3 new examples": "<example><text>case a</text><answer>red</answer></example>"
        "<example><text>case b</text><answer>no colour</answer></example>"  # an answer that the task does not know
        "<example><answer>red</answer></example>",  # no text
    }

    def policy(config: Any, s: Search) -> Any:
        found["labels"] = yield s.label([("case 1",), ("case 2",)])
        found["made"] = yield s.synthesise(3, s.dev[:2])
        return [s.start]

    writer = Direct(world, "openai:writer", lambda call: next(v for k, v in said.items() if k in call.messages[0][1]))
    method = replace(get("opro"), build=policy, roles=frozenset({"writer", "judge"}))
    session = Session(method, Searching(), {}, Direct(world), world.task, seed=0, means=Means(writer=writer))
    session.learn(OPROConfig(), tmp_path, lambda event: None)
    assert found == {"labels": [0, 0], "made": [[["case a"], 2]]}


def test_a_local_model_embeds_and_continues_within_its_budget(tmp_path: Path) -> None:
    from anacrusis.search.local import Local
    from anacrusis.search.requests import Continue
    from anacrusis.testing import planted, tiny

    model, found = tiny("gpt2"), {}
    task, _ = planted(model, examples=40)

    def policy(config: Any, s: Search) -> Any:
        found["vectors"] = yield s.embed(["w1 w2", "w3"])
        found["logs"] = yield Continue((("w1", "w2 w3"), ("w4", "w5")))
        return [s.start]

    method = replace(get("opro"), build=policy, roles=frozenset())
    session = Session(method, Searching(), {}, model, task, seed=0, means=Means())
    cost = session.learn(OPROConfig(), tmp_path, lambda event: None).cost
    assert cost["calls"] >= 4  # each text and each continuation counts
    local = Local(model)
    plain = local.pooled(Frame(pool=session.search.base.pool), [("w1 w2",), ("w3",)])
    assert found["vectors"] == [[pytest.approx(x, abs=1e-5) for x in row] for row in plain.tolist()]
    expected = local.continuations([("w1", "w2 w3"), ("w4", "w5")])
    assert [n for _, n in found["logs"]] == [2, 1]
    assert [x for x, _ in found["logs"]] == [pytest.approx(x, abs=1e-4) for x, _ in expected]


def test_a_changed_template_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from anacrusis.search import templates

    world, stop = World(examples=40), [True]

    def policy(config: Any, s: Search) -> Any:
        yield s.propose([s.template("paraphrase", text="x")])
        if stop[0]:
            raise KeyboardInterrupt
        return [s.start]

    with pytest.raises(KeyboardInterrupt):
        run_policy(policy, world, tmp_path)
    stop[0] = False
    source = templates.source
    monkeypatch.setattr(templates, "source", lambda name: source(name) + " Be brief.")
    with pytest.raises(RunError, match="the wording of the template paraphrase has changed"):
        run_policy(policy, world, tmp_path)
