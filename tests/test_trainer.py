"""The trainer: batches, accumulation, caches, stages, stopping, several processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import anacrusis as ana
from anacrusis.errors import ConfigError, RunError
from anacrusis.model.frames import default_frame
from anacrusis.model.model import Model
from anacrusis.registry import get
from anacrusis.task import Task
from anacrusis.testing import WORDS, tiny
from anacrusis.tune import lead
from anacrusis.tune.makers import Free, Group, SoftMaker
from anacrusis.tune.recipe import Problem, Recipe, Stage, Term, Training
from anacrusis.tune.trainer import Trainer, seed_of


def task(n: int = 40) -> Task:
    g = torch.Generator().manual_seed(4)
    texts = [" ".join(WORDS[w] for w in torch.randint(len(WORDS), (2 + i % 7,), generator=g)) for i in range(n)]
    return Task.from_lists(texts, [f"c{i % 2}" for i in range(n)], words={"c0": "w1", "c1": "w2"}, name="t")


def trainer(model: Model, recipe: Recipe | None = None, *, place: str = "auto", **options: Any) -> Trainer:
    training = Training(**{"epochs": 2, "batch": 8, "lr": 0.1, "patience": 0, **options})
    frame = default_frame(model, task(), place=place)
    problem = Problem(model, task(), frame, torch.Generator().manual_seed(0), training)
    method = get("prompt-tuning")
    made = method.build(method.config(length=4), problem) if recipe is None else recipe
    return Trainer(problem, made, seed=5)


def vectors(out: Any) -> torch.Tensor:
    return out.prompt.vectors


def test_every_example_comes_once_an_epoch_in_batches_of_like_length() -> None:
    t = trainer(tiny("gpt2"), epochs=3)
    t.fit()
    for epoch in range(3):
        plan = t._plan(epoch)
        assert sorted(i for b in plan for i in b) == list(range(len(t.rows)))
    spreads = [max(lengths) - min(lengths) for b in plan if (lengths := [len(t.rows[i].codes) for i in b])]
    assert max(spreads) <= 3  # shuffled batches of 8 spread over 6
    assert t._plan(0) != t._plan(1)
    assert t._plan(0) == trainer_plan(t, 0)


def trainer_plan(t: Trainer, epoch: int) -> list[list[int]]:
    t.plans.clear()
    return t._plan(epoch)


def test_accumulated_micro_batches_equal_the_whole_batch() -> None:
    whole, parts = (trainer(tiny("llama"), accumulate=a).fit() for a in (1, 4))
    assert torch.allclose(vectors(whole), vectors(parts), atol=1e-4)


@pytest.mark.parametrize("family", ["gpt2", "llama"])
@pytest.mark.parametrize("readout", ["label-words", "lm"])
def test_cached_inputs_give_the_same_loss_and_gradient(family: str, readout: str) -> None:
    """A prompt behind the input: the input's keys and values are computed once."""
    found = []
    for cache in (True, False):
        t = trainer(tiny(family), place="back", cache=cache)
        t.recipe = replace(t.recipe, frame=replace(t.recipe.frame, readout=readout))
        t = Trainer(t.problem, t.recipe, seed=5)
        t.began = 0.0
        with t.model.frozen():
            t._prepare()
            loss = t._losses([0, 3, 5, 1], None, Stage("all"))["answer"]
            loss.backward()
        assert (t.leads is not None) == cache
        found.append((loss.item(), next(t.maker.parameters()).grad))
    assert found[0][0] == pytest.approx(found[1][0], abs=1e-6)
    assert torch.allclose(found[0][1], found[1][1], atol=1e-6) and found[0][1].abs().sum() > 0


def test_leads_are_refused_where_they_would_be_wrong() -> None:
    model = tiny("gpt2")
    t = trainer(model, place="back")
    t.fit()
    rows, soft = t.rows, t.initial
    assert lead.applies(model, soft, "nothing", rows)
    assert not lead.applies(model, soft, "embeddings", rows)  # the prompt reads the input
    assert not lead.applies(model, replace(soft, offset=torch.zeros(3, model.hidden)), "nothing", rows)
    assert not lead.applies(tiny("bert"), soft, "nothing", rows)  # the input would see the prompt
    assert not lead.applies(tiny("mistral"), soft, "nothing", rows)  # a sliding window
    front = trainer(model, place="front")
    front.fit()
    assert front.leads is None


