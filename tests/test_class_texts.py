"""Methods on class texts: writers, evolution, memory, captions instead of pictures."""

from __future__ import annotations

import functools
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import anacrusis as ana
from anacrusis.errors import ConfigError
from anacrusis.measure.predict import scores
from anacrusis.methods.cupl import told
from anacrusis.methods.proapo import edited
from anacrusis.methods.tai_dpt import ranking
from anacrusis.model.frames import default_frame
from anacrusis.model.sight import Sight
from anacrusis.prompt.values import Cache, Frame, Text
from anacrusis.registry import all_methods
from anacrusis.runs.searching import Means
from anacrusis.task import Task
from anacrusis.testing import WORDS, planted_sight, sight
from anacrusis.tune.recipe import Problem
from tests.world import Direct, World


@functools.cache
def model_of() -> Sight:
    return sight("clip")


@functools.cache
def task_of() -> Task:
    return planted_sight(model_of(), examples=90)[0]


def writer(says: Any) -> Direct:
    return Direct(World(), "openai:writer", answer=says)


def random_template(call: Any) -> str:
    rng = random.Random(repr(call))
    words = [rng.choice(WORDS) for _ in range(3)]
    return f"<prompt>{words[0]} {words[1]} {{label}} {words[2]}</prompt>"


@pytest.mark.parametrize("name", ["llm-black-box", "proapo"])
def test_templates_are_searched_and_pictures_encoded_once(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[int] = []
    task_of()  # made before anything is counted
    whole = Sight.look
    monkeypatch.setattr(Sight, "look", lambda self, b, *a: looked.append(len(b)) or whole(self, b, *a))  # type: ignore[func-returns-value]
    options = {"llm-black-box": {"steps": "4"}, "proapo": {"rounds": "3", "draws": "0"}}[name]
    run = ana.fit(name, model_of(), task_of(), folder=tmp_path / "run", options=options, seed=1,
                  means=Means(writer=writer(random_template), budget="4000calls"))  # fmt: skip
    assert isinstance(run.prompt, Text) and run.gain is not None
    assert "{label}" in run.prompt.frame.template
    task = task_of()
    assert sum(looked) <= len(task.train) + len(task.valid) + 2 * len(task.test)


def test_the_writer_is_shown_the_worst_and_then_the_best(tmp_path: Path) -> None:
    asked: list[str] = []

    def says(call: Any) -> str:
        asked.append(call.messages[-1][1])
        return random_template(call)

    ana.fit("llm-black-box", model_of(), task_of(), folder=tmp_path / "run", options={"steps": "2", "width": "1"},
            means=Means(writer=writer(says), budget="2000calls"))  # fmt: skip
    model, task = model_of(), task_of()

    def fitness(template: str) -> float:
        frame = replace(default_frame(model, task), template=template)
        golds = torch.tensor([e.gold for e in task.train])
        z = scores(Text(frame=frame), [e.inputs for e in task.train], model)
        return float(-torch.nn.functional.cross_entropy(z, golds))

    shown = [line.split("<prompt>")[1].split("</prompt>")[0] for line in asked[0].splitlines()
             if line.startswith("<prompt>")]  # fmt: skip
    assert len(shown) == 6
    values = [fitness(t) for t in shown]
    assert max(values[:3]) <= min(values[3:]) and values[3:] == sorted(values[3:])


def test_cupl_averages_the_sentences_of_each_class(tmp_path: Path) -> None:
    task = task_of()
    names = {w: f"w{80 + i}" for i, w in enumerate(task.words)}

    def says(call: Any) -> str:
        word = next(w for w in task.words if f" {w} " in call.messages[-1][1].replace(".", " ").replace("?", " "))
        return f"<text>{word} {names[word]}</text>"

    run = ana.fit("cupl", model_of(), task, folder=tmp_path / "run", options={"draws": "2", "both": "false"},
                  means=Means(writer=writer(says), budget="2000calls"))  # fmt: skip
    frame = replace(default_frame(model_of(), task), texts=tuple((f"{w} {names[w]}",) for w in task.words))
    z = scores(Text(frame=frame), [e.inputs for e in task.valid], model_of())
    golds = np.array([e.gold for e in task.valid])
    if run.prompt.frame.texts:  # validation preferred it
        assert run.prompt.frame.texts == frame.texts
    else:
        start = scores(Text(frame=default_frame(model_of(), task)), [e.inputs for e in task.valid], model_of())
        assert (z.argmax(1).numpy() == golds).mean() <= (start.argmax(1).numpy() == golds).mean() + 0.1


def test_sentences_name_their_class() -> None:
    assert told("red star", ["A Red Star shines. ", None, "it has points", "it has points", " "]) == (
        "A Red Star shines.", "red star: it has points")  # fmt: skip


def test_edits_by_hand() -> None:
    library = ["a", "b", "c", "d"]
    seen = set()
    for seed in range(60):
        out = edited(("a", "b"), library, ("c",), random.Random(seed))
        assert out and set(out) <= set(library) and len(set(out)) == len(out)
        seen.add(len(out))
    assert {1, 2, 3} <= seen
    assert all(edited(("a",), ["a"], ("a",), random.Random(s)) == ("a",) for s in range(20))


def test_tip_adapter_by_hand() -> None:
    model, task = model_of(), task_of()
    method = all_methods()["tip-adapter"]
    given = Problem(model, task, default_frame(model, task), torch.Generator())
    prompt = method.build(method.configure({"alpha": 0.5, "beta": 3.0}), given)
    assert isinstance(prompt, Cache) and prompt.keys.shape == (len(task.train), model.hidden)
    inputs = [e.inputs for e in task.valid[:4]]
    bare = scores(Text(frame=prompt.frame), inputs, model)
    batch = model_batch(model, inputs)
    near = torch.exp(-3.0 * (1 - model.features(batch) @ prompt.keys.T)) @ prompt.values
    assert torch.allclose(scores(prompt, inputs, model), bare + 0.5 * model.logit_scale * near, atol=1e-4)
    off = replace(prompt, alpha=0.0)
    assert torch.allclose(scores(off, inputs, model), bare, atol=1e-5)  # alpha = 0 is zero-shot
    exact = replace(prompt, beta=1e6)  # only an exact match says anything
    own = scores(exact, [task.train[0].inputs], model) - scores(Text(frame=prompt.frame), [task.train[0].inputs], model)
    assert float(own[0, task.train[0].gold]) == pytest.approx(0.5 * model.logit_scale, rel=0.1)  # type: ignore[index]


def model_batch(model: Sight, inputs: Any) -> Any:
    from anacrusis.model.images import ImageBatch, rows_of

    return ImageBatch(rows_of(inputs, model.prepare), model.prepare, model.device, model.dtype)


def test_ranking_by_hand() -> None:
    z = torch.tensor([[2.0, 1.5, 0.0]])
    held = torch.tensor([[1.0, 0.0, 0.0]])
    assert float(ranking(z, held)) == pytest.approx(0.5)  # max(0, 1 - 2 + 1.5) + max(0, 1 - 2 + 0)
    assert float(ranking(z, torch.tensor([[1.0, 1.0, 0.0]]))) == pytest.approx(0.0)


def test_captions_teach_what_pictures_are_asked(tmp_path: Path) -> None:
    """A hidden context labels captions; a context learned on captions gets new ones right, and answers pictures."""
    model = model_of()
    rng = random.Random(0)
    captions = list(dict.fromkeys(" ".join(rng.choice(WORDS) for _ in range(4)) for _ in range(900)))
    labels = ("c0", "c1", "c2")
    rows = model.scale * torch.randn(4, 32, generator=torch.Generator().manual_seed(2))
    frame = Frame(labels=labels, words=("w1", "w7", "w30"), template="{soft} {label}.", readout="match")
    teacher = ana.prompt.values.Tokens(side="text", layers={0: rows}, frame=frame)
    z = scores(teacher, [(c,) for c in captions], model)
    z = z - z.mean(0)
    gold = z.argmax(1).tolist()
    task = Task.from_lists(captions, [labels[g] for g in gold], words=dict(zip(labels, frame.words, strict=True)))
    run = ana.fit("tai-dpt", model, task, folder=tmp_path / "run", options={"epochs": "15"})
    zero = ana.fit("zero-shot", model, task, folder=tmp_path / "zero")
    assert zero.score is not None and run.score is not None and run.score.value > zero.score.value + 0.1
    assert scores(run.prompt, [e.inputs for e in task_of().valid[:3]], model).shape == (3, 3)
    with pytest.raises(ConfigError, match="captions"):
        ana.fit("tai-dpt", model, task_of(), folder=tmp_path / "no")
