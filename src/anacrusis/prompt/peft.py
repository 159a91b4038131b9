"""PEFT folders in and out: adapter_config.json beside adapter_model.safetensors, as peft.PeftModel saves and loads.

    prompt_embeddings (P, H)               PROMPT_TUNING, P_TUNING, MULTITASK_PROMPT_TUNING   ->  Soft, in front
    prompt_embeddings (P, L * 2 * n * d)   PREFIX_TUNING, CARTRIDGE                           ->  Prefix, shift P
    O = lora_alpha / sqrt(r) * A @ B       PROMPT_TUNING_LORA, A (T_max, r), B (r, H)         ->  Soft with offset O

n: key-value heads, d: values a head; the columns are layer by layer, the keys of a layer before its values. What PEFT
saves is already folded: P-tuning's encoder and prefix tuning's projection are applied. A multitask prompt still needs
its task: p * (cols[task] @ rows[task]). PROMPT_TUNING_LORA is DePT's own type (https://arxiv.org/abs/2309.05173), in a
fork of PEFT.

The peft package is not needed. Nothing is ever unpickled: the .bin and .pt files that torch.save writes are read as
the data that they are, by `read_torch`, which knows tensors and dictionaries of tensors and refuses everything else.
"""

from __future__ import annotations

import inspect
import json
import math
import os
import pickletools
import warnings
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from ..errors import PromptError
from .store import check, write_json, write_text
from .values import Frame, Prefix, Prompt, Soft

SOFT = ("PROMPT_TUNING", "P_TUNING", "MULTITASK_PROMPT_TUNING", "PROMPT_TUNING_LORA")
PREFIX = ("PREFIX_TUNING", "CARTRIDGE")
TASK_TYPES = {  # by Model.arrangement; PEFT has no type of its own for masked models, this one returns their logits
    "causal": "CAUSAL_LM",
    "encoder-decoder": "SEQ_2_SEQ_LM",
    "masked": "FEATURE_EXTRACTION",
    "encoder": "FEATURE_EXTRACTION",
}
_TWO_STACKS = (
    "PEFT's prefix tuning of encoder-decoders reaches only the decoder's self-attention, uses half of what it trains, "
    "in another order of layers, and gives its columns T5's relative position bias. Anacrusis has no such prompt"
)
_A, _B = "prompt_encoder.lora_embedding_A", "prompt_encoder.lora_embedding_B"


# in


def load(
    folder: str | os.PathLike[str],
    model: Any = None,
    frame: Frame | None = None,
    *,
    task: int | None = None,
    drop_head: bool = False,
) -> Prompt:
    """A prompt from a PEFT folder, or from a single file that holds one (P, H) tensor.

    model: the Model that the prompt is for. It gives the card its name and fingerprint, and every shape is checked
        against it. Without one the card names what the folder names, and shapes are checked when the prompt is used.
    frame: how examples are laid out and answers read; PEFT does not record it. Its place is "front", where PEFT puts
        vectors: before everything, the model's first special token included.
    task: which task of a multitask prompt. drop_head: leave out a classifier that was trained along.
    Raises PromptError when the folder is damaged, of another type, or does not fit the model.
    """
    path = Path(folder)
    if path.is_file():
        return _bare(path, model, frame)
    config = _config(path)
    kind, task_type, base = (config.get(k) for k in ("peft_type", "task_type", "base_model_name_or_path"))
    if kind not in (*SOFT, *PREFIX):
        raise PromptError(f"{path} is a PEFT folder of type {kind}; these can be read: {', '.join((*SOFT, *PREFIX))}")
    if model is not None and task_type in ("CAUSAL_LM", "SEQ_2_SEQ_LM") and task_type != TASK_TYPES[model.arrangement]:
        raise PromptError(f"{path} is for {base or 'a model'} as {task_type}; {model.name} is {model.arrangement}")
    tensors = _weights(path)
    own = {"prompt_embeddings", "prefix_task_cols", "prefix_task_rows", _A, _B}
    if (more := sorted(set(tensors) - own)) and not drop_head:
        raise PromptError(
            f"{path} also holds {', '.join(more[:4])}: a classifier or other weights that were trained along. Leave "
            "them out with drop_head=True, and give a frame that reads answers in another way."
        )
    _want(tensors, "prompt_embeddings", path)
    card: dict[str, Any] = {
        "model": model.name if model is not None else base,
        "imported": f"PEFT {kind}, {task_type or 'no task type'}, base model {base or 'not recorded'}",
        "task_type": task_type,
    }
    if model is not None:
        card["fingerprint"] = model.fingerprint
    card = {k: v for k, v in card.items() if v}
    if kind in PREFIX:
        keys, values = _layers(path, config, tensors["prompt_embeddings"], model)
        P = int(next(iter(keys.values()))[0].shape[1])
        if note := _window(model, P):
            card["note"] = note
        return Prefix(keys=keys, values=values, shift=P, frame=frame or _frame(task_type), card=card)
    vectors, offset = _vectors(path, config, tensors, task, card)
    _fits(vectors, model, path)
    return Soft(vectors=vectors, offset=offset, frame=_front(frame, task_type), card=card)


