from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from treegym.bench.arena import Arena, uniform_values
from treegym.bench.suite import EnvEntry
from treegym.tree.token_tree import Root, TokenTree


@pytest.fixture
def tree_file(tmp_path: Path) -> str:
    """Two prompts, each over: a (right at once) | b, and below b: c (wrong), d (right). Tokens: a b c d end."""
    tree = TokenTree.empty(tokens=["a", "b", "c", "d", ""], eos_id=4, teachers=["t"])
    for number in range(2):
        root = tree.add_root(Root(f"prompt {number}", split="test", kind=f"kind {number}"))
        a, b = tree.add_children([root], [2], [0, 1], prior=np.log([0.5, 0.5]))
        c, d = tree.add_children([b], [2], [2, 3], prior=np.log([0.5, 0.5]))
        tree.add_children([a], [1], [4], verdict=[1.0])
        tree.add_children([c, d], [1, 1], [4, 4], verdict=[0.0, 1.0])
    tree.save(tmp_path / "tiny.tree")
    return str(tmp_path / "tiny.tree")


class Always:
    """Takes the same action where it is legal, else the first."""

    def __init__(self, action: int) -> None:
        self.action = action

    def predict(self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = False):
        return np.where(observation["action_mask"][:, self.action] > 0, self.action, 0), state


def _arena(tree_file: str, **entry: Any) -> Arena:
    kwargs = {"tree": tree_file, "reward": {"verifier": 1.0, "length": -0.1}}
    return Arena(EnvEntry(name="tiny", id="TokenTree-v0", kwargs=kwargs, **entry), split="test", episodes=0)


def test_episodes_are_what_the_tree_says(tree_file: str) -> None:
    episodes = _arena(tree_file).evaluate(Always(1))
    # b, d, end: three steps, right: 1 - 3 * 0.1 = 0.7. The best is a, end: 1 - 2 * 0.1 = 0.8.
    assert episodes.prompt.tolist() == [0, 1]
    assert episodes.kind.tolist() == ["kind 0", "kind 1"]
    assert episodes.ret == pytest.approx([0.7, 0.7])
    assert episodes.proxy == pytest.approx([0.7, 0.7])
    assert episodes.correct.tolist() == [True, True]
    assert episodes.true == pytest.approx([1.0, 1.0])
    assert episodes.length.tolist() == [3, 3]
    assert episodes.regret == pytest.approx([0.1, 0.1])
    assert _arena(tree_file).evaluate(Always(0)).regret == pytest.approx([0.0, 0.0])


def test_evaluation_may_pay_differently_from_training(tree_file: str) -> None:
    episodes = _arena(tree_file, evaluation={"reward": {"verifier": 2.0}}).evaluate(Always(1))
    assert episodes.ret == pytest.approx([2.0, 2.0])
    assert episodes.proxy == pytest.approx([0.7, 0.7])


def test_references_are_exact(tree_file: str) -> None:
    # By chance: half take a (right), half take b, of whom half take d (right): 0.5 + 0.25 = 0.75.
    assert _arena(tree_file).references() == pytest.approx({"random": 0.75, "optimum": 1.0})
    # In returns: 0.5 * 0.8 + 0.25 * 0.7 + 0.25 * (-0.3) = 0.5.
    assert _arena(tree_file, metric="return").references() == pytest.approx({"random": 0.5, "optimum": 0.8})


def test_uniform_values_count_what_is_paid_on_the_way(tree_file: str) -> None:
    tree = TokenTree.open(tree_file)
    ends = np.asarray(tree.child_count) == 0
    value = uniform_values(tree, np.where(np.asarray(tree.parent) < 0, 0.0, 1.0), ends)
    # Every step pays 1: two steps by a, three by b: 0.5 * 2 + 0.5 * 3 = 2.5.
    assert value[tree.root_node] == pytest.approx([2.5, 2.5])


def test_prompts_are_spread_over_the_split() -> None:
    entry = EnvEntry(name="x", id="TokenTree-v0", kwargs={"tree": "synthetic:roots=100,depth=3,branching=3,seed=0"})
    everything = Arena(entry, split="test", episodes=0).prompts
    some = Arena(entry, split="test", episodes=5).prompts
    assert len(some) == 5
    assert set(some) <= set(everything)
    assert some[0] == everything[0]
    assert some[-1] == everything[-1]


def test_every_world_can_be_an_arena() -> None:
    for env_id in ("CandidateSelection-v0", "OptimizationPipeline-v0"):
        arena = Arena(EnvEntry(name=env_id, id=env_id), split="test", episodes=8)
        episodes = arena.evaluate(Always(0))
        assert len(episodes) == 8
        assert np.isfinite(episodes.regret).all()
        assert (episodes.regret >= 0).all()
