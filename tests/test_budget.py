"""Budgets: what may be typed, exact money, and that no total ever passes a limit."""

from __future__ import annotations

import json
import random
import threading
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anacrusis.errors import BudgetExhausted, ConfigError
from anacrusis.search.budget import Budget, Cost, Limit, Price, parse

ROLES = ("task", "writer", "judge")
PRICES = {"task": Price(0.15, 0.6), "writer": Price(2.5, 10), "judge": Price(0, 0)}


@pytest.mark.parametrize(
    ("text", "limits"),
    [
        ("$2", [(None, "dollars", Decimal(2))]),
        ("2$", [(None, "dollars", Decimal(2))]),
        ("500calls", [(None, "calls", 500)]),
        ("500 calls", [(None, "calls", 500)]),
        ("1 call", [(None, "calls", 1)]),
        ("2kcalls", [(None, "calls", 2000)]),
        ("100ktokens", [(None, "tokens", 100_000)]),
        ("1.5Mtokens", [(None, "tokens", 1_500_000)]),
        ("1.5 M tokens", [(None, "tokens", 1_500_000)]),
        (".5k input tokens", [(None, "input", 500)]),
        ("20000input,0output", [(None, "input", 20_000), (None, "output", 0)]),
        ("90s", [(None, "seconds", 90)]),
        ("10min", [(None, "seconds", 600)]),
        ("2h", [(None, "seconds", 7200)]),
        ("0.1 hours", [(None, "seconds", 360)]),
        ("0.001s", [(None, "seconds", 0.001)]),
        ("writer:100calls , judge: $0.5", [("writer", "calls", 100), ("judge", "dollars", Decimal("0.5"))]),
        ("$0,0calls,0s", [(None, "dollars", Decimal(0)), (None, "calls", 0), (None, "seconds", 0)]),
        ("9007199254740993tokens", [(None, "tokens", 9007199254740993)]),
    ],
)
def test_limits_are_read(text: str, limits: list[tuple[str | None, str, float]]) -> None:
    assert parse(text) == tuple(Limit(*limit) for limit in limits)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("500", "no unit: write it like 500calls"),
        ("writer:3", "no unit"),
        ("100k", "no unit"),
        ("", "no limit: write it like"),
        ("2h,", "no limit"),
        ("1,000calls", "'1' has no unit"),
        ("calls", "no limit"),
        ("500cals", "Did you mean 'calls'"),
        ("5ktokns", "Did you mean 'tokens"),
        ("5ks", "unknown unit 'ks'"),
        ("5m", "no unit"),
        ("5mins", "Did you mean 'min'"),
        ("$2k", "unknown unit"),
        ("$2$", "unknown unit"),
        ("2€", "unknown unit '€'"),
        ("-5calls", "negative"),
        ("$-2", "negative"),
        ("-$2", "negative"),
        ("1.5calls", "whole number"),
        ("1e9999999calls", "no limit|unknown unit"),
        ("nan calls", "no limit"),
        ("writer:90s", "whole run"),
        ("a:b:5calls", "no limit"),
    ],
)
def test_what_cannot_be_meant_is_refused(text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said.replace("$", r"\$")):
        parse(text)


def test_limits_made_in_python_are_checked() -> None:
    for wrong in [("cals", 1), ("calls", -1), ("calls", float("nan")), ("dollars", float("inf")), ("tokens", 0.5)]:
        with pytest.raises(ConfigError):
            Limit(None, *wrong)
    assert Limit(None, "dollars", 0.1).whole == 100_000_000 and Limit(None, "calls", 3.0).whole == 3


COUNTS = st.sampled_from(["calls", "tokens", "input", "output"])
LIMITS = st.one_of(
    st.builds(Limit, st.sampled_from([None, *ROLES]), COUNTS, st.integers(0, 300)),
    st.builds(
        Limit, st.sampled_from([None, *ROLES]), st.just("dollars"),
        st.integers(0, 3_000_000).map(lambda n: Decimal(n) / 10**9),
    ),
)  # fmt: skip


@given(st.lists(LIMITS | st.builds(Limit, st.none(), st.just("seconds"), st.floats(0, 1e9)), min_size=1))
@settings(max_examples=60, deadline=None)
def test_a_limit_is_written_as_it_is_read(limits: list[Limit]) -> None:
    assert parse(",".join(str(limit) for limit in limits)) == tuple(limits)


