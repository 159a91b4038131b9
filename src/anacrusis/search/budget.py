"""What a search may spend, and what it has spent: cost is reserved before it is spent, so no limit is ever exceeded.

What is counted is all that the run asked for, answers from its store included: so a run that finds much of it paid
takes the same path as one that pays. What was really paid is in the store.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from decimal import Decimal
from fractions import Fraction
from typing import Any

from ..errors import BudgetExhausted, ConfigError, did_you_mean

UNITS = ("calls", "tokens", "input", "output", "dollars", "seconds")
# What may be typed: the unit, and how many of it one is.
_WORDS = {
    **dict.fromkeys(("call", "calls"), ("calls", 1)),
    **dict.fromkeys(("token", "tokens"), ("tokens", 1)),
    **dict.fromkeys(("input", "inputtokens"), ("input", 1)),
    **dict.fromkeys(("output", "outputtokens"), ("output", 1)),
    **dict.fromkeys(("$", "dollar", "dollars", "usd"), ("dollars", 1)),
    **dict.fromkeys(("s", "sec", "second", "seconds"), ("seconds", 1)),
    **dict.fromkeys(("min", "minute", "minutes"), ("seconds", 60)),
    **dict.fromkeys(("h", "hour", "hours"), ("seconds", 3600)),
}
_MANY = {"k": 1000, "m": 10**6}  # in front of what is counted; thousandths of it do not exist
_PART = re.compile(r"(?:([A-Za-z][\w-]*)\s*:)?\s*(-?)\s*(\$?)\s*(-?)\s*([0-9]+(?:\.[0-9]*)?|\.[0-9]+)\s*([^0-9.]*)")
HOW = "write it like 500calls, 100ktokens, 20000input, $2 or 10min, with a role in front where it is one's: judge:$0.5"


@dataclass(frozen=True)
class Cost:
    """Money is in whole nano-dollars (1e-9 $): sums are exact."""

    calls: int = 0
    input: int = 0  # tokens
    output: int = 0  # tokens
    nanodollars: int = 0

    def __add__(self, other: Cost) -> Cost:
        return Cost(*(a + b for a, b in zip(self.parts, other.parts, strict=True)))

    def __sub__(self, other: Cost) -> Cost:
        return Cost(*(a - b for a, b in zip(self.parts, other.parts, strict=True)))

    @property
    def parts(self) -> tuple[int, int, int, int]:
        return self.calls, self.input, self.output, self.nanodollars

    @property
    def tokens(self) -> int:
        return self.input + self.output

    @property
    def dollars(self) -> float:
        return self.nanodollars / 1e9


@dataclass(frozen=True)
class Price:
    """Dollars per million tokens. ConfigError for a price that is negative or no number."""

    input: float
    output: float

    def __post_init__(self) -> None:
        if not all(0 <= price < float("inf") for price in (self.input, self.output)):
            raise ConfigError(f"a price is dollars per million tokens, 0 or more, got {self.input}/{self.output}")

    @classmethod
    def parse(cls, text: str) -> Price:
        """Of "0.15/0.60": input, then output."""
        try:
            given, made = (float(part) for part in text.split("/"))
        except ValueError:
            raise ConfigError(
                f"a price is IN/OUT in dollars per million tokens, like 0.15/0.60, got {text!r}"
            ) from None
        return cls(given, made)

    def nanodollars(self, input: int, output: int) -> int:
        """What so many tokens cost, rounded up."""
        exact = Fraction(str(self.input)) * input + Fraction(str(self.output)) * output
        return -(-exact * 1000 // 1)


@dataclass(frozen=True)
class Limit:
    """So much and no more of a unit, for one role or (None) all together. ConfigError for what cannot be meant."""

    role: str | None
    unit: str  # one of UNITS
    amount: float | Decimal  # 0 or more; whole but for dollars and seconds

    def __post_init__(self) -> None:
        if self.unit not in UNITS:
            raise ConfigError(f"unknown unit {self.unit!r}.{did_you_mean(self.unit, UNITS)}")
        if not 0 <= self.amount < float("inf"):
            raise ConfigError(f"a limit cannot be negative or without end, got {self.amount} {self.unit}")
        if self.unit not in ("dollars", "seconds") and self.amount != int(self.amount):
            raise ConfigError(f"a limit on {self.unit} is a whole number, got {self.amount}")
        if self.unit == "seconds" and self.role is not None:
            raise ConfigError(f"a limit on time is the whole run's, got one for the role {self.role!r}: leave that out")

    @property
    def whole(self) -> int:
        """The amount in the unit that is counted: nano-dollars for dollars."""
        return int(Fraction(str(self.amount)) * (10**9 if self.unit == "dollars" else 1))

    def of(self, cost: Cost) -> int:
        """What of a cost counts here."""
        return {"dollars": cost.nanodollars, "seconds": 0}.get(self.unit, getattr(cost, self.unit, 0))

    def __str__(self) -> str:
        number = format(Decimal(str(self.amount)), "f")
        number = number.rstrip("0").rstrip(".") if "." in number else number
        shown = f"${number}" if self.unit == "dollars" else f"{number}{'s' if self.unit == 'seconds' else self.unit}"
        return shown if self.role is None else f"{self.role}:{shown}"


def parse(text: str) -> tuple[Limit, ...]:
    """Limits of a text like "$2, 10min, writer:100calls". ConfigError says which part is wrong and what to write."""
    return tuple(_one(part.strip()) for part in text.split(","))


def _one(part: str) -> Limit:
    found = _PART.fullmatch(part)
    if found is None:
        raise ConfigError(f"{part!r} is no limit: {HOW}")
    role, minus, sign, minus_too, number, word = found.groups()
    word = "".join(word.lower().split())
    if not (sign or word) or (not sign and word in _MANY):
        raise ConfigError(f"the limit {part!r} has no unit: {HOW}")
    if minus or minus_too:
        raise ConfigError(f"the limit {part!r} is negative; 0 is the least")
    unit, times = _WORDS.get(sign + word, ("", 1))
    if not unit and word[0] in _MANY and _WORDS.get(word[1:], ("dollars",))[0] not in ("dollars", "seconds"):
        unit, times = _WORDS[word[1:]][0], _MANY[word[0]]
    if not unit or (sign and word):
        raise ConfigError(f"unknown unit {sign + word!r} in {part!r}.{did_you_mean(word, _WORDS)} {HOW}")
    amount = Fraction(number) * times
    if unit == "dollars":
        return Limit(role, unit, Decimal(number))
    if unit != "seconds" and amount.denominator > 1:
        raise ConfigError(f"a limit on {unit} is a whole number, got {part!r}")
    return Limit(role, unit, int(amount) if amount.denominator == 1 else float(amount))


@dataclass
class _Account:
    """One role's totals."""

    spent: Cost = field(default_factory=Cost)
    reserved: Cost = field(default_factory=Cost)


