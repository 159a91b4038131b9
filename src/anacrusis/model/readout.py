"""How the model's output becomes an answer: by label words, a head, similarity to label texts, or written text.

A reader knows two things: scores over the C classes (for prediction) and a loss per row (for learning).
"label-words" is a softmax over the C label words alone; "lm" is one over the whole vocabulary. They are different
objectives with different gradients; both predict by the best label word.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from ..errors import ConfigError, ModelError
from ..prompt.values import Frame, Head, Prompt
from .model import Model, Placed, batches_by_length
from .rows import Batch, Row, collate

Gold = int | tuple[int, ...] | str | None


class Judged(NamedTuple):
    """each: (B,) loss in nats; scores: what it came from; seen: what the towers of a model for images gave."""

    each: Tensor
    scores: Tensor
    seen: Any = None


@dataclass
class Reader:
    """Base. One reader serves one model and frame."""

    model: Model
    frame: Frame
    needs: ClassVar[str] = "features"

    def rows(self, inputs: Iterable[Sequence[str]], prompt: Prompt | None, golds: Sequence[Gold] = ()) -> list[Row]:
        """Lay examples out. golds: given while learning; readers that teach answers put them into the rows."""
        return list(self.model.renderer(self.frame, prompt).rows(inputs))

    def batch(self, rows: Sequence[Row]) -> Batch:
        """Rows as tensors, where the model is."""
        return collate(rows).to(self.model.device)

    def at(self, batch: Batch) -> Tensor | None:
        """(B, 1) columns whose states are enough to judge by; None when all are needed."""
        return batch.at[:, :1]

    def vector(self, states: Tensor, batch: Batch) -> Tensor:
        """(B, H) from the states that `at` asked for: (B, 1, H), or (B, S, H)."""
        return states[:, 0]

    def judge(self, vector: Tensor, head: Head | None) -> Tensor:
        """(B, H) -> (B, C) float32: larger is likelier."""
        raise ModelError(f"the readout {self.frame.readout!r} gives no scores over classes")

    def scores(self, batch: Batch, placed: Placed, head: Head | None, recompute: bool = False) -> Tensor:
        """(B, C) float32 of a batch under a prompt."""
        at = self.at(batch)
        asked = batch if at is None else replace(batch, at=at)
        states = self.model.run(asked, placed, read=at is not None, recompute=recompute)
        return self.judge(self.vector(states, batch), head)

    def loss(self, batch: Batch, placed: Placed, head: Head | None, golds: Tensor, recompute: bool = False) -> Judged:
        """Loss per row and the scores it came from. golds: (B,) class indexes, or (B, C) of 0 and 1."""
        z = self.scores(batch, placed, head, recompute)
        return Judged(classification_loss(z, golds), z)


def classification_loss(z: Tensor, golds: Tensor) -> Tensor:
    """Cross entropy over C classes, or over each class alone where several may hold. (B, C) -> (B,)."""
    if golds.dim() == 2:
        return F.binary_cross_entropy_with_logits(z, golds.to(z), reduction="none").mean(1)
    return F.cross_entropy(z, golds, reduction="none")


class LabelWords(Reader):
    """Scores of the first token of each label word, at the place where the answer is predicted."""

    needs = "logprobs"

    @cached_property
    def ids(self) -> Tensor:
        """(C,) token ids. Raises ConfigError when two classes begin with the same token."""
        renderer = self.model.renderer(self.frame)
        first: dict[int, str] = {}
        for word in self.frame.words:
            tokens = renderer.answer_ids(word)
            if not tokens:
                raise ConfigError(f"the label word {word!r} has no tokens in {self.model.name}'s vocabulary")
            if tokens[0] in first:
                raise ConfigError(
                    f"the label words {first[tokens[0]]!r} and {word!r} begin with the same token in "
                    f"{self.model.name}, "
                    f"so their scores cannot differ. Give other words (words={{label: word}}), or readout=head."
                )
            first[tokens[0]] = word
        return torch.tensor(list(first), device=self.model.device)

    def at(self, batch: Batch) -> Tensor | None:
        if self.model.arrangement == "masked" and not bool(batch.read.any(1).all()):
            raise ConfigError('label words of a masked model need {mask} in the template, e.g. "{text} Topic: {mask}"')
        return batch.at[:, :1]

    def judge(self, vector: Tensor, head: Head | None) -> Tensor:
        return self.model.logits(vector, self.ids).float()


class WholeWords(Reader):
    """Scores of whole label words, however many tokens they have: log p(word | text) = sum_t log p(w_t | text, w_<t).

    Costs C rows an example where LabelWords costs one. Longer words are less likely: that is the model's own measure.
    """

    needs = "logprobs"

    @cached_property
    def words(self) -> list[list[int]]:
        """C lists of token ids. Raises ConfigError for a masked model, and when two words are the same tokens."""
        if self.model.arrangement == "masked":
            raise ConfigError(
                f"readout=words needs a model that continues texts; {self.model.name} is masked: readout=label-words"
            )
        renderer = self.model.renderer(self.frame)
        found = [renderer.answer_ids(word) for word in self.frame.words]
        for word, ids in zip(self.frame.words, found, strict=True):
            if not ids or found.count(ids) > 1:
                raise ConfigError(f"the label word {word!r} has no tokens of its own in {self.model.name}'s vocabulary")
        return found

    def rows(self, inputs: Iterable[Sequence[str]], prompt: Prompt | None, golds: Sequence[Gold] = ()) -> list[Row]:
        inputs = list(inputs)
        longest = max(self.frame.words, key=lambda w: len(self.words[self.frame.words.index(w)]))
        laid = self.model.renderer(self.frame, prompt).rows(inputs, [longest] * len(inputs))  # with room for it
        return [
            replace(r, at=r.at[:1], targets=(), decoder=r.decoder[: r.at[0] + 1]) if r.decoder
            else replace(r, codes=r.codes[: r.inputs], types=r.types[: r.inputs], at=r.at[:1], targets=())
            for r in laid
        ]  # fmt: skip

    def scores(self, batch: Batch, placed: Placed, head: Head | None, recompute: bool = False) -> Tensor:
        rows = [row for b in range(len(batch.codes)) for row in self._continued(batch, b)]
        wide = collate(rows).to(self.model.device)
        states = self.model.run(wide, placed.repeated(len(self.words)), read=True, recompute=recompute)
        wanted = wide.targets != -100
        z = self.model.logits(states[wanted]).float().log_softmax(-1)
        each = torch.zeros(wanted.shape, device=z.device).masked_scatter(
            wanted, z.gather(1, wide.targets[wanted][:, None])[:, 0]
        )
        return each.sum(1).view(len(batch.codes), len(self.words))

    def _continued(self, batch: Batch, b: int) -> Iterable[Row]:
        codes, types = (tuple(t[b][batch.mask[b]].tolist()) for t in (batch.codes, batch.types))
        for word in self.words:
            if batch.decoder is not None:
                before = tuple(batch.decoder[b].tolist())
                at = tuple(range(len(before) - 1, len(before) - 1 + len(word)))
                yield Row(codes, types, at, tuple(word), len(codes), (*before, *word[:-1]))
            else:
                more = (*codes, *word[:-1])
                at = tuple(range(len(codes) - 1, len(more)))
                yield Row(more, (*types, *(0 for _ in word[:-1])), at, tuple(word), len(codes))


class Language(LabelWords):
    """Teaches the answer's tokens over the whole vocabulary."""

    def rows(self, inputs: Iterable[Sequence[str]], prompt: Prompt | None, golds: Sequence[Gold] = ()) -> list[Row]:
        words, end = self.frame.words, self.frame.readout == "generate"
        answers = [g if isinstance(g, str) else words[g] if isinstance(g, int) else None for g in golds]
        return list(self.model.renderer(self.frame, prompt).rows(inputs, answers or None, end))

    def loss(self, batch: Batch, placed: Placed, head: Head | None, golds: Tensor, recompute: bool = False) -> Judged:
        states = self.model.run(batch, placed, read=True, recompute=recompute)
        wanted = batch.targets != -100
        z = self.model.logits(states[wanted]).float()  # only where a token is taught: never (B, S, V)
        each = torch.zeros(wanted.shape, device=z.device).masked_scatter(
            wanted, F.cross_entropy(z, batch.targets[wanted], reduction="none")
        )
        return Judged(each.sum(1) / wanted.sum(1).clamp(min=1), z)


