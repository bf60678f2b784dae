"""AlphaZero on worlds other than token trees: copies, tables, targets, openings, pieces, units."""

from __future__ import annotations

import threading
import warnings
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from treegym.agents import AlphaZero
from treegym.agents.planning.doubles import Copies, OwnClones, double_of
from treegym.agents.planning.openings import play_openings
from treegym.agents.planning.planners import make_planner
from treegym.agents.planning.tabular import Table, simulator_of, table_of
from treegym.agents.planning.targets import followed_returns, searched_worth
from treegym.agents.planning.units import Units
from treegym.agents.play.evaluation import play_roots, vector_world
from treegym.agents.play.worlds import make_world
from treegym.agents.registry import make_agent
from treegym.errors import ConfigError
from treegym.search import search

FEW: dict[str, Any] = {"num_simulations": 4, "seed": 0}


def test_followed_returns_by_hand() -> None:
    # gamma .5, trace .5, three moves that pay 1, 2, 4, cut off where the value is 8; v = 10, 20, 30. All followed:
    # G2 = 4 + .5 * 8 = 8; G1 = 2 + .5 (.5 * 30 + .5 * 8) = 11.5; G0 = 1 + .5 (.5 * 20 + .5 * 11.5) = 8.875
    rewards, values, behind = np.array([1.0, 2.0, 4.0]), np.array([10.0, 20.0, 30.0]), np.array([8.0])
    asked: dict[str, Any] = {"trace": 0.5, "gamma": 0.5, "behind": behind}
    found = followed_returns(rewards, values, np.ones(3, np.bool_), np.array([3]), **asked)
    np.testing.assert_allclose(found, [8.875, 11.5, 8.0])
    # the second move was drawn to explore: G1 = v1 = 20, G0 = 1 + .5 * 20 = 11
    found = followed_returns(rewards, values, np.array([True, False, True]), np.array([3]), **asked)
    np.testing.assert_allclose(found, [11.0, 20.0, 8.0])
    # two players: the last move wins, so the one before it loses; a second game of one drawn move
    found = followed_returns(
        np.array([0.0, 1.0, 0.0]), np.array([0.5, 0.5, 0.25]), np.array([True, True, False]), np.array([2, 1]),
        trace=1.0, gamma=-1.0, behind=np.zeros(2),
    )  # fmt: skip
    np.testing.assert_allclose(found, [-1.0, 1.0, 0.25])


def test_what_the_improved_policy_is_worth() -> None:
    policy = np.array([[0.5, 0.25, 0.25], [1.0, 0.0, 0.0]], np.float32)
    q = np.array([[2.0, 8.0, np.nan], [np.nan, np.nan, np.nan]], np.float32)
    # (.5 * 2 + .25 * 8) / .75 = 4; where nothing was visited the mean of the simulations is left
    np.testing.assert_allclose(searched_worth(policy, q, np.array([0.0, 3.0])), [4.0, 3.0])


def test_units_by_hand() -> None:
    units = Units()
    units.note_values(np.array([3.0, -3.0, 3.0, 3.0], np.float32))
    assert units.value == pytest.approx(3.0)
    units.note_siblings(np.array([[1.0, 4.0], [np.nan, 2.0], [4.0, 0.0]], np.float32))
    # 3 and 4 apart, the middle row has one visited child only: sqrt((9 + 16) / 2)
    assert units.spread == pytest.approx(12.5**0.5)
    units.note_error(125.0)  # a tenth of it counts: sqrt(12.5 + 12.5)
    assert units.spread == pytest.approx(5.0)
    again = Units()
    again.set_state(units.state())
    assert (again.value, again.spread) == (units.value, units.spread)


class Walk(gym.Env):
    """Ten places in a row; the last pays. What stands in a list and in a helper must be copied too."""

    observation_space = gym.spaces.Box(0, 10, (2,), np.float32)
    action_space = gym.spaces.Discrete(2)

    class Legs:
        def __init__(self, walk: Walk) -> None:
            self.walk, self.steps = walk, 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.where, self.legs = [0], self.Legs(self)
        return self.see(), {}

    def step(self, action):
        self.legs.steps += 1
        self.legs.walk.where[0] = min(max(self.where[0] + (1 if action else -1), 0), 9)
        return self.see(), float(self.where[0] == 9), self.where[0] == 9, False, {}

    def see(self):
        return np.array([self.where[0], self.legs.steps], np.float32)


