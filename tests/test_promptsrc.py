"""PromptSRC: the three ties to the frozen model and the average over epochs, by hand."""

from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from anacrusis.errors import ConfigError
from anacrusis.methods import ivlp
from anacrusis.methods.promptsrc import PromptSRCConfig, build, gaussian, terms
from anacrusis.methods.zero_shot import TEMPLATES
from anacrusis.model.readout import reader
from anacrusis.prompt.values import Frame, Text
from anacrusis.tune.recipe import View
from anacrusis.tune.trainer import Trainer
from tests.test_ivlp import batch_of, both, model_of, problem


def values(z: Tensor, z0: Tensor, multi: bool = False, **options: Any) -> dict[str, float]:
    """The weighted terms for features of two values, with the frozen model's written out."""
    frozen = SimpleNamespace(
        texts=lambda frame: torch.tensor([[1.0, 0.0], [0.0, 1.0]]),
        features=lambda batch: torch.tensor([[0.0, 1.0]]),
        match=lambda f, t: z0,
    )
    seen = SimpleNamespace(text=torch.tensor([[0.6, 0.8], [0.0, 1.0]]), image=torch.tensor([[0.8, 0.6]]))
    view = View(frozen, None, torch.zeros(1), Text(), Text(), z, seen)
    made = terms(PromptSRCConfig(**options), Frame(multi=multi), 2048)
    return {t.name: t.weight * float(t.value(view)) for t in made}


def test_the_ties_by_hand() -> None:
    found = values(torch.tensor([[math.log(3.0), 0.0]]), torch.tensor([[1.0, 1.0]]))
    assert found["text"] == pytest.approx(2 * 25 * (0.4 + 0.8) / 4)  # sqrt(2048 / 512) = 2, mean of 2 * 2 elements
    assert found["image"] == pytest.approx(2 * 10 * (0.8 + 0.4) / 2)
    # KL((1/2, 1/2) || (3/4, 1/4)), frozen first, over B * C = 2
    assert found["scores"] == pytest.approx((0.5 * math.log(0.5 / 0.75) + 0.5 * math.log(0.5 / 0.25)) / 2)


def test_several_labels_are_tied_one_by_one() -> None:
    z, z0 = torch.tensor([[math.log(3.0), 0.0]]), torch.tensor([[0.0, 0.0]])
    one = 0.5 * math.log(0.5 / 0.75) + 0.5 * math.log(0.5 / 0.25)
    assert values(z, z0, multi=True)["scores"] == pytest.approx(one / 2)  # the second class agrees already
    assert values(z + 5, z0 + 5)["scores"] == pytest.approx(one / 2, abs=1e-6)  # of one label: a shift is nothing
    assert values(z + 5, z0 + 5, multi=True)["scores"] != pytest.approx(one / 2, abs=1e-3)


def test_a_tie_of_a_side_without_rows_is_left_out() -> None:
    z = torch.zeros(1, 2)
    assert set(values(z, z, side="text")) == {"text", "scores"}
    assert set(values(z, z, side="image")) == {"image", "scores"}
    assert set(values(z, z, score_weight=0.0)) == {"text", "image"}


def test_class_features_are_tied_to_an_ensemble_of_templates() -> None:
    model = model_of()
    r, batch = build(PromptSRCConfig(), problem(model)), batch_of(model)
    with model.frozen():
        made = r.maker(None)
        seen = reader(model, r.frame).seen(batch, model.place(made, batch))  # type: ignore[attr-defined]
        each = [model.texts(replace(problem(model).frame, template=t)) for t in TEMPLATES]
    asked = F.normalize(torch.stack(each).sum(0), dim=-1)
    view = View(model, batch, torch.zeros(3), made, made, None, seen)
    ties = {t.name: t for t in r.terms}
    assert torch.allclose(ties["text"].value(view), (seen.text - asked).abs().mean(), rtol=1e-4)
    rows = [t for side in both(made) for t in side.layers.values()]
    for name, mine in (("text", {0, 1, 2}), ("image", {3, 4, 5})):
        grads = torch.autograd.grad(ties[name].value(view), rows, allow_unused=True, retain_graph=True)
        assert {i for i, g in enumerate(grads) if g is not None and g.abs().sum() > 0} == mine


def test_without_ties_and_average_it_is_ivlp() -> None:
    model = model_of()
    r = build(PromptSRCConfig(text_weight=0, image_weight=0, score_weight=0), problem(model))
    theirs = ivlp.build(ivlp.IVLPConfig(), problem(model))
    assert r.terms == () and r.maker.fold().same(theirs.maker.fold()) and r.frame == theirs.frame


def test_the_weights_are_a_gaussian_over_epochs_by_hand() -> None:
    weight = gaussian(0.5, 0.25)  # epochs at 1/4, 1/2, 3/4 and 1: -1, 0, 1 and 2 deviations off the centre
    e = [math.exp(-0.5), 1.0, math.exp(-0.5), math.exp(-2.0)]
    assert [weight(i, 4) for i in (1, 2, 3, 4)] == pytest.approx([x / sum(e) for x in e])
    paper = gaussian(15 / 20, 1 / 20)
    found = [paper(i, 20) for i in range(1, 21)]
    assert max(range(20), key=found.__getitem__) + 1 == 15 and sum(found) == pytest.approx(1.0)
    assert found[13] / found[14] == pytest.approx(math.exp(-0.5))
    assert gaussian(0.75, 1e-3)(1, 1) == 1.0  # far from every epoch: the nearest one counts


def test_what_is_kept_is_the_average_over_epochs_by_hand() -> None:
    given = problem(model_of(layers=2))
    given = replace(given, training=replace(given.training, epochs=3, batch=4, patience=0))
    r = build(PromptSRCConfig(centre=0.5, width=0.3), given)
    at: list[Tensor] = []

    def keep(event: dict[str, Any]) -> None:
        if event["event"] == "validate" and event["step"]:
            at.append(next(r.maker.parameters()).detach().clone())

    out = Trainer(given, r, seed=1, observe=keep).fit()
    weights = [math.exp(-((e / 3 - 0.5) ** 2) / (2 * 0.3**2)) for e in (1, 2, 3)]
    expected = torch.stack([w / sum(weights) * t for w, t in zip(weights, at, strict=True)]).sum(0)
    kept = both(out.prompt)[0].layers[0]
    assert torch.allclose(kept, expected, atol=1e-6) and not torch.allclose(kept, at[-1], atol=1e-4)


@pytest.mark.parametrize("options", [{"width": 0}, {"text_weight": -1}, {"score_weight": -1}, {"depth": 0}])
def test_wrong_options_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(options))):
        PromptSRCConfig(**options)
