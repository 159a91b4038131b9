"""Paraphrases: how much the wording of a prompt matters when its meaning stays, and what asking in several ways gives.

    spread = score of the best wording - score of the worst, the two picked on the other half of the examples
    ensemble of k wordings: p(c | x) = (1 / k) sum_v p_v(c | x),    (k, N, C) -> (N, C); its answer is the likeliest c

Paper: Voronov et al. 2024, Mind Your Format, https://arxiv.org/abs/2401.06766 (section 6, template ensembles)
Departure: the wordings are rewordings of one prompt by the rules below, or given, not templates of several authors; a
    model that gives no probabilities votes (of equal votes, the one that the prompt's own wording casts, or that comes
    first). The mean of single wordings is reported beside the prompt alone: it is what a wording picked blindly gives.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..prompt.values import Frame
from .measure import Finding, Measure, register
from .subject import EACH, Floats, Subject
from .variants import LUCK, Variant, difference, framed, over_examples, picked, refusal, values_of

MOST = 12
ENSEMBLE = 5
SYNONYMS: tuple[Mapping[str, str], ...] = (
    {"answer": "reply", "classify": "categorise", "choose": "pick", "decide": "judge", "read": "look at",
     "text": "passage", "label": "category", "give": "provide", "write": "state", "best": "most fitting",
     "summarise": "sum up", "translate": "render", "topic": "subject", "question": "query", "about": "concerning",
     "one of": "one of these", "sentiment": "feeling", "review": "assessment", "message": "note"},
    {"answer": "respond", "classify": "sort", "choose": "select", "decide": "determine", "read": "consider",
     "text": "input", "label": "class", "give": "return", "write": "put down", "best": "closest",
     "summarise": "condense", "translate": "convert", "topic": "theme", "question": "problem", "about": "regarding",
     "one of": "any one of", "sentiment": "attitude", "review": "opinion", "message": "text"},
)  # fmt: skip
NOUNS: Mapping[str, str] = {"reply": "response", "respond": "result"}  # "Answer:" is a noun
ASIDE: tuple[Callable[[str], str], ...] = (
    lambda t: f"Please {_lower(t)}",
    lambda t: f"Could you {_lower(t).rstrip('.')}?",
    lambda t: f"You should {_lower(t)}",
    lambda t: f"Your task: {_lower(t)}",
    lambda t: f"Now {_lower(t)}",
    lambda t: f"{t} Thank you.",
    lambda t: f"I would like you to {_lower(t)}",
)
AROUND = ("This text is about: {}", "Here is a text: {}", "Somebody wrote: {}", "The text says: {}", '"{}"', "Text: {}",
          "What is this about? {}", "Read this: {}")  # fmt: skip
READ = ("Read this.", "Read the text below.", "Look at the text that follows.", "Here is a text.")
_IMPERATIVE = re.compile(
    r"(?:answer|classify|choose|decide|read|write|give|pick|name|say|label|summarise|summarize|translate|complete|do|"
    r"select|sort|reply|look|think|state|rewrite|extract|find|determine|identify)\b[^.!?]*[.!]?\s*", re.IGNORECASE
)  # fmt: skip


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:]


def reworded(text: str, synonyms: Mapping[str, str], kept: tuple[str, ...] = ()) -> str:
    """The text with synonyms for its words, in their case; slots in braces and the words `kept` stay."""
    free = sorted(synonyms, key=len, reverse=True)
    fixed = [re.escape(w) for w in sorted(kept, key=len, reverse=True)]
    whole = "|".join([*fixed, "(?P<word>" + "|".join(free) + ")"])

    def said(found: re.Match[str]) -> str:
        word = found["word"]
        if not word:
            return found[0]
        new = synonyms[word.lower()]
        return new.upper() if word.isupper() else new.capitalize() if word[0].isupper() else new

    return re.sub(rf"\{{[^{{}}]*\}}|(?<!\w)(?:{whole})(?!\w)", said, text, flags=re.IGNORECASE)


def paraphrases(frame: Frame, given: tuple[str, ...] = ()) -> list[Variant]:
    """Frames that say the same in other words, at most MOST: with the instructions given; else by rules. None is this
    one."""
    found: list[Variant] = [("given", replace(frame, instruction=i)) for i in given]
    if not given:
        said, words = frame.instruction, frame.words
        for synonyms in SYNONYMS:
            nouns = {k: NOUNS.get(v, v) for k, v in synonyms.items()}
            new, template = reworded(said, synonyms, words), reworded(frame.template, nouns, words)
            found += [("instruction", replace(frame, instruction=new)), ("template", replace(frame, template=template))]
            found.append(("both", replace(frame, instruction=new, template=template)))
        if _IMPERATIVE.match(said):
            one = _IMPERATIVE.fullmatch(said) is not None  # a question of several sentences would end in the middle
            asides = [a for i, a in enumerate(ASIDE) if i != 1 or one]
            found += [("instruction", replace(frame, instruction=a(said))) for a in asides]
        if not said and frame.template.strip() == "{" + frame.fields[0] + "}":
            found += [("template", replace(frame, template=a.format(frame.template))) for a in AROUND]
        elif not said:
            found += [("instruction", replace(frame, instruction=i)) for i in READ]
    unique = {(f.instruction, f.template): (how, f) for how, f in found}
    unique.pop((frame.instruction, frame.template), None)
    return list(unique.values())[: max(MOST, len(given))]


def votes(answers: NDArray[np.int64], classes: int) -> NDArray[np.int64]:
    """(N,) the class that most of k answers name; of equal ones, that of the first answer among them. answers: (k, N),
    -1: none; -1 where nobody names any."""
    out = np.full(answers.shape[1], -1)
    for i, column in enumerate(answers.T):
        named = column[column >= 0]
        if len(named):
            count = np.bincount(named, minlength=classes)
            out[i] = next(c for c in named if count[c] == count.max())
    return out


def together(subject: Subject, frames: list[Frame], inputs: list[tuple[Any, ...]]) -> Any:
    """Predictions of an ensemble, in the form that metrics take."""
    prompts = [framed(subject, f) for f in frames]
    if subject.endpoint:
        return votes(np.array([subject.predictions(p, inputs) for p in prompts]), len(subject.task.labels))
    mean: Floats = np.mean([subject.probabilities(p, inputs) for p in prompts], axis=0)
    return mean - 0.5 if subject.task.kind == "multilabel" else mean.argmax(1)


def run(subject: Subject) -> Finding:
    own, metric, rng = subject.prompt.frame, EACH[subject.task.kind], subject.rng("paraphrases")
    every = [("the prompt's own", own), *paraphrases(own, subject.paraphrases)]
    kept, examples, notes = subject.affordable("paraphrases", len(every))
    variants = every[:kept]
    values = values_of(subject, [f for _, f in variants], examples)
    spread = over_examples(picked(values, rng), subject.seed)
    means = values.mean(1)
    said = f"wording spread {spread.value:.3f} [{spread.low:.3f}, {spread.high:.3f}]: {metric} from {means.min():.3f} "
    said += f"to {means.max():.3f} over {kept} wordings, {means[0]:.3f} with the prompt's own"
    details: dict[str, Any] = {
        "spread": spread.value, "raw_spread": float(np.ptp(means)), "own": float(means[0]),
        "wordings": [{"instruction": f.instruction, "template": f.template, "changed": how, metric: float(m)}
                     for (how, f), m in zip(variants, means, strict=True)],
    }  # fmt: skip
    if subject.task.kind != "generation":
        inputs = [e.inputs for e in examples]
        chosen = [0, *(1 + rng.permutation(kept - 1)[: ENSEMBLE - 1])]
        several = together(subject, [variants[i][1] for i in chosen], inputs)
        gain = difference(subject, several, subject.predictions(inputs=inputs), examples)
        each = subject.judged(several, examples)
        over = over_examples(each - values[chosen].mean(0), subject.seed)
        how = "votes" if subject.endpoint else "mean probabilities"
        said += f"; {how} of {len(chosen)} wordings gain {gain.value:+.3f} [{gain.low:+.3f}, {gain.high:+.3f}] over it"
        details["ensemble"] = {"wordings": [int(i) for i in chosen], "how": how, metric: float(each.mean())}
        for name, found in (("gain", gain), ("gain_over_mean", over)):
            details["ensemble"] |= {name: found.value, f"{name}_low": found.low, f"{name}_high": found.high}
    return Finding(
        headline=said,
        value=spread.value,
        low=spread.low,
        high=spread.high,
        heads=("wording", metric),
        rows=tuple((_shown(f), f"{m:.3f}") for (_, f), m in zip(variants, means, strict=True)),
        details=details,
        chart={"kind": "bars", "points": [[_shown(f), float(m)] for (_, f), m in zip(variants, means, strict=True)]},
        notes=(*notes, LUCK),
    )  # fmt: skip


def _shown(frame: Frame) -> str:
    return json.dumps(f"{frame.instruction}\n\n{frame.template}".lstrip(), ensure_ascii=False)


def refuses(subject: Subject) -> str:
    if why := refusal(subject):
        return why
    if not paraphrases(subject.prompt.frame, subject.paraphrases):
        return "the rules know no other words for this prompt; give some: paraphrases=(instruction, ...)"
    return ""


register(
    Measure(
        name="paraphrases",
        summary="how much the wording matters when the meaning stays, and what asking in several wordings gives",
        run=run,
        refuses=refuses,
        paper="[Voronov et al. 2024](https://arxiv.org/abs/2401.06766)",
    )
)
