"""Reading prompts: planted words are read back, a vector that matters is missed, attention adds up by hand."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from anacrusis.errors import ConfigError, PromptError
from anacrusis.measure.intervals import Interval
from anacrusis.measure.predict import scores
from anacrusis.model.rows import collate
from anacrusis.prompt.values import Conditioned, Constant, Frame, Prefix, Soft, Text
from anacrusis.report.reading import (
    Near,
    Reading,
    Without,
    _mean,
    _one_less,
    attention_to,
    discretised,
    faithful,
    nearest_words,
    read_prompt,
    similarity,
    without_each,
)
from anacrusis.task import Example, Task
from anacrusis.testing import WORDS, sight, tiny

LABELS = ("a", "b")
FRAME = Frame(labels=LABELS, words=("w1", "w2"), template="{text} Answer :")
TEXTS = [f"w{i} w{(7 * i) % 90} w{(i * i) % 90}" for i in range(40)]


def vectors_of(model: Any, words: list[str]) -> torch.Tensor:
    """The words' own vectors."""
    ids = model.tokenizer(" ".join(words), add_special_tokens=False)["input_ids"]
    with torch.no_grad():
        return model.embed(torch.tensor(ids)[None])[0].float().clone()


def task_of(prompt: Any, model: Any, texts: Any = TEXTS) -> Task:
    """Labels are what the prompt itself answers to the texts on which it is surest of each class."""
    margins = scores(prompt, [(t,) for t in texts], model).diff(dim=1)[:, 0]
    middle = float(margins.median())
    examples = tuple(Example((t,), int(m > 0), f"row {i}") for i, (t, m) in enumerate(zip(texts, margins, strict=True)))
    assert abs(middle) < 100
    return Task("made", "classification", ("text",), LABELS, ("w1", "w2"), (), (), examples)


def balanced(model: Any, prompt: Soft, texts: Any = TEXTS) -> tuple[Soft, Task]:
    """The prompt with the label words between which it is least one-sided, and a task that it solves."""
    every = replace(prompt, frame=replace(FRAME, labels=tuple(WORDS), words=tuple(WORDS)))
    z = scores(every, [(t,) for t in texts], model)
    first = z.argmax(1).mode().values
    share = (z > z[:, first, None]).float().mean(0)
    other = int((share - 0.5).abs().argmin())
    words = (WORDS[int(first)], WORDS[other])
    prompt = replace(prompt, frame=replace(FRAME, words=words))
    task = task_of(prompt, model, texts)
    return prompt, replace(task, words=words)


def same_as_before(model: Any) -> Any:
    return (
        {k: v.clone() for k, v in model.network.state_dict().items()},
        [m.training for m in model.network.modules()],
        [len(m._forward_hooks) for m in model.network.modules()],
        [m.config._attn_implementation_internal for m in model.network.modules() if hasattr(m, "config")],
        [p.requires_grad for p in model.network.parameters()],
    )


def assert_unchanged(before: Any, model: Any) -> None:
    after = same_as_before(model)
    assert all(torch.equal(before[0][k], after[0][k]) for k in before[0]) and before[1:] == after[1:]


@pytest.mark.parametrize("family", ["gpt2", "minilm", "gemma2"])  # gemma scales its words before they enter
def test_planted_words_are_read_back(family: str) -> None:
    model = tiny(family)
    words = ["w5", "w80", "w5", "w33"]
    exact = vectors_of(model, words)
    found = nearest_words(Soft(vectors=exact), model, 3)
    assert [n.by_distance[0] for n in found] == [(w, 0.0) for w in words]
    assert [n.by_cosine[0][0] for n in found] == words and found[0].by_cosine[0][1] == pytest.approx(1)
    assert all(n.nearer_than == n.closer_than == 1 and n.relative == 0 and len(n.by_distance) == 3 for n in found)
    noise = 0.01 * torch.randn(exact.shape, generator=torch.Generator().manual_seed(0)) * exact.std()
    near = discretised(Soft(vectors=exact + noise, frame=FRAME), model)
    assert torch.equal(near.vectors, exact) and near.frame == FRAME


