"""What the methods for pictures gain on builtin:tiny-clip: the tables of docs/images.md.

    python -m reference.prove_images run [--only base-to-new,few-shots,shift] [--methods a,b] [--seeds 5] [--out F]
    python -m reference.prove_images table

Base to new: 24 classes (a colour and a shape) drawn in a style that the model has never seen, 16 pictures of each of
the 12 base classes to learn from and 4 to validate on, 20 of each class to test. Every method is learned on the base
classes with its own defaults, and scored on the base classes and, by their names alone, on the others. A seed draws
classes, pictures and starts anew.

Few shots: the same with 4 pictures a class in a style that the model knows better, where there is little to win and
something to lose on the new classes.

Shift: the methods that learn while in use, on pictures of a style never seen and on corrupted ones, beside the same
model without adapting. Their settings were chosen on other seeds.

Results are kept by line, so that a run that was stopped goes on.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

import anacrusis as ana
from anacrusis import pictures
from anacrusis.measure.predict import scores
from anacrusis.model.frames import default_frame
from anacrusis.pictures import COLOURS, SHAPES
from anacrusis.prompt.values import for_classes
from anacrusis.registry import all_methods, get
from anacrusis.runs.run import divide
from anacrusis.task import Split, Task
from anacrusis.task.corruptions import corrupted
from anacrusis.task.shift import base_to_new, harmonic
from anacrusis.tune.recipe import Problem
from anacrusis.tune.trainer import Trainer, seed_of

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "docs" / "images.json"
CLASSES, SHOTS, VALID, TEST = 24, 16, 4, 20
STYLE = "night"  # of base to new
SHIFTS = ("night", "gaussian-noise-4", "darkness-4")  # of the methods that adapt
LEARNED = ("coop", "cocoop", "kgcoop", "prograd", "pre", "dapt", "rpo", "ivlp", "maple", "promptsrc", "upt", "dpt",
           "vpt", "gated", "condensation", "dpl", "visual-prompting", "pixel-network", "tai-dpt")  # fmt: skip
YARDSTICKS = ("zero-shot", "zero-shot-ensemble", "linear-probe", "tip-adapter")
ADAPTING = ("tpt", "difftpt", "dynaprompt", "vpa", "tfup")
SETTINGS: dict[str, dict[str, str]] = {  # of the methods that adapt: chosen on seeds that are not shown
    "zero-shot-ensemble": {"ensemble": "true"},
    "tpt": {"views": "32", "share": "0.2", "smallest": "0.85", "lr": "0.1"},
    "dynaprompt": {"views": "32", "share": "0.2", "smallest": "0.85", "lr": "0.1", "size": "6"},
    "difftpt": {"views": "32", "smallest": "0.85", "lr": "0.1"},
    "vpa": {"views": "16"},
}


FEW, FEW_STYLE = 4, "outline"
KEEPING = ("coop", "cocoop", "kgcoop", "prograd", "ivlp", "maple", "promptsrc")  # of few shots


def drawn(names: list[tuple[str, str]], each: int, style: str, seed: str) -> tuple[list[np.ndarray], list[str]]:
    rng = random.Random(seed)
    found, labels = [], []
    for colour, shape in names:
        for _ in range(each):
            scene = pictures.scene(rng, colour=colour, shape=shape, count=1)
            found.append(pictures.draw(scene, rng, 64, style))
            labels.append(f"{colour} {shape}")
    return found, labels


def task_of(style: str, seed: int, shots: int = SHOTS) -> Task:
    names = random.Random(f"classes {seed}").sample(list(itertools.product(COLOURS, SHAPES)), CLASSES)
    return Task.from_arrays(
        *drawn(names, shots, style, f"train {seed}"), valid=drawn(names, VALID, style, f"valid {seed}"),
        test=drawn(names, TEST, style, f"test {seed}"), name=f"{style}-{seed}", split=Split(seed=seed),
    )  # fmt: skip


def shifted(shift: str, seed: int) -> Task:
    """A style that was never seen, or a corruption of the one that was seen most, as "fog-4"."""
    name, _, severity = shift.rpartition("-")
    task = corrupted(task_of("flat", seed), name, int(severity), seed) if severity.isdigit() else task_of(shift, seed)
    return replace(task, test=task.test[::2])  # adapting to a picture costs as much as reading a hundred


def captions(task: Task, seed: int) -> Task:
    """As many sentences about each class as it has pictures, for the method that learns from texts alone."""
    rng, texts, labels = random.Random(f"captions {seed}"), [], []
    for label in task.labels:
        colour, shape = label.split(" ")
        for _ in range(SHOTS + VALID + 4):
            scene = pictures.scene(rng, colour=colour, shape=shape, count=1)
            texts.append(pictures.caption(scene, rng, ["shape", "colour", rng.choice(("size", "background"))])[0])
            labels.append(label)
    return Task.from_lists(texts, labels, words=dict(zip(task.labels, task.words, strict=True)), split=Split(seed=seed))


def learned(name: str, model: Any, task: Task, seed: int) -> tuple[Any, float]:
    """(prompt, seconds): as `fit` does, without a folder."""
    method = get(name.removesuffix("-ensemble"))
    config, training, _ = divide(method, SETTINGS.get(name, {}))
    generator = torch.Generator().manual_seed(seed_of(seed, "build"))
    problem = Problem(model, task, default_frame(model, task), generator, training)  # type: ignore[arg-type]
    began = time.monotonic()
    made = method.build(config, problem)
    if method.engine == "tune":
        made = Trainer(problem, made, seed=seed).fit().prompt
    elif method.engine == "adapt":
        from anacrusis.adapt.prompts import keep

        made = keep(made, method.name, config)
    return made, time.monotonic() - began


def right(prompt: Any, model: Any, task: Task) -> list[int]:
    z = scores(prompt, [e.inputs for e in task.test], model)
    return (z.argmax(1) == torch.tensor([e.gold for e in task.test])).int().tolist()


def run(only: list[str], methods: list[str], seeds: int, out: Path) -> None:
    torch.set_num_threads(1)
    model = ana.open("builtin:tiny-clip")
    done = {(r["what"], r["method"], r["style"], r["seed"]) for r in read(out)}
    for seed in range(seeds):
        for what, names, styles in (
            ("base-to-new", YARDSTICKS + LEARNED, (STYLE,)),
            ("few-shots", ("zero-shot", *KEEPING), (FEW_STYLE,)),
            ("shift", ("zero-shot", *ADAPTING), SHIFTS),
        ):
            if what not in only:
                continue
            for style in styles:
                shots = FEW if what == "few-shots" else SHOTS
                task = shifted(style, seed) if what == "shift" else task_of(style, seed, shots)
                for name in names:
                    if (methods and name not in methods) or (what, name, style, seed) in done:
                        continue
                    record = one(what, name, model, task, style, seed)
                    with out.open("a") as file:
                        file.write(json.dumps(record) + "\n")
                    print({k: v for k, v in record.items() if not isinstance(v, list)}, flush=True)


def one(what: str, name: str, model: Any, task: Task, style: str, seed: int) -> dict[str, Any]:
    record: dict[str, Any] = {"what": what, "method": name, "style": style, "seed": seed}
    if what == "shift":
        prompt, _ = learned(name, model, task, seed)
        began = time.monotonic()
        record["right"] = right(prompt, model, task)
        record["milliseconds"] = round(1000 * (time.monotonic() - began) / len(task.test), 2)
        return record
    base, new = base_to_new(task)
    prompt, seconds = learned(name, model, captions(base, seed) if name == "tai-dpt" else base, seed)
    record |= {"seconds": round(seconds, 1), "right": right(prompt, model, base), "size": prompt.size}
    try:
        record["new"] = right(for_classes(prompt, new.labels, new.words), model, new)
    except ana.errors.PromptError:
        record["new"] = None  # it cannot serve other classes
    return record


def read(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


# --- tables


def interval(values: list[list[int]], against: list[list[int]] | None = None) -> tuple[float, float, float]:
    """Mean over seeds (and, against others, of the paired difference), with the 2.5th and 97.5th percentile of 2000
    resamples of seeds and, within each, of examples."""
    rng = np.random.default_rng(0)
    sets = [np.array(v, float) - (np.array(against[i], float) if against else 0) for i, v in enumerate(values)]
    draws = []
    for _ in range(2000):
        chosen = rng.integers(len(sets), size=len(sets))
        draws.append(np.mean([rng.choice(sets[i], len(sets[i])).mean() for i in chosen]))
    low, high = np.quantile(draws, [0.025, 0.975])
    return float(np.mean([s.mean() for s in sets])), float(low), float(high)


def said(i: tuple[float, float, float], signed: bool = False) -> str:
    form = "+.3f" if signed else ".3f"
    return f"{i[0]:{form}} [{i[1]:{form}}, {i[2]:{form}}]"


def tables(records: list[dict[str, Any]]) -> str:
    def of(what: str, method: str, style: str, key: str = "right") -> list[list[int]]:
        rows = [r for r in records if (r["what"], r["method"], r["style"]) == (what, method, style)]
        return [r[key] for r in sorted(rows, key=lambda r: r["seed"])]

    def halves(what: str, style: str, names: tuple[str, ...]) -> list[str]:
        zero, coop = of(what, "zero-shot", style), of(what, "coop", style, "new")
        bare = of(what, "zero-shot", style, "new")
        out = ["| method | base | gain | new | gain, new | new, against CoOp | H | values | seconds |",
               "|---|---|---|---|---|---|---|---|---|"]  # fmt: skip
        for name in names:
            base = of(what, name, style)
            if len(base) < len(zero):
                continue
            new = of(what, name, style, "new")
            mine = [r for r in records if r["what"] == what and r["method"] == name]
            told = [said(interval(base)), "" if name == "zero-shot" else said(interval(base, zero), True)]
            if all(v is not None for v in new):
                b, w = interval(base)[0], interval(new)[0]
                told += [said(interval(new)), "" if name == "zero-shot" else said(interval(new, bare), True),
                         "" if name == "coop" or not coop else said(interval(new, coop), True),
                         f"{harmonic(b, w):.3f}"]  # fmt: skip
            else:
                told += ["cannot", "", "", ""]
            told += [f"{mine[0]['size']:,}", f"{np.median([r['seconds'] for r in mine]):.0f}"]
            out.append(f"| `{name}` | " + " | ".join(told) + " |")
        return out

    n = len(of("base-to-new", "zero-shot", STYLE))
    lines = [
        f"{CLASSES // 2} base and {CLASSES // 2} new classes in the style \"{STYLE}\", {SHOTS} pictures a base class, "
        f"{n} seeds; accuracy on test pictures, 95 % intervals over seeds and pictures. Gains are over zero-shot, "
        "paired. New classes are answered by their names alone. \"values\": stored by the prompt.", "",
        *halves("base-to-new", STYLE, YARDSTICKS + LEARNED), "",
        f"The same in the style \"{FEW_STYLE}\" with {FEW} pictures a class, where zero-shot is good already:", "",
        *halves("few-shots", FEW_STYLE, ("zero-shot", *KEEPING)),
    ]  # fmt: skip
    lines += ["", f"While in use, {CLASSES} classes, {n} seeds of {CLASSES * TEST // 2} pictures; the difference to "
              "the same model without adapting, paired:", "",
              "| method | " + " | ".join(f"{s}, accuracy | difference" for s in SHIFTS) + " | ms a picture |",
              "|---|" + "---|" * (2 * len(SHIFTS) + 1)]  # fmt: skip
    for name in ("zero-shot", *ADAPTING):
        row, times = [], []
        for style in SHIFTS:
            mine, bare = of("shift", name, style), of("shift", "zero-shot", style)
            row += (
                [said(interval(mine)), "" if name == "zero-shot" else said(interval(mine, bare), True)]
                if mine
                else ["", ""]
            )
            times += of("shift", name, style, "milliseconds")
        lines.append(f"| `{name}` | " + " | ".join(row) + f" | {np.median(times or [0]):.0f} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("do", choices=("run", "table"))
    parser.add_argument("--only", default="base-to-new,few-shots,shift")
    parser.add_argument("--methods", default="")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=RESULTS)
    given = parser.parse_args()
    assert set(LEARNED) <= set(all_methods())
    if given.do == "run":
        run(given.only.split(","), [m for m in given.methods.split(",") if m], given.seeds, given.out)
        return
    text = tables(read(given.out))
    page = ROOT / "docs" / "images.md"
    before, _, rest = page.read_text().partition("<!-- numbers -->")
    page.write_text(f"{before}<!-- numbers -->\n{text}\n<!-- /numbers -->{rest.partition('<!-- /numbers -->')[2]}")


if __name__ == "__main__":
    main()
