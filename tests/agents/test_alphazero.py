"""AlphaZero: targets, what its planner may see, and where it falls back."""

from __future__ import annotations

import copy
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch

from treegym.agents import AlphaZero, ExpertIteration
from treegym.agents.alphazero_settings import AlphaZeroSettings
from treegym.agents.planning.memory import path_memory
from treegym.agents.planning.planners import ClosedPlanner
from treegym.agents.planning.replay import ReplayBuffer
from treegym.agents.planning.selfplay import SelfPlay, sampled
from treegym.agents.planning.simulators import TreeSimulator, visible_reward
from treegym.agents.planning.targets import n_step_returns
from treegym.agents.play.evaluation import play_roots, vector_world
from treegym.agents.play.native_worlds import LanesWorld
from treegym.agents.schema import Expected
from treegym.envs.token_tree.world import TreeWorld
from treegym.errors import ConfigError
from treegym.registration import ENVS
from treegym.rewards import FunctionTerm, Term
from treegym.search import Options, Session

SMALL = {"n_envs": 32, "n_episodes": 32, "num_simulations": 32, "seed": 0}


def test_n_step_returns_by_hand() -> None:
    # two episodes, n = 2, gamma .5: r0 + .5 r1 + .25 v2; r1 + .5 r2 (ends); r2; and an episode of one step
    rewards, values = np.array([1.0, 2.0, 4.0, 8.0]), np.array([9.0, 9.0, 16.0, 9.0])
    found = n_step_returns(rewards, values, np.array([3, 1]), n=2, gamma=0.5)
    np.testing.assert_allclose(found, [1 + 1 + 4, 2 + 2, 4, 8])


def test_the_planner_does_not_see_the_verdict(tree_spec: str) -> None:
    """Turning every verdict round changes nothing of what a planner with ``sees="value"`` is told or does."""
    agent = AlphaZero("ChildPolicy", gym.make("TokenTree-v0", tree=tree_spec), **SMALL)
    agent.learn(200, log_interval=0)
    told = []
    for turned in (False, True):
        world = TreeWorld(tree_spec, split="all")
        if turned:
            tree = copy.copy(world.tree)
            world.tables.cells = world.tables.cells.copy()
            world.tables.cells["right"] ^= world.tables.ends
            world.table = copy.copy(world.table)
            world.tree = tree
            world.tables.cells["pays"] = 1.0 - world.tables.cells["pays"]
        planner = ClosedPlanner(world, sees="value")
        planner.prepare(agent.scorer)
        roots = world.tree.root_node[world.pool].astype(np.int64)
        result = planner.search(roots, method="gumbel", num_simulations=32, seed=0, gumbel_scale=0.0)
        told.append((planner.paid, planner.value, result.action))
    for plain, turned_round in zip(*told, strict=True):
        np.testing.assert_array_equal(plain, turned_round)


def test_visible_reward_leaves_out_what_knows_the_answer(tree_spec: str) -> None:
    world = TreeWorld(tree_spec, split="all", reward={"verifier": 1.0, "length": -0.25})
    nodes = np.arange(1, world.tree.size)
    inner = nodes[world.tree.parent[nodes] >= 0]
    np.testing.assert_allclose(visible_reward(world, inner, sees="value"), -0.25)
    full = visible_reward(world, inner, sees="verifier")
    assert full.max() == pytest.approx(0.75)  # a correct end: 1 - .25
    with pytest.raises(ConfigError, match="planner_sees"):
        visible_reward(world, inner, sees="all")


def test_a_users_own_deployable_term_reaches_planners(tree_spec: str) -> None:
    """A plain function and a `Term` of one's own, by their own word; a term that does not say so stays hidden."""

    class Weighty(Term):
        """Half for every token."""

        kind, scope, deployable = "weighty", "step", True

        def values(self, source: Any, asked: Any) -> np.ndarray:
            return np.full(len(asked.nodes), 0.5)

    def quick(path: Any) -> float:
        return 0.25

    def secret(path: Any) -> float:
        return 7.0

    quick.deployable = True  # type: ignore[attr-defined]
    reward = [Weighty(), FunctionTerm(function=quick, scope="step"), FunctionTerm(function=secret, scope="step")]
    world = TreeWorld(tree_spec, split="all", reward=reward)
    inner = np.flatnonzero(world.tree.parent >= 0)
    np.testing.assert_allclose(visible_reward(world, inner, sees="value"), 0.75)
    planner = ClosedPlanner(world, sees="value")
    np.testing.assert_allclose(planner.paid[inner], 0.75)