class Budget:
    """Limits, and what has been spent of them, by role. Threads may share one.

    prices: what each role's model costs, None where that is not known. seconds: `clock` is read now and at each
    question, `before` is what earlier processes of the run took. ConfigError for a limit on an unknown role, or on
    the dollars of a role without a price.
    """

    def __init__(
        self,
        limits: tuple[Limit, ...],
        prices: Mapping[str, Price | None] | None = None,
        roles: tuple[str, ...] = ("task", "writer", "judge"),
        clock: Callable[[], float] = time.monotonic,
        before: float = 0.0,
    ):
        self.limits, self.prices, self.overruns = tuple(limits), dict(prices or {}), list[tuple[str, Cost, Cost]]()
        self._accounts = {role: _Account() for role in roles}
        self._held: dict[int, tuple[str, Cost]] = {}
        self._tickets = 0
        self._mutex = threading.Lock()
        self._clock, self._start = clock, clock() - before
        for limit in self.limits:
            covered = roles if limit.role is None else (self._known(limit.role),)
            lacking = [role for role in covered if self.prices.get(role) is None] if limit.unit == "dollars" else []
            if lacking:
                ask = " ".join(f"--price {role}=IN/OUT" for role in lacking)
                raise ConfigError(f"the limit {limit} needs prices, in dollars per million input/output tokens: {ask}")

    def reserve(self, role: str, bound: Cost) -> int:
        """Set aside what a request can cost at most; the ticket goes to `settle` or `release`.

        BudgetExhausted where it does not fit beside all that is spent and set aside, or time is over. The price of
        the tokens is added; it is rounded once, so settle with tokens too.
        """
        with self._mutex:
            if refusal := self._refusal(role, cost := self._priced(role, bound)):
                raise BudgetExhausted(refusal)
            self._accounts[role].reserved += cost
            self._tickets += 1
            self._held[self._tickets] = role, cost
            return self._tickets

    def fits(self, role: str, bound: Cost) -> bool:
        """Whether `reserve` would succeed now."""
        with self._mutex:
            return not self._refusal(role, self._priced(role, bound))

    def settle(self, ticket: int, actual: Cost) -> None:
        """Spend a reservation. More than was set aside counts in full and is added to `overruns` as (role, reserved,
        actual). ValueError for a ticket that is used up."""
        with self._mutex:
            role, bound = self._holding(ticket)
            cost = self._priced(role, actual)
            self._drop(ticket)
            if any(a > b for a, b in zip(cost.parts, bound.parts, strict=True)):
                self.overruns.append((role, bound, cost))
            self._accounts[role].spent += cost

    def release(self, ticket: int) -> None:
        """Nothing was spent of a reservation. ValueError for a ticket that is used up."""
        with self._mutex:
            self._drop(ticket)

    def spent(self, role: str | None = None) -> Cost:
        """Of a role, or of all."""
        with self._mutex:
            return self._sum(role, "spent")

    def reserved(self, role: str | None = None) -> Cost:
        with self._mutex:
            return self._sum(role, "reserved")

    def left(self) -> list[tuple[Limit, float]]:
        """What each limit leaves, in its own unit, beside what is spent and set aside; below 0 after overruns."""
        with self._mutex:
            return [(limit, left / 10**9 if limit.unit == "dollars" else left) for limit, left in self._left()]

    def seconds(self) -> float:
        """Since the run's beginning, earlier processes included."""
        return self._clock() - self._start

    def seconds_left(self) -> float | None:
        """Until the first limit on time, 0 at least; None without one."""
        limits = [float(limit.amount) for limit in self.limits if limit.unit == "seconds"]
        return max(0.0, min(limits) - self.seconds()) if limits else None

    def check_time(self) -> None:
        """BudgetExhausted where time is over."""
        if self.seconds_left() == 0:
            raise BudgetExhausted(self._over())

    def to_json(self) -> dict[str, Any]:
        """The spent totals by role, for `restore`; without reservations and time."""
        with self._mutex:
            return {role: asdict(account.spent) for role, account in self._accounts.items()}

    def restore(self, totals: Mapping[str, Mapping[str, Any]]) -> None:
        """Put back what `to_json` gave, in place of what is counted here. ConfigError for an unknown role."""
        with self._mutex:
            for role, kept in totals.items():
                self._accounts[self._known(role)].spent = Cost(**kept)

    def _known(self, role: str) -> str:
        if role not in self._accounts:
            raise ConfigError(f"unknown role {role!r}.{did_you_mean(role, self._accounts)}")
        return role

    def _priced(self, role: str, cost: Cost) -> Cost:
        """With the price of its tokens, where it holds no money yet."""
        price = self.prices.get(self._known(role))
        if min(cost.parts) < 0:
            raise ValueError(f"a cost cannot be negative, got {cost} for {role}")
        if price is None or cost.nanodollars:
            return cost
        return replace(cost, nanodollars=price.nanodollars(cost.input, cost.output))

    def _over(self) -> str:
        return f"time is over: {self.seconds():.0f} s are spent; a larger limit on time would allow more"

    def _refusal(self, role: str, cost: Cost) -> str:
        """Why a request does not fit; empty where it does. One that asks nothing of a limit is not held by it."""
        if self.seconds_left() == 0:
            return self._over()
        for limit, left in self._left():
            asked = limit.of(cost) if limit.role in (None, role) else 0
            if asked > max(left, 0):
                has, wants = (
                    f"${n / 1e9:.9g}" if limit.unit == "dollars" else f"{n:.0f} {limit.unit}" for n in (left, asked)
                )
                return f"the limit {limit} leaves {has}, the next request of {role} may take {wants}"
        return ""

    def _left(self) -> list[tuple[Limit, float]]:
        """In the units that are counted."""
        found: list[tuple[Limit, float]] = []
        for limit in self.limits:
            if limit.unit == "seconds":
                found.append((limit, float(limit.amount) - self.seconds()))
            else:
                spent, held = (limit.of(self._sum(limit.role, name)) for name in ("spent", "reserved"))
                found.append((limit, limit.whole - spent - held))
        return found

    def _sum(self, role: str | None, name: str) -> Cost:
        chosen = self._accounts.values() if role is None else [self._accounts[self._known(role)]]
        return sum((getattr(account, name) for account in chosen), Cost())

    def _holding(self, ticket: int) -> tuple[str, Cost]:
        if ticket not in self._held:
            raise ValueError(f"ticket {ticket} was settled or released before, or never given")
        return self._held[ticket]

    def _drop(self, ticket: int) -> None:
        role, cost = self._holding(ticket)
        del self._held[ticket]
        self._accounts[role].reserved -= cost