def _bare(path: Path, model: Any, frame: Frame | None) -> Prompt:
    """A file with one matrix, such as those that ATTEMPT publishes."""
    found = read_tensors(path)
    if len(found) != 1:
        raise PromptError(f"{path} holds {len(found)} tensors; expected one of shape (P, H), or give a PEFT folder")
    vectors = next(iter(found.values())).float()
    if vectors.dim() != 2:
        raise PromptError(f"{path} holds a tensor of shape {tuple(vectors.shape)}; expected (P, H)")
    _fits(vectors, model, path)
    card = {"imported": f"the tensor file {path.name}"}
    if model is not None:
        card |= {"model": model.name, "fingerprint": model.fingerprint}
    return Soft(vectors=vectors, frame=_front(frame, None), card=card)


def _config(path: Path) -> dict[str, Any]:
    file = path / "adapter_config.json"
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise PromptError(f"{path} is no PEFT folder: adapter_config.json is missing") from None
    except (OSError, ValueError) as error:
        raise PromptError(f"{file} is damaged: {error}") from error
    if not isinstance(config, dict):
        raise PromptError(f"{file} is damaged: expected an object, got {type(config).__name__}")
    return config


def _weights(path: Path) -> dict[str, Tensor]:
    for name in ("adapter_model.safetensors", "adapter_model.bin"):
        if (path / name).exists():
            return read_tensors(path / name)
    raise PromptError(f"{path} has no weights: neither adapter_model.safetensors nor adapter_model.bin is there")


def _want(tensors: Mapping[str, Tensor], name: str, path: Path) -> Tensor:
    if name not in tensors:
        raise PromptError(f"{path} has no tensor {name}; it has: {', '.join(sorted(tensors)) or 'none'}")
    return tensors[name].float()


def _count(config: Mapping[str, Any], name: str, path: Path) -> int:
    """A positive whole number of adapter_config.json."""
    value = config.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise PromptError(f"{path}: {name} in adapter_config.json is {value!r}; expected a whole number above 0")
    return value


