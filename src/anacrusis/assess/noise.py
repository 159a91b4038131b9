"""Noise: what typing errors and careless wording cost, in the inputs and in the prompt's own words.

    loss(s) = score on clean words - score with a share s of the words spoilt, on the same examples

Typing errors: a letter is hit beside its key, swapped with the next, left out or doubled. Wording: other case, a mark
or a space too many, a missing article, a synonym. Each word has its error; a larger share spoils more, and the same.

Papers: Ribeiro et al. 2020, Beyond Accuracy: Behavioral Testing of NLP Models with CheckList,
    https://arxiv.org/abs/2005.04118 (section 2, invariance tests); Zhu et al. 2023, PromptBench,
    https://arxiv.org/abs/2306.04528 (section 2.2, character and word level)
Departure: errors are drawn, not searched for to do harm, as people make them; the prompt's words are spoilt in three
    ways, and an example's value is their mean. The classes' names and what stands in braces are never touched.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from ..prompt.values import Frame
from ..task import Example
from .measure import Finding, Measure, register
from .paraphrases import SYNONYMS
from .subject import EACH, Floats, Inputs, Subject
from .variants import DENSE, framed, marks, over_examples, refusal

SHARES = (0.05, 0.10, 0.20)  # of the words
MAIN = 0.10  # the share that the headline tells of
DRAWS = 3  # of errors in the prompt
ARTICLES = ("a", "an", "the")
_ROWS = ("qwertyuiop", "asdfghjkl", "zxcvbnm")
_PLACE = {c: (y, x) for y, row in enumerate(_ROWS) for x, c in enumerate(row)}
KEYS = {  # the keys that touch a key; each row of the keyboard stands half a key to the right of the one above
    c: "".join(d for d, (v, u) in _PLACE.items() if (v, u - x) in ((y, -1), (y, 1), (y - 1, 0), (y - 1, 1),
                                                                   (y + 1, -1), (y + 1, 0)))
    for c, (y, x) in _PLACE.items()
}  # fmt: skip
COMMON = {
    "want": "wish", "need": "require", "get": "receive", "help": "assist", "buy": "purchase", "big": "large",
    "small": "little", "fast": "quick", "easy": "simple", "problem": "issue", "wrong": "incorrect", "start": "begin",
    "stop": "halt", "maybe": "perhaps", "also": "too", "again": "once more", "twice": "two times", "happy": "glad",
    "angry": "cross", "new": "fresh", "old": "aged", "end": "finish", "keep": "hold", "show": "display",
    "ask": "inquire", "try": "attempt", "broken": "damaged", "because": "since", "but": "yet", "please": "kindly",
}  # fmt: skip
ALIKE = {**{k: v for k, v in SYNONYMS[0].items() if " " not in k}, **COMMON}
Edit = Callable[[str, np.random.Generator], str]


def typo(word: str, rng: np.random.Generator) -> str:
    """The word with one typing error; it always differs. Two letters or more."""
    i, kind = int(rng.integers(len(word) - 1)), int(rng.integers(4))
    near, pick = KEYS.get(word[i].lower(), ""), rng.random()
    if kind == 0 and near:
        key = near[int(pick * len(near))]
        return word[:i] + (key.upper() if word[i].isupper() else key) + word[i + 1 :]
    if kind == 1 and word[i] != word[i + 1]:
        return word[:i] + word[i + 1] + word[i] + word[i + 2 :]
    return word[:i] + word[i + 1 :] if kind == 2 else word[:i] + word[i] + word[i:]


def careless(word: str, rng: np.random.Generator) -> str:
    """The word as somebody in a hurry might write it: an article left out, a synonym, else case, a mark or a space. It
    always differs, also in scripts without case."""
    kind = int(rng.integers(4))
    if word.upper() == word.lower():
        kind = 1 + int(rng.integers(3))
    if word.lower() in ARTICLES:
        return ""
    if kind == 0 and word.lower() in ALIKE:
        return ALIKE[word.lower()]
    return (word.upper() if word.islower() else word.lower(), word + ",", word + " ", word + "!")[kind]


EDITS: dict[str, Edit] = {"typing errors": typo, "wording": careless}


def spoilt(
    text: str, shares: Sequence[float], edit: Edit, rng: np.random.Generator, kept: Sequence[str] = ()
) -> list[str]:
    """The text with each share of its words edited; share s of n words: floor(s n + u), u drawn once, s n on average.

    Words have two letters or more (articles one), and their vowel signs; of scripts without spaces two characters count
    as a word. Slots in braces and the texts `kept` (in any case) are none.
    """
    spans = _words(text, edit is careless, tuple(kept))
    order, u = rng.permutation(len(spans)), rng.random()
    said = [edit(text[a:b], rng) for a, b in spans]
    out = []
    for share in shares:
        chosen, new, end = set(order[: int(share * len(spans) + u)].tolist()) if share else set(), "", 0
        for i, (a, b) in enumerate(spans):
            if i in chosen:
                new, end = new + text[end:a] + said[i], b
        out.append(new + text[end:])
    return out


def _words(text: str, articles: bool, kept: tuple[str, ...]) -> list[tuple[int, int]]:
    """Where the words are that may be edited."""
    edge = rf"[\w{marks()}]"
    bounds = {k: ("", "") if re.search(DENSE, k) else (f"(?<!{edge})", f"(?!{edge})") for k in kept}
    fixed = [
        r"\{[^{}]*\}",
        *(f"{bounds[k][0]}{re.escape(k)}{bounds[k][1]}" for k in sorted(kept, key=len, reverse=True)),
    ]
    letters = rf"(?:[^\W\d_]|[{marks()}]){{2,}}"
    one = re.compile(rf"{DENSE}{{2}}|(?<!{edge})(?:{'a|' * articles}{letters})(?!{edge})", re.IGNORECASE)
    found, start = [], 0
    for stop, after in [*(m.span() for m in re.finditer("|".join(fixed), text, re.IGNORECASE)), (len(text), len(text))]:
        found += [m.span() for m in one.finditer(text, start, stop)]
        start = after
    return found


def noisy_frames(frame: Frame, edit: Edit, rng: np.random.Generator, shares: Sequence[float] = SHARES) -> list[Frame]:
    """The frame with each share of the words of its instruction and template spoilt."""
    kept = (*frame.words, *frame.labels)
    said, templates = (spoilt(t, shares, edit, rng, kept) for t in (frame.instruction, frame.template))
    return [replace(frame, instruction=i, template=t) for i, t in zip(said, templates, strict=True)]


def noisy_inputs(
    examples: Sequence[Example], edit: Edit, rng: np.random.Generator, kept: Sequence[str]
) -> list[list[Inputs]]:
    """By share, the inputs of each example."""
    each = [[spoilt(t, SHARES, edit, rng, kept) for t in e.inputs] for e in examples]
    return [[tuple(texts[s] for texts in fields) for fields in each] for s in range(len(SHARES))]


def run(subject: Subject) -> Finding:
    frame, metric, rng = subject.prompt.frame, EACH[subject.task.kind], subject.rng("noise")
    spoken = any([frame] != noisy_frames(frame, edit, subject.rng("noise"), (1.0,)) for edit in EDITS.values())
    each = len(EDITS) * len(SHARES)
    kept, examples, notes = subject.affordable("noise", 1 + each + (DRAWS * each if spoken else 0))
    words, clean = (*frame.words, *frame.labels), subject.values(examples=examples)
    left, found = kept - 1, list[tuple[str, str, float, Floats]]()
    for name, edit in EDITS.items():
        for share, inputs in list(zip(SHARES, noisy_inputs(examples, edit, rng, words), strict=True))[: max(0, left)]:
            found.append(("inputs", name, share, subject.values(examples=examples, inputs=inputs)))
            left -= 1
    for name, edit in EDITS.items() if spoken else ():
        draws = [noisy_frames(frame, edit, rng) for _ in range(min(DRAWS, left // len(SHARES)))]
        left -= len(draws) * len(SHARES)
        for s, share in enumerate(SHARES if draws else ()):
            of = [subject.values(framed(subject, frames[s]), examples) for frames in draws]
            found.append(("prompt", name, share, np.mean(of, axis=0)))
    losses = [(where, name, share, over_examples(clean - v, subject.seed)) for where, name, share, v in found]
    rows = [("none", "", 0.0, float(clean.mean()), 0.0, 0.0, 0.0)]
    rows += [(w, name, share, float(clean.mean()) - i.value, i.value, i.low, i.high) for w, name, share, i in losses]
    main = [(w, name, i) for w, name, share, i in losses if share == MAIN]
    said = "; ".join(f"{name} in the {w} {i.value:+.3f} [{i.low:+.3f}, {i.high:+.3f}]" for w, name, i in main)
    first = main[0][2]
    return Finding(
        headline=f"with {MAIN:.0%} of the words spoilt the loss of {metric} is, from {clean.mean():.3f}: {said}",
        value=first.value,
        low=first.low,
        high=first.high,
        heads=("where", "noise", "words", metric, "loss"),
        rows=tuple((w, name, f"{share:.0%}", f"{v:.3f}", f"{loss:+.3f} [{low:+.3f}, {high:+.3f}]")
                   for w, name, share, v, loss, low, high in rows),
        details={"clean": float(clean.mean()), "losses": [
            {"where": w, "noise": name, "share": share, metric: v, "loss": loss, "low": low, "high": high}
            for w, name, share, v, loss, low, high in rows[1:]]},
        chart={"kind": "ranges", "points": [[f"{w}, {name}, {share:.0%}", loss, low, high]
                                            for w, name, share, _, loss, low, high in rows[1:]]},
        notes=notes if spoken else (*notes, "the prompt has no words of its own to spoil: the inputs alone were"),
    )  # fmt: skip


def refuses(subject: Subject) -> str:
    return refusal(subject, least=1 + len(SHARES))


register(
    Measure(
        name="noise",
        summary="what typing errors and careless wording cost, in the inputs and in the prompt",
        run=run,
        refuses=refuses,
        paper="[Ribeiro et al. 2020](https://arxiv.org/abs/2005.04118)",
    )
)
