"""Whether `compare --methods auto` picks a good method cheaply: the table of docs/comparing.md.

    python -m reference.prove_auto run --data FOLDER --out FOLDER [--only t1,t2]    race and full grid of every task
    python -m reference.prove_auto table --data FOLDER --out FOLDER                 docs/auto.json, and the table

Ten tasks of public data, builtin:minilm, 8 examples a class to learn from and 8 to validate on, 8 epochs, at most 300
test examples. The full grid is every candidate with five seeds. The race sees no test example. Its cost is the
processor time of all its fits over that of all fits of the full grid; fits that both need are made once and counted in
both. (Cells of the grid score test examples too, those of the race validation examples: both count.) A pick is good
where its mean test score in the grid is within one standard error of the best method's.
"""

from __future__ import annotations

import argparse
import csv
import json
import random
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from anacrusis import Task
from anacrusis import open as open_model
from anacrusis.measure.crossed import mean_squares, pseudo
from anacrusis.report import leaderboard
from anacrusis.runs.grid import Comparing, Grid
from anacrusis.runs.race import Race, candidates
from anacrusis.runs.searching import Means
from anacrusis.task import Split

SHOTS, SEEDS, MOST, POOL = 8, 5, 300, 40  # POOL: rows of a class that seeds draw from, at most
EPOCHS = {"": {"epochs": 8}}
Rows = list[tuple[Any, str]]
TASKS = (
    "sst2", "sst5", "trec", "agnews", "rte", "wic",
    "clinc-domains", "clinc-travel", "clinc-banking", "clinc-small_talk",
)  # fmt: skip


def rows_of(name: str, data: Path) -> tuple[Rows, Rows]:
    """(train, test) rows of a task."""
    if name in ("sst2", "trec"):
        return tuple(_lines(data / name / f"{part}.txt") for part in ("train", "test"))  # type: ignore[return-value]
    if name in ("sst5", "agnews"):
        folder = data / "fewshot16" / {"sst5": "sst-5"}.get(name, name)
        train = [row for file in sorted(folder.glob("16-*/train.tsv")) for row in _tsv(file)]
        return sorted(set(train)), _tsv(folder / "test.tsv")
    if name in ("rte", "wic"):
        folder = data / "fewglue32" / {"rte": "RTE", "wic": "WiC"}[name]
        return _pairs(folder / "train.jsonl") + _pairs(folder / "dev32.jsonl"), _pairs(folder / "val.jsonl")
    rows = json.loads((data / "clinc150" / "data_full.json").read_text(encoding="utf-8"))
    domains = json.loads((data / "clinc150" / "domains.json").read_text(encoding="utf-8"))
    wanted = name.partition("-")[2]
    domain = {intent: d for d, intents in domains.items() for intent in intents}
    found = [
        [(t, domain[i] if wanted == "domains" else i) for t, i in rows[p] if wanted in ("domains", domain[i])]
        for p in ("train", "test")
    ]
    return found[0], found[1]


def _lines(file: Path) -> Rows:
    lines = file.read_text(encoding="latin-1").splitlines()
    return [(text, label) for label, text in (line.split(" ", 1) for line in lines if " " in line)]


def _tsv(file: Path) -> Rows:
    with open(file, encoding="utf-8", newline="") as f:
        return [(r[0], r[1]) for r in list(csv.reader(f, delimiter="\t", quoting=csv.QUOTE_NONE))[1:]]


def _pairs(file: Path) -> Rows:
    found: Rows = []
    for line in file.read_text(encoding="utf-8").splitlines():
        r = json.loads(line)
        texts = (
            (r["premise"], r["hypothesis"]) if "premise" in r else (f"{r['word']}: {r['sentence1']}", r["sentence2"])
        )
        found.append((texts, str(r["label"])))
    return found


def task_of(name: str, data: Path) -> Task:
    """A fixed pool to draw seeds from, and a fixed sample of test examples."""
    train, test = rows_of(name, data)
    rng = random.Random(0)
    pool: Rows = []
    for label in sorted({label for _, label in train}):
        mine = sorted({row for row in train if row[1] == label})
        rng.shuffle(mine)
        pool += mine[:POOL]
    test = sorted(set(test))
    rng.shuffle(test)
    test = test[:MOST]
    return Task.from_lists(
        [t for t, _ in pool], [c for _, c in pool], test=([t for t, _ in test], [c for _, c in test]), name=name,
        split=Split(seed=0, valid=0.2),
    )  # fmt: skip


