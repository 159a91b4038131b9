"""Search over the tokens of a prompt, led by the gradient of the loss with respect to their one-hot vectors.

    L(x): mean loss of a batch under the tokens x_1..x_P;   g_iv = e_v . dL/de_(x_i): first-order change of x_i -> v
    gcg:         `width` candidates, each x with one random position set to a random one of its `top` most negative g;
                 x <- the one with the smallest L
    autoprompt:  positions in turn; x_i <- the best by L of its `top`, iff L falls
    greater:     positions in turn; candidates are what the model itself would write: the intersection over the
                 examples of its `top` next tokens after (input, x_<i), and x_i; the `exact` most negative g are tried

Each also keeps the best seen by loss over all scoring examples. Tokens that are special, or whose text would not be
read as the same tokens, are never candidates. A candidate's note is its text.

Paper: Zou et al. 2023, https://arxiv.org/abs/2307.15043 (gcg); Shin et al. 2020, https://arxiv.org/abs/2010.15980
    (autoprompt); Das et al. 2024, https://arxiv.org/abs/2412.09722 (greater)
Departure: smaller defaults than the papers' (gcg: width 512, top 256, 250 or 500 steps, 20 tokens). The start is drawn
    from the vocabulary (gcg: "x" twenty times). autoprompt draws one batch for gradient and losses of a step (paper:
    two). greater scores the right answer at once, without a written reasoning and without the perplexity term; it
    ranks by the one-hot gradient and tries the best exactly, where the released code ranks by the mean of the gradient
    of a token's own row; where a model has no next tokens (all but causal ones) or none is left, candidates are the
    `top` by gradient; it restarts nowhere.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..errors import ConfigError
from ..prompt.values import Prompt, Soft
from ..registry import searching
from ..search.candidate import Candidate, as_frame, as_prompt
from ..search.engine import Policy
from ..search.search import Search

Ids = tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class TokenSearchConfig:
    length: int = 8  # P, tokens
    steps: int = 100  # one token is changed a step
    width: int = 64  # gcg: candidates a step
    top: int = 32  # tokens considered at a position
    exact: int = 8  # greater: of these, whose loss is computed
    batch: int = 16  # examples of a step; 0: all scoring examples
    check: int = 10  # steps after which the tokens are scored on all scoring examples

    def __post_init__(self) -> None:
        if min(self.length, self.steps, self.width, self.top, self.exact, self.check) < 1 or self.batch < 0:
            raise ConfigError("length, steps, width, top, exact and check must be at least 1, batch at least 0")


class Tokens:
    """Prompts of tokens: their form as vectors, their text, and which may be used."""

    def __init__(self, s: Search, config: TokenSearchConfig):
        self.s, self.config = s, config
        self.model, self.tokenizer = s.model["model"], s.model["tokenizer"]
        self.special = set(self.tokenizer.all_special_ids)
        s.form = self.form

    def form(self, c: Candidate) -> Prompt:
        """The tokens' embeddings, exactly as if the tokens stood there. "ahead": behind the input, to be continued."""
        if "tokens" not in c.parts:
            return as_prompt(c, self.s.base)
        import torch

        ids = torch.tensor(c.parts["tokens"], dtype=torch.long, device=self.model.device)
        with torch.no_grad():
            vectors = self.model.embed(ids[None])[0].float().cpu()
        frame = as_frame(c, self.s.base)
        if frame.place == "auto" and "{soft" not in frame.template:
            frame = replace(frame, place="after-bos")  # where a text would stand
        if c.parts.get("ahead"):
            frame = replace(frame, place="back", template=" ".join("{" + f + "}" for f in frame.fields))
        return Soft(vectors=vectors, frame=frame)

    def candidate(self, ids: Iterable[int], op: str = "", *parents: Candidate) -> Candidate:
        ids = tuple(int(i) for i in ids)
        return self.s.start.put("tokens", ids).born(op, *parents, note=self.text(ids))

    def text(self, ids: Sequence[int]) -> str:
        return str(self.tokenizer.decode(list(ids)))

    def usable(self, ids: Sequence[int]) -> bool:
        """No special token, and the text is read as these tokens again."""
        if self.special & set(ids):
            return False
        return list(self.tokenizer(self.text(ids), add_special_tokens=False)["input_ids"]) == list(ids)

    def drawn(self, rng: random.Random) -> Ids:
        ids: Ids = ()
        for _ in range(10_000):
            more = (*ids, rng.randrange(len(self.tokenizer)))
            ids = more if self.usable(more) else ids
            if len(ids) == self.config.length:
                return ids
        raise ConfigError(f"no {self.config.length} tokens of {self.model.name} survive being written and read again")

    def swaps(self, ids: Ids, places: Iterable[tuple[int, int]]) -> list[Ids]:
        """One token changed: (position, token) pairs, those that are usable, each once."""
        made = dict.fromkeys((*ids[:i], v, *ids[i + 1 :]) for i, v in places)
        return [t for t in made if t != ids and self.usable(t)]


