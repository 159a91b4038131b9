"""Choosing the best prompt by few cells: what every way promises, and each way's equation by hand."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.special import expit
from scipy.stats import spearmanr

from anacrusis.errors import ConfigError, DataError
from anacrusis.measure.cheap import HOW, Choice, choose, halving, irt, ucb_e, ucb_e_lrf
from anacrusis.measure.cheap.table import Table, interval, top

NAN = float("nan")
Floats = NDArray[np.float64]


class Watched:
    """Answers from a matrix, and refuses what must not be asked."""

    def __init__(self, cells: Floats, batch: int = 10**6):
        self.cells, self.batch = cells, batch
        self.calls: list[tuple[int, list[int]]] = []

    def __call__(self, row: int, columns: list[int]) -> Sequence[float]:
        assert type(row) is int and all(type(c) is int for c in columns)
        assert 0 < len(columns) <= self.batch
        asked = {(r, c) for r, cs in self.calls for c in cs}
        assert not asked & {(row, c) for c in columns} and len(set(columns)) == len(columns), "a cell was asked twice"
        self.calls.append((row, columns))
        return list(self.cells[row, columns])

    @property
    def spent(self) -> int:
        return sum(len(c) for _, c in self.calls)


def planted(rows: int, columns: int, seed: int = 0, graded: bool = False) -> Floats:
    """Rows of different ability, columns of different difficulty."""
    rng = np.random.default_rng(seed)
    p = expit(rng.normal(0, 1, (rows, 1)) + rng.normal(0, 1, (1, columns)))
    return p if graded else (rng.random((rows, columns)) < p).astype(float)


def given(how: str, columns: int) -> Floats | None:
    return planted(12, columns, seed=99) if HOW[how].known == "must" else None


def run(how: str, cells: Floats, budget: int, seed: int = 0, batch: int = 4) -> tuple[Choice, Watched]:
    see = Watched(cells, batch)
    known = given(how, cells.shape[1])
    return choose(see, *cells.shape, budget=budget, how=how, seed=seed, batch=batch, known=known), see


# --- every way


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("graded", [False, True])
@pytest.mark.parametrize(("shape", "budget"), [((7, 23), 7), ((7, 23), 20), ((7, 23), 90), ((7, 23), 160), ((1, 9), 3),
                                               ((2, 1), 2), ((5, 3), 14), ((3, 40), 100)])  # fmt: skip
def test_keeps_the_budget_and_reports_what_it_saw(how: str, graded: bool, shape: tuple[int, int], budget: int) -> None:
    cells = planted(*shape, graded=graded)
    choice, see = run(how, cells, budget)
    seen = ~np.isnan(choice.seen)
    assert choice.cells == see.spent == seen.sum() <= budget
    assert np.array_equal(choice.seen[seen], cells[seen])
    assert seen.any(1).all(), "every row gets a turn"
    assert choice.estimates.shape == (shape[0],) and ((choice.estimates >= 0) & (choice.estimates <= 1)).all()
    assert how == "halving" or choice.best == top(choice.estimates)
    if choice.low is not None and choice.high is not None:
        assert (choice.low <= choice.estimates).all() and (choice.estimates <= choice.high).all()
    if how not in ("uniform", "halving"):  # these two keep what cannot be shared out
        assert choice.cells == min(budget, cells.size)


@pytest.mark.parametrize("how", HOW)
def test_a_budget_for_all_cells_is_exact(how: str) -> None:
    cells = planted(6, 11, graded=True)
    cells[4] = cells[cells.mean(1).argmax()][::-1]  # as good as the best, summed in another order
    choice, see = run(how, cells, 10**9)
    assert see.spent == cells.size and np.array_equal(choice.seen, cells)
    assert np.allclose(choice.estimates, cells.mean(1), atol=1e-12)
    assert choice.best == np.flatnonzero(np.isclose(cells.mean(1), cells.mean(1).max()))[0]
    assert choice.low is not None and np.array_equal(choice.low, choice.estimates)
    assert choice.high is not None and np.array_equal(choice.high, choice.estimates)


@pytest.mark.parametrize("how", HOW)
def test_the_seed_decides(how: str) -> None:
    cells = planted(8, 40)
    (a, seen_a), (b, seen_b), (c, seen_c) = (run(how, cells, 120, seed) for seed in (3, 3, 4))
    assert seen_a.calls == seen_b.calls and np.array_equal(a.estimates, b.estimates)
    if how != "irt-informative":  # there the first columns follow from the recorded rows
        assert seen_a.calls != seen_c.calls


@pytest.mark.parametrize("how", HOW)
def test_finds_a_clear_winner(how: str) -> None:
    cells = planted(20, 100, seed=5)
    cells[13] = np.maximum(cells[13], np.random.default_rng(0).random(100) < 0.95)
    assert run(how, cells, 600)[0].best == 13


@pytest.mark.parametrize("how", HOW)
def test_equal_rows_give_the_first(how: str) -> None:
    assert run(how, np.ones((5, 30)), 60)[0].best == 0


def test_what_does_not_fit_is_refused() -> None:
    see = Watched(np.ones((4, 10)))
    for wrong, words in (
        ({"how": "ucbe"}, "ucb-e"),
        ({"budget": 3}, "one cell a prompt"),
        ({"batch": 0}, "batch is 0"),
        ({"known": np.ones((2, 10))}, "irt, irt-informative"),
        ({"how": "irt-informative"}, "known="),
        ({"how": "irt", "known": np.ones((2, 9))}, r"\(2, 9\)"),
        ({"how": "irt", "known": np.full((2, 10), 2.0)}, r"\[0, 1\]"),
        ({"how": "irt", "known": np.full((2, 10), NAN)}, "known"),
    ):
        with pytest.raises(ConfigError, match=words):
            choose(see, 4, 10, **{"budget": 20, "how": "uniform", **wrong})  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="rows is 0"):
        choose(see, 0, 10, budget=20)
    assert not see.calls
    bad: list[Callable[[int, list[int]], Sequence[float]]] = [
        lambda r, c: [0.5], lambda r, c: [1.5] * len(c), lambda r, c: [NAN] * len(c),
    ]  # fmt: skip
    for answers in bad:
        with pytest.raises(DataError, match="row 0"):
            choose(answers, 4, 10, budget=20, how="uniform")


# --- intervals


def test_interval_by_hand() -> None:
    # p = 1/2, n = 10 of N = 20: m = 10 * 19 / 10 = 19, z^2 = 3.84146, half = 1.95996 / 1.20218 * sqrt(0.0158183)
    low, high = interval(np.array([0.5, 0.25, NAN]), np.array([10, 20, 0]), 20)
    assert low == pytest.approx([0.29495, 0.25, 0.0], abs=1e-5) and high == pytest.approx(
        [0.70505, 0.25, 1.0], abs=1e-5
    )


def test_intervals_of_uniform_hold_the_truth() -> None:
    cells = planted(40, 80, seed=2)
    truth, held = cells.mean(1), []
    for seed in range(40):
        c = choose(Watched(cells), 40, 80, budget=800, how="uniform", seed=seed)
        assert c.low is not None and c.high is not None
        held.append(((c.low <= truth) & (truth <= c.high)).mean())
    assert 0.93 <= np.mean(held) <= 0.98


# --- uniform and halving


def test_uniform_is_paired() -> None:
    _, see = run("uniform", planted(6, 30), 50, batch=100)
    assert len(see.calls) == 6 and {tuple(c) for _, c in see.calls} == {tuple(see.calls[0][1])}
    assert len(see.calls[0][1]) == 8  # floor(50 / 6)


@pytest.mark.parametrize(
    ("rows", "columns", "budget", "expected"),
    [
        (4, 100, 48, [(4, 6), (2, 18)]),  # 24 a round: 4 x 6, then 2 x 12
        (4, 10, 30, [(4, 5), (2, 10)]),  # the second round has only 5 columns left: 4 x 5 + 2 x 5
        (5, 100, 5, [(5, 1), (3, 1), (2, 1)]),  # one cell each, and nothing more
        (8, 100, 72, [(8, 3), (4, 9), (2, 21)]),
        (1, 10, 4, [(1, 4)]),
    ],
)
def test_halving_plan_by_hand(rows: int, columns: int, budget: int, expected: list[tuple[int, int]]) -> None:
    assert halving.plan(rows, columns, budget) == expected


def test_halving_keeps_the_better_half() -> None:
    cells = np.tile(np.array([0.2, 0.9, 0.1, 0.8])[:, None], (1, 100))
    choice, see = run("halving", cells, 48, batch=100)
    assert [(r, len(c)) for r, c in see.calls] == [(0, 6), (1, 6), (2, 6), (3, 6), (1, 12), (3, 12)]
    assert see.calls[4][1] == see.calls[5][1] and choice.best == 1 and choice.cells == 48


def test_halving_is_won_by_who_is_left() -> None:
    # of equal means the smaller indexes go on
    choice, _ = run("halving", np.ones((4, 50)), 40)
    assert choice.best == 0 and np.array_equal((~np.isnan(choice.seen)).sum(1) > 5, [True, True, False, False])


# --- UCB-E


def test_ucb_bounds_by_hand() -> None:
    cells = np.array([[1, 0, NAN, NAN], [1, 1, 1, 1], [NAN] * 4, [0, 0, 1, NAN]])
    table = Table(Watched(cells), cells, 16, 1, np.random.default_rng(0))
    assert ucb_e.bounds(table) == pytest.approx([0.5 + 0.5**0.5, -np.inf, np.inf, 1 / 3 + 3**-0.5])
    assert ucb_e.bounds(table, a=4.0)[0] == pytest.approx(0.5 + 2**0.5)


def test_ucb_e_goes_where_the_bound_is() -> None:
    # first turn: 30 // (2 * 3) = 5 each. Then bounds 0.9 + 5^-0.5, 0.8 + 5^-0.5, 0.1 + 5^-0.5, in turns by batches of 5
    cells = np.tile(np.array([0.9, 0.8, 0.1])[:, None], (1, 50))
    _, see = run("ucb-e", cells, 30, batch=5)
    # 0.9 + 10^-0.5 = 1.216 < 0.8 + 5^-0.5 = 1.247; then 1.216 > 0.8 + 10^-0.5 = 1.116
    assert [r for r, _ in see.calls] == [0, 1, 2, 0, 1, 0]


def test_a_full_row_is_left_alone() -> None:
    cells = np.array([[1.0] * 6, [0.0] * 6])
    for how in ("ucb-e", "ucb-e-lrf", "irt"):
        choice, see = run(how, cells, 10)
        assert choice.best == 0 and choice.cells == 10


# --- low-rank factorisation


def test_factorisation_recovers_a_rank_one_matrix() -> None:
    rng = np.random.default_rng(0)
    whole = np.outer(rng.uniform(0.2, 1, 12), rng.uniform(0.2, 1, 20))
    cells = np.where(rng.random(whole.shape) < 0.4, NAN, whole)
    found = ucb_e_lrf.factorise(cells, rng, ridge=1e-9, dropped=0.0)
    assert np.abs(found.mean - whole).max() < 1e-3 and found.deviation.max() < 1e-3


def test_factorisation_as_written() -> None:
    """Against one fit after the other, in loops."""
    cells = planted(5, 6, graded=True)
    cells[np.random.default_rng(1).random(cells.shape) < 0.4] = NAN
    found = ucb_e_lrf.factorise(cells, np.random.default_rng(7), ridge=0.3, dropped=0.2)
    rng, seen = np.random.default_rng(7), np.argwhere(~np.isnan(cells))
    dropped = rng.random((ucb_e_lrf.FITS, len(seen))) < 0.2
    starts, predicted = 0.5 + rng.random((ucb_e_lrf.FITS, 6)), []
    m = np.nanmean(cells)
    for fit in range(ucb_e_lrf.FITS):
        kept = [(k, n) for (k, n), d in zip(seen, dropped[fit], strict=True) if not d]
        v = starts[fit]
        for _ in range(10):
            u = np.array([
                (sum(cells[k, n] * v[n] for k, n in kept if k == row) + 0.3 * m)
                / (sum(v[n] ** 2 for k, n in kept if k == row) + 0.3)
                for row in range(5)
            ])  # fmt: skip
            v = np.array([
                (sum(cells[k, n] * u[k] for k, n in kept if n == column) + 0.3)
                / (sum(u[k] ** 2 for k, n in kept if n == column) + 0.3)
                for column in range(6)
            ])  # fmt: skip
        predicted.append(np.outer(u, v))
    assert np.allclose(found.mean, np.mean(predicted, 0)) and np.allclose(found.deviation, np.std(predicted, 0))


def test_lrf_asks_where_the_fits_disagree(monkeypatch: pytest.MonkeyPatch) -> None:
    mean = np.full((3, 40), 0.5)
    deviation = np.outer([0.01, 0.02, 0.01], np.arange(40) / 40)  # row 1 could be the best; late columns are unsure
    monkeypatch.setattr(ucb_e_lrf, "factorise", lambda cells, rng: ucb_e_lrf.Factors(mean, deviation))
    choice, see = run("ucb-e-lrf", np.full((3, 40), 0.5), 16)
    begun = {c for r, cs in see.calls[:3] for c in cs if r == 1}
    row, columns = see.calls[3]
    assert [len(cs) for _, cs in see.calls[:3]] == [2, 2, 2]  # 5 % of 120 cells
    assert row == 1 and columns == [c for c in range(39, -1, -1) if c not in begun][:4]
    assert choice.estimates == pytest.approx(0.5)


# --- item response


def simulated(rows: int, columns: int, seed: int) -> tuple[Floats, Floats, irt.Items]:
    rng = np.random.default_rng(seed)
    theta, a, c = rng.normal(0, 1, rows), np.exp(rng.normal(0, 0.5, columns)), rng.normal(0, 1.2, columns)
    cells = (rng.random((rows, columns)) < expit(np.outer(theta, a) + c)).astype(float)
    return cells, theta, irt.Items(a, c)


@pytest.mark.parametrize("sharp", [False, True])
def test_irt_recovers_what_was_simulated(sharp: bool) -> None:
    cells, theta, items = simulated(60, 120, 3)
    partly = np.where(np.random.default_rng(0).random(cells.shape) < 0.5, NAN, cells)
    found = irt.fit(partly, sharp=sharp)
    assert spearmanr(irt.abilities(partly, found), theta).statistic > 0.95
    assert spearmanr(found.c, items.c).statistic > 0.8
    if sharp:
        assert spearmanr(found.a, items.a).statistic > 0.5
    else:
        assert np.array_equal(found.a, np.ones(120))


@pytest.mark.parametrize("sharp", [False, True])
def test_irt_fit_is_where_the_slope_is_zero(sharp: bool) -> None:
    cells, _, _ = simulated(20, 15, 1)
    items = irt.fit(cells, sharp=sharp)
    theta = irt.abilities(cells, items)
    error = expit(np.outer(theta, items.a) + items.c) - cells
    centre = np.log(cells.mean() / (1 - cells.mean()))
    assert np.abs(error.sum(0) + (items.c - centre) / 4).max() < 0.01
    if sharp:
        assert np.abs(items.a * (theta @ error) + np.log(items.a) / 0.25).max() < 0.01


def test_irt_by_hand() -> None:
    one = irt.Items(np.array([1.0, 1.0]), np.zeros(2))
    cells = np.array([[1.0, NAN], [0.0, NAN], [NAN, NAN]])
    theta = irt.abilities(cells, one)
    assert theta == pytest.approx([0.401058, -0.401058, 0.0], abs=1e-5)  # theta = 1 - sigmoid(theta)
    estimates, error = irt.judged(cells, one)
    p = 1 - 0.401058  # of being right on the other: sigmoid(0.401058)
    noise = p * (1 - p)
    assert estimates == pytest.approx([(1 + p) / 2, (1 - p) / 2, 0.5], abs=1e-5)
    assert error[0] == pytest.approx(np.sqrt(noise**2 / (1 + noise) + noise) / 2, abs=1e-5)
    assert error[2] == pytest.approx(np.sqrt(0.25 + 0.5) / 2)
    assert irt.information(0.0, irt.Items(np.array([1.0, 2.0]), np.zeros(2))) == pytest.approx([0.25, 1.0])
    full = irt.judged(np.array([[1.0, 0.0]]), one)
    assert full[0][0] == 0.5 and full[1][0] == 0.0


def test_irt_informative_asks_what_tells_most() -> None:
    known, _, _ = simulated(40, 30, 4)
    cells, _, _ = simulated(5, 30, 5)
    see = Watched(cells)
    choose(see, 5, 30, budget=60, how="irt-informative", batch=6, known=known)
    items = irt.fit(known, sharp=True)
    wanted = np.argsort(-irt.information(0.0, items))[:6].tolist()
    assert [sorted(c) for _, c in see.calls[:5]] == [sorted(wanted)] * 5
    row, columns = see.calls[5]
    before = np.full((1, 30), NAN)
    before[0, wanted] = cells[row, wanted]
    telling = irt.information(float(irt.abilities(before, items)[0]), items)
    telling[wanted] = 0
    assert sorted(columns) == sorted(np.argsort(-telling)[: len(columns)].tolist())


def test_irt_makes_up_for_hard_examples() -> None:
    """Rows seen on different columns: the raw mean says the wrong one, difficulties the right one."""
    items = irt.Items(np.ones(20), np.repeat([2.0, -2.0], 10))
    cells = np.full((2, 20), NAN)
    cells[0, :10] = [1] * 8 + [0] * 2  # 80 % of easy ones
    cells[1, 10:] = [1] * 4 + [0] * 6  # 40 % of hard ones
    estimates, _ = irt.judged(cells, items)
    assert estimates[1] > estimates[0]


# --- what was measured


def test_the_recorded_matrices_and_the_page() -> None:
    from reference import prove_cheap

    found = prove_cheap.matrices()
    assert prove_cheap.MATRICES.stat().st_size < 150_000 and list(found) == list(prove_cheap.MATRIX_NAMES)
    assert found["trec"].shape == (80, 500) and found["trec"].mean(1).max() == pytest.approx(0.622)
    for cells in found.values():
        assert set(np.unique(cells)) == {0.0, 1.0}
    chosen, used = prove_cheap.one(found["sst2"], "halving", 0.05, 1000, "half")
    assert chosen in prove_cheap.split(80, 1000)[0] and 0.8 < used <= 1
    line = {"given": "half", "seeds": [1000], "chosen": [chosen]}
    rows = found["sst2"][prove_cheap.split(80, 1000)[0]].mean(1)
    assert prove_cheap.regrets(found["sst2"], line) == pytest.approx([rows.max() - found["sst2"][chosen].mean()])
    assert prove_cheap.PAGE.read_text() == prove_cheap.page(prove_cheap.read()), (
        "docs/cheap.md is stale: python -m reference.prove_cheap table"
    )
