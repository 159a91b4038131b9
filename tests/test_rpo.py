"""RPO: rows that only read. Each pair of rows judges alone, and the scores are the mean of their judgements."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from anacrusis.errors import ConfigError
from anacrusis.measure.predict import scores
from anacrusis.methods.rpo import RPOConfig, build
from anacrusis.model.frames import default_frame
from anacrusis.model.readout import reader
from anacrusis.model.sight import Sight
from anacrusis.prompt.values import Paired, Tokens
from anacrusis.task import Task
from anacrusis.testing import planted_sight, sight
from anacrusis.tune.recipe import Problem, Training
from anacrusis.tune.trainer import Trainer


@pytest.fixture(scope="module")
def known() -> tuple[Sight, Task]:
    model = sight("clip")
    return model, planted_sight(model, examples=24)[0]


def learned(known: tuple[Sight, Task], rows: int, **options: str) -> tuple[Paired, Tokens, Tokens]:
    training = Training(epochs=1, batch=8).changed(options)
    given = Problem(*known, default_frame(*known), torch.Generator().manual_seed(0), training)
    prompt = Trainer(given, build(RPOConfig(rows=rows), given), seed=1).fit().prompt
    assert isinstance(prompt, Paired) and isinstance(prompt.text, Tokens) and isinstance(prompt.image, Tokens)
    return prompt, prompt.text, prompt.image


def only(side: Tokens, *rows: int) -> Tokens:
    return replace(side, layers={0: side.layers[0][list(rows)]})


def test_scores_are_the_mean_of_rows_that_judge_alone(known: tuple[Sight, Task]) -> None:
    prompt, text, image = learned(known, 3, epochs="3", lr="0.3")
    inputs = [e.inputs for e in known[1].valid]
    together = scores(prompt, inputs, known[0])
    alone = [scores(replace(prompt, text=only(text, j), image=only(image, j)), inputs, known[0]) for j in range(3)]
    assert torch.allclose(together, torch.stack(alone).mean(0), atol=1e-4)
    assert not torch.allclose(alone[0], alone[1], atol=1e-2)
    # row j of one tower belongs to row j of the other
    crossed = scores(replace(prompt, text=only(text, 1, 2, 0)), inputs, known[0])
    assert not torch.allclose(together, crossed, atol=1e-2)


def test_a_row_changes_nothing_but_itself(known: tuple[Sight, Task]) -> None:
    _, text, image = learned(known, 3)
    model, frame = known[0], default_frame(*known)
    with torch.no_grad(), model.frozen():
        read = reader(model, frame)
        batch = read.batch(read.rows([e.inputs for e in known[1].valid], None))
        for side, see in ((text, lambda p: model.texts(frame, p)), (image, lambda p: model.look(batch, p))):
            other = side.layers[0].clone()
            other[1] = torch.randn(32, generator=torch.Generator().manual_seed(5))
            before, after = see(side), see(replace(side, layers={0: other}))
            assert before.shape[1:] == (3, 24)
            assert torch.allclose(before[:, [0, 2]], after[:, [0, 2]], atol=1e-6)
            assert not torch.allclose(before[:, 1], after[:, 1], atol=1e-2)


def test_rows_start_at_the_special_tokens(known: tuple[Sight, Task]) -> None:
    given = Problem(*known, default_frame(*known), torch.Generator().manual_seed(0))
    prompt = build(RPOConfig(rows=400), given).maker.fold()
    assert isinstance(prompt, Paired) and isinstance(prompt.text, Tokens) and isinstance(prompt.image, Tokens)
    assert prompt.text.read_only and prompt.image.read_only
    core = known[0].network
    end = core.text_model.embeddings.token_embedding.weight[known[0].tokenizer.eos_token_id].detach()
    seen = core.vision_model.embeddings
    first = (seen.class_embedding + seen.position_embedding.weight[0]).detach()
    for rows, start in ((prompt.text.layers[0], end), (prompt.image.layers[0], first)):
        unit = float(start.square().mean().sqrt())
        assert float((rows - start).std()) == pytest.approx(0.1 * unit, rel=0.05)
        assert torch.allclose(rows.mean(0), start, atol=0.05 * unit)


def test_equal_rows_are_refused() -> None:
    with pytest.raises(ConfigError, match="equal rows would stay equal"):
        RPOConfig(noise=0)
    with pytest.raises(ConfigError, match="rows must be at least 1, got 0"):
        RPOConfig(rows=0)
    assert RPOConfig(rows=1, noise=0).rows == 1
