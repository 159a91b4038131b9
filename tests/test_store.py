"""Folders of prompts: what is written is read back; what is damaged is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import anacrusis as ana
from anacrusis.errors import PromptError
from anacrusis.prompt.values import Adapter, Conditioned, Constant, Frame, Head, Prefix, Prompt, Soft, Text
from anacrusis.testing import tiny

FRAME = Frame(fields=("a", "b"), labels=("x", "y"), words=("ex", "why"), template="{a} {b}",
              demonstrations=((("p", "q"), "ex"),), readout="head", multi=True)  # fmt: skip
HEAD = Head(torch.randn(2, 4, generator=torch.Generator().manual_seed(0)), torch.tensor([1.0, 2.0]))
T = torch.arange(24.0).reshape(2, 3, 4)
KINDS: list[Prompt] = [
    Text(frame=FRAME, head=HEAD),
    Soft(vectors=T[0], offset=T[1], frame=FRAME, head=HEAD),
    Soft(vectors=T[0]),
    Prefix(keys={"encoder": (T, T + 1), "cross": (T,)}, values={"encoder": (T, -T), "cross": (2 * T,)}, shift=3),
    Conditioned(method="attempt", config={"k": 2}, weights={"a.b": T}, tokens=3, frame=FRAME),
    Adapter(config={"r": 4}, weights={"x.lora_A.weight": T[0]}),
    Constant(scores=torch.tensor([0.25, 0.75]), frame=FRAME),
]


@pytest.mark.parametrize("prompt", KINDS, ids=lambda p: p.kind)
def test_round_trip(prompt: Prompt, tmp_path: Path) -> None:
    prompt = prompt.with_card(model="m", fingerprint="f", method="x", scores=[
        {"split": "test", "metric": "accuracy", "value": 0.5, "low": 0.4, "high": 0.6, "n": 10}])  # fmt: skip
    prompt.save(tmp_path / "p")
    loaded = ana.load(tmp_path / "p")
    assert loaded.same(prompt) and loaded.card == prompt.card and type(loaded) is type(prompt)
    assert sorted(f.name for f in (tmp_path / "p").iterdir()) == ["README.md", "prompt.json", "prompt.safetensors"]
    card = (tmp_path / "p" / "README.md").read_text()
    assert "0.500 | 0.400 to 0.600 | 10" in card and "`m`" in card


def test_live_tensors_are_saved_detached(tmp_path: Path) -> None:
    live = Soft(vectors=torch.ones(2, 4, dtype=torch.float64, requires_grad=True))
    live.save(tmp_path)
    loaded = ana.load(tmp_path)
    assert isinstance(loaded, Soft) and not loaded.vectors.requires_grad and loaded.vectors.dtype == torch.float32


def damaged(tmp_path: Path, **entries: object) -> Path:
    KINDS[1].save(tmp_path)
    record = json.loads((tmp_path / "prompt.json").read_text())
    (tmp_path / "prompt.json").write_text(json.dumps({**record, **entries}))
    return tmp_path


def test_damage_is_named(tmp_path: Path) -> None:
    with pytest.raises(PromptError, match="prompt.json is missing"):
        ana.load(tmp_path / "nothing")
    with pytest.raises(PromptError, match="has format 99; this version of anacrusis reads format 1"):
        ana.load(damaged(tmp_path / "a", format=99))
    with pytest.raises(PromptError, match="unknown kind 'sofd'.*Did you mean 'soft'"):
        ana.load(damaged(tmp_path / "b", kind="sofd"))
    with pytest.raises(PromptError, match=r"unknown entries \['new'\]"):
        ana.load(damaged(tmp_path / "c", frame={"new": 1}))
    KINDS[1].save(tmp_path / "d")
    (tmp_path / "d" / "prompt.safetensors").write_bytes(b"not tensors")
    with pytest.raises(PromptError, match="missing or damaged"):
        ana.load(tmp_path / "d")
    (tmp_path / "d" / "prompt.json").write_text("{")
    with pytest.raises(PromptError, match="prompt.json is damaged"):
        ana.load(tmp_path / "d")
    with pytest.raises(PromptError, match="names the tensor or entry 'vectors'"):
        KINDS[6].save(tmp_path / "e")
        damaged(tmp_path / "f")
        (tmp_path / "f" / "prompt.safetensors").write_bytes((tmp_path / "e" / "prompt.safetensors").read_bytes())
        ana.load(tmp_path / "f")


def test_nothing_in_the_package_pickles_or_evaluates() -> None:
    import re

    import anacrusis

    for file in Path(anacrusis.__file__).parent.rglob("*.py"):
        code = re.sub(r'""".*?"""', "", file.read_text(encoding="utf-8"), flags=re.S)
        found = re.findall(r"(?<![\w.])(?:import pickle\b|pickle\.loads?|torch\.load\(|eval\(|exec\()", code)
        assert not found, f"{file.name}: {found}"


def test_a_folder_of_another_model_is_refused_with_both_names() -> None:
    a, b = tiny("gpt2"), tiny("gpt2", seed=1)
    frame = Frame(labels=("x", "y"), words=("w1", "w2"))
    prompt = Soft(vectors=torch.zeros(2, 32), frame=frame).with_card(model=a.name, fingerprint=a.fingerprint)
    assert prompt.predict("w3", a) in (["x"], ["y"])
    with pytest.raises(PromptError, match="learned for tiny:gpt2:0.*not for tiny:gpt2:1"):
        prompt.predict("w3", b)
