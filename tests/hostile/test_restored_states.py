"""Item 2: a state is restored only where it was cloned: in an environment of the same tree, budget and view."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from treegym.envs.token_tree.vector import TokenTreeVectorEnv
from treegym.errors import ConfigError

DEEP = "synthetic:roots=2,depth=60,branching=2,width=2"


def walked(env: Any, steps: int) -> Any:
    """Returns the state after so many steps, on the way to a node from which it goes on."""
    tree = env.unwrapped.tree
    node = int(np.flatnonzero((tree.depth == steps) & (tree.child_count > 0))[0])
    env.reset(seed=0, options={"root": int(tree.root_of(np.array([node]))[0])})
    path = [node]
    while tree.parent[path[-1]] >= 0:
        path.append(int(tree.parent[path[-1]]))
    for above, below in zip(path[:0:-1], path[-2::-1], strict=True):
        env.step(below - int(tree.first_child[above]))
    return env.unwrapped.clone_state()


def test_a_deep_state_stays_out_of_a_small_environment() -> None:
    long = gym.make("TokenTree-v0", tree=DEEP, view="tokens", max_tokens=64, reward={"length": 1.0})
    short = gym.make("TokenTree-v0", tree=DEEP, view="tokens", max_tokens=4, reward={"length": 1.0})
    state = walked(long, 40)
    short.reset(seed=0)
    with pytest.raises(ConfigError, match="another environment"):
        short.unwrapped.restore_state(state)
    assert long.unwrapped.restore_state(state) is not None


@pytest.mark.parametrize(
    "other", [{"tree": "synthetic:roots=3,depth=60,branching=2,width=2"}, {"max_tokens": 63}, {"view": "features"}]
)
def test_another_environment_refuses_a_state(other: dict[str, Any]) -> None:
    common = {"tree": DEEP, "view": "tokens", "max_tokens": 64, "reward": {"length": 1.0}}
    state = walked(gym.make("TokenTree-v0", **common), 3)
    env = gym.make("TokenTree-v0", **{**common, **other})
    env.reset(seed=0)
    with pytest.raises(ConfigError, match="another environment"):
        env.unwrapped.restore_state(state)
    same = gym.make("TokenTree-v0", **common)
    same.reset(seed=1)
    assert same.unwrapped.restore_state(state) is not None


@pytest.mark.parametrize(
    ("name", "value"),
    [("node", 10**6), ("node", -1), ("steps", -1), ("steps", 10**6), ("node", np.nan), ("done", 2.5), ("node", 40)],
)
def test_a_state_that_was_tampered_with_is_refused(name: str, value: float) -> None:
    env = TokenTreeVectorEnv(3, tree=DEEP, view="tokens", max_tokens=8, reward={"length": 1.0})
    env.reset(seed=0)
    state = env.clone_state()
    state[name] = np.full(3, value)
    with pytest.raises(ConfigError):
        env.restore_state(state)
    if name == "node" and value == 40:  # a sound type, but deeper than its steps and the budget allow
        state[name] = np.full(3, 40, np.int64)
        with pytest.raises(ConfigError):
            env.restore_state(state)


@pytest.mark.parametrize("env_id", ["CandidateSelection-v0", "OptimizationPipeline-v0"])
def test_selection_states_are_checked_too(env_id: str) -> None:
    env: Any = gym.make(env_id).unwrapped
    env.reset(seed=0)
    good = env.clone_state()
    assert env.restore_state(good) is not None
    for column in range(good["state"].shape[1]):
        for value in (-(2**40), 2**40):
            state = {key: array.copy() for key, array in good.items()}
            state["state"][:, column] = value
            try:
                env.restore_state(state)
            except ConfigError:
                continue
            env.action_masks()
            env.step(0)
    with pytest.raises(ConfigError):
        env.restore_state({**good, "state": good["state"].astype(np.float64)})
