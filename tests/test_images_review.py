"""What a fresh reader found in the work on pictures, each as a test."""

from __future__ import annotations

import functools
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import anacrusis as ana
from anacrusis.adapt import views
from anacrusis.adapt.engine import Stream
from anacrusis.adapt.prompts import course_of, keep
from anacrusis.errors import ConfigError, PromptError
from anacrusis.measure.predict import predict, scores
from anacrusis.model.frames import default_frame
from anacrusis.model.images import ImageBatch, ImageRow, rows_of
from anacrusis.model.sight import Sight
from anacrusis.prompt.values import Frame, Head, Pixels, Text, Tokens, for_classes
from anacrusis.registry import all_methods, require
from anacrusis.runs.searching import Means
from anacrusis.task import Task
from anacrusis.testing import planted_sight, sight
from anacrusis.tune.recipe import Problem
from tests.world import Direct, World


@functools.cache
def model_of(family: str = "clip") -> Sight:
    return sight(family)


@functools.cache
def task_of(family: str = "clip") -> Task:
    return planted_sight(model_of(family), examples=60)[0]


def captions() -> Task:
    texts = [f"w{i % 30} w{i % 7} w{i}" for i in range(60)]
    return Task.from_lists(texts, [f"c{i % 3}" for i in range(60)], words={"c0": "w1", "c1": "w2", "c2": "w3"})


def adaptive(name: str, task: Task | None = None, **options: Any) -> Any:
    method, task = all_methods()[name], task or task_of()
    config = method.configure(options)
    problem = Problem(model_of(), task, default_frame(model_of(), task), torch.Generator().manual_seed(0))
    return keep(method.build(config, problem), name, config)


def test_paths_given_to_a_prompt_learned_from_captions_are_pictures(tmp_path: Path) -> None:
    run = ana.fit("tai-dpt", model_of(), captions(), folder=tmp_path / "run", options={"epochs": "1"})
    with pytest.raises(ana.errors.DataError, match="no such picture: nothing.png"):
        predict(run.prompt, ["nothing.png"], model_of())
    assert run.score is not None  # the captions themselves were scored as texts


@pytest.mark.parametrize("name", ["vpt", "maple", "pixel-network", "tpt", "tfup", "vpa", "llm-black-box"])
def test_texts_stand_for_pictures_only_where_no_picture_is_needed(name: str) -> None:
    with pytest.raises(ConfigError, match="looks at pictures.*coop"):
        require(all_methods()[name], model_of(), captions())


def test_pairs_of_texts_are_refused() -> None:
    pairs = Task.from_lists([("w1", f"w{i}") for i in range(20)], ["a", "b"] * 10)
    with pytest.raises(ConfigError, match="pairs of texts"):
        require(all_methods()["coop"], model_of(), pairs)


def test_a_long_reply_of_the_writer_costs_its_end_or_itself(tmp_path: Path) -> None:
    long = " ".join(f"w{i % 90}" for i in range(60))
    says = {"cupl": f"<text>{long}</text>", "proapo": f"<text>{long}</text>",
            "llm-black-box": f"<prompt>{long} {{label}}</prompt>"}  # fmt: skip
    for name, options in (("cupl", {}), ("proapo", {"rounds": "2"}), ("llm-black-box", {"steps": "2"})):
        writer = Direct(World(), "openai:writer", answer=lambda call, said=says[name]: said)
        run = ana.fit(name, model_of(), task_of(), folder=tmp_path / name, options=options,
                      means=Means(writer=writer, budget="4000calls"))  # fmt: skip
        assert run.score is not None


def test_a_saved_prompt_imports_nothing() -> None:
    views.register("mine", views.Crops())
    prompt = adaptive("difftpt", generator="mine", views=8)
    strange = replace(prompt, config={**prompt.config, "generator": "antigravity:fly"})
    with pytest.raises(ConfigError, match="a saved prompt imports nothing"):
        course_of(strange, model_of())
    views._NAMED.pop("mine")


