"""The one loop of learning in use: views, selection, step, answer, put back or keep.

Nothing here reads a label. Everything random is drawn from the seed and the picture's own pixels, so that an episodic
method answers a picture in the same way wherever it stands in the stream.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call

from ..model.images import ImageBatch, ImageRow
from ..model.readout import reader
from ..model.sight import Sides, Sight
from ..model.sighted import Match
from ..prompt.values import Prompt, Tokens
from ..tune.makers import Maker
from .course import Course, Order


@dataclass(frozen=True)
class Answer:
    """z: (C,) logits after adapting; before: (C,) of the plain view from the start, as without any adapting; seconds;
    members: which answered."""

    z: Tensor
    before: Tensor
    seconds: float
    members: tuple[int, ...] = ()


class Stream:
    """One model and course, over pictures in order. State (members, memory) moves from picture to picture unless the
    course resets it."""

    def __init__(self, model: Sight, course: Course, *, seed: int = 0):
        self.model, self.course, self.seed = model, course, seed
        self.read = reader(model, course.frame)  # type: ignore[arg-type]
        self.members = [m.to(model.device) for m in course.members]
        self.start = [{k: t.clone() for k, t in m.state_dict().items()} for m in self.members]
        self._start: Prompt | None = None
        self._start_texts: Tensor | None = None
        self.order = Order(list(range(len(self.members))))
        self.used: set[int] = set()
        self.speaks = [self._speaks(m) for m in self.members]
        self._kept: dict[int, tuple[Tensor, Tensor, dict[str, Tensor]]] = {}  # by member: see _texts

    def answers(self, rows: Iterable[ImageRow], done: Callable[[int], Any] | None = None) -> Iterator[Answer]:
        for row in rows:
            began = time.perf_counter()
            with self.model.frozen():  # not around the yield: two streams may be open at once
                z, before, members = self._one(row)
            yield Answer(z.cpu(), before.cpu(), time.perf_counter() - began, tuple(members))
            if done is not None:
                done(1)

    # one picture

    def _one(self, row: ImageRow) -> tuple[Tensor, Tensor, list[int]]:
        views = self._views(row)
        if not self.members:
            with torch.no_grad():
                before = self.read.scores(views.part([0]).batch, Sides(), self.course.head)[0]  # type: ignore[arg-type]
            return self._remembered(views, before), before, []
        with torch.no_grad():
            now = torch.stack([self._scores(m, views) for m in range(len(self.members))])  # (members, V, C)
        chosen = self.course.choose(now, self.order) if self.course.choose else list(range(len(self.members)))
        for m in chosen:
            self._tune(m, views, self.course.select(now[m]))
        with torch.no_grad():
            z = torch.stack([self._scores(m, views.part([0]), fresh=True)[0] for m in chosen]).mean(0)
        before = self._bare(views.part([0]))
        z = self._remembered(views, z)
        if self.course.reset:
            for m in chosen:
                self._put_back(m)
        elif self.course.choose is not None:
            self._turn(chosen)
        return z, before, chosen

    def _remembered(self, views: Views, z: Tensor) -> Tensor:
        """z with what memory adds; then the picture is remembered."""
        memory = self.course.memory
        if memory is None:
            return z
        feature = views.features[0]
        out = z + memory.more(feature, z)
        memory.add(feature, z)
        return out

    def _views(self, row: ImageRow) -> Views:
        digest = blake2b(row.pixels.numpy().tobytes(), digest_size=6, key=str(self.seed).encode()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest, "big"))
        n = self.course.views if self.members else 1
        return Views(self.course.make(row.pixels, n, generator).to(self.model.device), self.model)

    def _tune(self, m: int, views: Views, index: Tensor) -> None:
        maker, part = self.members[m], views.part(index.tolist())
        groups = [
            {"params": list(g.parameters), "lr": self.course.lr * g.rate * g.unit,
             "weight_decay": self.course.weight_decay} for g in maker.groups()
        ]  # fmt: skip
        optimizer = torch.optim.AdamW(groups)
        for step in range(self.course.steps):
            optimizer.zero_grad(set_to_none=True)
            with torch.enable_grad():
                if step == 0 and self.speaks[m]:
                    self._first_gradient(m, part)
                else:
                    self.course.loss(self._live(maker, part)).backward()
            optimizer.step()
            with torch.no_grad():
                maker.constrain()
        if not self.course.reset:
            self._kept.pop(m, None)  # it has moved for good

    def _first_gradient(self, m: int, part: Views) -> None:
        """The first step's gradient. The member is where it was for the picture before (it was put back, or has not
        been moved): its class features and their graph are still those, and only the way back is computed."""
        live, bare, copies = self._texts(m)
        leaf = bare.detach().requires_grad_()
        self.course.loss(self.model.match(part.features, leaf)).backward()
        grads = torch.autograd.grad(live, list(copies.values()), leaf.grad, retain_graph=True, allow_unused=True)
        own = dict(self.members[m].named_parameters())
        for name, g in zip(copies, grads, strict=True):
            own[name].grad = g

    def _texts(self, m: int) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """A member's class features where it now is: with a graph, without, and the parameters at the graph's root.
        Those are copies: the members' own values change in place, and a graph must keep what it was made of."""
        if m not in self._kept:
            with torch.enable_grad():
                copies = {k: p.detach().clone().requires_grad_() for k, p in self.members[m].named_parameters()}
                prompt = functional_call(self.members[m], copies, (None,))
                live = self.model.texts(self.course.frame, prompt)
            self._kept[m] = (live, live.detach(), copies)
        return self._kept[m]

    def _speaks(self, maker: Maker) -> bool:
        """Whether it is a context of class texts and nothing else: then pictures and texts meet in the scores only."""
        if maker.reads != "nothing" or not isinstance(self.read, Match):
            return False
        with torch.no_grad():
            prompt = maker(None)
        return isinstance(prompt, Tokens) and prompt.side == "text" and not prompt.read_only

    def _scores(self, m: int, views: Views, fresh: bool = False) -> Tensor:
        """(V, C) without gradient. fresh: the member has just moved."""
        maker = self.members[m]
        if self.speaks[m] and not fresh:
            return self.model.match(views.features, self._texts(m)[1]).float()
        return self._live(maker, views)

    def _live(self, maker: Maker, views: Views) -> Tensor:
        batch = views.batch
        prompt = maker(None if maker.reads == "nothing" else self.model.reads(batch))
        placed = self.model.place(prompt, batch)
        if placed.image is None and isinstance(self.read, Match):
            return self.model.match(views.features, self.model.texts(self.course.frame, placed.text)).float()
        return self.read.scores(batch, placed, self.course.head)  # type: ignore[arg-type]

    @torch.no_grad()
    def _bare(self, views: Views) -> Tensor:
        """(C,) of the plain view from where the first member started: what no adapting would have answered."""
        maker = self.members[0]
        if maker.reads == "nothing" and self._start is None:
            self._start = functional_call(maker, self.start[0], (None,))
        if self.speaks[0]:
            if self._start_texts is None:
                assert isinstance(self._start, Tokens)
                self._start_texts = self.model.texts(self.course.frame, self._start)
            return self.model.match(views.features, self._start_texts)[0].float()
        batch = views.batch
        prompt = self._start or functional_call(maker, self.start[0], (self.model.reads(batch),))
        return self.read.scores(batch, self.model.place(prompt, batch), self.course.head)[0]  # type: ignore[arg-type]

    # what stays

    def _put_back(self, m: int) -> None:
        with torch.no_grad():
            for k, t in self.members[m].state_dict().items():
                t.copy_(self.start[m][k])

    def _turn(self, chosen: Sequence[int]) -> None:
        """The used ones go to the end; when all have been used, the one that waits longest starts anew."""
        self.order.used(chosen)
        self.used |= set(chosen)
        if len(self.used) == len(self.members):
            first = self.order.waiting[0]
            self._put_back(first)
            self._kept.pop(first, None)
            self.used.discard(first)


class Views:
    """V views of one picture, normalised on demand; their frozen features are computed once."""

    def __init__(self, raw: Tensor, model: Sight, features: Tensor | None = None):
        self.raw, self.model, self._features = raw, model, features

    @property
    def features(self) -> Tensor:
        if self._features is None:
            with torch.no_grad():
                self._features = self.model.look(self.batch, None)
        return self._features

    @property
    def batch(self) -> ImageBatch:
        return RawBatch(self.raw, self.model)

    def part(self, index: Sequence[int]) -> Views:
        at = list(index)
        return Views(self.raw[at], self.model, None if self._features is None else self._features[at])


class RawBatch(ImageBatch):
    """Pictures that are floats already: views, which nobody meets twice."""

    def __init__(self, raw: Tensor, model: Sight):
        super().__init__([ImageRow(torch.empty(0)) for _ in raw], model.prepare, model.device, model.dtype)
        self.raw = raw.float()

    def kept(self, name: str, compute: Callable[[ImageBatch], Tensor]) -> Tensor:
        with torch.no_grad():
            return compute(self)
