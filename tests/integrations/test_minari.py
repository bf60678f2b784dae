"""Walks as a Minari data set: exact returns, read again as they were, and something can be learned from them."""

from __future__ import annotations

from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest

from treegym.errors import ConfigError, DataError
from treegym.tree.opening import load_tree

minari = pytest.importorskip("minari")
from treegym.integrations import minari as door  # noqa: E402 (needs the package above)

TREE = "synthetic:roots=40,depth=5,branching=4,width=4,seed=0"
WORLD = {"tree": TREE, "split": "all"}


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))


@pytest.mark.parametrize("agent", ["oracle", "teacher", "greedy_prior"])
def test_what_is_exported_is_read_again_as_it_was(agent: str) -> None:
    walks = door.walks_of(agent, **WORLD)
    env = gym.make("TokenTree-v0", **WORLD)
    dataset = door.export(f"treegym/{agent}-v0", walks, env, algorithm=agent)
    again = door.read(f"treegym/{agent}-v0")
    assert again.roots == walks.roots
    for first, second in zip(walks.actions, again.actions, strict=True):
        np.testing.assert_array_equal(first, second)
    np.testing.assert_allclose(again.returns, walks.returns, atol=1e-6)
    assert dataset.total_episodes == len(walks.roots)
    episode = next(iter(dataset.iterate_episodes()))
    assert len(episode.observations["action_mask"]) == len(episode.actions) + 1
    with pytest.raises(ConfigError, match="already"):
        door.export(f"treegym/{agent}-v0", walks, env, algorithm=agent)


def test_the_oracles_returns_are_the_optimum() -> None:
    walks = door.walks_of("oracle", **WORLD)
    tree = load_tree(TREE)
    right = np.nan_to_num(np.asarray(tree.verdict)) >= 0.5
    reachable = {int(root) for root in tree.root_of(np.flatnonzero(right))}  # the verifier pays 1 for any right end
    assert walks.returns.tolist() == [float(root in reachable) for root in walks.roots]
    assert len(reachable) > 0


def test_another_environment_is_refused() -> None:
    walks = door.walks_of("oracle", **WORLD)
    other = gym.make("TokenTree-v0", **WORLD, reward={"verifier": 2.0})
    with pytest.raises(DataError, match="another environment"):
        door.export("treegym/wrong-v0", walks, other, algorithm="oracle")
    with pytest.raises(DataError, match="holds no data set"):
        door.read("treegym/absent-v0")


def test_cloning_the_oracle_with_d3rlpy_beats_chance() -> None:
    d3rlpy = pytest.importorskip("d3rlpy")
    walks = door.walks_of("oracle", **WORLD)
    env = gym.make("TokenTree-v0", **WORLD)
    door.export("treegym/cloned-v0", walks, env, algorithm="oracle")
    episodes = list(minari.load_dataset("treegym/cloned-v0").iterate_episodes())
    data = d3rlpy.dataset.MDPDataset(
        observations=np.concatenate([e.observations["observations"][:-1] for e in episodes]).astype(np.float32),
        actions=np.concatenate([e.actions for e in episodes]).reshape(-1, 1),
        rewards=np.concatenate([e.rewards for e in episodes]),
        terminals=np.concatenate([e.terminations | e.truncations for e in episodes]),
        action_size=int(env.action_space.n),
        action_space=d3rlpy.constants.ActionSpace.DISCRETE,
    )
    clone = d3rlpy.algos.DiscreteBCConfig(batch_size=64, learning_rate=1e-3).create(device="cpu:0")
    clone.fit(data, n_steps=400, n_steps_per_epoch=400, show_progress=False, experiment_name=None,
              logger_adapter=d3rlpy.logging.NoopAdapterFactory())  # fmt: skip
    seen = np.concatenate([e.observations["observations"][:-1] for e in episodes]).astype(np.float32)
    same = (clone.predict(seen) == np.concatenate([e.actions for e in episodes])).mean()
    assert same > 0.6  # of four children each: chance is a quarter
