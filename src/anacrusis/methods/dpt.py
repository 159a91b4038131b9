"""DPT: a learned context of class texts, and visual rows that are made for the classes that a picture may be of.

    q_k = A t_k,  t_k: (D,) learned class features of the K classes nearest to the picture for the frozen model
    o_k = W_v sum_j softmax_j((W_q q_k) (W_k kv_j) / sqrt(r)) kv_j,    kv = [own tokens of the layer, no gradient ; E]
    row_k = u LN(o_k + q_k), (K, d_v), in the last image layer, where they take the place of the free rows (N, d_v) that
    the first J layers have; A: (d_v, D), W_q, W_k: (r, d_v), W_v: (d_v, d_v), E: (N, d_v), H: (C, d_v), not kept
    loss = CE(z, y) + a CE(H LN(o_y), y), the latter where y is among the K; in the first half of the steps also
    CE(s <f0, t>, y) + CE(s <f, t0>, y) - 0.9 CE(z, y): each side against the other, frozen one

Paper: Xing et al. 2023, https://arxiv.org/abs/2208.08340
Departure: class features enter at length sqrt(D) (raw in the paper), the layer's tokens divided by u, the size of the
    tower's states; the context has four rows that start at words (16 drawn ones in the paper); free rows in at most
    nine layers instead of all but the last; AdamW in units instead of two rates of SGD; no augmentation.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import ConfigError
from ..model.readout import classification_loss
from ..prompt.values import Conditioned, Frame, Paired, Prompt, Tokens
from ..registry import looking
from ..tune.makers import ConditionedMaker, Group, Restoring, build_quietly, seeded
from ..tune.recipe import Problem, Recipe, Stage, Term, View
from ..tune.sight_makers import WORDS, plain
from .ivlp import Layers, check, image_rows, text_rows
from .maple import network_groups


@dataclass(frozen=True, kw_only=True)
class DPTConfig:
    length: int = 0  # M, rows in the class texts; 0: as many as `words` has tokens
    words: str = WORDS  # where the rows of the texts start; "": at random
    visual: int = 10  # N, free rows beside the patches, and vectors in E
    depth: int = 9  # J, image layers with free rows, from the first on; at most all but the last
    top: int = 10  # K, classes that a picture's rows are made for
    rank: int = 32  # r, width in which classes are compared with tokens
    class_weight: float = 0.3  # a, of telling a class from what its row has read
    guided: float = 0.5  # share of the steps in which each side also learns against the other, frozen one

    def __post_init__(self) -> None:
        check(self, "visual", "depth", "top", "rank")
        if not 0 <= self.guided <= 1:
            raise ConfigError(f"guided is a share of the steps, 0 to 1, got {self.guided}")


class Reading(nn.Module):
    """What classes read of a layer's tokens, at unit size: texts (B, K, D), own (B, n, d) -> q, o of (B, K, d)."""

    def __init__(self, D: int, d: int, extra: int, rank: int):
        super().__init__()
        self.ask, self.value = nn.Linear(D, d), nn.Linear(d, d)
        self.query, self.key = nn.Linear(d, rank, bias=False), nn.Linear(d, rank, bias=False)
        self.extra, self.norm = nn.Parameter(torch.empty(extra, d)), nn.LayerNorm(d)

    def forward(self, texts: Tensor, own: Tensor) -> tuple[Tensor, Tensor]:
        q = self.ask(texts)
        kv = torch.cat([own, self.extra.expand(len(own), -1, -1)], 1)
        shares = torch.softmax(self.query(q) @ self.key(kv).mT / self.query.out_features**0.5, dim=-1)  # (B, K, n + N)
        return q, self.value(shares @ kv)