@pytest.mark.parametrize("weight", [0.0, 0.3])
def test_tables_and_simulator_agree(tree_spec: str, weight: float) -> None:
    agent = AlphaZero("ChildPolicy", gym.make("TokenTree-v0", tree=tree_spec), **SMALL)
    world = TreeWorld(tree_spec, split="all")
    planner = ClosedPlanner(world, sees="value", likelihood_weight=weight)
    simulator = TreeSimulator(world, agent.scorer, sees="value", likelihood_weight=weight)
    planner.prepare(agent.scorer)
    nodes = np.flatnonzero(~planner.terminal)[:50]
    judged = simulator.expand(nodes)
    np.testing.assert_allclose(judged.value, planner.value[nodes], atol=1e-6)
    actions = judged.legal.argmax(1)
    moved = simulator.step(nodes, actions)
    np.testing.assert_allclose(moved.reward, planner.paid[moved.states], atol=1e-6)
    np.testing.assert_array_equal(moved.terminated, planner.terminal[moved.states])


@pytest.mark.parametrize("method", ["gumbel", "puct"])
def test_it_learns_and_search_helps(tree_spec: str, method: str) -> None:
    env = gym.make("TokenTree-v0", tree=tree_spec)
    agent = AlphaZero("ChildPolicy", env, method=method, learning_rate=3e-3, **SMALL)
    world = vector_world("TokenTree-v0", 32, tree=tree_spec)
    before = np.nanmean(play_roots(agent, world).success)
    agent.learn(3000, log_interval=0)
    assert np.nanmean(play_roots(agent, world).success) > max(before, 0.7)


@pytest.mark.parametrize(
    "switches",
    [
        {"reanalyse": 0.5},
        {"value_target": "n_step", "n_step": 3},
        {"tabulate": False},
        {"path_memory": False},
        {"likelihood_weight": 0.0},
        {"reuse_tree": True},
        {"reuse_tree": True, "tabulate": False, "method": "puct"},
    ],
)
def test_switches_run(tree_spec: str, switches: dict[str, Any]) -> None:
    agent = AlphaZero("ChildPolicy", gym.make("TokenTree-v0", tree=tree_spec), **{**SMALL, **switches})
    agent.learn(150, log_interval=0)
    assert agent.num_timesteps >= 150


def test_memory_is_the_path_s_sum_and_minimum(tree_spec: str) -> None:
    tree = TreeWorld(tree_spec, split="all").tree
    nodes = np.random.default_rng(0).choice(tree.size, 40)
    found = path_memory(tree, nodes)
    models = found.shape[1] // 2
    assert models == 1 + tree.teacher_logp.shape[1]
    for node, row in zip(nodes.tolist(), found, strict=True):
        total, least = np.zeros(models), np.zeros(models)
        while tree.parent[node] >= 0:
            opinions = np.array([tree.prior[node], *tree.teacher_logp[node]], np.float64)
            opinions = np.where(np.isnan(opinions), -20.0, opinions).clip(-20.0, 0.0)
            total, least = total + opinions, np.minimum(least, opinions)
            node = int(tree.parent[node])
        np.testing.assert_allclose(row, np.concatenate([total, least]) / 10, rtol=1e-5, atol=1e-6)


def test_memory_reaches_the_critic_alone(tree_env: gym.Env) -> None:
    agent = AlphaZero("ChildPolicy", tree_env, **SMALL)
    assert agent.scorer.memory == 2 * (1 + tree_env.unwrapped.world.tree.teacher_logp.shape[1])  # type: ignore[attr-defined]
    observation, _ = tree_env.reset(seed=0)
    rows = {key: array[None] for key, array in observation.items()}
    assert agent.scorer.infer(rows, with_value=False)[0].shape == (1, 16)
    with pytest.raises(ConfigError, match="memory of a path"):
        agent.scorer.judge(rows)
    rows["memory"] = np.zeros((1, agent.scorer.memory), np.float32)
    quiet = agent.scorer.judge(rows)
    rows["memory"] = rows["memory"] - 1
    loud = agent.scorer.judge(rows)
    np.testing.assert_array_equal(quiet[0], loud[0])  # logits
    assert quiet[1] != loud[1]
    assert (quiet[2] != loud[2]).any()


