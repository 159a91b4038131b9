"""Scores of more than one look: halves of the classes and streams, against plain evaluation and counting by hand."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import anacrusis as ana
from anacrusis.adapt.prompts import keep, stream
from anacrusis.errors import ConfigError, PromptError
from anacrusis.measure.predict import scores
from anacrusis.measure.protocols import calibration_error, moved, score_halves, score_stream
from anacrusis.model.frames import default_frame
from anacrusis.prompt.values import Adaptive, Constant, Prompt, for_classes
from anacrusis.registry import get
from anacrusis.task import Task
from anacrusis.task.shift import base_to_new, harmonic
from anacrusis.testing import planted_sight, sight
from anacrusis.tune.recipe import Problem

NAMES = ("c0", "c1", "c2", "c3")  # c0 and c1 are the base half
SMALL: dict[str, dict[str, Any]] = {
    "tpt": {"views": 8, "lr": 0.01}, "dynaprompt": {"views": 8, "size": 3, "lr": 0.01}, "vpa": {"views": 8, "lr": 0.01},
}  # fmt: skip
STREAMS: list[tuple[str, dict[str, Any]]] = [
    ("tpt", {}), ("dynaprompt", {}), ("vpa", {}), ("vpa", {"form": "rows"}), ("vpa", {"online": True}),
]  # fmt: skip


@functools.cache
def model_of() -> Any:
    return sight("clip")


def bare(task: Task) -> Prompt:
    """The class names and nothing else."""
    frame = default_frame(model_of(), task)
    return ana.prompt.values.Text(frame=replace(frame, template=frame.template.replace("{soft}", "a")))


@functools.cache
def pictures(n: int, seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    grids = rng.integers(0, 256, (n, 4, 4, 3)).astype(np.uint8)
    return [grid.repeat(8, 0).repeat(8, 1) for grid in grids]


def as_task(found: Sequence[np.ndarray], labels: Sequence[Any], **more: Any) -> Task:
    """All of them are the test part; each class has one picture to learn from."""
    few = pictures(len(NAMES), 99)
    words = dict(zip(NAMES, ("w4", "w75", "w14", "w38"), strict=True))  # each is said of half of the pictures
    return Task.from_arrays(few, [[n] for n in NAMES] if more.get("kind") == "multilabel" else list(NAMES), valid=None,
                            test=(list(found), list(labels)), words=words, name="made",
                            split=ana.Split(valid=0.0), **more)  # fmt: skip


@functools.cache
def answers(n: int) -> tuple[np.ndarray, np.ndarray]:
    """What the bare prompt answers to the pictures: among c0 and c1, and among c2 and c3 (0 or 1 each)."""
    task = as_task(pictures(n), [NAMES[i % 4] for i in range(n)])
    z = scores(bare(task), [(p,) for p in pictures(n)], model_of())
    return z[:, :2].argmax(1).numpy(), z[:, 2:].argmax(1).numpy()


def made(n: int, right: tuple[float, float], only: bool = False) -> Task:
    """n pictures, half of them of base classes; of each half this share gets the answer of the bare prompt for a class.
    only: those that get the answer that most of their half get."""
    found, labels = [], []
    for half, (said, share) in enumerate(zip(answers(n), right, strict=True)):
        most = np.bincount(said[half::2], minlength=2).argmax()
        mine = [i for i in range(half, n, 2) if said[i] == most or not only]
        for rank, i in enumerate(mine):
            wrong = (rank + 0.5) / len(mine) > share
            found.append(pictures(n)[i])
            labels.append(NAMES[2 * half + (int(said[i]) ^ wrong)])
    return as_task(found, labels)


def base_prompt(task: Task) -> Prompt:
    return bare(base_to_new(task)[0])


# --- base to new


def test_each_half_is_scored_among_its_own_classes() -> None:
    task = made(80, (0.9, 0.6))
    counted: list[int] = []
    found = score_halves(base_prompt(task), model_of(), task, done=counted.append)
    base, new = base_to_new(task)
    assert base.labels == ("c0", "c1") and new.labels == ("c2", "c3")
    for score, half, columns in ((found.base, base, [0, 1]), (found.new, new, [2, 3])):
        alone = ana.evaluate(bare(half), model_of(), half)
        assert (score.value, score.low, score.high, score.n) == (alone.value, alone.low, alone.high, 40)
        assert np.array_equal(score.predictions, alone.predictions)
        z = scores(bare(task), [e.inputs for e in half.test], model_of())  # by hand: all classes, then these columns
        assert score.predictions.tolist() == z[:, columns].argmax(1).tolist()
    assert (found.base.value, found.new.value) == (0.9, 0.6)
    assert found.harmonic.value == pytest.approx(2 * 0.9 * 0.6 / 1.5) and found.harmonic.n == 80
    assert sum(counted) == 80
    # among all four classes it is another number
    assert ana.evaluate(bare(task), model_of(), task).value < (0.9 + 0.6) / 2


def test_a_split_of_its_own() -> None:
    task = made(40, (0.9, 0.6))
    turned = replace(task, valid=task.test[:30], test=task.train)
    assert score_halves(base_prompt(task), model_of(), turned, split="valid").harmonic.n == 30


def test_harmonic_of_halves_and_its_interval() -> None:
    widths = {}
    for n in (80, 1200):
        task = made(n, (0.9, 0.6))
        found = score_halves(base_prompt(task), model_of(), task)
        a, b, h = found.base.value, found.new.value, found.harmonic
        assert h.value == pytest.approx(harmonic(a, b)) and h.low < h.value < h.high
        assert min(a, b) <= h.value <= (a + b) / 2
        # the slopes of H = 2 a b / (a + b), and the variances of the two shares
        slopes = 2 * b**2 / (a + b) ** 2, 2 * a**2 / (a + b) ** 2
        spread = math.hypot(*(s * math.sqrt(x * (1 - x) / (n / 2)) for s, x in zip(slopes, (a, b), strict=True)))
        widths[n] = h.high - h.low
        assert widths[n] == pytest.approx(2 * 1.96 * spread, rel=0.15)
    assert widths[1200] < 0.08 and widths[80] / widths[1200] == pytest.approx(math.sqrt(1200 / 80), rel=0.2)


def test_the_interval_claims_no_certainty_where_all_are_right() -> None:
    """As that of each half, and of every other score: see measure/intervals.py."""
    task = made(24, (1.0, 1.0))
    found = score_halves(base_prompt(task), model_of(), task)
    assert found.base.low < 1 and found.new.low < 1
    assert found.harmonic.value == 1 and found.harmonic.low < 1


def test_nothing_right_in_one_half() -> None:
    task = made(24, (1.0, 0.0))
    found = score_halves(base_prompt(task), model_of(), task)
    assert (found.base.value, found.new.value, found.harmonic.value) == (1, 0, 0)
    assert found.new.high > 0 and found.harmonic.high > 0  # zero of 12 does not prove never


def test_the_interval_is_of_the_metric_that_is_scored() -> None:
    """One class is always said, and is right 19 times of 20: accuracy 0.95, macro-f1 below 0.5."""
    task = replace(made(400, (0.95, 0.95), only=True), metric="macro-f1")
    found = score_halves(base_prompt(task), model_of(), task)
    assert found.base.others["accuracy"].value > 0.9 and found.base.metric == "macro-f1"
    assert found.harmonic.value == pytest.approx(harmonic(found.base.value, found.new.value)) and found.base.value < 0.5
    assert found.harmonic.low <= found.harmonic.value <= found.harmonic.high


def test_several_labels_of_a_picture() -> None:
    labels = [[NAMES[i % 4], NAMES[(i + 1 + i // 4 % 3) % 4]] for i in range(40)]
    task = as_task(pictures(40), labels, kind="multilabel")
    base, _ = base_to_new(task)
    found = score_halves(bare(base), model_of(), task)
    assert found.base.metric == "map" and 0 < found.harmonic.low <= found.harmonic.value <= found.harmonic.high <= 1


def test_a_prompt_of_other_classes_is_refused() -> None:
    task = made(24, (0.9, 0.6))
    for labels in (("c2", "c3"), NAMES, ("c1", "c0")):
        prompt = for_classes(base_prompt(task), labels)
        with pytest.raises(ConfigError, match=r"the base half of made is c0, c1.*--classes base"):
            score_halves(prompt, model_of(), task)


def no_others(name: str, task: Task, folder: Path) -> Prompt:
    if name == "majority":
        return Constant(scores=torch.tensor([0.7, 0.3]), frame=base_prompt(task).frame)
    return ana.fit(name, model_of(), base_to_new(task)[0], folder=folder).prompt


@pytest.mark.parametrize(("name", "why"), [("linear-probe", "a head"), ("tip-adapter", "examples of each class"),
                                           ("majority", "its scores")])  # fmt: skip
def test_a_prompt_that_cannot_serve_others_is_refused(name: str, why: str, tmp_path: Path) -> None:
    task = made(24, (0.9, 0.6))
    with pytest.raises(PromptError, match=f"learned {why}: it cannot serve other classes"):
        score_halves(no_others(name, task, tmp_path), model_of(), task)


def test_a_refusal_comes_before_the_work(tmp_path: Path) -> None:
    task = made(24, (0.9, 0.6))
    counted: list[int] = []
    with pytest.raises(PromptError, match="cannot serve other classes"):
        score_halves(no_others("linear-probe", task, tmp_path), model_of(), task, done=counted.append)
    assert counted == []


def test_halves_as_json() -> None:
    task = made(24, (0.9, 0.6))
    found = score_halves(base_prompt(task), model_of(), task)
    record = found.to_json()
    assert list(record) == ["base", "new", "harmonic"] and record["harmonic"]["value"] == found.harmonic.value
    assert record["base"] == found.base.to_json() and "predictions" not in record["base"]


def test_moved() -> None:
    task = made(24, (0.9, 0.6))
    prompt = base_prompt(task)
    assert moved(prompt, base_to_new(task)[0]) is prompt
    other = moved(prompt, base_to_new(task)[1])
    assert other.frame.labels == ("c2", "c3") and other.frame.words == ("w14", "w38")


# --- calibration


def test_calibration_error_by_hand() -> None:
    z = torch.tensor([[0.90, 0.10], [0.88, 0.12], [0.62, 0.38], [0.30, 0.70]]).log()
    golds = [0, 1, 0, 1]  # right, wrong, right, right
    # of 15 bins: 0.90 and 0.88 share one, |1/2 - 0.89|; 0.62 and 0.70 are alone
    by_hand = 2 / 4 * abs(0.5 - 0.89) + 1 / 4 * (1 - 0.62) + 1 / 4 * (1 - 0.70)
    assert calibration_error(z, golds) == pytest.approx(by_hand, abs=1e-6)
    # of 2 bins: all are in the upper one
    assert calibration_error(z, np.array(golds), bins=2) == pytest.approx(abs(0.75 - 0.775), abs=1e-6)


def test_calibration_error_at_its_ends() -> None:
    sure = torch.tensor([[90.0, 0.0], [0.0, 90.0]])
    assert calibration_error(sure, [0, 1]) == 0 and calibration_error(sure, [1, 0]) == 1
    assert calibration_error(sure, [0, 0]) == pytest.approx(0.5)
    guess = torch.zeros(4, 2)  # says the first class with 1/2
    assert calibration_error(guess, [0, 1, 0, 1]) == pytest.approx(0) and calibration_error(guess, [0] * 4) == 0.5


# --- streams


@functools.cache
def stream_task() -> Task:
    return planted_sight(model_of(), examples=60)[0]


def adaptive(name: str, **options: Any) -> Adaptive:
    method, task = get(name), stream_task()
    config = method.configure({**SMALL[name], **options})
    problem = Problem(model_of(), task, default_frame(model_of(), task), torch.Generator().manual_seed(0))
    return keep(method.build(config, problem), name, config)


@pytest.mark.parametrize("windows", [1, 3, 10, 1000])
def test_windows_sum_to_the_whole(windows: int) -> None:
    found = score_stream(adaptive("tpt"), model_of(), stream_task(), split="train", windows=windows)
    n = len(stream_task().train)
    ends = [0, *(end for end, _, _ in found.over_time)]
    assert ends[-1] == n and len(ends) == min(windows, n) + 1
    sizes = np.diff(ends)
    assert sizes.min() >= 1 and sizes.max() - sizes.min() <= 1
    for k, whole in ((1, found.after), (2, found.before)):
        assert sum(m * t[k] for m, t in zip(sizes, found.over_time, strict=True)) == pytest.approx(n * whole.value)
    assert found.difference.value == pytest.approx(found.after.value - found.before.value)
    assert found.milliseconds > 0 and found.megabytes >= 0
    assert "predictions" not in found.to_json() and found.to_json()["over_time"] == [list(t) for t in found.over_time]


@pytest.mark.parametrize("name", ["tpt", "dynaprompt"])
def test_the_order_follows_the_seed(name: str) -> None:
    prompt, task, seen = adaptive(name), stream_task(), []
    for seed in (0, 1):
        found = score_stream(prompt, model_of(), task, split="train", seed=seed)
        order = np.random.default_rng(seed).permutation(len(task.train))
        by_hand = stream(prompt, [task.train[i].inputs for i in order], model_of())
        said = torch.stack([a.z for a in by_hand]).argmax(1)
        golds = np.array([task.train[i].gold for i in order])
        assert found.predictions.tolist() == said.tolist()
        assert found.after.value == pytest.approx((said.numpy() == golds).mean())
        both = [calibration_error(torch.stack([getattr(a, k) for a in by_hand]), golds) for k in ("z", "before")]
        assert found.ece == pytest.approx(both)
        seen.append(found.predictions.tolist())
    assert seen[0] != seen[1]


@pytest.mark.parametrize(("name", "options"), STREAMS)
def test_labels_are_for_scoring_only(name: str, options: dict[str, Any]) -> None:
    prompt, task = adaptive(name, **options), stream_task()
    golds = np.array([e.gold for e in task.train])
    others = np.random.default_rng(5).permutation(golds).tolist()
    assert others != golds.tolist()
    mixed = replace(task, train=tuple(replace(e, gold=g) for e, g in zip(task.train, others, strict=True)))
    one, other = (score_stream(prompt, model_of(), t, split="train") for t in (task, mixed))
    assert one.predictions.tolist() == other.predictions.tolist()
    assert one.over_time != other.over_time and len(set(one.predictions.tolist())) > 1


@pytest.mark.parametrize(("name", "options"), STREAMS)
def test_before_is_zero_shot(name: str, options: dict[str, Any], tmp_path: Path) -> None:
    prompt, task = adaptive(name, **options), stream_task()
    zero = ana.fit("zero-shot", model_of(), task, folder=tmp_path / "zero").prompt
    said = ana.evaluate(zero, model_of(), task, split="train")
    found = score_stream(prompt, model_of(), task, split="train", seed=3)
    assert found.before.value == said.value
    inputs = [e.inputs for e in task.train]
    ran = stream(prompt, inputs, model_of())
    before = torch.stack([a.before for a in ran])
    assert before.argmax(1).tolist() == said.predictions.tolist()
    assert torch.allclose(before, scores(zero, inputs, model_of()), atol=1e-4)
    assert not torch.allclose(torch.stack([a.z for a in ran]), before, atol=1e-3)  # else nothing was learned


def test_streaming_moves_nothing_that_is_kept() -> None:
    prompt, task = adaptive("dynaprompt"), stream_task()
    kept = {k: t.clone() for k, t in prompt.weights.items()}
    counted: list[int] = []
    first = score_stream(prompt, model_of(), task, done=counted.append)
    assert sum(counted) == len(task.test) == first.after.n
    assert all(torch.equal(t, prompt.weights[k]) for k, t in kept.items())
    assert score_stream(prompt, model_of(), task).predictions.tolist() == first.predictions.tolist()


def test_streams_that_cannot_be_scored() -> None:
    task, prompt = stream_task(), adaptive("tpt")
    with pytest.raises(ConfigError, match="kind 'text' does not adapt; tpt, dynaprompt and vpa"):
        score_stream(bare(task), model_of(), task)
    with pytest.raises(ConfigError, match=r"other classes than the task has: for_classes"):
        score_stream(for_classes(prompt, ["a", "b", "c"]), model_of(), task)
    with pytest.raises(ConfigError, match="has no valid examples"):
        score_stream(prompt, model_of(), replace(task, valid=()), split="valid")