class Pooled(Reader):
    """A head on pooled states of the caller's own tokens, never a virtual one."""

    def at(self, batch: Batch) -> Tensor | None:
        if self.frame.pool == "mean" or self.model.two_stacks:  # an encoder-decoder is pooled over its encoder
            return None
        return self._column(batch.own)[:, None]

    def vector(self, states: Tensor, batch: Batch) -> Tensor:
        own = batch.own
        if self.frame.pool == "mean":
            x = (states * own[..., None]).sum(1) / own.sum(1, keepdim=True).clamp(min=1)
        elif states.shape[1] == 1:
            x = states[:, 0]
        else:
            x = states[torch.arange(len(own), device=own.device), self._column(own)]
        x = x.float()
        return F.normalize(x, dim=-1) * self.model.hidden**0.5 if self.model.normalise else x

    def pooled(self, batch: Batch, placed: Placed, recompute: bool = False) -> Tensor:
        """(B, H). Mean, first ("cls") or last token; of unit RMS where the model's own pooling normalises."""
        at = self.at(batch)
        asked = batch if at is None else replace(batch, at=at)
        return self.vector(self.model.run(asked, placed, read=at is not None, recompute=recompute), batch)

    def _column(self, own: Tensor) -> Tensor:
        if self.frame.pool == "cls":
            return own.long().argmax(1)
        return own.shape[1] - 1 - own.flip(1).long().argmax(1)

    def judge(self, vector: Tensor, head: Head | None) -> Tensor:
        if head is None:
            raise ModelError('the prompt\'s frame says readout "head", but it holds no head')
        return head(vector)