class Dicey(Walk):
    def step(self, action):
        return super().step(int(self.np_random.integers(2)))


def test_copies_step_alike_and_leave_the_environment_alone() -> None:
    env = gym.wrappers.TransformReward(gym.make("CartPole-v1"), lambda reward: 3.0 * reward)
    seen, _ = env.reset(seed=3)
    double = double_of(env)
    assert isinstance(double, Copies)
    state = first = double.capture(env)
    copied = []
    for action in (0, 1, 1, 0):
        state, *found = double.step(state, action)
        copied.append(found)
    again = double.step(first, 0)  # from the first state, whatever came since
    np.testing.assert_array_equal(again[1], copied[0][0])
    np.testing.assert_array_equal(env.unwrapped.state, first[-1]["state"])  # type: ignore[attr-defined]
    for action, (shown, reward, ended) in zip((0, 1, 1, 0), copied, strict=True):
        seen, paid, terminated, _, _ = env.step(action)
        np.testing.assert_array_equal(seen, shown)
        assert (paid, terminated) == (reward, ended) == (3.0, False)


def test_what_an_environment_holds_by_reference_is_copied() -> None:
    env = Walk()
    env.reset(seed=0)
    double = double_of(env)
    state = double.capture(env)
    for steps in (1, 2, 3):
        state, seen, *_ = double.step(state, 1)
        np.testing.assert_array_equal(seen, [steps, steps])
    assert (env.where, env.legs.steps) == ([0], 0)


def test_a_search_looks_past_time_limits() -> None:
    env = gym.wrappers.TimeLimit(Walk(), max_episode_steps=2)
    env.reset(seed=0)
    double, states = double_of(env), []
    state = double.capture(env)
    for _ in range(9):
        state, seen, reward, ended = double.step(state, 1)
        states.append((seen[0], reward, ended))
    assert states[1] == (2.0, 0.0, False)
    assert states[-1] == (9.0, 1.0, True)


def test_chance_that_is_not_said_is_refused() -> None:
    agent = AlphaZero("MlpPolicy", gym.vector.SyncVectorEnv([Dicey] * 2), **{**FEW, "num_simulations": 8})
    with pytest.raises(ConfigError, match="stepped twice from the same state"):
        agent.learn(300)


def test_environments_that_cannot_be_copied_are_refused() -> None:
    class Locked(Walk):
        def __init__(self) -> None:
            self.lock = threading.Lock()

    with pytest.raises(ConfigError, match=r"cannot be copied.*use PPO"):
        AlphaZero("MlpPolicy", Locked(), **FEW).learn(10)


MOVES = {
    0: {0: [(0.5, 1, 0.0, False), (0.25, 2, 4.0, True), (0.25, 2, 4.0, True)], 1: [(1.0, 0, 0.0, False)]},
    1: {0: [(1.0, 2, 2.0, True)], 1: [(0.0, 0, 9.0, True), (1.0, 1, 0.0, False)]},
    2: {0: [(1.0, 2, 0.0, True)], 1: [(1.0, 2, 0.0, True)]},
}


def test_tables_tell_the_odds() -> None:
    table = Table(MOVES, 2)
    assert table.most == 2
    simulator: Any = simulator_of(table, None)
    found = simulator.outcomes(np.array([1, 0]), np.array([0, 0]))
    np.testing.assert_array_equal(found.row, [0, 1, 1])
    np.testing.assert_array_equal(found.states, [2, 1, 2])
    np.testing.assert_allclose(found.probability, [1.0, 0.5, 0.5])  # two alike are one
    np.testing.assert_allclose(found.reward, [2.0, 0.0, 4.0])
    np.testing.assert_array_equal(found.terminated, [True, False, True])
    result = search(simulator, np.array([0]), method="puct", num_simulations=60, solve=True, discount=0.5)
    assert result.action[0] == 0
    # half the time on to where 2 is paid next, half the time 4; some simulations try the loops at 1
    assert result.q[0, 0] == pytest.approx(0.5 * 0.5 * 2.0 + 0.5 * 4.0, abs=0.05)


def test_tables_are_found_where_they_say_all() -> None:
    lake = gym.make("FrozenLake-v1", map_name="8x8")
    found = table_of(lake)
    assert found is not None
    assert (found.num_states, found.num_actions, found.most) == (64, 4, 3)
    still = table_of(gym.make("FrozenLake-v1", is_slippery=False))
    assert still is not None
    assert still.most == 1
    assert not hasattr(simulator_of(still, None), "outcomes")
    assert table_of(gym.wrappers.TransformReward(lake, lambda reward: 2.0 * reward)) is None
    assert table_of(gym.make("CartPole-v1")) is None


