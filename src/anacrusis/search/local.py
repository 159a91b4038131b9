"""What a search asks of a local model: scores of candidates, losses, one-hot gradients, next tokens, continuations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ..errors import ConfigError, ModelError
from ..model.model import Model, Placed, batches_by_length
from ..model.readout import LabelWords, Similarity, WholeWords, reader, score_all
from ..model.rows import Row, collate
from ..model.shared import Trunk, can_share, split
from ..model.sight import Sight
from ..model.warm import warm
from ..model.write import write
from ..prompt.values import Frame, Prompt, Soft, Text
from ..task.task import Example

Judge = Callable[[str, Example], float]  # the score of a written text


class Local:
    """A local model as the task model. Vectors of texts that were read once are kept."""

    def __init__(self, model: Any):
        self.model = model  # a Model, or a Sight
        self.pictures: dict[str, Any] = {}  # rows by key: each keeps its frozen features
        self.vectors: dict[tuple[str, ...], Tensor] = {}
        self.trunk = Trunk(model) if isinstance(model, Model) and can_share(model) else None
        self.read = 0  # tokens that went through the network

    def order(self, prompts: Sequence[Prompt]) -> list[int]:
        """An order in which neighbours share most: by their texts' beginnings."""
        return sorted(range(len(prompts)), key=lambda i: (prompts[i].frame.instruction, prompts[i].frame.template))

    @torch.no_grad()
    def scores(self, prompt: Prompt, inputs: Sequence[tuple[str, ...]]) -> Tensor:
        """(N, C) scores over classes, larger is likelier."""
        if prompt.frame.readout == "similarity" and isinstance(prompt, Text):
            return self._similar(prompt.frame, inputs)
        if isinstance(self.model, Sight):
            return self._looked(prompt, inputs)
        read = reader(self.model, prompt.frame)
        used: Prompt = warm(self.model, prompt)
        rows = read.rows(inputs, used)
        with self.model.frozen():
            if self.trunk is not None and isinstance(prompt, Text) and isinstance(read, LabelWords | WholeWords):
                rows, used = split(rows, self.trunk)
            self.read += sum(len(r.codes) for r in rows)
            return score_all(read, rows, replace(used, frame=prompt.frame, head=prompt.head))

    def _looked(self, prompt: Prompt, inputs: Sequence[tuple[str, ...]]) -> Tensor:
        """Scores of pictures: each is encoded once in a run, and a candidate costs its class texts alone."""
        read = reader(self.model, prompt.frame)
        new = [x for x in dict.fromkeys(inputs) if x[0] not in self.pictures]
        for x, row in zip(new, read.rows(new, None), strict=True):
            self.pictures[x[0]] = row
        with self.model.frozen():
            return score_all(read, [self.pictures[x[0]] for x in inputs], prompt, size=256)

    def _similar(self, frame: Frame, inputs: Sequence[tuple[str, ...]]) -> Tensor:
        plain = replace(frame, fields=("text",), template="{text}", instruction="", demonstrations=())
        texts = self.pooled(frame, inputs)
        labels = self.pooled(plain, [(w,) for w in frame.words])
        return Similarity.SCALE * texts @ labels.T

    def pooled(self, frame: Frame, inputs: Sequence[tuple[str, ...]], size: int = 32) -> Tensor:
        """(N, H) unit vectors of the inputs under a frame; each is computed once in a run."""
        read = Similarity(self.model, frame)
        about = (frame.template, frame.instruction, str(frame.demonstrations))
        new = [x for x in dict.fromkeys(tuple(i) for i in inputs) if (*about, *x) not in self.vectors]
        if new:
            rows = read.rows(new, None)
            self.read += sum(len(r.codes) for r in rows)
            with torch.no_grad(), self.model.frozen():
                for index in batches_by_length(rows, size):
                    batch = collate([rows[i] for i in index]).to(self.model.device)
                    for i, v in zip(index, F.normalize(read.pooled(batch, Placed()), dim=-1).cpu(), strict=True):
                        self.vectors[(*about, *new[i])] = v
        return torch.stack([self.vectors[(*about, *i)] for i in inputs])

    def written(self, prompt: Prompt, inputs: Sequence[tuple[str, ...]], tokens: int) -> list[str]:
        return write(self.model, prompt, inputs, tokens=tokens)

    def loss(self, prompt: Prompt, examples: Sequence[Example], size: int = 64) -> float:
        """Mean loss over the examples, nats."""
        if prompt.frame.readout in ("similarity", "match") and isinstance(prompt, Text):
            z = self.scores(prompt, [e.inputs for e in examples])
            return float(F.cross_entropy(z, torch.tensor([e.gold for e in examples])))
        with torch.no_grad(), self.model.frozen():
            return float(sum(float(part.sum()) for part in self._losses(prompt, examples, size)) / len(examples))

    def _losses(self, prompt: Prompt, examples: Sequence[Example], size: int) -> Any:
        read = reader(self.model, prompt.frame)
        rows = read.rows([e.inputs for e in examples], prompt, [e.gold for e in examples])
        for index in batches_by_length(rows, size):
            batch = collate([rows[i] for i in index]).to(self.model.device)
            golds = torch.tensor([e.gold if isinstance(e.gold, int) else 0 for e in (examples[i] for i in index)])
            self.read += int(batch.mask.sum())
            yield read.loss(batch, self.model.place(prompt, batch), prompt.head, golds.to(self.model.device))[0]

    def onehot_gradient(self, prompt: Soft, examples: Sequence[Example], size: int = 64) -> tuple[float, Tensor]:
        """(loss, (P, V)): mean loss, and its gradient with respect to the one-hot vectors that the prompt's embeddings
        are made of: row i, column v is e_v . dL/dx_i, the first-order change when position i moves towards token v."""
        vectors = prompt.vectors.detach().clone().requires_grad_(True)
        live = replace(prompt, vectors=vectors)
        total = 0.0
        with self.model.frozen():
            for part in self._losses(live, examples, size):
                (part.sum() / len(examples)).backward()
                total += float(part.detach().sum())
        if vectors.grad is None:
            raise ModelError("the loss does not depend on the prompt: check the template and the readout")
        return total / len(examples), vectors.grad.float() @ self.model.embeddings.float().T

    @torch.no_grad()
    def next_tokens(self, prompt: Prompt, inputs: Sequence[tuple[str, ...]], top: int) -> list[tuple[int, ...]]:
        """The model's `top` likeliest next tokens after each laid-out input."""
        if self.model.arrangement != "causal":
            raise ModelError(f"next tokens need a causal model; {self.model.name} is {self.model.arrangement}")
        rows = list(self.model.renderer(prompt.frame, prompt).rows(inputs))
        out: list[tuple[int, ...]] = [()] * len(rows)
        with self.model.frozen():
            for index in batches_by_length(rows, 32):
                batch = collate([rows[i] for i in index]).to(self.model.device)
                states = self.model.run(batch, self.model.place(prompt, batch), read=True)[:, 0]
                for i, ids in zip(index, self.model.logits(states).topk(top).indices.tolist(), strict=True):
                    out[i] = tuple(ids)
        return out

    @torch.no_grad()
    def continuations(self, pairs: Sequence[tuple[str, str]]) -> list[tuple[float, int]]:
        """(log P(continuation | text) in nats, its tokens) for each (text, continuation); any number of tokens."""
        if "logprobs" not in self.model.can or self.model.arrangement == "masked":
            raise ModelError(f"{self.model.name} ({self.model.arrangement}) gives no probability of a continuation")
        rows: list[Row] = []
        for given, continuation in pairs:
            frame = Frame(template="{text}")
            row = next(self.model.renderer(frame).rows([(given,)], [continuation]))
            if not row.targets:
                raise ConfigError(f"the continuation {continuation!r} has no tokens in {self.model.name}'s vocabulary")
            rows.append(row)
        out = [(0.0, 0)] * len(rows)
        with self.model.frozen():
            for index in batches_by_length(rows, 32):
                batch = collate([rows[i] for i in index]).to(self.model.device)
                states = self.model.run(batch, Placed(), read=True)
                wanted = batch.targets != -100
                z = self.model.logits(states[wanted]).float()
                each = torch.zeros(wanted.shape, device=z.device).masked_scatter(
                    wanted, F.cross_entropy(z, batch.targets[wanted], reduction="none")
                )
                for i, total, n in zip(index, (-each.sum(1)).tolist(), wanted.sum(1).tolist(), strict=True):
                    out[i] = (total, n)
        return out
