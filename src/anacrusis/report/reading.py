"""What a learned prompt says and does: its nearest words, whether those can be trusted, and what each vector is for.

    nearest words     argmin_v |p_i - e_v|, argmax_v cos(p_i, e_v)              p: (P, H) prompt, e: (V, H) input table
    faithfulness      score(those words in the vectors' place) - score(no prompt, or random words there), paired
    without vector i  score and log p(gold) with P - 1 vectors, less those with all
    attention         mean over the caller's tokens t of sum_i a[t, i]          a: (S, S) weights of a head
                      each: at level 1 - 0.05 / P, so that the one that is missed most is told by its interval, too
    similarity        cos of mean vectors; of the best matching; CKA: |Y'X|^2 / (|X'X| |Y'Y|), X: (H, P), centred

Papers: Khashabi et al. 2022, https://arxiv.org/abs/2112.08348 (a prompt's nearest words may say anything); Vu et al.
    2022, https://arxiv.org/abs/2110.07904 (section 3: similarity of tasks by their prompts); Kornblith et al. 2019,
    https://arxiv.org/abs/1905.00414 (CKA)
Departure: vectors are matched by the best one-to-one assignment, not averaged over all pairs; CKA compares vectors by
    their H values, so their order and number do not matter.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import stdtrit
from torch import Tensor
from torch.nn import functional as F

from ..errors import ConfigError, ModelError
from ..measure.intervals import Interval, bootstrap, paired
from ..measure.predict import scores, written
from ..model.model import Model, batches_by_length
from ..model.rows import collate
from ..prompt.store import check
from ..prompt.values import Prefix, Prompt, Soft, Text
from ..task import Task

PAIRS, SAMPLE = 2000, 500  # random pairs of words; words whose nearest other word is looked for
TEXTS = 32  # of a task, for attention
_SLOT = re.compile(r"\{soft(?::(\d+))?\}")
Square = tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class Near:
    """The words nearest to one vector. nearer_than, closer_than: the share of random pairs of words that are farther
    from each other, by distance and by cosine. relative: distance / the usual one of a word to its nearest other."""

    by_distance: tuple[tuple[str, float], ...]
    by_cosine: tuple[tuple[str, float], ...]
    nearer_than: float
    closer_than: float
    relative: float


@dataclass(frozen=True)
class Faith:
    """Scores of the prompt, and of others in its vectors' place: their nearest words, nothing, random words; and paired
    differences. trusted: the words do better than nothing and than random words (a head may have learned to expect
    something there, whatever it says)."""

    prompt: Interval
    words: Interval
    none: Interval
    random: Interval
    gained: Interval  # prompt - none
    said: Interval  # words - none
    meant: Interval  # words - random
    lost: Interval  # prompt - words

    @property
    def trusted(self) -> bool:
        return self.said.low > 0 and self.meant.low > 0


@dataclass(frozen=True)
class Without:
    """What changes when one vector is taken away: below 0, it is missed. log_p: nats, None for written answers and of
    one example. The intervals hold for all vectors together, level 1 - 0.05 / P each: for the one picked after looking,
    too."""

    vector: int
    score: Interval
    log_p: Interval | None

    @property
    def told(self) -> Interval:
        """By which vectors are put in order."""
        return self.log_p or self.score


@dataclass(frozen=True)
class Attention:
    """shares[l][h]: of the attention that the caller's tokens pay in a head, what goes to the prompt.
    even[l]: what would go to it if all that a token can see were alike."""

    shares: Square
    even: tuple[float, ...]

    @property
    def mean(self) -> float:
        return float(np.mean(self.shares))


@dataclass(frozen=True)
class Similarity:
    """Of each prompt to each, 1 to itself; mean and matched: cosines; cka: 0..1."""

    names: tuple[str, ...]
    mean: Square
    matched: Square
    cka: Square


@dataclass(frozen=True)
class Reading:
    """What was found; empty or None: not asked for, or not to be had of this kind of prompt."""

    kind: str
    length: int
    words: tuple[Near, ...] = ()
    faith: Faith | None = None
    without: tuple[Without, ...] = ()
    attention: Attention | None = None
    similarity: Similarity | None = None

    heads = (
        "vector",
        "nearest word",
        "by cosine",
        "nearer than pairs of words",
        "score without it",
        "log p without it",
    )

    @property
    def rows(self) -> tuple[tuple[str, ...], ...]:
        """One a vector, those first that are missed most."""
        missed = {w.vector: w for w in self.without}
        order = [w.vector for w in self.without] or range(len(self.words))
        return tuple(
            (
                str(i), self.words[i].by_distance[0][0], self.words[i].by_cosine[0][0],
                f"{self.words[i].nearer_than:.0%}",
                f"{missed[i].score.value:+.3f}" if i in missed else "",
                f"{p.value:+.3f}" if i in missed and (p := missed[i].log_p) else "",
            )
            for i in order
        )  # fmt: skip

    @property
    def headline(self) -> str:
        parts = [f"{self.length} vectors"]
        if self.words:
            parts.append(f"nearest words: {' '.join(n.by_distance[0][0] for n in self.words)}")
        if f := self.faith:
            verdict = "the words say some of what it does" if f.trusted else "do not read it by its words"
            parts.append(
                f"learned {f.prompt}, as those words {f.words}, as random words {f.random}, without {f.none}: {verdict}"
            )
        if self.without:
            first, missed = self.without[0], sum(w.told.high < 0 for w in self.without)
            said = f"score {first.score.value:+.2f} [{first.score.low:+.2f}, {first.score.high:+.2f}]"
            if p := first.log_p:
                said += f", log p {p.value:+.3f} [{p.low:+.3f}, {p.high:+.3f}]"
            which = f"vector {first.vector} is missed most, of {missed} that are missed" if missed else (
                f"no vector is missed more than chance makes, vector {first.vector} most")  # fmt: skip
            parts.append(f"{which}: {said}")
        if a := self.attention:
            parts.append(f"the text pays it {a.mean:.0%} of its attention; evenly it would be {np.mean(a.even):.0%}")
        if s := self.similarity:
            each = zip(s.names[1:], s.mean[0][1:], s.matched[0][1:], s.cka[0][1:], strict=True)
            parts += [f"beside {name}: cosine {mean:.2f}, of matched vectors {matched:.2f}, CKA {cka:.2f}"
                      for name, mean, matched, cka in each]  # fmt: skip
        return "; ".join(parts)

    def to_json(self) -> dict[str, Any]:
        found = {**asdict(self), "headline": self.headline}
        return found if self.faith is None else {**found, "faith": {**found["faith"], "trusted": self.faith.trusted}}


def read_prompt(prompt: Prompt, model: Model, task: Task | None = None, others: Sequence[Prompt] = ()) -> Reading:
    """Everything that can be read of a prompt. task: its test examples are what scores and attention are of. others:
    prompts of the same kind for the same model, to compare with.

    Raises ConfigError for a kind without vectors of its own, PromptError for a prompt of another model.
    """
    if not isinstance(prompt, Soft | Prefix):
        raise _no_vectors(prompt)
    check(prompt, _local(model).name, model.fingerprint)
    alike = similarity((prompt, *others)) if others else None
    look = attention_to(prompt, model, [e.inputs for e in task.test[:TEXTS]]) if task is not None else None
    if isinstance(prompt, Prefix):
        return Reading(prompt.kind, prompt.tokens, attention=look, similarity=alike)
    faith = faithful(prompt, model, task) if task is not None else None
    without = without_each(prompt, model, task) if task is not None else ()
    return Reading(prompt.kind, prompt.length, nearest_words(prompt, model), faith, without, look, alike)


# --- words


def nearest_words(prompt: Prompt, model: Model, k: int = 5) -> tuple[Near, ...]:
    """The k nearest words of each vector."""
    vectors, (words, table) = _vectors(prompt).to(model.device), _table(model)
    distance, cosine = torch.cdist(vectors, table), F.normalize(vectors, dim=-1) @ F.normalize(table, dim=-1).T
    rng = np.random.default_rng(0)
    a, b = (table[i] for i in torch.from_numpy(_pairs(len(table), rng)))
    apart, turned = (a - b).norm(dim=-1), F.cosine_similarity(a, b)
    usual = _usual(table, rng)
    out = []
    for p, d, c in zip(vectors, distance, cosine, strict=True):
        close, chosen = c.topk(min(k, len(c))), d.topk(min(k, len(d)), largest=False).indices
        exact = (table[chosen] - p).norm(dim=-1)  # cdist is quick, but off by its roundings
        near = exact.sort(stable=True)
        out.append(Near(
            tuple((words[i], float(x)) for i, x in zip(chosen[near.indices].tolist(), near.values, strict=True)),
            tuple((words[i], float(x)) for i, x in zip(close.indices.tolist(), close.values, strict=True)),
            float((apart > near.values[0]).float().mean()), float((turned < close.values[0]).float().mean()),
            float(near.values[0]) / usual,
        ))  # fmt: skip
    return tuple(out)


def _pairs(V: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """(2, PAIRS): pairs of different words."""
    first = rng.integers(V, size=PAIRS)
    return np.stack([first, (first + rng.integers(1, V, size=PAIRS)) % V])


def _usual(table: Tensor, rng: np.random.Generator) -> float:
    """The median distance of a word to its nearest other one."""
    chosen = torch.from_numpy(rng.permutation(len(table))[:SAMPLE])
    return max(float(torch.cdist(table[chosen], table).topk(2, largest=False).values[:, 1].median()), 1e-12)


@torch.no_grad()
def _table(model: Model) -> tuple[list[str], Tensor]:
    """The tokenizer's words and their vectors (V, H), as they enter the network."""
    V = min(len(model.embeddings), len(model.tokenizer))
    words = model.tokenizer.convert_ids_to_tokens(list(range(V)))
    return words, model.embed(torch.arange(V, device=model.device)[None])[0].float()


