"""A local model under search: shared prefixes change nothing, vectors are kept, any continuation is scored."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

import anacrusis as ana
from anacrusis.measure.predict import scores
from anacrusis.model.calls import Call
from anacrusis.model.frames import default_frame
from anacrusis.model.rows import Row, collate
from anacrusis.model.shared import Trunk, common
from anacrusis.prompt.values import Frame, Text
from anacrusis.runs.searching import Means
from anacrusis.search.desk import LocalSpeaker
from anacrusis.search.local import Local
from anacrusis.testing import WORDS, planted, tiny
from tests.world import Direct, World

LONG = " ".join(WORDS[:14])


def text(instruction: str, **entries: object) -> Text:
    frame = Frame(labels=("a", "b"), words=(WORDS[1], WORDS[2]), template="{text} Answer :", instruction=instruction)
    return Text(frame=replace(frame, **entries))


@pytest.mark.parametrize("family", ["gpt2", "llama", "qwen2"])
def test_shared_beginnings_change_no_score(family: str) -> None:
    model = tiny(family)
    inputs = [(" ".join(WORDS[i : i + 3]),) for i in range(6)]
    local = Local(model)
    plain = 0
    for prompt in (text(LONG), text(LONG + " " + WORDS[20]), text(WORDS[30] + " " + LONG), text("")):
        alone = scores(prompt, inputs, model)
        assert torch.allclose(local.scores(prompt, inputs), alone, atol=1e-5)
        plain += sum(len(r.codes) for r in model.renderer(prompt.frame).rows(inputs))
    assert local.trunk is not None
    assert local.read + local.trunk.computed < 0.6 * plain  # and that was worth it


def test_a_neighbour_computes_only_what_differs() -> None:
    model = tiny("gpt2")
    trunk = Trunk(model)
    a, b = tuple(range(10, 30)), tuple(range(10, 26)) + (50, 51, 52)
    trunk.grow(a)
    assert trunk.computed == 20
    grown = trunk.grow(b)
    assert trunk.computed == 23  # 16 are shared
    fresh = Trunk(model).grow(b)
    for k, v in zip(grown.keys["decoder"], fresh.keys["decoder"], strict=True):
        assert torch.allclose(k, v, atol=1e-5)
    assert common([(1, 2, 3), (1, 2, 4, 5), (1, 2, 3, 9)]) == 2 and common([(1,), (2,)]) == 0


@pytest.mark.parametrize("family", ["mistral", "bert", "t5"])
def test_where_sharing_is_not_exact_it_is_not_done(family: str) -> None:
    assert Local(tiny(family)).trunk is None  # a sliding window, attention to both sides, an encoder


def test_texts_compared_by_features_are_read_once() -> None:
    model = tiny("minilm")
    prompt = Text(frame=Frame(labels=("a", "b"), words=("w1 w2", "w3"), readout="similarity"))
    inputs = [(f"w{i} w{i + 1}",) for i in range(5)]
    local = Local(model)
    found = local.scores(prompt, inputs)
    assert torch.allclose(found, scores(prompt, inputs, model), atol=1e-5)
    read = local.read
    other = Text(frame=replace(prompt.frame, words=("w1 w2", "w7")))
    assert torch.allclose(local.scores(other, inputs), scores(other, inputs, model), atol=1e-5)
    assert 0 < local.read - read < 10  # one label text


@pytest.mark.parametrize("family", ["gpt2", "llama", "t5"])
def test_any_continuation_is_scored(family: str) -> None:
    model = tiny(family)
    given, more = "w1 w2 w3", "w4 w5 w6"
    [(total, n)] = Local(model).continuations([(given, more)])
    row = next(model.renderer(Frame()).rows([(given,)], [more]))
    assert n == len(row.targets) == 3
    # token by token, with the network's own logits
    ids = torch.tensor([row.codes])
    if model.two_stacks:
        out = model.network(input_ids=ids, decoder_input_ids=torch.tensor([row.decoder])).logits
    else:
        out = model.network(input_ids=ids).logits
    each = F.log_softmax(out[0, list(row.at)].float(), -1).gather(1, torch.tensor(row.targets)[:, None])
    assert total == pytest.approx(float(each.sum()), abs=1e-4)
    pairs = [(given, more), ("w9", "w1"), (given, "w7 w8")]
    assert Local(model).continuations(pairs)[0][0] == pytest.approx(total, abs=1e-4)  # whatever else is asked


def test_next_tokens_are_the_model_s_likeliest() -> None:
    model = tiny("gpt2")
    prompt = text("")
    [found] = Local(model).next_tokens(prompt, [("w1 w2",)], 3)
    row = next(model.renderer(prompt.frame).rows([("w1 w2",)]))
    batch = collate([Row(row.codes, row.types, (len(row.codes) - 1,), inputs=len(row.codes))])
    logits = model.network(input_ids=batch.codes).logits[0, -1]
    assert list(found) == logits.topk(3).indices.tolist()


def test_a_local_writer_repeats_itself_for_one_draw_and_not_for_another() -> None:
    speaker = LocalSpeaker(tiny("gpt2"))
    ask = [Call((("user", "w1 w2"),), 1.0, 12, k) for k in range(3)]
    first, again = speaker.complete(ask, salt="0"), speaker.complete(ask, salt="0")
    assert [r.text for r in first] == [r.text for r in again]
    assert len({r.text for r in first}) > 1
    assert [r.text for r in speaker.complete(ask, salt="1")] != [r.text for r in first]
    assert all(r.output > 0 and r.input > 0 for r in first)


def test_a_search_on_a_local_model_predicts_what_it_was_scored_by(tmp_path: Path) -> None:
    model = tiny("gpt2")
    task, _ = planted(model, examples=60)
    world = World(examples=20)
    writer = Direct(world, "openai:writer", lambda call: f"<prompt>{WORDS[len(call.messages[0][1]) % 40]} w3</prompt>")
    run = ana.fit("opro", model, task, folder=tmp_path / "r", means=Means(writer=writer),
                  options={"steps": 2, "width": 2})  # fmt: skip
    assert run.score is not None and run.gain is not None
    again = ana.evaluate(run.prompt, model, task)
    assert again.predictions.tolist() == run.score.predictions.tolist()
    loaded = ana.load(tmp_path / "r" / "prompt")
    assert loaded.same(run.prompt) and loaded.card["cost"]["calls"] == run.cost["calls"]
    assert default_frame(model, task).labels == loaded.frame.labels
