from __future__ import annotations

import json
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest

import treegym
from treegym.envs.flat import FlatVectorObservation
from treegym.envs.token_tree.env import TokenTreeEnv
from treegym.errors import ConfigError
from treegym.rewards import FunctionTerm, PathView, Sum
from treegym.tree.solve import best_path
from treegym.tree.token_tree import TokenTree


def test_walking_the_hand_made_tree(hand_made: TokenTree) -> None:
    env = TokenTreeEnv(hand_made, reward={"verifier": 1.0, "length": -0.1})
    observation, info = env.reset(seed=0)
    assert observation["action_mask"][:4].tolist() == [1, 1, 1, 0]
    observation, reward, terminated, truncated, info = env.step(1)
    assert (reward, terminated, truncated, info["text"]) == (pytest.approx(-0.1), False, False, "b")
    observation, reward, terminated, truncated, info = env.step(0)
    # The correct end pays 1, and every token costs 0.1.
    assert (reward, terminated, truncated) == (pytest.approx(0.9), True, False)
    assert info["is_success"] is True
    assert info["reward_terms"]["verifier"] == {"raw": 1.0, "weight": 1.0}
    with pytest.raises(ConfigError, match="reset"):
        env.step(0)


def test_features_stand_where_the_layout_says(hand_made: TokenTree) -> None:
    env = TokenTreeEnv(hand_made, max_children=4, max_tokens=10)
    env.reset(seed=0)
    observation, *_ = env.step(2)
    state, children = env.layout.split(observation["observations"])
    named = dict(zip(env.layout.state, state, strict=True))
    assert named["depth"] == pytest.approx(0.1)
    assert named["budget_left"] == pytest.approx(0.9)
    assert named["path_logp"] == pytest.approx(-2.0)
    assert children.shape == (4, len(env.layout.child))
    assert children[0, env.layout.child_column("weight")] == 1.0
    assert children[0, env.layout.child_column("teacher:x")] == -20.0
    assert not children[1:].any()


def test_verdicts_never_reach_an_observation(hand_made: TokenTree) -> None:
    def seen(tree: TokenTree) -> list[np.ndarray]:
        env = TokenTreeEnv(tree)
        frames = [env.reset(seed=0)[0]["observations"]]
        return [*frames, *(env.step(action)[0]["observations"] for action in (2, 0, 0, 0))]

    before = seen(hand_made)
    hand_made.verdict[[5, 7, 9]] = [0.0, 1.0, 1.0]
    hand_made.judge[[5, 7, 9]] = 0.7
    for a, b in zip(before, seen(hand_made), strict=True):
        np.testing.assert_array_equal(a, b)


def test_the_budget_truncates(hand_made: TokenTree) -> None:
    env = TokenTreeEnv(hand_made, max_tokens=2)
    env.reset(seed=0)
    assert env.step(2)[2:4] == (False, False)
    assert env.step(0)[2:4] == (False, True)


def test_a_budget_among_the_detectors_truncates_too(hand_made: TokenTree) -> None:
    env = TokenTreeEnv(hand_made, terminal={"budget": {"tokens": 2}}, max_tokens=10)
    env.reset(seed=0)
    env.step(2)
    assert env.step(0)[2:4] == (False, True)


def test_failed_rewards_are_flagged(hand_made: TokenTree) -> None:
    def fails_on_ab(path: PathView) -> float:
        if path.text == "ab":
            raise ValueError("no opinion on this one")
        return 1.0

    env = TokenTreeEnv(hand_made, reward=Sum((FunctionTerm(function=fails_on_ab, on_error="mask"), 1.0)))
    env.reset(seed=0)
    assert [env.step(action)[4]["reward_failed"] for action in (0, 0, 0)] == [False, False, True]
    env.reset(seed=0)
    assert [env.step(action)[4]["reward_failed"] for action in (1, 0)] == [False, False]


def test_illegal_actions_cost_and_use_budget(hand_made: TokenTree) -> None:
    env = TokenTreeEnv(hand_made, max_tokens=3, illegal_penalty=0.25)
    first, _ = env.reset(seed=0)
    for expected_cut in (False, False, True):
        observation, reward, terminated, truncated, info = env.step(9)
        assert (reward, terminated, truncated, info["illegal_action"]) == (-0.25, False, expected_cut, True)
        np.testing.assert_array_equal(observation["action_mask"], first["action_mask"])