def discretised(prompt: Prompt, model: Model) -> Soft:
    """The prompt with each vector replaced by that of its nearest word, by distance."""
    vectors, (_, table) = _vectors(prompt).to(model.device), _table(model)
    assert isinstance(prompt, Soft)
    return replace(prompt, vectors=table[torch.cdist(vectors, table).argmin(1)].cpu())


# --- what it does


def faithful(prompt: Prompt, model: Model, task: Task) -> Faith:
    """Whether the prompt's nearest words do what it does, on the task's test examples."""
    read, (_, table) = discretised(prompt, model), _table(model)
    drawn = table[torch.from_numpy(np.random.default_rng(0).integers(len(table), size=prompt.length))].cpu()
    bare = Text(frame=prompt.frame, head=prompt.head, card=prompt.card)
    a, b, c, d = (_answers(p, model, task)[0] for p in (prompt, read, bare, replace(read, vectors=drawn)))
    each = (bootstrap(task.metric, x, task.test, classes=len(task.labels) or None) for x in (a, b, c, d))
    return Faith(*each, *(_paired(task, x, y) for x, y in ((a, c), (b, c), (b, d), (a, b))))


def without_each(prompt: Prompt, model: Model, task: Task) -> tuple[Without, ...]:
    """What each vector adds, on the task's test examples; those that are missed most first. P + 1 passes."""
    vectors = _vectors(prompt)
    assert isinstance(prompt, Soft)
    whole, logs = _answers(prompt, model, task)
    out, level = [], 1 - 0.05 / len(vectors)
    for i in range(len(vectors)):
        kept = torch.cat([prompt.vectors[:i], prompt.vectors[i + 1 :]])
        frame = replace(prompt.frame, template=_one_less(prompt.frame.template, i, len(vectors)))
        answers, less = _answers(replace(prompt, vectors=kept, frame=frame), model, task)
        change = None if logs is None or less is None or len(less) < 2 else _mean(less - logs, level)
        out.append(Without(i, _paired(task, answers, whole, level), change))
    return tuple(sorted(out, key=lambda w: w.told.value))


