"""Groups: whether the prompt serves some kinds of examples worse than others, and whether its confidence tells.

    worst = min_g m_g,  gap = max_g m_g - min_g m_g     m_g: mean of v over the n_g examples of group g; v: (N,), 0..1
    r = max over pairs of |m_g - m_h| / sqrt(1/n_g + 1/n_h);  p = (1 + #{shuffles whose r is as large}) / (1 + shuffles)
    interval of the gap: from the largest low end to the largest high end of all pairs of groups,
        u_g - u_h -+ t sqrt(s_g^2 / (n_g + 2) + s_h^2 / (n_h + 2))    u, s^2: mean and variance with a 0 and a 1 added

The groups are those of a column of the user's; else thirds of the input's length, and classes. Best and worst group are
chosen after looking, so the gap is held against the largest ones of groups drawn at random (the range test of Tukey and
Kramer, with shuffles for its table). Its interval is of all pairs together (t: Student's quantile at 1 - 0.025 / pairs,
with Welch's degrees of freedom, as some groups vary more than others), and each group's is widened to level
1 - 0.05 / groups: both hold for the group that came out worst, too.
Where there are probabilities: would confidence have told a group's score without its labels? m_others + (mean
confidence of the group - that of the others).

Paper: Sagawa et al. 2020, https://arxiv.org/abs/1911.08731 (the worst group's score); Guillory et al. 2021,
    https://arxiv.org/abs/2107.03315 (difference of confidences); Agresti & Caffo 2000,
    https://doi.org/10.1080/00031305.2000.10474560 (the 0 and the 1 that are added)
Departure: t for z; nothing is trained for the worst group; the other groups stand for the domain that labels are known
    of.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy.special import stdtrit

from ..measure.intervals import Interval, bootstrap
from ..task import Example
from .measure import Finding, Measure, register
from .subject import EACH, Floats, Subject

SHUFFLES = 2000
LEAST = 5  # examples of a group; smaller ones are taken together
OTHERS, NONE = "others", "(no group)"


@dataclass(frozen=True)
class Gap:
    value: float
    low: float
    high: float
    p: float  # that some pair differs as much where groups do not matter


def ways(subject: Subject, examples: tuple[Example, ...]) -> dict[str, list[str]]:
    """A group for each example, by what it was made of."""
    found = {}
    if subject.groups:
        found["group"] = merged([subject.groups.get(e.where) or NONE for e in examples])
    elif subject.task.modality == "text":
        found["length"] = merged(thirds([sum(map(len, e.inputs)) for e in examples]))
    if subject.classes and not subject.groups:
        found["class"] = merged([subject.task.labels[e.gold] for e in examples])  # type: ignore[index]
    return {way: names for way, names in found.items() if len(set(names)) > 1}


def thirds(sizes: list[int]) -> list[str]:
    """Short, middle and long ones; equal sizes are in the same third."""
    low, high = (int(q) for q in np.quantile(sizes, [1 / 3, 2 / 3], method="lower"))
    said = f"0 to {low} characters", f"{low + 1} to {high} characters", f"{high + 1} characters or more"
    return [said[(s > low) + (s > high)] for s in sizes]


def merged(names: list[str]) -> list[str]:
    """Groups of fewer than LEAST examples become one."""
    count = Counter(names)
    return [n if count[n] >= LEAST else OTHERS for n in names]


def gap_of(values: Floats, index: Any, rng: np.random.Generator, level: float = 0.95) -> Gap:
    """values: (N,) of 0..1. index: (N,) group numbers from 0 on, none of them empty. level: of the interval."""
    sizes = np.bincount(index)
    scale = np.sqrt(1 / sizes[:, None] + 1 / sizes)

    def means(v: Floats) -> Floats:
        return np.bincount(index, v) / sizes

    def largest(m: Floats) -> float:
        return float((np.abs(m[:, None] - m) / scale).max())

    found = means(values)
    value, r = float(found.max() - found.min()), largest(found)
    drawn = np.array([largest(means(values[rng.permutation(len(values))])) for _ in range(SHUFFLES)])
    p = (1 + int((drawn >= r - 1e-12).sum())) / (1 + SHUFFLES)
    low, high = gap_ends(values, index, level)
    return Gap(value, max(0.0, min(low, value)), min(1.0, max(high, value)), p)


def gap_ends(values: Floats, index: Any, level: float) -> tuple[float, float]:
    """The interval of the largest difference of two groups' true means, before it is cut to 0..1; see `gap_of`."""
    n = np.bincount(index) + 2
    u = (np.bincount(index, values) + 1) / n
    v = ((np.bincount(index, values**2) + 1) / n - u**2) / n  # of a group's mean
    g, h = np.triu_indices(len(n), 1)
    freedom = (v[g] + v[h]) ** 2 / (v[g] ** 2 / (n[g] - 1) + v[h] ** 2 / (n[h] - 1))
    off = stdtrit(freedom, 1 - (1 - level) / 2 / len(g)) * np.sqrt(v[g] + v[h])
    apart = np.abs(u[g] - u[h])
    return float((apart - off).max()), float((apart + off).max())


