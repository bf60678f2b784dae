"""Walks as a Minari data set: exact returns, read again as they were, and something can be learned from them."""

from __future__ import annotations

import json
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


def test_a_strangers_file_runs_nothing_and_reads_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    h5py = pytest.importorskip("h5py")
    env = gym.make("TokenTree-v0", **WORLD)
    door.export("treegym/mine-v0", door.walks_of("oracle", episodes=4, **WORLD), env, algorithm="oracle")
    data = tmp_path / "minari" / "treegym" / "mine-v0" / "data"
    about = json.loads((data / "metadata.json").read_text())
    (tmp_path / "planted.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()")
    monkeypatch.syspath_prepend(tmp_path)
    about["env_spec"] = json.dumps({**json.loads(about["env_spec"]), "entry_point": "planted:Env"})
    del about["observation_space"], about["action_space"]  # where Minari itself would make the environment
    (data / "metadata.json").write_text(json.dumps(about))
    assert len(door.read("treegym/mine-v0").roots) == 4
    assert not (tmp_path / "ran").exists()
    with pytest.raises(AttributeError):
        minari.load_dataset("treegym/mine-v0")  # which does run it, and finds no Env in it
    assert (tmp_path / "ran").exists()

    def with_actions(put: object) -> None:
        with h5py.File(data / "main_data.hdf5", "r+") as file:
            del file["episode_2/actions"]
            if callable(put):
                put(file["episode_2"])

    with h5py.File(tmp_path / "other.hdf5", "w") as other:
        other["secret"] = np.arange(3)
    np.arange(3).tofile(tmp_path / "plain")
    layout = h5py.VirtualLayout(shape=(3,), dtype="i8")
    layout[:] = h5py.VirtualSource(str(tmp_path / "other.hdf5"), "secret", shape=(3,))
    elsewhere = {
        "link": lambda group: group.__setitem__("actions", h5py.ExternalLink(str(tmp_path / "other.hdf5"), "secret")),
        "raw file": lambda group: group.create_dataset(
            "actions", (3,), "i8", external=[(str(tmp_path / "plain"), 0, 24)]
        ),
        "virtual": lambda group: group.create_virtual_dataset("actions", layout),
    }
    for put in elsewhere.values():
        with_actions(put)
        with pytest.raises(DataError, match="links are refused"):
            door.read("treegym/mine-v0")
    too_large = {
        "never written": lambda group: group.create_dataset("actions", (2**40,), "i8", chunks=(2**20,)),
        "one piece of a gigabyte": lambda group: group.create_dataset(
            "actions", (9,), "i8", chunks=(2**27,), maxshape=(None,)
        ),
        "a text": lambda group: group.__setitem__("actions", "right"),
    }
    for put in too_large.values():
        with_actions(put)
        with pytest.raises(DataError, match=r"more than the file can hold|not numbers in a row"):
            door.read("treegym/mine-v0")
    with_actions(None)
    with pytest.raises(DataError, match="episode 2 holds no walk, without its actions"):
        door.read("treegym/mine-v0")