def _answers(prompt: Prompt, model: Model, task: Task) -> tuple[Any, NDArray[np.float64] | None]:
    """Predictions as metrics take them, and (N,) log p of what is right, nats: the mean over labels of several."""
    inputs = [e.inputs for e in task.test]
    if task.kind == "generation":
        return written(prompt, inputs, model), None
    z = scores(prompt, inputs, model).double()
    if task.kind == "multilabel":
        gold = torch.tensor([[float(c in e.gold) for c in range(z.shape[1])] for e in task.test], dtype=z.dtype)  # type: ignore[operator]
        return z.numpy(), -F.binary_cross_entropy_with_logits(z, gold, reduction="none").mean(1).numpy()
    golds = torch.tensor([e.gold for e in task.test])
    return z.argmax(1).numpy(), z.log_softmax(1).gather(1, golds[:, None])[:, 0].numpy()


def _paired(task: Task, a: Any, b: Any, level: float = 0.95) -> Interval:
    return paired(task.metric, a, b, task.test, classes=len(task.labels) or None, level=level)


def _mean(values: NDArray[np.float64], level: float) -> Interval:
    """A mean over N > 1 examples with Student's interval."""
    n, value = len(values), float(values.mean())
    off = float(stdtrit(n - 1, (1 + level) / 2) * values.std(ddof=1) / n**0.5)
    return Interval(value, value - off, value + off, n, level=level)