class ClassAware(ConditionedMaker):
    """context: (M, d_t). free: {layer: (N, d)}. frozen: (C, D), class features of the frozen model, which choose the
    classes. classes: C while learning; 0 without the reader of classes, which is not kept."""

    reads, method = "picture", "dpt"

    def __init__(self, context: Tensor, free: Layers, frozen: Tensor, frame: Frame, options: dict[str, Any],
                 generator: torch.Generator, classes: int = 0):  # fmt: skip
        super().__init__()
        d, D = options["width"], frozen.shape[1]
        self.options, self.frame, self.order, self.length = options, frame, tuple(free), len(context)
        self.context = nn.Parameter(context.clone().float())
        self.free = nn.ParameterList([nn.Parameter(t.clone().float()) for t in free.values()])
        self.reading: Reading = seeded(  # type: ignore[assignment]
            build_quietly(lambda: Reading(D, d, options["visual"], options["rank"])), generator
        )
        self.reader: nn.Module | None = None
        if classes:
            head = build_quietly(lambda: nn.Sequential(nn.LayerNorm(d), nn.Linear(d, classes)))
            self.reader = seeded(head, generator)
        self.frozen: Tensor
        self.register_buffer("frozen", frozen, persistent=False)
        self.text: Tokens | None = None  # of a prompt that does not change, so that its class features are made once

    def forward(self, reads: Any = None) -> Paired:
        best = (reads.features() @ self.frozen.T).topk(min(self.options["top"], len(self.frozen))).indices  # (B, K)

        def write(own: Tensor, texts: Tensor) -> Tensor:
            unit = self.options["unit"]
            q, o = self.reading(texts[best] * texts.shape[1] ** 0.5, own.detach() / unit)
            self.seen = best, o
            return (unit * self.reading.norm(o + q)).to(own)

        text = self.text or Tokens(side="text", layers={0: self.context})
        free = dict(zip(self.order, self.free, strict=True))
        return Paired(text=text, image=Tokens(side="image", layers=free, made={self.options["last"]: write}))

    def told(self, view: View) -> Tensor:
        """How well a class is told from what its row has read; of the rows of classes that the picture is of."""
        assert self.reader is not None
        best, o = self.seen
        golds = view.golds if view.golds.dim() == 2 else F.one_hot(view.golds, len(self.frozen))
        right = golds.gather(1, best) > 0
        z = self.reader(o[right])
        return F.cross_entropy(z, best[right]) if len(z) else z.sum()

    def groups(self) -> list[Group]:
        assert self.reader is not None
        extra = self.reading.extra
        network = [p for m in (self.reading, self.reader) for p in m.parameters() if p is not extra]
        return [
            Group("text", [self.context], unit=self.options["scale"]),
            Group("prompt", list(self.free), unit=self.options["unit"]),
            Group("extra", [extra], unit=extra.shape[1] ** -0.5),
            *network_groups(nn.ParameterList(network)),
        ]

    def config_json(self) -> dict[str, Any]:
        return self.options

    def fold(self) -> Prompt:
        kept = super().fold()
        assert isinstance(kept, Conditioned)
        weights = {k: t for k, t in kept.weights.items() if not k.startswith("reader.")}
        return replace(kept, weights=weights, frame=self.frame)


def build(config: DPTConfig, problem: Problem) -> Recipe:
    model, tower, g = problem.model, problem.model.image.tower, problem.generator
    asked = plain(problem.frame)
    rows, template = text_rows(model, config.words, config.length, 1, g)
    frame = replace(problem.frame, template=template)
    free = image_rows(model, config.visual, min(config.depth, tower.depth - 1), g)
    options = {"visual": config.visual, "top": config.top, "rank": config.rank, "width": tower.width,
               "last": tower.depth - 1, "unit": model.row_scale, "scale": model.scale, "asked": asked.template,
               "layers": list(free)}  # fmt: skip
    maker = ClassAware(rows[0], free, model.texts(asked), frame, options, g, len(frame.labels))

    def guided(view: View) -> Tensor:
        f, t = view.model.features(view.batch), view.model.texts(asked)
        scores = (view.model.match(f, view.seen.text), view.model.match(view.seen.image, t), view.scores)
        a, b, c = (classification_loss(z.float(), view.golds).mean() for z in scores)  # type: ignore[union-attr]
        return a + b - 0.9 * c  # the answer's own loss counts 1 already

    told = (Term("classes", config.class_weight, maker.told),) if config.class_weight else ()
    stages = (Stage("guided", config.guided, terms=(*told, Term("guided", 1.0, guided))), Stage("free"))
    return Recipe(maker, frame, terms=told, stages=stages if config.guided else stages[1:])


def _empty(model: Any, prompt: Conditioned) -> ClassAware:
    """For the classes of the prompt's frame."""
    held, options = prompt.weights, dict(prompt.config)
    free = {layer: held[f"free.{i}"] for i, layer in enumerate(options["layers"])}
    frozen = model.texts(replace(prompt.frame, template=options["asked"]))
    maker = ClassAware(held["context"], free, frozen, prompt.frame, options, torch.Generator())
    maker.text = Tokens(side="text", layers={0: maker.context})
    return maker


restore = Restoring("dpt", _empty)


looking(
    name="dpt",
    summary="a context of class texts, and visual rows made for the classes that a picture may be of",
    config=DPTConfig,
    build=build,
    restore=restore,
    needs=frozenset({"gradients", "class-texts", "tokens"}),
    paper="[Xing et al. 2023](https://arxiv.org/abs/2208.08340)",
    training={"lr": 0.05, "epochs": 50, "batch": 32, "patience": 10},
)