def run(name: str, data: Path, out: Path, model: Any) -> None:
    task = task_of(name, data)
    names = candidates(model, task)
    race = Race(names, task, model, out / name / "race", Means(), EPOCHS, SHOTS)
    raced = race.run()
    print(f"{name}: {raced.winner} after {raced.fits} fits, {raced.seconds:.0f} s", flush=True)
    grid = Grid(methods=tuple(names), seeds=SEEDS, shots=(SHOTS,), options=EPOCHS)
    comparing = Comparing(grid, task, model, out / name)
    race.adopt(raced, comparing)
    comparing.run(observe=lambda e: print(name, e, flush=True) if e["event"] == "cell" and e["error"] else None)


def result(name: str, data: Path, out: Path) -> dict[str, Any]:
    """The race beside the grid, of one task."""
    task = task_of(name, data)
    found = leaderboard.board(out / name, task)
    raced = json.loads((out / name / "race" / "race.json").read_text(encoding="utf-8"))
    rows = {r.method: r for r in found.leaderboard.rows}
    best = max(rows.values(), key=lambda r: r.score.value)
    runs = [r.score.predictions for r in found.runs(best.method, str(SHOTS)) if r.score is not None]
    y = np.array([pseudo(task.metric, p, task.test, len(task.labels)) for p in runs])
    of_seeds, of_examples, rest = mean_squares(y)
    picked, error = rows[raced["winner"]], float(np.sqrt((of_examples + max(of_seeds - rest, 0)) / y.size))
    raced_seconds, whole = _work(_fits(out / name / "race", raced)), _work((out / name / "cells").iterdir())
    return {
        "task": name, "classes": len(task.labels), "test": len(task.test), "candidates": len(rows),
        "picked": picked.method, "score": picked.score.value, "best": best.method, "best_score": best.score.value,
        "standard_error": error, "good": picked.score.value >= best.score.value - error,
        "standing": picked.standing, "race_seconds": raced_seconds, "grid_seconds": whole,
        "share": raced_seconds / whole, "fits": raced["fits"], "left": found.leaderboard.left,
        "scores": {m: r.score.value for m, r in rows.items()},
        "probe": rows["linear-probe"].score.value if "linear-probe" in rows else None,
    }  # fmt: skip


def _work(folders: Iterable[Path]) -> float:
    """Seconds of processor time of fits, judging included; those that failed took none worth counting."""
    files = (f / name for f in folders for name in ("usage.json", "judged.json"))
    said = [json.loads(f.read_text(encoding="utf-8")) for f in files if f.exists()]
    return float(sum(s.get("cpu_seconds", 0.0) for s in said))


def _fits(race: Path, raced: dict[str, Any]) -> set[Path]:
    """The folders of the fits that a race took."""
    places = [("rung-0", 0), ("rung-1", 0), ("rung-2", 1)]
    found = {race / rung / f"{e['method']}-{seed}" for e in raced["entrants"] for rung, seed in places[: e["rung"] + 1]}
    still = {race / "rung-0" / f"{e['method']}-1" for e in raced["entrants"] if e["rung"] == 2}  # without epochs
    return {f for f in found | still if f.exists()}


def table(results: list[dict[str, Any]]) -> str:
    lines = [
        "| task | classes | picked | its test score | best of the grid | its score | standard error | within "
        "| race / grid, seconds |",
        "|---|---:|---|---:|---|---:|---:|---|---:|",
    ]
    for r in results:
        lines.append(
            f"| {r['task']} | {r['classes']} | {r['picked']} | {r['score']:.3f} | {r['best']} "
            f"| {r['best_score']:.3f} | {r['standard_error']:.3f} | {'yes' if r['good'] else 'no'} "
            f"| {r['race_seconds']:.0f} / {r['grid_seconds']:.0f} = {r['share']:.2f} |"
        )
    good, share = sum(r["good"] for r in results), [r["share"] for r in results]
    total = sum(r["race_seconds"] for r in results) / sum(r["grid_seconds"] for r in results)
    lines += ["", f"Good picks: {good} of {len(results)}. Cost: {total:.2f} of the full grid over all tasks, "
                  f"{min(share):.2f} to {max(share):.2f} by task."]  # fmt: skip
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("what", choices=("run", "table"))
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", default=",".join(TASKS))
    given = parser.parse_args()
    names = given.only.split(",")
    if given.what == "run":
        model = open_model("builtin:minilm")
        for name in names:
            run(name, given.data, given.out, model)
        return
    results = [result(n, given.data, given.out) for n in names]
    if tuple(names) == TASKS:
        file = Path(__file__).parents[1] / "docs" / "auto.json"
        file.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    print(table(results))


if __name__ == "__main__":
    main()
