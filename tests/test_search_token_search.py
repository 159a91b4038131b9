"""Token search: the one-hot gradient by finite differences, exact forms, and a hidden token prompt."""

from __future__ import annotations

import functools
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from scipy.stats import spearmanr

import anacrusis as ana
from anacrusis.measure.predict import scores
from anacrusis.methods.token_search import Tokens, TokenSearchConfig, descend
from anacrusis.model.model import Model
from anacrusis.prompt.values import Frame, Soft, Text
from anacrusis.runs.searching import facts, search_frame
from anacrusis.search.local import Local
from anacrusis.search.requests import Forward, Next
from anacrusis.search.search import Search, Searching
from anacrusis.task import Split, Task
from anacrusis.testing import WORDS, tiny

METHODS = ("gcg", "autoprompt", "greater")
FIRST = 9  # special tokens and marks of the tiny vocabulary come before


@functools.cache
def model_of(family: str) -> Model:
    return tiny(family)


@functools.cache
def hidden(family: str = "gpt2", seed: int = 0) -> Task:
    """Inputs labelled by the network under three tokens that nobody knows."""
    model, g = model_of(family), torch.Generator().manual_seed(seed)
    ids = torch.randint(FIRST, FIRST + len(WORDS), (3,), generator=g)
    template = {"masked": "{text} {mask}"}.get(model.arrangement, "{text}")
    frame = Frame(labels=tuple(WORDS), words=tuple(WORDS), template=template)
    texts = [" ".join(WORDS[i] for i in torch.randint(90, (4 + n % 5,), generator=g).tolist()) for n in range(300)]
    if model.arrangement == "encoder":
        gold, pair = (torch.arange(300) % 2), (1, 2)
    else:
        z = scores(Soft(vectors=model.embeddings[ids].detach(), frame=frame), [(t,) for t in texts], model)
        pairs = [torch.randperm(90, generator=g)[:2].tolist() for _ in range(100)]
        pair = tuple(max(pairs, key=lambda p: int(z[:, p].argmax(1).bincount(minlength=2).min())))
        gold = z[:, list(pair)].argmax(1)
    return Task.from_lists(texts, [f"c{int(i)}" for i in gold], name="hidden", split=Split(seed=seed),
                           words={f"c{i}": WORDS[w] for i, w in enumerate(pair)})  # fmt: skip


def searched(family: str = "gpt2", seed: int = 0, **options: Any) -> tuple[Search, Local]:
    model, task = model_of(family), hidden(family, seed)
    given = Searching(**{"examples": 24, "start": "auto" if family == "minilm" else "", **options})
    template = "{text} {mask}" if model.arrangement == "masked" else "{text}"
    base, parts = search_frame(model, task, given, {"template": template})
    s = Search(task, base, parts, given, seed)
    s.model = facts(model)
    return s, Local(model)


def drive(policy: Any, s: Search, local: Local) -> tuple[list[Any], int]:
    """Runs a method without the engine: (its result, forward passes of one example)."""
    send, spent = None, 0
    try:
        while True:
            r = policy.send(send)
            if isinstance(r, Forward):
                given = [s.examples[e] for e in r.examples]
                spent += len(given) * len(r.candidates)
                send = [local.loss(s.form(c), given) for c in r.candidates]
                if r.top:
                    loss, g = local.onehot_gradient(s.form(r.candidates[0]), given)
                    best = (-g).topk(min(r.top, g.shape[1]), dim=1)
                    send = [[loss, best.indices.tolist(), (-best.values).tolist()]]
            elif isinstance(r, Next):
                send = local.next_tokens(s.form(r.candidate), [s.examples[e].inputs for e in r.examples], r.top)
            else:
                send = []
    except StopIteration as end:
        return end.value, spent


@pytest.mark.parametrize("family", ["gpt2", "minilm", "t5", "bert"])
def test_the_onehot_gradient_is_the_slope_towards_a_token(family: str) -> None:
    s, local = searched(family)
    tokens = Tokens(s, TokenSearchConfig(length=3))
    prompt = tokens.form(tokens.candidate((20, 30, 40)))
    assert isinstance(prompt, Soft)
    given, E = [s.examples[e] for e in s.dev], model_of(family).embeddings.detach()
    loss, g = local.onehot_gradient(prompt, given)
    assert loss == pytest.approx(local.loss(prompt, given), abs=1e-5) and g.shape == (3, len(E))
    h = 0.005
    for i, v in ((0, 50), (1, 60), (2, 12)):
        ends = []
        for sign in (1, -1):  # one-hot vector of position i plus h times that of token v
            x = prompt.vectors.clone()
            x[i] += sign * h * E[v]
            ends.append(local.loss(replace(prompt, vectors=x), given))
        assert float(g[i, v]) == pytest.approx((ends[0] - ends[1]) / (2 * h), rel=0.05, abs=5e-4)


@pytest.mark.parametrize("family", ["gpt2", "t5", "bert", "gemma2"])
def test_the_form_is_the_tokens_standing_there(family: str) -> None:
    s, local = searched(family)
    tokens = Tokens(s, TokenSearchConfig(length=3))
    c = tokens.candidate((20, 30, 40))
    assert c.note == "w11 w21 w31"
    x = [s.examples[e].inputs for e in s.dev[:6]]
    written = Text(frame=replace(s.base, template=c.note + " " + s.base.template))
    assert torch.allclose(local.scores(tokens.form(c), x), local.scores(written, x), atol=1e-4)


