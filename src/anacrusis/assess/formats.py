"""Formats: how much the layout of a prompt matters when its words stay: separators, line breaks, casing, wrappers.

FormatSpread looks for the best and the worst format with few answers. Each step draws an accuracy for each format f
that has not seen all examples, and scores a batch of the one with the largest draw (then, as long, the smallest):

    theta_f ~ Beta(a + hits_f, b + seen_f - hits_f),    f = argmax_f theta_f    (second half: argmin)
    spread = accuracy of the best - accuracy of the worst, both on the half of the examples that chose neither

Papers: Sclar et al. 2023, Quantifying Language Models' Sensitivity to Spurious Features in Prompt Design,
    https://arxiv.org/abs/2310.11324 (section 3); He et al. 2024, Does Prompt Formatting Have Any Impact on LLM
    Performance?, https://arxiv.org/abs/2411.10541 (plain, Markdown, JSON, YAML)
Departure: best and worst are chosen by their posterior means, where the release takes the luckiest raw means; the
    search sees half of the examples, and the spread is that of the other half: where no format is better than another
    it is about 0, while that of the examples that chose is not; the prior holds 10 examples at the original's
    (smoothed) accuracy, which is defined at an accuracy of 1 too. A template without field names gets those of its
    fields.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from ..prompt.values import Frame
from .measure import Finding, Measure, register
from .subject import EACH, Floats, Subject
from .variants import Variant, difference, framed, listed, refusal

FORMATS = 40  # layouts that are looked for
BATCH = 20
PRIOR = 10.0  # examples
SEPARATORS = (": ", " : ", ":: ", " ::: ", " - ", " = ", " | ", " -> ", ":\n", "\n", ":\t", " ")
BETWEEN = ("\n", "\n\n", " ", "  ", "\t", " | ", " || ", "; ", " -- ", "\n\t", "\n---\n", " <sep> ")
CASINGS: dict[str, Callable[[str], str]] = {"as it is": str, "lower": str.lower, "upper": str.upper, "title": str.title}
WRAPPERS = ("{}", "[{}]", "<{}>", "({})", "**{}**", "# {}")
OPTIONS = (", ", "; ", " | ", " / ", "\n- ", "\n* ")
_NAMED = re.compile(r"(\s*)[\[<(*#]*\s?([^\W\d_][\w' ]{0,40}?)[\])>*]*\s*[:=|>-]+\s*")


@dataclass(frozen=True)
class Layout:
    """One choice of each part of the grammar."""

    separator: str = ": "  # between a field's name and the field
    between: str = "\n"  # between fields
    casing: str = "as it is"  # of names
    wrapper: str = "{}"  # around names
    options: str = ", "  # between the classes that the instruction lists


@dataclass(frozen=True)
class Piece:
    """What a template says up to a slot: a field's name, or a text that stays as it is; and the slot."""

    gap: str  # white space before it
    name: str
    text: str
    slot: str  # "" behind the last one

    @property
    def field(self) -> str:
        return self.slot[1:-1].strip()

    @property
    def silent(self) -> bool:
        """Whether a person who reads the template would not see the slot: {sep}, {soft}."""
        return re.match(r"sep$|soft\b", self.field) is not None


def pieces(frame: Frame) -> list[Piece]:
    """The template cut behind its slots. A field that nothing stands before gets its name."""
    cut = re.split(r"(\{[^{}]*\})", frame.template)
    out = []
    for literal, slot in zip(cut[::2], [*cut[1::2], ""], strict=True):
        field, named = slot[1:-1].strip(), _NAMED.fullmatch(literal)
        if named and (not slot or field in (*frame.fields, "mask")):
            out.append(Piece(named[1], named[2], "", slot))
        elif field in frame.fields and not literal.strip():
            out.append(Piece(literal, field.replace("_", " ").capitalize(), "", slot))
        elif slot or literal.strip():
            body = literal.lstrip()
            out.append(Piece(literal[: len(literal) - len(body)], "", body, slot))
    return out