def _vectors(
    path: Path, config: Mapping[str, Any], tensors: Mapping[str, Tensor], task: int | None, card: dict[str, Any]
) -> tuple[Tensor, Tensor | None]:
    """(P, H) vectors and (T_max, H) offsets or None; adds to the card what should be known about them."""
    vectors, P = _want(tensors, "prompt_embeddings", path), _count(config, "num_virtual_tokens", path)
    two = config.get("num_transformer_submodules") == 2 or (
        config.get("num_transformer_submodules") is None and config.get("task_type") == "SEQ_2_SEQ_LM"
    )
    rows = 2 * P if two else P
    if vectors.dim() != 2 or vectors.shape[0] != rows:
        raise PromptError(
            f"{path}: prompt_embeddings is {tuple(vectors.shape)}; the configuration's {P} virtual tokens"
            f"{' in two stacks' if two else ''} make it ({rows}, H)"
        )
    kind = config["peft_type"]
    if task is not None and kind != "MULTITASK_PROMPT_TUNING":
        raise PromptError(f"task is {task}, but {path} is of type {kind}: one prompt for all")
    if kind == "MULTITASK_PROMPT_TUNING":
        if two:
            raise PromptError(
                f"{path}: this multitask prompt also stands before the decoder's input, where Anacrusis puts none"
            )
        cols, lines = _want(tensors, "prefix_task_cols", path), _want(tensors, "prefix_task_rows", path)
        tasks, r, H = cols.shape[0], cols.shape[-1], vectors.shape[1]
        if cols.shape != (tasks, P, r) or lines.shape != (tasks, r, H):
            raise PromptError(
                f"{path}: prefix_task_cols is {tuple(cols.shape)} and prefix_task_rows {tuple(lines.shape)}; {P} "
                f"virtual tokens of {H} values make them (tasks, {P}, r) and (tasks, r, {H})"
            )
        if task is None and tasks > 1:
            raise PromptError(f"{path} holds prompts for {tasks} tasks; say which: task=0 to {tasks - 1}")
        if not 0 <= (task or 0) < tasks:
            raise PromptError(f"task is {task}; {path} holds tasks 0 to {tasks - 1}")
        vectors = vectors * (cols[task or 0] @ lines[task or 0])
    if two:  # in PEFT's forward and generate, too, only the encoder's rows are read
        card["note"] = f"PEFT stored a second table of {P} vectors for the decoder, which it never reads: left out"
        vectors = vectors[:P].clone()
    if kind != "PROMPT_TUNING_LORA":
        return vectors, None
    if _A not in tensors and _B not in tensors:
        card["incomplete"] = "the low-rank offsets (lora_embedding_A, _B) were not saved with the vectors"
        warnings.warn(f"{path} is incomplete: {card['incomplete']}. Expect lower scores than published.", stacklevel=3)
        return vectors, None
    low, high = _want(tensors, _A, path), _want(tensors, _B, path)
    r = _count(config, "r", path)
    if low.shape[1:] != (r,) or high.shape != (r, vectors.shape[1]):
        raise PromptError(
            f"{path}: lora_embedding_A is {tuple(low.shape)} and _B {tuple(high.shape)}; rank {r} and hidden size "
            f"{vectors.shape[1]} make them (T_max, {r}) and ({r}, {vectors.shape[1]})"
        )
    return vectors, _count(config, "lora_alpha", path) / math.sqrt(r) * (low @ high)


def _layers(
    path: Path, config: Mapping[str, Any], flat: Tensor, model: Any
) -> tuple[dict[str, tuple[Tensor, ...]], dict[str, tuple[Tensor, ...]]]:
    """Keys and values by stack from (P, L * 2 * heads * d)."""
    task_type = config.get("task_type")
    if task_type == "SEQ_2_SEQ_LM" or config.get("num_transformer_submodules") == 2:
        raise PromptError(f"{path}: {_TWO_STACKS}; fit a prefix here instead.")
    if model is not None:
        stack, L, heads, dim = _attentions(model)
    elif task_type == "CAUSAL_LM":
        stack = "decoder"
    else:
        raise PromptError(f"{path} has task type {task_type}, which does not say what kind of model it is for: give it")
    P = _count(config, "num_virtual_tokens", path)
    said = [_count(config, k, path) for k in ("num_layers", "num_attention_heads", "token_dim")]
    said[2] //= said[1]
    if flat.shape != (P, said[0] * 2 * said[1] * said[2]):
        raise PromptError(
            f"{path}: prompt_embeddings is {tuple(flat.shape)}; the configuration's {P} virtual tokens, {said[0]} "
            f"layers, 2 x {said[1]} heads of {said[2]} values make it {(P, said[0] * 2 * said[1] * said[2])}"
        )
    if model is not None and said != [L, heads, dim]:
        raise PromptError(
            f"{path} has keys for {said[0]} layers of {said[1]} heads x {said[2]}; {model.name} has {L} layers of "
            f"{heads} heads x {dim}. Open the model that it was trained on: {config.get('base_model_name_or_path')}"
        )
    both = flat.float().view(P, said[0] * 2, said[1], said[2]).permute(1, 2, 0, 3)
    side = lambda i: {stack: tuple(t.contiguous() for t in both[i::2])}  # noqa: E731
    return side(0), side(1)


