"""Prefix tuning: a prefix of real text is the model's own cache; all layers and stacks learn; folding is exact."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch

from anacrusis.errors import ConfigError
from anacrusis.methods.prefix_tuning import PrefixTuningConfig, Reparametrised, build
from anacrusis.model.frames import default_frame
from anacrusis.model.model import Model
from anacrusis.model.readout import reader
from anacrusis.model.rows import collate
from anacrusis.prompt.values import Prefix
from anacrusis.task import Task
from anacrusis.testing import FAMILIES, tiny
from anacrusis.tune import initial
from anacrusis.tune.makers import PrefixMaker
from anacrusis.tune.recipe import Problem, Recipe

TEXTS = ["w1 w2 w3", "w4 w5 w6 w7 w8 w9", "w10 w11", "w12 w13 w14"] * 5
TEXTS = [f"{t} w{20 + i}" for i, t in enumerate(TEXTS)]
TASK = Task.from_lists(TEXTS, ["a", "b"] * 10, words={"a": "w5", "b": "w6"})


def recipe(model: Model, readout: str = "auto", **options: object) -> Recipe:
    frame = default_frame(model, TASK, readout=readout)
    config = PrefixTuningConfig(**{"length": 4, **options})  # type: ignore[arg-type]
    return build(config, Problem(model, TASK, frame, torch.Generator().manual_seed(3)))


def ids(model: Model, text: str) -> list[int]:
    return model.tokenizer(text, add_special_tokens=False)["input_ids"]


@pytest.mark.parametrize("encoder", ["free", "mlp"])
@pytest.mark.parametrize("family", ["gpt2", "llama", "qwen2"])
def test_a_prefix_of_a_text_is_that_text(family: str, encoder: str) -> None:
    """Keys and values of X, then Y, give Y's tokens the states that they have in X + Y (llama: grouped queries)."""
    model = tiny(family)
    x = model.renderer(default_frame(model, TASK)).specials[0] + ids(model, "w7 w8 w9")
    y = ids(model, "w1 w2 w3 w4")
    r = recipe(model, length=len(x), source="w7 w8 w9", encoder=encoder)
    p = r.maker.fold()
    assert isinstance(p, Prefix) and p.shift == len(x) and p.keys["decoder"][0].shape[0] == model.sites[0].heads
    alone = model.forward(torch.tensor([y]), None, p)
    whole = model.forward(torch.tensor([x + y]))[:, len(x) :]
    assert torch.allclose(alone, whole, atol=1e-5)
    assert (alone - model.forward(torch.tensor([y]))).abs().max() > 1e-2


@pytest.mark.parametrize("family", ["gpt2", "bert", "t5"])
@pytest.mark.parametrize("init", ["text", "random"])
def test_the_network_begins_at_the_chosen_start(family: str, init: str) -> None:
    model = tiny(family)
    start = initial.prefix(model, model.sites, 4, init, "", torch.Generator().manual_seed(3))
    maker = recipe(model, init=init, encoder="mlp").maker
    assert isinstance(maker, PrefixMaker) and isinstance(maker.encoder, Reparametrised)
    assert torch.allclose(maker.encoder(), start, atol=1e-5)
    assert start.abs().max() > 1e-2


def test_the_network_by_hand() -> None:
    """c + U tanh(A a + b) + u; c takes back what the network says before the first step, and never moves."""
    net = Reparametrised(torch.tensor([[5.0, 6.0]]), torch.tensor([[0.5, -1.0]]), 1, torch.Generator().manual_seed(0))
    layers: list[Any] = list(net.net.children())
    linear, _, out = layers
    before = out(torch.tanh(linear(torch.tensor([[0.5, -1.0]])))).detach()
    with torch.no_grad():
        linear.weight.copy_(torch.tensor([[2.0, 1.0]]))
        linear.bias.copy_(torch.tensor([0.3]))
        out.weight.copy_(torch.tensor([[1.0], [-2.0]]))
        out.bias.copy_(torch.tensor([0.0, 0.1]))
    bent = torch.tanh(torch.tensor(0.3))  # 2 * 0.5 + 1 * -1 + 0.3
    expected = torch.tensor([[5.0, 6.0]]) - before + torch.tensor([[1.0, -2.0]]) * bent + torch.tensor([[0.0, 0.1]])
    assert torch.allclose(net(), expected)
    assert "fixed" not in dict(net.named_parameters()) and "fixed" in net.state_dict()