def _one_less(template: str, vector: int, length: int) -> str:
    """The template with room for one vector less in the slot that this one stands in."""
    sizes = [int(n or 0) for n in _SLOT.findall(template)]
    starts = np.cumsum([0, *(n or length - sum(sizes) for n in sizes)])
    at = int(np.searchsorted(starts, vector, side="right")) - 1
    if at >= len(sizes) or not sizes[at]:  # no slots; or one without a number, that takes what is there
        return template
    turn = iter(range(len(sizes)))
    less = f"{{soft:{sizes[at] - 1}}}" if sizes[at] > 1 else ""
    return _SLOT.sub(lambda found: less if next(turn) == at else found[0], template)


# --- where the model looks


@torch.no_grad()
def attention_to(prompt: Prompt, model: Model, texts: Sequence[Any], size: int = 8) -> Attention:
    """How much of their attention the caller's tokens pay to a prompt; of an encoder-decoder: in its encoder.

    texts: inputs of the frame's fields. The network computes attention step by step meanwhile; it is left as it was.
    """
    if not isinstance(prompt, Soft | Prefix):
        raise _no_vectors(prompt)
    check(prompt, _local(model).name, model.fingerprint)
    inputs = [(t,) if isinstance(t, str) else tuple(t) for t in texts]
    sites = [s for s in model.sites if s.stack == "encoder" or not model.two_stacks]
    if not sites or not inputs:
        raise ConfigError(
            f"attention needs texts, and a network that shows it; {model.name} has {len(sites)} such layers"
        )
    rows = list(model.renderer(prompt.frame, prompt).rows(inputs))
    paid = [torch.zeros(()).double()] * len(sites)
    even = np.zeros(len(sites))
    for index in batches_by_length(rows, size):
        batch = collate([rows[i] for i in index]).to(model.device)

        def look(layer: int, a: Tensor, own: Tensor = batch.own, codes: Tensor = batch.codes) -> None:
            ours = F.pad(codes < 0, (a.shape[-1] - codes.shape[1], 0), value=True)  # (B, K), a prefix stands before all
            share = (a.double() * ours[:, None, None]).sum(-1)  # (B, heads, S)
            paid[layer] = paid[layer] + (share * own[:, None]).sum((0, 2)).cpu()
            seen = a.gt(0).any(1)  # (B, S, K): what is masked has a weight of 0 in every head
            part = (seen & ours[:, None]).sum(-1) / seen.sum(-1).clamp(min=1)
            even[layer] += float((part * own).sum())

        with model.frozen(), _watched(model, [s.module for s in sites], look):
            model.run(batch, model.place(prompt, batch))
    count = sum(c >= 0 for r in rows for c in r.codes)
    return Attention(tuple(tuple((p / count).tolist()) for p in paid), tuple((even / count).tolist()))


