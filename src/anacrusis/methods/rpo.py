"""RPO: rows in both towers that read the frozen tokens and are read by nobody; each pair of rows is a judge.

    z_c = k / K sum over j of <f_j(x), t_cj>
    f_j(x), t_cj: (D,) of unit length, what row j of the image tower and of the text tower has become at the end
    rows: (K, d) text, (K, d_v) image, without positions; they see neither each other nor themselves; k: model's scale

So the frozen tokens' keys and values are computed once, and a step runs the K rows alone.

Paper: Lee et al. 2023, https://arxiv.org/abs/2308.14960
Departure: image rows start at the first token as it enters the tower, which includes its position (a tower without a
    class token: the first patch of a grey picture). Noise at the start is of a tenth of the values' own size. AdamW in
    units of these values instead of SGD at 0.01; no augmentation; the best validation instead of the last step.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..errors import ConfigError
from ..prompt.values import Frame
from ..registry import looking
from ..tune.recipe import Problem, Recipe
from ..tune.sight_makers import PairMaker, RowsMaker, plain


@dataclass(frozen=True, kw_only=True)
class RPOConfig:
    rows: int = 24  # K, of each tower
    noise: float = 0.1  # on the rows' common start, in units of its RMS

    def __post_init__(self) -> None:
        if self.rows < 1:
            raise ConfigError(f"rows must be at least 1, got {self.rows}")
        if self.noise < 0 or (self.noise == 0 and self.rows > 1):
            raise ConfigError(f"noise is {self.noise}; it must be above 0: equal rows would stay equal")


def ends(model: Any, frame: Frame) -> tuple[Tensor, Tensor]:
    """(d,), (d_v,): the text's last token and the picture's first, as they enter their towers."""
    with torch.no_grad(), model.frozen():
        laid = model.lay(frame, 0)
        text = model.text.table[laid.codes[0, laid.last[0]].to(model.device)]
        return text.float().cpu(), model.image.enter(model.grey())[0, 0].float().cpu()


def build(config: RPOConfig, problem: Problem) -> Recipe:
    frame = plain(problem.frame)
    sides = []
    for side, start in zip(("text", "image"), ends(problem.model, frame), strict=True):
        unit = float(start.square().mean().sqrt())
        drawn = torch.randn(config.rows, len(start), generator=problem.generator)
        sides.append(RowsMaker({0: start + config.noise * unit * drawn}, side, unit, read_only=True))
    return Recipe(PairMaker(*sides), frame)


looking(
    name="rpo",
    summary="rows in both towers that read the frozen tokens and change nothing",
    config=RPOConfig,
    build=build,
    paper="[Lee et al. 2023](https://arxiv.org/abs/2308.14960)",
    needs=frozenset({"gradients", "class-texts", "tokens"}),
    training={"lr": 0.1, "epochs": 30, "batch": 16, "patience": 10},
)