def test_it_ranks_swaps_better_than_the_mean_gradient_of_a_tokens_own_row() -> None:
    """The released GReaTer ranks by embedding.weight.grad[token].mean() (reference 2.17)."""
    s, local = searched()
    model, ids, given = model_of("gpt2"), (20, 30, 40), [s.examples[e] for e in s.dev]
    tokens = Tokens(s, TokenSearchConfig(length=3))
    _, g = local.onehot_gradient(tokens.form(tokens.candidate(ids)), given)  # type: ignore[arg-type]
    true = [local.loss(tokens.form(tokens.candidate((20, v, 40))), given) for v in range(FIRST, 99)]
    weight = model.embeddings
    written = Text(frame=replace(s.base, template="w11 w21 w31 " + s.base.template))
    weight.requires_grad_(True)
    try:
        sum(part.sum() for part in local._losses(written, given, 64)).backward()
        assert weight.grad is not None
        rows = weight.grad.mean(1)
    finally:
        weight.requires_grad_(False)
        weight.grad = None
    ours, theirs = spearmanr(g[1, FIRST:], true)[0], spearmanr(rows[FIRST:], true)[0]
    assert ours > 0.4 and ours > theirs + 0.3


def test_only_tokens_that_survive_are_tried() -> None:
    s, _ = searched()
    tokens = Tokens(s, TokenSearchConfig(length=3))
    assert tokens.usable((20, 30)) and not tokens.usable((20, 2)) and not tokens.usable((20, 3))
    assert tokens.swaps((20, 30, 40), [(0, 20), (1, 2), (1, 31), (1, 31)]) == [(20, 31, 40)]
    assert all(tokens.usable(tokens.drawn(s.rng)) for _ in range(5))


def test_rules_by_hand() -> None:
    """What each asks for, and what it moves to, from made-up losses."""
    for rule in METHODS:
        s, _ = searched()
        config = TokenSearchConfig(length=3, steps=3, width=6, top=4, exact=2, check=99)
        policy = descend(config, s, rule)
        first = policy.send(None).candidates[0]
        asked = policy.send([1.0])
        assert asked.candidates == (first,) and asked.top == (64 if rule == "greater" else 4)
        best = [[20, 21, 22, 23], [30, 31, 32, 33], [40, 41, 42, 43]]
        request = policy.send([[0.5, best, []]])
        if isinstance(request, Next):
            cut = request.candidate
            assert cut.parts["tokens"] == () and s.form(cut).frame.place == "back"
            request = policy.send([(23, 22, 20), (22, 23, 21)])  # both examples would write 22 and 23
        swaps = request.candidates
        changed = {(i, c.parts["tokens"][i]) for c in swaps for i in range(3)} - set(enumerate(first.parts["tokens"]))
        if rule == "gcg":
            assert {v for _, v in changed} <= {v for row in best for v in row} and len({i for i, _ in changed}) > 1
        else:
            assert changed == {(0, v) for v in ((22, 23) if rule == "greater" else best[0])}
        # the losses of all swaps are above the present one: only gcg moves
        after = policy.send([0.7 + 0.1 * i for i in range(len(swaps))])
        assert after.candidates == ((swaps[0],) if rule == "gcg" else (first,))


@pytest.mark.parametrize("rule", METHODS)
def test_a_hidden_token_prompt_is_approached_faster_than_by_chance(rule: str) -> None:
    wins = 0
    for seed in range(10):
        s, local = searched(seed=seed, examples=16)
        config = TokenSearchConfig(length=3, steps=9, width=10, top=10, exact=10, batch=0, check=1)
        found, spent = drive(descend(config, s, rule), s, local)
        given = [s.examples[e] for e in s.dev]
        mine = local.loss(s.form(found[0]), given)
        tokens = Tokens(s, config)
        chance = min(
            local.loss(s.form(tokens.candidate(tokens.drawn(s.rng))), given) for _ in range(spent // len(given))
        )
        wins += mine < chance
    assert wins >= 9


@pytest.mark.parametrize("rule", METHODS)
@pytest.mark.parametrize("family", ["gpt2", "minilm", "t5", "bert"])
def test_a_run_ends_with_a_prompt_that_is_saved_and_answers(rule: str, family: str, tmp_path: Path) -> None:
    model, task = model_of(family), hidden(family)
    options = {"length": "3", "steps": "4", "width": "4", "top": "8", "exact": "4", "batch": "8", "check": "2",
               "examples": "16", **({"template": "{text} {mask}"} if family == "bert" else {})}  # fmt: skip
    runs = [ana.fit(rule, model, task, folder=tmp_path / n, options=options, seed=1) for n in "ab"]
    assert runs[0].prompt.same(runs[1].prompt)
    loaded = ana.load(tmp_path / "a" / "prompt")
    assert loaded.same(runs[0].prompt) and len(loaded.predict(["w1 w2", "w3"], model)) == 2
    assert runs[0].score is not None
    if isinstance(loaded, Soft):  # what was scored in the search is what is served
        again = ana.evaluate(loaded, model, task)
        assert again.value == runs[0].score.value