@contextmanager
def _watched(model: Model, modules: Sequence[Any], look: Callable[[int, Tensor], None]) -> Iterator[None]:
    """`look` gets each layer's attention, (B, heads, S, K), while a pass runs; the network is as before afterwards."""

    def hook(layer: int) -> Callable[..., None]:
        def keep(module: Any, given: Any, out: Any) -> None:
            if not isinstance(out, tuple) or not isinstance(out[-1], Tensor) or out[-1].dim() != 4:
                raise ModelError(f"{model.name} does not show its attention weights")
            look(layer, out[-1])

        return keep

    configs = {id(m.config): m.config for m in model.network.modules() if hasattr(m, "config")}
    before = [(c, c._attn_implementation_internal) for c in configs.values()]
    handles = []
    try:
        for c, _ in before:
            c._attn_implementation_internal = "eager"  # fused kernels never hold the weights
        handles += [m.register_forward_hook(hook(i)) for i, m in enumerate(modules)]
        yield
    finally:
        for handle in handles:
            handle.remove()
        for c, said in before:
            c._attn_implementation_internal = said


# --- prompts beside each other


def similarity(prompts: Sequence[Prompt]) -> Similarity:
    """How alike prompts of one model are, by each of three measures."""
    from scipy.optimize import linear_sum_assignment

    found = [_flat(p).numpy().astype(np.float64) for p in prompts]
    if len({x.shape[1] for x in found}) > 1 or len({p.kind for p in prompts}) > 1:
        shapes = ", ".join(f"{p.kind} {x.shape}" for p, x in zip(prompts, found, strict=True))
        raise ConfigError(f"only prompts of one kind and model can be compared; these are {shapes}")

    def unit(x: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), 1e-12))

    def matched(x: NDArray[np.float64], y: NDArray[np.float64]) -> float:
        cosines = unit(x) @ unit(y).T
        return float(cosines[linear_sum_assignment(cosines, maximize=True)].mean())

    def cka(x: NDArray[np.float64], y: NDArray[np.float64]) -> float:
        x, y = (v - v.mean(1, keepdims=True) for v in (x, y))
        own = float(np.linalg.norm(x @ x.T)) * float(np.linalg.norm(y @ y.T))
        return float(np.square(y @ x.T).sum()) / max(own, 1e-12)

    def square(f: Callable[..., float]) -> Square:
        return tuple(tuple(f(x, y) for y in found) for x in found)

    names = [str(p.card.get("task") or "prompt") for p in prompts]
    names = [name if names.count(name) == 1 and "task" in p.card else f"{name} {i + 1}"
             for i, (name, p) in enumerate(zip(names, prompts, strict=True))]  # fmt: skip
    return Similarity(
        tuple(names), square(lambda x, y: float(unit(x.mean(0)) @ unit(y.mean(0)))), square(matched), square(cka)
    )


def _flat(prompt: Prompt) -> Tensor:
    """(P, H), or (P, all values of a position's keys and values)."""
    if not isinstance(prompt, Prefix):
        return _vectors(prompt).cpu()
    sides = [t.detach().float().cpu() for side in (prompt.keys, prompt.values) for s in sorted(side) for t in side[s]]
    if len({t.shape[-2] for t in sides}) != 1 or any(t.dim() != 3 for t in sides):
        raise ConfigError("prefixes whose layers differ in length, or that differ by row, cannot be compared")
    return torch.cat([t.transpose(0, 1).flatten(1) for t in sides], dim=1)


def _vectors(prompt: Prompt) -> Tensor:
    """(P, H), of at least one vector."""
    if not isinstance(prompt, Soft) or prompt.vectors.dim() != 2 or not prompt.length:
        raise _no_vectors(prompt)
    return prompt.vectors.detach().float()


def _no_vectors(prompt: Prompt) -> ConfigError:
    return ConfigError(
        f"a prompt of kind {prompt.kind!r} has no vectors of its own to read. Soft prompts have (prompt-tuning makes "
        "them); of prefixes (prefix-tuning) similarity and attention can be read; words speak for themselves"
    )


def _local(model: Any) -> Model:
    if not isinstance(model, Model):
        raise ConfigError("only prompts of a model of texts that is held in memory can be read")
    return model
