"""A planted world: a "model" whose skill depends on cues in the prompt, and a "writer" whose grammar holds them.

Every example needs one of four cues; it is answered right iff the prompt holds the cue it needs (a quarter are easy:
they need none) and no bad phrase spoils it. The perfect prompt holds the four good cues and no bad one. The same brains
speak directly (`Direct`) and over HTTP (tests.loopback).
"""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from anacrusis import Split, Task
from anacrusis.model.calls import Call, Reply

LABELS = ("blue", "green", "red")
TOPICS = ("rivers", "stamps", "engines", "gardens")
GOOD = ("look up the glossary", "check the unit twice", "name the owner first", "ignore the headline")
BAD = ("answer in a hurry", "guess when unsure")
IDLE = ("be kind", "use plain words", "you are an expert", "take a breath", "write neatly", "think of the reader")
PHRASES = (*GOOD, *BAD, *IDLE)
BASE = "Answer with one of: blue, green, red."
_PROMPT = re.compile(r"<prompt>(?! and </prompt>)(.*?)</prompt>", re.DOTALL)
_TAG = re.compile(r"inside <(\w+)> and </")


def _number(*things: object) -> int:
    return int(hashlib.sha256("|".join(map(str, things)).encode()).hexdigest()[:12], 16)


class World:
    """seed: of the examples. Everything it says is a function of what it is asked."""

    def __init__(self, seed: int = 0, examples: int = 160):
        rng = random.Random(seed)
        self.gold: dict[str, str] = {}
        self.needs: dict[str, int | None] = {}
        texts = []
        for i in range(examples):
            topic = rng.randrange(4)
            text = f"case {seed}-{i} about {TOPICS[topic]}"
            texts.append(text)
            self.gold[text] = LABELS[i % 3]
            self.needs[text] = None if rng.random() < 0.25 else topic
        self.task = Task.from_lists(
            texts, [self.gold[t] for t in texts], name="planted-words", split=Split(valid=0.25, test=0.25, seed=seed)
        )

    # the model that is asked

    def right(self, prompt: str, text: str) -> bool:
        prompt = prompt.lower()
        need = self.needs[text]
        if any(b in prompt and _number(b, text) % 4 == 0 for b in BAD):
            return False
        return need is None or GOOD[need] in prompt

    def skill(self, prompt: str) -> float:
        return sum(self.right(prompt, t) for t in self.gold) / len(self.gold)

    def answer(self, said: str) -> str:
        text = re.findall(r"^Text: (.*)$", said, re.MULTILINE)[-1].strip()
        before = said[: said.rindex(text)]
        gold = self.gold[text]
        return gold if self.right(before, text) else LABELS[(LABELS.index(gold) + 1) % 3]

    # the model that writes

    def write(self, said: str, draw: object) -> str:
        rng = random.Random(_number(said, draw))
        tags = _TAG.findall(said)
        tag = tags[-1] if tags else ""
        if tag == "better":
            return self.judge(said)
        if tag in ("prompt", ""):
            many = re.search(r"(\d+) (?:new |different )?(?:instructions|variations|versions)", said)
            n = int(many[1]) if many and "each" in said else 1
            if "numbered list" in said:
                return "\n".join(f"{i + 1}. {self.proposal(said, rng)}" for i in range(n))
            texts = [self.proposal(said, rng) for _ in range(n)]
            return "\n".join(f"<prompt>{t}</prompt>" for t in texts) if tag else texts[0]
        return f"Let me think. <{tag}>{self.advice(said, rng)}</{tag}>"

    def advice(self, said: str, rng: random.Random) -> str:
        hints = self.hints(said)
        return f"The instruction should say: {rng.choice(hints)}." if hints else "It should be clearer."

    def hints(self, said: str) -> list[str]:
        """Cues for the topics of wrongly answered examples, and phrases that an earlier advice named."""
        found = []
        for block in said.split("\n\n"):
            wrong = re.search(r"Right answer: (\w+)\s*\n\s*Given answer: (\w+)", block)
            if wrong and wrong[1] != wrong[2]:
                found += [GOOD[i] for i, t in enumerate(TOPICS) if f"about {t}" in block]
        found += [p for p in PHRASES if f"should say: {p}" in said]
        return found

    def proposal(self, said: str, rng: random.Random) -> str:
        """The last prompt shown, changed: a phrase added, dropped, or taken from another one."""
        shown = [t for t in _PROMPT.findall(said) if t.strip()]
        phrases = [p for p in PHRASES if shown and p in shown[-1].lower()]
        if len(shown) > 1 and rng.random() < 0.5:
            both = [p for p in PHRASES if any(p in t.lower() for t in shown[-4:])]
            phrases = [p for p in both if p in phrases or rng.random() < 0.6]
        if "in your own way" in said:  # nothing to go by: any number of phrases, blindly
            phrases = rng.sample(PHRASES, rng.randrange(7))
            return " ".join([BASE, *(p[0].upper() + p[1:] + "." for p in phrases)])
        turn = rng.random()
        hints = self.hints(said)
        if turn < 0.25 and phrases:
            phrases.remove(rng.choice(phrases))
        elif turn < 0.9:
            new = rng.choice(hints) if hints and rng.random() < 0.7 else rng.choice(PHRASES)
            phrases = list(dict.fromkeys([*phrases, new]))
        return " ".join([BASE, *(p[0].upper() + p[1:] + "." for p in phrases)])

    # the model that judges

    def judge(self, said: str) -> str:
        """The side with more right answers is better."""
        first, second = said[said.index("\nA:") :].split("\nB:", 1)
        sides = [
            sum(answer.strip().lower().startswith(self.gold.get(text.strip(), "?"))
                for text, answer in re.findall(r"Text: (.*)\n(?:.*\n)*?Answer: (.*)", side))
            for side in (first, second)
        ]  # fmt: skip
        better = "A" if sides[0] > sides[1] else "B" if sides[1] > sides[0] else "neither"
        return f"<better>{better}</better>"

    # both, over HTTP or directly

    def brain(self, body: Mapping[str, Any], draw: object) -> str:
        said = "\n".join(str(m["content"]) for m in body["messages"])
        return self.answer(said) if str(body["model"]).endswith("task") else self.write(said, draw)


class Direct:
    """A speaker without HTTP: endpoint and model in one process."""

    can = frozenset({"text"})
    arrangement = "endpoint"
    fingerprint = "0" * 24

    def __init__(self, world: World, name: str = "openai:task", answer: Callable[[Call], str] | None = None):
        self.world, self.name, self.opening = world, name, dict[str, Any]()
        self.answer, self.asked = answer, 0

    def complete(
        self, calls: Sequence[Call], arrived: Any = None, *, within: float | None = None, salt: str = ""
    ) -> list[Reply]:
        out = {}
        for i, call in enumerate(calls):
            self.asked += 1
            body = {"model": self.name, "messages": [{"content": c} for _, c in call.messages]}
            text = self.answer(call) if self.answer else self.world.brain(body, f"{call.sample} {salt}")
            tokens = sum(len(c) // 4 for _, c in call.messages)
            out[i] = Reply(text, "ok" if text else "empty", tokens, len(text) // 4 + 1)
        if arrived:
            arrived(out)
        return list(out.values())