def test_clone_and_restore(spec: str) -> None:
    env = gym.make("TokenTree-v0", tree=spec).unwrapped
    env.reset(seed=4)
    env.step(0)
    state = env.clone_state()
    first = [env.step(0) for _ in range(2)]
    env.restore_state(state)
    second = [env.step(0) for _ in range(2)]
    assert [(o[1], o[2], o[4]["text"]) for o in first] == [(o[1], o[2], o[4]["text"]) for o in second]


def test_roots_can_be_chosen(spec: str) -> None:
    env = gym.make("TokenTree-v0", tree=spec)
    assert env.reset(options={"root": 7})[1]["root"] == 7
    batch = gym.make_vec("TokenTree-v0", num_envs=3, tree=spec)
    _, info = batch.reset(seed=0, options={"roots": [5, 5, 9]})
    assert info["root"].tolist() == [5, 5, 9]


def test_splits_do_not_mix(spec: str) -> None:
    for split in ("train", "validation", "test"):
        env = gym.make("TokenTree-v0", tree=spec, split=split)
        tree = env.unwrapped.tree
        roots = {env.reset(seed=seed)[1]["root"] for seed in range(60)}
        assert {tree.splits[root] for root in roots} == {split}
        assert len(roots) > 1


def test_the_solver_s_path_earns_the_solver_s_value(spec: str) -> None:
    env = TokenTreeEnv(spec, reward={"verifier": 1.0, "length": -0.03})
    solution = env.world.solution()
    for root in env.world.pool[:5]:
        env.reset(options={"root": int(root)})
        start, earned, ended = env.node, 0.0, False
        for node in best_path(env.tree, solution.best_child, start):
            _, reward, ended, _, info = env.step(node - int(env.tree.first_child[env.node]))
            earned += reward
        assert earned == pytest.approx(solution.value[start])
        assert ended
        assert info["is_success"]


def test_tokens_view_shows_prompt_path_and_children(hand_made: TokenTree) -> None:
    env = TokenTreeEnv(hand_made, view="tokens", max_tokens=5, max_children=4)
    env.reset(seed=0)
    observation, *_ = env.step(2)
    assert observation["context"].tolist() == [0, 1, 2, -1, -1, -1, -1]
    assert observation["children"].tolist() == [0, -1, -1, -1]


def test_every_registered_id_honours_the_contract(spec: str) -> None:
    for env_id in ("TokenTree-v0", "MO-TokenTree-v0"):
        assert len(treegym.check_suite(env_id, tree=spec)) == 13


def test_multi_objective_returns_every_term(hand_made: TokenTree, tmp_path: Path) -> None:
    hand_made.save(tmp_path / "a.tree")
    env = gym.make("MO-TokenTree-v0", tree=str(tmp_path / "a.tree"), reward={"verifier": 1.0, "length": -0.1})
    env.reset(seed=0)
    env.step(1)
    reward = env.step(0)[1]
    assert dict(zip(env.unwrapped.world.table.names, reward.tolist(), strict=True)) == {"verifier": 1.0, "length": 1.0}


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"max_childern": 3}, "Did you mean 'max_children'"),
        ({"split": "holdout"}, "must be one of"),
        ({"view": "pixels"}, "must be one of"),
        ({"max_tokens": 0}, "max_tokens is 0"),
        ({"max_children": 2}, "pass max_children="),
        ({"tree": "/nowhere/none.tree"}, "no such tree file"),
        ({"tree": 7}, "expected a .tree file"),
        ({"render_mode": "3d"}, "must be one of"),
        ({"illegal_penalty": -1}, "illegal_penalty"),
        ({"reward": {"verifierr": 1.0}}, "verifier"),
    ],
)
def test_bad_arguments_are_one_clear_sentence(spec: str, kwargs: dict, message: str) -> None:
    for make in (lambda **k: gym.make("TokenTree-v0", **k), lambda **k: gym.make_vec("TokenTree-v0", num_envs=2, **k)):
        with pytest.raises(treegym.errors.TreeGymError, match=message) as caught:
            make(**{"tree": spec, **kwargs})
        assert "\n" not in str(caught.value)


def test_bad_roots_masks_and_states(spec: str) -> None:
    env = gym.make("TokenTree-v0", tree=spec).unwrapped
    with pytest.raises(ConfigError, match="out of range"):
        env.reset(options={"root": 4000})
    with pytest.raises(ConfigError, match="whole number"):
        env.reset(options={"root": "first"})
    batch = gym.make_vec("TokenTree-v0", num_envs=2, tree=spec, autoreset_mode="Disabled")
    with pytest.raises(ConfigError, match="reset_mask"):
        batch.reset(options={"reset_mask": [1, 0, 1]})
    with pytest.raises(ConfigError, match="roots"):
        batch.reset(options={"roots": [1]})
    with pytest.raises(ConfigError, match="autoreset_mode"):
        gym.make_vec("TokenTree-v0", num_envs=2, tree=spec, autoreset_mode="sometimes")
    other = gym.make_vec("TokenTree-v0", num_envs=3, tree=spec)
    other.reset(seed=0)
    with pytest.raises(ConfigError, match="lanes"):
        batch.restore_state(other.unwrapped.clone_state())


