"""make bench: every line, as JSON and as a Markdown table in docs/.

    python -m bench [--only WORD] [--rounds N]

Lines that need public data are left out, with the reason, where it is absent.
"""

from __future__ import annotations

import argparse
import json
import platform
import warnings
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import torch

from anacrusis.prompt.store import write_json, write_text
from anacrusis.task import Task

from . import accuracy, images, memory, steps
from .common import Line

ROOT = Path(__file__).parents[1]
SHARED = ROOT.parent / "shared" / "data"


def trec() -> Task:
    records = []
    for split in ("train", "test"):
        for line in (SHARED / "trec" / f"{split}.txt").read_text(encoding="latin-1").splitlines():
            label, text = line.split(" ", 1)
            records.append({"text": text, "label": label, "split": split})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the set has duplicates; both arms see the same
        return Task.from_records(records, text="text", label="label", split_column="split", name="trec")


def sentence_lengths(n: int = 640) -> list[int]:
    """Token counts of SST-2 sentences and CLINC150 queries, mixed half and half."""
    import anacrusis as ana

    tokenizer = ana.open("builtin:minilm").tokenizer
    sst = [x.split(" ", 1)[1] for x in (SHARED / "sst2" / "train.txt").read_text(encoding="latin-1").splitlines()]
    clinc = [x[0] for x in json.loads((SHARED / "clinc150" / "data_full.json").read_text())["train"]]
    texts = sst[:: len(sst) // (n // 2)][: n // 2] + clinc[:: len(clinc) // (n // 2)][: n // 2]
    return [len(ids) for ids in tokenizer(texts)["input_ids"]]


def lines() -> dict[str, Callable[[int], Line]]:
    found: dict[str, Callable[[int], Line]] = {
        "soft": steps.soft_step,
        "prefix": steps.prefix_step,
        "behind": steps.behind_step,
        "memory": memory.memory,
        "inference": steps.inference,
        "planted": accuracy.planted_line,
        "coop-10": images.coop(10),
        "coop-200": images.coop(200),
        "rpo": images.rpo,
        "tpt": images.tpt,
        "classes-1000": images.many,
    }
    if SHARED.is_dir():
        found["lengths"] = lambda rounds: steps.lengths_step(max(2, rounds // 2), sentence_lengths())
        found["trec"] = lambda rounds: accuracy.trec_line(rounds, trec())
    else:
        print(f"left out: lengths, trec (no public data in {SHARED.parent.name}/)")
    return found


def markdown(records: list[dict]) -> str:  # type: ignore[type-arg]
    out = [
        "# Benchmarks", "",
        "Written by `make bench`; do not edit. Ours over the peer's, in one process, same weights and batches, "
        "interleaved, medians; lower is better. Not interleaved: memory (each arm in its own process) and seconds to "
        "accuracy (arms in turn; of peft only the prompt's rate is tuned, and on TREC its head starts at random and "
        "learns at 1e-3, while ours starts at the linear probe). Absolute times vary from machine "
        "to machine: read the ratios.", "",
        '"documented" is peft as its documents show it (`labels=`). "expert" is peft with logits at the last position '
        "only and the same objective: what a person who knows peft gets for free is no gain of ours. "
        '"plain" is a step as the papers\' code does it: full texts, every class and picture run anew.', "",
        "| | ours | peer | peer's | ratio | to reach | |", "|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    for r in records:
        for peer, value in r["peers"].items():
            goal = r["targets"].get(peer)
            mark = "" if goal is None else "reached" if r["ours"] / value <= goal else "**missed**"
            out.append(
                f"| {r['what']} | {r['ours']:.3g} {r['unit']} | {peer} | {value:.3g} {r['unit']} | "
                f"{r['ours'] / value:.2f} | {goal or ''} | {mark} |"
            )
    out += ["", "Notes:", ""] + [f"- {r['what']}: {r['note']}." for r in records if r["note"]]
    out += ["", f"Measured on {records[0]['machine']}." if records else "", ""]
    return "\n".join(out)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench")
    parser.add_argument("--only", default="", help="names of lines, comma separated")
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    file = ROOT / "docs" / "benchmarks.json"
    kept = {r["name"]: r for r in json.loads(file.read_text())} if file.exists() else {}
    machine = f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}"
    warnings.filterwarnings("ignore", module="peft|transformers")
    for name, line in lines().items():
        if options.only and name not in options.only.split(","):
            continue
        print(f"{name} ...", flush=True)
        found = line(options.rounds)
        print(f"  {found.what}: {found.ours:.3g} {found.unit}, ratios {found.ratios()}", flush=True)
        kept[name] = {"name": name, "machine": machine, **asdict(found)}
        write_json(file, list(kept.values()))
        write_text(ROOT / "docs" / "benchmarks.md", markdown(list(kept.values())))


if __name__ == "__main__":
    main()
