"""Linear probes: a logistic regression on pooled states of the frozen model. A baseline, and where heads start."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import ConfigError
from ..model.model import batches_by_length
from ..model.readout import Pooled
from ..model.rows import Row
from ..prompt.values import Head, Prompt

GRID = (0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0)  # inverse regularisation, for features of unit RMS


@torch.no_grad()
def features(read: Pooled, rows: Sequence[Row], prompt: Prompt, *, size: int = 32, done: Any = None) -> Tensor:
    """(N, H) pooled states under `prompt`, on the CPU, in the order of `rows`."""
    out = torch.zeros(len(rows), read.model.hidden)
    with read.model.frozen():
        for index in batches_by_length(rows, size):
            batch = read.batch([rows[i] for i in index])
            out[index] = read.pooled(batch, read.model.place(prompt, batch)).cpu()
            if done:
                done(len(index))
    return out


def fit_head(
    x: Tensor, golds: np.ndarray, x_valid: Tensor, golds_valid: np.ndarray, classes: int, grid: Sequence[float] = GRID
) -> tuple[Head, float]:
    """The logistic regression whose regularisation does best on validation (smaller C on ties), and that C.

    x: (N, H). golds: (N,) class indexes, or (N, C) of 0 and 1 for several labels. Classes without an example keep a
    zero row and a bias that never wins.
    """
    from threadpoolctl import threadpool_limits

    spread = float(x.square().mean().sqrt()) or 1.0
    a, b = (x / spread).numpy(), (x_valid / spread).numpy()
    best: tuple[float, float, Head] | None = None
    with threadpool_limits(1):  # small problems: several threads wait for each other, for minutes on a busy machine
        for C in grid:
            weight, bias = _regression(a, golds, C, classes)
            score = _score(b @ weight.T + bias, golds_valid) if len(golds_valid) else -C
            if best is None or score > best[0]:
                best = (score, C, Head(torch.tensor(weight / spread).float(), torch.tensor(bias).float()))
    if best is None:
        raise ConfigError("the grid of regularisations is empty")
    return best[2], best[1]


def _regression(a: np.ndarray, golds: np.ndarray, C: float, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """(C, H) weights and (C,) biases. A class that never occurs (or always does) cannot be fitted: it never wins."""
    from sklearn.linear_model import LogisticRegression

    weight, bias = np.zeros((classes, a.shape[1])), np.full(classes, -1e4)
    if golds.ndim == 2:
        for c in range(classes):
            if 0 < golds[:, c].sum() < len(golds):
                one = LogisticRegression(C=C, max_iter=1000).fit(a, golds[:, c])
                weight[c], bias[c] = one.coef_[0], one.intercept_[0]
        return weight, bias
    fitted = LogisticRegression(C=C, max_iter=1000).fit(a, golds)
    w, z, seen = fitted.coef_, fitted.intercept_, fitted.classes_
    if len(seen) == 2:  # sklearn keeps one row for two classes: half of it for each
        w, z = np.stack([-w[0], w[0]]) / 2, np.array([-z[0], z[0]]) / 2
    weight[seen], bias[seen] = w, z
    return weight, bias


def _score(z: np.ndarray, golds: np.ndarray) -> float:
    """Accuracy, or mean average precision where several labels may hold."""
    from sklearn.metrics import average_precision_score

    if golds.ndim == 1:
        return float((z.argmax(1) == golds).mean())
    held = golds.any(0)
    return float(average_precision_score(golds[:, held], z[:, held])) if held.any() else 0.0