def test_a_tree_without_a_correct_end_is_refused(hand_made: TokenTree) -> None:
    hand_made.verdict[[5, 9]] = 0.0
    with pytest.raises(ConfigError, match="no correct end"):
        TokenTreeEnv(hand_made)
    assert TokenTreeEnv(hand_made, reward={"length": -1.0}).reset(seed=0)


def test_kwargs_are_json(spec: str) -> None:
    env = gym.make("TokenTree-v0", tree=spec, reward={"verifier": 1.0}, max_tokens=20, view="tokens")
    assert json.loads(env.spec.to_json())["kwargs"]["max_tokens"] == 20


def test_human_rendering_without_a_screen(spec: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pygame")
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    env = gym.make("TokenTree-v0", tree=spec, render_mode="human")
    env.reset(seed=0)
    env.step(0)
    env.close()
    env.close()


def test_live_trees_grow_one_call_a_batch() -> None:
    """A grower is asked once a step for all lanes, and only where the tree is unknown."""
    tree = TokenTree.empty(tokens=["a", "b", ""], eos_id=2)
    for prompt in ("one", "two", "three"):
        tree.add_root(prompt)
    calls = []

    class Grower:
        def grow(self, tree: TokenTree, nodes: np.ndarray) -> None:
            calls.append(nodes.tolist())
            count = len(nodes)
            tree.add_children(nodes, [3] * count, [0, 1, 2] * count, prior=-1.1, verdict=[np.nan, np.nan, 1.0] * count)

    env = treegym.envs.token_tree.vector.TokenTreeVectorEnv(8, tree=tree, grower=Grower(), max_tokens=5)
    env.reset(seed=0)
    assert len(calls) == 1
    rng = np.random.default_rng(0)
    for _ in range(60):
        _, reward, *_ = env.step(rng.integers(3, size=8))
        assert np.isfinite(reward).all()
    tree.validate()
    assert len(calls) <= 61
    grown = [node for call in calls for node in call]
    assert len(grown) == len(set(grown))
    assert (tree.depth <= 5).all()


def test_the_batch_takes_one_root_for_all(spec: str) -> None:
    batch = gym.make_vec("TokenTree-v0", num_envs=3, tree=spec)
    assert batch.reset(options={"root": 7})[1]["root"].tolist() == [7, 7, 7]
    with pytest.raises(ConfigError, match="whole number"):
        batch.reset(options={"root": -1})


@pytest.mark.parametrize("kwargs", [{"num_envs": 0}, {"num_envs": 2.5}, {"max_episode_steps": 0}])
def test_bad_sizes_of_a_batch(spec: str, kwargs: dict) -> None:
    with pytest.raises(ConfigError, match=f"{next(iter(kwargs))} is"):
        treegym.envs.token_tree.vector.TokenTreeVectorEnv(**{"num_envs": 2, "tree": spec, **kwargs})


def test_a_budget_of_one_token_is_refused(spec: str) -> None:
    with pytest.raises(ConfigError, match="first step"):
        TokenTreeEnv(spec, terminal={"budget": {"tokens": 1}})


def test_a_live_tree_costs_what_is_new() -> None:
    """Nodes are decided once, and described as those of a whole tree would be."""
    tree = TokenTree.empty(tokens=["a", "b", "."], eos_id=2)
    tree.add_root("prompt")
    asked: list[int] = []

    class Grower:
        def grow(self, tree: TokenTree, nodes: np.ndarray) -> None:
            count = len(nodes)
            prior = np.tile(np.log([0.5, 0.3, 0.2]), count)
            tree.add_children(nodes, [3] * count, [0, 1, 2] * count, prior=prior, verdict=[np.nan, np.nan, 1.0] * count)

    def decide(path: PathView) -> bool:
        asked.append(path.node)
        return path.text.endswith("aa")

    settings = {"terminal": {"any": ["eos", decide]}, "max_tokens": 9, "reward": {"verifier": 1.0, "length": -0.1}}
    env = treegym.envs.token_tree.vector.TokenTreeVectorEnv(8, tree=tree, grower=Grower(), **settings)
    env.reset(seed=0)
    rng = np.random.default_rng(0)
    for _ in range(100):
        env.step(rng.integers(2, size=8))
    assert len(asked) == len(set(asked))
    grown, whole = env.world.tables, treegym.envs.token_tree.world.TreeWorld(tree, **settings).tables
    assert tree.size > 200
    for name in ("ends", "cut_off", "path_logp", "root_index", "features", "terms"):
        np.testing.assert_array_equal(getattr(grown, name), getattr(whole, name), err_msg=name)
    for name in ("first", "count", "end", "path_logp", "root", "pays"):
        np.testing.assert_array_equal(grown.cells[name], whole.cells[name], err_msg=name)


def test_a_detector_that_looks_ahead_decides_when_the_children_are_known() -> None:
    tree = TokenTree.empty(tokens=["a", "b", ""], eos_id=2)
    tree.add_root(treegym.tree.token_tree.Root("prompt", answer="ab"))

    class Grower:
        def grow(self, tree: TokenTree, nodes: np.ndarray) -> None:
            for node in nodes:  # after "ab" stopping is likeliest
                prior = np.log([0.1, 0.1, 0.8] if tree.text(int(node)) == "ab" else [0.5, 0.4, 0.1])
                tree.add_children([node], [3], [0, 1, 2], prior=prior)

    env = TokenTreeEnv(tree, grower=Grower(), terminal="proxy", max_tokens=9, max_children=3)
    env.reset(seed=0)
    assert env.step(0)[2] is False
    _, reward, terminated, _, info = env.step(1)
    assert (reward, terminated, info["is_success"]) == (1.0, True, True)


def test_the_flat_batch_shows_flat_last_observations(spec: str) -> None:
    flat = FlatVectorObservation(gym.make_vec("TokenTree-v0", num_envs=4, tree=spec, autoreset_mode="SameStep"))
    flat.reset(seed=0)
    ended = 0
    for _ in range(30):
        actions = [np.flatnonzero(mask)[0] for mask in flat.action_masks()]
        seen, _, terminated, truncated, info = flat.step(np.array(actions))
        assert seen in flat.observation_space
        for lane in np.flatnonzero(terminated | truncated):
            assert info["final_obs"][lane] in flat.single_observation_space
            ended += 1
    assert ended


def test_going_back_in_the_middle_of_a_batch(spec: str) -> None:
    for mode in ("NextStep", "SameStep"):
        batch = gym.make_vec("TokenTree-v0", num_envs=5, tree=spec, autoreset_mode=mode)
        seen, _ = batch.reset(seed=3)
        rng = np.random.default_rng(0)
        for _ in range(4):
            seen, *_ = batch.step(np.array([rng.choice(np.flatnonzero(m)) for m in seen["action_mask"]]))
        state = batch.unwrapped.clone_state()
        walks = []
        for _ in range(2):
            again = batch.unwrapped.restore_state(state)
            np.testing.assert_array_equal(again["observations"], seen["observations"])
            walk, now = [], again
            for _ in range(25):  # long enough for lanes to end and draw their next prompts
                now, reward, *_ = batch.step(np.array([np.flatnonzero(m)[-1] for m in now["action_mask"]]))
                walk.append((now["observations"].copy(), reward.copy()))
            walks.append(walk)
        for (a, b), (c, d) in zip(*walks, strict=True):
            np.testing.assert_array_equal(a, c)
            np.testing.assert_array_equal(b, d)


class _Threes:
    """Gives every node three children, the last of them an end."""

    def grow(self, tree: TokenTree, nodes: np.ndarray) -> None:
        count = len(nodes)
        tree.add_children(nodes, [3] * count, [0, 1, 2] * count, prior=-1.1, verdict=[np.nan, np.nan, 1.0] * count)


def test_two_environments_walk_one_live_tree() -> None:
    tree = TokenTree.empty(tokens=["a", "b", ""], eos_id=2)
    tree.add_root("prompt")
    first, second = (TokenTreeEnv(tree, grower=_Threes(), max_tokens=6) for _ in range(2))
    for env in (first, second, first):
        env.reset(seed=0)
        for action in (0, 1, 1):
            _, _, terminated, truncated, info = env.step(action)
            assert (terminated, truncated) == (False, False)
        assert info["text"] == "abb"
        assert env.step(2)[2] is True


def test_a_grower_of_too_many_children_is_named_every_time() -> None:
    tree = TokenTree.empty(tokens=["a", "b", ""], eos_id=2)
    tree.add_root("prompt")
    env = TokenTreeEnv(tree, grower=_Threes(), max_children=2)
    for _ in range(2):
        with pytest.raises(ConfigError, match="pass max_children=3 or more"):
            env.reset(seed=0)
