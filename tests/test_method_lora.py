"""LoRA: low-rank deltas in the network, and the network as it was afterwards (methods/lora.py, tune/adapter.py)."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import anacrusis as ana
from anacrusis.errors import ConfigError, MissingExtra, ModelError, PromptError
from anacrusis.measure.predict import scores
from anacrusis.methods.lora import LoRAConfig, LowRank
from anacrusis.model.frames import default_frame
from anacrusis.model.model import Model
from anacrusis.model.readout import classification_loss, reader, score_all
from anacrusis.prompt.values import Adapter, Text
from anacrusis.registry import get
from anacrusis.task import Task
from anacrusis.testing import FAMILIES, tiny
from anacrusis.tune.adapter import attached
from anacrusis.tune.recipe import Problem, Recipe, Training
from anacrusis.tune.trainer import Trainer

peft = pytest.importorskip("peft")

TEXTS = [" ".join(f"w{(4 * i + j) % 90}" for j in range(2 + i % 5)) for i in range(20)]  # of 2 to 6 words
LABELS = ["w20", "w21"] * 10
INPUTS = [(t,) for t in TEXTS]
ALL = (*FAMILIES, "minilm")


def problem(model: Model, seed: int = 3, **frame: str) -> Problem:
    parts = [(TEXTS[a:b], LABELS[a:b]) for a, b in ((0, 12), (12, 16), (16, 20))]
    task = Task.from_lists(*parts[0], valid=parts[1], test=parts[2])
    return Problem(model, task, default_frame(model, task, **frame), torch.Generator().manual_seed(seed),
                   Training(lr=0.5, steps=4, batch=4))  # fmt: skip


def build(p: Problem, **options: Any) -> Recipe:
    recipe: Recipe = get("lora").build(LoRAConfig(**options), p)
    return recipe


def shaken(recipe: Recipe) -> Recipe:
    """With deltas that are not zero."""
    g = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for d in recipe.maker.parameters():
            d.normal_(0.0, 0.3, generator=g)
    return recipe


def everything(model: Model) -> dict[str, Any]:
    """All of a network that somebody could notice."""
    net = model.network
    found: dict[str, Any] = {"weights": {k: t.clone() for k, t in net.state_dict().items()}}
    found["config"] = net.config.to_dict()
    found["modules"] = [(n, id(m)) for n, m in net.named_modules()]
    found["parameters"] = [(n, id(p), p.requires_grad) for n, p in net.named_parameters()]
    found["modes"] = [m.training for m in net.modules()]
    found["attributes"] = [sorted(m.__dict__) for m in net.modules()]
    names = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks", "_state_dict_hooks")
    found["hooks"] = [[list(getattr(m, n).items()) for n in names] for m in net.modules()]
    return found


@contextmanager
def unchanged(model: Model) -> Iterator[None]:
    before = everything(model)
    yield
    after = everything(model)
    ours, theirs = before.pop("weights"), after.pop("weights")
    assert list(ours) == list(theirs) and all(torch.equal(ours[k], theirs[k]) for k in ours)
    assert before == after


@pytest.fixture
def used() -> Model:
    """A network as a user may hand it over: a hook, one part in training mode, some gradients wanted."""
    model = tiny("gpt2")
    parts = list(model.network.modules())
    parts[5].register_forward_hook(lambda *a: None)
    parts[7].train()
    next(model.network.parameters()).requires_grad_(True)
    return model


def test_a_fit_leaves_the_network_as_it_was(used: Model) -> None:
    with unchanged(used):
        Trainer(problem(used), build(problem(used)), seed=0).fit()


@pytest.mark.parametrize("family", ALL)
def test_every_family_trains_and_is_left_as_it_was(family: str, tmp_path: Path) -> None:
    model = tiny(family)
    with unchanged(model):
        run = ana.fit("lora", model, problem(model).task, folder=tmp_path, options={"steps": 4, "batch": 4, "rank": 2})
    assert isinstance(run.prompt, Adapter)
    loaded = ana.load(tmp_path / "prompt")
    assert torch.equal(scores(run.prompt, INPUTS, model), scores(loaded, INPUTS, model))


@pytest.mark.parametrize("when", ["begin", "step", "validate"])
def test_an_error_in_the_middle_leaves_it_as_it_was(used: Model, when: str) -> None:
    def stop(event: dict[str, Any]) -> None:
        if event["event"] == when:
            raise KeyboardInterrupt

    with unchanged(used), pytest.raises(KeyboardInterrupt):
        Trainer(problem(used), build(problem(used)), seed=0, observe=stop).fit()


def test_an_error_while_attached_leaves_it_as_it_was(used: Model) -> None:
    prompt = build(problem(used)).maker.fold()
    assert isinstance(prompt, Adapter)
    with unchanged(used), pytest.raises(ZeroDivisionError), attached(used, prompt):
        raise ZeroDivisionError


@pytest.mark.parametrize("family", ALL)
def test_at_the_start_it_is_the_base_model(family: str) -> None:
    model = tiny(family)
    p = problem(model, readout="similarity" if family == "minilm" else "auto")
    recipe = build(problem(model, readout="head") if family == "minilm" else p)
    start = recipe.maker.fold()
    assert torch.equal(scores(replace(start, frame=p.frame), INPUTS, model), scores(Text(frame=p.frame), INPUTS, model))


@pytest.mark.parametrize("family", ["minilm", "gpt2", "bert", "t5"])
def test_attached_it_scores_as_while_it_was_trained(family: str) -> None:
    model = tiny(family)
    p = problem(model)
    trainer = Trainer(p, shaken(build(p)), seed=0)
    outcome = trainer.fit()
    prompt, maker = outcome.prompt, trainer.maker
    assert isinstance(prompt, Adapter) and isinstance(maker, LowRank)
    kept = scores(prompt, INPUTS, model)
    read = reader(model, p.frame)
    bare = Text(frame=p.frame, head=prompt.head)
    with maker.inside(model):
        assert torch.equal(score_all(read, read.rows(INPUTS, bare), bare), kept)
    assert not torch.allclose(scores(bare, INPUTS, model), kept, atol=1e-4)
    best = max(outcome.history, key=lambda h: (h["score"], -h["loss"]))
    valid = p.task.valid
    golds = torch.tensor([e.gold for e in valid])
    loss = classification_loss(scores(prompt, [e.inputs for e in valid], model), golds).mean()
    assert float(loss) == pytest.approx(best["loss"], abs=1e-5)


def test_the_equation() -> None:
    """W' = W + (alpha / r) B A, for GPT-2's turned weights too."""
    for family in ("gpt2", "bert"):
        model = tiny(family)
        prompt = shaken(build(problem(model), rank=3, alpha=6.0)).maker.fold()
        prompt = replace(prompt, frame=problem(model).frame)
        assert isinstance(prompt, Adapter)
        by_hand = tiny(family)
        with torch.no_grad():
            for name, A in prompt.weights.items():
                if ".lora_A." in name:
                    change = 2.0 * prompt.weights[name.replace("lora_A", "lora_B")] @ A
                    weight = by_hand.network.get_submodule(name.removesuffix(".lora_A.weight")).weight
                    weight += change.T if family == "gpt2" else change
        expected = scores(Text(frame=prompt.frame), INPUTS, by_hand)
        assert torch.allclose(scores(prompt, INPUTS, model), expected, atol=1e-4)


def test_peft_reads_what_we_keep() -> None:
    """The tensors' names and the configuration's entries are peft's own."""
    model = tiny("bert")
    p = problem(model)
    prompt = Trainer(p, build(p), seed=0).fit().prompt
    assert isinstance(prompt, Adapter)
    theirs = tiny("bert").network
    with torch.random.fork_rng(devices=[]):
        peft.inject_adapter_in_model(peft.LoraConfig(**prompt.config), theirs)
    report = peft.set_peft_model_state_dict(theirs, dict(prompt.weights))
    assert not report.unexpected_keys
    back = peft.get_peft_model_state_dict(theirs, save_embedding_layers=False)
    assert back.keys() == prompt.weights.keys() and all(torch.equal(back[k], prompt.weights[k]) for k in back)


