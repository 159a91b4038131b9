"""APOHF: the loss and the second arm by hand; a person's favourite is found; the run waits for the person."""

from __future__ import annotations

import csv
import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import anacrusis as ana
from anacrusis.errors import BudgetExhausted
from anacrusis.methods.apohf import APOHFConfig, search
from anacrusis.methods.apohf_net import Net, hashed
from anacrusis.runs.run import Run
from anacrusis.runs.searching import Means
from anacrusis.search.person import Waiting
from tests.search_oracle import a_search
from tests.world import Direct, World


def pool_and_pick(seed: int, **options: Any) -> tuple[float, float, int]:
    """(best of the pool, what was found, duels). A prompt is worth twenty times its skill, which is never shown."""
    world, chance = World(seed), random.Random(seed)
    s = a_search()
    s.seed = seed
    s.rng.seed(seed)
    policy: Any = search(APOHFConfig(inputs=0, **options), s)
    ask = next(policy)
    texts = [
        world.write(p, f"{seed} {i}").removeprefix("<prompt>").removesuffix("</prompt>")
        for i, p in enumerate(ask.prompts)
    ]
    request, n = policy.send(texts), 0
    worth: dict[str, float] = {}
    try:
        while True:
            u = [[worth.setdefault(c.id, 20 * world.skill(s.text(c))) for c in pair] for pair in request.pairs]
            n += len(u)
            request = policy.send([float(chance.random() < 1 / (1 + math.exp(b - a))) for a, b in u])
    except StopIteration as end:
        return max(map(world.skill, texts)), world.skill(s.text(end.value.candidate)), n


def test_finds_the_favourite_of_a_person_who_is_not_sure() -> None:
    options = {"pool": 100, "batch": 10, "random": 65, "passes": 60}
    got = [pool_and_pick(seed, **options) for seed in range(10)]
    assert sum(found >= best - 0.05 for best, found, _ in got) >= 9, got
    assert all(n == 165 for _, _, n in got)


def net(decay: float = 0.1, passes: int = 30) -> Net:
    return Net(3, 0, decay, passes)


def test_the_loss_is_bradley_terry_with_decay() -> None:
    f = net(decay=0.5)
    a, b = torch.eye(3, dtype=torch.float64)[:2], torch.eye(3, dtype=torch.float64)[1:]
    y = torch.tensor([1.0, 0.5], dtype=torch.float64)
    z = [float(f.value(f.theta, a)[i] - f.value(f.theta, b)[i]) for i in (0, 1)]
    win, lose = ([math.log1p(math.exp(sign * x)) for x in z] for sign in (-1, 1))
    by_hand = win[0] + 0.5 * win[1] + 0.5 * lose[1] + 0.5 * sum(float((t * t).sum()) for t in f.theta)
    assert float(f.loss(f.theta, a, b, y)) == pytest.approx(by_hand)


def test_training_begins_anew_and_learns_who_wins() -> None:
    f, x = net(passes=60), torch.eye(3, dtype=torch.float64)
    f.fit(x, [(0, 1)] * 5 + [(0, 2)] * 5, [1.0] * 10)
    once = f.value(f.theta, x)
    assert int(once.argmax()) == 0
    f.fit(x, [(1, 0)] * 5 + [(2, 0)] * 5, [1.0] * 10)
    assert int(f.value(f.theta, x).argmin()) == 0
    f.fit(x, [(0, 1)] * 5 + [(0, 2)] * 5, [1.0] * 10)
    assert torch.equal(f.value(f.theta, x), once)