def test_recomputation_changes_nothing() -> None:
    a, b = (trainer(tiny("gpt2"), recompute=r).fit() for r in (False, True))
    assert torch.allclose(vectors(a), vectors(b), atol=1e-5)


def test_it_stops_when_validation_stops_improving_and_keeps_the_best() -> None:
    t = trainer(tiny("gpt2"), epochs=60, patience=3, lr=3.0)
    out = t.fit()
    scores = [(h["score"], -h["loss"]) for h in out.history]
    assert out.steps < t.total and scores.index(max(scores)) == len(scores) - 4
    again, _ = t._score(out.prompt)
    assert again == pytest.approx(max(scores)[0])


@pytest.mark.parametrize("schedule", ["linear", "cosine", "constant"])
def test_the_rate_warms_up_and_decays(schedule: str) -> None:
    t = trainer(tiny("gpt2"), schedule=schedule, warmup=0.25)
    t.total, rates = 20, []
    for t.step in range(20):
        rates.append(t._rate())
    assert rates[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert rates[19] == pytest.approx({"linear": 1 / 15, "cosine": 0.0109, "constant": 1.0}[schedule], abs=1e-3)


def test_vectors_move_in_units_of_the_tables_size() -> None:
    """One AdamW step at lr moves each value by lr times the table's RMS, whatever the model's scale."""
    for scale in (0.02, 1.0):
        model = tiny("gpt2", scale=scale)
        t = trainer(model, steps=1, warmup=0.0, lr=0.1, clip=0)
        start = t.recipe.maker(None).vectors.detach().clone()
        moved: list[torch.Tensor] = []
        t.observe = lambda e, t=t, start=start, moved=moved: (
            moved.append((t.maker(None).vectors.detach() - start).abs()) if e["event"] == "step" else None
        )
        t.fit()
        assert float(moved[0].median()) == pytest.approx(0.1 * model.scale, rel=0.05)


def test_a_term_that_moves_nothing_is_reported() -> None:
    model = tiny("gpt2")
    base = trainer(model)
    near = Term("near", 0.1, lambda v: (v.prompt.vectors - v.initial.vectors - 1).square().mean())
    inert = Term("inert", 1.0, lambda v: v.initial.vectors.square().mean())
    with pytest.warns(UserWarning, match="'inert' moves nothing"):
        Trainer(base.problem, replace(base.recipe, terms=(near, inert)), seed=1).fit()


def test_a_term_is_weighted_and_pulls() -> None:
    """A strong term that holds the vectors at their start keeps them nearer to it than none."""
    model, moved = tiny("gpt2"), []
    for weight in (0.0, 1e4):
        base = trainer(model, lr=0.05, epochs=5)
        near = Term("near", weight, lambda v: (v.prompt.vectors - v.initial.vectors).square().mean())
        t = Trainer(base.problem, replace(base.recipe, terms=(near,) if weight else ()), seed=1)
        far: list[float] = []
        t.observe = lambda e, t=t, far=far: (
            far.append((t.maker(None).vectors.detach() - t.initial.vectors).abs().mean().item())
            if e["event"] == "step" else None
        )  # fmt: skip
        t.fit()
        moved.append(far[-1])
    assert 0 < moved[1] < 0.5 * moved[0]


class TwoParts(SoftMaker):
    def __init__(self, model: Model):
        super().__init__(Free(torch.randn(3, model.hidden, generator=torch.Generator().manual_seed(1))), model.scale)
        self.more = nn.Parameter(torch.zeros(1))

    def forward(self, reads: Any = None) -> Any:
        soft = super().forward(reads)
        return replace(soft, vectors=soft.vectors + self.more)

    def groups(self) -> list[Group]:
        return [Group("first", [self.encoder.vectors]), Group("second", [self.more])]


def test_stages_move_only_their_roles_and_begin_once() -> None:
    model, began = tiny("gpt2"), []
    stages = (
        Stage("one", 0.5, frozenset({"first"}), begin=lambda m: began.append("one")),
        Stage("two", 0.5, frozenset({"second"}), begin=lambda m: began.append("two")),
    )
    base = trainer(model)
    t = Trainer(base.problem, Recipe(TwoParts(model), base.recipe.frame, stages=stages), seed=1)
    seen = []
    t.observe = lambda e: seen.append((t.maker.encoder.vectors.detach().clone(), t.maker.more.item())) \
        if e["event"] == "step" else None  # fmt: skip
    t.fit()
    half = t.total // 2
    assert began == ["one", "two"]
    assert all(m == 0 for _, m in seen[:half]) and seen[-1][1] != 0
    assert torch.equal(seen[half - 1][0], seen[-1][0]) and not torch.equal(seen[0][0], seen[half - 1][0])


def test_a_forgotten_parameter_is_an_error() -> None:
    model = tiny("gpt2")
    maker = TwoParts(model)
    maker.groups = lambda: [Group("first", [maker.encoder.vectors])]  # type: ignore[method-assign]
    base = trainer(model)
    with pytest.raises(RunError, match="must name each of the 2"):
        Trainer(base.problem, Recipe(maker, base.recipe.frame), seed=1).fit()


def test_a_loss_that_is_no_number_stops_with_advice() -> None:
    base = trainer(tiny("gpt2"))
    bad = Term("bad", 1.0, lambda v: v.prompt.vectors.sum() * float("nan"))
    with pytest.raises(RunError, match="--set lr=0.033"):
        Trainer(base.problem, replace(base.recipe, terms=(bad,)), seed=1).fit()


@pytest.mark.parametrize("optimizer", ["adamw", "adafactor"])
def test_both_optimisers_lower_the_loss(optimizer: str) -> None:
    t = trainer(tiny("bert"), optimizer=optimizer, epochs=8, lr=0.1)
    out = t.fit()
    assert min(h["loss"] for h in out.history[1:]) < out.history[0]["loss"]


def test_seeds_are_the_same_everywhere() -> None:
    assert seed_of("epoch", 3) == 23395658981849823
    assert seed_of("a", 1) != seed_of("a", 2) != seed_of("b", 2)


def test_options_are_checked() -> None:
    with pytest.raises(ConfigError, match="batch 8 cannot be divided"):
        Training(batch=8, accumulate=3)
    with pytest.raises(ConfigError, match="no option 'epoch'.*Did you mean 'epochs'"):
        Training().changed({"epoch": 3})
    with pytest.raises(ConfigError, match="lr is 0"):
        Training(lr=0)


def test_a_run_of_another_plan_is_not_overwritten(tmp_path: Path) -> None:
    model = tiny("gpt2")
    quick = {"epochs": 1, "length": 2}
    ana.fit("prompt-tuning", model, task(), folder=tmp_path / "r", options=quick)
    again = ana.fit("prompt-tuning", model, task(), folder=tmp_path / "r", options=quick)  # read, not learned anew
    assert again.score is not None and again.score.predictions is not None
    with pytest.raises(RunError, match="its seed is 0, now it is 1"):
        ana.fit("prompt-tuning", model, task(), folder=tmp_path / "r", options=quick, seed=1)


PROGRAM = """
import sys, json, torch
torch.set_num_threads(1)
sys.path.insert(0, sys.argv[2])
from tests.test_trainer import task, tiny
import anacrusis as ana
run = ana.fit("prompt-tuning", tiny("gpt2"), task(), folder=sys.argv[1],
              options={"epochs": 2, "batch": 8, "length": 4, "patience": 0})
import os
if os.environ.get("RANK", "0") == "0":
    print("RESULT", json.dumps(run.prompt.vectors.flatten().tolist()))
"""


def test_two_processes_equal_one(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    root = str(Path(__file__).parents[1])
    found = []
    for n, head in ((1, [sys.executable]), (2, [sys.executable, "-m", "accelerate.commands.launch", "--cpu",
                    "--num_processes", "2", "--num_machines", "1", "--mixed_precision", "no",
                    "--dynamo_backend", "no"])):  # fmt: skip
        command = [*head, str(tmp_path / "program.py"), str(tmp_path / f"run{n}"), root]
        env = {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
        out = subprocess.run(command, capture_output=True, text=True, timeout=180, env=env)
        lines = [x for x in out.stdout.splitlines() if x.startswith("RESULT")]
        assert len(lines) == 1, out.stderr[-2000:]
        found.append(torch.tensor(json.loads(lines[0][7:])))
    assert torch.allclose(found[0], found[1], atol=1e-4)
    assert not list((tmp_path / "run2").glob("checkpoint*"))
