"""StoP: each step trains the first k vectors only (methods/stop.py)."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

import anacrusis as ana
from anacrusis.errors import ConfigError
from anacrusis.methods.stop import Stochastic, StopConfig
from anacrusis.model.frames import default_frame
from anacrusis.model.model import Model
from anacrusis.model.readout import reader
from anacrusis.model.rows import collate
from anacrusis.prompt.values import Frame, Soft
from anacrusis.registry import get
from anacrusis.task import Task
from anacrusis.testing import tiny
from anacrusis.tune.makers import Maker
from anacrusis.tune.recipe import Problem, Training
from anacrusis.tune.trainer import Trainer

TEXTS = [" ".join(f"w{(4 * i + j) % 90}" for j in range(2 + i % 5)) for i in range(20)]  # of 2 to 6 words
LABELS = ["w20", "w21"] * 10
P = 6


def problem(model: Model, seed: int = 3, **frame: str) -> Problem:
    parts = [(TEXTS[a:b], LABELS[a:b]) for a, b in ((0, 12), (12, 16), (16, 20))]
    task = Task.from_lists(*parts[0], valid=parts[1], test=parts[2])
    return Problem(model, task, default_frame(model, task, **frame), torch.Generator().manual_seed(seed),
                   Training(lr=0.3, steps=4, batch=4))  # fmt: skip


def maker_of(p: Problem, name: str = "stop") -> Maker:
    maker: Maker = get(name).build(get(name).configure({"length": P}), p).maker
    return maker


def losses(p: Problem, maker: Maker, keep: int | None) -> tuple[Tensor, Tensor, Tensor]:
    """Scores, losses and the vectors' gradient on the training rows with only the first `keep` vectors."""
    read = reader(p.model, p.frame)
    prompt = maker(None)
    rows = read.rows([e.inputs for e in p.task.train], prompt)
    batch = collate(rows if keep is None else [r.without(keep) for r in rows])
    golds = torch.tensor([e.gold for e in p.task.train])
    with p.model.frozen():
        each, z, _ = read.loss(batch, p.model.place(prompt, batch), None, golds)
    (grad,) = torch.autograd.grad(each.mean(), list(maker.parameters()))
    return z.detach(), each.detach(), grad


@pytest.mark.parametrize("family", ["gpt2", "bert", "t5"])
@pytest.mark.parametrize("k", [1, 4])
def test_vectors_from_k_on_get_no_gradient(family: str, k: int) -> None:
    p = problem(tiny(family))
    _, _, grad = losses(p, maker_of(p), k)
    assert not grad[k:].any()
    assert bool((grad[:k].abs().sum(1) > 0).all())


@pytest.mark.parametrize("family", ["gpt2", "bert", "t5"])
def test_with_all_vectors_it_is_prompt_tuning(family: str) -> None:
    p = problem(tiny(family))
    ours = losses(p, maker_of(p), P)
    plain = losses(problem(p.model), maker_of(problem(p.model), "prompt-tuning"), None)
    assert all(torch.equal(a, b) for a, b in zip(ours, plain, strict=True))


@pytest.mark.parametrize("k", [1, 3, 6])
@pytest.mark.parametrize("family", ["gpt2", "llama", "bert", "t5", "minilm"])
@pytest.mark.parametrize("place", ["front", "after-bos", "back", "slots"])
def test_a_shortened_row_is_the_row_of_a_shorter_prompt(family: str, place: str, k: int) -> None:
    model = tiny(family)
    text = "{soft:2}{text} Answer : {soft}" if place == "slots" else "{text} Answer :"
    if place == "slots" and k == 1:
        pytest.skip("a slot of two cannot be asked of a prompt of one")
    frame = Frame(template=text + (" {mask}" if family == "bert" else ""), place=place)
    inputs = [(t,) for t in TEXTS[:4]]
    answers = ["w20 w21"] * 4 if family != "minilm" else None  # several tokens: several columns are read
    long, short = (
        list(model.renderer(frame, Soft(vectors=torch.zeros(n, model.hidden))).rows(inputs, answers)) for n in (P, k)
    )
    assert [r.without(k) for r in long] == short


def test_lengths_are_drawn_evenly_from_1_to_all() -> None:
    maker = maker_of(problem(tiny("gpt2")))
    g = torch.Generator().manual_seed(0)
    drawn = torch.tensor([maker.sample(g) for _ in range(6000)])
    counts = drawn.bincount(minlength=P + 1)
    assert counts[0] == 0 and len(counts) == P + 1
    chi2 = ((counts[1:] - 1000.0) ** 2 / 1000).sum()
    assert chi2 < 20.5  # 99.9 % of chi-square with 5 degrees of freedom
    again = torch.Generator().manual_seed(0)
    assert [maker.sample(again) for _ in range(20)] == drawn[:20].tolist()


class _Watched(Stochastic):
    """Notes what was drawn, and the gradient's rows after it."""

    def sample(self, generator: torch.Generator) -> int:
        k = super().sample(generator)
        self.drawn.append(k)
        return k

    def constrain(self) -> None:
        grad = self.encoder.vectors.grad
        assert grad is not None
        self.reached.append(int((grad.abs().sum(1) > 0).sum()))


def watch(p: Problem) -> _Watched:
    recipe = get("stop").build(StopConfig(length=P), p)
    maker = recipe.maker
    maker.__class__ = _Watched
    maker.drawn, maker.reached = [], []
    Trainer(p, recipe, seed=1).fit()
    return maker


def test_the_trainer_uses_a_new_length_each_step() -> None:
    maker = watch(problem(tiny("gpt2")))
    assert maker.reached == maker.drawn and len(set(maker.drawn)) > 1


def test_the_trainer_uses_it_behind_a_cached_input_too() -> None:
    maker = watch(problem(tiny("gpt2"), place="back"))
    assert maker.reached == maker.drawn


def test_all_vectors_are_kept(tmp_path: Path) -> None:
    model = tiny("minilm")
    run = ana.fit("stop", model, problem(model).task, folder=tmp_path, options={"epochs": 2, "length": P})
    assert isinstance(run.prompt, Soft) and run.prompt.vectors.shape == (P, model.hidden)


def test_wrong_options() -> None:
    with pytest.raises(ConfigError, match="length"):
        StopConfig(length=0)
