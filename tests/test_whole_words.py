"""Whole label words: their scores are the model's own log-probabilities, under every kind of prompt."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional as F

import anacrusis as ana
from anacrusis.errors import ConfigError
from anacrusis.measure.predict import scores
from anacrusis.model.readout import reader
from anacrusis.model.rows import collate
from anacrusis.prompt.values import Frame, Prefix, Prompt, Soft, Text
from anacrusis.search.local import Local
from anacrusis.task import Task
from anacrusis.testing import tiny

WORDS = ("w1 w2 w3", "w1 w2", "w7")
INPUTS = [("w10",), ("w11 w12 w13 w14",), ("w15 w16",)]


def frame(**entries: Any) -> Frame:
    base = Frame(labels=("a", "b", "c"), words=WORDS, template="{text} Answer :", readout="words")
    return replace(base, **entries)


def prompts(model: Any) -> list[Prompt]:
    g = torch.Generator().manual_seed(1)
    soft = torch.randn(3, model.hidden, generator=g)
    found: list[Prompt] = [Text(frame=frame()), Soft(frame=frame(), vectors=soft)]
    stack = "encoder" if model.two_stacks else "decoder"
    sites = [s for s in model.sites if s.stack == stack]
    kv = {stack: tuple(torch.randn(s.heads, 2, s.dim, generator=g) for s in sites)}
    return [*found, Prefix(frame=frame(), keys=kv, values=kv, shift=0 if model.two_stacks else 2)]


@pytest.mark.parametrize("family", ["gpt2", "llama", "t5", "bart"])
def test_scores_are_the_sums_of_the_model_s_log_probabilities(family: str) -> None:
    model = tiny(family)
    for prompt in prompts(model):
        together = scores(prompt, INPUTS, model)
        for b, x in enumerate(INPUTS):
            for c, word in enumerate(WORDS):
                [row] = model.renderer(prompt.frame, prompt).rows([x], [word])
                batch = collate([row])
                with torch.no_grad():
                    states = model.run(batch, model.place(prompt, batch), read=True)[0]
                    z = model.logits(states).float().log_softmax(-1)
                expected = z.gather(1, torch.tensor(row.targets)[:, None]).sum()
                assert float(together[b, c]) == pytest.approx(float(expected), abs=1e-3)


def test_one_token_words_give_the_differences_of_label_words() -> None:
    model = tiny("gpt2")
    one = frame(words=("w1", "w2", "w7"))
    whole = scores(Text(frame=one), INPUTS, model)
    first = scores(Text(frame=replace(one, readout="label-words")), INPUTS, model)
    assert torch.allclose(whole - whole[:, :1], first - first[:, :1], atol=1e-4)
    assert (whole < 0).all()


def test_a_shared_beginning_changes_nothing() -> None:
    model = tiny("llama")
    prompt = Text(frame=frame(instruction=" ".join(f"w{i}" for i in range(20, 34))))
    local = Local(model)
    assert torch.allclose(local.scores(prompt, INPUTS), scores(prompt, INPUTS, model), atol=1e-4)
    assert local.trunk is not None and local.trunk.computed > 10


def test_its_loss_teaches_a_soft_prompt() -> None:
    model = tiny("gpt2")
    vectors = torch.zeros(2, model.hidden, requires_grad=True)
    prompt = Soft(frame=frame(), vectors=vectors)
    read = reader(model, prompt.frame)
    batch = collate(read.rows(INPUTS, prompt))
    loss, z, _ = read.loss(batch, model.place(prompt, batch), None, torch.tensor([0, 1, 2]))
    assert torch.allclose(loss, F.cross_entropy(z, torch.tensor([0, 1, 2]), reduction="none"))
    loss.sum().backward()
    assert vectors.grad is not None and float(vectors.grad.abs().sum()) > 0


def test_a_long_text_leaves_room_for_the_word() -> None:
    model = tiny("gpt2")
    long = " ".join(["w9"] * 200)
    assert torch.isfinite(scores(Text(frame=frame()), [(long,)], model)).all()


def test_what_cannot_be_told_apart_is_refused() -> None:
    with pytest.raises(ConfigError, match="no tokens of its own"):
        scores(Text(frame=frame(words=("w1", "w1 ", "w2"))), INPUTS, tiny("gpt2"))
    with pytest.raises(ConfigError, match="tiny:bert:0 is masked: readout=label-words"):
        scores(Text(frame=frame(template="{text} {mask}")), INPUTS, tiny("bert"))


def test_a_search_uses_whole_words_where_they_begin_alike(tmp_path: Path) -> None:
    model = tiny("gpt2")
    texts = [f"w{i} w{i + 1}" for i in range(40)]
    words = {"good": "w1 w2", "bad": "w1 w3"}
    task = Task.from_lists(texts, ["good", "bad"] * 20, words=words, name="alike")
    run = ana.fit("plum-hill-climbing", model, task, folder=tmp_path / "r",
                  options={"iterations": 3, "vocabulary": "w4,w5,w6"})  # fmt: skip
    assert run.prompt.frame.readout == "words" and run.score is not None
    assert ana.evaluate(run.prompt, model, task).predictions.tolist() == run.score.predictions.tolist()
