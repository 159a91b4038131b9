"""PEFT folders: what PEFT computes from them and what we compute is the same, both ways; the rest is refused."""

from __future__ import annotations

import json
import math
import os
import pickle
import sys
import zipfile
from collections import OrderedDict
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from anacrusis.errors import PromptError
from anacrusis.model.model import Model
from anacrusis.model.rows import Row, collate
from anacrusis.model.write import write
from anacrusis.prompt import peft as interop
from anacrusis.prompt import store
from anacrusis.prompt.values import Conditioned, Frame, Head, Prefix, Prompt, Soft, Text
from anacrusis.testing import tiny

peft = pytest.importorskip("peft", reason="the extra anacrusis[peft] is not installed")

P = 3
FRONT = Frame(place="front")
DECODER = torch.tensor([[0, 30, 31, 32], [0, 40, 41, 42]])


def texts(length: int = 8, model: Model | None = None) -> tuple[Tensor, Tensor]:
    """Two rows of token ids, the second one padded on the right, and their mask."""
    ids = torch.randint(9, 90, (2, length), generator=torch.Generator().manual_seed(1))
    if model is not None and model.arrangement in ("masked", "encoder"):
        ids[:, 0] = 1  # [CLS]: PEFT's vectors stand before it
    mask = torch.ones_like(ids)
    mask[1, length - 3 :] = 0
    return ids * mask, mask


def random(*shape: int, seed: int = 0, scale: float = 1.0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) * scale


def by_peft(wrapped: Any, model: Model, ids: Tensor, mask: Tensor, **more: Any) -> Tensor:
    """What PEFT computes at the caller's tokens: (B, T, V), or (B, T, H) for an encoder; zero at padding."""
    if model.two_stacks:
        more["decoder_input_ids"] = DECODER
    with torch.no_grad():
        out = wrapped.eval()(input_ids=ids, attention_mask=mask, **more)
    if model.two_stacks:
        return out.logits
    found = out.last_hidden_state if model.arrangement == "encoder" else out.logits
    return found[:, -ids.shape[1] :] * mask[..., None]


@torch.no_grad()
def by_us(model: Model, prompt: Prompt | None, ids: Tensor, mask: Tensor) -> Tensor:
    """The same from our engine."""
    if not model.two_stacks:
        states = model.forward(ids, mask, prompt)
        return states if model.arrangement == "encoder" else model.logits(states) * mask[..., None]
    rows = []
    for own, keep, decoder in zip(ids.tolist(), mask.tolist(), DECODER.tolist(), strict=True):
        length = prompt.length if prompt is not None else 0
        codes = (*(-1 - j for j in range(length)), *(i for i, k in zip(own, keep, strict=True) if k))
        rows.append(Row(codes, (0,) * len(codes), tuple(range(len(decoder))), (), len(codes), tuple(decoder)))
    batch = collate(rows)
    with model.frozen():
        return model.logits(model.run(batch, model.place(prompt, batch), read=True))


def trained(model: Model, config: Any, folder: Path, **changes: Tensor) -> Any:
    """PEFT's own wrapper with random prompts, saved into `folder`. changes: parameters of its encoder to set."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        wrapped = peft.get_peft_model(tiny(model.name.split(":")[1]).network, config)
    with torch.no_grad():
        for name, value in changes.items():
            getattr(wrapped.prompt_encoder["default"], name).copy_(value)
    wrapped.save_pretrained(str(folder))
    return wrapped


def task(model: Model) -> str:
    return interop.TASK_TYPES[model.arrangement]


def reopened(model: Model, folder: Path) -> Any:
    """The folder in PEFT, on a fresh copy of the model."""
    with torch.random.fork_rng():  # PEFT draws a prompt before it reads the saved one
        return peft.PeftModel.from_pretrained(tiny(model.name.split(":")[1]).network, str(folder))


def same(a: Tensor, b: Tensor, base: Tensor) -> None:
    torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)
    assert (a - base).abs().max() > 0.1, "the prompt made no difference, so this compared nothing"


def prefix(model: Model, length: int = P, seed: int = 0, **more: Any) -> Prefix:
    """A random prefix in PEFT's convention: the text begins at position `length`."""
    sites = model.sites
    side = lambda s: tuple(random(x.heads, length, x.dim, seed=s + i) for i, x in enumerate(sites))  # noqa: E731
    return Prefix(keys={sites[0].stack: side(seed)}, values={sites[0].stack: side(seed + 50)}, shift=length, **more)


