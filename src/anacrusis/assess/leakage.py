"""Leakage: whether the prompt's words hold rows of the data or secrets, and whether learned values give rows away.

Words: a row is in a text where the text has it verbatim, shares 8 words in a row with it, or 50 characters in a row; in
scripts without spaces 20, and 10 are enough for a whole row. Case, punctuation and white space are left out. Sequences
that more than 10 rows share are common phrases, not rows.
    rows to learn from: usual in demonstrations, a warning elsewhere. rows to test on: the score is told without them
Learned values: can a stranger tell by the loss which examples the prompt was learned from?
    advantage = P(loss <= t | learned from) - P(loss <= t | not),   t: the mean loss of those that it was learned from
    0: as good as a coin, 1: always right; of as many of each kind it tells (1 + advantage) / 2 rightly
    loss: -log p[gold], nats

Paper: Brown et al. 2020, https://arxiv.org/abs/2005.14165 (appendix C: overlap with the training data); Yeom et al.
    2018, https://arxiv.org/abs/1709.01604 (section 3: advantage of an attack by loss)
Departure: n-grams of 8 words (there: 8 to 13 by the data set), and of 50 and 20 characters.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from ..measure.intervals import bootstrap
from ..prompt.values import Constant
from ..task import Example
from .bound import parts_of
from .measure import Finding, Measure, register
from .subject import EACH, Floats, Subject
from .variants import DENSE, marks

GRAM, RUN, DENSE_RUN = 8, 50, 20  # words in a row; characters; characters of a script without spaces
WHOLE = 10  # characters of such a script, in a row that is found verbatim
COMMON = 10  # rows that may share a sequence
HOW = ("8 words", "50 characters", "20 characters")
SHORT = 3  # words: fewer are found only where a demonstration's input is just them
RESAMPLES = 2000
SECRETS = {
    "e-mail address": re.compile(r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+"),
    "phone number": re.compile(
        r"(?<![\w.])(?:\+|00)?\(?\d{2,4}\)?(?:[ ./-]\(?\d{2,5}\)?){2,4}(?![\w.])|(?<!\w)\+\d{9,14}\b"
    ),
    "key": re.compile(
        r"\b(?:sk-[\w-]{16,}|AKIA[0-9A-Z]{16}|gh[pousr]_\w{30,}|xox[abprs]-[\w-]{10,}|AIza[\w-]{30,}"
        r"|(?=[0-9a-fA-F]*\d)[0-9a-fA-F]{32,})"
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Row:
    """A row of the data in a text of the prompt."""

    split: str
    where: str
    id: str  # of the example
    part: str
    how: str  # "verbatim" or one of HOW


def words_of(text: str) -> list[str]:
    return re.findall(rf"[\w{marks()}]+", text.casefold())


def dense(text: str) -> int:
    """How many characters are of a script without spaces."""
    return len(re.findall(DENSE, text))


def sequences(words: Sequence[str]) -> set[tuple[str, str]]:
    """Every 8 words and 50 characters in a row, of words with single spaces between them; and 20 characters in a row,
    without any, that are mostly of a script without spaces."""
    line, tight = " ".join(words), "".join(words)
    found = {(HOW[0], " ".join(words[i : i + GRAM])) for i in range(len(words) - GRAM + 1)}
    found |= {(HOW[1], line[i : i + RUN]) for i in range(len(line) - RUN + 1)}
    if dense(tight) > DENSE_RUN // 2:
        runs = (tight[i : i + DENSE_RUN] for i in range(len(tight) - DENSE_RUN + 1))
        found |= {(HOW[2], run) for run in runs if dense(run) > DENSE_RUN // 2}
    return found


def whole(words: Sequence[str], text: Sequence[str]) -> bool:
    """Whether a row is in a text as it is, both in words."""
    if not words:
        return False
    if f" {' '.join(words)} " in f" {' '.join(text)} ":
        return len(words) >= SHORT or list(words) == list(text) or dense("".join(words)) >= WHOLE
    return dense("".join(words)) >= WHOLE and "".join(words) in "".join(text)


def overlaps(parts: Iterable[tuple[str, str]], rows: Iterable[tuple[str, Example]]) -> list[Row]:
    """The rows that are in one of the texts; parts: (what it is, text), rows: (split, example)."""
    texts = [(part, words_of(text)) for part, text in parts]
    held = [(part, words, sequences(words)) for part, words in texts]
    every = set().union(*(found for _, _, found in held)) if held else set()
    known = [(split, e, [words_of(t) for t in e.inputs]) for split, e in rows]
    shared = [set().union(*(sequences(w) & every for w in inputs)) if every else set() for _, _, inputs in known]
    count = Counter(s for found in shared for s in found)
    out = []
    for (split, e, inputs), found in zip(known, shared, strict=True):
        rare = {s for s in found if count[s] <= COMMON}
        for part, words, mine in held:
            verbatim = any(whole(w, words) for w in inputs)
            how = "verbatim" if verbatim else next((h for h in HOW if any(s[0] == h for s in rare & mine)), "")
            if how:
                out.append(Row(split, e.where or e.id, e.id, part, how))
    return out


def secrets(parts: Iterable[tuple[str, str]]) -> list[tuple[str, str, str]]:
    """(what it is, part, its first four characters) of addresses, numbers and keys in the texts."""
    return [
        (kind, part, f"{found[0].strip()[:4]}...")
        for part, text in parts
        for kind, pattern in SECRETS.items()
        for found in pattern.finditer(text)
    ]


def advantage(learned: Floats, others: Floats) -> float:
    """Of an attack that calls an example learned from where its loss is at most the mean of those that were."""
    t = learned.mean()
    return float((learned <= t).mean() - (others <= t).mean())


def losses(subject: Subject, examples: Sequence[Example]) -> Floats:
    """(N,) -log p[gold], nats."""
    p = subject.probabilities(None, [e.inputs for e in examples])
    golds = np.array([e.gold for e in examples], dtype=np.int64)
    return np.asarray(-np.log(np.maximum(p[np.arange(len(p)), golds], 1e-12)))


@dataclass(frozen=True)
class Membership:
    """What learned values give away. Each: the value and its 95 % interval."""

    advantage: tuple[float, float, float]
    gap: tuple[float, float, float]  # score on examples that it was learned from, less that on others
    learned: int
    others: int


def membership(subject: Subject) -> Membership:
    rng = subject.rng("leakage")
    drawn = [subject.drawn("leakage", examples, subject.cells // 2) for examples in (subject.train, subject.examples)]
    sides = [(losses(subject, examples), subject.values(None, examples)) for examples in drawn]
    (la, va), (lb, vb) = sides
    draws = [(rng.integers(len(la), size=len(la)), rng.integers(len(lb), size=len(lb))) for _ in range(RESAMPLES)]
    found = np.array([(advantage(la[a], lb[b]), va[a].mean() - vb[b].mean()) for a, b in draws])
    low, high = np.quantile(found, [0.025, 0.975], axis=0)
    values = advantage(la, lb), float(va.mean() - vb.mean())
    ends = [(v, min(float(x), v), max(float(y), v)) for v, x, y in zip(values, low, high, strict=True)]
    return Membership(ends[0], ends[1], len(la), len(lb))


def run(subject: Subject) -> Finding:
    frame = subject.prompt.frame
    several = {kind: texts for kind, texts in parts_of(frame).items() if kind != "demonstrations"}
    parts = [(kind, t) for kind, texts in several.items() for t in texts]
    parts += [("demonstrations", t) for inputs, _ in frame.demonstrations for t in inputs]
    pictures = subject.task.modality == "image"
    rows = [] if pictures else overlaps(
        parts, [("train", e) for e in subject.train] + [("test", e) for e in subject.examples])  # fmt: skip
    tested = {r.id for r in rows if r.split == "test"}
    misplaced = [r for r in rows if r.split == "train" and r.part != "demonstrations"]
    shown = {r.id for r in rows if r.split == "train" and r.part == "demonstrations"}
    private = secrets([*parts, *(("demonstrations", answer) for _, answer in frame.demonstrations)])
    member = membership(subject) if _learned(subject) else None
    said = [f"{len(tested)} of {len(subject.examples)} test examples are in the prompt's words" if tested
            else "no test example is in the prompt's words"]  # fmt: skip
    details = {"rows": [asdict(r) for r in rows], "secrets": [list(s) for s in private], "test": len(tested),
               "train_in_demonstrations": len(shown), "train_elsewhere": len(misplaced)}  # fmt: skip
    if tested:
        every, clean = _with_and_without(subject, tested)
        said.append(f"{EACH[subject.task.kind]} {every} with them, {clean} without")
        details |= {"with": every, "without": clean}
    if misplaced:
        said.append(f"{len(misplaced)} training examples are outside its demonstrations")
    if private:
        said.append(f"it holds {', '.join(f'{n} {k}(s)' for k, n in Counter(s[0] for s in private).items())}")
    value, low, high = float(len(tested)), None, None
    if member is not None:
        value, low, high = member.advantage
        gap, floor, top = member.gap
        said.append(
            f"who guesses by the loss which examples it was learned from has an advantage of {value:.2f} [{low:.2f}, "
            f"{high:.2f}] (0: as by a coin, 1: always right) and is right about {(1 + value) / 2:.0%} of as many of "
            f"each kind; {EACH[subject.task.kind]} differs by {gap:.2f} [{floor:.2f}, {top:.2f}]"
        )
        details["membership"] = asdict(member)
    return Finding(
        headline="; ".join(said),
        value=value,
        low=low,
        high=high,
        heads=("found", "where", "in", "how"),
        rows=tuple((r.split, r.where, r.part, r.how) for r in rows) + tuple((k, "", part, s) for k, part, s in private),
        details=details,
        notes=(f"{len(shown)} training examples are in its demonstrations, as is usual",) if shown else (),
    )


def _with_and_without(subject: Subject, tested: set[str]) -> tuple[str, str]:
    """Scores on the test examples, and on those of them that are not in the prompt."""
    out: list[str] = []
    every = subject.drawn("leakage", subject.examples, subject.cells // 2)
    for examples in (every, [e for e in every if e.id not in tested]):
        if not examples:
            return out[0], "no score"
        said = subject.predictions(None, [e.inputs for e in examples])
        out.append(str(bootstrap(EACH[subject.task.kind], said, examples, classes=len(subject.task.labels) or None)))
    return out[0], out[1]


def _learned(subject: Subject) -> bool:
    """Whether there are learned values, examples that they came from, and probabilities."""
    values = bool(subject.prompt.tensors()) and not isinstance(subject.prompt, Constant)
    return values and bool(subject.train) and subject.classes and not subject.endpoint


def refuses(subject: Subject) -> str:
    if _learned(subject) or (parts_of(subject.prompt.frame) and subject.task.modality == "text"):
        return ""
    return "the prompt has no words of its own, and no learned values whose examples are known"


register(
    Measure(
        name="leakage",
        summary="whether the prompt holds or gives away rows of the data, addresses or keys",
        run=run,
        refuses=refuses,
        paper="[Brown et al. 2020](https://arxiv.org/abs/2005.14165), [Yeom et al. 2018](https://arxiv.org/abs/1709.01604)",
    )
)
