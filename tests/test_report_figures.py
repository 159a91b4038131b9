"""Figures of a comparison: what is drawn, in both formats, and by hand what it shows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from anacrusis.errors import ConfigError
from anacrusis.report import figures as module
from anacrusis.report.figures import figures
from anacrusis.report.html import costs_of
from anacrusis.report.leaderboard import Board
from tests.test_report_html import compared, noisy, texts_task

pytest.importorskip("matplotlib")
task = texts_task(("a", "b", "c"), 30)


@pytest.fixture(scope="module")
def board(tmp_path_factory: pytest.TempPathFactory) -> Board:
    said = {
        "prompt-tuning": [noisy(task, 0.2, s) for s in range(2)],
        "p-tuning-v2": [noisy(task, 0.8, 10 + s) for s in range(2)],
        "zero-shot": [noisy(task, 0.7, 30)],
    }
    return compared(tmp_path_factory.mktemp("board"), task, said, (4, 8))


@pytest.mark.parametrize(("suffix", "begins"), [("png", b"\x89PNG"), ("pdf", b"%PDF")])
def test_every_figure_is_a_file(board: Board, tmp_path: Path, suffix: str, begins: bytes) -> None:
    made = figures(board, tmp_path / "new", suffix)
    names = [p.stem for p in made]
    assert names[:3] == ["leaderboard-4", "leaderboard-8", "shots"]
    assert names[3:] == [f"cost-{c.name}" for c in costs_of(board.leaderboard.of("8"))]
    assert {"cost-seconds", "cost-parameters"} <= set(names)
    assert all(p.suffix == f".{suffix}" and p.read_bytes().startswith(begins) for p in made)


def test_a_forest_shows_scores_intervals_and_seeds(
    board: Board, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    seen: dict[str, Any] = {}
    forest, against = module._forest, module._against

    def watched(axes: Any, **given: Any) -> None:
        forest(axes, **given)
        seen["forest", given["group"]] = axes

    def compared_too(axes: Any, **given: Any) -> None:
        against(axes, **given)
        seen["cost", given["cost"].name] = axes

    monkeypatch.setattr(module, "_forest", watched)
    monkeypatch.setattr(module, "_against", compared_too)
    figures(board, tmp_path)
    rows, axes = board.leaderboard.of("8"), seen["forest", "8"]
    assert [t.get_text() for t in axes.get_yticklabels()] == [r.method for r in reversed(rows)]
    for row, bar, said in zip(rows, axes.collections, axes.texts, strict=True):
        (low, _), (high, _) = bar.get_segments()[0]
        assert (low, high) == pytest.approx((row.score.low, row.score.high))
        assert row.standing in said.get_text() and f"{row.score.value:.3f}" in said.get_text()
    rings = [line for line in axes.lines if len(line.get_xdata()) > 1]
    assert [list(line.get_xdata()) for line in rings] == [list(r.by_seed) for r in rows if len(r.by_seed) > 1]
    front = seen["cost", "parameters"].lines[0]  # zero-shot has the fewest, prompt-tuning is the best
    best = {r.method: r.score.value for r in rows}
    assert list(front.get_ydata()) == pytest.approx(
        [best["zero-shot"], best["p-tuning-v2"], best["prompt-tuning"]]
    ) or (list(front.get_ydata()) == pytest.approx([best["zero-shot"], best["prompt-tuning"]]))


def test_costs_are_those_that_differ(board: Board) -> None:
    rows = board.leaderboard.of("8")
    by_name = {c.name: c.values for c in costs_of(rows)}
    assert set(by_name) == {"seconds", "parameters"}  # no calls, no dollars, no memory, answers as fast as each other
    assert by_name["parameters"] == tuple(1000.0 * (1 + len(r.method)) for r in rows)


def test_nothing_to_draw_and_other_formats_are_refused(board: Board, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="png, pdf"):
        figures(board, tmp_path, "gif")
    with pytest.raises(ConfigError, match="no scores"):
        figures(compared(tmp_path / "none", task, {"prompt-tuning": [None]}), tmp_path)
