"""Optuna's tree-structured Parzen estimator as MIPRO uses it: seeded, silent, over integers.

Paper: Bergstra et al. 2011, https://papers.nips.cc/paper/4443-algorithms-for-hyper-parameter-optimization
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ..errors import MissingExtra


class Study:
    """Optuna's multivariate TPE over integers, seeded and silent."""

    def __init__(self, seed: int):
        try:
            import optuna
        except ImportError as error:
            raise MissingExtra("optuna", "optimisers", "MIPRO") from error
        self.optuna = optuna
        with self.quiet():
            sampler = optuna.samplers.TPESampler(seed=seed, multivariate=True)
            self.study = optuna.create_study(direction="maximize", sampler=sampler)

    @contextmanager
    def quiet(self) -> Iterator[None]:
        level = self.optuna.logging.get_verbosity()
        self.optuna.logging.set_verbosity(self.optuna.logging.ERROR)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # multivariate is experimental in older releases
                yield
        finally:
            self.optuna.logging.set_verbosity(level)

    def space(self, sizes: dict[str, int]) -> dict[str, Any]:
        return {k: self.optuna.distributions.CategoricalDistribution(range(n)) for k, n in sizes.items()}

    def ask(self, sizes: dict[str, int]) -> tuple[Any, dict[str, int]]:
        with self.quiet():
            trial = self.study.ask(self.space(sizes))
        return trial, dict(trial.params)

    def tell(self, trial: Any, value: float) -> None:
        with self.quiet():
            self.study.tell(trial, value)

    def add(self, sizes: dict[str, int], params: dict[str, int], value: float) -> None:
        with self.quiet():
            made = self.optuna.trial.create_trial(params=params, distributions=self.space(sizes), value=value)
            self.study.add_trial(made)
