"""Item response: every prompt has an ability, every example an easiness and, in the 2PL, a sharpness.

    P(x_kn = 1) = sigmoid(a_n theta_k + c_n)       (difficulty b_n = -c_n / a_n; the 1PL has a_n = 1)
    maximum a posteriori over the seen cells, theta_k ~ N(0, 1), log a_n ~ N(0, 0.5^2), c_n ~ N(logit of mean x, 2^2)
    information of an example at theta: a_n^2 p (1 - p);  var(theta_k) = 1 / (1 + sum over seen n of it)
    estimate_k = (1 / N) (sum over seen n of x_kn + sum over unseen n of p_kn)
    bound_k = estimate_k + (1.96 / N) sqrt((sum over unseen n of a_n p (1 - p))^2 var + sum over unseen n of p (1 - p))

The next cells go to the row of the highest bound.
irt: a 1PL; rows take their columns in one shared random order. Recorded rows of other prompts give the examples'
    easiness; without them it is fitted to what was seen.
irt-informative: a 2PL of recorded rows; a row takes the columns that tell most at its ability as it now seems.

Papers: Polo et al. 2024 (tinyBenchmarks), https://arxiv.org/abs/2402.14992 (item response models, the estimate p-IRT);
    Lalor et al. 2016, https://arxiv.org/abs/1605.08889; Rodriguez et al. 2021 (ACL, Evaluation Examples are not Equally
    Informative); information: Lord 1980, Applications of Item Response Theory
Departure: one ability a prompt, where tinyBenchmarks has several, fits by variational inference and asks fixed anchor
    examples; which row comes next is our rule. Graded values count as fractions of a success.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit, logit

from .table import Columns, Floats, How, Judged, Table, top

SPREAD_A, SPREAD_C = 0.5, 2.0  # prior deviations of log a and c
OPTIMISM, AGAIN = 1.96, 0.1  # deviations in a bound; growth of the seen cells between fits
STEPS = 40  # of Newton at most


class Items(NamedTuple):
    a: Floats  # (N,) sharpness, positive
    c: Floats  # (N,) easiness


def fit(cells: Floats, *, sharp: bool, start: Items | None = None) -> Items:
    """Examples' parameters from (K, N) with NaN where unseen; abilities are fitted along and left out.

    sharp: fit a too (2PL). start: an earlier fit to fewer cells.
    """
    k, n = cells.shape
    row, column = np.nonzero(~np.isnan(cells))
    y = cells[row, column]
    centre = float(logit(np.clip(y.mean(), 0.01, 0.99)))

    def loss(x: Floats) -> tuple[float, Floats]:
        theta, c, log_a = x[:k], x[k : k + n], x[k + n :] if sharp else np.zeros(n)
        a = np.exp(log_a)
        z = theta[row] * a[column] + c[column]
        error = expit(z) - y
        prior = (theta @ theta + ((c - centre) ** 2).sum() / SPREAD_C**2 + log_a @ log_a / SPREAD_A**2) / 2
        slope = [
            np.bincount(row, error * a[column], k) + theta,
            np.bincount(column, error, n) + (c - centre) / SPREAD_C**2,
            a * np.bincount(column, error * theta[row], n) + log_a / SPREAD_A**2,
        ]
        return float((np.logaddexp(0.0, z) - y * z).sum() + prior), np.concatenate(slope if sharp else slope[:2])

    items = start or Items(np.ones(n), np.full(n, centre))
    parts = [abilities(cells, items), items.c, np.log(items.a)]
    begin = np.concatenate(parts if sharp else parts[:2])
    x = minimize(loss, begin, jac=True, method="L-BFGS-B", options={"maxiter": 30 if start else 100}).x
    return Items(np.exp(x[k + n :]) if sharp else np.ones(n), x[k : k + n])


def abilities(cells: Floats, items: Items) -> Floats:
    """(K,) most likely abilities under the prior N(0, 1), the examples' parameters given. By Newton's method."""
    seen, y = ~np.isnan(cells), np.nan_to_num(cells)
    theta = np.zeros(len(cells))
    for _ in range(STEPS):
        p = expit(np.outer(theta, items.a) + items.c)
        slope = (seen * (y - p)) @ items.a - theta
        step = np.clip(slope / (1 + (seen * p * (1 - p)) @ items.a**2), -1.0, 1.0)
        theta += step
        if np.abs(step).max() < 1e-6:
            break
    return theta


def judged(cells: Floats, items: Items) -> tuple[Floats, Floats]:
    """(K,) estimates of the rows' means, and (K,) their standard errors as the model has it."""
    seen, theta = ~np.isnan(cells), abilities(cells, items)
    p = expit(np.outer(theta, items.a) + items.c)
    noise = p * (1 - p)
    variance = 1 / (1 + (seen * noise) @ items.a**2)
    unseen = ~seen * noise
    return np.where(seen, cells, p).mean(1), np.sqrt((unseen @ items.a) ** 2 * variance + unseen.sum(1)) / len(items.a)


def information(theta: float, items: Items) -> Floats:
    """(N,) Fisher information of every example at one ability."""
    p = expit(items.a * theta + items.c)
    return items.a**2 * p * (1 - p)


def run(table: Table, informative: bool = False) -> Judged:
    items = None if table.known is None else fit(table.known, sharp=informative)

    def wanted(row: int) -> Columns:
        unseen = table.unseen(row)
        if not informative or items is None:
            return unseen
        theta = float(abilities(table.cells[[row]], items)[0])
        return unseen[np.argsort(-information(theta, items)[unseen], kind="stable")]

    for row in range(len(table.cells)):
        table.ask(row, wanted(row)[: table.first])
    now = items or fit(table.cells, sharp=False)
    estimates, error = judged(table.cells, now)
    fitted = table.spent
    while table.left and table.open.any():
        row = top(np.where(table.open, estimates + OPTIMISM * error, -np.inf))
        table.ask(row, wanted(row)[: min(table.batch, table.left)])
        if items is None and table.spent >= fitted * (1 + AGAIN):
            now, fitted = fit(table.cells, sharp=False, start=now), table.spent
            estimates, error = judged(table.cells, now)
        else:
            estimates[[row]], error[[row]] = judged(table.cells[[row]], now)
    if items is None:
        estimates, _ = judged(table.cells, fit(table.cells, sharp=False, start=now))
    return Judged(top(estimates), estimates)


PAPER = "https://arxiv.org/abs/2402.14992"
HOW = (
    How("irt", "abilities of prompts and difficulties of examples; the next examples as ucb-e", PAPER, run, "can"),
    How("irt-informative", "the same, the most informative examples first; needs recorded scores of other prompts",
        PAPER, partial(run, informative=True), "must"),
)  # fmt: skip
