"""P-tuning: the encoder has no input, so it folds exactly; shapes of its LSTM; vectors anywhere in the template."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from anacrusis.errors import ConfigError
from anacrusis.methods.p_tuning import Perceptron, PTuningConfig, build
from anacrusis.model.frames import default_frame
from anacrusis.model.model import Model
from anacrusis.model.readout import reader
from anacrusis.model.rows import collate
from anacrusis.prompt.values import Soft
from anacrusis.task import Task
from anacrusis.testing import tiny
from anacrusis.tune.makers import Recurrent, SoftMaker
from anacrusis.tune.recipe import Problem, Recipe

TEXTS = ["w1 w2 w3", "w4 w5 w6 w7 w8 w9", "w10 w11", "w12 w13 w14"] * 5
TASK = Task.from_lists([f"{t} w{20 + i}" for i, t in enumerate(TEXTS)], ["a", "b"] * 10, words={"a": "w5", "b": "w6"})


def recipe(model: Model, template: str = "", **options: object) -> Recipe:
    frame = default_frame(model, TASK, template=template)
    return build(PTuningConfig(**options), Problem(model, TASK, frame, torch.Generator().manual_seed(3)))  # type: ignore[arg-type]


def vectors(r: Recipe) -> torch.Tensor:
    folded = r.maker.fold()
    assert isinstance(folded, Soft)
    return folded.vectors


def maker_of(r: Recipe) -> SoftMaker:
    assert isinstance(r.maker, SoftMaker)
    return r.maker


@pytest.mark.parametrize("encoder", ["lstm", "mlp"])
@pytest.mark.parametrize("family", ["gpt2", "bert", "t5"])
def test_folding_changes_no_score(family: str, encoder: str) -> None:
    model = tiny(family)
    r = recipe(model, encoder=encoder, length=6)
    live, folded = r.maker(None), r.maker.fold()
    assert live.tensors()["vectors"].requires_grad and not vectors(r).requires_grad
    read = reader(model, r.frame)
    batch = collate(read.rows([(t,) for t in TEXTS], folded))
    with model.frozen(), torch.no_grad():
        a = read.scores(batch, model.place(live, batch), None)
        b = read.scores(batch, model.place(folded, batch), None)
    assert torch.allclose(a, b, atol=1e-6)


def test_every_row_gets_the_same_vectors() -> None:
    """The encoder has no input: there is one (P, H), whatever the batch."""
    model = tiny("bert")
    r = recipe(model, length=5)
    rows = reader(model, r.frame).rows([(t,) for t in TEXTS], r.maker.fold())
    batch = collate(rows)
    x = model.inputs(batch, model.place(r.maker(None), batch))
    placed = x[batch.codes < 0].reshape(len(TEXTS), 5, model.hidden)
    assert torch.equal(placed, placed[:1].expand_as(placed))
    assert torch.allclose(placed[0], vectors(r), atol=1e-6)
    assert r.maker.reads == "nothing"


def test_the_lstm_has_two_layers_of_half_the_width_each_way() -> None:
    model = tiny("gpt2")
    encoder = maker_of(recipe(model, length=6)).encoder
    assert isinstance(encoder, Recurrent)
    H = model.hidden
    shapes = {n: tuple(p.shape) for n, p in encoder.lstm.named_parameters()}
    assert shapes["weight_hh_l0"] == shapes["weight_hh_l1_reverse"] == (4 * H // 2, H // 2)
    assert shapes["weight_ih_l0"] == (4 * H // 2, H) == shapes["weight_ih_l1"]
    assert len(shapes) == 2 * 2 * 4  # layers, directions, two weights and two biases
    h = H // 2
    lstm = 2 * 2 * (4 * h * H + 4 * h * h + 2 * 4 * h)
    assert sum(p.numel() for p in encoder.parameters()) == 6 * H + lstm + 2 * (H * H + H)


def test_the_mlp_by_hand() -> None:
    """U relu(A a + b) + u on two anchors of two values."""
    net = Perceptron(torch.tensor([[1.0, 2.0], [-1.0, 0.5]]), torch.Generator())
    layers: list[Any] = list(net.net.children())
    first, _, second = layers
    with torch.no_grad():
        first.weight.copy_(torch.tensor([[1.0, 1.0], [2.0, 0.0]]))
        first.bias.copy_(torch.tensor([0.5, -1.0]))
        second.weight.copy_(torch.tensor([[1.0, 10.0], [0.0, -1.0]]))
        second.bias.copy_(torch.tensor([0.25, 0.0]))
    # anchor 1: A a + b = (3.5, 1); anchor 2: (0, -3), so relu leaves nothing of it
    assert torch.allclose(net(), torch.tensor([[13.75, -1.0], [0.25, 0.0]]))


def test_an_lstm_lets_vectors_depend_on_one_another_and_an_mlp_does_not() -> None:
    for encoder, others in (("lstm", True), ("mlp", False)):
        r = recipe(tiny("gpt2"), length=4, encoder=encoder)
        before = vectors(r)
        with torch.no_grad():
            maker_of(r).encoder.get_parameter("anchors")[2] += 1.0
        moved = (vectors(r) != before).any(1).tolist()
        assert moved == [others, others, True, others]


def test_the_vectors_start_at_the_size_of_the_embedding_table() -> None:
    for family in ("gpt2", "t5"):
        for encoder in ("lstm", "mlp"):
            model = tiny(family, scale=3.0)
            start = vectors(recipe(model, length=8, encoder=encoder))
            assert float(start.square().mean().sqrt()) == pytest.approx(model.scale, rel=1e-4)


def test_vectors_stand_where_the_template_says() -> None:
    model = tiny("bert")
    r = recipe(model, template="{soft:3}{text}{soft:3}{mask}", length=6)
    row = reader(model, r.frame).rows([("w1 w2",)], r.maker.fold())[0]
    ids = model.tokenizer("w1 w2", add_special_tokens=False)["input_ids"]
    start, end, mask = 1, 2, model.tokenizer.mask_token_id
    assert row.codes == (start, -1, -2, -3, *ids, -4, -5, -6, mask, end)
    assert row.at == (9,)
    front = recipe(tiny("gpt2"), length=2)
    assert reader(tiny("gpt2"), front.frame).rows([("w1",)], front.maker.fold())[0].codes[:2] == (-1, -2)


def test_a_template_with_other_slots_is_refused() -> None:
    r = recipe(tiny("gpt2"), template="{soft:3}{text}{soft:3}", length=5)
    with pytest.raises(ConfigError, match="ask for 6 vectors, the prompt has 5"):
        reader(tiny("gpt2"), r.frame).rows([("w1",)], r.maker.fold())


def test_anchors_and_network_have_rates_of_their_own() -> None:
    maker = maker_of(recipe(tiny("t5", scale=3.0)))
    anchors, network = maker.groups()
    assert (anchors.role, anchors.unit, anchors.rate) == ("prompt", 1.0, 1.0)
    assert (network.role, network.unit, network.rate) == ("network", 1.0, 0.02)


@pytest.mark.parametrize("options", [{"length": 0}, {"encoder": "gru"}])
def test_wrong_options_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=next(iter(options))):
        PTuningConfig(**options)  # type: ignore[arg-type]
