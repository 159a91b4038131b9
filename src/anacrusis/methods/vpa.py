"""Visual prompt adaptation: what is added to a picture is tuned on that picture's own views, the network is not.

    form "added":  x' = x + p, p = 0 at the start (3, S, S);   form "rows": rows P (M, d) in the image tower, read as
        attention(own) + tanh(g) attention(P), g = 0 at the start, one for each layer
    loss: entropy of the mean prediction over the views of least entropy (or cross entropy to their own answer, with
        loss "pseudo"); one step of AdamW; answer the plain view; then forget, or go on with online=true

Paper: Sun et al. 2023, https://arxiv.org/abs/2309.15251
Departure: both forms leave the first prediction as it was, the paper's zero attention; how it does that is not stated
    in what we read. Added prompts stand on pixels, of which a tower's patches are linear functions. With g = 0 the
    rows' own gradient vanishes in the first step: only g moves then, so "rows" wants several steps.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ..adapt.course import Course
from ..adapt.selection import Confident, Objective, marginal_entropy
from ..adapt.views import Crops
from ..errors import ConfigError, ModelError, PromptError
from ..prompt import store
from ..prompt.values import Pixels, Tokens
from ..registry import SEEING, looking
from ..tune.makers import Group, Maker
from ..tune.recipe import Problem


@dataclass(frozen=True, kw_only=True)
class VPAConfig:
    form: Literal["added", "rows"] = "added"  # on pixels, or as rows of the image tower
    length: int = 8  # M, of form rows
    head: str = ""  # vision models: the folder of a prompt with a trained head (linear-probe)
    loss: Literal["entropy", "pseudo"] = "entropy"  # of the mean prediction; or cross entropy to each view's own answer
    views: int = 32  # V, the plain picture among them
    share: float = 0.3  # of the views, those of least entropy
    steps: int = 1  # of AdamW for each picture
    lr: float = 0.002  # per step, in pixels of 0..1; gates move ten times as far
    online: bool = False  # keep what was learned for the next picture

    def __post_init__(self) -> None:
        if self.form not in ("added", "rows") or self.loss not in ("entropy", "pseudo"):
            raise ConfigError(
                f"form is {self.form!r} and loss {self.loss!r}: expected added or rows, entropy or pseudo"
            )


class Added(Maker):
    def __init__(self, size: int):
        super().__init__()
        self.delta = nn.Parameter(torch.zeros(3, size, size))

    def forward(self, reads: Any = None) -> Pixels:
        return Pixels(delta=self.delta)


class Gated(Maker):
    def __init__(self, rows: Tensor, depth: int, unit: float):
        super().__init__()
        self.rows, self.entries, self.unit = nn.Parameter(rows), nn.Parameter(torch.zeros(depth)), unit

    def forward(self, reads: Any = None) -> Tokens:
        return Tokens(side="image", layers={0: self.rows}, entries=self.entries)

    def groups(self) -> list[Group]:
        return [Group("prompt", [self.rows], unit=self.unit), Group("gates", [self.entries], rate=10.0)]


def own_answer(z: Tensor) -> Tensor:
    """Cross entropy of each view to the class that it is answered with now."""
    return nn.functional.cross_entropy(z, z.detach().argmax(-1))


def build(config: VPAConfig, problem: Problem) -> Course:
    model, head = problem.model, None
    if config.head and problem.task is not None:
        prompt = store.load(config.head)
        store.check(prompt, model.name, model.fingerprint)
        head = prompt.head
        if head is None or prompt.frame.labels != problem.frame.labels or problem.frame.readout != "head":
            raise PromptError(
                f"head={config.head}: a trained head for {', '.join(problem.frame.labels)} is needed, on a model that "
                f"a head reads; this prompt ({prompt.kind}) answers {', '.join(prompt.frame.labels) or 'in texts'}"
            )
    if problem.frame.readout == "head" and head is None and problem.task is not None:
        raise ModelError(f"{model.name} answers by a head: learn one (fit ... --method linear-probe) and give its "
                         "folder, --set head=RUN/prompt")  # fmt: skip
    maker: Maker = Added(model.prepare.size)
    if config.form == "rows":
        tower = model.image.tower
        if tower is None:
            raise ModelError(f"{model.name} has no transformer blocks for rows: use form=added")
        rows = model.row_scale * torch.randn(config.length, tower.width, generator=problem.generator)
        maker = Gated(rows, tower.depth, model.row_scale)
    loss: Objective = marginal_entropy if config.loss == "entropy" else own_answer
    return Course(
        frame=problem.frame, members=[maker], make=Crops(), views=config.views, select=Confident(config.share),
        loss=loss, steps=config.steps, lr=config.lr, weight_decay=0.0, reset=not config.online, head=head,
    )  # fmt: skip


looking(
    name="vpa",
    summary="visual prompts tuned on each test picture's own views, without labels",
    config=VPAConfig,
    build=build,
    paper="[Sun et al. 2023](https://arxiv.org/abs/2309.15251)",
    engine="adapt",
    needs=frozenset({"gradients", "images"}),
    kinds=frozenset({"classification"}),
    arrangements=SEEING,
)
