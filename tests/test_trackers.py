"""TensorBoard and MLflow: what they hold is what the journal says."""

from __future__ import annotations

from pathlib import Path

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


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="neither a run nor a comparison"):
        runs_of(tmp_path)
