"""Cost: what the prompt takes of every question, in tokens, time, memory and money, beside the bare frame.

    seconds an answer = median over repeats of (seconds of n answers) / n,  after one that is not counted
Its interval is the smallest to the largest of 6 repeats: the true median is between them with probability 1 - 2 / 2^6.

The bare frame is the task's fields in their default places, with nothing learned or written. Tokens are the model's
own; vectors count one each, keys and values the longest layer's. Behind an API four bytes are a token where it does not
tell, and a few questions are asked anew, one after the other, as stored answers take no time.

Source: plain counting and timing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from ..measure.predict import ANSWER_TOKENS, scores, written
from ..model.calls import Call, Reply
from ..model.frames import default_frame
from ..model.readout import reader
from ..model.say import call, conversation
from ..prompt.values import Constant, Prefix, Prompt, Text
from ..search.desk import Arrived, Desk, Speaker
from .measure import Finding, Measure, register
from .subject import Floats, Inputs, Subject

MOST, REPEATS, SECONDS = 64, 6, 1.0  # examples timed, times, seconds a repeat at most
ASKED = 8  # questions to an API
BYTES = 4  # of a token, where nobody counts


@dataclass(frozen=True)
class Cost:
    """Of one way to ask. None: not known here."""

    own: int | None = None  # tokens of the prompt without any example
    mean: float | None = None  # tokens of a whole question
    high: float | None = None  # 95th percentile
    cut: int | None = None  # examples that lost their end, as they did not fit
    values: int = 0  # stored numbers
    seconds: tuple[float, float, float] | None = None  # an answer, and its interval
    dollars: float | None = None  # 1,000 answers


def tokens(subject: Subject, prompt: Prompt, inputs: Sequence[Inputs]) -> Cost:
    """How long questions are. Nothing about pictures: they are no tokens."""
    if subject.endpoint:
        sizes = [sum(len(said.encode()) for _, said in conversation(prompt.frame, x)) / BYTES for x in inputs]
        blank = conversation(prompt.frame, ("",) * len(prompt.frame.fields))
        own, cut = round(sum(len(said.encode()) for _, said in blank) / BYTES), None
    elif subject.local:
        ahead = prompt.tokens if isinstance(prompt, Prefix) else 0
        read = reader(subject.model, prompt.frame)
        rows = read.rows(inputs, prompt)
        (blank_row,) = read.rows([("",) * len(prompt.frame.fields)], prompt)
        before, after = subject.model.renderer(prompt.frame).specials
        sizes = [float(len(r.codes) + ahead) for r in rows]
        own, cut = len(blank_row.codes) + ahead - len(before) - len(after), sum(r.cut > 0 for r in rows)
    else:
        return Cost(values=prompt.size)
    return Cost(own, float(np.mean(sizes)), float(np.quantile(sizes, 0.95)), cut, prompt.size)


def timed(ways: Sequence[Callable[[int], Any]], most: int) -> tuple[Floats, int]:
    """(REPEATS, ways) seconds an answer, and how many answers that took. Each way computes as many answers as asked;
    they take turns, so that what slows the machine down for a while slows all of them down."""
    n = min(8, most)
    began = time.perf_counter()
    for way in ways:
        way(n)
    each = (time.perf_counter() - began) / n / len(ways)
    used, n = n, max(n, min(most, int(SECONDS / max(each, 1e-9))))
    taken = np.empty((REPEATS + 1, len(ways)))
    for repeat, w in np.ndindex(taken.shape):
        began = time.perf_counter()
        ways[w](n)
        taken[repeat, w] = (time.perf_counter() - began) / n
    return taken[1:], (used + n * (REPEATS + 1)) * len(ways)


def ends(taken: Any) -> tuple[float, float, float]:
    """Median, and its interval."""
    return float(np.median(taken)), float(np.min(taken)), float(np.max(taken))


class _Watch:
    """A speaker, and the seconds that its answers take; what is known from before never reaches it."""

    def __init__(self, speaker: Speaker):
        self.speaker, self.name, self.fingerprint = speaker, speaker.name, getattr(speaker, "fingerprint", "")
        self.taken: list[float] = []

    def complete(
        self, calls: Sequence[Call], arrived: Arrived | None = None, *, within: float | None = None, salt: str = ""
    ) -> list[Reply]:
        began = time.perf_counter()
        replies = self.speaker.complete(calls, arrived, within=within, salt=salt)
        self.taken.append((time.perf_counter() - began) / len(calls))
        return replies


def asked(subject: Subject, inputs: Sequence[Inputs]) -> tuple[Cost, str]:
    """What an API takes, in seconds and dollars, for questions that are asked anew; and a note."""
    assert subject.desk is not None
    desk, prompt = subject.desk, subject.prompt
    watch = _Watch(desk.speakers["task"])
    watched = Desk({**desk.speakers, "task": watch}, desk.store, desk.budget, desk.salt, desk.done)
    limit = int(prompt.card.get("answer_tokens", ANSWER_TOKENS))
    replies: list[Reply] = []
    note = ""
    for x in inputs:
        found, refused = watched.ask("task", [call(prompt.frame, x, tokens=limit, sample=1)])
        if refused is not None:
            note = f"; {refused}"
            break
        replies += [r for r in found if r is not None]
    subject.asked += len(replies)
    if not replies:
        return Cost(), f"no question was asked{note}"
    given, made = (sum(getattr(r, k) for r in replies) / len(replies) for k in ("input", "output"))
    price = desk.budget.prices.get("task")
    dollars = None if price is None else (given * price.input + made * price.output) / 1000
    note = f"billed for a question, on average over {len(replies)}: {given:.0f} tokens in, {made:.0f} out{note}"
    if not watch.taken:
        return Cost(dollars=dollars), note + "; all of them were stored, so no time is known"
    return Cost(seconds=ends(watch.taken), dollars=dollars), note


def run(subject: Subject) -> Finding:
    task, prompt, model = subject.task, subject.prompt, subject.model
    inputs = [e.inputs for e in subject.examples]
    written_at_most = {k: prompt.card[k] for k in ("answer_tokens",) if k in prompt.card}  # or the times would differ
    bare: Prompt = Text(frame=default_frame(model, task, prompt.frame.readout), head=prompt.head, card=written_at_most)
    ours, theirs = tokens(subject, prompt, inputs), tokens(subject, bare, inputs)
    notes: list[str] = []
    times: tuple[float, float, float] | None = None
    if subject.endpoint:
        found, note = asked(subject, inputs[: min(ASKED, subject.cells)])
        ours = replace(ours, seconds=found.seconds, dollars=found.dollars)
        notes = [f"tokens of a question: its bytes / {BYTES}, as the API's tokens are not known beforehand", note]
    else:
        answer = written if task.kind == "generation" else scores
        most = min(MOST, subject.cells // (2 * (REPEATS + 2)))
        several = (inputs * (most // len(inputs) + 1))[:most]
        ways = [partial(_answered, answer, way, several, model) for way in (prompt, bare)]
        taken, used = timed(ways, most)
        subject.asked += used
        times = ends(taken[:, 0] / taken[:, 1])
        ours, theirs = replace(ours, seconds=ends(taken[:, 0])), replace(theirs, seconds=ends(taken[:, 1]))
    return Finding(
        headline=_said(subject, ours, theirs, times),
        value=ours.seconds and ours.seconds[0],
        low=ours.seconds and ours.seconds[1],
        high=ours.seconds and ours.seconds[2],
        heads=("", "with the prompt", "bare frame"),
        rows=tuple((name, shown(ours), shown(theirs)) for name, shown in SHOWN),
        details={"prompt": asdict(ours), "bare": asdict(theirs), "times": times,
                 "limit": model.limit if subject.local else None},
        notes=tuple(notes),
    )  # fmt: skip


def _answered(answer: Callable[..., Any], prompt: Prompt, inputs: Sequence[Inputs], model: Any, n: int) -> Any:
    return answer(prompt, inputs[:n], model)


def _number(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


SHOWN: tuple[tuple[str, Callable[[Cost], str]], ...] = (
    ("tokens of its own", lambda c: _number(c.own, ",")),
    ("tokens of a question, mean", lambda c: _number(c.mean, ".1f")),
    ("tokens of a question, 95 %", lambda c: _number(c.high, ".0f")),
    ("examples cut", lambda c: _number(c.cut, ",")),
    ("stored values", lambda c: f"{c.values:,}"),
    ("ms an answer", lambda c: "" if c.seconds is None else "{:.2f} [{:.2f}, {:.2f}]".format(*_ms(c.seconds))),
    ("$ for 1,000 answers", lambda c: _number(c.dollars, ".4f")),
)


def _ms(seconds: tuple[float, float, float]) -> list[float]:
    return [1000 * s for s in seconds]


def _said(subject: Subject, ours: Cost, theirs: Cost, times: tuple[float, float, float] | None) -> str:
    parts = []
    if ours.own is not None:
        share = f" ({ours.own / subject.model.limit:.1%} of what the model reads)" if subject.local else ""
        parts.append(f"{ours.own:,} tokens{share}, {(theirs.own or 0):,} in the bare frame")
    parts.append(f"{ours.values:,} stored values")
    if ours.seconds is not None:
        said = "{:.2f} ms [{:.2f}, {:.2f}] an answer".format(*_ms(ours.seconds))
        if times is not None:
            said += ", {:.2f} [{:.2f}, {:.2f}] times that of the bare frame".format(*times)
        parts.append(said)
    if ours.dollars is not None:
        parts.append(f"${ours.dollars:.4f} for 1,000 answers")
    if ours.cut is not None:
        parts.append(f"{ours.cut} of {len(subject.examples)} examples lose their end, as they do not fit")
    return "; ".join(parts)


def refuses(subject: Subject) -> str:
    if isinstance(subject.prompt, Constant) or subject.model is None:
        return "the prompt answers without a model: it costs nothing"
    least = 1 if subject.endpoint else 2 * (REPEATS + 2)
    if subject.cells < least:
        return f"it takes at least {least} answers, {subject.cells} are allowed"
    if subject.prompt.frame.readout == "head" and subject.prompt.head is None:
        return "the prompt holds no head to answer by"
    return ""


register(
    Measure(
        name="cost",
        summary="what the prompt takes in tokens, time, memory and money, beside the bare frame",
        run=run,
        refuses=refuses,
    )
)