@pytest.mark.parametrize("env_id", ["CartPole-v1", "FrozenLake-v1", "Taxi-v4"])
def test_it_plays_worlds_that_know_nothing_of_searches(env_id: str) -> None:
    """Made and asked as Stable-Baselines3's agents are; `predict` finds out where the environment stands."""
    env = gym.make(env_id)
    agent = make_agent("alphazero", env, n_envs=4, **FEW)
    agent.learn(40, log_interval=0)
    observation, _ = env.reset(seed=5)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(3):
            action, _ = agent.predict(observation, deterministic=True)
            observation, *_ = env.step(int(action))


def test_games_open_with_random_moves() -> None:
    world = make_world(gym.vector.SyncVectorEnv([Walk] * 40))
    rng = np.random.default_rng(0)
    world.reset(np.ones(40, np.bool_), seed=0)
    which = np.arange(40) < 30
    moved: list[int] = []
    opened = play_openings(world, which, 1.0, 4, rng, lambda active, outcome: moved.append(active))
    assert set(opened[which]) == {0, 1, 2, 3, 4}
    assert not opened[~which].any()
    np.testing.assert_array_equal(world.observe()["observations"][:, 1], opened)  # steps taken in each lane
    assert sum(moved) == opened.sum()  # all of them are charged


class Steady(Walk):
    """Never ends, pays 50 a step: with gamma .5 every place is worth 100."""

    def step(self, action):
        return super().step(action)[0], 50.0, False, False, {}


def test_pieces_go_on_and_large_values_are_learned() -> None:
    agent = AlphaZero(
        "MlpPolicy", gym.wrappers.TimeLimit(Steady(), 12), gamma=0.5, n_envs=1, n_steps=5, seed=0, num_simulations=2,
        learning_rate=3e-3, replay_ratio=64.0,
    )  # fmt: skip
    agent.learn(60, log_interval=0)
    assert [info["l"] for info in agent.ep_info_buffer or ()] == [12] * 5
    assert agent.replay.size == 60
    agent.learn(440, log_interval=0, reset_num_timesteps=False)
    seen = agent.replay.arrays["obs.observations"][: agent.replay.size]
    assert np.abs(agent.scorer.infer({"observations": seen})[1] - 100.0).mean() < 5.0


def test_a_search_with_its_own_unit_measures_q_by_it() -> None:
    agent = AlphaZero("MlpPolicy", gym.make("CartPole-v1"), n_envs=2, **FEW)
    asked = agent.settings.options(explore=False, spread=5.0)
    assert (asked["normalise"], asked["c_scale"], asked["c_visit"]) == (False, 0.02, 0.0)
    assert "c_visit" not in agent.settings.options(explore=True, spread=5.0)
    agent = AlphaZero("MlpPolicy", gym.make("CartPole-v1"), n_envs=2, q_unit="siblings", **FEW)
    assert "c_scale" not in agent.settings.options(explore=False, spread=5.0)


def test_its_own_clones_are_preferred(identity: Any) -> None:
    class Cloneable(identity):  # type: ignore[misc, valid-type]
        def clone_state(self) -> int:
            return 0

        def restore_state(self, state: int) -> None: ...

    assert isinstance(double_of(Cloneable()), OwnClones)
    assert isinstance(double_of(gym.wrappers.TransformReward(Cloneable(), lambda reward: -reward)), Copies)


def test_it_learns_to_walk() -> None:
    lanes = gym.vector.SyncVectorEnv([lambda: gym.wrappers.TimeLimit(Walk(), 40)] * 16)
    agent = make_agent("alphazero", lanes, seed=0, num_simulations=8)
    agent.learn(2000, log_interval=0)
    world = make_world(gym.vector.SyncVectorEnv([lambda: gym.wrappers.TimeLimit(Walk(), 40)] * 4))
    np.testing.assert_array_equal(play_roots(agent, world, episodes=4).lengths, 9)


def test_searches_are_where_the_lanes_stand() -> None:
    world = vector_world("Taxi-v4", 3)
    planner = make_planner(world)
    assert planner is not None
    world.reset(np.ones(3, np.bool_), seed=0)
    np.testing.assert_array_equal(planner.states(np.array([2, 0])), world.observe(np.array([2, 0]))["observations"])
