"""DePT: what makes it DePT (methods/dept.py)."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import anacrusis as ana
from anacrusis.errors import ConfigError
from anacrusis.measure.predict import scores
from anacrusis.methods.dept import Decomposed, DePTConfig, longest
from anacrusis.model.frames import default_frame
from anacrusis.model.model import Model
from anacrusis.model.readout import reader, score_all
from anacrusis.model.rows import collate
from anacrusis.prompt.values import Frame, Soft
from anacrusis.registry import get
from anacrusis.task import Task
from anacrusis.testing import tiny
from anacrusis.tune.recipe import Problem, Training
from anacrusis.tune.trainer import Trainer

TEXTS = [" ".join(f"w{(4 * i + j) % 90}" for j in range(2 + i % 5)) for i in range(20)]  # of 2 to 6 words
LABELS = ["w20", "w21"] * 10


def problem(model: Model, seed: int = 3, **frame: str) -> Problem:
    parts = [(TEXTS[a:b], LABELS[a:b]) for a, b in ((0, 12), (12, 16), (16, 20))]
    task = Task.from_lists(*parts[0], valid=parts[1], test=parts[2])
    return Problem(model, task, default_frame(model, task, **frame), torch.Generator().manual_seed(seed),
                   Training(lr=0.3, steps=4, batch=4))  # fmt: skip


def maker_of(p: Problem, **options: object) -> Decomposed:
    maker = get("dept").build(DePTConfig(**options), p).maker  # type: ignore[arg-type]
    assert isinstance(maker, Decomposed)
    return maker


def moved(maker: Decomposed) -> Decomposed:
    with torch.no_grad():
        maker.B.normal_(generator=torch.Generator().manual_seed(1))
    return maker


@pytest.mark.parametrize("family", ["minilm", "gpt2", "bert", "t5"])
def test_at_the_start_it_is_prompt_tuning(family: str) -> None:
    model = tiny(family)
    p = problem(model, readout="similarity" if family == "minilm" else "label-words")
    soft = maker_of(p, length=5)().detached()
    config = get("prompt-tuning").configure({"length": 5})
    plain = get("prompt-tuning").build(config, problem(model)).maker(None).detached()
    assert isinstance(soft, Soft) and torch.equal(soft.vectors, plain.vectors)
    read = reader(model, p.frame)
    rows = read.rows([(t,) for t in TEXTS[:4]], soft)
    assert torch.equal(score_all(read, rows, soft), score_all(read, rows, plain))


def test_offsets_by_hand() -> None:
    """x = [p ; E + s c A B]: s = 3 / sqrt(4), c = 2, row 1 of A B is (1, -1) . B."""
    maker = Decomposed(torch.zeros(1, 3), 2, DePTConfig(rank=4, alpha=3.0), 2.0, torch.Generator())
    A = torch.tensor([[1.0, 0.0, 0.0, 0.0], [1.0, -1.0, 0.0, 0.0]])
    B = torch.tensor([[1.0, 2.0, 3.0], [0.5, 0.0, -1.0], [9.0, 9.0, 9.0], [9.0, 9.0, 9.0]])
    with torch.no_grad():
        maker.A.copy_(A)
        maker.B.copy_(B)
    offset = maker().offset
    assert offset is not None
    assert torch.allclose(offset, torch.tensor([[3.0, 6.0, 9.0], [1.5, 6.0, 12.0]]))


@pytest.mark.parametrize("place", ["front", "after-bos", "back"])
def test_offsets_go_to_the_callers_tokens_by_their_own_position(place: str) -> None:
    """Two positions: the first two tokens of the text (special ones included) move, the third and the prompt do not."""
    model = tiny("bert")
    offset = torch.randn(2, model.hidden, generator=torch.Generator().manual_seed(0))
    prompt = Soft(vectors=torch.ones(3, model.hidden), offset=offset, frame=Frame(place=place))
    batch = collate(list(model.renderer(prompt.frame, prompt).rows([("w1 w2",)])))
    x = model.inputs(batch, model.place(prompt, batch))
    bare = model.embed(batch.codes)
    own = batch.codes[0] >= 0
    expected = bare[0, own].clone()
    expected[:2] += offset
    assert torch.equal(x[0, own], expected)
    assert torch.equal(x[0, ~own], prompt.vectors)


@pytest.mark.parametrize("family", ["minilm", "gpt2", "llama", "t5"])
def test_padding_side_and_batch_change_nothing(family: str) -> None:
    model = tiny(family)
    soft = moved(maker_of(problem(model), length=3))().detached()
    rows = list(model.renderer(Frame(), soft).rows([(t,) for t in TEXTS[:4]]))
    states = []
    for side in ("left", "right"):
        batch = collate(rows, side)
        with torch.no_grad(), model.frozen():
            states.append(model.run(batch, model.place(soft, batch))[batch.mask])
    alone = []
    for row in rows:
        batch = collate([row])
        with torch.no_grad(), model.frozen():
            alone.append(model.run(batch, model.place(soft, batch))[0])
    assert torch.allclose(states[0], states[1], atol=1e-5)
    assert torch.allclose(states[0], torch.cat(alone), atol=1e-5)


def test_number_of_parameters_and_two_learning_rates() -> None:
    model = tiny("minilm")
    p = problem(model)
    recipe = get("dept").build(DePTConfig(length=4, rank=3, positions=5, offset_rate=0.01), p)
    trainer = Trainer(p, recipe, seed=0)
    outcome = trainer.fit()
    H = model.hidden
    head = trainer.head
    assert head is not None
    assert outcome.parameters - sum(t.numel() for t in head.parameters()) == 4 * H + 5 * 3 + 3 * H
    prompt, offset = trainer.optimizer.param_groups[:2]
    assert [len(g["params"]) for g in (prompt, offset)] == [1, 2]
    assert prompt["base"] == pytest.approx(0.3 * model.scale)
    assert offset["base"] == pytest.approx(0.3 * 0.01)


def test_defaults_cost_as_much_as_twenty_free_vectors() -> None:
    c, H, M = DePTConfig(), 768, 256
    assert c.length * H + c.rank * (M + H) == 20 * H


def test_positions_that_no_training_text_reaches_are_left_alone() -> None:
    model = tiny("minilm")
    p = problem(model)
    assert longest(p) == 8  # six words between two special tokens
    soft = maker_of(p)().detached()
    assert isinstance(soft, Soft) and soft.offset is not None and soft.offset.shape == (8, model.hidden)


def test_learns_both_parts_and_folds_to_plain_tensors(tmp_path: Path) -> None:
    model = tiny("minilm")
    p = problem(model)
    run = ana.fit("dept", model, p.task, folder=tmp_path, options={"epochs": 3, "length": 3, "rank": 2})
    assert isinstance(run.prompt, Soft) and run.prompt.offset is not None
    assert run.prompt.offset.abs().sum() > 0
    loaded = ana.load(tmp_path / "prompt")
    inputs = [(t,) for t in TEXTS[:4]]
    assert torch.equal(scores(run.prompt, inputs, model), scores(loaded, inputs, model))


def test_weights_come_from_the_generator() -> None:
    model = tiny("minilm")
    a, b, c = (maker_of(problem(model, seed)) for seed in (3, 3, 4))
    assert torch.equal(a.A, b.A) and not torch.equal(a.A, c.A)
    bound = DePTConfig().rank ** -0.5
    assert a.A.abs().max() <= bound and a.A.abs().max() > 0.8 * bound and not a.B.any()


@pytest.mark.parametrize(
    "option", [{"length": 0}, {"rank": 0}, {"positions": 0}, {"alpha": 0.0}, {"offset_rate": -1.0}]
)
def test_wrong_options(option: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=next(iter(option))):
        get("dept").configure(option)