def test_money_is_exact_and_rounded_up() -> None:
    assert Price.parse("0.15/0.60") == Price(0.15, 0.6)
    assert Price(0.15, 0.6).nanodollars(1_000_000, 1_000_000) == 750_000_000
    assert Price(0.0375, 0).nanodollars(1, 5) == 38  # 37.5
    assert Price(0.1, 0).nanodollars(3, 0) == 300  # and not 301, as 0.1 * 3 in floats would have it
    assert Price(0, 0).nanodollars(10**9, 10**9) == 0
    assert sum([Cost(1, 2, 3, 4)] * 3, Cost()) == Cost(3, 6, 9, 12) and Cost(nanodollars=1_500_000_000).dollars == 1.5
    for wrong in ("0.15", "a/b", "1/2/3", "-1/2", "nan/1", "1/inf", ""):
        with pytest.raises(ConfigError, match="dollars per million tokens"):
            Price.parse(wrong)


def test_dollars_need_a_price_for_each_role_that_they_cover() -> None:
    with pytest.raises(ConfigError, match="--price task=IN/OUT --price judge=IN/OUT"):
        Budget(parse("$2"), {"task": None, "writer": Price(1, 1)})
    Budget(parse("writer:$2, 5calls"), {"task": None, "writer": Price(1, 1)})
    with pytest.raises(ConfigError, match="Did you mean 'writer'"):
        Budget(parse("writr:5calls"), {})
    with pytest.raises(ConfigError, match="unknown role"):
        Budget((), {}).reserve("jury", Cost(1))


def test_refusals_say_which_limit_and_how_much() -> None:
    budget = Budget(parse("writer:10calls,$0.001"), PRICES)
    budget.settle(budget.reserve("writer", Cost(4)), Cost(3))
    ticket = budget.reserve("writer", Cost(2))
    assert budget.reserved() == budget.reserved("writer") == Cost(2) and budget.reserved("task") == Cost()
    with pytest.raises(BudgetExhausted, match="limit writer:10calls leaves 5 calls, .* of writer may take 6 calls"):
        budget.reserve("writer", Cost(6))
    with pytest.raises(BudgetExhausted, match=r"limit \$0.001 leaves \$0.001, .* of task may take \$0.0015"):
        budget.reserve("task", Cost(1, 10_000))
    assert budget.reserved() == Cost(2)  # a refusal sets nothing aside
    assert not budget.fits("writer", Cost(6)) and budget.fits("writer", Cost(5)) and budget.reserved() == Cost(2)
    budget.release(ticket)
    budget.reserve("writer", Cost(7))
    assert [left for _, left in budget.left()] == [0, 0.001]


def test_a_ticket_is_used_once() -> None:
    budget = Budget((), {})
    first, second = budget.reserve("task", Cost(1)), budget.reserve("task", Cost(1))
    assert first != second
    budget.settle(first, Cost(1))
    budget.release(second)
    for ticket in (first, second, 99):
        with pytest.raises(ValueError, match="ticket"):
            budget.settle(ticket, Cost(1))
        with pytest.raises(ValueError, match="ticket"):
            budget.release(ticket)
    assert budget.spent() == Cost(1) and budget.reserved() == Cost()


def test_more_than_was_set_aside_counts_in_full_and_is_noted() -> None:
    budget = Budget(parse("100tokens,task:5calls"), PRICES)
    budget.settle(budget.reserve("task", Cost(1, 10, 10)), Cost(1, 10, 500))
    assert budget.spent("task") == Cost(1, 10, 500, 301_500)
    assert budget.overruns == [("task", Cost(1, 10, 10, 7_500), Cost(1, 10, 500, 301_500))]
    with pytest.raises(BudgetExhausted, match="leaves -410 tokens"):
        budget.reserve("writer", Cost(1, 1))
    budget.release(budget.reserve("task", Cost(1)))  # asks no tokens
    assert [left for _, left in budget.left()] == [-410, 4]
    ticket = budget.reserve("task", Cost(1))
    with pytest.raises(ValueError, match="negative"):
        budget.settle(ticket, Cost(1, -4))
    budget.release(ticket)  # it was not lost on the way


def test_time() -> None:
    now = [1000.0]
    budget = Budget(parse("1min,90s,5calls"), {}, clock=lambda: now[0], before=20)
    assert budget.seconds_left() == 40 and budget.seconds() == 20
    budget.check_time()
    now[0] += 39.5
    assert budget.left()[0] == (Limit(None, "seconds", 60), 0.5) and budget.fits("task", Cost(1))
    ticket = budget.reserve("task", Cost(1))
    now[0] += 0.5
    for ask in (budget.check_time, lambda: budget.reserve("task", Cost())):
        with pytest.raises(BudgetExhausted, match="time is over: 60 s"):
            ask()
    assert not budget.fits("task", Cost())
    budget.settle(ticket, Cost(1))  # what was begun is counted
    now[0] += 100
    assert budget.seconds_left() == 0 and budget.left()[0][1] == -100
    assert Budget((), {}).seconds_left() is None
    Budget((), {}).check_time()
    with pytest.raises(BudgetExhausted):
        Budget(parse("0s"), {}).check_time()