def laid(frame: Frame, layout: Layout) -> Frame:
    """The frame in another layout; the slots and their order stay."""
    template, before = "", Piece("", "", "", "{soft}")
    for p in pieces(frame):
        if before.silent or not (p.gap or p.name):
            template += p.gap
        else:
            template += layout.between
        name = layout.wrapper.format(CASINGS[layout.casing](p.name))
        separator = layout.separator if p.slot else layout.separator.rstrip(" ")  # the answer follows
        template += name + separator + p.slot if p.name else p.text + p.slot
        before = p
    instruction, found = frame.instruction, listed(frame.instruction, frame.words)
    if found and all(re.fullmatch(r"[\s,;|/*-]+", j) for j in found.joints):
        instruction = found.said(instruction, found.words, [layout.options] * len(found.joints))
        if layout.options.startswith("\n"):
            instruction = instruction[: found.start].rstrip() + layout.options + instruction[found.start :]
    return replace(frame, template=template, instruction=instruction)


def layouts(frame: Frame, count: int, rng: np.random.Generator) -> list[Variant]:
    """At most so many frames that differ from this one and from each other in layout alone, drawn evenly."""
    seen, out = {(frame.template, frame.instruction)}, list[Variant]()
    for _ in range(10 * count):
        parts = (SEPARATORS, BETWEEN, tuple(CASINGS), WRAPPERS, OPTIONS)
        layout = Layout(*(p[int(rng.integers(len(p)))] for p in parts))
        found = laid(frame, layout)
        if (found.template, found.instruction) not in seen and len(out) < count:
            seen.add((found.template, found.instruction))
            out.append((f"{found.instruction}\n\n{found.template}".lstrip(), found))
    return out


def styles(frame: Frame) -> list[Variant]:
    """The prompt as plain text, Markdown, JSON and YAML; none for a template with {sep} or {soft}."""
    entries: list[list[str]] = []
    for p in pieces(frame):
        if p.silent:
            return []
        if p.name or p.gap or not entries:
            entries.append([p.name or {"mask": "answer"}.get(p.field, p.field or "answer"), p.text + p.slot])
        else:  # goes on where the last one ended
            entries[-1][1] += p.text + p.slot
    said, quoted = frame.instruction, json.dumps(frame.instruction, ensure_ascii=False)
    inner = [(name.lower(), json.dumps(value, ensure_ascii=False) if value else "") for name, value in entries]
    fields = ", ".join(f'"{name}": {value}'.rstrip() for name, value in inner)
    written = {
        "plain": (said, "\n".join(f"{n}: {v}".rstrip() for n, v in entries)),
        "markdown": (f"## Instruction\n{said}", "\n\n".join(f"## {n.capitalize()}\n{v}" for n, v in entries)),
        "json": (f'{{"instruction": {quoted}}}', "{" + fields + ("}" if inner[-1][1] else "")),
        "yaml": (f"instruction: {quoted}", "\n".join(f"{n}: {v}".rstrip() for n, v in inner)),
    }
    return [(s, replace(frame, template=t, instruction=i if said else "")) for s, (i, t) in written.items()]


