"""How answers are read: by hand on small cases, and learned under every readout."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

import anacrusis as ana
from anacrusis.errors import ConfigError, ModelError
from anacrusis.model.model import Placed
from anacrusis.model.readout import reader
from anacrusis.model.rows import collate
from anacrusis.prompt.values import Frame, Head, Soft
from anacrusis.task import Task
from anacrusis.testing import WORDS, tiny

TEXTS = [("w1 w2 w3",), ("w4 w5",)]
FRAME = {"labels": ("a", "b", "c"), "words": ("w1", "w2", "w3")}


def states_of(model, prompt, frame):  # type: ignore[no-untyped-def]
    batch = collate(list(model.renderer(frame, prompt).rows(TEXTS)))
    with torch.no_grad(), model.frozen():
        return batch, model.run(batch, model.place(prompt, batch))


@pytest.mark.parametrize("pool", ["mean", "cls", "last"])
@pytest.mark.parametrize("family", ["minilm", "gpt2", "t5"])
def test_heads_pool_the_callers_tokens_only(family: str, pool: str) -> None:
    model = tiny(family)
    frame = Frame(**FRAME, readout="head", pool=pool, place="front")
    head = Head(torch.randn(3, 32, generator=torch.Generator().manual_seed(0)), torch.tensor([0.1, 0.2, 0.3]))
    prompt = Soft(vectors=torch.randn(2, 32, generator=torch.Generator().manual_seed(1)), frame=frame, head=head)
    batch, states = states_of(model, prompt, frame)
    expected = []
    for b in range(2):
        own = states[b][batch.mask[b]][2:]  # without the two vectors in front
        expected.append({"mean": own.mean(0), "cls": own[0], "last": own[-1]}[pool])
    z = torch.stack(expected) @ head.weight.T + head.bias
    with torch.no_grad(), model.frozen():
        assert torch.allclose(reader(model, frame).scores(batch, model.place(prompt, batch), head), z, atol=1e-5)


def test_similarity_is_the_cosine_to_the_label_texts() -> None:
    model = tiny("minilm")
    frame = Frame(**FRAME, readout="similarity")
    batch, states = states_of(model, None, frame)
    text = torch.stack([s[m].mean(0) for s, m in zip(states, batch.mask, strict=True)])
    labels = []
    for word in FRAME["words"]:
        one = collate(list(model.renderer(Frame()).rows([(word,)])))
        with torch.no_grad():
            labels.append(model.run(one)[0].mean(0))
    cosine = F.cosine_similarity(text[:, None], torch.stack(labels)[None], dim=-1)
    with torch.no_grad():
        assert torch.allclose(reader(model, frame).scores(batch, Placed(), None), 20 * cosine, atol=1e-4)


@pytest.mark.parametrize("family", ["gpt2", "t5"])
def test_label_words_and_the_language_model_loss_are_different_objectives(family: str) -> None:
    """Same answers, different losses: one softmax over C words, one over V."""
    model, golds = tiny(family), torch.tensor([0, 2])
    losses = {}
    for readout in ("label-words", "lm"):
        frame = Frame(**FRAME, readout=readout)
        read = reader(model, frame)
        batch = collate(read.rows(TEXTS, None, [0, 2]))
        with torch.no_grad(), model.frozen():
            losses[readout], _, _ = read.loss(batch, Placed(), None, golds)
            z = model.logits(model.run(batch, read=True)[:, 0])
            plain = collate(read.rows(TEXTS, None))
            scores = read.scores(plain, Placed(), None)
    ids = torch.tensor([model.renderer(Frame()).answer_ids(w)[0] for w in FRAME["words"]])
    assert torch.allclose(losses["lm"], F.cross_entropy(z, ids[golds], reduction="none"), atol=1e-5)
    assert torch.allclose(losses["label-words"], F.cross_entropy(z[:, ids], golds, reduction="none"), atol=1e-5)
    assert torch.allclose(scores, z[:, ids], atol=1e-5)
    assert (losses["lm"] > losses["label-words"] + 0.1).all()


def test_words_that_begin_alike_are_refused() -> None:
    frame = Frame(labels=("a", "b"), words=("w1 w2", "w1 w3"))
    with pytest.raises(ConfigError, match="'w1 w2' and 'w1 w3' begin with the same token.*readout=head"):
        reader(tiny("gpt2"), frame).ids  # type: ignore[attr-defined]  # noqa: B018


def test_readouts_that_a_model_lacks_are_refused() -> None:
    with pytest.raises(ModelError, match="needs a model with 'logprobs'.*Readouts that fit it: head, similarity"):
        reader(tiny("minilm"), Frame(readout="label-words"))


@pytest.mark.parametrize(
    ("family", "readout"),
    [("minilm", "similarity"), ("minilm", "head"), ("bert", "lm"), ("bert", "label-words"), ("gpt2", "lm"),
     ("gpt2", "similarity"), ("t5", "lm"), ("t5", "head"), ("bart", "label-words")],
)  # fmt: skip
def test_every_readout_learns(family: str, readout: str, tmp_path: Path) -> None:
    """The class is the first word: the loss on validation must fall."""
    g = torch.Generator().manual_seed(0)
    texts, labels = [], []
    for i in range(160):
        words = torch.randint(10, 90, (3,), generator=g).tolist()
        texts.append(" ".join([WORDS[1 + i % 3], *(WORDS[w] for w in words)]))
        labels.append("abc"[i % 3])
    task = Task.from_lists(texts, labels, words=dict(zip("abc", FRAME["words"], strict=True)))
    model = tiny(family)
    template = "{text} {mask}" if model.arrangement == "masked" else "{text}"
    options = {"readout": readout, "template": template, "epochs": 6, "head_init": "zeros", "head_lr": 0.1, "lr": 0.1,
               "patience": 0}  # fmt: skip
    seen: list[float] = []
    ana.fit("prompt-tuning", model, task, folder=tmp_path / "r", options=options,
            observe=lambda e: seen.append(e["loss"]) if e["event"] == "validate" else None)  # fmt: skip
    assert min(seen) < 0.9 * seen[0]


def test_several_labels(tmp_path: Path) -> None:
    """Each of two words decides one label; scores are logits, and mean average precision judges their order."""
    g = torch.Generator().manual_seed(0)
    texts, labels = [], []
    for _ in range(200):
        words = [WORDS[w] for w in torch.randint(10, 90, (3,), generator=g).tolist()]
        has = [bool(torch.rand(1, generator=g) < 0.5) for _ in range(2)]
        texts.append(" ".join([*("w1" for h in has[:1] if h), *("w2" for h in has[1:] if h), *words]))
        labels.append([n for n, h in zip(("one", "two"), has, strict=True) if h])
    task = Task.from_lists(texts, labels)
    assert task.kind == "multilabel" and task.metric == "map"
    run = ana.fit("ptec", tiny("minilm"), task, folder=tmp_path / "r", options={"epochs": 10})
    assert run.score is not None and run.score.value > 0.9
    assert set(run.prompt.predict(["w1 w2 w50"], tiny("minilm"))[0]) <= {"one", "two"}