def descend(config: TokenSearchConfig, s: Search, rule: str) -> Policy:
    tokens = Tokens(s, config)
    now = tokens.candidate(tokens.drawn(s.rng), "drawn")
    seen: dict[Candidate, float] = {now: (yield s.forward([now]))[0]}
    for step in s.rounds(config.steps):
        batch = s.batch(config.batch or len(s.dev))
        ids, position = now.parts["tokens"], step % config.length
        wide = 16 * config.top if rule == "greater" else config.top
        [(loss, best, _)] = yield s.forward([now], on=batch, top=wide)
        if rule == "gcg":
            places = [(i, s.rng.choice(best[i])) for i in s.rng.choices(range(len(ids)), k=config.width)]
        elif rule == "autoprompt":
            places = [(position, v) for v in best[position]]
        else:
            places = [(position, v) for v in (yield from continuing(tokens, ids, position, batch, best[position]))]
        swaps = [tokens.candidate(t, rule, now) for t in tokens.swaps(ids, places)]
        losses = (yield s.forward(swaps, on=batch)) if swaps else []
        if losses and (rule == "gcg" or min(losses) < loss):
            now = swaps[min(range(len(swaps)), key=losses.__getitem__)]
        if (step % config.check == config.check - 1 or step == config.steps - 1) and now not in seen:
            [seen[now]] = yield s.forward([now])
            if seen[now] == min(seen.values()):
                yield s.evaluate([now])
    return sorted(seen, key=seen.__getitem__)[: s.options.finalists]


def continuing(tokens: Tokens, ids: Ids, position: int, batch: Sequence[str], best: Sequence[int]) -> Any:
    """GReaTer's candidates for a position: what the model would write there, the most negative gradients first."""
    s, config = tokens.s, tokens.config
    own: set[int] = set()
    if s.model["arrangement"] == "causal":
        cut = tokens.candidate(ids[:position], "cut").put("ahead", 1)
        said = yield s.next(cut, on=batch, top=config.top)
        own = set.intersection(*(set(t) for t in said))
    ranked = [v for v in best if v in own] if own else list(best)
    return ranked[: config.exact]


for name, build, said, paper in (
    ("gcg", lambda config, s: descend(config, s, "gcg"), "random swaps among the best by gradient, tried exactly",
     "[Zou et al. 2023](https://arxiv.org/abs/2307.15043)"),
    ("autoprompt", lambda config, s: descend(config, s, "autoprompt"), "position after position, the best by gradient",
     "[Shin et al. 2020](https://arxiv.org/abs/2010.15980)"),
    ("greater", lambda config, s: descend(config, s, "greater"), "what the model itself would write, by gradient",
     "[Das et al. 2024](https://arxiv.org/abs/2412.09722)"),
):  # fmt: skip
    searching(
        name=name,
        summary=f"tokens of a prompt by their one-hot gradient: {said}",
        config=TokenSearchConfig,
        build=build,
        paper=paper,
        needs=frozenset({"gradients"}),
        arrangements=frozenset({"masked", "causal", "encoder", "encoder-decoder"}),
    )