def test_distances_by_hand_and_beside_what_is_usual() -> None:
    model = tiny("gpt2")
    table = model.embeddings.float()
    p = 3 * table[20] + 0.1
    (found,) = nearest_words(Soft(vectors=p[None]), model, 4)
    by_hand = (table - p).norm(dim=1)
    assert [d for _, d in found.by_distance] == pytest.approx(by_hand.sort().values[:4].tolist(), rel=1e-4)
    assert found.by_cosine[0] == (WORDS[20 - 9], pytest.approx(float(F.cosine_similarity(p, table[20], dim=0))))
    assert found.nearer_than < 0.05 and found.closer_than == 1  # the same direction, but far out
    apart = torch.cdist(table, table) + 1e9 * torch.eye(len(table))
    assert found.relative == pytest.approx(float(by_hand.min() / apart.min(1).values.median()), rel=1e-3)
    random = nearest_words(
        Soft(vectors=table.std() * torch.randn(30, 32, generator=torch.Generator().manual_seed(0))), model
    )
    assert 0.9 < np.mean([n.relative for n in random]) < 1.1  # a random vector is as far from words as they are


def test_words_that_stand_in_the_prompt_are_faithful_and_others_are_not() -> None:
    model = tiny("gpt2")
    prompt, task = balanced(model, Soft(vectors=vectors_of(model, ["w5", "w80", "w33"]), frame=FRAME))
    found = faithful(prompt, model, task)
    assert found.prompt.value == found.words.value == 1 and found.lost.value == 0
    assert found.gained == found.said and found.trusted
    drawn = np.random.default_rng(0).integers(len(model.tokenizer), size=3)
    random = replace(prompt, vectors=model.embeddings[torch.from_numpy(drawn)].float())
    right = scores(random, [e.inputs for e in task.test], model).argmax(1).numpy() == [e.gold for e in task.test]
    assert found.random.value == pytest.approx(right.mean()) and found.meant.value == pytest.approx(1 - right.mean())
    # as the same text, in front
    said = Text(frame=replace(prompt.frame, template="w5 w80 w33 {text} Answer :"))
    inputs = [e.inputs for e in task.test]
    assert torch.allclose(scores(said, inputs, model), scores(discretised(prompt, model), inputs, model), atol=1e-4)
    bare = scores(Text(frame=prompt.frame), [e.inputs for e in task.test], model).argmax(1).numpy()
    assert found.none.value == pytest.approx(np.mean(bare == [e.gold for e in task.test]))
    assert found.gained.value == pytest.approx(1 - found.none.value)
    far = torch.randn(4, 32, generator=torch.Generator().manual_seed(3))
    prompt, task = balanced(model, Soft(vectors=far, frame=FRAME))
    found = faithful(prompt, model, task)
    assert found.prompt.value == 1 and found.lost.low > 0 and found.gained.low > 0
    assert not found.trusted and found.words.value < 0.9


def test_the_vector_that_matters_is_missed() -> None:
    """Vectors of 0 in the middle of four; one is large. Without it answers and log p fall; without others less."""
    model = tiny("gpt2")
    vectors = torch.zeros(4, 32)
    vectors[2] = 2 * torch.randn(32, generator=torch.Generator().manual_seed(0))
    prompt, task = balanced(model, Soft(vectors=vectors, frame=FRAME))
    before = same_as_before(model)
    found = without_each(prompt, model, task)
    assert found[0].vector == 2 and sorted(w.vector for w in found) == [0, 1, 2, 3]
    assert found[0].score.high < 0 and found[0].log_p is not None and found[0].log_p.high < 0
    assert [w.log_p.value for w in found] == sorted(w.log_p.value for w in found)  # type: ignore[union-attr]
    assert {w.score.level for w in found} | {w.log_p.level for w in found} == {1 - 0.05 / 4}  # type: ignore[union-attr]
    assert found[0].score.value < min(w.score.value for w in found[1:])
    golds = torch.tensor([e.gold for e in task.test])
    inputs = [e.inputs for e in task.test]
    less = replace(prompt, vectors=vectors[[0, 1, 3]])
    a, b = (-F.cross_entropy(scores(p, inputs, model), golds) for p in (less, prompt))
    assert found[0].log_p.value == pytest.approx(float(a - b), abs=1e-4)
    assert_unchanged(before, model)