def test_trees_that_are_kept_are_searched_on(tree_spec: str) -> None:
    """Lanes that leave change nothing for those that stay: the same as a session of the search that keeps all."""
    agent = AlphaZero("ChildPolicy", gym.make("TokenTree-v0", tree=tree_spec), **SMALL)
    world = TreeWorld(tree_spec, split="all")
    simulator = TreeSimulator(world, agent.scorer, sees="verifier")
    roots = world.tree.root_node[world.pool][:12].astype(np.int64)
    asked: dict[str, Any] = {"method": "gumbel", "num_simulations": 24, "seed": 5}
    whole = Session(simulator, roots, options=Options(), **asked)
    some = Session(simulator, roots, options=Options(), **asked)
    first, same = whole.run(), some.run()
    np.testing.assert_array_equal(first.visits, same.visits)
    # the most visited child that is no end
    after = world.tables.first_child[roots].astype(np.int64)[:, None] + np.arange(first.visits.shape[1])
    open_ended = (first.visits > 0) & (world.tables.child_count[after] > 0)
    actions = np.where(open_ended, first.visits, -1).argmax(1)
    assert open_ended[np.arange(12), actions].all()
    states = after[np.arange(12), actions]
    whole.advance(actions, states)
    stay = np.arange(12) % 3 > 0
    some.keep(np.flatnonzero(stay))
    some.advance(actions[stay], states[stay], seed=5)
    brought = some.carried
    np.testing.assert_array_equal(brought, first.visits[np.arange(12), actions][stay] - 1)
    assert brought.max() > 3
    second, again = whole.run(), some.run()
    np.testing.assert_array_equal(second.visits[stay], again.visits)
    np.testing.assert_array_equal(second.action[stay], again.action)
    np.testing.assert_array_equal(again.visits.sum(1), brought + 24)


@pytest.mark.parametrize("env_id", ENVS)
def test_trees_are_kept_in_every_world(env_id: str, tree_spec: str) -> None:
    env = gym.make(env_id, tree=tree_spec) if "TokenTree" in env_id else gym.make(env_id)
    few = {"n_envs": 8, "n_episodes": 8, "num_simulations": 16, "seed": 0}
    agent = AlphaZero("ChildPolicy", env, reuse_tree=True, **few).learn(60, log_interval=0)
    assert agent.num_timesteps >= 60


def test_what_cannot_keep_its_tree_is_told_so(tree_env: gym.Env) -> None:
    with pytest.raises(ConfigError, match="'beam' makes none"):
        AlphaZero("ChildPolicy", tree_env, method="beam", reuse_tree=True)


def test_temperature_decides_how_many_moves_are_drawn(tree_spec: str) -> None:
    """After the first `temperature_moves`, and with no noise, what is played is what was visited most."""
    followed = {}
    for moves in (0, 2, 100):
        agent = AlphaZero(
            "ChildPolicy", gym.make("TokenTree-v0", tree=tree_spec), method="puct", root_noise=0.0,
            exploring_starts=0.0, temperature_moves=moves, **SMALL,
        )  # fmt: skip
        world, planner = agent.world, agent.planner("verifier")
        assert isinstance(world, LanesWorld)
        assert isinstance(planner, ClosedPlanner)
        play = SelfPlay(world, planner, agent.scorer, agent.rng, agent.settings, lambda active, outcome: None)
        played = play.round(32, agent.scorer)
        node, policy = played.positions["state"], played.positions["policy"]
        start = np.cumsum(played.lengths) - played.lengths
        inside = np.setdiff1d(np.arange(len(node)), start)  # positions that another led to
        depth = planner.world.tree.depth[node[inside - 1]]
        slot = node[inside] - planner.world.tables.first_child[node[inside - 1]]
        same = policy[inside - 1, slot] == policy[inside - 1].max(1)
        followed[moves] = [same[depth < 2].mean(), same[depth >= 2].mean()]
        assert (planner.world.tree.parent[node[start]] < 0).all()
    assert followed[0] == [1.0, 1.0]
    assert followed[2][0] < 1.0
    assert followed[2][1] == 1.0
    assert max(followed[100]) < 1.0


def test_episodes_begin_inside_trees_too(tree_spec: str) -> None:
    agent = AlphaZero("ChildPolicy", gym.make("TokenTree-v0", tree=tree_spec), exploring_starts=0.5, **SMALL)
    planner = agent.planner("verifier")
    assert isinstance(planner, ClosedPlanner)
    assert agent.world is not None
    play = SelfPlay(agent.world, planner, agent.scorer, agent.rng, agent.settings, lambda active, outcome: None)
    played = play.round(32, agent.scorer)
    first = played.positions["state"][np.cumsum(played.lengths) - played.lengths]
    inside = (planner.world.tree.parent[first] >= 0).mean()
    assert 0.2 < inside < 0.8


def test_moves_are_drawn_by_the_tempered_policy() -> None:
    # pi = [.2, .4, .4, 0]; at temperature 1/2 its square: [1/9, 4/9, 4/9, 0]
    policy = np.tile(np.array([0.2, 0.4, 0.4, 0.0], np.float32), (20_000, 1))
    found = np.bincount(sampled(policy, 0.5, np.random.default_rng(0)), minlength=4) / 20_000
    np.testing.assert_allclose(found, [1 / 9, 4 / 9, 4 / 9, 0], atol=0.015)


