"""P-tuning v2: a free table for every attention and nothing else."""

from __future__ import annotations

import pytest
import torch

from anacrusis.errors import ConfigError
from anacrusis.methods.p_tuning_v2 import PTuningV2Config, build
from anacrusis.model.frames import default_frame
from anacrusis.prompt.values import Prefix
from anacrusis.task import Task
from anacrusis.testing import tiny
from anacrusis.tune.makers import Free, PrefixMaker
from anacrusis.tune.recipe import Problem, Recipe

TASK = Task.from_lists([f"w{i} w{i + 1}" for i in range(20)], ["a", "b"] * 10, words={"a": "w5", "b": "w6"})


def recipe(family: str, **options: object) -> Recipe:
    model = tiny(family)
    problem = Problem(model, TASK, default_frame(model, TASK), torch.Generator().manual_seed(3))
    return build(PTuningV2Config(**options), problem)  # type: ignore[arg-type]


@pytest.mark.parametrize("family", ["gpt2", "llama", "bert", "minilm", "t5"])
def test_the_number_of_parameters_and_no_network(family: str) -> None:
    """P * sum over attentions of 2 * heads * d, with key-value heads (llama has half as many)."""
    r = recipe(family, length=7)
    model = tiny(family)
    heads = 2 if family == "llama" else 4
    sites = {"t5": 2 * 3}.get(family, 2)
    if family == "minilm":
        assert r.frame.readout == "head"
    assert sum(p.numel() for p in r.maker.parameters()) == 7 * sites * 2 * heads * (model.hidden // 4)
    assert isinstance(r.maker, PrefixMaker) and isinstance(r.maker.encoder, Free)
    assert [g.role for g in r.maker.groups()] == ["prompt"]


def test_a_random_start_is_small_and_a_text_start_is_the_models_own() -> None:
    random, text = recipe("bert").maker.fold(), recipe("bert", init="text", source="w1 w2").maker.fold()
    assert isinstance(random, Prefix) and isinstance(text, Prefix)
    assert float(random.keys["encoder"][0].std()) == pytest.approx(0.02, rel=0.1)
    assert float(text.keys["encoder"][0].std()) > 0.1


def test_wrong_options_are_refused() -> None:
    with pytest.raises(ConfigError, match="length"):
        PTuningV2Config(length=0)
    with pytest.raises(ConfigError, match="init"):
        PTuningV2Config(init="vocab")  # type: ignore[arg-type]