def test_no_vector_is_missed_where_none_does_anything() -> None:
    """The one of 20 that is missed most, where taking one away changes each example by chance: below 0 in 1 of 40."""
    rng = np.random.default_rng(0)
    lowest = [
        min((_mean(rng.normal(size=80), 1 - 0.05 / 20) for _ in range(20)), key=lambda i: i.value) for _ in range(200)
    ]
    assert np.mean([i.high < 0 for i in lowest]) <= 0.05
    values = rng.normal(size=12)
    found = _mean(values, 0.95)
    by_hand = 2.200985 * values.std(ddof=1) / 12**0.5  # Student's quantile of 11 degrees of freedom
    assert (found.low, found.high) == pytest.approx((values.mean() - by_hand, values.mean() + by_hand))


def test_the_headline_says_whether_a_vector_is_missed() -> None:
    def without(vector: int, value: float, off: float) -> Without:
        return Without(vector, Interval(0.0, -0.1, 0.1, 40), Interval(value, value - off, value + off, 40))

    near = Near((("w1", 1.0),), (("w1", 1.0),), 0.5, 0.5, 1.0)
    some = Reading("soft", 2, (near, near), without=(without(1, -0.5, 0.2), without(0, -0.1, 0.2)))
    assert "vector 1 is missed most, of 1 that are missed: score +0.00 [-0.10, +0.10], log p -0.500" in some.headline
    none = replace(some, without=(without(1, -0.1, 0.2), without(0, 0.1, 0.2)))
    assert "no vector is missed more than chance makes, vector 1 most: score +0.00" in none.headline


def test_slots_give_way_to_one_vector_less() -> None:
    assert _one_less("{soft:2}{text}{soft:1} x", 0, 3) == "{soft:1}{text}{soft:1} x"
    assert _one_less("{soft:2}{text}{soft:1} x", 2, 3) == "{soft:2}{text} x"
    assert _one_less("{soft}{text}{soft:2}", 1, 4) == "{soft}{text}{soft:2}"
    assert _one_less("{soft}{text}{soft:2}", 2, 4) == "{soft}{text}{soft:1}"
    assert _one_less("{text}", 1, 4) == "{text}"
    model = tiny("bert")
    frame = replace(FRAME, template="{soft:2} {text} {soft:1} {mask}", place="slots")
    prompt = Soft(vectors=torch.randn(3, 32, generator=torch.Generator().manual_seed(0)), frame=frame)
    assert len(without_each(prompt, model, task_of(prompt, model, TEXTS[:6]))) == 3


def by_hand(model: Any, vectors: torch.Tensor, text: str) -> np.ndarray:
    """(heads,) what the words of a text pay to vectors in front of it in the first layer of a GPT-2."""
    ids = torch.tensor(model.tokenizer(text)["input_ids"])
    P, S = len(vectors), len(vectors) + len(ids)
    block = model.network.transformer.h[0]
    with torch.no_grad():
        x = torch.cat([vectors, model.embeddings[ids]]) + model.network.transformer.wpe.weight[:S]
        q, k, _ = block.attn.c_attn(block.ln_1(x)).split(32, dim=1)
        q, k = (t.view(S, 4, 8).transpose(0, 1) for t in (q, k))
        z = q @ k.transpose(1, 2) / 8**0.5
        a = z.masked_fill(~torch.ones(S, S, dtype=torch.bool).tril(), -torch.inf).softmax(-1)
    return a[:, P:, :P].sum(-1).double().numpy()


