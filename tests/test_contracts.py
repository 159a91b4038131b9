"""Every registered gradient method keeps these promises; a new method gets these tests by registering."""

from __future__ import annotations

import functools
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import anacrusis as ana
from anacrusis.measure.predict import mixed_scores, scores
from anacrusis.model.frames import default_frame
from anacrusis.model.model import Model
from anacrusis.model.rows import collate
from anacrusis.prompt.values import Adapter
from anacrusis.registry import TEXTS, Method, all_methods, require
from anacrusis.task import Task
from anacrusis.testing import WORDS, planted, tiny
from anacrusis.tune.recipe import Problem, Recipe, Training
from anacrusis.tune.trainer import Trainer
from tests.test_model import state, unchanged
from tests.world import Direct, World

TUNED = [n for n, m in all_methods().items() if m.engine == "tune" and m.arrangements & TEXTS]
FAMILIES = ("gpt2", "llama", "bert", "minilm", "t5", "bart")
PAIRS = [(n, f) for n in TUNED for f in FAMILIES]
QUICK = {"epochs": "2", "batch": "8", "save_seconds": "0"}


@functools.cache
def model_of(family: str) -> Model:
    return tiny(family)


@functools.cache
def task_of(kind: str = "classification") -> Task:
    g = torch.Generator().manual_seed(4)
    texts, labels = [], []
    for i in range(48):
        words = torch.randint(len(WORDS), (3 + i % 5,), generator=g).tolist()
        texts.append(" ".join(WORDS[w] for w in words))
        labels.append(f"c{words[0] % 2}" if kind == "classification" else " ".join(WORDS[w] for w in words[:2]))
    words = {"c0": "w1", "c1": "w2"} if kind == "classification" else None
    return Task.from_lists(texts, labels, name="tiny", words=words, kind=kind)


def problem(method: Method, family: str, **options: str) -> Problem:
    model, task = model_of(family), task_of()
    training = Training(**method.training).changed({**QUICK, **options})
    frame = default_frame(model, task, template="{text} {mask}" if model.arrangement == "masked" else "")
    return Problem(model, task, frame, torch.Generator().manual_seed(1), training)


def fits(name: str, family: str) -> Method:
    method = all_methods()[name]
    try:
        require(method, model_of(family), task_of())
    except ana.errors.AnacrusisError:
        pytest.skip(f"{name} is not for {family} models")
    return method


def build(name: str, family: str, **options: str) -> tuple[Problem, Recipe]:
    method = fits(name, family)
    given = problem(method, family, **options)
    return given, method.build(method.config(), given)


class Stop(Exception):
    pass


@pytest.mark.parametrize(("name", "family"), PAIRS)
def test_a_fit_leaves_the_network_alone_and_folds_exactly(name: str, family: str, tmp_path: Path) -> None:
    given, recipe = build(name, family)
    before = state(given.model)
    trainer = Trainer(given, recipe, seed=1)
    live: dict[str, Any] = {}
    score = trainer._score
    trainer._score = lambda prompt: live.setdefault("first", prompt) and score(prompt)  # type: ignore[method-assign]
    out = trainer.fit()
    assert unchanged(before, state(given.model))
    assert len(out.history) == 3 and out.steps == 2 * trainer.per_epoch
    # what is saved, loaded and served scores as what was trained
    inputs = [e.inputs for e in given.task.valid]
    z = scores(out.prompt, inputs, given.model)
    out.prompt.save(tmp_path / "p")
    loaded = ana.load(tmp_path / "p")
    assert loaded.same(out.prompt)
    assert torch.equal(scores(loaded, inputs, given.model), z)
    if not isinstance(out.prompt, Adapter):
        rows = trainer.read.rows(inputs, out.prompt)
        batch = collate(rows)
        with torch.no_grad(), given.model.frozen():
            made = trainer.maker(None if trainer.maker.reads == "nothing" else given.model.reads(batch))
            unfolded = trainer.read.scores(batch, given.model.place(made, batch), out.prompt.head)
        assert torch.allclose(unfolded, z, atol=1e-5)


@pytest.mark.parametrize(("name", "family"), PAIRS)
def test_every_parameter_gets_a_gradient_and_nothing_else_wants_one(name: str, family: str) -> None:
    given, recipe = build(name, family, head_init="zeros", cache="false")
    trainer = Trainer(given, recipe, seed=1)
    trainer.began = 0.0
    with given.model.frozen(), trainer.maker.inside(given.model):
        trainer._prepare()
        if trainer.head is not None:  # a head of zeros lets no gradient through
            torch.nn.init.normal_(trainer.head.weight, generator=torch.Generator().manual_seed(0))
        # methods whose second factor starts at zero give the first a gradient from the second step on
        g = torch.Generator().manual_seed(3)
        for p in trainer.maker.parameters():
            with torch.no_grad():
                p.add_(0.01 * torch.randn(p.shape, generator=g))
        losses = trainer._losses(list(range(8)), None, recipe.stages[0])
        sum(losses.values()).backward()
        own = {id(p) for group in trainer.groups for p in group.parameters}
        for group in trainer.groups:
            for p in group.parameters:
                assert p.grad is not None and p.grad.abs().sum() > 0, f"{group.role} {tuple(p.shape)}"
        others = [n for n, p in given.model.network.named_parameters() if p.requires_grad and id(p) not in own]
    assert others == []