def _attentions(model: Any) -> tuple[str, int, int, int]:
    """(stack, layers, key-value heads, values a head) of a model that takes a PEFT prefix."""
    if model.arrangement == "encoder-decoder":
        raise PromptError(f"{model.name} is an encoder-decoder. {_TWO_STACKS}.")
    if not model.sites or not model.takes_positions:
        raise PromptError(f"{model.name} takes no keys and values per layer, or no positions, from outside")
    if "past_key_values" not in inspect.signature(model.network.base_model.forward).parameters:
        raise PromptError(f"PEFT's prefixes enter through a cache, and {type(model.network).__name__} has none")
    kinds = {(s.stack, s.heads, s.dim) for s in model.sites}
    if len(kinds) > 1:
        raise PromptError(f"the layers of {model.name} differ in heads; PEFT's flat prefix cannot say so")
    stack, heads, dim = next(iter(kinds))
    return stack, len(model.sites), heads, dim


def _fits(vectors: Tensor, model: Any, path: Path | str) -> None:
    if model is not None and vectors.shape[-1] != model.hidden:
        raise PromptError(
            f"{path} has vectors of {vectors.shape[-1]} values; {model.name} has hidden size {model.hidden}"
        )


def _window(model: Any, P: int) -> str:
    window = getattr(model.config, "sliding_window", None) if model is not None else None
    if window is None:
        return ""
    return (
        f"PEFT's prefix slides out of view when more than {window} positions, {P} of the prefix included, have passed "
        "(sliding-window attention); Anacrusis keeps it in view. Up to there both compute the same."
    )


def _frame(task_type: str | None) -> Frame:
    return Frame(readout="generate" if task_type in ("CAUSAL_LM", "SEQ_2_SEQ_LM") else "similarity")


def _front(frame: Frame | None, task_type: str | None) -> Frame:
    frame = frame or _frame(task_type)
    if frame.place not in ("front", "auto"):
        raise PromptError(f"the frame's place is {frame.place}; PEFT's vectors stand in front of everything")
    if "{soft" in frame.template:
        raise PromptError(
            f"the template {frame.template!r} has a place for vectors; PEFT's stand in front of everything"
        )
    return replace(frame, place="front")


# out


def export(
    prompt: Prompt,
    folder: str | os.PathLike[str],
    model: Any = None,
    *,
    task_type: str | None = None,
    drop_head: bool = False,
) -> Path:
    """Write a Soft prompt as a PROMPT_TUNING folder, a Prefix as PREFIX_TUNING: peft.PeftModel.from_pretrained(network,
    folder) then computes what we compute. The frame, which PEFT cannot hold, goes into README.md as words.

    model: the Model that the prompt is for; it says which of PEFT's task types applies, and shapes are checked against
        it. Without one, task_type says it ("CAUSAL_LM", "SEQ_2_SEQ_LM", "FEATURE_EXTRACTION").
    drop_head: leave out the prompt's head, which PEFT cannot hold.
    Raises PromptError when the prompt cannot be said in PEFT, and why.
    """
    if prompt.head is not None and not drop_head:
        raise PromptError("this prompt has a head, which a PEFT prompt cannot hold; drop_head=True leaves it out")
    if model is not None:
        check(prompt, model.name, model.fingerprint)
        task_type = TASK_TYPES[model.arrangement]
    known = sorted(set(TASK_TYPES.values()))
    if task_type is None and prompt.card.get("task_type") in known:
        task_type = prompt.card["task_type"]
    if task_type is not None and task_type not in known:
        raise PromptError(f"task_type is {task_type!r}; a prompt without a classifier is one of {', '.join(known)}")
    if isinstance(prompt, Soft):
        kind, flat, shape = "PROMPT_TUNING", *_say_soft(prompt, model, task_type)
    elif isinstance(prompt, Prefix):
        if task_type is None:  # an encoder's task types compute the same
            task_type = "CAUSAL_LM" if "decoder" in prompt.keys else "FEATURE_EXTRACTION"
        kind, flat, shape = "PREFIX_TUNING", *_say_prefix(prompt, model, task_type)
        shape |= {"prefix_projection": False, "encoder_hidden_size": shape["token_dim"]}
    else:
        raise PromptError(f"a {prompt.kind} prompt cannot be written for PEFT; Soft and Prefix can")
    if task_type is None:
        raise PromptError(
            f"which of PEFT's task types is it for? Give the model (--model), or task_type= one of {', '.join(known)}"
        )
    name = (getattr(model.network, "name_or_path", "") or model.name) if model is not None else prompt.card.get("model")
    record = {
        "peft_type": kind,
        "task_type": task_type,
        "base_model_name_or_path": name,
        "inference_mode": True,
        "num_virtual_tokens": int(flat.shape[0]),
        "num_transformer_submodules": 1,
        **shape,
    }
    path = Path(folder)
    path.mkdir(parents=True, exist_ok=True)
    partial = path / "adapter_model.safetensors.part"
    save_file({"prompt_embeddings": flat.detach().float().cpu().contiguous()}, partial, metadata={"format": "pt"})
    os.replace(partial, path / "adapter_model.safetensors")
    write_json(path / "adapter_config.json", record)
    if not (path / "prompt.json").exists():  # then README.md is the prompt's own
        write_text(path / "README.md", _readme(prompt, record, _window(model, len(flat)) if kind in PREFIX else ""))
    return path


