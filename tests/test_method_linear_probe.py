"""Linear probe: sklearn's logistic regression on the frozen states (methods/linear_probe.py)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import anacrusis as ana
from anacrusis.errors import ConfigError
from anacrusis.measure.predict import scores
from anacrusis.methods.linear_probe import GRID
from anacrusis.model.frames import default_frame
from anacrusis.model.model import Model
from anacrusis.model.readout import reader
from anacrusis.prompt.values import Text
from anacrusis.registry import get
from anacrusis.task import Task
from anacrusis.testing import tiny
from anacrusis.tune import probe
from anacrusis.tune.recipe import Problem

G = np.random.default_rng(0)
TEXTS = [" ".join(f"w{w}" for w in G.integers(30 * c, 30 * c + 6, 5)) for c in (0, 1, 2) for _ in range(24)]
LABELS = [c for c in ("w80", "w81", "w82") for _ in range(24)]
ORDER = G.permutation(72).tolist()


def task_of() -> Task:
    """Separable: each class has words of its own."""
    parts = [
        ([TEXTS[i] for i in ORDER[a:b]], [LABELS[i] for i in ORDER[a:b]]) for a, b in ((0, 36), (36, 54), (54, 72))
    ]
    return Task.from_lists(*parts[0], valid=parts[1], test=parts[2])


def build(model: Model, task: Task, strength: float = 0.0, **frame: str) -> Text:
    p = Problem(model, task, default_frame(model, task, **frame), torch.Generator().manual_seed(0))
    prompt = get("linear-probe").build(get("linear-probe").configure({"strength": strength}), p)
    assert isinstance(prompt, Text) and prompt.head is not None
    return prompt


def features(model: Model, prompt: Text, task: Task) -> np.ndarray:
    read = reader(model, prompt.frame)
    rows = read.rows([e.inputs for e in task.train], prompt)
    return probe.features(read, rows, Text(frame=prompt.frame)).numpy()  # type: ignore[arg-type]


@pytest.mark.parametrize("family", ["minilm", "gpt2", "bert", "t5"])
def test_beats_majority(family: str, tmp_path: Path) -> None:
    model, task = tiny(family), task_of()
    run = ana.fit("linear-probe", model, task, folder=tmp_path / "probe", options={"strength": 1.0})
    least = ana.fit("majority", model, task, folder=tmp_path / "majority")
    assert run.score is not None and least.score is not None
    assert run.score.value > least.score.value + 0.2
    assert run.parameters == 3 * (model.hidden + 1)


def test_equals_sklearn_on_the_features() -> None:
    from sklearn.linear_model import LogisticRegression

    model, task = tiny("minilm"), task_of()
    prompt = build(model, task, strength=0.1)
    x = features(model, prompt, task)
    unit = float(np.sqrt((x**2).mean()))
    fitted = LogisticRegression(C=0.1, max_iter=1000).fit(x / unit, [e.gold for e in task.train])
    z = scores(prompt, [e.inputs for e in task.train], model)
    assert np.allclose(z.numpy(), fitted.decision_function(x / unit), atol=1e-3)


def test_strength_is_chosen_on_validation(monkeypatch: pytest.MonkeyPatch) -> None:
    """Validation golds that agree with train are asked, and all of the grid is tried."""
    model, task = tiny("minilm"), task_of()
    seen: list[tuple[int, int, tuple[float, ...]]] = []
    real = probe.fit_head

    def watched(x, g, y, h, C, grid=()):  # type: ignore[no-untyped-def]
        seen.append((len(x), len(y), tuple(grid)))
        return real(x, g, y, h, C, grid[6:7] or grid)

    monkeypatch.setattr(probe, "fit_head", watched)
    build(model, task)
    assert seen == [(36, 18, GRID)]
    seen.clear()
    build(model, replace(task, valid=()))  # none: a fifth of train is held out to choose, then all of it is used
    assert seen == [(29, 7, GRID), (36, 0, (GRID[6],))]
    assert GRID[0] == pytest.approx(1e-4) and GRID[-1] == pytest.approx(100.0)


def test_it_reads_the_bare_text() -> None:
    model, task = tiny("gpt2"), task_of()
    assert default_frame(model, task).readout == "label-words"
    assert build(model, task, 1.0).frame.template == "{text}"  # not the template that asks for an answer
    assert build(model, task, 1.0, template="w1 {text}").frame.template == "w1 {text}"
    assert build(model, task, 1.0).frame.readout == "head"


def test_several_labels() -> None:
    texts = [f"w{i}" for i in range(30)]
    golds = [["x"] if i < 10 else ["x", "y"] if i < 20 else ["y"] for i in range(30)]
    task = Task.from_lists(texts, golds, kind="multilabel", valid=(["w31"], [["x"]]), test=(["w32"], [["y"]]))
    prompt = build(tiny("minilm"), task, 100.0)
    z = scores(prompt, [(t,) for t in texts], tiny("minilm")) > 0
    assert (z == torch.tensor([["x" in g, "y" in g] for g in golds])).float().mean() > 0.9


def test_wrong_options() -> None:
    with pytest.raises(ConfigError, match="strength"):
        get("linear-probe").configure({"strength": -1.0})