def test_attention_by_hand_on_one_layer() -> None:
    model = tiny("gpt2")
    vectors = torch.randn(3, 32, generator=torch.Generator().manual_seed(0))
    frame = replace(FRAME, template="{text}")
    texts = ["w5 w6 w7 w8", "w9", "w10 w11"]
    before = same_as_before(model)
    found = attention_to(Soft(vectors=vectors, frame=frame), model, texts, size=2)
    assert_unchanged(before, model)
    each = np.concatenate([by_hand(model, vectors, t) for t in texts], axis=1)  # (heads, 7 words)
    assert found.shares[0] == pytest.approx(each.mean(1), abs=1e-5) and len(found.shares) == 2
    evenly = [3 / (3 + t) for t in (1, 2, 3, 4, 1, 1, 2)]
    assert found.even == pytest.approx([np.mean(evenly)] * 2)
    assert found.mean == pytest.approx(np.mean(found.shares))
    behind = attention_to(Soft(vectors=vectors, frame=replace(frame, place="back")), model, texts)
    assert behind.mean == 0 and behind.even == (0, 0)  # nobody looks ahead


@pytest.mark.parametrize("family", ["minilm", "gpt2", "t5", "modernbert", "llama"])
def test_attention_of_every_family_and_of_prefixes(family: str) -> None:
    """The same for one text or many, whatever their order; a prefix of real keys gets what its text would."""
    model = tiny(family)
    frame = replace(FRAME, template="{text}", readout="similarity")
    prompt = Soft(vectors=vectors_of(model, ["w5", "w80"]), frame=frame)
    before = same_as_before(model)
    one = [attention_to(prompt, model, [t]) for t in ("w3 w4 w5", "w8 w9 w10")]
    both = attention_to(prompt, model, ["w8 w9 w10", "w3 w4 w5"])
    assert np.array(both.shares) == pytest.approx(np.mean([o.shares for o in one], axis=0), abs=1e-6)
    assert 0 < both.mean < 1 and 0 < both.even[0] < 1
    assert_unchanged(before, model)
    if family != "gpt2":
        return
    row = next(model.renderer(Frame(template="{text}")).rows([("w5 w80",)]))
    batch = collate([row])
    with torch.no_grad(), model.frozen():
        layers = model.keys_and_values(batch)["decoder"]
    keys, values = ({"decoder": tuple(pair[i][0] for pair in layers)} for i in (0, 1))
    prefix = Prefix(keys=keys, values=values, shift=2, frame=frame)
    found = attention_to(prefix, model, ["w8 w9 w10", "w3 w4 w5"])
    assert np.array(found.shares) == pytest.approx(np.array(both.shares), abs=1e-5) and found.even == both.even
    assert_unchanged(before, model)


def test_a_failure_leaves_the_network_as_it_was() -> None:
    model = tiny("gpt2")
    before = same_as_before(model)
    with pytest.raises(Exception, match="hidden size 32"):
        attention_to(Soft(vectors=torch.zeros(2, 16), frame=FRAME), model, ["w1"])
    assert_unchanged(before, model)


def test_similarity_by_hand() -> None:
    a = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    b = torch.tensor([[0.0, 2.0, 0.0], [1.0, 1.0, 0.0]])
    found = similarity([Soft(vectors=a), Soft(vectors=b, card={"task": "tickets"}), Soft(vectors=a.flip(0))])
    assert found.names == ("prompt 1", "tickets", "prompt 3")
    assert found.mean[0] == pytest.approx([1, (1 + 3) / 2**0.5 / 10**0.5, 1])
    assert found.matched[0] == pytest.approx([1, (1 + 0.5**0.5) / 2, 1])  # e1 to (1, 1), e2 to (0, 2)
    assert found.cka[0][0] == pytest.approx(1) == found.cka[0][2]
    x, y = ((v - v.mean(1, keepdim=True)).T for v in (a, b))
    norm = torch.linalg.norm
    assert found.cka[0][1] == pytest.approx(float(norm(y.T @ x) ** 2 / norm(x.T @ x) / norm(y.T @ y)), abs=1e-6)