def test_noise_is_for_learning_only() -> None:
    puct, gumbel = AlphaZeroSettings(method="puct"), AlphaZeroSettings(search_options={"c_scale": 0.3})
    assert puct.options(explore=True)["root_noise"] == 0.25
    assert "root_noise" not in puct.options(explore=False)
    assert [gumbel.options(explore=explore)["gumbel_scale"] for explore in (True, False)] == [1.0, 0.0]
    assert gumbel.options(explore=True)["c_scale"] == 0.3


def test_the_loss_has_each_of_its_terms(tree_env: gym.Env) -> None:
    """Without the term of the children's values their head stays as it is; l2 c is a weight decay of 2 c."""
    for weight in (0.0, 1.0):
        agent = AlphaZero("ChildPolicy", tree_env, child_value_coef=weight, l2=0.0, **SMALL)
        head = agent.policy.critic_child_head.weight.detach().clone()
        agent.learn(1, log_interval=0)
        assert torch.equal(head, agent.policy.critic_child_head.weight) == (weight == 0.0)
    assert AlphaZero("ChildPolicy", tree_env, l2=0.01, **SMALL).optimizer.param_groups[0]["weight_decay"] == 0.02


def test_reanalysis_searches_anew(tree_env: gym.Env) -> None:
    agent = AlphaZero("ChildPolicy", tree_env, reanalyse=0.5, **SMALL).learn(100, log_interval=0)
    planner = agent.planner("verifier")
    assert isinstance(planner, ClosedPlanner)
    batch = agent.replay.rows(np.arange(20))
    before = batch["policy"].copy()
    agent._reanalyse(planner, batch)
    changed = (batch["policy"] != before).any(1)
    assert changed[:10].any()
    assert not changed[10:].any()
    np.testing.assert_allclose(batch["policy"].sum(1), 1.0, atol=1e-5)


def test_expert_iteration_has_no_value(tree_env: gym.Env) -> None:
    agent = ExpertIteration("ChildPolicy", tree_env, **SMALL)
    critic = [p.clone() for p in agent.scorer.critic_parameters()]
    agent.learn(150, log_interval=0)
    assert all((a == b).all() for a, b in zip(critic, agent.scorer.critic_parameters(), strict=True))


def test_predict_searches_where_it_stands_and_says_when_it_cannot(tree_env: gym.Env) -> None:
    agent = AlphaZero("ChildPolicy", tree_env, **SMALL)
    searched: list[int] = []
    planner = agent.planner("value", agent.known_worlds()[0])
    assert isinstance(planner, ClosedPlanner)
    search = planner.search
    planner.search = lambda *a, **k: searched.append(1) or search(*a, **k)  # type: ignore[func-returns-value,method-assign]
    observation, _ = tree_env.reset(seed=1)
    agent.predict(observation, deterministic=True)
    assert searched
    elsewhere = {key: array.copy() for key, array in observation.items()}
    elsewhere["observations"][0] = 0.987
    searched.clear()
    with pytest.warns(UserWarning, match="raw policy, without search"):
        agent.predict(elsewhere, deterministic=True)
    assert not searched


def test_any_environment_that_can_be_cloned_is_planned_in(identity: Any) -> None:
    class Cloneable(identity):  # type: ignore[misc, valid-type]
        def clone_state(self) -> dict[str, Any]:
            return {"root": self.root, "time": self.time, "good": self.good}

        def restore_state(self, state: dict[str, Any]) -> dict[str, np.ndarray]:
            self.root, self.time, self.good = state["root"], state["time"], state["good"]
            return self._see()

    agent = AlphaZero("ChildPolicy", Cloneable(), n_episodes=8, num_simulations=16, learning_rate=1e-2, seed=0)
    agent.learn(64, log_interval=0)
    env = Cloneable()
    agent.set_env(env)
    observation, _ = env.reset(seed=0)
    total = 0.0
    for _ in range(2):
        action, _ = agent.predict(observation, deterministic=True)
        observation, reward, *_ = env.step(int(action))
        total += reward
    assert total == 1.0