def refused(call: Any, *parts: str) -> None:
    with pytest.raises(PromptError) as caught:
        call()
    for part in parts:
        assert part in str(caught.value), str(caught.value)


# in: PEFT trains and saves, we read and compute

SOFT_FAMILIES = ("gpt2", "llama", "qwen2", "gemma2", "bert", "roberta", "modernbert", "minilm", "t5", "bart")
PREFIX_FAMILIES = ("gpt2", "llama", "qwen2", "bert", "roberta", "minilm")


@pytest.mark.parametrize("family", SOFT_FAMILIES)
def test_a_prompt_tuned_by_peft_computes_the_same_here(family: str, tmp_path: Path) -> None:
    model = tiny(family)
    wrapped = trained(model, peft.PromptTuningConfig(task_type=task(model), num_virtual_tokens=P), tmp_path)
    prompt = interop.load(tmp_path, model)
    assert isinstance(prompt, Soft) and prompt.vectors.shape == (P, 32) and prompt.frame.place == "front"
    ids, mask = texts(model=model)
    same(by_us(model, prompt, ids, mask), by_peft(wrapped, model, ids, mask), by_us(model, None, ids, mask))


@pytest.mark.parametrize("encoder", ["MLP", "LSTM"])
@pytest.mark.parametrize("family", ["llama", "t5"])
def test_p_tuning_is_folded_when_it_is_saved(family: str, encoder: str, tmp_path: Path) -> None:
    model = tiny(family)
    config = peft.PromptEncoderConfig(
        task_type=task(model), num_virtual_tokens=P, encoder_reparameterization_type=encoder, encoder_hidden_size=24
    )
    wrapped = trained(model, config, tmp_path)
    with torch.no_grad():  # a fresh encoder writes vectors near zero: make them matter
        for p in wrapped.prompt_encoder.parameters():
            p.mul_(8.0)
    wrapped.save_pretrained(str(tmp_path))
    prompt = interop.load(tmp_path, model)
    ids, mask = texts(model=model)
    same(by_us(model, prompt, ids, mask), by_peft(wrapped, model, ids, mask), by_us(model, None, ids, mask))


@pytest.mark.parametrize("projected", [False, True])
@pytest.mark.parametrize("family", PREFIX_FAMILIES)
def test_a_prefix_tuned_by_peft_computes_the_same_here(family: str, projected: bool, tmp_path: Path) -> None:
    model = tiny(family)
    config = peft.PrefixTuningConfig(
        task_type=task(model), num_virtual_tokens=P, prefix_projection=projected, encoder_hidden_size=16
    )
    wrapped = trained(model, config, tmp_path)
    prompt = interop.load(tmp_path, model)
    assert isinstance(prompt, Prefix) and prompt.shift == P
    ids, mask = texts(model=model)
    same(by_us(model, prompt, ids, mask), by_peft(wrapped, model, ids, mask), by_us(model, None, ids, mask))


def test_a_cartridge_is_a_prefix(tmp_path: Path) -> None:
    model = tiny("llama")
    config = peft.CartridgeConfig(task_type="CAUSAL_LM", num_virtual_tokens=P, num_frozen_tokens=1)
    wrapped = trained(model, config, tmp_path)
    ids, mask = texts()
    ours = by_us(model, interop.load(tmp_path, model), ids, mask)
    same(ours, by_peft(wrapped, model, ids, mask), by_us(model, None, ids, mask))


def test_a_multitask_prompt_is_folded_for_the_task_asked_for(tmp_path: Path) -> None:
    model = tiny("gpt2")
    config = peft.MultitaskPromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=P, num_tasks=2, num_ranks=2)
    low, high = random(2, P, 2, seed=5), random(2, 2, 32, seed=6)
    wrapped = trained(model, config, tmp_path, prefix_task_cols=low, prefix_task_rows=high)
    ids, mask = texts()
    for t in (0, 1):
        ours = by_us(model, interop.load(tmp_path, model, task=t), ids, mask)
        theirs = by_peft(wrapped, model, ids, mask, task_ids=torch.tensor([t, t]))
        same(ours, theirs, by_us(model, None, ids, mask))
    refused(lambda: interop.load(tmp_path, model), "2 tasks", "task=0 to 1")
    refused(lambda: interop.load(tmp_path, model, task=2), "task is 2")
    tensors = load_file(tmp_path / "adapter_model.safetensors")
    save_file({**tensors, "prefix_task_rows": random(2, 3, 32)}, tmp_path / "adapter_model.safetensors")
    refused(lambda: interop.load(tmp_path, model, task=1), "(2, 3, 2)", "(2, 3, 32)")