def test_every_delta_moves_and_nothing_else_wants_a_gradient() -> None:
    model = tiny("t5")
    for readout in ("label-words", "head"):
        p = problem(model, readout=readout)
        trainer = Trainer(p, build(p), seed=0)
        seen: list[int] = []

        def look(event: dict[str, Any], trainer: Trainer = trainer, seen: list[int] = seen) -> None:
            if event["event"] == "step":
                ours = list(trainer.maker.parameters())
                wanted = [q for q in model.network.parameters() if q.requires_grad]
                assert {id(q) for q in wanted} == {id(q) for q in ours}
                moving = [q.grad is not None and bool(q.grad.abs().sum() > 0) for q in ours]
                assert all(moving) or event["step"] == 1  # at first B = 0 lets nothing through to A
                seen.append(event["step"])

        trainer.observe = look
        prompt = trainer.fit().prompt
        assert isinstance(prompt, Adapter) and seen == [1, 2, 3, 4]
        assert {k.split(".")[0] for k in prompt.weights} == (
            {"encoder"} if readout == "head" else {"encoder", "decoder"}
        )


def test_a_resumed_fit_ends_where_an_uninterrupted_one_does(tmp_path: Path) -> None:
    model = tiny("minilm")
    p = problem(model)
    whole = Trainer(p, build(problem(model)), seed=0).fit().prompt

    def stop(event: dict[str, Any]) -> None:
        if event["event"] == "step" and event["step"] == 3:
            raise KeyboardInterrupt

    options = replace(p.training, validate_every=1)
    whole = Trainer(replace(p, training=options), build(problem(model)), seed=0).fit().prompt
    with pytest.raises(KeyboardInterrupt):
        Trainer(replace(p, training=options), build(problem(model)), seed=0, folder=tmp_path, observe=stop).fit()
    again = Trainer(replace(p, training=options), build(problem(model)), seed=0, folder=tmp_path).fit().prompt
    assert again.same(whole)


