"""PromptAgent: selection by UCT, sums of rewards backed up, greedy simulation, the path from the root shown."""

from __future__ import annotations

import math

import pytest

from anacrusis.methods.promptagent import Node, PromptAgentConfig, back_up, search, select
from anacrusis.search.candidate import Candidate
from anacrusis.search.ledger import Observation, Scored
from tests.by_hand import graded, prompts, search_of
from tests.search_contract import finds_what_was_planted


def test_finds_what_was_planted() -> None:
    finds_what_was_planted("promptagent", "4000calls", {"iterations": 36})


def node(name: str, r: float, parent: Node | None = None) -> Node:
    c = Candidate({"instruction": name})
    made = Node(Scored(c, {"e": Observation(c.id, "e", r)}), parent)
    if parent:
        parent.children.append(made)
    return made


def test_backing_up_adds_the_rewards_from_a_node_to_the_end_of_the_path() -> None:
    root = node("root", 0.5)
    a = node("a", 0.25, root)
    b = node("b", 1.0, a)
    back_up([root, a, b])
    back_up([root, a])
    assert b.returns == [1.0] and a.returns == [1.25, 0.25] and root.returns == [1.75, 0.75]
    assert a.q == 0.75 and root.q == 1.25 and node("new", 0.4).q == 0.4  # no sums yet: its own reward


def test_selection_by_uct_on_a_tiny_tree() -> None:
    root = node("root", 0.5)
    a, b = node("a", 0.6, root), node("b", 0.5, root)
    root.returns, a.returns, b.returns = [1.0] * 5, [0.9, 0.7, 0.8, 0.8], [0.6]
    assert a.uct(2.5) == pytest.approx(0.8 + 2.5 * math.sqrt(math.log(6) / 4))  # 2.473
    assert b.uct(2.5) == pytest.approx(0.6 + 2.5 * math.sqrt(math.log(6) / 1))  # 3.946
    assert select(root, 2.5) == [root, b] and select(root, 0.0) == [root, a]
    c = node("c", 0.1, b)
    assert select(root, 2.5) == [root, b, c]
    b.terminal = True
    assert select(root, 2.5) == [root, b]


def score(c: Candidate, e: int) -> float:
    return float(e % 50 < int(c.text("instruction")))


def test_an_iteration_goes_down_greedily_with_the_path_from_the_root() -> None:
    s = search_of("10")
    policy = search(PromptAgentConfig(width=2, depth=2, batch=30, iterations=1), s)
    first = next(policy)
    assert first.examples == s.dev[:50]
    batch = policy.send(graded(s, first, score))
    assert set(batch.examples) == set(s.dev[50:])  # mistakes come from other examples than the reward
    why = policy.send(graded(s, batch, score))
    assert len(why.prompts) == 2 and why.prompts[0].count("Given answer: said 0.0") == 20
    write = policy.send(["r1", "r2"])
    assert prompts(write.prompts[0]) == ["10"] and "r1" in write.prompts[0] and "r2" in write.prompts[1]
    batch = policy.send(graded(s, policy.send(["20", "15"]), score))
    assert [c.text("instruction") for c in batch.candidates] == ["20"]  # the child of greatest reward
    policy.send(graded(s, batch, score))
    write = policy.send(["r3", "r4"])
    assert prompts(write.prompts[0]) == ["10", "20"]  # the whole path, the current one last
    with pytest.raises(StopIteration) as end:  # depth 2 is terminal
        policy.send(graded(s, policy.send(["5", "12"]), score))
    assert [s.text(x) for x in end.value.value] == ["20", "15", "12", "10", "5"]


@pytest.mark.parametrize(("kids", "ends"), [(["13", "12", "11"], False), (["13", "12", "9"], True)])
def test_a_node_far_below_its_parent_and_the_root_is_terminal(kids: list[str], ends: bool) -> None:
    """Depths 1 to 3; with min_depth = 2 the bar at depth 3 is (root 10 + parent 12) / 2 = 11. Depth 3 must not beat
    the best so far (13), or it would be an early stop."""
    s = search_of("10")
    policy = search(PromptAgentConfig(width=1, batch=30, iterations=1), s)
    request = policy.send(graded(s, next(policy), score))
    for kid in kids:
        policy.send(graded(s, request, score))  # the batch
        policy.send(["why"])
        race = policy.send([kid])
        try:
            request = policy.send(graded(s, race, score))
        except StopIteration:
            assert ends and kid == kids[-1]
            return
    assert not ends


def test_below_min_depth_a_path_stops_at_a_new_best() -> None:
    s = search_of("10")
    policy = search(PromptAgentConfig(width=1, batch=30, iterations=1), s)
    request = policy.send(graded(s, next(policy), score))
    for kid in ("12", "14"):  # new bests at depths 1 and 2 go on
        policy.send(graded(s, request, score))
        policy.send(["why"])
        request = policy.send(graded(s, policy.send([kid]), score))
    policy.send(graded(s, request, score))
    policy.send(["why"])
    with pytest.raises(StopIteration):
        policy.send(graded(s, policy.send(["16"]), score))
