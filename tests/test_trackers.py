"""TensorBoard and MLflow: what they hold is what the journal says."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from anacrusis.errors import RunError
from anacrusis.report.trackers import curves, runs_of, to_mlflow, to_tensorboard
from anacrusis.runs.run import Run, fit
from anacrusis.testing import planted, tiny


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    model = tiny("gpt2")
    task, _ = planted(model, examples=80)
    folder = tmp_path_factory.mktemp("r") / "run"
    return fit("prompt-tuning", model, task, folder=folder, options={"epochs": 2})


def test_curves_are_the_journals_validations(run: Run) -> None:
    assert run.folder is not None
    found = list(curves(run.folder))
    steps = [step for name, step, _, _ in found if name == "score"]
    assert {name for name, *_ in found} >= {"score", "loss"} and steps == sorted(steps) and len(steps) >= 2
    assert run.valid in [value for name, _, value, _ in found if name == "score"]


def test_tensorboard_reads_them_back(run: Run, tmp_path: Path) -> None:
    accumulators = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    assert run.folder is not None and run.score is not None
    assert to_tensorboard(run.folder, tmp_path) == to_tensorboard(run.folder, tmp_path) == 1
    events = accumulators.EventAccumulator(str(tmp_path / run.folder.name))
    events.Reload()
    told = [(e.step, e.value) for e in events.Scalars("validation/score")]
    ours = [(step, value) for name, step, value, _ in curves(run.folder) if name == "score"]
    assert [s for s, _ in told] == [s for s, _ in ours]
    assert [v for _, v in told] == pytest.approx([v for _, v in ours])
    assert events.Scalars("result/test.accuracy")[0].value == pytest.approx(run.score.value)


def copied(run: Run, folder: Path, seed: int) -> Path:
    """The run as the cell of a comparison of its own, with another seed in its plan."""
    assert run.folder is not None
    cell = folder / "cells" / "same-name"
    shutil.copytree(run.folder, cell)
    (folder / "compare.json").write_text("{}")
    (cell / "run.json").write_text((cell / "run.json").read_text().replace('"seed": 0', f'"seed": {seed}'))
    return folder


def test_tensorboard_keeps_comparisons_apart(run: Run, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    logs = tmp_path / "logs"
    one, other = copied(run, tmp_path / "one", 1), copied(run, tmp_path / "other", 2)
    assert to_tensorboard(one, logs) == to_tensorboard(other, logs) == 1
    first = list((logs / "one" / "same-name").iterdir())
    assert len(first) == 1 == len(list((logs / "other" / "same-name").iterdir()))
    assert to_tensorboard(one / "cells" / "same-name", logs) == 1, "alone, it stands where it stood"
    assert len(list(logs.rglob("events.out.*"))) == 2 and not first[0].exists()
    namesake = copied(run, tmp_path / "elsewhere" / "one", 3)
    with pytest.raises(RunError, match="another run of this name"):
        to_tensorboard(namesake, logs)
    assert len(list(logs.rglob("events.out.*"))) == 2


def test_tensorboard_leaves_files_of_others_alone(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tensorboard")
    assert run.folder is not None
    mine = [tmp_path / "events.out.tfevents.mine", tmp_path / run.folder.name / "events.out.tfevents.mine"]
    mine[1].parent.mkdir()
    for file in mine:
        file.write_text("mine")
    monkeypatch.chdir(run.folder)
    for _ in range(2):
        assert to_tensorboard(Path("."), tmp_path) == 1
    assert [file.read_text() for file in mine] == ["mine", "mine"]
    assert len(list(tmp_path.rglob("events.out.*"))) == 3


@pytest.mark.filterwarnings("ignore")  # of what mlflow's own libraries have deprecated
def test_mlflow_holds_numbers_and_prompt_and_no_run_twice(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # mlflow keeps the files of a database in ./mlruns
    mlflow = pytest.importorskip("mlflow")
    assert run.folder is not None and run.score is not None
    where = f"sqlite:///{tmp_path / 'ml.db'}"
    assert to_mlflow(run.folder, where) == 1 and to_mlflow(run.folder, where) == 0
    client = mlflow.MlflowClient(tracking_uri=where)
    [found] = client.search_runs([client.get_experiment_by_name("anacrusis").experiment_id])
    assert found.data.params["method"] == "prompt-tuning" and found.data.params["option.epochs"] == "2"
    assert found.data.metrics["test.accuracy"] == pytest.approx(run.score.value)
    history = client.get_metric_history(found.info.run_id, "validation.score")
    assert len(history) == len([c for c in curves(run.folder) if c[0] == "score"])

    # another comparison, whose cells have the same names
    for name, seed in (("one", 1), ("other", 2)):
        folder = copied(run, tmp_path / name, seed)
        assert to_mlflow(folder, where) == 1 and to_mlflow(folder, where) == 0

    # what was cut off is logged again
    real = mlflow.MlflowClient.log_artifacts

    def cut(*_: Any) -> None:
        raise ConnectionError("cut off")

    monkeypatch.setattr(mlflow.MlflowClient, "log_artifacts", cut)
    folder = copied(run, tmp_path / "third", 3)
    with pytest.raises(ConnectionError):
        to_mlflow(folder, where)
    monkeypatch.setattr(mlflow.MlflowClient, "log_artifacts", real)
    assert to_mlflow(folder, where) == 1 and to_mlflow(folder, where) == 0


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="neither a run nor a comparison"):
        runs_of(tmp_path)