def test_prompts_of_one_task_are_told_apart_in_the_headline() -> None:
    a, b = (
        Soft(vectors=torch.randn(3, 8, generator=torch.Generator().manual_seed(i)), card={"task": "data"})
        for i in (0, 1)
    )
    found = similarity([a, b, Soft(vectors=b.vectors, card={"task": "tickets"})])
    assert found.names == ("data 1", "data 2", "tickets")
    said = Reading("soft", 3, similarity=found).headline
    for i in (1, 2):
        mean, matched, cka = (square[0][i] for square in (found.mean, found.matched, found.cka))
        assert f"beside {found.names[i]}: cosine {mean:.2f}, of matched vectors {matched:.2f}, CKA {cka:.2f}" in said


def test_order_number_and_size_of_vectors_do_not_matter_to_similarity() -> None:
    g = torch.Generator().manual_seed(0)
    a, b = torch.randn(6, 32, generator=g), torch.randn(4, 32, generator=g)
    found = similarity([Soft(vectors=v) for v in (a, a[torch.randperm(6, generator=g)] * 3, b, b.flip(0))])
    for square in (found.mean, found.matched, found.cka):
        m = np.array(square)
        assert m == pytest.approx(m.T) and np.diag(m) == pytest.approx([1] * 4)
        assert m[0, 1] == pytest.approx(1, abs=1e-5) and m[2, 3] == pytest.approx(1, abs=1e-5)
        assert abs(m[0, 2]) < 0.9 and m[0, 2] == pytest.approx(m[1, 3], abs=1e-5)


def test_the_whole_reading() -> None:
    model = tiny("gpt2")
    prompt, task = balanced(model, Soft(vectors=vectors_of(model, ["w5", "w80"]), frame=FRAME))
    found = read_prompt(prompt, model, task, [prompt])
    assert found.headline.startswith("2 vectors; nearest words: w5 w80; learned 1.00 [")
    assert ("the words say" in found.headline) == found.faith.trusted  # type: ignore[union-attr]
    assert len(found.rows) == 2 and all(len(r) == len(found.heads) for r in found.rows)
    assert {r[1] for r in found.rows} == {"w5", "w80"} and found.similarity.mean == ((1.0, 1.0), (1.0, 1.0))  # type: ignore
    said = json.loads(json.dumps(found.to_json()))
    assert said["faith"]["words"]["value"] == 1 and said["headline"] == found.headline
    words = read_prompt(prompt, model)
    assert words.faith is None and words.attention is None and [r[1] for r in words.rows] == ["w5", "w80"]
    kv = {"decoder": tuple(torch.randn(4, 3, 8, generator=torch.Generator().manual_seed(i)) for i in range(2))}
    prefix = read_prompt(Prefix(keys=kv, values=kv, frame=prompt.frame), model, task)
    assert (prefix.length, prefix.words, prefix.faith, prefix.rows) == (
        3,
        (),
        None,
        (),
    ) and prefix.attention is not None


def test_what_cannot_be_read_is_refused() -> None:
    model = tiny("gpt2")
    soft = Soft(vectors=torch.zeros(2, 32), frame=FRAME)
    network = Conditioned(method="m", config={}, weights={}, tokens=2)
    for prompt in (Text(frame=FRAME), Constant(scores=torch.zeros(2)), network):
        with pytest.raises(ConfigError, match=f"kind {prompt.kind!r} has no vectors of its own.*prompt-tuning"):
            read_prompt(prompt, model)
    with pytest.raises(ConfigError, match="held in memory"):
        read_prompt(soft, sight("clip"))  # type: ignore[arg-type]
    with pytest.raises(PromptError, match="fingerprint"):
        read_prompt(soft.with_card(fingerprint="other"), model)
    with pytest.raises(ConfigError, match=r"one kind and model.*soft \(2, 32\), soft \(2, 16\)"):
        similarity([soft, Soft(vectors=torch.zeros(2, 16))])
    with pytest.raises(ConfigError, match="attention needs texts"):
        attention_to(soft, model, [])
