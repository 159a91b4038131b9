"""BBT: the projection by hand, a generator of its own, the teacher's accuracy, and better than drawing z at random."""

from __future__ import annotations

import functools
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import anacrusis as ana
from anacrusis.methods.bbt import BBTConfig, bbt, bbtv2, clipped, cma_es, projection
from anacrusis.prompt.values import Prefix, Soft
from anacrusis.runs.searching import facts, search_frame
from anacrusis.search.local import Local
from anacrusis.search.requests import Forward
from anacrusis.search.search import Search, Searching
from anacrusis.testing import planted, tiny

SMALL: dict[str, Any] = {"length": 4, "dim": 20, "popsize": 10, "alpha": 2.0}


@functools.cache
def world() -> Any:
    model = tiny("gpt2", scale=0.1)
    return model, *planted(model, examples=400, strength=2.0)


def searched(seed: int = 0) -> tuple[Search, Local]:
    model, task, teacher = world()
    given = Searching(start="", examples=16)
    base, parts = search_frame(model, task, given, {"template": teacher.frame.template})
    s = Search(task, base, parts, given, seed)
    s.model = facts(model)
    return s, Local(model)


def drive(policy: Any, s: Search, local: Local) -> tuple[list[Any], list[list[Any]]]:
    """(the method's result, the candidates of every generation)."""
    given, asked, send = [s.examples[e] for e in s.dev], [], None
    try:
        while True:
            r = policy.send(send)
            send = [local.loss(s.form(c), given) for c in r.candidates] if isinstance(r, Forward) else []
            asked += [list(r.candidates)] if isinstance(r, Forward) else []
    except StopIteration as end:
        return end.value, asked


def test_the_projection_gives_the_prompt_the_embeddings_own_spread() -> None:
    """alpha std / (sqrt(d) sigma): with z ~ N(0, sigma^2) in d dimensions A z has the deviation alpha std."""
    g = torch.Generator().manual_seed(0)
    A = projection(4000, 50, 0.5, 0.08, 2.0, g)
    assert A.shape == (4000, 50) and float(A.std()) == pytest.approx(0.5 * 0.08 / (math.sqrt(50) * 2.0), rel=0.01)
    z = 2.0 * torch.randn(50, generator=g)
    assert float((A @ z).std()) == pytest.approx(0.5 * 0.08 * float(z.norm()) / (2.0 * math.sqrt(50)), rel=0.05)
    x = torch.cat([torch.randn(10_000, generator=g), torch.full((50,), 1000.0)])
    assert float(x.std()) > 50 and clipped(x) < float(x.std()) / 2


def test_the_form_is_p0_plus_A_z_and_A_is_fixed_by_the_seed() -> None:
    vectors = []
    for seed in (0, 0, 1):
        s, local = searched(seed)
        policy = bbt(BBTConfig(**SMALL), s)
        policy.send(None)
        zero, one, two = (s.form(s.start.put("z", (z,))) for z in ((0.0,) * 20, (1.0,) * 20, (2.0,) * 20))
        assert isinstance(zero, Soft) and isinstance(one, Soft) and isinstance(two, Soft)
        assert torch.allclose(two.vectors - one.vectors, one.vectors - zero.vectors, atol=1e-6)
        table = s.model["embeddings"]
        assert all(any(torch.equal(row, e) for e in table) for row in zero.vectors)  # p0: words of the vocabulary
        std = float((one.vectors - zero.vectors).std())  # z of length sqrt(d) sigma
        assert std == pytest.approx(2.0 * float(table.std()), rel=0.25)
        vectors.append(one.vectors)
    assert torch.equal(vectors[0], vectors[1]) and not torch.equal(vectors[0], vectors[2])


def test_cma_draws_from_a_generator_of_its_own() -> None:
    config = BBTConfig(dim=5, popsize=6)
    first, same, other = (cma_es(config, seed).ask() for seed in (1, 1, 2))
    assert all((a == b).all() for a, b in zip(first, same, strict=True)) and (first[0] != other[0]).any()
    # and conftest sees that the global random states did not move


def test_bbtv2_moves_one_layer_at_a_time_with_the_others_at_their_best() -> None:
    s, local = searched()
    out, asked = drive(bbtv2(BBTConfig(length=2, dim=4, popsize=4, evaluations=24), s), s, local)
    assert len(asked) == 6  # 24 / 4
    best = ((0.0,) * 4,) * 2
    given, least = [s.examples[e] for e in s.dev], math.inf
    for turn, generation in enumerate(asked):
        for c in generation:
            assert c.parts["z"][1 - turn % 2] == best[1 - turn % 2] and c.parts["z"][turn % 2] != best[turn % 2]
        losses = [local.loss(s.form(c), given) for c in generation]
        if min(losses) < least:
            least, best = min(losses), generation[losses.index(min(losses))].parts["z"]
    assert out[0].parts["z"] == best
    prompt = s.form(out[0])
    assert isinstance(prompt, Prefix) and prompt.tokens == 2 and len(prompt.keys["decoder"]) == 2


@pytest.mark.parametrize("build", [bbt, bbtv2])
def test_better_than_drawing_z_at_random(build: Any) -> None:
    wins = 0
    for seed in range(10):
        s, local = searched(seed)
        config = BBTConfig(length=2, dim=10, popsize=8, evaluations=120, alpha=2.0)
        out, asked = drive(build(config, s), s, local)
        given = [s.examples[e] for e in s.dev]
        parts = len(out[0].parts["z"])
        drawn = [s.start.put("z", tuple(tuple(s.rng.gauss(0, 1) for _ in range(10)) for _ in range(parts)))
                 for _ in range(sum(map(len, asked)))]  # fmt: skip
        wins += local.loss(s.form(out[0]), given) < min(local.loss(s.form(c), given) for c in drawn)
    assert wins >= 9


@pytest.mark.parametrize(("name", "evaluations"), [("bbt", 400), ("bbtv2", 400)])
def test_comes_near_the_hidden_teacher(name: str, evaluations: int, tmp_path: Path) -> None:
    model, task, teacher = world()
    options = {"template": teacher.frame.template, "start": "", "examples": 64, "evaluations": evaluations, **SMALL}
    run = ana.fit(name, model, task, folder=tmp_path / "r", options=options)
    plain = ana.evaluate(replace(teacher, vectors=teacher.vectors[:0]), model, task).value
    perfect = ana.evaluate(teacher, model, task).value
    assert run.score is not None and plain < 0.8 * perfect and run.score.value >= 0.9 * perfect
    loaded = ana.load(tmp_path / "r" / "prompt")
    assert loaded.same(run.prompt) and ana.evaluate(loaded, model, task).value == run.score.value


@pytest.mark.parametrize("name", ["bbt", "bbtv2"])
@pytest.mark.parametrize("family", ["minilm", "bert", "t5", "llama"])
def test_other_families(name: str, family: str, tmp_path: Path) -> None:
    from tests.test_contracts import model_of, task_of

    model = model_of(family)
    more = {"template": "{text} {mask}"} if family == "bert" else {}
    options = {"evaluations": "40", "examples": "16", **{k: str(v) for k, v in SMALL.items()}, **more}
    runs = [ana.fit(name, model, task_of(), folder=tmp_path / n, options=options, seed=2) for n in "ab"]
    assert runs[0].prompt.same(runs[1].prompt) and len(runs[0].prompt.predict(["w1 w2"], model)) == 1
