"""The demonstration: a learned prompt beside three baselines, on the messages that come with the package."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

from .console import Progress, between
from .measure.evaluate import difference
from .measure.intervals import Interval
from .measure.predict import predict
from .model.open import open as open_model
from .runs.run import Run, fit
from .task import Task

MODEL = "builtin:minilm"
BASELINES = ("majority", "zero-shot", "linear-probe")
LEARNED = "residual-prompt-tuning"
OPTIONS: dict[str, Any] = {}  # of LEARNED, other than its defaults
YARDSTICK = "linear-probe"  # what the learned prompt is compared with
HEADS = ("method", "accuracy", "macro-f1", "trained", "seconds")
SENTENCES = (
    "I was charged twice for the same kettle, please send one of the two payments back.",
    "The courier says he rang, but I was at home all day and nobody came.",
    "Before I buy: does the small oven fit into a cupboard that is 45 cm wide?",
)


@dataclass(frozen=True)
class Found:
    task: Task
    runs: tuple[Run, ...]  # in the order of BASELINES, then LEARNED
    gain: Interval  # of LEARNED over YARDSTICK, on the same messages
    examples: tuple[tuple[str, str], ...]  # new sentences and their answers

    @property
    def learned(self) -> Run:
        return self.runs[-1]

    @property
    def headline(self) -> str:
        task = self.task
        return (
            f"{MODEL} stays frozen: {len(task.train)} messages of {len(task.labels)} teams to learn from, "
            f"{len(task.valid)} to choose by, {len(task.test)} unseen ones to score on. "
            "In brackets: 95 % intervals; trained: parameters."
        )

    def rows(self) -> list[tuple[str, ...]]:
        """The table's, as HEADS names them."""
        rows: list[tuple[str, ...]] = []
        for run in self.runs:
            score = run.score
            assert score is not None
            f1 = score.others["macro-f1"]
            rows.append(
                (run.plan.method, between(score.value, score.low, score.high, ".2f"),
                 between(f1.value, f1.low, f1.high, ".2f"),
                 f"{run.parameters:,}", f"{run.seconds:.1f}")
            )  # fmt: skip
        return rows

    def verdict(self) -> str:
        """The comparison in one sentence, as strong as the numbers are and no stronger."""
        gain, n = self.gain, len(self.task.test)
        told = f"{LEARNED} minus {YARDSTICK}: {between(gain.value, gain.low, gain.high, '+.2f')} accuracy"
        if gain.low <= 0 <= gain.high:
            return f"{told} (95 % interval, paired): not distinguishable from 0 on {n} test messages."
        better = "better" if gain.value > 0 else "worse"
        return f"{told} (95 % interval, paired): {better}, on {n} test messages."

    def to_json(self) -> dict[str, Any]:
        gain = self.gain
        return {
            "task": self.task.describe(),
            "model": MODEL,
            "methods": [
                {"method": r.plan.method, "score": r.score.to_json() if r.score else None,
                 "parameters": r.parameters, "seconds": round(r.seconds, 2)}
                for r in self.runs
            ],
            "difference": {"of": LEARNED, "minus": YARDSTICK, "metric": self.task.metric, "value": gain.value,
                           "low": gain.low, "high": gain.high, "n": gain.n},
            "examples": [{"input": text, "answer": answer} for text, answer in self.examples],
        }  # fmt: skip


def run(show: Progress, seed: int = 0) -> Found:
    """Fit every method on the same split. The runs themselves are not kept; the caller saves the learned prompt."""
    with as_file(files("anacrusis") / "data" / "messages.csv") as file:
        task = Task.from_csv(file, text="message", label="team")
    show.phase(f"opening {MODEL}")
    model = open_model(MODEL)
    names = (*BASELINES, LEARNED)
    with tempfile.TemporaryDirectory() as folder:
        runs = []
        for i, name in enumerate(names, 1):
            show.title = f"[{i}/{len(names)}] {name}"
            show.phase("fitting", brief=True)
            runs.append(
                fit(
                    name,
                    model,
                    task,
                    seed=seed,
                    folder=Path(folder) / name,
                    observe=show,
                    options=OPTIONS if name == LEARNED else None,
                )
            )
    scores = {r.plan.method: r.score for r in runs}
    ours, theirs = scores[LEARNED], scores[YARDSTICK]
    assert ours is not None and theirs is not None  # the messages have a test split
    answers = predict(runs[-1].prompt, SENTENCES, model)
    return Found(task, tuple(runs), difference(ours, theirs, task), tuple(zip(SENTENCES, answers, strict=True)))
