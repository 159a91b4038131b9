"""Order: spreads, entropies and biases by hand, and runs on a rule, an endpoint and a tiny model."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import anacrusis as ana
from anacrusis.assess import Subject
from anacrusis.assess.order import EMPTY, entropy, frames_of, orders, places, refuses, run
from anacrusis.prompt.values import Frame, Text
from anacrusis.search.budget import Budget
from anacrusis.search.desk import Desk
from anacrusis.search.plan import Nowhere
from anacrusis.testing import planted, tiny
from tests.loopback import Loopback
from tests.ruled import LABELS, right, ruled, task_of

LIST = "Answer with one of: billing, delivery or returns."
SHOWN = ((("parcel 0",), "billing"), (("parcel 1",), "delivery"), (("parcel 2",), "returns"))


def test_orders() -> None:
    found = orders(3, np.random.default_rng(0))
    assert len(set(found)) == 6 and found[0] == (0, 1, 2)
    assert len(set(orders(4, np.random.default_rng(0)))) == 24
    many = orders(30, np.random.default_rng(0))
    assert len(set(many)) == 24 and many[0] == tuple(range(30)) and all(sorted(o) == list(range(30)) for o in many)
    assert many == orders(30, np.random.default_rng(0)) != orders(30, np.random.default_rng(1))


def test_entropies_and_places_by_hand() -> None:
    assert entropy(np.array([0, 0, 1, 1, -1]), 3) == pytest.approx(math.log(2))
    assert entropy(np.array([2, 2]), 3) == 0 and entropy(np.array([-1, -1]), 3) == 0
    # the class listed first is named twice, the second once, the last never; one reply names none
    assert places(np.array([[0, 1], [1, -1]]), [(0, 1, 2), (1, 2, 0)]) == pytest.approx([2 / 3, 1 / 3, 0])


def test_what_stands_in_an_order() -> None:
    frame = Frame(labels=LABELS, words=LABELS, instruction=LIST, demonstrations=SHOWN)
    ways = frames_of(frame)
    assert ways["demonstrations"][0] == ways["classes"][0] == 3
    assert ways["demonstrations"][1]((2, 0, 1)).demonstrations == (SHOWN[2], SHOWN[0], SHOWN[1])
    assert ways["classes"][1]((2, 0, 1)).instruction == "Answer with one of: returns, billing or delivery."
    assert ways["classes"][1]((0, 1, 2)) == frame
    assert not frames_of(replace(frame, instruction="Say billing.", demonstrations=SHOWN[:1]))


def test_the_best_order_of_demonstrations_is_found() -> None:
    """Right iff the last demonstration is of returns: two orders of six. All others answer billing throughout."""

    def rule(frame: Frame, inputs: tuple[str, ...]) -> tuple[float, ...]:
        return right(inputs) if frame.demonstrations[-1][1] == "returns" else (1.0, 0.0, 0.0)

    subject = ruled(rule, demonstrations=SHOWN)
    found = run(subject)
    about = found.details["demonstrations"]
    assert sorted(about["accuracy"]) == pytest.approx([1 / 3] * 4 + [1] * 2) and about["own"] == 1
    assert (
        found.value == about["spread"] == pytest.approx(2 / 3, abs=0.01)
    )  # the own order is right, the others a third
    assert sorted(about["entropy"]) == pytest.approx([0] * 4 + [math.log(3)] * 2) and about["of_highest_entropy"] == 1
    assert found.chart["said"] == "worst to best order"  # no interval
    assert "classes" not in found.details and subject.asked == 6 * 60 + 1
    assert run(ruled(rule, demonstrations=SHOWN)) == found


def test_a_bias_towards_the_first_of_the_list_is_seen() -> None:
    def rule(frame: Frame, inputs: tuple[str, ...]) -> tuple[float, ...]:
        return tuple(-float(frame.instruction.index(w)) for w in LABELS)

    found = run(ruled(rule, instruction=LIST))
    assert found.details["classes"]["places"] == [1, 0, 0]
    assert found.low is not None and found.high is not None and found.low < 0 < found.high  # a third under each order
    assert "100% of the answers name the class listed first" in found.headline
    bias = found.details["bias"]["classes"]
    assert [b["said"] for b in bias] == [1, 0, 0] and [b["gold"] for b in bias] == pytest.approx([1 / 3] * 3)
    assert "largest towards billing: 100% of the answers, 33% of the examples" in found.headline


def test_the_prior_by_hand() -> None:
    """p(c | x) is proportional to prior_c, and 1.5 times that for the right class: dividing by the prior sets it
    right."""
    prior = np.array([0.6, 0.3, 0.1])

    def rule(frame: Frame, inputs: tuple[str, ...]) -> tuple[float, ...]:
        return tuple(np.log(prior) + (0 if inputs[0] == EMPTY else np.array(right(inputs, sure=np.log(1.5)))))

    found = run(ruled(rule, demonstrations=SHOWN))
    bias = found.details["bias"]
    assert [b["prior"] for b in bias["classes"]] == pytest.approx(prior.tolist())
    assert [b["said"] for b in bias["classes"]] == [1, 0, 0]
    assert bias["divided_by_prior"]["gain"] == pytest.approx(2 / 3) and bias["divided_by_prior"]["low"] > 0.5


@pytest.mark.parametrize("cells", [100, 150, 500, 1500])
def test_it_stays_within_the_answers_it_may_take(cells: int) -> None:
    shown = (*SHOWN, (("parcel 3",), "billing"))
    subject = ruled(lambda frame, x: right(x), n=100, cells=cells, instruction=LIST, demonstrations=shown)
    assert not refuses(subject)
    found = run(subject)
    assert subject.asked <= cells and {"demonstrations", "classes"} <= set(found.details)
    assert any("to stay within" in n for n in found.notes)


def test_refusals() -> None:
    assert "neither several demonstrations nor a list" in refuses(ruled(lambda frame, x: right(x)))
    assert "99 are allowed" in refuses(ruled(lambda frame, x: right(x), cells=99, instruction=LIST))


def test_an_endpoint_that_likes_the_last_class(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-loopback")

    def brain(body: dict[str, Any], index: int) -> str:
        said = body["messages"][-1]["content"].split("\n")[0]
        return max(LABELS, key=said.index)

    with Loopback(brain) as server, ana.open("openai:task", base_url=server.url) as model:
        desk = Desk({"task": model}, Nowhere(), Budget((), {}, ("task",)), "0", lambda n: None)  # type: ignore[arg-type]
        frame = Frame(labels=LABELS, words=LABELS, readout="answer", instruction=LIST)
        found = run(Subject(Text(frame=frame), model, task_of(12), desk=desk))
    assert found.details["classes"]["places"] == [0, 0, 1] and found.value == 0
    assert "prior" not in found.details["bias"]["classes"][0] and server.charged == 6 * 12


def test_a_tiny_model_is_measured() -> None:
    model = tiny("gpt2")
    task, teacher = planted(model, examples=60)
    words = ", ".join(teacher.frame.words)
    shown = tuple((e.inputs, teacher.frame.words[e.gold]) for e in task.train[:3])  # type: ignore[index]
    prompt = Text(frame=replace(teacher.frame, instruction=words, demonstrations=shown))
    found = run(Subject(prompt, model, task))
    assert len(found.details["demonstrations"]["accuracy"]) == 6 and len(found.details["classes"]["accuracy"]) == 2
    assert sum(found.details["classes"]["places"]) == pytest.approx(1)
    assert sum(b["prior"] for b in found.details["bias"]["classes"]) == pytest.approx(1)