def foretold(sure: Floats, values: Floats, mine: Any) -> float:
    """The score of `mine` (N,) that confidence (N,) tells, from the others' score and confidence; 0..1."""
    told = values[~mine].mean() + sure[mine].mean() - sure[~mine].mean()
    return float(np.clip(told, 0, 1))


def run(subject: Subject) -> Finding:
    examples = _drawn(subject)
    inputs = [e.inputs for e in examples]
    values, said = subject.values(None, examples), subject.predictions(None, inputs)
    sure = None if subject.endpoint or not subject.classes else subject.probabilities(None, inputs).max(1)
    split = ways(subject, examples)
    level = 1 - 0.05 / sum(len(set(names)) for names in split.values())
    found: list[_Group] = []
    gaps: dict[str, Gap] = {}
    for way, names in split.items():
        order = sorted(set(names), key=_place)
        index = np.array([order.index(n) for n in names])
        gaps[way] = gap_of(values, index, subject.rng(f"groups {way}"), 1 - 0.05 / len(split))
        for g, name in enumerate(order):
            at = np.flatnonzero(index == g)
            given = said[at] if isinstance(said, np.ndarray) else [said[i] for i in at]
            score = bootstrap(EACH[subject.task.kind], given, [examples[i] for i in at],
                              classes=len(subject.task.labels) or None, level=level)  # fmt: skip
            by = None if sure is None else foretold(sure, values, index == g)
            found.append(_Group(way, name, score, by, float(values[index != g].mean())))
    return _finding(EACH[subject.task.kind], found, gaps, float(values.mean()), _notes(subject, found, len(examples)))


def _drawn(subject: Subject) -> tuple[Example, ...]:
    return subject.drawn("groups", subject.examples, subject.cells)


def _place(name: str) -> tuple[Any, ...]:
    """Sorts by name, numbers by their size, and what is left over last."""
    parts = re.split(r"(\d+)", name)
    return name == OTHERS, [(int(t), "") if t.isdecimal() else (-1, t) for t in parts if t]


@dataclass(frozen=True)
class _Group:
    way: str
    name: str
    score: Interval
    foretold: float | None
    others: float  # the score of all others


def _finding(metric: str, found: list[_Group], gaps: dict[str, Gap], whole: float, notes: tuple[str, ...]) -> Finding:
    way = min(gaps, key=lambda w: (gaps[w].p, -gaps[w].value))
    gap, worst = gaps[way], min((g for g in found if g.way == way), key=lambda g: g.score.value)
    p = min(1.0, gap.p * len(gaps))  # the way was chosen after looking, too
    verdict = "the groups differ more than chance makes" if p <= 0.05 else "chance alone may make that"
    return Finding(
        headline=f"worst {way} {worst.name!r}: {metric} {worst.score}, of {whole:.2f} in all; from worst to best "
        f"{gap.value:.2f} [{gap.low:.2f}, {gap.high:.2f}]: {verdict} (p = {p:.3f})",
        value=gap.value,
        low=gap.low,
        high=gap.high,
        heads=("by", "group", "examples", metric, "foretold"),
        rows=tuple(
            (g.way, g.name, str(g.score.n), str(g.score), "" if g.foretold is None else f"{g.foretold:.2f}")
            for g in found
        ),
        details={"way": way, "worst": worst.name, "p": p, "gaps": {w: asdict(g) for w, g in gaps.items()},
                 "groups": [asdict(g) for g in found]},
        chart={"kind": "ranges", "said": "95 % interval, of all groups together",
               "points": [[g.name, g.score.value, g.score.low, g.score.high] for g in found]},
        notes=notes,
    )  # fmt: skip


def _notes(subject: Subject, found: list[_Group], used: int) -> tuple[str, ...]:
    notes = []
    if len({g.way for g in found}) > 1:
        notes.append("two ways of grouping were tried: p and intervals count both")
    if any(g.name == OTHERS for g in found):
        notes.append(f"groups of fewer than {LEAST} examples are taken together as {OTHERS!r}")
    if used < len(subject.examples):
        notes.append(f"{used} of {len(subject.examples)} examples, drawn at random")
    told = [(abs(g.foretold - g.score.value), abs(g.others - g.score.value)) for g in found if g.foretold is not None]
    if told:
        by, flat = np.mean(told, axis=0)
        notes.append(f"confidence foretells a group's score to {by:.2f}, the others' score does to {flat:.2f}")
    return tuple(notes)


def refuses(subject: Subject) -> str:
    if ways(subject, _drawn(subject)):
        return ""
    if ways(subject, subject.examples):
        return f"of the {subject.cells} examples that are allowed no two groups have {LEAST}; allow more answers"
    if subject.groups:
        return f"all examples are of one group, or the groups have fewer than {LEAST} examples"
    return "no groups are given, and the examples do not differ in length or class"


register(
    Measure(
        name="groups",
        summary="whether some groups of examples are served worse than others",
        run=run,
        refuses=refuses,
        paper="[Sagawa et al. 2020](https://arxiv.org/abs/1911.08731)",
    )
)
