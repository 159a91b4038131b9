"""Learning in use: the loop against the slow way, what is kept and what is put back, and each method's own property."""

from __future__ import annotations

import functools
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import anacrusis as ana
from anacrusis.adapt import views
from anacrusis.adapt.course import Course, Order
from anacrusis.adapt.engine import RawBatch, Stream
from anacrusis.adapt.memory import ByClass
from anacrusis.adapt.prompts import course_of, keep, stream
from anacrusis.adapt.selection import Confident, Faithful, entropy, marginal_entropy
from anacrusis.measure.predict import scores
from anacrusis.methods.dynaprompt import choose
from anacrusis.methods.tfup import Typical
from anacrusis.model.frames import default_frame
from anacrusis.model.images import rows_of
from anacrusis.model.sight import Sides, Sight
from anacrusis.prompt.values import Adaptive, Tokens
from anacrusis.registry import all_methods
from anacrusis.task import Task
from anacrusis.testing import planted_sight, sight
from anacrusis.tune.recipe import Problem
from tests import plain
from tests.test_model import state, unchanged

ADAPTING = [n for n, m in all_methods().items() if m.engine == "adapt"]
SMALL: dict[str, dict[str, Any]] = {
    "tpt": {"views": 16}, "difftpt": {"views": 16}, "dynaprompt": {"views": 16, "size": 3}, "vpa": {"views": 8},
    "tfup": {"size": 2},
}  # fmt: skip


@functools.cache
def model_of() -> Sight:
    return sight("clip")


@functools.cache
def task_of() -> Task:
    return planted_sight(model_of(), examples=60)[0]


def course(name: str, **options: Any) -> tuple[Course, Any]:
    method, model, task = all_methods()[name], model_of(), task_of()
    config = method.configure({**SMALL[name], **options})
    problem = Problem(model, task, default_frame(model, task), torch.Generator().manual_seed(0))
    return method.build(config, problem), config


def prompt_of(name: str, **options: Any) -> Adaptive:
    made, config = course(name, **options)
    return keep(made, name, config)


def inputs(n: int) -> list[Any]:
    return [e.inputs for e in task_of().train[:n]]


def test_one_picture_of_tpt_is_the_equation_by_hand() -> None:
    """64 views, int(0.1 * 64) = 6 of them, their marginal entropy, one fresh AdamW step, the plain view: run whole."""
    model, lr = model_of(), 0.5
    made, _ = course("tpt", views=64, lr=lr)
    row = rows_of(inputs(1), model.prepare)[0]
    run = Stream(model, made)
    answer = next(run.answers([row]))
    maker = course("tpt", views=64, lr=lr)[0].members[0]
    batch = RawBatch(run._views(row).raw, model)
    with model.frozen():
        z = plain.scores(model, made.frame, Sides(text=maker()), batch)  # type: ignore[arg-type]
        index = entropy(z).argsort()[:6]
        marginal = z[index].softmax(1).mean(0)
        loss = -(marginal * marginal.log()).sum()
        (vectors,) = maker.parameters()
        torch.optim.AdamW([vectors], lr=lr * model.scale, weight_decay=0.01).zero_grad()
        loss.backward()
        before = vectors.detach().clone()
        torch.optim.AdamW([vectors], lr=lr * model.scale, weight_decay=0.01).step()
        assert torch.allclose(vectors, before * (1 - lr * model.scale * 0.01)
                              - lr * model.scale * vectors.grad.sign(), atol=1e-4)  # type: ignore[union-attr]  # fmt: skip
        alone = RawBatch(batch.raw[:1], model)
        after = plain.scores(model, made.frame, Sides(text=maker()), alone)[0]  # type: ignore[arg-type]
    assert torch.allclose(answer.before, z[0].detach(), atol=1e-4)
    assert torch.allclose(answer.z, after, atol=1e-3) and not torch.allclose(answer.z, answer.before, atol=1e-2)


@pytest.mark.parametrize("steps", [1, 3])
def test_what_is_kept_of_the_texts_changes_no_answer(steps: int, monkeypatch: pytest.MonkeyPatch) -> None:
    pictures = rows_of(inputs(4), model_of().prepare)
    quick = [a.z for a in Stream(model_of(), course("tpt", steps=steps)[0]).answers(pictures)]
    monkeypatch.setattr(Stream, "_speaks", lambda self, maker: False)
    slow = [a.z for a in Stream(model_of(), course("tpt", steps=steps)[0]).answers(pictures)]
    assert torch.allclose(torch.stack(quick), torch.stack(slow), atol=1e-4)


def test_the_entropy_of_the_selected_views_falls() -> None:
    model = model_of()
    for row in rows_of(inputs(5), model.prepare):
        run = Stream(model, course("tpt", lr=0.02)[0])
        seen = run._views(row)
        with model.frozen():
            z = run._scores(0, seen)
            index = run.course.select(z)
            run._tune(0, seen, index)
            with torch.no_grad():
                assert marginal_entropy(run._scores(0, seen, fresh=True)[index]) < marginal_entropy(z[index])