class Similarity(Pooled):
    """Cosine similarity between the text and each label text, times 20 (a temperature of 0.05)."""

    SCALE: ClassVar[float] = 20.0

    @cached_property
    def labels(self) -> Tensor:
        """(C, H), unit length: the label texts as the frozen model sees them, without any prompt."""
        plain = replace(self.frame, fields=("text",), template="{text}", instruction="", demonstrations=())
        rows = list(self.model.renderer(plain).rows([(w,) for w in self.frame.words]))
        with torch.no_grad(), self.model.frozen():
            pooled = self.pooled(collate(rows).to(self.model.device), Placed())
        return F.normalize(pooled, dim=-1)

    def judge(self, vector: Tensor, head: Head | None) -> Tensor:
        return self.SCALE * F.normalize(vector, dim=-1) @ self.labels.T


class Written(Language):
    """The answer is text that the model writes."""

    needs = "text"

    def judge(self, vector: Tensor, head: Head | None) -> Tensor:
        return Reader.judge(self, vector, head)


READERS: dict[str, type[Reader]] = {
    "label-words": LabelWords,
    "words": WholeWords,
    "lm": Language,
    "head": Pooled,
    "similarity": Similarity,
    "generate": Written,
}


def reader(model: Model, frame: Frame) -> Reader:
    """The reader that a frame names. Raises ModelError where the model cannot do it."""
    if "images" in model.can:
        from .sighted import image_reader

        return image_reader(model, frame)  # type: ignore[arg-type]
    if frame.readout not in READERS:
        raise ModelError(
            f"the readout {frame.readout!r} is for pictures; {model.name} ({model.arrangement}) reads texts"
        )
    cls = READERS[frame.readout]
    if cls.needs not in model.can:
        fits = [n for n, r in READERS.items() if r.needs in model.can]
        raise ModelError(
            f"the readout {frame.readout!r} needs a model with {cls.needs!r}; {model.name} ({model.arrangement}) has "
            f"{', '.join(sorted(model.can))}. Readouts that fit it: {', '.join(fits)}"
        )
    if frame.place == "back" and model.arrangement == "causal" and issubclass(cls, Pooled):
        raise ConfigError(
            f"the readout {frame.readout!r} reads the input's own tokens, and in a causal model they never see vectors "
            "behind them: place=back would learn nothing. Use place=front, or readout=label-words."
        )
    return cls(model, frame)


@torch.no_grad()
def score_all(read: Reader, rows: Sequence[Row], prompt: Prompt, *, size: int = 32, done: Any = None) -> Tensor:
    """Scores (N, C) of rows under one prompt, computed in batches of like length, given back in the order of `rows`.
    done: called with the number of rows after each batch."""
    out: Tensor | None = None
    with read.model.frozen():
        for index in batches_by_length(rows, size):
            batch = read.batch([rows[i] for i in index])
            z = read.scores(batch, read.model.place(prompt, batch), prompt.head).cpu()
            out = z.new_zeros(len(rows), z.shape[1]) if out is None else out
            out[index] = z
            if done:
                done(len(index))
    return torch.zeros(0, len(read.frame.labels)) if out is None else out
