"""MaPLe: visual rows are linear functions of the text rows, one a layer; what is kept are plain rows."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from anacrusis.errors import ConfigError
from anacrusis.methods.maple import Coupled, MaPLeConfig, build
from anacrusis.model.readout import reader
from tests.test_ivlp import batch_of, both, model_of, problem


def coupled(**options: Any) -> Coupled:
    maker = build(MaPLeConfig(**options), problem(model_of())).maker
    assert isinstance(maker, Coupled)
    return maker


def test_the_equation_by_hand() -> None:
    """u (W P / s + b) with s = 2, u = 10: a layer of its own W and b for each of two layers."""
    maker = Coupled({0: torch.tensor([[2.0, 4.0]]), 1: torch.tensor([[2.0, 4.0]])}, 3, 2.0, 10.0, torch.Generator())
    weights: list[Any] = list(maker.links)
    with torch.no_grad():
        weights[0].weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, -1.0]]))
        weights[0].bias.copy_(torch.tensor([0.0, 0.5, 0.0]))
        weights[1].weight.zero_()
        weights[1].bias.copy_(torch.tensor([1.0, 2.0, 3.0]))
    text, image = both(maker(None))
    assert image.layers[0].tolist() == [[10.0, 25.0, -10.0]]  # P / s = (1, 2)
    assert image.layers[1].tolist() == [[10.0, 20.0, 30.0]]
    assert text.layers[0].tolist() == [[2.0, 4.0]] and text.side == "text" and image.side == "image"


def test_text_rows_learn_from_both_towers_and_the_links_from_the_image_alone() -> None:
    model, r = model_of(), build(MaPLeConfig(), problem(model_of()))
    batch = batch_of(model)
    maker = r.maker
    assert isinstance(maker, Coupled)
    with model.frozen():
        seen = reader(model, r.frame).seen(batch, model.place(maker(None), batch))  # type: ignore[attr-defined]
    rows, links = list(maker.rows), list(maker.links.parameters())
    for feature, reaches in ((seen.text, False), (seen.image, True)):
        grads = torch.autograd.grad(
            feature.cumsum(0).square().sum(), rows + links, allow_unused=True, retain_graph=True
        )
        moved = [g is not None and float(g.abs().sum()) > 0 for g in grads]
        assert moved == [True] * 3 + [reaches] * 6


def test_what_is_kept_are_plain_rows_that_score_the_same() -> None:
    model = model_of()
    r = build(MaPLeConfig(depth=2), problem(model))
    folded, batch = r.maker.fold(), batch_of(model)
    assert set(folded.tensors()) == {f"{side}.layer.{i}" for side in ("text", "image") for i in (0, 1)}
    with torch.no_grad(), model.frozen():
        read = reader(model, r.frame)
        live, kept = (read.scores(batch, model.place(p, batch), None) for p in (r.maker(None), folded))
    assert torch.equal(live, kept)


def test_the_first_tokens_are_learned_and_the_others_stay_words() -> None:
    model = model_of()
    r = build(MaPLeConfig(words="w1 w2 w3 w4"), problem(model))
    ids = model.tokenizer("w1 w2", add_special_tokens=False)["input_ids"]
    assert model.text is not None
    assert torch.equal(both(r.maker(None))[0].layers[0].detach(), model.text.table[ids])
    assert r.frame.template == "{soft} w3 w4 {label}."


def test_the_depth_is_that_of_the_shallower_tower() -> None:
    model = model_of()
    tower = model.image.tower
    assert tower is not None
    short = replace(model, image=replace(model.image, tower=replace(tower, blocks=tower.blocks[:2])))
    text, image = both(build(MaPLeConfig(), problem(short)).maker(None))
    assert list(text.layers) == list(image.layers) == [0, 1]


def test_a_step_of_a_link_is_in_units_of_one_over_its_inputs() -> None:
    groups = {g.role: g for g in coupled().groups()}
    assert groups["network"].unit == 1 / 32 and groups["prompt"].unit == model_of().scale
    assert groups["bias"].rate == 0.1
    assert [len(g.parameters) for g in groups.values()] == [3, 3, 3]


@pytest.mark.parametrize("options", [{"depth": 0}, {"length": -1}, {"length": 0, "words": ""}])
def test_wrong_options_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(options))):
        MaPLeConfig(**options)