def test_what_is_kept_of_pictures_is_bounded_and_the_same_in_every_run(monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of()
    rows = rows_of([e.inputs for e in task_of().train], model.prepare)
    tower = model.image.tower
    assert tower is not None
    each = 2 * tower.depth * model.tokens * tower.width * 4
    monkeypatch.setattr("anacrusis.model.sight.MEMORY_GB", 8 * each / 1e9)
    with model.frozen():
        for start in range(0, len(rows) - 4, 4):
            model.memory(ImageBatch(rows[start : start + 4], model.prepare, model.device, model.dtype))
    kept = [i for i, r in enumerate(rows) if "memory" in r.kept]
    assert kept == list(range(min(32, len(rows))))  # whole groups of 32, and none behind the bound
    with torch.no_grad(), model.frozen():
        fresh = rows_of([e.inputs for e in task_of().train[:4]], model.prepare)
        model.memory(ImageBatch(fresh, model.prepare, model.device, model.dtype))
    assert not any(r.kept for r in fresh)  # nothing is kept while answering


def test_two_threads_with_other_classes_do_not_mix() -> None:
    model, wrong = model_of(), []
    frames = [Frame(labels=("a", "b"), words=w, template="a {label}", readout="match") for w in
              (("w1", "w2"), ("w3 w4", "w5"))]  # fmt: skip
    rows = Tokens(side="text", layers={0: torch.ones(2, 32)}, read_only=True)
    with torch.no_grad():
        right = [model.texts(f, rows) for f in frames]

    def ask(i: int) -> None:
        for _ in range(100):
            with torch.no_grad():
                if not torch.allclose(model.texts(frames[i], rows), right[i], atol=1e-6):
                    wrong.append(i)

    threads = [threading.Thread(target=ask, args=(i % 2,)) for i in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert wrong == []


def test_a_head_of_other_classes_is_refused(tmp_path: Path) -> None:
    model, task = model_of("vit"), task_of("vit")
    head = Head(torch.zeros(2, model.hidden), torch.zeros(2))
    Text(frame=Frame(fields=("image",), labels=("c0", "other"), readout="head"), head=head).save(tmp_path / "head")
    with pytest.raises(PromptError, match="this prompt .text. answers c0, other"):
        ana.fit("vpa", model, task, folder=tmp_path / "run", options={"head": str(tmp_path / "head")})


def test_remembered_pictures_belong_to_their_classes() -> None:
    with pytest.raises(PromptError, match="cannot serve other classes"):
        for_classes(adaptive("tfup"), ["x", "y", "z"])


def test_a_class_text_names_its_class(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="needs the class"):
        default_frame(model_of(), task_of(), template="a photo")
    with pytest.raises(ConfigError, match="writes its own class texts"):
        ana.fit("coop", model_of(), task_of(), folder=tmp_path / "run", options={"template": "a {label}"})


def test_small_changes_of_pixels_survive_half_precision() -> None:
    model = model_of("vit")
    batch = ImageBatch([ImageRow(torch.full((3, 32, 32), 200, dtype=torch.uint8))], model.prepare, model.device,
                       torch.bfloat16)  # fmt: skip
    assert batch.raw.dtype == torch.float32 and batch.normalised.dtype == torch.bfloat16
    tiny = Pixels(delta=torch.full((3, 32, 32), 0.0015))
    raw = batch.raw + tiny.delta
    assert not torch.equal(raw, batch.raw)


def test_answering_under_inference_mode_does_not_harm_later_learning(tmp_path: Path) -> None:
    model = sight("clip", seed=5)
    task, _ = planted_sight(model, examples=60)
    bare = Text(frame=default_frame(model, task))
    with torch.inference_mode():
        scores(bare, [e.inputs for e in task.valid], model)
    assert ana.fit("kgcoop", model, task, folder=tmp_path / "run", options={"epochs": "1"}).score is not None


def test_two_streams_at_once_leave_the_network_as_it_was() -> None:
    model = sight("clip", seed=6)
    model.network.train()
    prompt = adaptive("tpt", views=8)
    rows = rows_of([e.inputs for e in task_of().train[:2]], model.prepare)
    streams = [Stream(model, course_of(prompt, model)).answers(rows) for _ in range(2)]
    for s in streams:
        next(s)
    for s in streams:
        s.close()
    assert model.network.training


def test_models_of_images_take_no_fewer_bits() -> None:
    with pytest.raises(ConfigError, match="quantise=4"):
        ana.open("builtin:tiny-clip", quantise=4)


def test_one_picture_in_any_form_and_what_is_none() -> None:
    prompt = Text(frame=default_frame(model_of(), task_of()))
    colour = task_of().train[0].inputs[0].load()  # type: ignore[attr-defined]
    grey = colour.mean(2).astype("uint8")
    assert predict(prompt, colour, model_of()) == predict(prompt, [colour], model_of())
    assert len(predict(prompt, grey, model_of())) == 1
    for odd in (torch.zeros(3, 8, 8), b"bytes"):
        with pytest.raises(ana.errors.DataError, match="is no picture: give a path"):
            predict(prompt, [odd], model_of())
