"""ProGrad: no step opposes the general gradient, tensor by tensor, whatever the micro-batches."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from anacrusis.errors import ConfigError
from anacrusis.methods.prograd import Aligned, ProGradConfig, along, build
from anacrusis.model.frames import default_frame
from anacrusis.model.sight import Sight
from anacrusis.task import Task
from anacrusis.testing import planted_sight, sight
from anacrusis.tune.recipe import Problem, Training
from anacrusis.tune.trainer import Trainer


@pytest.fixture(scope="module")
def known() -> tuple[Sight, Task]:
    model = sight("clip")
    return model, planted_sight(model, examples=48)[0]


def trainer(known: tuple[Sight, Task], config: ProGradConfig, **options: str) -> Trainer:
    training = Training(epochs=1, batch=8, patience=0).changed(options)
    given = Problem(*known, default_frame(*known), torch.Generator().manual_seed(0), training)
    return Trainer(given, build(config, given), seed=1)


def test_the_projection_by_hand() -> None:
    d, g = torch.tensor([1.0, 0.0]), torch.tensor([-1.0, 1.0])
    assert torch.allclose(along(d, g, 1.0), torch.tensor([0.5, 0.5]))  # at a right angle to g
    assert torch.allclose(along(d, g, 0.8), torch.tensor([0.6, 0.4]))
    assert torch.equal(along(d, -g, 1.0), d)  # they agree: nothing changes
    assert torch.equal(along(d, torch.zeros(2), 1.0), d)  # nothing to oppose


def linear(p: nn.Parameter, q: nn.Parameter, *rows: list[float]) -> Tensor:
    """A loss whose gradient by p and q is given."""
    a, b = (torch.tensor(r) for r in rows)
    return (p * a).sum() + (q * b).sum()


def test_each_tensor_is_projected_by_itself() -> None:
    """In q the two oppose each other; together, and in p, they do not."""
    p, q = nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(2))
    losses = {"answer": linear(p, q, [3.0, 0.0], [1.0, 0.0]), "general": linear(p, q, [3.0, 1.0], [-1.0, 1.0])}
    Aligned(1.0)(losses, [p, q])
    assert p.grad is not None and p.grad.tolist() == [3.0, 0.0]  # the general gradient itself takes no part
    assert q.grad is not None and q.grad.tolist() == [0.5, 0.5]


def test_micro_batches_are_projected_as_one() -> None:
    p, q = nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(2))
    rule = Aligned(1.0)
    for _ in range(2):  # the second step knows nothing of the first
        p.grad = q.grad = None
        for d, g in (([3.0, 0.0], [-2.0, 0.0]), ([-2.0, 0.0], [1.0, 1.0])):
            rule({"answer": linear(p, q, d, d), "general": linear(p, q, g, [0.0, 1.0])}, [p, q])
        # d = (1, 0), g = (-1, 1); projected apart, the parts would give (0, 0) and (-1, 1) and add up to (-1, 1)
        assert p.grad is not None and p.grad.tolist() == [0.5, 0.5]
        assert q.grad is not None and q.grad.tolist() == [1.0, 0.0]


def test_accumulated_steps_are_whole_steps(known: tuple[Sight, Task]) -> None:
    found = []
    for accumulate in ("1", "4"):
        of = trainer(known, ProGradConfig(), accumulate=accumulate, epochs="2")
        of.fit()
        found.append(of.maker.encoder.vectors.detach())
    assert torch.allclose(*found, atol=1e-4)


def test_a_step_never_opposes_what_was_known(known: tuple[Sight, Task]) -> None:
    of = trainer(known, ProGradConfig(length=4))
    of.began = 0.0
    opposed = 0
    with of.model.frozen():
        of._prepare()
        v = of.maker.encoder.vectors
        start = v.detach().clone()
        for seed in range(6):
            with torch.no_grad():
                v.copy_(start + 0.3 * torch.randn(v.shape, generator=torch.Generator().manual_seed(seed)))
            losses = of._losses(list(range(8)), None, of.recipe.stages[0])
            d, g = (torch.autograd.grad(x, [v], retain_graph=True)[0] for x in losses.values())
            opposed += bool((d * g).sum() < 0)
            v.grad = None
            of.recipe.direction(losses, [v])
            assert float((v.grad * g).sum()) >= -1e-5 * float(d.norm() * g.norm())
            if (d * g).sum() >= 0:
                assert torch.equal(v.grad, d)
    assert 0 < opposed < 6


@pytest.mark.parametrize("T", [1.0, 2.0])
def test_the_general_loss_by_hand(known: tuple[Sight, Task], T: float) -> None:
    of = trainer(known, ProGradConfig(temperature=T))
    of.began = 0.0
    with of.model.frozen():
        of._prepare()
        found = of._losses([0, 1, 2], None, of.recipe.stages[0])["general"]
        batch = of.read.batch(of.rows[:3])
        f = of.model.features(batch)
        t = of.model.texts(of.recipe.frame, of.maker(None)).detach()
        said = of.model.texts(replace(of.recipe.frame, template="a photo of a {label}."))
    z, z0 = (of.model.logit_scale * f @ x.T for x in (t, said))
    p = (z0 / T).exp() / (z0 / T).exp().sum(1, keepdim=True)
    by_hand = -T * T * sum(float(p[b, c] * torch.log_softmax(z[b] / T, 0)[c]) for b in range(3) for c in range(3)) / 3
    assert float(found.detach()) == pytest.approx(by_hand, rel=1e-4)


def test_the_first_vectors_start_at_zero_and_the_last_at_the_words(known: tuple[Sight, Task]) -> None:
    start = trainer(known, ProGradConfig(length=6, words="w1 w2")).maker.encoder.vectors.detach()
    ids = known[0].tokenizer("w1 w2", add_special_tokens=False)["input_ids"]
    assert torch.equal(start[:4], torch.zeros(4, 32))
    assert torch.equal(start[4:], known[0].text.table[ids].detach())
    short = trainer(known, ProGradConfig(length=1, words="w1 w2")).maker.encoder.vectors
    assert torch.equal(short.detach(), known[0].text.table[ids[:1]].detach())


def test_options_that_cannot_be_are_refused() -> None:
    with pytest.raises(ConfigError, match="strength must be in 0..1, got 2"):
        ProGradConfig(strength=2)
    with pytest.raises(ConfigError, match="temperature must be above 0"):
        ProGradConfig(temperature=0)
