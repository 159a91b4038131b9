"""Training steps and inference, as times."""

from __future__ import annotations

from typing import Any

import torch

from anacrusis.measure.predict import mixed_scores, ready_to_mix
from anacrusis.prompt.values import Frame, Soft

from .common import (
    Line,
    gpt2,
    interleaved,
    model_of,
    peft_model,
    peft_step,
    prefix_init,
    random_rows,
    step,
    trainer,
)

B, S, P = 8, 64, 20


def close(ours: torch.Tensor, peer: torch.Tensor) -> str:
    """How far two gradients are apart, relative to the larger one's size."""
    return f"gradients differ by {float((ours - peer).abs().max() / peer.abs().max()):.0e} of their size"


def soft_step(rounds: int) -> Line:
    return _against_peft("prompt tuning, one step", "soft", 0.95, rounds)


def prefix_step(rounds: int) -> Line:
    return _against_peft("prefix tuning, one step", "prefix", 0.90, rounds)


def _against_peft(what: str, kind: str, reach: float, rounds: int) -> Line:
    network = gpt2()
    model = model_of(network)
    # peft keeps a prefix as (P, layers, 2, heads, d): the same order as ours
    init = model.embeddings[:P].clone() if kind == "soft" else prefix_init(model, P)
    rows, ids, goal = random_rows(B, S, P if kind == "soft" else 0, "front")
    t, index = trainer(model, rows, init, kind=kind), list(range(B))
    peer, mask = peft_model(network, kind, init), torch.ones(B, S, dtype=torch.long)
    note = close(step(t, index), peft_step(peer, ids, mask, goal, expert=True))
    found = interleaved(
        {
            "ours": lambda: step(t, index),
            "documented": lambda: peft_step(peer, ids, mask, goal, expert=False),
            "expert": lambda: peft_step(peer, ids, mask, goal, expert=True),
        },
        rounds,
    )
    return Line(what, found.pop("ours"), found, targets={"documented": 0.60, "expert": reach}, note=note)


def behind_step(rounds: int) -> Line:
    model = model_of(gpt2())
    init, index = model.embeddings[:P].clone(), list(range(B))
    back = trainer(model, random_rows(B, S, P, "back")[0], init, place="back")
    front = trainer(model, random_rows(B, S, P, "front")[0], init)
    cached = step(back, index).clone()
    leads, back.leads = back.leads, None
    note = close(cached, step(back, index)) + (
        " with and without the cache; nine tenths of its time are matrix products of the 20 vectors, and the front "
        "step that it is measured against has become faster itself"
    )
    back.leads = leads
    found = interleaved({"ours": lambda: step(back, index), "our front": lambda: step(front, index)}, rounds)
    return Line(
        "prompt behind the input, keys and values kept",
        found.pop("ours"),
        found,
        targets={"our front": 0.28},
        note=note,
    )


def lengths_step(rounds: int, lengths: list[int]) -> Line:
    """An epoch over sentences of real lengths, ours in batches of like length, the expert's in random ones."""
    network = gpt2(layers=6, hidden=384, heads=6, vocabulary=30522)
    model = model_of(network)
    init = model.embeddings[:P].clone()
    g = torch.Generator().manual_seed(5)
    order = torch.randperm(len(lengths), generator=g).tolist()
    from anacrusis.model.rows import Row

    rows, ids = [], []
    for i in order:
        own = torch.randint(30522, (lengths[i],), generator=g).tolist()
        codes = (*(-1 - j for j in range(P)), *own)
        rows.append(Row(codes, (0,) * len(codes), (len(codes) - 1,), (own[0],), len(codes)))
        ids.append(own)
    t = trainer(model, rows, init)
    size = 32
    plan = t_plan(t, size)
    peer = peft_model(network, "soft", init)
    batches = []
    for start in range(0, len(ids), size):
        part = ids[start : start + size]
        T = max(map(len, part))
        tokens = torch.tensor([[0] * (T - len(r)) + r for r in part])  # left, so that the last position is read
        mask = torch.tensor([[0] * (T - len(r)) + [1] * len(r) for r in part])
        batches.append((tokens, mask, torch.tensor([r[0] for r in part])))
    found = interleaved(
        {
            "ours": lambda: [step(t, index) for index in plan],
            "expert": lambda: [peft_step(peer, a, m, y, expert=True) for a, m, y in batches],
        },
        rounds,
    )
    return Line(
        f"{len(lengths)} sentences of real lengths, batch 32", found.pop("ours"), found, targets={"expert": 0.60},
        note=f"lengths {min(lengths)} to {max(lengths)} tokens, median {sorted(lengths)[len(lengths) // 2]}",
    )  # fmt: skip


def t_plan(t: Any, size: int) -> list[list[int]]:
    from dataclasses import replace

    t.options = replace(t.options, batch=size)
    t.plans = {}
    plan: list[list[int]] = t._plan(0)
    return plan


def inference(rounds: int) -> Line:
    """32 rows of 8 prompts (4 to 32 vectors): ours in one mixed batch, peft row by row and grouped by prompt."""
    network = gpt2(layers=6, hidden=384, heads=6, vocabulary=30522)
    model = model_of(network)
    lengths = [4, 8, 12, 16, 20, 24, 28, 32]
    g = torch.Generator().manual_seed(7)
    vectors = [0.02 * torch.randn(n, 384, generator=g) for n in lengths]
    texts = [(" ".join(f"w{i}" for i in torch.randint(90, (40,), generator=g).tolist()),) for _ in range(32)]
    which = torch.randperm(32, generator=g).remainder(8).tolist()
    frame = Frame(labels=("a", "b"), words=("w1", "w2"), template="{text}", place="front")
    prompts = ready_to_mix([Soft(vectors=v, frame=frame) for v in vectors], model)
    ids = torch.tensor([model.tokenizer(t[0])["input_ids"] for t in texts])
    pair = torch.tensor([model.tokenizer(w)["input_ids"][0] for w in ("w1", "w2")])
    peer = peft_model(network, "soft", vectors[0])
    from peft import PromptTuningConfig

    for i, v in enumerate(vectors):
        peer.add_adapter(f"p{i}", PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=len(v)))
        peer.prompt_encoder[f"p{i}"].embedding.weight.data = v.clone()

    @torch.no_grad()
    def rows() -> torch.Tensor:
        out = []
        for b, w in enumerate(which):
            peer.set_adapter(f"p{w}")
            out.append(peer(input_ids=ids[b : b + 1], attention_mask=torch.ones(1, 40, dtype=torch.long),
                            logits_to_keep=1).logits[:, -1, pair])  # fmt: skip
        return torch.cat(out)

    @torch.no_grad()
    def grouped() -> torch.Tensor:
        out = torch.zeros(32, 2)
        for w in range(8):
            mine = [b for b, x in enumerate(which) if x == w]
            peer.set_adapter(f"p{w}")
            out[mine] = peer(input_ids=ids[mine], attention_mask=torch.ones(len(mine), 40, dtype=torch.long),
                             logits_to_keep=1).logits[:, -1, pair]  # fmt: skip
        return out

    def ours() -> torch.Tensor:
        return torch.stack(mixed_scores(prompts, which, texts, model, ready=True))

    apart = float((ours() - grouped()).abs().max())
    assert float((rows() - grouped()).abs().max()) < 1e-4
    found = interleaved({"ours": ours, "row by row": rows, "grouped": grouped}, rounds)
    return Line(
        "inference, 32 rows of 8 prompts", found.pop("ours"), found, targets={"row by row": 0.40, "grouped": 0.70},
        note=f"scores differ by {apart:.0e}; peft already reads the last position only",
    )  # fmt: skip
