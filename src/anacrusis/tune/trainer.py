"""The one training loop: batches by length, groups of parameters, validation, checkpoints that resume to the same end.

Each step: propose a batch, compute the losses, find a direction, apply it. Everything random is drawn from a seed and
the step's number, so that a run that was killed and resumed sees the same batches as one that was not.
"""

from __future__ import annotations

import json
import math
import os
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ..errors import RunError
from ..model.model import Placed
from ..model.readout import Pooled, Reader, classification_loss, reader
from ..model.rows import Batch, Row
from ..prompt.store import write_json
from ..prompt.values import Head, Prompt
from ..task.task import Example
from . import lead, probe
from .makers import Group
from .recipe import Problem, Recipe, Stage, Term, View

Observe = Callable[[dict[str, Any]], None]


@dataclass
class Outcome:
    """What training gives. score: on validation, by the task's metric (written answers: minus the loss)."""

    prompt: Prompt
    score: float
    steps: int
    parameters: int
    seconds: float
    history: list[dict[str, float]] = field(default_factory=list)


def seed_of(*parts: object) -> int:
    """A seed from any names and numbers, the same on every machine."""
    return int.from_bytes(blake2b(repr(parts).encode(), digest_size=7).digest(), "big")


class LiveHead(nn.Module):
    def __init__(self, head: Head):
        super().__init__()
        self.weight, self.bias = nn.Parameter(head.weight.clone()), nn.Parameter(head.bias.clone())