def test_the_second_arm_has_the_largest_upper_bound() -> None:
    f, x = net(decay=0.3), torch.rand(6, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    duels = [(0, 1), (0, 2), (3, 1)]

    def gradient(row: torch.Tensor) -> torch.Tensor:
        theta = tuple(t.clone().requires_grad_() for t in f.theta)
        return torch.cat([g.flatten() for g in torch.autograd.grad(f.value(theta, row), theta)])

    value = f.value(f.theta, x)
    g = [gradient(row) for row in x]
    one = int(value.argmax())
    U = 0.3 + sum((g[i] - g[j]) ** 2 for i, j in duels)
    bound = [float(value[i]) + math.sqrt(2.0 * float(((g[i] - g[one]) ** 2 / U).sum())) for i in range(6)]
    order = sorted((i for i in range(6) if i != one), key=lambda i: -bound[i])
    assert f.next(x, duels, 1, 2.0) == [(one, order[0])]
    assert f.next(x, duels, 3, 2.0) == [(one, i) for i in order[:3]]
    assert order[0] != max((i for i in range(6) if i != one), key=lambda i: float(value[i]))  # the bonus decides


def test_only_prompts_that_were_in_a_duel_are_reported() -> None:
    s = a_search()
    policy: Any = search(APOHFConfig(pool=20, duels=3, random=2, inputs=0, passes=2), s)
    next(policy)
    request, met = policy.send([f"text {i}" for i in range(20)]), set()
    assert len(request.pairs) == 2
    with pytest.raises(StopIteration) as end:
        while True:
            met |= {c.id for pair in request.pairs for c in pair}
            request = policy.send([1.0] * len(request.pairs))
    assert end.value.value.candidate.id in met


def test_what_the_person_said_is_not_lost_when_the_budget_ends() -> None:
    policy: Any = search(APOHFConfig(pool=20, duels=9, random=2, inputs=0, passes=2), a_search())
    next(policy)
    request = policy.send(policy.send([f"text {i}" for i in range(20)]) and [1.0, 1.0])
    with pytest.raises(StopIteration) as end:
        policy.throw(BudgetExhausted("no more"))
    assert end.value.value.candidate and request.pairs


def test_features_are_of_length_one_and_equal_for_equal_words() -> None:
    a, b = hashed("Be kind. Be brief.", 64), hashed("be kind, be brief", 64)
    assert torch.equal(a, b) and float(a.norm()) == pytest.approx(1.0) and not torch.equal(a, hashed("brief", 64))


OPTIONS = {"pool": 12, "duels": 6, "random": 3, "batch": 2, "inputs": 2, "size": 16, "passes": 3}


def a_fit(folder: Path) -> Run:
    world = World(0)
    return ana.fit("apohf", Direct(world), world.task, seed=0, folder=folder, options=OPTIONS,
                   means=Means(writer=Direct(world, "openai:writer")))  # fmt: skip


def likes(a: str, b: str) -> str:
    """A person whose answers depend on what is shown only."""
    return "=" if a == b else "1" if a < b else "2"


def test_waits_for_the_person_and_ends_as_if_it_had_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, waits = tmp_path / "waiting", 0
    while True:
        try:
            run = a_fit(folder)
            break
        except Waiting as why:
            waits += 1
            assert "preferences.csv" in str(why) and waits < 9
            answer(folder / "preferences.csv", likes)
    assert waits == 3  # 3 blindly, then 2, then 1

    class Present:
        def prefer(self, pairs: Any) -> list[float]:
            return [{"1": 1.0, "2": 0.0, "=": 0.5}[likes(a, b)] for a, b in pairs]

    monkeypatch.setattr(Means, "person_at", lambda self, folder: Present())
    undisturbed = a_fit(tmp_path / "undisturbed")
    assert run.prompt.frame == undisturbed.prompt.frame and run.cost["calls"] == undisturbed.cost["calls"]


def answer(file: Path, person: Callable[[str, str], str]) -> None:
    with open(file, encoding="utf-8", newline="") as f:
        rows = list(csv.DictReader(f))
    assert all("->" in row["1"] and row["1"].count("->") == 2 for row in rows)  # two inputs with answers a side
    with open(file, "w", encoding="utf-8", newline="") as f:
        out = csv.DictWriter(f, ["better", "1", "2"])
        out.writeheader()
        out.writerows({**row, "better": row["better"] or person(row["1"], row["2"])} for row in rows)
