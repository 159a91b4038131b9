"""KgCoOp: the loss is cross entropy plus w times one minus the mean cosine to class features in words."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from anacrusis.errors import ConfigError
from anacrusis.methods.kgcoop import KgCoOpConfig, build
from anacrusis.model.frames import default_frame
from anacrusis.model.sight import Sight
from anacrusis.prompt.values import Tokens
from anacrusis.task import Task
from anacrusis.testing import planted_sight, sight
from anacrusis.tune.recipe import Problem, Training
from anacrusis.tune.trainer import Trainer


@pytest.fixture(scope="module")
def known() -> tuple[Sight, Task]:
    model = sight("clip")
    return model, planted_sight(model, examples=48)[0]


def trainer(known: tuple[Sight, Task], config: KgCoOpConfig, template: str = "") -> Trainer:
    frame = default_frame(*known, template=template)
    given = Problem(*known, frame, torch.Generator().manual_seed(0), Training(epochs=12, batch=16, patience=0, lr=0.1))
    return Trainer(given, build(config, given), seed=1)


def losses(of: Trainer) -> dict[str, torch.Tensor]:
    of.began = 0.0
    with of.model.frozen():
        of._prepare()
        return {k: v.detach() for k, v in of._losses([0, 1, 2], None, of.recipe.stages[0]).items()}


def test_at_the_start_it_is_cross_entropy(known: tuple[Sight, Task]) -> None:
    found = losses(trainer(known, KgCoOpConfig(), "a photo of a {label}."))
    assert list(found) == ["answer", "knowledge"] and float(found["answer"]) > 0.01
    assert abs(float(found["knowledge"])) < 1e-5


@pytest.mark.parametrize("template", ["a photo of a {label}.", "x {label} a"])
def test_the_distance_by_hand(known: tuple[Sight, Task], template: str) -> None:
    """Eight times one minus the cosine is four times the squared distance: to the task's own template."""
    of = trainer(known, KgCoOpConfig(weight=8.0), template)
    with torch.no_grad():
        of.maker.encoder.vectors.add_(0.3 * torch.randn(4, 32, generator=torch.Generator().manual_seed(2)))
    found = losses(of)["knowledge"]
    rows = of.maker.encoder.vectors.detach()
    with torch.no_grad(), known[0].frozen():
        t = known[0].texts(of.recipe.frame, Tokens(side="text", layers={0: rows}))
        said = known[0].texts(replace(of.recipe.frame, template=template))
    assert float(found) == pytest.approx(4 * float((t - said).square().sum(1).mean()), rel=1e-4)
    assert float(found) > 0.1


def test_it_holds_the_class_features_back(known: tuple[Sight, Task]) -> None:
    far = []
    for weight in (0.0, 8.0, 1000.0):
        of = trainer(known, KgCoOpConfig(weight=weight))
        prompt = of.fit().prompt
        assert isinstance(prompt, Tokens)
        with torch.no_grad(), known[0].frozen():
            t = known[0].texts(of.recipe.frame, Tokens(side="text", layers={0: of.maker.encoder.vectors.detach()}))
            far.append(float((t - known[0].texts(of.problem.frame)).norm(dim=1).mean()))
    assert far[0] > far[1] > 2 * far[2]


def test_options_that_cannot_be_are_refused() -> None:
    with pytest.raises(ConfigError, match="weight must be 0 or more, got -1"):
        KgCoOpConfig(weight=-1)
    with pytest.raises(ConfigError, match="length is 0"):
        KgCoOpConfig(words="")
