"""Curricula: expected places worked by hand, and the chances of a tree against walks of its primary."""

from __future__ import annotations

from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest

import treegym  # noqa: F401 (registers the ids)
from treegym.__main__ import main
from treegym.errors import ConfigError
from treegym.tree.curriculum import practised, primary_success
from treegym.tree.opening import load_tree

TREE = "synthetic:roots=40,depth=4,branching=3,width=3,seed=0"


def test_the_middle_comes_first() -> None:
    # distances from one half: 0.5, 0.1, 0.5, 0.25, 0: the nearest three of five, and of equals the earlier one first
    assert practised(np.array([0.0, 0.4, 1.0, 0.75, 0.5]), "middle").tolist() == [4, 1, 3]
    assert practised(np.array([1.0, 1.0, 0.0]), "middle").tolist() == [0, 1]


def test_prompts_are_drawn_by_what_they_teach() -> None:
    # 1 + 15 * 4 p (1 - p): 1 at 0 and at 1; 16 at 0.5; at 0.25, 1 + 15 * 0.75 = 12.25, rounded to 12
    drawn = practised(np.array([0.0, 0.5, 0.25, 1.0]), "sample")
    assert np.bincount(drawn).tolist() == [1, 16, 12, 1]


@pytest.mark.parametrize(
    ("success", "how"), [([0.5], "midle"), ([], "middle"), ([1.5], "sample"), ([np.nan], "middle")]
)
def test_what_is_no_curriculum_is_refused(success: list[float], how: str) -> None:
    with pytest.raises(ConfigError, match=r"curriculum"):
        practised(np.array(success), how)


def test_the_chances_of_a_tree_are_those_of_its_primarys_walks() -> None:
    tree = load_tree(TREE)
    chances = primary_success(tree, np.arange(tree.num_roots))
    rng = np.random.default_rng(0)
    root = int(np.argmin(np.abs(chances - 0.5)))
    right = 0
    for _ in range(2_000):
        node = int(tree.root_node[root])
        while tree.child_count[node]:
            children = tree.children(node)
            odds = np.exp(tree.prior[children].astype(np.float64))
            node = int(rng.choice(children, p=odds / odds.sum()))
        right += bool(tree.verdict[node] >= 0.5)
    # the standard error of 2,000 walks is at most 0.0112; four of them
    assert right / 2_000 == pytest.approx(chances[root], abs=0.045)


@pytest.mark.parametrize("how", ["middle", "sample"])
def test_episodes_begin_where_the_curriculum_says(how: str) -> None:
    tree = load_tree(TREE)
    chances = primary_success(tree, np.arange(tree.num_roots))
    env = gym.make_vec("TokenTree-v0", num_envs=512, tree=TREE, split="all", curriculum=how)
    _, info = env.reset(seed=0)
    begun = np.asarray(info["root"])
    spread = chances * (1 - chances)
    assert spread[begun].mean() > spread.mean() * 1.05
    if how == "middle":
        assert len(set(begun.tolist())) <= tree.num_roots // 2


def test_train_takes_a_curriculum(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = ["train", "ppo", "--steps", "256", "--set", "n_episodes=16", "--env-arg", f"tree={TREE}"]
    split = ["--env-arg", "split=all"]
    assert main([*given, *split, "--curriculum", "middle", "--out", str(tmp_path / "run"), "--json"]) == 0
    other = ["train", "ppo", "--env", "CandidateSelection-v0", "--curriculum", "middle", "--out", str(tmp_path / "b")]
    assert main(other) == 1
    assert "no keyword argument 'curriculum'" in capsys.readouterr().err
