"""ATTEMPT: a mixture of prompts for each input (methods/attempt.py)."""

from __future__ import annotations

import gc
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import anacrusis as ana
from anacrusis.errors import ConfigError, PromptError
from anacrusis.measure.predict import mixed_scores, scores
from anacrusis.methods import attempt
from anacrusis.methods.attempt import AttemptConfig, Mixture
from anacrusis.model.frames import default_frame
from anacrusis.model.model import Model, Reads
from anacrusis.model.readout import reader
from anacrusis.model.rows import collate
from anacrusis.prompt.values import Conditioned, Frame, Soft, Text
from anacrusis.registry import get
from anacrusis.task import Task
from anacrusis.testing import tiny
from anacrusis.tune.recipe import Problem, Recipe, Training

TEXTS = [" ".join(f"w{(4 * i + j) % 90}" for j in range(2 + i % 5)) for i in range(20)]  # of 2 to 6 words
LABELS = ["w20", "w21"] * 10
B, T, P, H, S = 3, 5, 4, 6, 2


def problem(model: Model, seed: int = 3, **frame: str) -> Problem:
    parts = [(TEXTS[a:b], LABELS[a:b]) for a, b in ((0, 12), (12, 16), (16, 20))]
    task = Task.from_lists(*parts[0], valid=parts[1], test=parts[2])
    return Problem(model, task, default_frame(model, task, **frame), torch.Generator().manual_seed(seed),
                   Training(lr=0.3, steps=4, batch=4))  # fmt: skip


def build(p: Problem, **options: object) -> Recipe:
    recipe: Recipe = get("attempt").build(AttemptConfig(**options), p)
    return recipe


def small(temperature: float = 1.0, scale: float = 0.5) -> Mixture:
    g = torch.Generator().manual_seed(0)
    target, sources = torch.randn(P, H, generator=g), torch.randn(S, P, H, generator=g)
    return Mixture(target, sources, 7, temperature, scale, 1.0, g)


def reads(seed: int = 0) -> Reads:
    e = torch.randn(B, T, H, generator=torch.Generator().manual_seed(seed)) - 2.0  # mostly below the zeros of padding
    mask = torch.arange(T)[None] < torch.tensor([5, 3, 1])[:, None]
    return Reads(e * mask[..., None], mask)


def vectors(maker: Mixture, r: Reads) -> torch.Tensor:
    with torch.no_grad():
        return maker(r).vectors


def test_the_equation_row_by_row() -> None:
    maker, r = small(temperature=0.8), reads()
    W_down, _, W_up, norm = maker.net
    found = vectors(maker, r)
    every = [*maker.sources, maker.target.detach()]
    for b, n in enumerate((5, 3, 1)):
        x = torch.tensor([max(r.embeddings[b, :n, i].tolist()) for i in range(H)]) / 0.5
        u = W_up.weight @ torch.nn.functional.silu(W_down.weight @ x)
        h = (u - u.mean()) / (u.var(unbiased=False) + norm.eps).sqrt()
        logits = torch.stack([h @ p.max(0).values for p in every]) / (0.8 * math.sqrt(H) * 0.5)
        a = logits.exp() / logits.exp().sum()
        expected = maker.target + sum(w * p for w, p in zip(a, every, strict=True))
        assert torch.allclose(found[b], expected, atol=1e-5)
    assert not torch.allclose(found[0], found[1], atol=1e-3)  # each input has its own


def test_at_an_infinite_temperature_all_weigh_the_same() -> None:
    maker = small(temperature=1e12)
    mean = (maker.sources.sum(0) + maker.target) / (S + 1)
    assert torch.allclose(vectors(maker, reads()), (maker.target + mean).expand(B, -1, -1), atol=1e-6)


def test_the_order_of_tokens_does_not_matter() -> None:
    maker, r = small(), reads()
    turned = Reads(r.embeddings.clone(), r.mask)
    turned.embeddings[0] = r.embeddings[0].flip(0)
    turned.embeddings[1, :3] = r.embeddings[1, [2, 0, 1]]
    assert torch.equal(vectors(maker, r), vectors(maker, turned))


def test_padding_does_not_matter() -> None:
    maker, r = small(), reads()
    alone = [vectors(maker, Reads(r.embeddings[b : b + 1, :n], r.mask[b : b + 1, :n])) for b, n in enumerate((5, 3, 1))]
    assert torch.allclose(vectors(maker, r), torch.cat(alone), atol=1e-6)


def test_an_empty_text_gets_a_prompt_too() -> None:
    maker = small()
    empty = vectors(maker, Reads(torch.zeros(1, 0, H), torch.zeros(1, 0, dtype=torch.bool)))
    r = reads()
    masked = vectors(maker, Reads(r.embeddings, torch.zeros_like(r.mask)))
    assert torch.isfinite(empty).all() and torch.allclose(masked, empty.expand(B, -1, -1))


def test_the_size_of_embeddings_does_not_matter() -> None:
    """Everything in embedding space ten times as large: the same shares."""
    one, ten, r = small(), small(scale=5.0), reads()
    ten.load_state_dict({k: t * 10 if k in ("target", "sources") else t for k, t in one.state_dict().items()})
    with torch.no_grad():
        a = one.attention(r, torch.cat([one.sources, one.target[None]]))
        b = ten.attention(Reads(r.embeddings * 10, r.mask), torch.cat([ten.sources, ten.target[None]]))
    assert torch.allclose(a, b, atol=1e-6) and torch.allclose(a.sum(1), torch.ones(B))


