"""Calibration by hand: bins, the error, a temperature that is known, and confidence that is right."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch

from anacrusis.assess.calibration import bins_of, by_chance, estimate, refuses, run, scaled, temperature
from anacrusis.assess.subject import Floats, Subject
from anacrusis.measure.protocols import calibration_error
from anacrusis.prompt.values import Frame, Text
from anacrusis.task import Example, Task


@dataclass(eq=False)
class Given(Subject):
    """A subject whose probabilities are given, not computed: by text, (C,)."""

    known: dict[str, Any] = field(default_factory=dict)

    def _ask(self, prompt: Any, inputs: Any) -> list[Any]:
        return [torch.from_numpy(np.log(np.maximum(self.known[x[0]], 1e-12))) for x in inputs]


def given(p: Any, golds: Any, *, texts: Any = None, train: Any = ((), ()), readout: str = "head", **more: Any) -> Given:
    """Answers with probabilities p (N, C), and right ones. texts: N of them. train: (p, golds) of other examples."""
    p, classes = np.asarray(p, dtype=float), np.asarray(p).shape[1]
    labels = tuple(f"c{i}" for i in range(classes))
    said = [f"text {i}" for i in range(len(p))] if texts is None else list(texts)
    seen = [f"seen {i}" for i in range(len(train[1]))]
    test, taught = (
        tuple(Example((t,), int(g), f"{name}:{i}") for i, (t, g) in enumerate(zip(ts, gs, strict=True)))
        for name, ts, gs in (("test", said, golds), ("train", seen, train[1]))
    )
    task = Task("given", "classification", ("text",), labels, labels, taught, (), test)
    known = dict(zip([*said, *seen], [*p, *np.asarray(train[0], dtype=float)], strict=True))
    prompt = more.pop("prompt", None) or Text(frame=Frame(labels=labels, words=labels, readout=readout))
    return Given(prompt, None, task, train=taught, known=known, **more)


def simulated(n: int, t: float, seed: int = 0) -> tuple[Floats, Any]:
    """Golds drawn from p, and p as a model would say it that is off by a temperature: p ** t, normalised."""
    rng = np.random.default_rng(seed)
    true = rng.dirichlet((0.7, 0.7, 0.7), n)
    golds = (true.cumsum(1) > rng.random((n, 1))).argmax(1)
    return scaled(true, 1 / t), golds


def test_the_error_in_three_bins_by_hand() -> None:
    """Bins [0, 1/3), [1/3, 2/3), [2/3, 1]: none; 0.5 and 0.6, one right; 0.7, 0.8 and 0.9, two right."""
    sure = np.array([0.5, 0.9, 0.6, 0.8, 0.7])
    right = np.array([1.0, 1.0, 0.0, 0.0, 1.0])
    assert bins_of(sure, right, 3) == [(2, pytest.approx(0.55), 0.5), (3, pytest.approx(0.8), pytest.approx(2 / 3))]
    z = torch.from_numpy(np.log(np.stack([sure, 1 - sure], 1)))
    expected = 2 / 5 * 0.05 + 3 / 5 * (0.8 - 2 / 3)
    assert calibration_error(z, (1 - right).astype(int), 3) == pytest.approx(expected)
    assert bins_of(np.array([1.0]), np.array([1.0]), 3) == [(1, 1.0, 1.0)]  # the last bin holds its end


def test_a_known_temperature_is_found() -> None:
    for t in (0.5, 1.0, 2.5):
        p, golds = simulated(4000, t)
        assert temperature(p, golds) == pytest.approx(t, rel=0.08)
    p = np.array([[0.8, 0.2], [0.5, 0.5]])
    assert scaled(p, 2.0)[0] == pytest.approx([2 / 3, 1 / 3])  # 0.8^(1/2) is twice 0.2^(1/2)
    assert scaled(p, 1.0) == pytest.approx(p)


def test_right_confidence_shows_what_chance_makes() -> None:
    p, golds = simulated(400, 1.0)
    finding = run(given(p, golds))
    assert finding.value is not None and finding.low is not None and finding.high is not None
    assert finding.low <= finding.value <= finding.high
    chance = finding.details["chance"]
    assert finding.value < chance < finding.details["most"] and f"would show {chance:.3f}" in finding.notes[0]
    few, many = (estimate(*simulated(n, 1.0), np.random.default_rng(0)).chance for n in (50, 5000))
    assert 0 < many < 0.02 < few  # ~ 0 with enough examples
    # a bin of one example of confidence 0.7 is right 7 times of 10: 0.7 * 0.3 + 0.3 * 0.7; beside it certain ones
    drawn = by_chance(np.array([1, 3]), np.array([0.7, 1.0]), np.random.default_rng(0))
    assert np.abs(drawn).mean(0) == pytest.approx([0.42 / 4, 0], abs=0.006) and abs(drawn.mean()) < 0.005


def test_the_error_that_is_left_by_hand() -> None:
    """One bin of 100, sure 0.8, 50 right: a gap of 0.3, of which chance is next to nothing. Of 79 right: 0.01, where
    chance makes 0.8 sqrt(2 / pi) sqrt(0.16 / 100) = 0.032: nothing is left, and no certainty either."""
    p, rng = np.array([[0.8, 0.2]] * 100), np.random.default_rng(0)
    far = estimate(p, np.repeat([0, 1], 50), rng)
    assert far.shown == pytest.approx(0.3) == far.value and far.chance == pytest.approx(0.032, abs=0.003)
    assert far.low == pytest.approx(0.3 - 1.96 * (0.25 / 100) ** 0.5, abs=0.012)
    assert far.high == pytest.approx(0.3 + 1.96 * (0.25 / 100) ** 0.5, abs=1e-6)
    near = estimate(p, np.repeat([0, 1], [79, 21]), rng)
    assert (
        near.shown == pytest.approx(0.01)
        and near.value == near.low == 0
        and near.high == pytest.approx(0.09, abs=0.001)
    )
    sure = estimate(np.array([[1.0, 0.0]] * 20), np.zeros(20, dtype=int), rng)
    assert (sure.value, sure.low) == (0, 0) and sure.high == pytest.approx(1.96**2 / (20 + 1.96**2))


def test_the_interval_holds_the_truth_and_no_temperature_is_offered_against_chance() -> None:
    """Where confidence is right, the truth is 0; off by a temperature of 2, what many examples show."""
    found = [run(given(*simulated(150, 1.0, seed))) for seed in range(60)]
    assert np.mean([f.low == 0 for f in found]) >= 0.88 and np.mean([f.value for f in found]) < 0.045  # type: ignore[misc]
    assert np.mean(["no more than chance shows" in f.headline for f in found]) >= 0.88
    assert np.mean(["temperature" in f.headline for f in found]) <= 0.12
    rng = np.random.default_rng(0)
    truth = estimate(*simulated(100_000, 2.0), rng).shown
    off = [estimate(*simulated(150, 2.0, seed), rng) for seed in range(1, 61)]
    assert np.mean([e.low <= truth <= e.high for e in off]) >= 0.93
    assert np.mean([e.value for e in off]) == pytest.approx(truth, abs=0.02)


def test_a_temperature_that_does_not_help_is_not_offered() -> None:
    """Too sure where it says 0.95, not sure enough where it says 0.6: no one temperature serves both."""
    p, golds = np.repeat([[0.95, 0.05], [0.6, 0.4]], 200, axis=0), np.repeat([0, 1, 0, 1], [170, 30, 150, 50])
    finding = run(given(p, golds))
    assert finding.details["scaled"]["value"] >= finding.value > 0.11  # type: ignore[operator]
    assert finding.headline.endswith("no temperature makes it better")


def test_it_stays_within_the_answers_it_may_take() -> None:
    subject = given(*simulated(90, 2.0), cells=40)
    finding = run(subject)
    assert subject.asked == 40 and sum(int(r[2]) for r in finding.rows) == 40
    assert "on 40 of 90 examples, drawn at random" in finding.notes


def test_too_sure_is_said_and_mended_on_other_examples() -> None:
    p, golds = simulated(2000, 3.0)
    finding = run(given(p, golds))
    assert finding.value is not None and finding.value > 0.15 and "too sure by" in finding.headline
    scaled_to = finding.details["scaled"]["value"]
    assert scaled_to < 0.5 * finding.value and f"would make it {scaled_to:.3f}" in finding.headline
    assert finding.details["temperatures"] == pytest.approx([3.0, 3.0], rel=0.2)
    assert sum(int(r[2]) for r in finding.rows) == 2000
    p, golds = simulated(600, 0.4)
    assert "not sure enough" in run(given(p, golds)).headline


def test_the_same_seed_finds_the_same_and_one_example_is_enough() -> None:
    p, golds = simulated(60, 2.0)
    assert run(given(p, golds)) == run(given(p, golds))
    assert run(given(p, golds, seed=1)).value != run(given(p, golds)).value
    one = run(given([[0.75, 0.25]], [0]))
    assert one.details["ece"] == pytest.approx(0.25) and one.details["temperatures"] == []
    assert one.value == one.low == 0 and "no more than chance" in one.headline


def test_what_has_no_probabilities_is_refused() -> None:
    subject = given([[0.5, 0.5]], [0])
    assert refuses(subject) == ""
    object.__setattr__(subject.task, "kind", "generation")
    assert "one class for each example" in refuses(subject)
    assert "no probabilities by themselves" in run(given([[0.5, 0.5]], [0], readout="similarity")).notes[1]
