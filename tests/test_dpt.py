"""DPT: rows made for the likeliest classes, from the layer's own tokens and the learned class features."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from anacrusis.errors import ConfigError, PromptError
from anacrusis.measure.predict import scores
from anacrusis.methods.dpt import ClassAware, DPTConfig, build, restore
from anacrusis.model.readout import reader
from anacrusis.model.sight import Looks, Sides, Sight
from anacrusis.prompt.values import Conditioned, Tokens, for_classes
from anacrusis.tune.recipe import Recipe, View
from tests import plain
from tests.test_ivlp import PICTURES, batch_of, both, model_of, problem
from tests.test_sight import some


def recipe(model: Sight, **options: Any) -> Recipe:
    return build(DPTConfig(**options), problem(model))


def maker_of(r: Recipe) -> ClassAware:
    assert isinstance(r.maker, ClassAware)
    return r.maker


def by_hand(maker: ClassAware, own: Tensor, texts: Tensor, best: Tensor) -> Tensor:
    """The made rows, one picture, one class and one token at a time."""
    w: dict[str, Any] = dict(maker.reading.named_parameters())
    unit, out = maker.options["unit"], []
    for x, chosen in zip(own, best, strict=True):
        kv = torch.cat([x / unit, w["extra"]])
        for c in chosen.tolist():
            q = w["ask.weight"] @ (texts[c] * len(texts[c]) ** 0.5) + w["ask.bias"]
            like = torch.stack([(w["query.weight"] @ q) @ (w["key.weight"] @ one) for one in kv])
            share = (like / w["query.weight"].shape[0] ** 0.5).softmax(0)
            read = torch.stack([a * one for a, one in zip(share, kv, strict=True)]).sum(0)
            o = w["value.weight"] @ read + w["value.bias"]
            out.append(unit * F.layer_norm(o + q, (len(q),), w["norm.weight"], w["norm.bias"]))
    return torch.stack(out).unflatten(0, best.shape)


@pytest.mark.parametrize("family", ["clip", "siglip"])
def test_it_is_plain_towers_with_rows_made_by_hand(family: str) -> None:
    """transformers' own layers, free rows in the first two of three, and in their place the made rows in the last."""
    model = model_of(family)
    r, batch = recipe(model, visual=3, top=2), batch_of(model)
    maker = maker_of(r)
    with torch.no_grad(), model.frozen():
        z = reader(model, r.frame).scores(batch, model.place(maker(model.reads(batch)), batch), None)
        text, image = both(maker(model.reads(batch)))
        assert list(image.layers) == [0, 1] and list(image.made) == [2] and len(image.layers[0]) == 3
        layers = {i: t.expand(3, -1, -1) for i, t in image.layers.items()}
        own: list[Tensor] = []
        last = model.network.vision_model.encoder.layers[2]
        hook = last.register_forward_pre_hook(lambda module, args: own.append(args[0]))
        plain.images(model, batch, Tokens(side="image", layers=layers, per="input"))
        hook.remove()
        first = 1 if family == "clip" else 0
        x = torch.cat(own)
        x = torch.cat([x[:, :first], x[:, first + 3 :]], 1)
        texts = plain.texts(model, r.frame, text)
        best = (model.features(batch) @ model.texts(problem(model).frame).T).topk(2).indices
        layers[2] = by_hand(maker, x, texts, best)
        sides = Sides(text, Tokens(side="image", layers=layers, per="input"))
        assert layers[2].shape == (3, 2, 32)
        assert torch.allclose(z, plain.scores(model, r.frame, sides, batch), atol=1e-4)
        layers[2] = layers[2].flip(0)  # the rows are the picture's own
        assert not torch.allclose(z, plain.scores(model, r.frame, sides, batch), atol=1e-3)


def test_the_order_of_the_classes_moves_their_rows_and_nothing_else() -> None:
    """The same three classes in two orders, as features that look like another class give them."""
    model, batch = model_of(), batch_of(model_of())
    maker, found = maker_of(recipe(model)), []
    own, texts = some(3, 17, 32).detach(), some(3, 24, seed=1).detach()
    for like in (0, 2):
        with torch.no_grad(), model.frozen():
            features = maker.frozen[like].expand(3, -1)
            image = both(maker(Looks(lambda f=features: f, batch.raw)))[1]
            rows = image.made[2](own, texts=texts)
            best = maker.seen[0][0]
            found.append((best, rows, model.look(batch, image, texts)))
    (a, rows_a, f_a), (b, rows_b, f_b) = found
    assert a[0] == 0 and b[0] == 2 and not torch.allclose(rows_a, rows_b, atol=1e-2)
    assert torch.allclose(rows_a[:, a.argsort()], rows_b[:, b.argsort()], atol=1e-5)
    assert torch.allclose(f_a, f_b, atol=1e-5)


def test_classes_are_chosen_by_the_frozen_model_and_the_answer_is_not_forced_in() -> None:
    model = model_of()
    maker, batch = maker_of(recipe(model, top=1)), batch_of(model, 12)
    image = both(maker(model.reads(batch)))[1]
    texts = model.texts(problem(model).frame)
    image.made[2](some(12, 17, 32), texts=texts)
    best, o = maker.seen
    frozen = model.match(model.features(batch), texts)
    assert torch.equal(best[:, 0], frozen.argmax(1)) and o.shape == (12, 1, 32)


def test_tokens_give_no_gradient_and_class_features_do() -> None:
    model = model_of()
    maker, batch = maker_of(recipe(model)), batch_of(model)
    own, texts = some(3, 17, 32), some(3, 24, seed=1)
    rows = both(maker(model.reads(batch)))[1].made[2](own, texts=texts)
    rows.cumsum(0).square().sum().backward()
    assert own.grad is None and texts.grad is not None and float(texts.grad.abs().min()) > 0


