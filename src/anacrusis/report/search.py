"""The course of a search, read from its journal: candidates, scores, costs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import RunError
from ..runs.run import Run, read_plan
from ..runs.searching import Means
from ..search.candidate import Candidate
from ..search.ledger import Ledger, Observation, Scored

WIDTH = 100  # characters of a candidate's text in the tree


@dataclass(frozen=True)
class History:
    plan: Any
    candidates: tuple[Scored, ...]  # in the order in which they were first seen, on all examples that they saw
    requests: tuple[tuple[str, int], ...]  # verb, how often
    spent: Mapping[str, Any]  # by role
    seconds: float
    ended: bool
    chosen: str  # id of the winner, "" while it is not known
    text: str  # what the prompt says, once it is known

    def facts(self) -> list[tuple[str, str]]:
        best = max(self.candidates, key=lambda s: (s.n >= self._enough, *s.rank), default=None)
        rows = [
            ("method", f"{self.plan.method} on {self.plan.model}"),
            ("state", "done" if self.ended else "unfinished"),
            ("requests", ", ".join(f"{n} {verb}" for verb, n in self.requests)),
            ("seconds", f"{self.seconds:.1f}"),
        ]
        if self.plan.means.get("budget"):
            rows.append(("budget", self.plan.means["budget"]))
        for role, c in self.spent.items():
            if c["calls"]:
                rows.append((f"spent by the {role}", cost_of(c)))
        if best is not None and best.n:
            rows.append(("best so far", f"{best.mean:.3f} on {best.n} examples"))
        return rows

    @property
    def _enough(self) -> int:
        """Examples from which a mean says something: half of what the most seen candidate saw."""
        return max((s.n for s in self.candidates), default=0) // 2

    def tree(self, most: int) -> list[Any]:
        """(text, branches) pairs: the best `most` candidates and the start, each under its nearest ancestor that is
        shown too, with the number of steps that are left out between them."""
        by_id = {s.id: s for s in self.candidates}
        ranked = sorted(self.candidates, key=lambda s: (s.n >= self._enough, *s.rank), reverse=True)
        kept = {s.id for s in [*ranked[:most], *self.candidates[:1]]}
        below: dict[str, list[tuple[Scored, int]]] = {}
        for s in ranked:
            if s.id in kept:
                at, steps, seen = s, 0, {s.id}
                while (up := next((by_id[p] for p in at.candidate.parents if p in by_id), None)) is not None:
                    if up.id in seen:  # texts that came about twice may be each other's ancestors
                        up = None
                        break
                    at, steps = up, steps + 1
                    seen.add(up.id)
                    if up.id in kept:
                        break
                below.setdefault(up.id if up is not None else "", []).append((s, steps))

        def grow(name: str, seen: frozenset[str]) -> list[Any]:
            return [
                (
                    self.line(s) + (f"  ({steps - 1} steps between)" if steps > 1 and name else ""),
                    grow(s.id, seen | {s.id}),
                )
                for s, steps in below.get(name, ())
                if s.id not in seen
            ]

        return grow("", frozenset())

    def line(self, s: Scored) -> str:
        mark = " (chosen)" if s.id == self.chosen else ""
        score = f"{s.mean:.3f} on {s.n}" if s.n else "not scored"
        return f"{score}  {s.candidate.op}{mark}  {said(s.candidate)}"

    def to_json(self) -> dict[str, Any]:
        return {
            "method": self.plan.method, "model": self.plan.model, "ended": self.ended, "seconds": self.seconds,
            "requests": dict(self.requests), "spent": dict(self.spent), "chosen": self.chosen,
            "candidates": [
                {"id": s.id, "score": s.mean if s.n else None, "examples": s.n, **s.candidate.to_json()}
                for s in self.candidates
            ],
        }  # fmt: skip


def cost_of(cost: Mapping[str, Any]) -> str:
    money = f", ${cost['nanodollars'] / 1e9:.4f}" if cost["nanodollars"] else ""
    tokens = f", {cost['input']:,} tokens in, {cost['output']:,} out" if cost["input"] else ""
    return f"{cost['calls']:,} calls{tokens}{money}"


def said(candidate: Candidate) -> str:
    """A candidate in one line."""
    texts = []
    for part in candidate.parts.values():
        if isinstance(part, str):
            texts.append(part)
        elif part and all(isinstance(x, str) for x in part):
            texts.append(" / ".join(part))
        elif part and all(isinstance(x, tuple | list) for x in part):
            texts.append(f"{len(part)} demonstrations")
    line = " ".join((candidate.note or " | ".join(texts)).split())
    return line if len(line) <= WIDTH else line[: WIDTH - 3] + "..."


def read(folder: Path) -> History:
    """The course of the search in a run's folder, finished or not. Raises RunError where it was no search."""
    plan = read_plan(folder)
    if not plan.means:
        raise RunError(f"the run in {folder} was no search, so it has no candidates. Its record is journal.jsonl")
    means = Means.kept_by(plan.means)
    if not means.begun(folder):
        raise RunError(f"the search in {folder} has not begun yet")
    with means.store_at(folder) as store:
        events = store.events()
    ledger, count = Ledger(), dict[str, int]()
    for e in events:
        count[e["verb"]] = count.get(e["verb"], 0) + 1
        if "stage" in count:  # from here on validation and test examples: not what the search went by
            continue
        found = [Candidate.from_json(c) for c in e.get("about", {}).get("candidates", {}).values()]
        ledger.add(found, [Observation(*o) for o in e["payload"].get("cells", ())])
    by_candidate: dict[str, list[str]] = {}
    for c, x in ledger.cells:
        by_candidate.setdefault(c, []).append(x)
    scored = tuple(ledger.scored(c, by_candidate.get(i, ())) for i, c in ledger.candidates.items())
    result = folder / "result.json"
    text = chosen = ""
    if result.exists():
        frame = json.loads((folder / "prompt" / "prompt.json").read_text(encoding="utf-8"))["frame"]
        text, chosen = frame["instruction"] or frame["template"], _chosen(scored, frame)
    last: dict[str, Any] = events[-1] if events else {"spent": {}, "seconds": 0.0}
    return History(plan, scored, tuple(count.items()), last["spent"], last["seconds"], result.exists(), chosen, text)


