"""Edits of a text without a writer: delete, swap, substitute, add, cross. Pure functions of texts, pieces and an rng.

Pieces (sentences, phrases or words) keep the white space behind them, so that joined they give the text. A piece that
holds a placeholder such as {text} is locked: it may move, but is never lost."""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from .search import Search

Pieces = tuple[str, ...]
LEVELS = {"sentence": r"(?<=[.!?])\s+|\n+", "phrase": r"(?<=[.,;:!?])\s+|\n+", "word": r"\s+"}  # cut behind these
KINDS = ("delete", "swap", "substitute", "add")
ENDS = {"sentence": ".!?", "phrase": ".,;:!?", "word": ""}
_HOLE, _WORD = re.compile(r"\{[^{}]*\}"), re.compile(r"[^\W_]{2,}")


def split(text: str, level: str) -> Pieces:
    """join(split(text)) == text.strip(). What stands between braces is never cut."""
    text = text.strip()
    holes = [m.span() for m in _HOLE.finditer(text)]
    cuts = [m.end() for m in re.finditer(LEVELS[level], text) if not any(a < m.end() < b for a, b in holes)]
    return tuple(text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True) if b > a)


def join(pieces: Iterable[str], level: str) -> str:
    """A piece that nothing ends gets a line of its own, so that the pieces of the text are these."""
    ends = ("",) if level == "word" else tuple(ENDS[level])
    return "".join(p if p[-1:].isspace() else p + (" " if p.endswith(ends) else "\n") for p in pieces).strip()


def locked(piece: str) -> bool:
    return bool(_HOLE.search(piece))


def bare(piece: str) -> str:
    """Two pieces say the same when they agree but for case, marks at the ends and white space."""
    return piece.strip().strip(ENDS["phrase"]).casefold()


def once(pieces: Iterable[str]) -> Pieces:
    """Without repetitions; a piece without letters or digits never is one."""
    return tuple({bare(p) or i: p for i, p in enumerate(pieces)}.values())


def said(phrase: str, level: str) -> str:
    """A phrase as a piece: as it stands where pieces are words, else with a capital and a mark at its end."""
    phrase = phrase.strip()
    if level == "word":
        return phrase
    return phrase[:1].upper() + phrase[1:] + ("" if phrase.endswith(tuple(ENDS[level])) else ".")


def splice(pieces: Pieces, a: int, b: int, *new: str) -> Pieces:
    """Pieces a to b taken out and `new` in their place."""
    return (*pieces[:a], *new, *pieces[b:])


def edited(text: str, kind: str, pool: Sequence[str], rng: random.Random, level: str) -> tuple[str, str] | None:
    """(the text after one edit of KINDS at a random place, the phrase that it took away or ""). None where there is
    nothing to edit: no free piece, or no new phrase in the pool. A text keeps at least one piece."""
    pieces = split(text, level)
    free = [i for i, p in enumerate(pieces) if not locked(p)]
    have = {bare(p) for p in pieces}
    new = [p for p in pool if bare(p) not in have]
    if kind == "delete" and free and len(pieces) > 1:
        i = rng.choice(free)
        return join(splice(pieces, i, i + 1), level), pieces[i].strip()
    if kind == "substitute" and free and new:
        i = rng.choice(free)
        return join(splice(pieces, i, i + 1, said(rng.choice(new), level)), level), pieces[i].strip()
    if kind == "swap" and len(pieces) > 1:
        a, b = sorted(rng.sample(range(len(pieces)), 2))
        return join(splice(splice(pieces, b, b + 1, pieces[a]), a, a + 1, pieces[b]), level), ""
    if kind == "add" and new:
        i = rng.randrange(len(pieces) + 1)
        return join(splice(pieces, i, i, said(rng.choice(new), level)), level), ""
    return None


def crossed(texts: Sequence[str], rng: random.Random, level: str, segments: int = 2) -> str:
    """Segment j of the child is the j-th part of the pieces of texts[j % n]: for two texts and two segments the
    beginning of one and the end of the other. A child that would lose or double a placeholder is the first text."""
    cuts = [0.0, rng.random(), 1.0] if segments == 2 else [j / segments for j in range(segments + 1)]
    child: list[str] = []
    for j in range(segments):
        pieces = split(texts[j % len(texts)], level)
        child += pieces[round(cuts[j] * len(pieces)) : round(cuts[j + 1] * len(pieces))]
    text = join(once(child), level)
    return text if text and sorted(_HOLE.findall(text)) == sorted(_HOLE.findall(texts[0])) else texts[0]


def pools(s: Search, level: Mapping[str, str], given: Sequence[str] = (), size: int = 200) -> dict[str, Pieces]:
    """By slot, the phrases that may be added: those given; else, for the text of class c, `size` words of its training
    texts, as many pairs and triples that stand together there, and whole texts; for other slots the pieces of shipped
    wordings, and for templates frequent words too."""
    if given:
        return {slot: tuple(given) for slot in s.slots}
    total = Counter(w for e in s.task.train for t in e.inputs for w in _WORD.findall(t.lower()))
    frequent, seeds = [w for w, _ in total.most_common(size)], s.seeds(100)
    out: dict[str, Pieces] = {}
    for slot in s.slots:
        name, _, c = slot.partition(":")
        if c:
            texts = [t for e in s.task.train if e.gold == int(c) for t in e.inputs]
            out[slot] = once(p for n in (1, 2, 3, 0) for p in spread(spans(texts, n), size))
        else:
            shipped = (p.strip() for x in seeds for p in split(s.text(x, slot), level[slot]) if not locked(p))
            out[slot] = once(p for p in (*shipped, *(frequent if name == "template" else ())) if bare(p))
    return out


def spans(texts: Iterable[str], n: int) -> Pieces:
    """All n words that stand together in a text; n = 0: the texts."""
    found = []
    for text in texts:
        words = text.split()
        found += [" ".join(words[i : i + n]) for i in range(len(words) - n + 1)] if n else [text.strip()]
    return tuple(dict.fromkeys(p for p in found if bare(p) and not locked(p)))


def spread(pieces: Pieces, most: int) -> Pieces:
    """At most so many of the pieces, evenly from all of them."""
    return pieces[:: max(1, -(-len(pieces) // most))]