def test_a_sliding_window_is_said_and_exact_inside(tmp_path: Path) -> None:
    model = tiny("mistral")  # a window of 8 positions
    wrapped = trained(model, peft.PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=P), tmp_path)
    prompt = interop.load(tmp_path, model)
    ids, mask = texts(8 - P)
    same(by_us(model, prompt, ids, mask), by_peft(wrapped, model, ids, mask), by_us(model, None, ids, mask))
    assert "more than 8 positions" in prompt.card["note"]
    ids, mask = texts(8)
    assert (by_us(model, prompt, ids, mask) - by_peft(wrapped, model, ids, mask)).abs().max() > 0.1, "drop the note"


@pytest.mark.parametrize("kind", ["soft", "prefix"])
def test_peft_and_we_write_the_same_text(kind: str, tmp_path: Path) -> None:
    model = tiny("llama")
    config = peft.PromptTuningConfig if kind == "soft" else peft.PrefixTuningConfig
    wrapped = trained(model, config(task_type="CAUSAL_LM", num_virtual_tokens=P), tmp_path).eval()
    prompt = interop.load(tmp_path, model)
    assert prompt.frame.readout == "generate"
    ids = model.tokenizer("w1 w2 w3", return_tensors="pt")["input_ids"]
    with torch.no_grad():
        out = wrapped.generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=6, do_sample=False, pad_token_id=0
        )
    theirs = model.tokenizer.decode(out[0, ids.shape[1] if kind == "prefix" else -6 :], skip_special_tokens=True)
    assert write(model, prompt, [("w1 w2 w3",)], tokens=6)[0].split() == theirs.split()


def test_the_card_and_the_frame(tmp_path: Path) -> None:
    model = tiny("bert")
    trained(model, peft.PromptTuningConfig(task_type=task(model), num_virtual_tokens=P), tmp_path)
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    (tmp_path / "adapter_config.json").write_text(json.dumps({**config, "base_model_name_or_path": "some/bert"}))
    alone, known = interop.load(tmp_path), interop.load(tmp_path, model)
    assert alone.card["model"] == "some/bert" and "fingerprint" not in alone.card
    assert known.card["model"] == model.name and known.card["fingerprint"] == model.fingerprint
    assert "PROMPT_TUNING" in known.card["imported"] and "some/bert" in known.card["imported"]
    assert alone.same(known)
    frame = Frame(fields=("a",), template="{a} is {mask}", labels=("x", "y"), words=("w1", "w2"), place="auto")
    assert interop.load(tmp_path, model, frame).frame == replace(frame, place="front")
    refused(lambda: interop.load(tmp_path, model, replace(frame, place="back")), "back", "front")
    refused(lambda: interop.load(tmp_path, model, replace(frame, template="{soft}{a}{mask}")), "{soft}")
    known.save(tmp_path / "ours")
    assert store.load(tmp_path / "ours").same(known)
    with pytest.raises(PromptError, match="tiny:bert:1"):
        store.check(known, "tiny:bert:1", tiny("bert", seed=1).fingerprint)