@pytest.mark.parametrize("name", ADAPTING)
def test_a_stream_leaves_the_network_alone_and_is_the_same_when_loaded(name: str, tmp_path: Path) -> None:
    model = model_of()
    before = state(model)
    prompt = prompt_of(name)
    z = scores(prompt, inputs(6), model)
    assert unchanged(before, state(model))
    prompt.save(tmp_path / "p")
    loaded = ana.load(tmp_path / "p")
    assert loaded.same(prompt) and torch.equal(scores(loaded, inputs(6), model), z)
    assert torch.equal(scores(prompt, inputs(6), model), z)  # running it has moved nothing that is kept


@pytest.mark.parametrize("name", ["tpt", "difftpt", "vpa", "tfup"])
def test_episodic_answers_do_not_depend_on_the_stream(name: str) -> None:
    prompt = prompt_of(name)
    whole = scores(prompt, inputs(5), model_of())
    assert torch.allclose(scores(prompt, inputs(5)[::-1], model_of()).flip(0), whole, atol=1e-6)


ONLINE: list[tuple[str, dict[str, Any]]] = [
    ("dynaprompt", {}), ("vpa", {"online": True}), ("tfup", {"source": "stream"}),
]  # fmt: skip


@pytest.mark.parametrize(("name", "options"), ONLINE)
def test_online_answers_do(name: str, options: dict[str, Any]) -> None:
    prompt = prompt_of(name, **options)
    whole = scores(prompt, inputs(8), model_of())
    assert not torch.allclose(scores(prompt, inputs(8)[::-1], model_of()).flip(0), whole, atol=1e-4)


def test_labels_are_out_of_reach() -> None:
    task = task_of()
    mixed = replace(task, train=tuple(replace(e, gold=0) for e in task.train))
    method, kept = all_methods()["tfup"], []
    config = method.configure({"size": 2})
    for one in (task, mixed):
        given = Problem(model_of(), one, default_frame(model_of(), one), torch.Generator().manual_seed(0))
        kept.append(keep(method.build(config, given), "tfup", config))
    assert kept[0].same(kept[1])


# --- parts


def test_views_begin_with_the_picture_and_are_of_the_seed() -> None:
    pixels = torch.from_numpy(np.random.default_rng(0).integers(0, 255, (3, 32, 32), dtype=np.uint8))
    for make in (views.Crops(), views.Crops(mix=True), views.Joined(views.Crops(), views.Crops(mix=True))):
        a, b, c = (make(pixels, 9, torch.Generator().manual_seed(s)) for s in (1, 1, 2))
        assert a.shape == (9, 3, 32, 32) and torch.equal(a[0], pixels.float() / 255)
        assert torch.equal(a, b) and not torch.equal(a, c) and 0 <= float(a.min()) and float(a.max()) <= 1
        assert all(not torch.allclose(v, a[0]) for v in a[1:])


def test_a_whole_crop_is_the_picture() -> None:
    pixels = (255 * torch.rand(3, 16, 16, generator=torch.Generator().manual_seed(0))).to(torch.uint8)
    out = views.Crops(smallest=1.0, flip=False)(pixels, 3, torch.Generator().manual_seed(5))
    # a crop of the whole area may still be of another ratio; where it is square it is the picture
    assert torch.allclose(out[0], pixels.float() / 255)


def test_selections_by_hand() -> None:
    sure = torch.tensor([[0.0, 0.0], [5.0, 0.0], [0.0, 9.0], [1.0, 0.0]])
    assert Confident(0.5)(sure).tolist() == [2, 1] and Confident(0.01)(sure).tolist() == [2]
    z = torch.tensor([[1.0, 0.0], [2.0, 0.1], [0.0, 9.0], [1.0, 0.2], [3.0, -0.2]])
    kept = Faithful(near=0.75, share=0.5)(z).tolist()  # view 2 is the surest and the least faithful
    assert 2 not in kept and kept[0] == 4


def test_marginal_entropy_by_hand() -> None:
    p = torch.tensor([[0.9, 0.1], [0.3, 0.7]])
    mean = p.mean(0)
    assert float(marginal_entropy(p.log())) == pytest.approx(float(-(mean * mean.log()).sum()), abs=1e-6)
    same = p[:1].repeat(5, 1)  # identical views give the ordinary entropy
    assert float(marginal_entropy(same.log())) == pytest.approx(float(entropy(p[:1].log())), abs=1e-6)


