"""CoCoOp: one vector, made from each picture, moves all of its context; every picture has class texts of its own."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from anacrusis.errors import ConfigError, PromptError
from anacrusis.measure.predict import scores
from anacrusis.methods.cocoop import CoCoOpConfig, Conditional, build, restore
from anacrusis.model.frames import default_frame
from anacrusis.model.readout import reader
from anacrusis.model.sight import Looks, Sight
from anacrusis.prompt.values import Conditioned, Tokens
from anacrusis.task import Task
from anacrusis.testing import planted_sight, sight
from anacrusis.tune.recipe import Problem


@pytest.fixture(scope="module")
def known() -> tuple[Sight, Task]:
    model = sight("clip")
    return model, planted_sight(model, examples=24)[0]


def problem(known: tuple[Sight, Task]) -> Problem:
    return Problem(known[0], known[1], default_frame(*known), torch.Generator().manual_seed(0))


def test_the_context_of_a_picture_by_hand() -> None:
    """M = 2, d = 3, D = 4, r = 2, s = 0.5: v_m + s (U relu(A f sqrt(4) + a) + u)."""
    v = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    maker = Conditional(v, 4, 2, 0.5, 1.0, torch.Generator())
    with torch.no_grad():
        maker.net[0].weight.copy_(torch.tensor([[1.0, 0, 0, 0], [0, -1.0, 0, 0]]))
        maker.net[0].bias.copy_(torch.tensor([0.25, 0.0]))
        maker.net[2].weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0], [2.0, 2.0]]))
        maker.net[2].bias.copy_(torch.tensor([0.0, 0.0, 1.0]))
    f = torch.tensor([[1.0, 0, 0, 0], [0, -1.0, 0, 0]])
    # first: hidden (2.25, 0), h = (2.25, 0, 5.5); second: hidden (0.25, 2), h = (0.25, 2, 5.5)
    shift = torch.tensor([[1.125, 0.0, 2.75], [0.125, 1.0, 2.75]])
    made = maker(Looks(lambda: f, torch.zeros(0)))
    assert made.per == "input" and torch.allclose(made.layers[0], v + shift[:, None])


def test_a_picture_is_compared_with_texts_of_its_own_context(known: tuple[Sight, Task]) -> None:
    recipe = build(CoCoOpConfig(length=3, words=""), problem(known))
    model, maker = known[0], recipe.maker
    with torch.no_grad():
        maker.net[2].weight.normal_(generator=torch.Generator().manual_seed(1))
    prompt = replace(maker.fold(), frame=recipe.frame)
    z = scores(prompt, [e.inputs for e in known[1].train[:4]], model)
    read = reader(model, recipe.frame)
    for b, example in enumerate(known[1].train[:4]):
        batch = read.batch(read.rows([example.inputs], None))
        with torch.no_grad(), model.frozen():
            f = model.features(batch)
            rows = maker.context + model.scale * maker.net(f * 24**0.5)[0]
        alone = scores(Tokens(side="text", layers={0: rows}, frame=recipe.frame), [example.inputs], model)
        assert torch.allclose(z[b], alone[0], atol=1e-4)
        others = [x for x in range(4) if x != b]
        assert all(not torch.allclose(z[x], alone[0], atol=1e-2) for x in others)


def test_it_starts_at_the_words(known: tuple[Sight, Task]) -> None:
    recipe = build(CoCoOpConfig(), problem(known))
    inputs = [e.inputs for e in known[1].train[:4]]
    asked = known[0].tokenizer("a photo of a", add_special_tokens=False)["input_ids"]
    words = Tokens(side="text", layers={0: known[0].text.table[asked].detach()}, frame=recipe.frame)
    z = scores(replace(recipe.maker.fold(), frame=recipe.frame), inputs, known[0])
    assert torch.allclose(z, scores(words, inputs, known[0]), atol=1e-4)


def test_a_network_that_does_not_fit_is_refused(known: tuple[Sight, Task]) -> None:
    folded = build(CoCoOpConfig(), problem(known)).maker.fold()
    assert isinstance(folded, Conditioned) and folded.config == {"width": 8, "scale": known[0].scale}
    assert restore(known[0], folded) is restore(known[0], folded)
    less = {k: t for k, t in folded.weights.items() if k != "net.2.bias"}
    with pytest.raises(PromptError, match="does not fit the method cocoop"):
        restore(known[0], replace(folded, weights=less))
    with pytest.raises(ConfigError, match="width is -1"):
        CoCoOpConfig(width=-1)
    with pytest.raises(ConfigError, match="length is 0"):
        CoCoOpConfig(words="")
