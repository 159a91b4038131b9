"""DAPT: class features are pushed apart, picture features pulled to the mean of their class's frozen ones."""

from __future__ import annotations

import math

import pytest
import torch

from anacrusis.errors import ConfigError
from anacrusis.methods.dapt import DAPTConfig, build, crowding, prototypes, spread
from anacrusis.model.frames import default_frame
from anacrusis.model.images import ImageBatch, rows_of
from anacrusis.model.sight import Sight
from anacrusis.model.sighted import Seen
from anacrusis.prompt.values import Paired, Text, Tokens
from anacrusis.task import Task
from anacrusis.testing import planted_sight, sight
from anacrusis.tune.recipe import Problem, Training, View
from anacrusis.tune.trainer import Trainer


@pytest.fixture(scope="module")
def known() -> tuple[Sight, Task]:
    model = sight("clip")
    return model, planted_sight(model, examples=120)[0]


def trainer(known: tuple[Sight, Task], config: DAPTConfig, epochs: int = 1) -> Trainer:
    training = Training(epochs=epochs, batch=16, patience=0)
    given = Problem(*known, default_frame(*known), torch.Generator().manual_seed(0), training)
    return Trainer(given, build(config, given), seed=1)


def view(image: torch.Tensor, text: torch.Tensor, golds: list[int]) -> View:
    return View(None, None, torch.tensor(golds), Text(), Text(), None, Seen(image, text))


def test_the_terms_by_hand() -> None:
    text = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])  # squared distances 2, 4, 2
    image = torch.tensor([[1.0, 0.0], [0.6, 0.8]])
    means = torch.tensor([[9.0, 9.0], [0.5, 0.0], [0.0, 0.8]])
    seen = view(image, text, [1, 2])
    assert float(crowding(seen)) == pytest.approx((2 * math.exp(-4) + math.exp(-8)) / 3)
    assert float(spread(means)(seen)) == pytest.approx((0.25 + 0.36) / 2)


def test_prototypes_are_means_of_unit_features(known: tuple[Sight, Task]) -> None:
    model, task = known
    found = prototypes(model, task)
    for c in range(3):
        rows = rows_of([e.inputs for e in task.train if e.gold == c], model.prepare)
        with torch.no_grad(), model.frozen():
            f = model.look(ImageBatch(rows, model.prepare, model.device, model.dtype), None)
        assert torch.allclose(found[c], f.mean(0), atol=1e-5)
    assert bool((found.norm(dim=1) < 0.99).all())  # not brought back to unit length


def test_the_loss_has_both_terms(known: tuple[Sight, Task]) -> None:
    of = trainer(known, DAPTConfig(together=0.5, apart=2.0))
    of.began = 0.0
    with of.model.frozen():
        of._prepare()
        index = [0, 1, 2, 3]
        losses = {k: v.detach() for k, v in of._losses(index, None, of.recipe.stages[0]).items()}
        prompt = of.maker(None)
        assert isinstance(prompt, Paired) and isinstance(prompt.image, Tokens) and isinstance(prompt.text, Tokens)
        batch = of.read.batch([of.rows[i] for i in index])
        f = of.model.look(batch, prompt.image).detach()
        t = of.model.texts(of.recipe.frame, prompt.text).detach()
    p = prototypes(*known)[of.golds[index]]
    pairs = [torch.exp(-2 * (t[a] - t[b]).square().sum()) for a, b in ((0, 1), (0, 2), (1, 2))]
    assert float(losses["together"]) == pytest.approx(0.5 * float((f - p).square().sum(1).mean()), rel=1e-4)
    assert float(losses["apart"]) == pytest.approx(2.0 * float(sum(pairs)) / 3, rel=1e-3)
    assert [t.name for t in trainer(known, DAPTConfig(apart=0)).recipe.terms] == ["together"]


def test_rows_of_the_image_tower_come_in_behind_its_norm(known: tuple[Sight, Task]) -> None:
    prompt = trainer(known, DAPTConfig(rows=5)).maker(None)
    assert isinstance(prompt, Paired) and isinstance(prompt.image, Tokens)
    image = prompt.image
    assert image.entry == "after-norm" and set(image.layers) == {0} and image.layers[0].shape == (5, 32)
    bound = math.sqrt(6 / (3 * 8 * 8 + 32))  # patches of 8 pixels, width 32
    assert 0.8 * bound < float(image.layers[0].detach().abs().max()) <= bound
    assert prompt.text.length == 16


def test_the_terms_do_what_they_are_for(known: tuple[Sight, Task]) -> None:
    """Class features end farther apart with the one term, pictures nearer to their means with the other."""
    ends = {}
    for name, config in {
        "plain": DAPTConfig(together=0, apart=0),
        "together": DAPTConfig(together=20, apart=0),
        "apart": DAPTConfig(together=0, apart=20),
    }.items():
        of = trainer(known, config, epochs=4)
        prompt = of.fit().prompt
        assert isinstance(prompt, Paired) and isinstance(prompt.image, Tokens) and isinstance(prompt.text, Tokens)
        with torch.no_grad(), of.model.frozen():
            f = of.model.look(of.read.batch(of.rows), prompt.image)
            t = of.model.texts(of.recipe.frame, prompt.text)
        now = view(f, t, of.golds.tolist())
        ends[name] = (float(spread(prototypes(*known))(now)), float(crowding(now)))
    assert ends["together"][0] < 0.7 * ends["plain"][0]
    assert ends["apart"][1] < 0.7 * ends["plain"][1]


def test_options_that_cannot_be_are_refused() -> None:
    with pytest.raises(ConfigError, match="rows must be at least 1, got 0"):
        DAPTConfig(rows=0)
    with pytest.raises(ConfigError, match="apart must be 0 or more, got -1"):
        DAPTConfig(apart=-1)