def _say_soft(prompt: Soft, model: Any, task_type: str | None) -> tuple[Tensor, dict[str, Any]]:
    """(P, H) and the configuration's entries on shape."""
    if prompt.offset is not None:
        raise PromptError("this prompt also changes the input's embeddings (Soft.offset); PEFT only adds vectors")
    if prompt.vectors.dim() != 2:
        raise PromptError("this prompt has other vectors for every row; PEFT has one set for all")
    if not prompt.length:
        raise PromptError("this prompt has no vectors; PEFT needs at least one")
    place = "slots" if "{soft" in prompt.frame.template else prompt.frame.place
    if place == "auto":
        if model is None and task_type not in ("CAUSAL_LM", "SEQ_2_SEQ_LM"):
            raise PromptError('the frame\'s place is "auto", which depends on the model: give it (--model)')
        place = "after-bos" if model is not None and model.arrangement in ("encoder", "masked") else "front"
    if place == "after-bos" and model is not None and not model.renderer(prompt.frame).specials[0]:
        place = "front"  # this model's texts begin with no special token
    if place != "front":
        raise PromptError(
            f"this prompt's place is {place}; PEFT puts vectors in front of everything, which gives other results"
        )
    _fits(prompt.vectors, model, "the prompt")
    config = model.config if model is not None else None
    return prompt.vectors, {
        "token_dim": int(prompt.vectors.shape[1]),
        "num_layers": getattr(config, "num_hidden_layers", None),
        "num_attention_heads": getattr(config, "num_attention_heads", None),
        "prompt_tuning_init": "RANDOM",
    }


def _say_prefix(prompt: Prefix, model: Any, task_type: str | None) -> tuple[Tensor, dict[str, Any]]:
    """(P, L * 2 * heads * d) and the configuration's entries on shape. PEFT says key-value heads where it says heads,
    and their values together where it says token_dim."""
    if task_type == "SEQ_2_SEQ_LM" or len(prompt.keys) != 1 or "cross" in prompt.keys:
        raise PromptError(f"this prefix is for an encoder-decoder. {_TWO_STACKS}.")
    (stack, keys), values = next(iter(prompt.keys.items())), next(iter(prompt.values.values()))
    shapes = {tuple(t.shape) for t in (*keys, *values)}
    if any(len(s) == 4 for s in shapes) or prompt.seen:
        raise PromptError("this prefix differs by row; PEFT has one for all rows")
    if len(shapes) != 1:
        raise PromptError(
            f"the layers of this prefix differ in shape ({', '.join(map(str, sorted(shapes)))}); PEFT has one length "
            "and one number of heads for all layers"
        )
    heads, P, dim = next(iter(shapes))
    if not P:
        raise PromptError("this prefix has no columns; PEFT needs at least one")
    if int(prompt.shift) != P:
        raise PromptError(
            f"this prefix moves the text's positions by {int(prompt.shift)}; in PEFT the text begins at position {P}, "
            "after the prefix, which gives other results. Fit it with shift = its length."
        )
    if model is not None and (own := _attentions(model)) != (stack, len(keys), heads, dim):
        raise PromptError(
            f"this prefix has {len(keys)} {stack} layers of {heads} heads x {dim}; {model.name} has {own[1]} {own[0]} "
            f"layers of {own[2]} heads x {own[3]}"
        )
    both = torch.stack([t for pair in zip(keys, values, strict=True) for t in pair])  # (2 L, heads, P, d)
    flat = both.permute(2, 0, 1, 3).reshape(P, -1)
    return flat, {"token_dim": heads * dim, "num_layers": len(keys), "num_attention_heads": heads}