@pytest.mark.parametrize("family", ["gpt2", "llama", "bert", "t5", "bart"])
def test_folding_changes_no_score(family: str) -> None:
    model = tiny(family)
    r = recipe(model, encoder="mlp", width=8)
    with torch.no_grad():  # away from the start
        for p, n in zip(r.maker.parameters(), itertools.count(), strict=False):
            p.add_(0.1 * torch.randn(p.shape, generator=torch.Generator().manual_seed(n)))
    read = reader(model, r.frame)
    folded = r.maker.fold()
    batch = collate(read.rows([(t,) for t in TEXTS], folded))
    with model.frozen(), torch.no_grad():
        a = read.scores(batch, model.place(r.maker(None), batch), None)
        b = read.scores(batch, model.place(folded, batch), None)
    assert torch.allclose(a, b, atol=1e-6)


@pytest.mark.parametrize("encoder", ["free", "mlp"])
@pytest.mark.parametrize("family", ["t5", "bart"])
def test_every_layer_of_every_stack_learns(family: str, encoder: str) -> None:
    """Keys and values of encoder, decoder and cross attention, from the task's own loss (PEFT trains half of one)."""
    model = tiny(family, layers=4)
    r = recipe(model, encoder=encoder)
    prompt = r.maker(None)
    assert isinstance(prompt, Prefix)
    leaves = {f"{s}.{i}.{n}": t for n, side in (("key", prompt.keys), ("value", prompt.values))
              for s, layers in side.items() for i, t in enumerate(layers)}  # fmt: skip
    assert len(leaves) == 3 * 4 * 2
    for t in leaves.values():
        t.retain_grad()
    read = reader(model, r.frame)
    batch = collate(read.rows([(t,) for t in TEXTS], prompt))
    with model.frozen():
        read.loss(batch, model.place(prompt, batch), None, torch.arange(20) % 2)[0].mean().backward()
    assert [n for n, t in leaves.items() if t.grad is None or not bool(t.grad.abs().sum() > 0)] == []
    assert all(p.grad is not None and bool(p.grad.abs().sum() > 0) for p in r.maker.parameters())


def test_layers_do_not_share_values() -> None:
    prompt = recipe(tiny("t5", layers=4)).maker.fold()
    assert isinstance(prompt, Prefix)
    tables = [t for side in (prompt.keys, prompt.values) for layers in side.values() for t in layers]
    assert all(not torch.equal(a, b) for a, b in itertools.combinations(tables, 2))


def test_stacks_choose_the_attentions() -> None:
    model = tiny("t5")
    for chosen in (("encoder",), ("decoder",), ("cross", "encoder")):
        prompt = recipe(model, stacks=chosen).maker.fold()
        assert isinstance(prompt, Prefix) and set(prompt.keys) == set(prompt.values) == set(chosen)
    with pytest.raises(ConfigError, match="stacks=encoder: tiny:gpt2:0 reads its answer from decoder only"):
        recipe(tiny("gpt2"), stacks=("encoder",))


def test_a_head_on_the_encoder_leaves_no_prefix_without_a_gradient() -> None:
    model = tiny("t5")
    prompt = recipe(model, readout="head").maker.fold()
    assert isinstance(prompt, Prefix) and set(prompt.keys) == {"encoder"}
    with pytest.raises(ConfigError, match="from encoder only"):
        recipe(model, readout="head", stacks=("cross",))


@pytest.mark.parametrize("family", FAMILIES)
def test_positions_move_back_in_causal_models_only(family: str) -> None:
    model = tiny(family)
    prompt = recipe(model).maker.fold()
    assert isinstance(prompt, Prefix)
    assert prompt.shift == (4 if model.arrangement == "causal" else 0)


@pytest.mark.parametrize("family", ["llama", "bert", "t5"])
def test_the_number_of_parameters(family: str) -> None:
    model = tiny(family)
    W = sum(2 * s.heads * s.dim for s in model.sites)
    free = sum(p.numel() for p in recipe(model).maker.parameters())
    assert free == 4 * W
    mlp = sum(p.numel() for p in recipe(model, encoder="mlp", width=7).maker.parameters())
    assert mlp == 4 * model.hidden + 7 * (model.hidden + 1) + W * (7 + 1)


def test_a_text_start_and_a_saved_start(tmp_path) -> None:  # type: ignore[no-untyped-def]
    model = tiny("gpt2")
    first = recipe(model, source="w1 w2 w3 w4").maker.fold().with_card(model=model.name, fingerprint=model.fingerprint)
    first.save(tmp_path / "p")
    again = recipe(model, init="prompt", source=str(tmp_path / "p")).maker.fold()
    assert isinstance(first, Prefix) and isinstance(again, Prefix)
    assert all(torch.equal(a, b) for a, b in zip(first.keys["decoder"], again.keys["decoder"], strict=True))


@pytest.mark.parametrize(
    "options", [{"length": 0}, {"width": 0}, {"init": "zeros"}, {"encoder": "lstm"}, {"stacks": ()}, {"stacks": ("x",)}]
)
def test_wrong_options_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=next(iter(options))):
        PrefixTuningConfig(**options)  # type: ignore[arg-type]