def test_neither_way_needs_peft(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    model = tiny("gpt2")
    for i, prompt in enumerate((Soft(vectors=random(P, 32), frame=FRONT), prefix(model, frame=FRONT))):
        interop.export(prompt, tmp_path / str(i), model)
        back = interop.load(tmp_path / str(i), model, FRONT)
        assert back.same(prompt)


# in: what is refused


def folder(path: Path, config: dict[str, Any], **tensors: Tensor) -> Path:
    """A PEFT folder written by hand."""
    path.mkdir(exist_ok=True)
    (path / "adapter_config.json").write_text(json.dumps(config))
    save_file({k.replace("__", "."): t for k, t in tensors.items()}, path / "adapter_model.safetensors")
    return path


CONFIG = {
    "peft_type": "PROMPT_TUNING",
    "task_type": "CAUSAL_LM",
    "base_model_name_or_path": "gpt2",
    "num_virtual_tokens": P,
    "num_transformer_submodules": 1,
    "token_dim": 32,
    "num_layers": 2,
    "num_attention_heads": 4,
}
FLAT = {**CONFIG, "peft_type": "PREFIX_TUNING"}


def test_folders_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    model = tiny("gpt2")
    soft = folder(tmp_path / "soft", CONFIG, prompt_embeddings=random(P, 48))
    refused(lambda: interop.load(soft, model), "48 values", "tiny:gpt2:0 has hidden size 32")
    assert interop.load(soft).length == P
    refused(lambda: interop.load(soft, task=0), "task is 0", "one prompt for all")
    refused(lambda: interop.load(soft, tiny("t5")), "CAUSAL_LM", "encoder-decoder")
    short = folder(tmp_path / "short", CONFIG, prompt_embeddings=random(P - 1, 32))
    refused(lambda: interop.load(short), "(2, 32)", "3 virtual tokens")
    flat = folder(tmp_path / "flat", FLAT, prompt_embeddings=random(P, 2 * 2 * 32))
    assert isinstance(interop.load(flat, model), Prefix)
    refused(lambda: interop.load(flat, tiny("llama")), "2 layers of 4 heads x 8", "2 layers of 2 heads x 8")
    refused(lambda: interop.load(flat, tiny("gpt2", layers=3)), "2 layers", "3 layers")
    wrong = folder(tmp_path / "wrong", FLAT, prompt_embeddings=random(P, 100))
    refused(lambda: interop.load(wrong, model), "(3, 100)", "(3, 128)")
    other = folder(tmp_path / "other", {**FLAT, "task_type": "FEATURE_EXTRACTION"}, prompt_embeddings=random(P, 128))
    refused(lambda: interop.load(other), "FEATURE_EXTRACTION", "give it")
    assert "encoder.1.key" in interop.load(other, tiny("bert")).tensors()
    refused(lambda: interop.load(other, tiny("distilbert")), "DistilBertForMaskedLM", "cache")
    head = folder(tmp_path / "head", CONFIG, prompt_embeddings=random(P, 32), base_model__score__weight=random(2, 32))
    refused(lambda: interop.load(head, model), "base_model.score.weight", "drop_head=True")
    assert interop.load(head, model, drop_head=True).head is None
    for bad in (0, "3", None, True):
        broken = folder(tmp_path / "bad", {**CONFIG, "num_virtual_tokens": bad}, prompt_embeddings=random(P, 32))
        refused(lambda broken=broken: interop.load(broken), "num_virtual_tokens", repr(bad))


def test_folders_that_are_not_prompts_are_refused(tmp_path: Path) -> None:
    refused(lambda: interop.load(tmp_path), "adapter_config.json is missing")
    lora = folder(tmp_path / "lora", {"peft_type": "LORA"}, x=random(2))
    refused(lambda: interop.load(lora), "type LORA", "PROMPT_TUNING, P_TUNING", "PREFIX_TUNING")
    (tmp_path / "adapter_config.json").write_text("{")
    refused(lambda: interop.load(tmp_path), "adapter_config.json is damaged")
    (tmp_path / "adapter_config.json").write_text("[]")
    refused(lambda: interop.load(tmp_path), "expected an object")
    (tmp_path / "adapter_config.json").write_text(json.dumps(CONFIG))
    refused(lambda: interop.load(tmp_path), "no weights")
    (tmp_path / "adapter_model.safetensors").write_bytes(b"nonsense")
    refused(lambda: interop.load(tmp_path), "damaged")
    none = folder(tmp_path / "none", CONFIG, prefix_task_cols=random(2))
    refused(lambda: interop.load(none), "no tensor prompt_embeddings")


def test_prefixes_of_encoder_decoders_are_refused_with_the_reason(tmp_path: Path) -> None:
    model = tiny("t5")
    trained(model, peft.PrefixTuningConfig(task_type="SEQ_2_SEQ_LM", num_virtual_tokens=P), tmp_path)
    for given in (model, None):
        refused(
            lambda given=given: interop.load(tmp_path, given), "only the decoder's self-attention", "fit a prefix here"
        )


def test_the_decoders_unread_table_is_left_out(tmp_path: Path) -> None:
    model = tiny("t5")
    trained(model, peft.PromptTuningConfig(task_type="SEQ_2_SEQ_LM", num_virtual_tokens=P), tmp_path)
    assert load_file(tmp_path / "adapter_model.safetensors")["prompt_embeddings"].shape == (2 * P, 32)
    prompt = interop.load(tmp_path, model)
    assert prompt.length == P and "decoder" in prompt.card["note"]
    trained(model, peft.MultitaskPromptTuningConfig(task_type="SEQ_2_SEQ_LM", num_virtual_tokens=P), tmp_path / "many")
    refused(lambda: interop.load(tmp_path / "many", model), "before the decoder's input")


# out: we save, PEFT reads and computes


@pytest.mark.parametrize("family", (*SOFT_FAMILIES, "distilbert", "mistral"))
def test_our_vectors_compute_the_same_in_peft(family: str, tmp_path: Path) -> None:
    model = tiny(family)
    prompt = Soft(vectors=random(P, 32), frame=FRONT)
    wrapped = reopened(model, interop.export(prompt, tmp_path, model))
    ids, mask = texts(model=model)
    same(by_peft(wrapped, model, ids, mask), by_us(model, prompt, ids, mask), by_us(model, None, ids, mask))


@pytest.mark.parametrize("family", PREFIX_FAMILIES)
def test_our_prefixes_compute_the_same_in_peft(family: str, tmp_path: Path) -> None:
    model = tiny(family)
    prompt = prefix(model)
    wrapped = reopened(model, interop.export(prompt, tmp_path, model))
    ids, mask = texts(model=model)
    same(by_peft(wrapped, model, ids, mask), by_us(model, prompt, ids, mask), by_us(model, None, ids, mask))
    assert interop.load(tmp_path, model, prompt.frame).same(prompt)


def test_what_we_export_peft_saves_back_unchanged(tmp_path: Path) -> None:
    model = tiny("llama")
    for i, prompt in enumerate((Soft(vectors=random(P, 32), frame=FRONT), prefix(model))):
        wrapped = reopened(model, interop.export(prompt, tmp_path / f"{i}", model))
        with pytest.warns(UserWarning, match="Could not find a config file"):  # PEFT looks the base model up
            wrapped.save_pretrained(str(tmp_path / f"{i}-again"))
        assert interop.load(tmp_path / f"{i}-again", model, prompt.frame).same(prompt)


def test_the_model_is_not_needed_where_the_prompt_says_enough(tmp_path: Path) -> None:
    model = tiny("qwen2")
    ids, mask = texts()
    given: list[tuple[Prompt, str | None]] = [
        (Soft(vectors=random(P, 32), frame=Frame(place="auto")), "CAUSAL_LM"),
        (Soft(vectors=random(P, 32), card={"task_type": "CAUSAL_LM"}), None),
        (prefix(model), None),
    ]
    for i, (prompt, said) in enumerate(given):
        wrapped = reopened(model, interop.export(prompt, tmp_path / str(i), task_type=said))
        same(by_peft(wrapped, model, ids, mask), by_us(model, prompt, ids, mask), by_us(model, None, ids, mask))
    interop.export(prefix(tiny("bert")), tmp_path / "bert")
    assert json.loads((tmp_path / "bert" / "adapter_config.json").read_text())["task_type"] == "FEATURE_EXTRACTION"
    soft = Soft(vectors=random(P, 32), card={"task_type": "SEQ_CLS"})  # imported without its classifier
    refused(lambda: interop.export(soft, tmp_path / "x"), "Give the model", "CAUSAL_LM")
    refused(lambda: interop.export(soft, tmp_path / "x", task_type="SEQ_CLS"), "'SEQ_CLS'", "without a classifier")
    assert not (tmp_path / "x").exists()


def test_the_frame_goes_along_in_words(tmp_path: Path) -> None:
    model = tiny("gpt2")
    frame = Frame(
        template="{text}\nAnswer:", labels=("bad", "good"), words=("w1", "w2"), instruction="Judge.", place="front",
        demonstrations=((("w3",), "w1"),),
    )  # fmt: skip
    interop.export(Soft(vectors=random(P, 32), frame=frame), tmp_path, model)
    text = (tmp_path / "README.md").read_text()
    for part in (r"{text}\nAnswer:", '"bad": "w1"', "Judge.", "w3", "library_name: peft", "tiny:gpt2:0", "Pad on the"):
        assert part in text, text
    interop.export(prefix(tiny("mistral")), tmp_path / "window", tiny("mistral"))
    assert "more than 8 positions" in (tmp_path / "window" / "README.md").read_text()
    prompt = Soft(vectors=random(P, 32), frame=frame, card={"task": "ours"})
    prompt.save(tmp_path / "both")
    interop.export(prompt, tmp_path / "both", model)
    assert (tmp_path / "both" / "README.md").read_text().startswith("# ours")
    assert store.load(tmp_path / "both").same(interop.load(tmp_path / "both", model, frame))


def test_what_peft_cannot_say_is_refused(tmp_path: Path) -> None:
    gpt2, bert, t5 = tiny("gpt2"), tiny("bert"), tiny("t5")
    soft = Soft(vectors=random(P, 32), frame=FRONT)

    def no(prompt: Prompt, model: Model | None, *parts: str, **more: Any) -> None:
        refused(lambda: interop.export(prompt, tmp_path / "x", model, **more), *parts)
        assert not (tmp_path / "x").exists()

    no(replace(soft, offset=random(9, 32)), t5, "offset")
    no(replace(soft, vectors=random(2, P, 32)), gpt2, "every row")
    no(replace(soft, vectors=random(0, 32)), gpt2, "no vectors")
    no(replace(soft, vectors=random(P, 48)), gpt2, "48 values", "hidden size 32")
    no(replace(soft, frame=Frame(place="back")), gpt2, "back", "front of everything")
    no(replace(soft, frame=Frame(place="front", template="{soft}{text}")), gpt2, "slots")
    no(replace(soft, frame=Frame(place="auto")), bert, "after-bos")
    no(replace(soft, frame=Frame(place="auto")), None, "depends on the model", task_type="FEATURE_EXTRACTION")
    no(replace(soft, card={"model": "other", "fingerprint": "0"}), gpt2, "other", "tiny:gpt2:0")
    headed = replace(soft, head=Head(random(2, 32), random(2)))
    no(headed, gpt2, "head", "drop_head=True")
    assert load_file(interop.export(headed, tmp_path / "headed", gpt2, drop_head=True) / "adapter_model.safetensors")
    interop.export(replace(soft, frame=Frame(place="after-bos")), tmp_path / "bare", gpt2)  # no BOS: the same place

    no(Text(), gpt2, "text prompt")
    no(Conditioned(method="x", config={}, weights={}, tokens=3), gpt2, "conditioned prompt")

    good = prefix(gpt2)
    no(replace(good, shift=0), gpt2, "positions by 0", "position 3")
    keys, values = good.keys["decoder"], good.values["decoder"]
    ragged: Any = {"keys": {"decoder": (keys[0], keys[1][:, :2])}, "values": {"decoder": (values[0], values[1][:, :2])}}
    no(replace(good, **ragged), gpt2, "differ in shape", "(4, 2, 8)")
    no(replace(good, seen={"decoder": torch.ones(1, P, dtype=torch.bool)}), gpt2, "by row")
    rows: Any = {
        "keys": {"decoder": tuple(k[None] for k in keys)},
        "values": {"decoder": tuple(v[None] for v in values)},
    }
    no(replace(good, **rows), gpt2, "by row")
    no(prefix(gpt2, 0), gpt2, "no columns")
    no(good, tiny("llama"), "4 heads x 8", "2 heads x 8")
    no(good, bert, "decoder layers", "encoder")
    no(prefix(tiny("distilbert")), tiny("distilbert"), "cache")
    no(good, t5, "encoder-decoder")
    no(replace(good, keys={"cross": keys}, values={"cross": values}), None, "encoder-decoder")
    both: Any = {"keys": {"encoder": keys, "decoder": keys}, "values": {"encoder": values, "decoder": values}}
    no(replace(good, **both), None, "encoder-decoder")


# files that torch.save wrote


def test_saved_tensors_are_read_without_unpickling(tmp_path: Path) -> None:
    table = random(6, 4)
    saved: dict[str, Tensor] = {
        "plain": table, "view": table[2:5, 1:], "turned": table.T, "half": table.half(), "brain": table.bfloat16(),
        "whole": torch.arange(5), "double": table.double(), "parameter": torch.nn.Parameter(table), "one": table[1, 2],
    }  # fmt: skip
    torch.save(saved, tmp_path / "a.bin")
    torch.save(OrderedDict(saved), tmp_path / "b.bin")
    for name in ("a.bin", "b.bin"):
        read = interop.read_torch(tmp_path / name)
        assert read.keys() == saved.keys()
        for k, t in saved.items():
            assert read[k].dtype == t.dtype and torch.equal(read[k], t.detach()), k
    with torch.random.fork_rng():
        layer = torch.nn.Linear(3, 2)
    torch.save(layer.state_dict(), tmp_path / "c.bin")
    assert torch.equal(interop.read_torch(tmp_path / "c.bin")["weight"], layer.weight.detach())
    torch.save(table, tmp_path / "d.pt")
    assert torch.equal(interop.load(tmp_path / "d.pt").tensors()["vectors"], table)


class Trap:
    """What a hostile file holds: a call that happens when it is unpickled."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


def archive(path: Path, table: bytes, storage: bytes = b"\0" * 16, squeeze: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", squeeze) as z:
        z.writestr("archive/data.pkl", table)
        z.writestr("archive/data/0", storage)
    return path


def test_a_file_with_code_in_it_runs_nothing(tmp_path: Path) -> None:
    sprung = tmp_path / "sprung"
    for i, protocol in enumerate((0, 2, 4, 5)):
        bad = archive(tmp_path / f"{i}.bin", pickle.dumps({"prompt_embeddings": Trap(sprung)}, protocol=protocol))
        refused(lambda bad=bad: interop.read_torch(bad), "cannot be read as a file of tensors", "safetensors")
    (tmp_path / "adapter_config.json").write_text(json.dumps(CONFIG))
    (tmp_path / "1.bin").rename(tmp_path / "adapter_model.bin")
    refused(lambda: interop.load(tmp_path), "mkdir")
    assert not sprung.exists()
    pickle.loads(pickle.dumps(Trap(sprung)))
    assert sprung.exists(), "the trap does not work, so this tested nothing"


def test_files_of_other_things_are_refused(tmp_path: Path) -> None:
    (tmp_path / "x.bin").write_bytes(pickle.dumps({"a": 1}))
    refused(lambda: interop.read_torch(tmp_path / "x.bin"), "cannot be read")
    refused(lambda: interop.read_torch(tmp_path / "none.bin"), "cannot be read")
    torch.save({"a": 1}, tmp_path / "y.bin")
    refused(lambda: interop.read_torch(tmp_path / "y.bin"), "holds a dict")
    torch.save(torch.zeros(3), tmp_path / "z.bin")
    refused(lambda: interop.load(tmp_path / "z.bin"), "(3,)", "(P, H)")
    torch.save({"a": torch.zeros(2, 3), "b": torch.zeros(2, 3)}, tmp_path / "two.bin")
    refused(lambda: interop.load(tmp_path / "two.bin"), "2 tensors")
    with zipfile.ZipFile(tmp_path / "z.bin") as z:
        table = z.read("z/data.pkl")
    squeezed = archive(tmp_path / "s.bin", table, squeeze=zipfile.ZIP_DEFLATED)
    refused(lambda: interop.read_torch(squeezed), "compressed")
    short = archive(tmp_path / "t.bin", table, b"\0" * 8)
    refused(lambda: interop.read_torch(short), "does not lie inside its storage of 2 values")
    for cut in range(len(table)):
        torn = archive(tmp_path / "u.bin", table[:cut])
        refused(lambda torn=torn: interop.read_torch(torn), "cannot be read")


# what others trained


def dept(r: int = 4, longest: int = 12) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """A small folder of DePT's: configuration and tensors."""
    own = {"peft_type": "PROMPT_TUNING_LORA", "task_type": "SEQ_2_SEQ_LM", "r": r, "lora_alpha": 8}
    low, high = random(longest, r, seed=1), random(r, 32, seed=2)
    return {**CONFIG, **own}, {"prompt_embeddings": random(P, 32), interop._A: low, interop._B: high}


def by_dept(model: Model, tensors: dict[str, Tensor], scale: float, ids: Tensor, mask: Tensor) -> Tensor:
    """DePT's own forward: [prompt ; E(x) + scale * A B], https://arxiv.org/abs/2309.05173."""
    embedded = model.embed(ids) + scale * (tensors[interop._A] @ tensors[interop._B])[: ids.shape[1]]
    vectors = tensors["prompt_embeddings"]
    x = torch.cat([vectors.expand(len(ids), -1, -1), embedded], dim=1)
    seen = torch.cat([mask.new_ones(len(ids), len(vectors)), mask], dim=1)
    with torch.no_grad():
        return model.network(inputs_embeds=x, attention_mask=seen, decoder_input_ids=DECODER).logits


@pytest.mark.parametrize("file", ["adapter_model.safetensors", "adapter_model.bin"])
def test_a_decomposed_prompt_becomes_vectors_and_offsets(file: str, tmp_path: Path) -> None:
    model = tiny("t5")
    config, tensors = dept()
    folder(tmp_path, config, x=random(1))
    (tmp_path / "adapter_model.safetensors").unlink()
    (save_file if file.endswith("safetensors") else torch.save)(tensors, tmp_path / file)
    prompt = interop.load(tmp_path, model)
    assert isinstance(prompt, Soft) and prompt.offset is not None
    torch.testing.assert_close(prompt.offset, 8 / 2 * tensors[interop._A] @ tensors[interop._B])  # alpha / sqrt(4)
    ids, mask = texts()
    ours, bare = by_us(model, prompt, ids, mask), by_us(model, replace(prompt, offset=None), ids, mask)
    same(ours, by_dept(model, tensors, 4.0, ids, mask), bare)


def test_a_decomposed_prompt_that_lacks_something_says_so(tmp_path: Path) -> None:
    config, tensors = dept()
    folder(tmp_path, config, prompt_embeddings=tensors["prompt_embeddings"])
    with pytest.warns(UserWarning, match="incomplete: the low-rank offsets"):
        prompt = interop.load(tmp_path)
    assert isinstance(prompt, Soft) and prompt.offset is None and "offsets" in prompt.card["incomplete"]
    save_file({k: t for k, t in tensors.items() if k != interop._B}, tmp_path / "adapter_model.safetensors")
    refused(lambda: interop.load(tmp_path), "lora_embedding_B")
    save_file({**tensors, interop._B: random(5, 32)}, tmp_path / "adapter_model.safetensors")
    refused(lambda: interop.load(tmp_path), "(5, 32)", "rank 4")


@pytest.fixture
def t5_prompts(shared: Path) -> Path:
    path = shared / "data" / "t5-soft-prompts"
    if not path.is_dir():
        pytest.skip("no folder t5-soft-prompts among the shared data")
    return path


@pytest.fixture(scope="module")
def wide_t5() -> Model:
    """A random T5 of T5-base's width, the only thing that its prompts ask for."""
    return tiny("t5", hidden=768, layers=1)


@pytest.mark.parametrize(("name", "length", "r"), [("cola", 80, 15), ("sst2", 60, 30)])
def test_published_decomposed_prompts_import(name: str, length: int, r: int, t5_prompts: Path, wide_t5: Model) -> None:
    path = t5_prompts / "checkpoints" / name
    prompt = interop.load(path, wide_t5)
    oracle = torch.load(path / "adapter_model.bin", weights_only=True, map_location="cpu")
    assert isinstance(prompt, Soft) and prompt.offset is not None
    assert prompt.vectors.shape == (length, 768) and prompt.offset.shape == (256, 768)
    assert torch.equal(prompt.vectors, oracle["prompt_embeddings"])
    assert "t5-base" in prompt.card["imported"] and interop.load(path).card["model"] == "t5-base"
    ids, mask = texts()
    bare = by_us(wide_t5, replace(prompt, offset=None), ids, mask)
    same(by_us(wide_t5, prompt, ids, mask), by_dept(wide_t5, oracle, 8 / math.sqrt(r), ids, mask), bare)


@pytest.mark.parametrize("name", ["hotpotqa", "nq", "superglue-wic"])
def test_published_prompts_without_their_offsets_import_with_a_warning(
    name: str, t5_prompts: Path, wide_t5: Model
) -> None:
    path = t5_prompts / "checkpoints" / name
    with pytest.warns(UserWarning, match="incomplete"):
        prompt = interop.load(path, wide_t5)
    oracle = torch.load(path / "adapter_model.bin", weights_only=True, map_location="cpu")
    assert torch.equal(prompt.tensors()["vectors"], oracle["prompt_embeddings"]) and prompt.length == 60


def test_published_tensor_files_import(t5_prompts: Path, wide_t5: Model) -> None:
    outputs = t5_prompts / "attempt" / "attempt" / "outputs"
    base, large = outputs / "prompt_tuning", outputs / "prompt_tuning_record"
    prompt = interop.load(base / "record_prefix_embeddings.pt", wide_t5)
    oracle = torch.load(base / "record_prefix_embeddings.pt", weights_only=True, map_location="cpu")
    assert torch.equal(prompt.tensors()["vectors"], oracle) and prompt.length == 100
    refused(lambda: interop.load(large / "record_prefix_embeddings_2b.pt", wide_t5), "1024 values", "hidden size 768")
    assert interop.load(large / "record_prefix_embeddings_2b.pt").tensors()["vectors"].shape == (100, 1024)