def test_targets() -> None:
    bert, gpt2 = tiny("bert"), tiny("gpt2")
    named = build(problem(bert), targets=("key", "value")).maker.fold()
    assert isinstance(named, Adapter)
    assert {k.split(".")[-3] for k in named.weights} == {"key", "value"} and len(named.weights) == 2 * 2 * 2
    assert get("lora").configure({"targets": "key, value"}).targets == ("key", "value")
    with pytest.raises(ConfigError, match="'valu'.*value"):
        build(problem(bert), targets=("valu",))
    with pytest.raises(ConfigError, match="lm_head"):  # its rows are read without running it: a delta would do nothing
        build(problem(gpt2), targets=("lm_head",))
    usual = build(problem(tiny("modernbert"))).maker.fold()  # peft knows none: the attention's, not the MLP's
    assert isinstance(usual, Adapter)
    assert {k.split(".")[-4] for k in usual.weights} == {"attn"}


def test_number_of_parameters() -> None:
    model = tiny("bert")
    p = problem(model)
    assert Trainer(p, build(p, rank=3), seed=0).fit().parameters == 2 * 2 * (3 * 32 + 32 * 3)


def test_it_fits_its_own_network_only() -> None:
    prompt = build(problem(tiny("bert"))).maker.fold()
    assert isinstance(prompt, Adapter)
    deeper, wider = tiny("bert", layers=1), tiny("bert", hidden=64)
    for other in (deeper, wider):
        with unchanged(other), pytest.raises((PromptError, ModelError)), attached(other, prompt):
            pass
    model = tiny("bert")
    with attached(model, prompt), pytest.raises(ModelError, match="already"), attached(model, prompt):
        pass


def test_the_fingerprint_is_the_bare_networks() -> None:
    model, other = tiny("bert"), tiny("bert")
    prompt = build(problem(other)).maker.fold()
    assert isinstance(prompt, Adapter)
    with attached(model, prompt):  # asked for the first time while the deltas are in
        assert model.fingerprint == other.fingerprint and len(model.sites) == len(other.sites)


def test_similarity_is_refused() -> None:
    with pytest.raises(ConfigError, match="readout"):
        build(problem(tiny("minilm"), readout="similarity"))


def test_weights_come_from_the_generator() -> None:
    model = tiny("bert")
    a, b, c = (build(problem(model, seed)).maker.fold() for seed in (3, 3, 4))
    assert a.same(b) and not a.same(c)
    A = torch.cat([t.flatten() for n, t in a.tensors().items() if "lora_A" in n])
    assert A.abs().max() <= 32**-0.5 and A.abs().max() > 0.9 * 32**-0.5


def test_without_peft_it_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(MissingExtra, match=r"pip install \"anacrusis\[peft\]\""):
        build(problem(tiny("bert")))


@pytest.mark.parametrize("option", [{"rank": 0}, {"alpha": 0.0}])
def test_wrong_options(option: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=next(iter(option))):
        get("lora").configure(option)