def _readme(prompt: Prompt, record: Mapping[str, Any], note: str) -> str:
    """PEFT's model card, with what the configuration cannot say: how an example is laid out and answered."""
    frame, base = prompt.frame, record["base_model_name_or_path"]
    lines = ["---", "library_name: peft", *([f"base_model: {json.dumps(base)}"] if base else []), "---", ""]
    lines += [f"# A {record['peft_type']} prompt of {record['num_virtual_tokens']} virtual tokens", ""]
    lines += ["Written by Anacrusis. PEFT does not record how a text is laid out; this prompt was learned so:", ""]
    said: dict[str, Any] = {"template": frame.template, "instruction": frame.instruction, "read by": frame.readout}
    if frame.labels:
        said["classes"] = dict(zip(frame.labels, frame.words or frame.labels, strict=True))
    if frame.demonstrations:
        said["demonstrations"] = frame.demonstrations
    lines += [f"- {k}: `{json.dumps(v, ensure_ascii=False)}`" for k, v in said.items() if v]
    if record["peft_type"] == "PROMPT_TUNING":
        lines += ["", "Pad on the right: PEFT counts the positions of soft prompts over left padding."]
    return "\n".join([*lines, *(["", note] if note else []), ""])


# files


def read_tensors(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """Tensors by name from a .safetensors file or from one that torch.save wrote; a lone tensor is named "tensor"."""
    path = Path(path)
    if path.suffix != ".safetensors":
        return read_torch(path)
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise PromptError(f"{path} is missing or damaged: {error}") from error


_STORAGES = {
    f"torch {name}Storage": dtype
    for name, dtype in (
        ("Float", torch.float32),
        ("Double", torch.float64),
        ("Half", torch.float16),
        ("BFloat16", torch.bfloat16),
        ("Long", torch.int64),
        ("Int", torch.int32),
    )
}
_TENSOR, _PARAMETER, _DICT = (
    "torch._utils _rebuild_tensor_v2",
    "torch._utils _rebuild_parameter",
    "collections OrderedDict",
)


@dataclass(frozen=True)
class _Name:
    """A class or function that the file names. It is compared with the few known ones; it is never looked up."""

    said: str


@dataclass(frozen=True)
class _Storage:
    dtype: torch.dtype
    entry: str


@dataclass
class _Listing:
    """Reads the table of contents of a torch.save file: which tensor is where in which storage.

    The table is a pickle. Only its opcodes are parsed (pickletools.genops, which runs nothing), and only those that
    tables of tensors consist of are understood. Nothing is imported, called or constructed but dictionaries, tuples,
    numbers, texts and tensors.
    """

    archive: zipfile.ZipFile
    folder: str
    stack: list[Any] = field(default_factory=list)
    memo: dict[int, Any] = field(default_factory=dict)
    marks: list[int] = field(default_factory=list)
    storages: dict[str, Tensor] = field(default_factory=dict)

    def read(self, table: bytes) -> Any:
        for op, arg, _ in pickletools.genops(table):
            self._step(op.name, arg)
        (whole,) = self.stack
        return whole

    def _step(self, op: str, arg: Any) -> None:
        stack = self.stack
        if op in ("PROTO", "STOP"):
            pass
        elif op == "MARK":
            self.marks.append(len(stack))
        elif op in ("BINPUT", "LONG_BINPUT"):
            self.memo[arg] = stack[-1]
        elif op in ("BINGET", "LONG_BINGET"):
            stack.append(self.memo[arg])
        elif op in ("BINUNICODE", "BININT", "BININT1", "BININT2", "LONG1"):
            stack.append(arg)
        elif op in ("NEWTRUE", "NEWFALSE", "NONE"):
            stack.append({"NEWTRUE": True, "NEWFALSE": False}.get(op))
        elif op in ("EMPTY_DICT", "EMPTY_TUPLE"):
            stack.append({} if op == "EMPTY_DICT" else ())
        elif op in ("TUPLE", "TUPLE1", "TUPLE2", "TUPLE3"):
            stack.append(tuple(self._take(self.marks.pop() if op == "TUPLE" else len(stack) - int(op[-1]))))
        elif op in ("SETITEM", "SETITEMS"):
            items = self._take(self.marks.pop() if op == "SETITEMS" else len(stack) - 2)
            if not all(isinstance(k, str) for k in items[::2]):
                raise PromptError("it has names that are no texts")
            stack[-1].update(zip(items[::2], items[1::2], strict=True))
        elif op == "GLOBAL":
            stack.append(_Name(arg))
        elif op == "BINPERSID":
            _, name, key, *_ = stack.pop()
            stack.append(_Storage(_STORAGES[self._known(name, _STORAGES)], f"{self.folder}data/{key}"))
        elif op == "REDUCE":
            arguments, name = stack.pop(), stack.pop()
            made = self._known(name, (_TENSOR, _PARAMETER, _DICT))
            stack.append({} if made == _DICT else arguments[0] if made == _PARAMETER else self._tensor(*arguments))
        elif op == "BUILD":  # a state_dict's _metadata
            stack.pop()
            if not isinstance(stack[-1], dict):
                raise PromptError("it sets the state of something that is no dictionary")
        else:
            raise PromptError(f"its table of contents has the opcode {op}, which tables of tensors do not have")

    def _take(self, start: int) -> list[Any]:
        items = self.stack[start:]
        del self.stack[start:]
        return items

    @staticmethod
    def _known(name: Any, known: Any) -> str:
        if not isinstance(name, _Name) or name.said not in known:
            raise PromptError(f"it asks for {name.said if isinstance(name, _Name) else name!r}, which is no tensor")
        return name.said

    def _tensor(self, storage: _Storage, start: int, shape: Sequence[int], stride: Sequence[int], *_: Any) -> Tensor:
        if storage.entry not in self.storages:
            raw = torch.frombuffer(bytearray(_stored(self.archive, storage.entry)), dtype=storage.dtype)
            self.storages[storage.entry] = raw
        raw = self.storages[storage.entry]
        if raw.dtype != storage.dtype:
            raise PromptError("two tensors read one storage as different types")
        last = start + sum((n - 1) * s for n, s in zip(shape, stride, strict=True))
        if min((start, *shape, *stride)) < 0 or last >= len(raw) or math.prod(shape) > len(raw):
            raise PromptError(f"a tensor of shape {tuple(shape)} does not lie inside its storage of {len(raw)} values")
        return raw.as_strided(tuple(shape), tuple(stride), start)


def _stored(archive: zipfile.ZipFile, name: str, most: int | None = None) -> bytes:
    """An entry of the archive, which torch.save does not compress."""
    entry = archive.getinfo(name)
    if entry.compress_type != zipfile.ZIP_STORED or entry.file_size > (most or entry.file_size):
        raise PromptError(f"{name} is compressed or too large")
    return archive.read(entry)


def read_torch(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """Tensors from a file that torch.save wrote (since torch 1.6), without unpickling: see _Listing.

    Raises PromptError for anything but a tensor or a dictionary of tensors.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            tables = [n for n in archive.namelist() if n.count("/") == 1 and n.endswith("/data.pkl")]
            if len(tables) != 1:
                raise PromptError("it has no data.pkl")
            folder = tables[0].removesuffix("data.pkl")
            if folder + "byteorder" in archive.namelist() and _stored(archive, folder + "byteorder", 16) != b"little":
                raise PromptError("its numbers are big-endian")
            whole = _Listing(archive, folder).read(_stored(archive, tables[0], 1 << 24))
    except (PromptError, OSError, EOFError, ArithmeticError, LookupError, TypeError, ValueError, RuntimeError,
            AttributeError, zipfile.BadZipFile) as error:  # fmt: skip
        raise PromptError(
            f"{path} cannot be read as a file of tensors: {error}. Files with code in them are not read; convert it "
            "to safetensors where it comes from."
        ) from error
    named = {"tensor": whole} if isinstance(whole, Tensor) else whole
    if not isinstance(named, dict) or not all(isinstance(v, Tensor) for v in named.values()):
        raise PromptError(f"{path} holds a {type(whole).__name__}; expected a tensor or a dictionary of tensors")
    return named