@pytest.mark.parametrize("family", ["minilm", "gpt2", "bert", "t5"])
def test_saved_and_loaded_it_scores_the_same(family: str, tmp_path: Path) -> None:
    model = tiny(family)
    p = problem(model)
    before = build(p, length=P, count=S, bottleneck=5).maker.sources.clone()
    options = {"epochs": 2, "length": P, "count": S, "bottleneck": 5}
    run = ana.fit("attempt", model, p.task, folder=tmp_path, options=options)
    assert isinstance(run.prompt, Conditioned) and run.prompt.weights["sources"].shape == before.shape
    inputs = [(t,) for t in TEXTS]
    loaded = ana.load(tmp_path / "prompt")
    kept = scores(run.prompt, inputs, model)
    assert torch.equal(kept, scores(loaded, inputs, model))
    assert torch.allclose(kept, scores(run.prompt, inputs, model, size=3), atol=1e-5)
    plain = Text(frame=run.prompt.frame, head=run.prompt.head)
    both = mixed_scores([loaded, plain], [i % 2 for i in range(20)], inputs, model)
    assert torch.allclose(torch.stack(both[::2]), kept[::2], atol=1e-5)


def test_sources_are_frozen_and_the_rest_learns() -> None:
    p = problem(tiny("gpt2"))
    recipe = build(p, length=P, count=S, bottleneck=5)
    maker = recipe.maker
    assert isinstance(maker, Mixture) and "sources" not in dict(maker.named_parameters())
    read = reader(p.model, p.frame)
    batch = collate(read.rows([e.inputs for e in p.task.train], Soft(vectors=maker.target.detach())))
    with p.model.frozen():
        placed = p.model.place(maker(p.model.reads(batch)), batch)
        loss, _, _ = read.loss(batch, placed, None, torch.tensor([e.gold for e in p.task.train]))
    loss.mean().backward()
    assert maker.sources.grad is None and not maker.sources.requires_grad
    assert all(q.grad is not None and bool(q.grad.abs().sum() > 0) for q in maker.parameters())
    assert {id(q) for g in maker.groups() for q in g.parameters} == {id(q) for q in maker.parameters()}


def test_sources_from_folders(tmp_path: Path) -> None:
    model = tiny("minilm")
    p = problem(model)
    card = {"model": model.name, "fingerprint": model.fingerprint}
    for n in (2, 5):
        Soft(vectors=torch.full((n, model.hidden), float(n)), card=card).save(tmp_path / str(n))
    config = get("attempt").configure({"sources": f"{tmp_path / '2'}, {tmp_path / '5'}", "length": 4})
    recipe = get("attempt").build(config, p)
    assert recipe.notes == ()
    assert torch.equal(recipe.maker.sources[:, :, 0], torch.tensor([[2.0] * 4, [5.0] * 4]))
    Soft(vectors=torch.zeros(2, model.hidden), offset=torch.zeros(3, model.hidden), card=card).save(tmp_path / "moved")
    with pytest.raises(PromptError, match="offsets"):
        build(p, sources=(str(tmp_path / "moved"),))
    Soft(vectors=torch.zeros(2, model.hidden), card={**card, "fingerprint": "other"}).save(tmp_path / "other")
    with pytest.raises(PromptError, match="learned for"):
        build(p, sources=(str(tmp_path / "other"),))


def test_without_sources_it_says_so() -> None:
    recipe = build(problem(tiny("minilm")), count=3)
    assert "vocabulary" in recipe.notes[0]
    assert recipe.maker.sources.shape == (3, 20, 32)
    rows = recipe.maker.sources.reshape(-1, 1, 32)
    assert bool((rows == tiny("minilm").embeddings).all(2).any(1).all())


def test_a_network_is_rebuilt_once_and_forgotten_with_its_prompt() -> None:
    model = tiny("minilm")
    prompt = build(problem(model), length=P).maker.fold()
    assert isinstance(prompt, Conditioned)
    assert attempt.restore(model, prompt) is attempt.restore(model, prompt)
    other = replace(prompt)
    assert attempt.restore(model, other) is not attempt.restore(model, prompt)
    gc.collect()  # what earlier tests left
    held = len(attempt.restore.kept)
    del prompt, other
    gc.collect()
    assert len(attempt.restore.kept) == held - 2


def test_a_damaged_network_is_refused() -> None:
    model = tiny("minilm")
    prompt = build(problem(model), length=P).maker.fold()
    assert isinstance(prompt, Conditioned)
    with pytest.raises(PromptError, match="attempt"):
        attempt.restore(model, replace(prompt, weights={k: t for k, t in prompt.weights.items() if k != "target"}))
    with pytest.raises(PromptError, match="attempt"):
        attempt.restore(model, replace(prompt, config={**prompt.config, "bottleneck": 3}))


def test_an_answer_that_is_taught_is_not_read() -> None:
    model = tiny("gpt2")
    frame = Frame(template="{text} Answer :", readout="generate")
    maker = build(problem(model), length=P).maker
    rows = model.renderer(frame, Soft(vectors=torch.zeros(P, model.hidden)))
    bare, taught = (collate(list(rows.rows([("w1 w2",)], answers))) for answers in (None, ["w80 w81 w82"]))
    with torch.no_grad():
        assert torch.equal(maker(model.reads(bare)).vectors, maker(model.reads(taught)).vectors)


@pytest.mark.parametrize(
    "option", [{"length": 0}, {"count": 0}, {"bottleneck": 0}, {"temperature": 0.0}, {"network_rate": 0.0}]
)
def test_wrong_options(option: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=next(iter(option))):
        get("attempt").configure(option)