def thompson(
    score: Callable[[int, int, int], Floats], hits: Floats, seen: Floats, examples: int, budget: int,
    rng: np.random.Generator,
) -> tuple[Floats, Floats]:  # fmt: skip
    """(hits, examples seen) of each format, (K,) each, after at most `budget` answers; see the top of the file.

    score(k, i, j): how well format k answers examples i to j, all formats meet them in the same order. hits, seen: to
    begin with; the first is the original, seen on all `examples`, and gives the prior.
    """
    hits, seen = hits.copy(), seen.copy()
    a, b = prior(hits[0], seen[0])
    spent = 0
    for sign, until in ((1, budget // 2), (-1, budget)):
        while len(left := np.flatnonzero(seen < examples)):
            theta = rng.beta(a + hits[left], b + seen[left] - hits[left])
            k = int(left[(sign * theta).argmax()])
            n = min(BATCH, examples - int(seen[k]))
            if spent + n > until:
                break
            hits[k] += score(k, int(seen[k]), int(seen[k]) + n).sum()
            seen[k] += n
            spent += n
    return hits, seen


def prior(hits: float, seen: float) -> tuple[float, float]:
    """(a, b) of the Beta distribution: PRIOR examples at the accuracy (hits + 1) / (seen + 2)."""
    mean = (hits + 1) / (seen + 2)
    return PRIOR * mean, PRIOR * (1 - mean)


def run(subject: Subject) -> Finding:
    rng, own = subject.rng("formats"), subject.prompt.frame
    known: list[Variant] = [("the prompt's own", own), *styles(own)]
    fixed = len(known) + 2  # these, the best and the worst: on all examples
    _, examples, notes = subject.affordable("formats", 2 * fixed)
    n, half = len(examples), (len(examples) + 1) // 2
    order = rng.permutation(n)
    mixed = [examples[i] for i in order]
    budget = subject.cells - fixed * n
    more = layouts(own, min(FORMATS, max(1, budget // min(BATCH, half))), rng)
    arms = [*known, *(v for v in more if v[1] not in {f for _, f in known})]
    full = [subject.values(framed(subject, f), mixed) for _, f in known]
    hits, seen = np.zeros(len(arms)), np.zeros(len(arms))
    hits[: len(known)], seen[: len(known)] = [v[:half].sum() for v in full], half

    def score(k: int, i: int, j: int) -> Floats:
        return subject.values(framed(subject, arms[k][1]), mixed[i:j])

    hits, seen = thompson(score, hits, seen, half, budget, rng)
    a, b = prior(hits[0], seen[0])
    tried = np.flatnonzero(seen)
    means = (a + hits[tried]) / (a + b + seen[tried])
    best, worst = (arms[int(tried[i])] for i in (means.argmax(), means.argmin()))
    said = [subject.predictions(framed(subject, f), [e.inputs for e in mixed]) for _, f in (best, worst)]
    whole = difference(subject, said[0], said[1], mixed)
    spread = difference(subject, said[0][half:], said[1][half:], mixed[half:])
    both = [subject.values(framed(subject, f), mixed) for _, f in (best, worst)]
    table = [(which, *v, x) for which, v, x in zip(("best", "worst"), (best, worst), both, strict=True)]
    table += [("", *v, x) for v, x in zip(known, full, strict=True)]
    top, bottom, mine = (float(v[half:].mean()) for v in (*both, full[0]))
    below = float(((means < means[0]).sum() + 0.5 * ((means == means[0]).sum() - 1)) / max(1, len(tried) - 1))
    metric = EACH[subject.task.kind]
    return Finding(
        headline=f"format spread {spread.value:.3f} [{spread.low:.3f}, {spread.high:.3f}] on examples that chose no "
        f"format: {metric} {top:.3f} under the best and {bottom:.3f} under the worst of {len(tried)}; the prompt's "
        f"own, {mine:.3f}, does better than {below:.0%} of the others where they were chosen",
        value=spread.value,
        low=spread.low,
        high=spread.high,
        heads=("", "format", metric, "on all examples"),
        rows=tuple((which, json.dumps(name, ensure_ascii=False), f"{v[half:].mean():.3f}", f"{v.mean():.3f}")
                   for which, name, _, v in table),
        details={"spread": spread.value, "n": spread.n, "best": _shown(best), "worst": _shown(worst),
                 "best_score": top, "worst_score": bottom, "own": mine, "better_than": below,
                 "all_examples": {"spread": whole.value, "low": whole.low, "high": whole.high, "n": whole.n},
                 "styles": {name: float(v[half:].mean()) for (name, _), v in zip(known[1:], full[1:], strict=True)},
                 "formats": [{"format": arms[int(k)][0], "mean": float(m), "seen": int(seen[k])}
                             for k, m in zip(tried, means, strict=True)]},
        chart={"kind": "bars", "points": [[which or name, float(v[half:].mean())] for which, name, _, v in table]},
        notes=(*notes, f"best and worst were chosen on {half} of the {n} examples, and are told of on the {spread.n} "
               f"others; on all, which is partly luck, they are {whole.value:.3f} apart"),
    )  # fmt: skip


def _shown(variant: Variant) -> dict[str, str]:
    return {"template": variant[1].template, "instruction": variant[1].instruction}


def refuses(subject: Subject) -> str:
    return refusal(subject, least=14)


register(
    Measure(
        name="formats",
        summary="how much the layout matters: the best and the worst of many that say the same",
        run=run,
        refuses=refuses,
        paper="[Sclar et al. 2023](https://arxiv.org/abs/2310.11324)",
    )
)