@pytest.mark.parametrize("name", TUNED)
@pytest.mark.parametrize("family", ["gpt2", "minilm"])
def test_same_seed_same_prompt(name: str, family: str) -> None:
    outs = []
    for seed in (1, 1, 2):
        method = fits(name, family)
        given = replace(problem(method, family), generator=torch.Generator().manual_seed(seed))
        outs.append(Trainer(given, method.build(method.config(), given), seed=seed).fit().prompt)
    assert outs[0].same(outs[1]) and not outs[0].same(outs[2])


@pytest.mark.parametrize("name", TUNED)
@pytest.mark.parametrize("family", ["gpt2", "minilm"])
def test_stopped_and_resumed_equals_uninterrupted(name: str, family: str, tmp_path: Path) -> None:
    fits(name, family)
    model, task = model_of(family), task_of()
    options = {**QUICK, "epochs": "3"}
    whole = ana.fit(name, model, task, folder=tmp_path / "whole", options=options, seed=3)

    def stop(event: dict[str, Any]) -> None:
        if event["event"] == "step" and event["step"] in stops:
            stops.remove(event["step"])
            raise Stop

    stops, before = [2, 7], state(model)
    for _ in range(2):
        with pytest.raises(Stop):
            ana.fit(name, model, task, folder=tmp_path / "cut", options=options, seed=3, observe=stop)
        assert unchanged(before, state(model))
    resumed = ana.fit(name, model, task, folder=tmp_path / "cut", options=options, seed=3, observe=stop)
    assert stops == [] and resumed.prompt.same(whole.prompt)
    assert resumed.score is not None and whole.score is not None and resumed.score.value == whole.score.value


@pytest.mark.parametrize("family", ["gpt2", "minilm", "t5"])
def test_all_methods_in_one_batch(family: str, tmp_path: Path) -> None:
    """Prompts of every method share a batch, and each row answers as if alone."""
    model = model_of(family)
    prompts = []
    for name in TUNED:
        try:
            require(all_methods()[name], model, task_of())
        except ana.errors.AnacrusisError:
            continue
        readout = "head" if family == "minilm" else "label-words"
        if name == "ptec" and family != "minilm":
            continue  # it reads by a head; label words and heads of an encoder-decoder do not mix
        options = {**QUICK, "epochs": "1", "readout": readout}
        prompt = ana.fit(name, model, task_of(), folder=tmp_path / name, options=options).prompt
        if not isinstance(prompt, Adapter):
            prompts.append(prompt)
    assert len(prompts) >= 5
    inputs = [e.inputs for e in task_of().train[: 2 * len(prompts)]]
    which = [i % len(prompts) for i in range(len(inputs))]
    mixed = mixed_scores(prompts, which, inputs, model)
    for x, w, z in zip(inputs, which, mixed, strict=True):
        assert torch.allclose(z, scores(prompts[w], [x], model)[0], atol=2e-5), prompts[w].card["method"]


@pytest.mark.parametrize("name", TUNED)
@pytest.mark.parametrize("family", ["gpt2", "t5"])
def test_written_answers_are_learned_too(name: str, family: str, tmp_path: Path) -> None:
    method = all_methods()[name]
    if "generation" not in method.kinds:
        pytest.skip(f"{name} is not for generation tasks")
    task, model = task_of("generation"), model_of(family)
    run = ana.fit(name, model, task, folder=tmp_path / "r", options=QUICK)
    assert run.valid is not None and run.valid < 0 and run.score is not None
    assert len(run.prompt.predict(["w1 w2", "w3"], model)) == 2


@pytest.mark.parametrize("name", TUNED)
def test_a_planted_prompt_is_found(name: str, tmp_path: Path) -> None:
    """A teacher prompt labels random inputs: a method must come to 0.95 of the teacher's accuracy."""
    method = all_methods()[name]
    model = tiny("bert" if "masked" in method.arrangements else "gpt2", scale=0.1)
    task, teacher = planted(model, examples=1200, strength=2.0)
    perfect = ana.evaluate(teacher, model, task)
    plain = ana.evaluate(replace(teacher, vectors=teacher.vectors[:0]), model, task)
    readout = "head" if name == "ptec" else "label-words"
    run = ana.fit(name, model, task, folder=tmp_path / "run", options={
        "readout": readout, "template": teacher.frame.template, "epochs": "20"})  # fmt: skip
    assert plain.value < 0.8 * perfect.value
    assert run.score is not None and run.score.value >= 0.95 * perfect.value


def test_unknown_names_are_told_with_the_nearest() -> None:
    with pytest.raises(ana.errors.ConfigError, match="Did you mean 'prompt-tuning'"):
        ana.fit("prompt-tunning", model_of("gpt2"), task_of())
    with pytest.raises(ana.errors.ConfigError, match="no option 'lenght'.*Did you mean 'length'"):
        ana.fit("prompt-tuning", model_of("gpt2"), task_of(), options={"lenght": 3})


def test_what_cannot_work_is_refused_before_anything_is_computed() -> None:
    inside = [m for m in all_methods().values() if "gradients" in m.needs]
    assert len(inside) > 10
    for m in inside:
        with pytest.raises(ana.errors.ModelError, match="needs a model with .*gradients.*Methods that fit"):
            ana.fit(m.name, Direct(World(examples=40)), task_of())


def test_a_generation_task_is_refused_on_an_encoder() -> None:
    with pytest.raises(ana.errors.ModelError, match="prompt-tuning needs a model with text for this task"):
        ana.fit("prompt-tuning", model_of("minilm"), task_of("generation"))


def test_vectors_that_nobody_sees_are_refused() -> None:
    with pytest.raises(ana.errors.ConfigError, match="place=back would learn nothing"):
        ana.fit("prompt-tuning", model_of("gpt2"), task_of(), options={"readout": "head", "place": "back"})