def test_the_replay_keeps_the_latest(tmp_path: Any) -> None:
    replay = ReplayBuffer(4)
    replay.add({"x": np.arange(3)})
    replay.add({"x": np.arange(10, 13)})
    assert sorted(replay.rows(np.arange(replay.size))["x"].tolist()) == [2, 10, 11, 12]
    copy_of_it = ReplayBuffer(4)
    copy_of_it.set_state(replay.state(), {"x": Expected((), np.int64)})
    copy_of_it.add({"x": np.array([99])})
    replay.add({"x": np.array([99])})
    np.testing.assert_array_equal(copy_of_it.arrays["x"], replay.arrays["x"])


def test_predict_takes_its_trees_along_in_the_state(tree_env: gym.Env) -> None:
    """What comes back from `predict` holds the trees; handed in after the move, they are searched on."""
    agent = AlphaZero("ChildPolicy", tree_env, reuse_tree=True, **SMALL)
    observation, _ = tree_env.reset(seed=3)
    action, state = agent.predict(observation, deterministic=True)
    assert state.session.carried.sum() == 0
    observation, *_ = tree_env.step(int(action))
    action, later = agent.predict(observation, state, np.array([False]), deterministic=True)
    assert later.session is state.session
    assert later.session.carried.sum() > 0
    assert tree_env.unwrapped.action_masks()[action]  # type: ignore[attr-defined]
    _, anew = agent.predict(observation, later, np.array([True]), deterministic=True)
    assert anew.session.carried.sum() == 0
    plain = AlphaZero("ChildPolicy", tree_env, **SMALL)
    assert plain.predict(observation, deterministic=True)[1] is None


def test_untold_self_play_learns_what_ends_are_worth_from_returns(tree_spec: str) -> None:
    """A search that is told no verdicts only repeats what the critic says of ends: the return of the move is news."""
    for sees in ("value", "verifier"):
        agent = AlphaZero(
            "ChildPolicy", gym.make("TokenTree-v0", tree=tree_spec), seed=0,
            n_envs=8, n_episodes=8, num_simulations=8, selfplay_sees=sees,
        )  # fmt: skip
        seen: list[dict[str, np.ndarray]] = []
        update = agent.update

        def listen(rollout: dict[str, np.ndarray], seen: Any = seen, update: Any = update) -> None:
            seen.append({key: array.copy() for key, array in rollout.items()})
            update(rollout)

        agent.update = listen  # type: ignore[method-assign]
        agent.learn(10)
        known = ~np.isnan(seen[0]["q"])
        if sees == "value":
            assert (known.sum(1) == 1).all()
            assert seen[0]["q"][known] == pytest.approx(seen[0]["target"])
        else:
            assert (known.sum(1) > 1).any()


def test_targets_go_on_where_a_time_limit_cut_off() -> None:
    from treegym.agents.planning.targets import n_step_returns

    # two episodes of two steps, each paying 1, the second cut off where the value is 10, gamma .5: the returns
    # 1 + .5 (1 + .5 * 10) = 4 and 1 + .5 * 10 = 6; of the first, 1.5 and 1
    rewards, values = np.ones(4), np.array([0.0, 7.0, 0.0, 8.0], np.float32)
    found = n_step_returns(rewards, values, np.array([2, 2]), n=5, gamma=0.5, behind=np.array([0.0, 10.0]))
    np.testing.assert_allclose(found, [1.5, 1.0, 4.0, 6.0])
    # one step ahead: 1 + .5 * 8 = 5 within the episode
    one = n_step_returns(rewards, values, np.array([2, 2]), n=1, gamma=0.5, behind=np.array([0.0, 10.0]))
    np.testing.assert_allclose(one, [4.5, 1.0, 5.0, 6.0])


class Forever(gym.Env):
    """Pays 1 per step and never ends of itself."""

    observation_space = gym.spaces.Box(-1, 1, (1,), np.float32)
    action_space = gym.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(1, np.float32), {}

    def step(self, action):
        return np.zeros(1, np.float32), 1.0, False, False, {}

    def clone_state(self):
        return 0

    def restore_state(self, state):
        return np.zeros(1, np.float32)


def test_self_play_learns_that_a_time_limit_is_no_end() -> None:
    env = gym.wrappers.TimeLimit(Forever(), max_episode_steps=4)
    few = {"gamma": 0.5, "num_simulations": 2, "n_envs": 4, "learning_rate": 1e-2}
    agent = AlphaZero("MlpPolicy", env, seed=0, policy_kwargs={}, **few)
    agent.learn(1500, log_interval=0)
    # 1 / (1 - .5) = 2 everywhere; without looking past the limit 1.875, 1.75, 1.5 and 1: 1.53 on the mean
    assert agent.replay.arrays["target"][: agent.replay.size][-4:].min() > 1.8
    assert agent.scorer.infer({"observations": np.zeros((1, 1), np.float32)})[1][0] == pytest.approx(2.0, abs=0.2)
