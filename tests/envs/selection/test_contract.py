"""Every id of this room honours the whole contract."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest

import treegym  # noqa: F401 (registers the ids)
from treegym.check.suite import check_suite
from treegym.envs.selection.env import CandidateSelectionVectorEnv
from treegym.errors import ConfigError

IDS = ("CandidateSelection-v0", "MO-CandidateSelection-v0", "OptimizationPipeline-v0", "MO-OptimizationPipeline-v0")


@pytest.mark.parametrize("env_id", IDS)
def test_contract(env_id: str) -> None:
    assert len(check_suite(env_id)) >= 10


@pytest.mark.parametrize("env_id", IDS[::2])
def test_unknown_keyword_is_told(env_id: str) -> None:
    with pytest.raises(ConfigError, match="Did you mean 'split'"):
        gym.make(env_id, splitt="train")


def test_recorded_is_deterministic_by_spec() -> None:
    env = gym.make("CandidateSelection-v0")
    assert env.spec is not None
    assert not env.spec.nondeterministic


def test_splits_hold_modules_apart() -> None:
    titles = {}
    for split in ("train", "validation", "test"):
        world = gym.make("CandidateSelection-v0", split=split).unwrapped.world  # type: ignore[attr-defined]
        titles[split] = {world.title(int(root)) for root in world.pool}
    assert titles["train"].isdisjoint(titles["test"] | titles["validation"])
    assert titles["validation"].isdisjoint(titles["test"])
    assert "vision_transformer/0" in titles["test"]  # a kind of module that training never sees


def test_roots_fix_the_choice() -> None:
    env = gym.make_vec("CandidateSelection-v0", num_envs=4, autoreset_mode="Disabled")
    root = int(env.unwrapped.world.pool[7])  # type: ignore[attr-defined]
    seen, info = env.reset(seed=0, options={"roots": np.full(4, root)})
    assert (info["root"] == root).all()
    assert all(np.array_equal(seen["observations"][0], seen["observations"][i]) for i in range(4))
    _, info = env.reset(options={"root": root + 1})
    assert (info["root"] == root + 1).all()


@pytest.mark.parametrize(
    ("arguments", "options", "said"),
    [
        ({"num_envs": 0}, None, "num_envs is 0"),
        ({"max_episode_steps": 0}, None, "max_episode_steps is 0"),
        ({"render_mode": "3d"}, None, "render_mode is '3d'; it must be one of ansi"),
        ({"autoreset_mode": "Never"}, None, "autoreset_mode is 'Never'"),
        ({}, {"root": "first"}, "options\\['root'\\] is 'first'"),
        ({}, {"root": 10**6}, "root 1000000 is out of range"),
    ],
)
def test_bad_arguments_of_a_batch_are_one_sentence(arguments: dict, options: dict | None, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        CandidateSelectionVectorEnv(**{"num_envs": 2, **arguments}).reset(options=options)


@pytest.mark.parametrize("env_id", IDS[::2])
def test_human_rendering_without_a_screen(env_id: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pygame = pytest.importorskip("pygame")
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    env = gym.make(env_id, render_mode="human")
    env.reset(seed=0)
    shown = pygame.surfarray.array3d(pygame.display.get_surface())
    assert shown.shape == (960, 600, 3)
    assert len(np.unique(shown.reshape(-1, 3), axis=0)) > 3  # something is drawn
    env.close()
    env.close()
