"""Linear probes: a logistic regression on pooled states of the frozen model. A baseline, and where heads start."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..model.model import batches_by_length
from ..model.readout import Pooled
from ..model.rows import Row, collate
from ..prompt.values import Head, Prompt

GRID = (0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0)  # inverse regularisation, for features of unit RMS


@torch.no_grad()
def features(read: Pooled, rows: Sequence[Row], prompt: Prompt, *, size: int = 32, done: Any = None) -> Tensor:
    """(N, H) pooled states under `prompt`, on the CPU, in the order of `rows`."""
    out = torch.zeros(len(rows), read.model.hidden)
    with read.model.frozen():
        for index in batches_by_length(rows, size):
            batch = collate([rows[i] for i in index]).to(read.model.device)
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
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import average_precision_score

    spread = float(x.square().mean().sqrt()) or 1.0
    a, b = (x / spread).numpy(), (x_valid / spread).numpy()
    best: tuple[float, float, Head] | None = None
    for C in grid:
        weight, bias = np.zeros((classes, x.shape[1])), np.full(classes, -1e4)
        if golds.ndim == 2:
            for c in range(classes):
                if 0 < golds[:, c].sum() < len(golds):
                    one = LogisticRegression(C=C, max_iter=1000).fit(a, golds[:, c])
                    weight[c], bias[c] = one.coef_[0], one.intercept_[0]
        else:
            fitted = LogisticRegression(C=C, max_iter=1000).fit(a, golds)
            seen = fitted.classes_
            if len(seen) == 2:  # sklearn keeps one row for two classes
                weight[seen], bias[seen] = (
                    np.stack([-fitted.coef_[0], fitted.coef_[0]]) / 2,
                    [
                        -fitted.intercept_[0] / 2,
                        fitted.intercept_[0] / 2,
                    ],
                )
            else:
                weight[seen], bias[seen] = fitted.coef_, fitted.intercept_
        z = b @ weight.T + bias
        if golds.ndim == 2:
            held = golds_valid.any(0)
            score = float(average_precision_score(golds_valid[:, held], z[:, held])) if held.any() else 0.0
        else:
            score = float((z.argmax(1) == golds_valid).mean()) if len(golds_valid) else -C
        if best is None or score > best[0]:
            best = (score, C, Head(torch.tensor(weight / spread).float(), torch.tensor(bias).float()))
    assert best is not None
    return best[2], best[1]
