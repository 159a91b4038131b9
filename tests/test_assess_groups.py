"""Groups: their scores by hand, a gap against chance, and what confidence tells of a group."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.stats import t as student

from anacrusis.assess import groups
from anacrusis.assess.groups import OTHERS, SHUFFLES, foretold, gap_of, merged, refuses, run, thirds

from .test_assess_calibration import given


def with_groups(rights: dict[str, tuple[int, int]], **more: Any) -> Any:
    """A subject of two classes; of each group so many are right, so many wrong, all with confidence 0.8."""
    p, golds, names = [], [], []
    for name, (right, wrong) in rights.items():
        p += [[0.8, 0.2]] * (right + wrong)
        golds += [0] * right + [1] * wrong
        names += [name] * (right + wrong)
    groups = {f"test:{i}": n for i, n in enumerate(names)}
    return given(p, golds, groups=groups, **more)


def test_scores_by_group_and_the_worst_one() -> None:
    finding = run(with_groups({"web": (36, 4), "mail": (18, 22), "phone": (30, 10), "fax": (1, 1), "post": (2, 1)}))
    assert {r[1]: r[3].split()[0] for r in finding.rows} == {"web": "0.90", "mail": "0.45", "phone": "0.75",
                                                             OTHERS: "0.60"}  # fmt: skip
    assert finding.rows[-1][1] == OTHERS and finding.rows[-1][2] == "5"
    assert any("fewer than 5" in n for n in finding.notes)
    assert finding.value == pytest.approx(0.45) and finding.low is not None and finding.low > 0
    assert finding.details["worst"] == "mail" and finding.details["p"] < 0.01
    assert finding.headline.startswith("worst group 'mail': accuracy 0.45 [") and "of 0.70 in all" in finding.headline
    worst = next(g for g in finding.details["groups"] if g["name"] == "mail")["score"]
    assert worst["level"] == pytest.approx(1 - 0.05 / 4)  # wide enough for whichever of the four is the worst


def test_the_gap_of_two_groups_by_all_shuffles() -> None:
    """Two of two right, none of two: of the 6 ways to choose two of four, 2 show a gap of 1, the others none."""
    gap = gap_of(np.array([1.0, 1.0, 0.0, 0.0]), np.array([0, 0, 1, 1]), np.random.default_rng(0))
    assert gap.value == 1 and gap.p == pytest.approx(1 / 3, abs=0.04) and gap.low == 0 and gap.high == 1
    # 9 of 12, 3 of 4 and 0 of 4: r is that of the largest group and the worst, which is as far off but better known
    values, index = np.array([1.0] * 9 + [0] * 3 + [1] * 3 + [0] * 5), np.repeat([0, 1, 2], [12, 4, 4])
    rng = np.random.default_rng(0)
    drawn = []
    for _ in range(SHUFFLES):
        v = values[rng.permutation(20)]
        m = [v[index == g].mean() for g in range(3)]
        drawn.append(max(abs(m[0] - m[1]) / (1 / 3) ** 0.5, abs(m[0] - m[2]) / (1 / 3) ** 0.5,
                         abs(m[1] - m[2]) / 0.5**0.5))  # fmt: skip
    gap = gap_of(values, index, np.random.default_rng(0))
    assert gap.value == 0.75 and gap.p == (1 + sum(d >= 0.75 * 3**0.5 - 1e-9 for d in drawn)) / (1 + SHUFFLES)


def test_the_interval_of_a_gap_by_hand() -> None:
    """18 of 20 right and 3 of 8: with one right and one wrong more, 19 of 22 and 4 of 10 (Agresti & Caffo)."""
    values, index = np.array([1.0] * 18 + [0] * 2 + [1] * 3 + [0] * 5), np.repeat([0, 1], [20, 8])
    a, b = 19 / 22 * 3 / 22 / 22, 0.4 * 0.6 / 10
    off = student.ppf(0.975, (a + b) ** 2 / (a**2 / 21 + b**2 / 9)) * (a + b) ** 0.5
    gap = gap_of(values, index, np.random.default_rng(0))
    assert (gap.value, gap.low, gap.high) == pytest.approx((0.525, 19 / 22 - 0.4 - off, 19 / 22 - 0.4 + off))
    # a third group in between widens it: three pairs, of which it is the widest
    more = gap_of(np.append(values, [1.0, 1, 1, 0]), np.append(index, [2] * 4), np.random.default_rng(0))
    assert more.value == gap.value and more.low < gap.low and more.high > gap.high
    alike = gap_of(np.ones(40), np.repeat([0, 1], 20), np.random.default_rng(0))
    v = 2 * 21 / 22 / 22 / 22
    assert (alike.value, alike.low, alike.p) == (0, 0, 1) and alike.high == pytest.approx(
        student.ppf(0.975, 42) * v**0.5
    )


@pytest.mark.parametrize(
    ("rights", "sizes"),
    [((0.98, 0.6), (200, 12)), ((0.98, 0.6), (12, 200)), ((0.9,) * 3, (50,) * 3), ((0.95, 0.9, 0.5), (100, 20, 8))],
)
def test_the_interval_holds_the_true_gap(
    rights: tuple[float, ...], sizes: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(groups, "SHUFFLES", 1)
    rng, index, truth = np.random.default_rng(0), np.repeat(range(len(sizes)), sizes), max(rights) - min(rights)
    values = [(rng.random(len(index)) < np.array(rights)[index]).astype(float) for _ in range(200)]
    found = [gap_of(v, index, rng) for v in values]
    assert np.mean([g.low <= truth + 1e-12 and truth <= g.high + 1e-12 for g in found]) >= 0.92
    assert all(g.low <= g.value <= g.high for g in found)


def test_p_is_uniform_where_groups_do_not_matter() -> None:
    rng, index = np.random.default_rng(1), np.repeat(np.arange(4), 30)
    found = [gap_of(rng.random(120), index, rng) for _ in range(150)]
    ps = np.array([g.p for g in found])
    for level in (0.1, 0.3, 0.5, 0.8):
        assert (ps <= level).mean() == pytest.approx(level, abs=3.5 * (level * (1 - level) / 150) ** 0.5)
    assert np.mean([g.low > 0 for g in found]) < 0.1  # the interval holds 0 as often as it says
    wide = [gap_of(rng.random(120), index, np.random.default_rng(0), level).high for level in (0.5, 0.99)]
    assert wide[0] < wide[1]


def test_a_larger_gap_is_less_likely_by_chance() -> None:
    ps = [run(with_groups({"a": (20 + k, 20 - k), "b": (20 - k, 20 + k)})).details["p"] for k in (0, 3, 6, 12)]
    assert ps == sorted(ps, reverse=True) and ps[0] > 0.5 and ps[-1] < 0.01


def test_without_a_column_by_length_and_class() -> None:
    texts = ["x" * (1 + i) for i in range(30)]
    golds = [i % 3 for i in range(30)]
    p = [[0.9, 0.05, 0.05] if g != 2 else [0.4, 0.5, 0.1] for g in golds]
    p = [[0.05, 0.9, 0.05] if g == 1 else row for g, row in zip(golds, p, strict=True)]
    finding = run(given(p, golds, texts=texts))
    assert [r[:3] for r in finding.rows] == [
        ("length", "0 to 10 characters", "10"), ("length", "11 to 20 characters", "10"),
        ("length", "21 characters or more", "10"), ("class", "c0", "10"), ("class", "c1", "10"), ("class", "c2", "10"),
    ]  # fmt: skip
    assert finding.headline.startswith("worst class 'c2': accuracy 0.00") and finding.value == 1
    assert finding.details["p"] == pytest.approx(2 * finding.details["gaps"]["class"]["p"])  # both ways were tried
    assert thirds([5, 5, 5, 9]) == ["0 to 5 characters"] * 3 + ["6 characters or more"]
    assert merged(["a"] * 5 + ["b"] * 4) == ["a"] * 5 + [OTHERS] * 4


def test_confidence_foretells_by_hand() -> None:
    """The others: 3 of 5 right, confidence 0.7. Mine: confidence 0.6, so 0.6 - 0.1."""
    sure = np.array([0.9, 0.8, 0.7, 0.6, 0.5, 0.95, 0.7, 0.65, 0.1])
    right = np.array([1.0, 0, 1, 1, 0, 0, 0, 0, 0])
    mine = np.arange(9) >= 5
    assert foretold(sure, right, mine) == pytest.approx(0.5)
    assert foretold(sure, np.zeros(9), mine) == 0  # never below 0
    assert foretold(sure, right, ~mine) == pytest.approx(0.1)


def test_confidence_that_knows_the_hard_group_is_worth_more_than_the_others_score() -> None:
    rng = np.random.default_rng(0)
    sure = np.concatenate([rng.uniform(0.9, 1.0, 100), rng.uniform(0.5, 0.95, 100)])
    golds = (rng.random(200) > sure).astype(int)
    groups = {f"test:{i}": "easy" if i < 100 else "hard" for i in range(200)}
    finding = run(given(np.stack([sure, 1 - sure], 1), golds, groups=groups))
    by, flat = (np.mean([abs(g[k] - g["score"]["value"]) for g in finding.details["groups"]])
                for k in ("foretold", "others"))  # fmt: skip
    assert by < 0.6 * flat and f"to {by:.2f}, the others' score does to {flat:.2f}" in finding.notes[-1]


def test_fewer_examples_than_asked_are_drawn_and_said() -> None:
    finding = run(with_groups({"a": (30, 10), "b": (30, 10)}, cells=50))
    assert sum(int(r[2]) for r in finding.rows) == 50
    assert any("50 of 80 examples, drawn at random" in n for n in finding.notes)


def test_one_group_is_refused() -> None:
    assert refuses(with_groups({"a": (5, 5)})).startswith("all examples are of one group")
    assert refuses(with_groups({"a": (2, 2), "b": (1, 2)})).startswith("all examples are of one group")
    assert refuses(given([[0.5, 0.5]] * 6, [0] * 6, texts=list("abcdef"))).startswith("no groups are given")
    assert refuses(with_groups({"a": (5, 5), "b": (5, 5)})) == ""


def test_groups_that_the_answers_do_not_reach_are_refused() -> None:
    many = {f"g{i}": (4, 1) for i in range(60)}
    assert refuses(with_groups(many)) == ""
    assert "of the 60 examples that are allowed no two groups have 5" in refuses(with_groups(many, cells=60))


def test_written_answers_are_not_said_to_be_right() -> None:
    finding = run(with_groups({"a": (30, 10), "b": (10, 30)}))
    assert finding.heads[3] == "accuracy" and "accuracy" in finding.headline
    assert finding.chart["said"] == "95 % interval, of all groups together"
