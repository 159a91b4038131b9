"""Seconds to a given validation accuracy: ours against peft's prompt tuning with its best learning rate.

Same data, same frozen weights, same validation examples, one thread pool. peft gets what an expert would give it:
batches of like length, its learning rate chosen from 1e-3 to 0.3, the frozen model in eval mode, and only the label
words' logits (planted task) or a linear head on the mean of the caller's tokens (TREC), which learns at 1e-3. The goal
is the best accuracy of peft's best rate, less half a point. The time to choose peft's rate is not counted.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

import anacrusis as ana
from anacrusis.model.frames import default_frame
from anacrusis.model.model import Model
from anacrusis.model.rows import collate
from anacrusis.registry import get
from anacrusis.task import Task
from anacrusis.testing import planted, tiny
from anacrusis.tune.recipe import Problem, Training
from anacrusis.tune.trainer import Trainer

from .common import Line

RATES = (1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.3)


class Reached(Exception):
    """The goal has been reached."""


def ours(model: Model, task: Task, method: str, options: dict[str, Any], goal: float) -> float:
    """Seconds until validation accuracy is at least `goal` (the whole of preparation counted)."""
    began = time.perf_counter()

    def watch(event: dict[str, Any]) -> None:
        if event["event"] == "validate" and event["score"] >= goal:
            raise Reached

    chosen = get(method)
    frame = default_frame(model, task, options.pop("readout", "auto"), options.pop("template", ""))
    own = {k: v for k, v in options.items() if k in chosen.options()}
    training = Training(**chosen.training).changed({k: v for k, v in options.items() if k not in own})
    problem = Problem(model, task, frame, torch.Generator().manual_seed(0), training)
    trainer = Trainer(problem, chosen.build(chosen.configure(own), problem), seed=0, observe=watch)
    try:
        trainer.fit()
    except Reached:
        return time.perf_counter() - began
    return float("inf")


class Peer:
    """peft's prompt tuning on the same rows."""

    def __init__(self, model: Model, task: Task, readout: str, template: str, P: int, rate: float):
        from peft import PromptTuningConfig, get_peft_model

        frame = replace(default_frame(model, task, readout, template), place="front")
        self.model, self.frame, self.P = model, frame, P
        kind = {"causal": "CAUSAL_LM", "encoder": "FEATURE_EXTRACTION"}[model.arrangement]
        with torch.random.fork_rng():
            torch.manual_seed(0)
            text = PromptTuningConfig(task_type=kind, num_virtual_tokens=P)
            self.net = get_peft_model(model.network, text)
        self.vectors = self.net.prompt_encoder["default"].embedding.weight
        g = torch.Generator().manual_seed(0)
        rows = torch.randint(model.embeddings.shape[0], (P,), generator=g)
        self.vectors.data = model.embeddings[rows].clone()  # the best of peft's starts
        groups = [{"params": [self.vectors], "lr": rate}]
        self.head: nn.Linear | None = None
        if readout == "head":
            with torch.random.fork_rng():
                torch.manual_seed(0)
                self.head = nn.Linear(model.hidden, len(task.labels))
            groups.append({"params": list(self.head.parameters()), "lr": 1e-3})
        self.optimizer = torch.optim.AdamW(groups, weight_decay=0.0)
        render = model.renderer(frame)
        self.rows = {s: list(render.rows([e.inputs for e in getattr(task, s)])) for s in ("train", "valid")}
        self.golds = {s: torch.tensor([e.gold for e in getattr(task, s)]) for s in ("train", "valid")}
        if readout != "head":
            self.ids = torch.tensor([render.answer_ids(w)[0] for w in frame.words])

    def scores(self, split: str, index: list[int]) -> Tensor:
        batch = collate([self.rows[split][i] for i in index], "left" if self.head is None else "right")
        mask = batch.mask.long()
        if self.head is None:
            return self.net(input_ids=batch.codes, attention_mask=mask, logits_to_keep=1).logits[:, -1, self.ids]  # type: ignore[no-any-return]
        states = self.net(input_ids=batch.codes, attention_mask=mask).last_hidden_state[:, self.P :]
        pooled = (states * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
        return self.head(nn.functional.normalize(pooled, dim=-1) * self.model.hidden**0.5)  # type: ignore[no-any-return]

    def train(self, epochs: int, every: int, goal: float = 2.0, size: int = 16) -> tuple[float, float]:
        """(best validation accuracy, seconds until `goal` or to the end). every: steps between validations."""
        began, best, step = time.perf_counter(), 0.0, 0
        for epoch in range(epochs):
            g = torch.Generator().manual_seed(epoch)
            order = torch.randperm(len(self.rows["train"]), generator=g).tolist()
            batches = []
            for start in range(0, len(order), size * 64):
                part = sorted(order[start : start + size * 64], key=lambda i: len(self.rows["train"][i].codes))
                batches += [part[i : i + size] for i in range(0, len(part), size)]
            for b in torch.randperm(len(batches), generator=g).tolist():
                self.optimizer.zero_grad()
                z = self.scores("train", batches[b])
                nn.functional.cross_entropy(z, self.golds["train"][batches[b]]).backward()
                self.optimizer.step()
                step += 1
                if step % every == 0:
                    best = max(best, self.accuracy())
                    if best >= goal:
                        return best, time.perf_counter() - began
        return max(best, self.accuracy()), time.perf_counter() - began

    @torch.no_grad()
    def accuracy(self) -> float:
        rows = self.rows["valid"]
        order = sorted(range(len(rows)), key=lambda i: len(rows[i].codes))
        right = 0
        for start in range(0, len(order), 32):
            index = order[start : start + 32]
            right += int((self.scores("valid", index).argmax(1) == self.golds["valid"][index]).sum())
        return right / len(rows)


def against(
    what: str, model: Model, task: Task, method: str, options: dict[str, Any], epochs: int, repeats: int
) -> Line:
    readout, template, P = options.get("readout", "auto"), options.get("template", ""), 20
    every = int(options["validate_every"])
    found = {}
    for rate in RATES:
        found[rate] = Peer(model, task, readout, template, P, rate).train(epochs, every)
    best = max(RATES, key=lambda r: found[r][0])
    goal = found[best][0] - 0.005
    times = {"ours": [], "peft": []}  # type: dict[str, list[float]]
    for _ in range(repeats):
        times["ours"].append(ours(model, task, method, dict(options), goal))
        times["peft"].append(Peer(model, task, readout, template, P, best).train(epochs, every, goal)[1])
    middle = {k: sorted(v)[len(v) // 2] for k, v in times.items()}
    return Line(
        what, middle["ours"], {"peft": middle["peft"]}, targets={"peft": 0.33},
        note=f"to accuracy {goal:.3f} (validated every {every} steps) on {len(task.valid)} validation examples; "
        f"ours: {method}; peft: {epochs} epochs at most, best rate {best:g}",
    )  # fmt: skip


def planted_line(rounds: int) -> Line:
    model = tiny("gpt2", scale=0.1)
    task, teacher = planted(model, examples=1200, strength=2.0)
    options = {"readout": "label-words", "template": teacher.frame.template, "epochs": "20", "validate_every": "49"}
    return against("seconds to accuracy, planted task", model, task, "prompt-tuning", options, 20, 3)


def trec_line(rounds: int, task: Task) -> Line:
    model = ana.open("builtin:minilm")
    task = replace(
        task, train=task.train[:1500], valid=task.valid[:400]
    )  # peft is trained six times to choose its rate
    options = {"readout": "head", "epochs": "2", "validate_every": "30"}
    return against("seconds to accuracy, TREC (1,500 examples) with MiniLM", model, task, "p-tuning-v2", options, 1, 1)
