"""What all benchmarks share: interleaved medians, models of GPT-2's shape, peft as documented and by an expert."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from anacrusis.model.frames import default_frame
from anacrusis.model.model import Model
from anacrusis.model.open import wrap
from anacrusis.model.rows import Row
from anacrusis.task import Task
from anacrusis.testing import tokenizer
from anacrusis.tune.makers import Free, PrefixMaker, SoftMaker, width
from anacrusis.tune.recipe import Problem, Recipe, Stage, Training
from anacrusis.tune.trainer import Trainer


@dataclass
class Line:
    """One row of the table: ours over a peer's, lower is better."""

    what: str
    ours: float
    peers: dict[str, float]
    unit: str = "s"
    targets: dict[str, float] = field(default_factory=dict)  # ratio to reach, by peer
    note: str = ""

    def ratios(self) -> dict[str, float]:
        return {k: self.ours / v for k, v in self.peers.items()}


def interleaved(arms: dict[str, Callable[[], Any]], rounds: int = 7) -> dict[str, float]:
    """Median seconds of each arm; all arms run once a round, so that a slow minute of the machine hits all alike."""
    for arm in arms.values():
        arm()  # warm up
    times: dict[str, list[float]] = {k: [] for k in arms}
    for _ in range(rounds):
        for name, arm in arms.items():
            began = time.perf_counter()
            arm()
            times[name].append(time.perf_counter() - began)
    return {k: statistics.median(v) for k, v in times.items()}


def gpt2(layers: int = 12, hidden: int = 768, heads: int = 12, vocabulary: int = 50257, seed: int = 0) -> Any:
    """A GPT-2 of random weights."""
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(n_layer=layers, n_embd=hidden, n_head=heads, vocab_size=vocabulary)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return GPT2LMHeadModel(config).eval().requires_grad_(False)


def model_of(network: Any) -> Model:
    return wrap(network, tokenizer("gpt2"), name="gpt2-shape", arrangement="causal")


def trainer(model: Model, rows: list[Row], init: Tensor, *, kind: str = "soft", place: str = "front") -> Trainer:
    """Our trainer on rows of random tokens, at the language-model objective, learning rate 0 (so that steps repeat)."""
    task = Task.from_lists([f"w{i} w{i + 1}" for i in range(40)], ["c0", "c1"] * 20, words={"c0": "w1", "c1": "w2"})
    training = Training(lr=1e-12, batch=8, epochs=1, patience=0, cache_gb=8.0)
    frame = default_frame(model, task, readout="lm", place=place)
    maker = (
        SoftMaker(Free(init), model.scale)
        if kind == "soft"
        else PrefixMaker(Free(init), model.sites, shift=init.shape[0])
    )
    t = Trainer(Problem(model, task, frame, torch.Generator(), training), Recipe(maker, frame), seed=0)
    t.began = 0.0
    with model.frozen():
        t._prepare()
        t.rows, t.golds = rows, torch.zeros(len(rows), dtype=torch.long)
        t.leads = None
        t._cache()
    return t


def step(t: Trainer, index: list[int]) -> Tensor:
    """Forward, loss and backward of our engine on some rows; returns the gradient of the first parameter."""
    p = next(t.maker.parameters())
    p.grad = None
    with t.model.frozen():
        t._losses(index, None, Stage("all"))["answer"].backward()
    return p.grad  # type: ignore[return-value]


def peft_model(network: Any, kind: str, init: Tensor) -> Any:
    """peft around the network (left as it was but for the wrapper), with its vectors set to `init`."""
    from peft import PrefixTuningConfig, PromptTuningConfig, get_peft_model

    cls = PromptTuningConfig if kind == "soft" else PrefixTuningConfig
    wrapped = get_peft_model(network, cls(task_type="CAUSAL_LM", num_virtual_tokens=init.shape[0]))
    wrapped.prompt_encoder["default"].embedding.weight.data = init.clone()
    return wrapped


def peft_step(wrapped: Any, ids: Tensor, mask: Tensor, goal: Tensor, *, expert: bool) -> Tensor:
    """documented: labels=, loss inside the model, logits everywhere. expert: logits of the last position, own loss."""
    weight = wrapped.prompt_encoder["default"].embedding.weight
    weight.grad = None
    if expert:
        z = wrapped(input_ids=ids, attention_mask=mask, logits_to_keep=1, use_cache=False).logits[:, -1]
        loss = torch.nn.functional.cross_entropy(z.float(), goal)
    else:
        # the token after the input is taught: it has to be part of the input for labels=
        full = torch.cat([ids, goal[:, None]], 1)
        labels = torch.full_like(full, -100)
        labels[:, -1] = goal
        loss = wrapped(input_ids=full, attention_mask=torch.ones_like(full), labels=labels).loss
    loss.backward()
    return weight.grad  # type: ignore[no-any-return]


def random_rows(
    n: int, length: int, P: int, place: str, vocabulary: int = 50257, seed: int = 1
) -> tuple[list[Row], Tensor, Tensor]:
    """Rows of `length` random tokens with P virtual ones, and the same as tensors: ids (n, length), goals (n,)."""
    g = torch.Generator().manual_seed(seed)
    ids = torch.randint(vocabulary, (n, length), generator=g)
    goal = torch.randint(vocabulary, (n,), generator=g)
    soft = tuple(-1 - j for j in range(P))
    rows = []
    for own, target in zip(ids.tolist(), goal.tolist(), strict=True):
        codes = (*soft, *own) if place == "front" else (*own, *soft)
        rows.append(Row(codes, (0,) * len(codes), (len(codes) - 1,), (target,), len(codes)))
    return rows, ids, goal


def prefix_init(model: Model, P: int) -> Tensor:
    return 0.02 * torch.randn(P, width(model.sites), generator=torch.Generator().manual_seed(3))