def _chosen(scored: Sequence[Scored], frame: Mapping[str, Any]) -> str:
    for s in scored:
        parts = json.loads(json.dumps(dict(s.candidate.parts)))
        if all(frame.get(k) == v for k, v in parts.items()):
            return s.id
    return ""


def facts(run: Run) -> list[tuple[str, str]]:
    """What a search gained and cost."""
    rows = []
    if run.gain is not None:
        g = run.gain
        sure = "" if g.low > 0 or g.high < 0 else "  (not distinguishable from none)"
        rows.append(("over the start", f"{g.value:+.3f} [{g.low:+.3f}, {g.high:+.3f}]{sure}"))
    for role, c in run.cost["roles"].items():
        if c["calls"]:
            tokens = f", {c['input']:,} tokens in, {c['output']:,} out" if c["input"] else ""
            money = f", ${c['dollars']:.4f}" if c["dollars"] else ""
            rows.append((f"spent by the {role}", f"{c['calls']:,} calls{tokens}{money}"))
    rows.append(("seconds", f"{run.seconds:.1f}"))
    frame = run.prompt.frame
    if frame.instruction:
        rows.append(("says", frame.instruction))
    elif frame.readout == "similarity":
        rows.append(("template", frame.template))
        rows += [(f"says for {label}", word) for label, word in zip(frame.labels, frame.words, strict=True)]
    rows += [("note", note) for note in run.prompt.card.get("notes", ())]
    return rows
