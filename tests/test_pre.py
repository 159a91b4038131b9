"""PRE: vectors plus what a recurrent network in both directions makes of them; afterwards only vectors remain."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from anacrusis.errors import ConfigError
from anacrusis.methods.pre import PREConfig, Rewritten, build
from anacrusis.model.frames import default_frame
from anacrusis.prompt.values import Tokens
from anacrusis.testing import planted_sight, sight
from anacrusis.tune.recipe import Problem, Training
from anacrusis.tune.trainer import Trainer


def by_hand(net: torch.nn.LSTM, x: Tensor, way: str) -> list[Tensor]:
    """One direction of a recurrent layer, written out. x: (M, d), in the order in which it is read."""
    w, u, a, b = (getattr(net, f"{n}_l0{way}") for n in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"))
    h = c = torch.zeros(net.hidden_size)
    out = []
    for row in x:
        i, f, g, o = (w @ row + a + u @ h + b).chunk(4)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        h = o.sigmoid() * c.tanh()
        out.append(h)
    return out


def test_the_rewritten_vectors_by_hand() -> None:
    v, s = torch.randn(3, 4, generator=torch.Generator().manual_seed(0)), 0.25
    encoder = Rewritten(v, s, torch.Generator().manual_seed(1))
    with torch.no_grad():
        forth = by_hand(encoder.lstm, v / s, "")
        back = by_hand(encoder.lstm, (v / s).flip(0), "_reverse")[::-1]
        expected = torch.stack([v[m] + s * torch.cat([forth[m], back[m]]) for m in range(3)])
        found = encoder()
    assert torch.allclose(found, expected, atol=1e-6) and not torch.allclose(found, v, atol=1e-2)


def test_vectors_move_together() -> None:
    """Each rewritten vector depends on every vector, before and behind it."""
    encoder = Rewritten(torch.zeros(3, 4), 1.0, torch.Generator().manual_seed(0))
    moved = torch.autograd.functional.jacobian(
        lambda x: encoder.vectors.detach() + encoder.lstm(x[None])[0][0], torch.zeros(3, 4)
    )
    assert bool((moved.abs().amax((1, 3)) > 1e-4).all())


def test_without_the_network_it_is_coop() -> None:
    v = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    encoder = Rewritten(v, 0.25, torch.Generator().manual_seed(1))
    with torch.no_grad():
        for p in encoder.lstm.parameters():
            p.zero_()
    assert torch.equal(encoder(), v)


def test_the_network_is_folded_away() -> None:
    model = sight("clip")
    task = planted_sight(model, examples=24)[0]
    given = Problem(
        model, task, default_frame(model, task), torch.Generator().manual_seed(0), Training(epochs=2, batch=8)
    )
    trainer = Trainer(given, build(PREConfig(length=3, words=""), given), seed=1)
    out = trainer.fit()
    assert isinstance(out.prompt, Tokens) and list(out.prompt.tensors()) == ["layer.0"]
    with torch.no_grad():
        assert torch.equal(out.prompt.layers[0], trainer.maker.encoder())
    assert out.parameters > 10 * out.prompt.size == 10 * 3 * 32
    assert [g.role for g in trainer.groups] == ["prompt", "network"]


def test_options_that_cannot_be_are_refused() -> None:
    with pytest.raises(ConfigError, match="network_rate must be above 0, got 0"):
        PREConfig(network_rate=0)
    with pytest.raises(ConfigError, match="length is 0"):
        PREConfig(words="")