def test_the_context_learns_from_the_picture_too() -> None:
    model, r = model_of(), recipe(model_of())
    maker, batch = maker_of(r), batch_of(model)
    with model.frozen():
        seen = reader(model, r.frame).seen(batch, model.place(maker(model.reads(batch)), batch))  # type: ignore[attr-defined]
        seen.image.cumsum(0).square().sum().backward()
    assert maker.context.grad is not None and float(maker.context.grad.abs().max()) > 0


def test_only_rows_of_true_classes_are_told_apart_by_hand() -> None:
    maker = maker_of(recipe(model_of()))
    o = some(2, 2, 32)
    maker.seen = torch.tensor([[2, 0], [1, 0]]), o  # the second picture's class, 2, is not among its two
    assert maker.reader is not None

    def told(golds: Tensor) -> Tensor:
        return maker.told(View(None, None, golds, None, None, None))  # type: ignore[arg-type]

    one = -F.log_softmax(maker.reader(o[0, 0]), 0)[2]
    assert float((told(torch.tensor([2, 2])) - one).detach()) == pytest.approx(0.0, abs=1e-6)
    several = one - F.log_softmax(maker.reader(o[1, 1]), 0)[0]
    found = told(torch.tensor([[0.0, 0.0, 1.0], [1.0, 0.0, 0.0]]))
    assert float((found - several / 2).detach()) == pytest.approx(0.0, abs=1e-6)
    assert float(told(torch.tensor([1, 2])).detach()) == 0.0


def test_the_guided_part_sets_each_side_against_the_other_frozen_one() -> None:
    model, r = model_of(), recipe(model_of())
    batch, golds = batch_of(model), torch.tensor([0, 1, 2])
    assert [(s.name, s.share) for s in r.stages] == [("guided", 0.5), ("free", 1.0)]
    assert [t.name for t in r.stages[0].terms or ()] == ["classes", "guided"] and r.stages[1].terms is None
    assert [(t.name, t.weight) for t in r.terms] == [("classes", 0.3)]
    with torch.no_grad(), model.frozen():
        made = r.maker(model.reads(batch))
        placed = model.place(made, batch)
        read: Any = reader(model, r.frame)
        seen = read.seen(batch, placed)
        z = read.score(seen, placed)
        f0, t0 = model.features(batch), model.texts(problem(model).frame)
        guided = (r.stages[0].terms or ())[1].value(View(model, batch, golds, made, made, z, seen))
        parts = [F.cross_entropy(model.logit_scale * f @ t.T, golds) for f, t in
                 ((f0, seen.text), (seen.image, t0), (seen.image, seen.text))]  # fmt: skip
    total = guided + F.cross_entropy(z, golds)  # the answer's own loss is added by the trainer
    assert float(total) == pytest.approx(float(parts[0] + parts[1] + 0.1 * parts[2]), rel=1e-4)
    assert [s.name for s in recipe(model, guided=0.0).stages] == ["free"]


def test_a_kept_prompt_serves_other_classes_and_chooses_among_them() -> None:
    given = problem(model_of())
    given = replace(given, frame=replace(given.frame, template="a dim {label} x"))
    model, maker = given.model, maker_of(build(DPTConfig(top=2), given))
    kept = maker.fold()
    assert isinstance(kept, Conditioned) and not [k for k in kept.weights if k.startswith(("reader", "frozen"))]
    assert torch.equal(restore(model, kept).frozen, maker.frozen)  # in the task's own words, not the usual ones
    other = for_classes(kept, ["n1", "n2", "n3", "n4"], ["w9", "w10", "w11", "w12"])
    assert isinstance(other, Conditioned)
    texts = model.texts(replace(other.frame, template="a dim {label} x"))
    assert torch.equal(restore(model, other).frozen, texts) and len(restore(model, kept).frozen) == 3
    assert scores(other, [(p,) for p in PICTURES[:2]], model).shape == (2, 4)


def test_class_features_of_a_kept_prompt_are_computed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of()
    kept = maker_of(recipe(model)).fold()
    restore(model, kept)
    calls = []
    encode = Sight._encode
    monkeypatch.setattr(Sight, "_encode", lambda self, *a: calls.append(1) or encode(self, *a))
    scores(kept, [(p,) for p in PICTURES], model, size=4)
    assert len(calls) == 1


def test_a_damaged_prompt_is_refused() -> None:
    kept = maker_of(recipe(model_of())).fold()
    assert isinstance(kept, Conditioned)
    broken = replace(kept, weights={k: t for k, t in kept.weights.items() if "query" not in k})
    with pytest.raises(PromptError, match="does not fit the method dpt"):
        restore(model_of(), broken)


def test_a_tower_of_one_layer_has_made_rows_alone() -> None:
    model = model_of(layers=1)
    r, batch = recipe(model), batch_of(model)
    made = r.maker(model.reads(batch))
    image = both(made)[1]
    assert not image.layers and list(image.made) == [0]
    with model.frozen():
        assert reader(model, r.frame).scores(batch, model.place(made, batch), None).shape == (3, 3)


def test_more_classes_are_asked_for_than_there_are() -> None:
    model = model_of()
    maker = maker_of(recipe(model, top=10))
    looks = Looks(lambda: torch.zeros(2, 24), torch.zeros(2, 3, 32, 32))
    rows = both(maker(looks))[1].made[2](torch.zeros(2, 17, 32), texts=torch.zeros(3, 24))
    assert rows.shape == (2, 3, 32)


@pytest.mark.parametrize("options", [{"top": 0}, {"rank": 0}, {"depth": 0}, {"guided": 1.5}])
def test_wrong_options_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(options))):
        DPTConfig(**options)