def test_dynaprompt_chooses_by_both_measures() -> None:
    def member(plain_view: float, view: float) -> Tensor:
        return torch.tensor([[plain_view, 0.0], [view, 0.0]])

    z = torch.stack([member(1.0, 1.0), member(5.0, 1.2), member(5.0, 5.0), member(0.2, 0.1)])
    # member 1 is surer and tells the views apart; member 2 is surer only; member 3 is neither
    assert choose(z, Order([0, 1, 2, 3])) == [0, 1]
    assert choose(z[[0, 0, 0]], Order([1, 0, 2])) == [1]  # equal ones do not move as one
    order = Order([0, 1, 2])
    order.used([0, 2])
    assert order.waiting == [1, 0, 2]


def test_dynaprompt_starts_the_longest_waiting_anew_when_all_have_been_used() -> None:
    run = Stream(model_of(), course("dynaprompt", size=2)[0])
    seen = []
    for answer in run.answers(rows_of(inputs(6), model_of().prepare)):
        seen.append(answer.members)
        if len(run.used) == 1 and len(seen) > 1:
            fresh = run.order.waiting[0]
            assert fresh not in run.used
            assert all(torch.equal(t, run.start[fresh][k]) for k, t in run.members[fresh].state_dict().items())
    assert seen[0] == (0,) and {m for members in seen for m in members} == {0, 1}


def test_vpa_leaves_the_first_prediction_alone_in_both_forms() -> None:
    model, base = model_of(), default_frame(model_of(), task_of())
    with torch.no_grad():
        bare = scores(ana.prompt.values.Text(frame=base), inputs(3), model)
    for form in ("added", "rows"):
        answers = stream(prompt_of("vpa", form=form, lr=0.05), inputs(3), model)
        assert torch.allclose(torch.stack([a.before for a in answers]), bare, atol=1e-4)
        assert not torch.allclose(torch.stack([a.z for a in answers]), bare, atol=1e-3)


def test_tfup_by_hand() -> None:
    memory = Typical(2, 4, alpha=0.3)
    z = torch.tensor([2.0, 0.0])
    f = torch.tensor([1.0, 0.0])
    assert torch.equal(memory.more(f, z), torch.zeros(2))  # an empty cache is zero-shot
    memory.add(f, z)
    memory.add(torch.tensor([0.0, 1.0]), torch.tensor([0.0, 1.0]))
    # the item equal to the query has S = 2 and A = 2; the other has S = 0, so A = 0
    told = memory.more(f, z)
    assert told.tolist() == pytest.approx([0.3 * np.exp(1.0), 0.3 * np.exp(-1.0)], rel=1e-5)


def test_memory_keeps_the_surest_of_each_class() -> None:
    memory = ByClass(2, 2)
    for i, top in enumerate([1.0, 3.0, 2.0, 0.5]):
        memory.add(torch.tensor([float(i)]), torch.tensor([top, 0.0]))
    assert [float(one[1]) for one in memory.kept[0]] == [1.0, 2.0] and memory.kept[1] == []
    again = ByClass(2, 2)
    again.load(memory.state())
    assert [float(one[1]) for one in again.kept[0]] == [1.0, 2.0]


def test_a_learned_context_can_be_the_start(tmp_path: Path) -> None:
    model, task = model_of(), task_of()
    learned = ana.fit("coop", model, task, folder=tmp_path / "coop", options={"epochs": "2", "length": "6"}).prompt
    learned.save(tmp_path / "context")
    run = ana.fit("tpt", model, task, folder=tmp_path / "tpt",
                  options={"start": str(tmp_path / "context"), "views": "8", "lr": "0.000001"})  # fmt: skip
    assert isinstance(learned, Tokens) and isinstance(run.prompt, Adaptive)
    assert torch.allclose(scores(run.prompt, inputs(4), model), scores(learned, inputs(4), model), atol=1e-2)
    assert course_of(run.prompt, model).members[0]().layers[0].shape == (6, 32)  # type: ignore[attr-defined]


def test_unknown_view_makers_are_named() -> None:
    with pytest.raises(ana.errors.ConfigError, match="mixed-crops"):
        views.find("mixed-crop")
    with pytest.raises(ana.errors.ConfigError, match="cannot be imported"):
        views.find("anacrusis.nothing:here", imports=True)
    with pytest.raises(ana.errors.ConfigError, match="is no function"):
        views.find("anacrusis:__version__", imports=True)
    views.register("twice", lambda pixels, n, generator: pixels[None].float().repeat(n, 1, 1, 1) / 255)
    assert views.find("twice")(torch.zeros(3, 4, 4), 5, torch.Generator()).shape == (5, 3, 4, 4)
    views._NAMED.pop("twice")


def test_before_is_what_no_adapting_would_have_answered() -> None:
    """Also late in the stream of a method that keeps what it learned."""
    model = model_of()
    for name, options in ONLINE:
        answers = stream(prompt_of(name, **options), inputs(8), model)
        first = stream(prompt_of(name, **options), inputs(8)[-1:], model)
        assert torch.allclose(answers[-1].before, first[0].before, atol=1e-5)