def test_totals_are_restored() -> None:
    budget = Budget(parse("5calls"), PRICES)
    budget.settle(budget.reserve("task", Cost(1, 5, 5)), Cost(1, 5, 4))
    budget.settle(budget.reserve("writer", Cost(2)), Cost(2))
    after = Budget(parse("5calls"), PRICES)
    after.restore(json.loads(json.dumps(budget.to_json())))
    assert after.to_json() == budget.to_json() and after.spent() == budget.spent() and after.left() == budget.left()
    assert after.spent("task") == Cost(1, 5, 4, 3150)
    with pytest.raises(ConfigError, match="unknown role"):
        after.restore({"jury": {}})


def _within(budget: Budget) -> None:
    for limit in budget.limits:
        assert limit.of(budget.spent(limit.role)) + limit.of(budget.reserved(limit.role)) <= limit.whole


COSTS = st.tuples(st.integers(0, 5), st.integers(0, 60), st.integers(0, 60))
STEPS = st.lists(
    st.tuples(st.sampled_from(["reserve", "settle", "release"]), st.sampled_from(ROLES), COSTS, st.integers(0, 99)),
    max_size=40,
)


@given(st.lists(LIMITS, max_size=4), STEPS)
@settings(max_examples=100, deadline=None)
def test_no_total_ever_passes_a_limit(
    limits: list[Limit], steps: list[tuple[str, str, tuple[int, int, int], int]]
) -> None:
    budget = Budget(tuple(limits), PRICES, clock=lambda: 0.0)
    held: list[tuple[int, str, Cost]] = []
    spent = {role: Cost() for role in ROLES}  # kept a second time, in the plainest way
    for what, role, parts, number in steps:
        if what == "reserve":
            bound = Cost(*parts)
            cost = Cost(*parts, PRICES[role].nanodollars(parts[1], parts[2]))
            taken = [*spent.items(), *((r, c) for _, r, c in held)]
            fits = all(
                limit.role not in (None, role) or limit.of(cost) == 0
                or sum(limit.of(c) for r, c in taken if limit.role in (None, r)) + limit.of(cost) <= limit.whole
                for limit in limits
            )  # fmt: skip
            assert budget.fits(role, bound) == fits
            if fits:
                held.append((budget.reserve(role, bound), role, cost))
            else:
                with pytest.raises(BudgetExhausted):
                    budget.reserve(role, bound)
        elif held:
            ticket, role, cost = held.pop(number % len(held))
            if what == "release":
                budget.release(ticket)
            else:
                actual = Cost(*(min(a, b) for a, b in zip(parts, cost.parts, strict=False)))
                budget.settle(ticket, actual)
                money = PRICES[role].nanodollars(actual.input, actual.output)
                spent[role] += Cost(actual.calls, actual.input, actual.output, money)
        assert {role: budget.spent(role) for role in ROLES} == spent
        assert budget.reserved() == sum((c for _, _, c in held), Cost()) and not budget.overruns
        _within(budget)


def test_64_threads_stay_within_the_limits() -> None:
    budget = Budget(parse("400calls,writer:90calls,task:5ktokens,$0.02"), PRICES)
    ready, errors, refused = threading.Barrier(64), list[BaseException](), list[int]()

    def hammer(seed: int) -> None:
        rng = random.Random(seed)
        try:
            ready.wait(20)
            for _ in range(25):
                role = rng.choice(ROLES)
                bound = Cost(rng.randint(0, 3), rng.randint(0, 90), rng.randint(0, 90))
                try:
                    ticket = budget.reserve(role, bound)
                except BudgetExhausted:
                    refused.append(1)
                    continue
                if rng.random() < 0.2:
                    budget.release(ticket)
                else:
                    actual = Cost(bound.calls, rng.randint(0, bound.input), rng.randint(0, bound.output))
                    budget.settle(ticket, actual)
        except BaseException as error:  # noqa: B036
            errors.append(error)

    threads = [threading.Thread(target=hammer, args=(seed,)) for seed in range(64)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        _within_now(budget)
    for thread in threads:
        thread.join()
    assert not errors and refused and budget.reserved() == Cost()
    _within(budget)
    assert budget.spent("writer").calls > 40  # it was used, not merely refused; how far depends on who comes first


def _within_now(budget: Budget) -> None:
    """While others spend: one consistent look at all limits."""
    assert all(left >= 0 for _, left in budget.left())
