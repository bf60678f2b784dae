"""Item 9: numbers at the edge of their type, and actions that are no whole numbers, in single and vector alike."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from treegym.envs.token_tree.vector import TokenTreeVectorEnv
from treegym.errors import ConfigError, RewardError
from treegym.rewards import build

TREE = "synthetic:roots=4,depth=4,branching=3"


@pytest.mark.parametrize("value", [1e39, -1e39, 3.5e38])
def test_a_term_beyond_float32_has_failed(value: float) -> None:
    from treegym.rewards.base import Term

    class Beyond(Term):
        kind = "beyond"
        scope = "step"

        def values(self, source: Any, asked: Any) -> np.ndarray:
            return np.full(len(asked.nodes), value)

    env = gym.make("TokenTree-v0", tree=TREE)
    tree = env.unwrapped.tree
    ends = np.flatnonzero(tree.child_count == 0)
    masked = build([Beyond(on_error="mask")]).on(tree)
    masked.ensure(ends)
    assert masked.failed[ends].all()
    assert np.isfinite(masked.total[ends]).all()
    assert np.isfinite(masked.vector(ends)).all()
    with pytest.raises(RewardError, match="float32"):
        build([Beyond()]).on(tree).ensure(ends)


ACTIONS: list[Any] = [np.nan, 1.7, -0.5, "1", None, [0], 2**70, np.inf, True, 1.0, np.float32(1.0), np.int8(1), -1, 99]


@pytest.mark.parametrize("env_id", ["TokenTree-v0", "CandidateSelection-v0", "OptimizationPipeline-v0"])
@pytest.mark.parametrize("action", ACTIONS, ids=repr)
def test_single_and_vector_agree_on_every_action(env_id: str, action: Any) -> None:
    def done(act: Any) -> Any:
        try:
            return act()
        except ConfigError:
            return "refused"

    single, vector = gym.make(env_id).unwrapped, gym.make_vec(env_id, num_envs=1).unwrapped
    single.reset(seed=3)
    vector.reset(seed=3)
    one = done(lambda: single.step(action))
    many = done(lambda: vector.step([action]))
    if one == "refused" or many == "refused":
        assert one == many
        whole = isinstance(action, (int, float, np.number)) and np.isfinite(float(action)) and float(action) % 1 == 0
        assert isinstance(action, (bool, str, list, type(None))) or not whole or abs(action) > 2**62
    else:
        assert one[1] == many[1][0]
        assert one[4]["illegal_action"] == many[4]["illegal_action"][0]


@pytest.mark.parametrize("env_id", ["TokenTree-v0", "CandidateSelection-v0", "OptimizationPipeline-v0"])
def test_nothing_steps_before_a_reset(env_id: str) -> None:
    for env in (gym.make(env_id).unwrapped, gym.make_vec(env_id, num_envs=2).unwrapped):
        with pytest.raises(ConfigError, match=r"reset\(\)"):
            env.step(0 if not hasattr(env, "num_envs") else [0, 0])
        env.reset(seed=0)
        env.step(0 if not hasattr(env, "num_envs") else [0, 0])


@pytest.mark.parametrize(("column", "value"), [("prior", 9e-4), ("context", -128)])
def test_what_validates_stays_in_the_observation_space(column: str, value: float) -> None:
    from treegym.envs.token_tree.world import load_tree
    from treegym.errors import DataError

    tree = load_tree(TREE)
    tree.make_writable()
    if not tree.has(column):
        pytest.skip("this tree has no such column")
    kept = tree.column(column).copy()
    try:
        tree.column(column)[:] = value
        try:
            tree.validate()
        except DataError:
            return
        env = TokenTreeVectorEnv(4, tree=tree)
        seen, _ = env.reset(seed=0)
        for _ in range(8):
            assert env.observation_space.contains(seen)
            seen, *_ = env.step(np.zeros(4, np.int64))
    finally:
        tree.column(column)[:] = kept


@pytest.mark.parametrize("odd", [5, 1.5, "x", b"x", [1], (0,), np.arange(3), object()])
@pytest.mark.parametrize("env_id", ["TokenTree-v0", "CandidateSelection-v0", "TestTimeCompute-v0"])
def test_options_and_seeds_that_are_none(env_id: str, odd: Any) -> None:
    """A table of options, a seed or one per lane: anything else is told, not run into."""
    for env in (gym.make(env_id), gym.make_vec(env_id, num_envs=2)):
        with pytest.raises(ConfigError, match="options are"):
            env.reset(seed=0, options=odd)
    if not isinstance(odd, int):
        with pytest.raises(ConfigError, match="seed"):
            gym.make_vec(env_id, num_envs=2).reset(seed=odd)


def test_lists_of_different_lengths_are_no_actions() -> None:
    for env in (gym.make("TokenTree-v0"), gym.make_vec("TokenTree-v0", num_envs=2)):
        env.reset(seed=0)
        with pytest.raises(ConfigError, match="whole numbers were expected"):
            env.step([[0], [0, 1]])
