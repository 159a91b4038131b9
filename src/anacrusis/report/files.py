"""A leaderboard as files: JSON and CSV for machines, Markdown for people."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

from ..prompt.store import write_json
from .leaderboard import HEADS, RIGHT, Leaderboard, cells_of

COLUMNS = (
    "method", "shots", "metric", "score", "low", "high", "standing", "difference", "difference_low", "difference_high",
    "p_adjusted", "seeds", "failed_seeds", "parameters", "learning_seconds", "answer_milliseconds", "megabytes",
    "calls", "tokens", "dollars",
)  # fmt: skip


def write(found: Leaderboard, folder: Path) -> None:
    """leaderboard.json, leaderboard.csv and leaderboard.md in `folder`."""
    write_json(folder / "leaderboard.json", found.to_json())
    with open(folder / "leaderboard.csv", "w", encoding="utf-8", newline="") as f:
        out = csv.writer(f)
        out.writerow(COLUMNS)
        for r in found.rows:
            d = r.difference
            out.writerow([
                r.method, r.group, found.metric, r.score.value, r.score.low, r.score.high, r.standing, d.value, d.low,
                d.high, r.adjusted, r.seeds, len(r.failed), r.parameters, r.seconds, r.milliseconds,
                "" if r.megabytes is None else r.megabytes, r.calls, r.tokens, r.dollars,
            ])  # fmt: skip
    (folder / "leaderboard.md").write_text(markdown(found), encoding="utf-8")


def markdown(found: Leaderboard) -> str:
    """The leaderboard as a Markdown table with what is to be known about it."""
    right = [head in RIGHT for head in HEADS]
    lines = [
        f"# {found.task.split(':')[0]} on {found.model}", "", found.task, "", found.verdict(), "",
        _row(HEADS), "|" + "|".join("---:" if r else "---" for r in right) + "|",
        *(_row(cells_of(r)) for r in found.rows), "",
        *(f"- {method}: no score: {why}" for method, why in found.missing.items()),
        *(f"- {note}" for note in found.notes),
    ]  # fmt: skip
    return "\n".join(lines).rstrip() + "\n"


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(c.replace("|", "\\|").replace("\n", " ") for c in cells) + " |"