class Trainer:
    """Trains one recipe on one problem. folder: where checkpoints go (None: none are written)."""

    def __init__(
        self, problem: Problem, recipe: Recipe, *, seed: int, observe: Observe = lambda e: None,
        folder: Path | None = None,
    ):  # fmt: skip
        self.problem, self.recipe, self.seed, self.observe, self.folder = problem, recipe, seed, observe, folder
        self.options, self.model = problem.training, problem.model
        self.read: Reader = reader(self.model, recipe.frame)
        self.maker = recipe.maker.to(self.model.device)
        self.world = _World()
        self.head: LiveHead | None = None
        self.leads: lead.Leads | None = None
        self.step, self.spent, self.stale = 0, 0.0, 0
        self.history: list[dict[str, float]] = []
        self.best: tuple[tuple[float, float], dict[str, Tensor]] | None = None
        self.mean: dict[str, Tensor] = {}  # weighted, of what was learned by the end of each epoch
        self.weights = 0.0

    def fit(self) -> Outcome:
        """Train, or go on where the folder's checkpoint ends. Raises RunError when the loss is not a number."""
        self.began = time.monotonic()
        with self.model.frozen(), self.maker.inside(self.model):
            self._prepare()
            if not self._resume():
                self._validate()
            while self.step < self.total and not self._done():
                self._train_step()
                self._add_to_average()
                if self.step % self.every == 0 or self.step == self.total:
                    self._validate()
                    self._save(force=True)
                else:
                    self._save()
            assert self.best is not None
            score = self.best[0][0]
            if self.mean:
                self._load_parts(self.mean)
                with torch.no_grad():
                    score = self._score(self._fresh())[0]
            else:
                self._load_parts(self.best[1])
            with torch.no_grad():
                folded = self.maker.fold()
        head = Head(self.head.weight.detach().cpu(), self.head.bias.detach().cpu()) if self.head else None
        prompt = replace(folded, frame=self.recipe.frame, head=head)
        count = sum(p.numel() for g in self.groups for p in g.parameters)
        return Outcome(prompt, score, self.step, count, self._seconds(), self.history)

    # before the first step

    def _prepare(self) -> None:
        task, options = self.problem.task, self.options
        self.examples, self.valid = list(task.train), list(task.valid[: options.validate_on])
        with torch.no_grad():
            self.initial = self._fresh().detached()
        self.rows = self._lay(self.examples, self.initial, teach=True)
        self.valid_rows = self._lay(self.valid, self.initial, teach=self.recipe.frame.readout == "generate")
        self.golds = golds_of(self.examples, task.kind, len(task.labels))
        self.valid_golds = golds_of(self.valid, task.kind, len(task.labels))
        cut = sum(r.cut > 0 for r in self.rows)
        if cut:
            self.observe({"event": "note", "text": f"{cut} training texts were longer than the model reads and were "
                          f"cut at their end ({self.model.limit} tokens with the prompt)"})  # fmt: skip
        if self.recipe.frame.readout == "head":
            self.head = LiveHead(self._first_head()).to(self.model.device)
        self.groups = [*self.maker.groups()]
        if self.head is not None:
            self.groups.append(Group("head", [self.head.weight, self.head.bias], options.head_lr, 1 / self._spread))
        self._check_groups()
        self.per_epoch = math.ceil(len(self.rows) / options.batch)
        self.total = options.steps or options.epochs * self.per_epoch
        self.every = options.validate_every or min(self.per_epoch, max(1, self.total))
        self.optimizer = self._optimizer()
        self.plans: dict[int, list[list[int]]] = {}
        self.inert = {t.name: 0 for s in self.recipe.stages for t in (s.terms or self.recipe.terms)}
        self._cache()
        self.observe({"event": "begin", "steps": self.total, "train": len(self.rows), "valid": len(self.valid_rows),
                      "parameters": sum(p.numel() for g in self.groups for p in g.parameters)})  # fmt: skip

    def _lay(self, examples: Sequence[Example], prompt: Prompt, teach: bool) -> list[Row]:
        return self.read.rows([e.inputs for e in examples], prompt, [e.gold for e in examples] if teach else [])

    def _fresh(self) -> Prompt:
        """The maker's prompt now, for makers that need no input; otherwise one folded to plain tensors."""
        if self.maker.reads == "nothing":
            return self.maker(None)
        return replace(self.maker.fold(), frame=self.recipe.frame)

    def _first_head(self) -> Head:
        read, C, H = self.read, len(self.problem.task.labels), self.model.hidden
        assert isinstance(read, Pooled)
        rng = np.random.default_rng(seed_of(self.seed, "head"))
        some = sorted(rng.permutation(len(self.rows))[:2000].tolist())
        count = len(some) + len(self.valid_rows)
        self.observe({"event": "phase", "text": f"reading {count} examples to start the head"})
        x = probe.features(read, [self.rows[i] for i in some], self.initial)
        self._spread = float(x.square().mean().sqrt()) or 1.0
        if self.options.head_init == "zeros":
            return Head(torch.zeros(C, H), torch.zeros(C))
        y = probe.features(read, self.valid_rows, self.initial)
        head, _ = probe.fit_head(x, self.golds.numpy()[some], y, self.valid_golds.numpy(), C, probe.GRID[::2])
        return Head(head.weight, head.bias.clamp(min=-20.0))

    def _check_groups(self) -> None:
        """Every trainable parameter is in one group: one that is forgotten would stay at its start in silence."""
        grouped = [id(p) for g in self.groups for p in g.parameters]
        own = [*self.maker.parameters(), *(self.head.parameters() if self.head else ())]
        trained = {id(p) for p in own if p.requires_grad}
        if len(grouped) != len(set(grouped)) or set(grouped) != trained:
            raise RunError(
                f"{type(self.maker).__name__}.groups() names {len(grouped)} parameters ({len(set(grouped))} different "
                f"ones); it must name each of the {len(trained)} trainable ones once"
            )

    def _optimizer(self) -> torch.optim.Optimizer:
        o = self.options
        groups = []
        for g in self.groups:
            lr = o.lr * g.rate * (g.unit if o.optimizer == "adamw" else 1.0)
            groups.append(
                {"params": list(g.parameters), "lr": lr, "base": lr, "weight_decay": o.weight_decay * g.decay}
            )
        if o.optimizer == "adafactor":  # it measures each parameter's size itself
            return torch.optim.Adafactor(groups, lr=o.lr, beta2_decay=-0.8, d=1.0, eps=(None, 1e-3))
        return torch.optim.AdamW(groups, lr=o.lr, eps=1e-8)

    def _cache(self) -> None:
        if not self.options.cache or not lead.applies(self.model, self.initial, self.maker.reads, self.rows):
            return
        if (size := lead.gigabytes(self.model, self.rows)) > self.options.cache_gb:
            self.observe({"event": "note", "text": f"keys and values of the inputs would take {size:.1f} GB, more than "
                          f"cache_gb={self.options.cache_gb}: they are computed anew each time"})  # fmt: skip
            return
        self.leads = lead.Leads(self.model, self.rows)

    # a step

    def _train_step(self) -> None:
        stage = self._stage()
        index = self._plan(self.step // self.per_epoch)[self.step % self.per_epoch]
        generator = torch.Generator().manual_seed(seed_of(self.seed, "step", self.step))
        keep = self.maker.sample(generator)
        moving = [p for g in self.groups if stage.roles is None or g.role in stage.roles for p in g.parameters]
        self.optimizer.zero_grad(set_to_none=True)
        total = torch.zeros((), device=self.model.device)
        share = math.ceil(len(index) / self.options.accumulate)
        for start in range(0, len(index), share):
            part = index[start : start + share]
            mine = part[self.world.rank :: self.world.size]
            if not mine:
                continue
            losses = self._losses(mine, keep, stage)
            weight = len(mine) / len(index)
            losses = {k: v * weight for k, v in losses.items()}
            self._report_inert(losses, moving)
            self.recipe.direction(losses, moving)
            total = total + sum(v.detach() for v in losses.values())
        self.world.add([p for g in self.groups for p in g.parameters])
        if not bool(torch.isfinite(total)):
            raise RunError(
                f"the loss is {float(total)} at step {self.step}: the steps are too long. Try --set lr="
                f"{self.options.lr / 3:.2g}"
            )
        self._apply(moving)
        self.step += 1
        self.observe({"event": "step", "step": self.step, "of": self.total, "loss": float(total),
                      "seconds": self._seconds()})  # fmt: skip

    def _losses(self, index: list[int], keep: int | None, stage: Stage) -> dict[str, Tensor]:
        """Mean loss of some examples by the name of its term; the first is the answer's own."""
        if self.leads is not None:
            batch, behind = self.leads.batch(index, keep)
            prompt: Prompt = self.maker(None)
            placed = replace(behind, vectors=self.model.place(prompt, batch).vectors)
        else:
            rows = [self.rows[i] for i in index]
            batch = self.read.batch(rows if keep is None else [r.without(keep) for r in rows])
            prompt = self.maker(None if self.maker.reads == "nothing" else self.model.reads(batch))
            placed = self.model.place(prompt, batch)
        golds = self.golds[index].to(self.model.device)
        judged = self.read.loss(batch, placed, self._live_head(), golds, recompute=self.options.recompute)
        losses = {"answer": judged.each.mean()}
        terms = self.recipe.terms if stage.terms is None else stage.terms
        for term in terms:
            view = View(self.model, batch, golds, prompt, self.initial, judged.scores, judged.seen)
            losses[term.name] = term.weight * term.value(view)
        return losses

    def _live_head(self) -> Head | None:
        return Head(self.head.weight, self.head.bias) if self.head else None

    def _report_inert(self, losses: dict[str, Tensor], moving: Sequence[Tensor]) -> None:
        """Say so when a term's gradient reached nothing that moves in the first steps (in one alone it may vanish: a
        distance from the start does)."""
        for name in [n for n in losses if n in self.inert]:
            found: list[Tensor | None] = [None] * len(moving)
            if losses[name].requires_grad:
                found = list(torch.autograd.grad(losses[name], list(moving), retain_graph=True, allow_unused=True))
            self.inert[name] += 1
            if any(g is not None and not bool((g == 0).all()) for g in found):
                del self.inert[name]
            elif self.inert[name] == 4:
                del self.inert[name]
                warnings.warn(f"the term {name!r} moves nothing: its gradient reaches no parameter", stacklevel=2)

    def _apply(self, moving: Sequence[Tensor]) -> None:
        held = {id(p) for g in self.groups for p in g.parameters} - {id(p) for p in moving}
        for group in self.optimizer.param_groups:
            group["lr"] = group["base"] * self._rate()
            for p in group["params"]:
                if id(p) in held:
                    p.grad = None
        if self.options.clip:
            self._clip()
        self.optimizer.step()
        with torch.no_grad():
            self.maker.constrain()

    def _clip(self) -> None:
        """Clip each role's gradient by itself: their scales differ too much for one norm."""
        for g in self.groups:
            torch.nn.utils.clip_grad_norm_([p for p in g.parameters if p.grad is not None], self.options.clip)

    def _rate(self) -> float:
        warm = max(1, round(self.options.warmup * self.total))
        if self.step < warm:
            return (self.step + 1) / warm
        left = 1 - (self.step - warm) / max(1, self.total - warm)
        return {"linear": left, "cosine": 0.5 - 0.5 * math.cos(math.pi * left), "constant": 1.0}[self.options.schedule]

    def _stage(self) -> Stage:
        """The stage that the present step belongs to; its `begin` runs at its first step."""
        start = 0.0
        for stage in self.recipe.stages:
            first = round(start * self.total)
            start += stage.share
            if self.step < round(start * self.total) or stage is self.recipe.stages[-1]:
                if self.step == first and stage.begin is not None:
                    stage.begin(self.maker)
                return stage
        return self.recipe.stages[-1]

    def _plan(self, epoch: int) -> list[list[int]]:
        """The batches of an epoch: shuffled, then of like length within stretches of 64 batches, then shuffled."""
        if epoch not in self.plans:
            size, rng = self.options.batch, np.random.default_rng(seed_of(self.seed, "epoch", epoch))
            order = rng.permutation(len(self.rows)).tolist()
            batches: list[list[int]] = []
            for start in range(0, len(order), size * 64):
                stretch = sorted(order[start : start + size * 64], key=lambda i: len(self.rows[i].codes))
                batches += [stretch[i : i + size] for i in range(0, len(stretch), size)]
            self.plans = {epoch: [batches[i] for i in rng.permutation(len(batches)).tolist()]}
        return self.plans[epoch]

    # the average over epochs

    def _add_to_average(self) -> None:
        """At the end of an epoch: what was learned so far, with the recipe's weight."""
        if self.recipe.average is None or (self.step % self.per_epoch and self.step != self.total):
            return
        weight = self.recipe.average(math.ceil(self.step / self.per_epoch), math.ceil(self.total / self.per_epoch))
        self.weights += weight
        share = weight / self.weights if self.weights > 0 else 1.0  # a running mean: tiny weights do not vanish in it
        for k, t in self._parts().items():
            self.mean[k] = self.mean[k] + share * (t - self.mean[k]) if k in self.mean else t.clone()

    # validation

    @torch.no_grad()
    def _validate(self) -> None:
        score, loss = self._score(self._fresh())
        self.history.append({"step": self.step, "score": score, "loss": loss, "seconds": self._seconds()})
        better = self.best is None or (score, -loss) > self.best[0]
        if better:
            self.best, self.stale = ((score, -loss), {k: t.clone() for k, t in self._parts().items()}), 0
        else:
            self.stale += 1
        self.observe({"event": "validate", "step": self.step, "of": self.total, "score": score, "loss": loss,
                      "best": better, "metric": self.problem.task.metric, "seconds": self._seconds()})  # fmt: skip

    def _score(self, prompt: Prompt) -> tuple[float, float]:
        """The task's metric and the mean loss on validation. Written answers are judged by their loss."""
        z: list[Tensor] = []
        total, head, order = 0.0, self._live_head(), []
        written = self.recipe.frame.readout == "generate"
        for start in range(0, len(self.valid_rows), 32):
            index = sorted(range(len(self.valid_rows)), key=lambda i: len(self.valid_rows[i].codes))[start : start + 32]
            batch: Batch = self.read.batch([self.valid_rows[i] for i in index])
            placed: Placed = self.model.place(prompt, batch)
            golds = self.valid_golds[index].to(self.model.device)
            if written:
                each = self.read.loss(batch, placed, head, golds).each
            else:
                scores = self.read.scores(batch, placed, head)
                each = classification_loss(scores, golds)
                z.append(scores.float().cpu())
            order += index
            total += float(each.sum())
        mean = total / max(1, len(order))
        if written:
            return -mean, mean
        scores = torch.cat(z)[torch.argsort(torch.tensor(order))]
        predicted = scores.numpy() if self.problem.task.kind == "multilabel" else scores.argmax(1).numpy()
        return self.problem.task.score(predicted, self.valid), mean

    def _done(self) -> bool:
        return bool(self.options.patience) and self.stale >= self.options.patience

    # checkpoints

    def _parts(self) -> dict[str, Tensor]:
        parts = {f"maker.{k}": t.detach() for k, t in self.maker.state_dict().items()}
        if self.head is not None:
            parts |= {f"head.{k}": t.detach() for k, t in self.head.state_dict().items()}
        return parts

    def _load_parts(self, parts: dict[str, Tensor]) -> None:
        self.maker.load_state_dict({k[6:]: t for k, t in parts.items() if k.startswith("maker.")})
        if self.head is not None:
            self.head.load_state_dict({k[5:]: t for k, t in parts.items() if k.startswith("head.")})

    def _seconds(self) -> float:
        return self.spent + time.monotonic() - self.began

    def _save(self, force: bool = False) -> None:
        """Write a checkpoint when it is time. Tensors and numbers only; the JSON names the tensor file it belongs to,
        so that a crash between the two files leaves the older pair whole."""
        if self.folder is None or not self.world.first:
            return
        now = time.monotonic()
        if not force and now - getattr(self, "_saved", self.began) < self.options.save_seconds:
            return
        self._saved = now
        assert self.best is not None
        tensors = {f"now.{k}": t for k, t in self._parts().items()}
        tensors |= {f"best.{k}": t for k, t in self.best[1].items()}
        tensors |= {f"mean.{k}": t for k, t in self.mean.items()}
        numbers: dict[str, float] = {}
        for i, p in enumerate(p for g in self.optimizer.param_groups for p in g["params"]):
            for key, value in self.optimizer.state[p].items():
                if isinstance(value, Tensor):
                    tensors[f"optimizer.{i}.{key}"] = value
                elif value is not None:
                    numbers[f"{i}.{key}"] = value
        self.folder.mkdir(parents=True, exist_ok=True)
        file = f"checkpoint-{self.step}.safetensors"
        save_file({k: t.detach().cpu().contiguous() for k, t in tensors.items()}, self.folder / (file + ".part"))
        os.replace(self.folder / (file + ".part"), self.folder / file)
        record = {"file": file, "step": self.step, "seconds": self._seconds(), "stale": self.stale,
                  "best": list(self.best[0]), "history": self.history, "numbers": numbers,
                  "weights": self.weights}  # fmt: skip
        write_json(self.folder / "checkpoint.json", record)
        for old in self.folder.glob("checkpoint-*.safetensors"):
            if old.name != file:
                old.unlink()

    def _resume(self) -> bool:
        """Take up the folder's checkpoint; False when there is none."""
        if self.folder is None or not (self.folder / "checkpoint.json").exists():
            return False
        record = json.loads((self.folder / "checkpoint.json").read_text(encoding="utf-8"))
        tensors = load_file(self.folder / record["file"], device=str(self.model.device))
        self._load_parts({k[4:]: t for k, t in tensors.items() if k.startswith("now.")})
        best = {k[5:]: t for k, t in tensors.items() if k.startswith("best.")}
        self.mean = {k[5:]: t for k, t in tensors.items() if k.startswith("mean.")}
        self.weights = record.get("weights", 0.0)
        self.best = ((record["best"][0], record["best"][1]), best)
        self.step, self.spent, self.stale = record["step"], record["seconds"], record["stale"]
        self.began = time.monotonic()
        self.history = record["history"]
        parameters = [p for g in self.optimizer.param_groups for p in g["params"]]
        for name, value in {**{k[10:]: t for k, t in tensors.items() if k.startswith("optimizer.")},
                            **record["numbers"]}.items():  # fmt: skip
            i, key = name.split(".", 1)
            # torch keeps the step counter on the CPU
            self.optimizer.state[parameters[int(i)]][key] = value.cpu() if key == "step" else value
        self.observe({"event": "resumed", "step": self.step, "of": self.total})
        return True


class _World:
    """The processes that train together (accelerate launch or torchrun); one process is a world of its own."""

    def __init__(self) -> None:
        self.rank, self.size = 0, 1
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            from accelerate import PartialState

            state = PartialState(cpu=not torch.cuda.is_available())
            self.rank, self.size = state.process_index, state.num_processes

    @property
    def first(self) -> bool:
        return self.rank == 0

    def add(self, parameters: Sequence[Tensor]) -> None:
        """Sum gradients over processes. A process without a share of the batch adds zeros."""
        if self.size == 1:
            return
        from accelerate.utils import reduce

        for p in parameters:
            p.grad = reduce(torch.zeros_like(p) if p.grad is None else p.grad, reduction="sum")


def golds_of(examples: Sequence[Example], kind: str, classes: int) -> Tensor:
    """(N,) class indexes, (N, C) of 0 and 1 for several labels, -1 for written answers."""
    if kind == "generation":
        return torch.full((len(examples),), -1)
    if kind == "multilabel":
        out = torch.zeros(len(examples), classes)
        for i, e in enumerate(examples):
            if isinstance(e.gold, tuple):
                out[i, list(e.gold)] = 1.0
        return out
    return torch.tensor([e.gold for e in examples], dtype=torch.long)


Terms = Sequence[Term]
