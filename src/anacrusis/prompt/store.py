"""A prompt as a folder: prompt.json (kind, frame, card), prompt.safetensors (tensors), README.md (for people)."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from ..errors import PromptError, did_you_mean
from .values import KINDS, Frame, Prompt

FORMAT = 1


def save(prompt: Prompt, folder: str | os.PathLike[str]) -> Path:
    """Write `prompt` into `folder`, which may exist: its three files are replaced, each in one step."""
    path = Path(folder)
    path.mkdir(parents=True, exist_ok=True)
    prompt = prompt.detached()
    record = {
        "format": FORMAT,
        "kind": prompt.kind,
        "frame": prompt.frame.to_json(),
        "meta": prompt.meta(),
        "card": dict(prompt.card),
    }
    tensors = {k: t.contiguous() for k, t in prompt.tensors().items()}
    partial = path / "prompt.safetensors.part"
    save_file(tensors, partial, metadata={"format": "pt", "anacrusis": str(FORMAT)})
    os.replace(partial, path / "prompt.safetensors")
    write_json(path / "prompt.json", record)
    write_text(path / "README.md", readme(prompt))
    return path


def load(folder: str | os.PathLike[str]) -> Prompt:
    """Read a folder that `save` wrote. Raises PromptError when something is missing, damaged or of another format."""
    path = Path(folder)
    file = path / "prompt.json"
    if not file.exists():
        if (path / "adapter_config.json").exists():
            raise PromptError(f"{path} is a PEFT folder. Bring it in first: anacrusis import {path} --model MODEL")
        raise PromptError(f"no prompt in {path}: prompt.json is missing. `anacrusis fit` writes such folders.")
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise PromptError(f"{file} is damaged: {error}") from error
    if not isinstance(record, dict) or record.get("format") != FORMAT:
        said = record.get("format") if isinstance(record, dict) else None
        raise PromptError(f"{file} has format {said!r}; this version of anacrusis reads format {FORMAT}")
    if record.get("kind") not in KINDS:
        raise PromptError(f"{file}: unknown kind {record.get('kind')!r}.{did_you_mean(str(record.get('kind')), KINDS)}")
    try:
        tensors = load_file(path / "prompt.safetensors")
    except (FileNotFoundError, SafetensorError) as error:
        raise PromptError(f"{path / 'prompt.safetensors'} is missing or damaged: {error}") from error
    try:
        return KINDS[record["kind"]].from_parts(
            record["meta"], tensors, frame=Frame.from_json(record["frame"]), card=record["card"]
        )
    except KeyError as error:
        raise PromptError(f"{path}: prompt.json names the tensor or entry {error}, which is not there") from error


def check(prompt: Prompt, name: str, fingerprint: str) -> None:
    """Refuse a model that the prompt was not learned for (prompts without a fingerprint fit any)."""
    learned = prompt.card.get("fingerprint")
    if learned and learned != fingerprint:
        raise PromptError(
            f"this prompt was learned for {prompt.card.get('model', 'another model')} (fingerprint {learned}), "
            f"not for {name} (fingerprint {fingerprint}). Open the model that it names, or fit a new prompt."
        )


def readme(prompt: Prompt) -> str:
    """The folder's card, for people: how it was learned, on what, its scores, how to use it."""
    card: Mapping[str, Any] = prompt.card
    lines = [f"# {card.get('task', 'A learned prompt')}", ""]
    lines.append(f"A `{prompt.kind}` prompt of {prompt.size:,} stored values, for the frozen model")
    lines.append(f"`{card.get('model', 'not recorded')}` (fingerprint `{card.get('fingerprint', 'not recorded')}`).")
    lines += ["", "| | |", "|---|---|"]
    for key, value in card.items():
        if key in ("scores", "config", "training"):
            continue
        lines.append(f"| {key} | {value} |")
    for group in ("config", "training"):
        for key, value in dict(card.get(group, {})).items():
            lines.append(f"| {group}: {key} | {value} |")
    if scores := card.get("scores"):
        lines += ["", "| split | metric | score | 95 % interval | n |", "|---|---|---|---|---|"]
        for s in scores:
            lines.append(
                f"| {s['split']} | {s['metric']} | {s['value']:.3f} | {s['low']:.3f} to {s['high']:.3f} | {s['n']} |"
            )
    if prompt.frame.labels:
        lines += ["", "Classes: " + ", ".join(prompt.frame.labels) + "."]
    lines += ["", "```python", "import anacrusis as ana", 'ana.load("THIS FOLDER").predict(["..."])', "```", ""]
    return "\n".join(lines)


def write_text(path: Path, text: str) -> None:
    """Replace a file in one step, so that a crash leaves the old one or the new one."""
    partial = path.with_name(path.name + ".part")
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, path)


def write_json(path: Path, record: Any) -> None:
    write_text(path, json.dumps(record, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
