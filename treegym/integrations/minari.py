"""Minari: walks of any agent as an offline data set, and back."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from treegym.agents.play.episodes import begin, play
from treegym.agents.play.evaluation import vector_world
from treegym.agents.play.standing import Place
from treegym.errors import ConfigError, DataError, require
from treegym.integrations.minari_file import read_file

__all__ = ["Walks", "export", "read", "walk", "walks_of"]


class Walks(NamedTuple):
    """Episodes as what was done in them: enough to walk each again."""

    roots: list[int]  # [E], -1 where the environment has none
    actions: list[np.ndarray]  # E arrays [T] int64
    rewards: list[np.ndarray]  # E arrays [T] float64

    @property
    def returns(self) -> np.ndarray:
        """The undiscounted return of each episode ``[E] float64``."""
        return np.array([rewards.sum() for rewards in self.rewards])


def walk(agent: Any, world: Any, roots: np.ndarray, *, seed: int = 0, deterministic: bool = True) -> Walks:
    """Lets an agent play each root once; one that plans is told where it stands."""
    is_dict, plans = hasattr(world.observation_space, "spaces"), getattr(agent, "plans", False)
    found = Walks([], [], [])
    for first in range(0, len(roots), world.num_envs):
        here = np.asarray(roots[first : first + world.num_envs], np.int64)
        noted: list[np.ndarray] = []

        def choose(who: np.ndarray, noted: list[np.ndarray] = noted) -> np.ndarray:
            seen = world.observe(who)
            told = {"state": Place(world, who)} if plans else {}
            chosen = agent.predict(seen if is_dict else seen["observations"], deterministic=deterministic, **told)[0]
            noted.append(np.asarray(chosen, np.int64))
            return chosen

        begin(world, len(here), here, seed + first)
        played = play(world, len(here), choose)
        cuts = np.cumsum(played.lengths)[:-1]
        found.roots.extend(int(root) for root in here)
        found.actions.extend(np.split(played.ordered(noted), cuts))
        found.rewards.extend(np.split(played.rewards, cuts))
    return found


def walks_of(
    name: str, env_id: str = "TokenTree-v0", *, episodes: int | None = None, seed: int = 0, **kwargs: Any
) -> Walks:
    """Returns walks of an agent by name (a baseline, the oracle, a teacher) or of a checkpoint, one per root."""
    from treegym.agents.checkpoint import describe
    from treegym.agents.registry import agent_class, class_that_saves, make_agent

    world = vector_world(env_id, 64, **kwargs)
    roots = world.roots()
    if roots is None:
        raise ConfigError(f"{env_id} has no roots to start from, so its walks could not be told apart again")
    if episodes is not None:
        roots = roots[np.linspace(0, len(roots) - 1, min(episodes, len(roots))).astype(int)]
    if name.endswith(".zip") or name.startswith("hf:"):
        agent = class_that_saves(describe(name)["algorithm"], name).load(name, env=world)
    else:
        found = agent_class(name)
        if callable(getattr(found, "learn", None)) and getattr(found, "learns", True):
            raise ConfigError(f"{name} must be trained first: treegym train {name} --out FOLDER")
        agent = make_agent(name, world, seed=seed)
    return walk(agent, world, roots, seed=seed)


def export(dataset_id: str, walks: Walks, env: Any, *, algorithm: str, author: str | None = None) -> Any:
    """Writes walks as a Minari data set and returns it.

    Observations, rewards and ends come from walking again in `env`, one step at a time; a reward that differs from what
    the walk earned is an error, so returns in the data set are exact.
    """
    minari = require("minari", extra="minari", purpose="a Minari data set")
    from minari.data_collector import EpisodeBuffer

    buffers = []
    for index, (root, actions, rewards) in enumerate(zip(*walks, strict=True)):
        options = {"root": root}
        seen, info = env.reset(seed=index, options=options)
        observations, masks, ends = [seen], [info["action_mask"]], []
        for action, earned in zip(actions, rewards, strict=True):
            seen, reward, terminated, truncated, info = env.step(int(action))
            if not np.isclose(reward, earned, rtol=0, atol=1e-6):
                raise DataError(
                    f"root {root} paid {reward} where the walk earned {earned}; this is another environment"
                )
            observations.append(seen)
            masks.append(info["action_mask"])
            ends.append((reward, terminated, truncated))
        paid, terminations, truncations = zip(*ends, strict=True)
        stacked: Any = (
            {key: np.stack([o[key] for o in observations]) for key in seen} if isinstance(seen, dict) else None
        )
        buffers.append(
            EpisodeBuffer(
                id=index,
                seed=index,
                options=options,
                observations=stacked if stacked is not None else np.stack(observations),
                actions=np.asarray(actions, np.int64),
                rewards=[float(reward) for reward in paid],
                terminations=list(terminations),
                truncations=list(truncations),
                infos={"root": np.full(len(masks), root, np.int64)},
            )
        )
    if dataset_id in minari.list_local_datasets():
        raise ConfigError(f"Minari holds a data set {dataset_id!r} already; choose another name or version")
    return minari.create_dataset_from_buffers(
        dataset_id,
        buffers,
        env=env.spec,
        observation_space=env.observation_space,
        action_space=env.action_space,
        algorithm_name=algorithm,
        author=author,
        ref_min_score=None,
        description=f"Walks of {algorithm}, by TreeGym",
    )


def read(dataset: Any) -> Walks:
    """Returns the walks that a data set of `export` holds, given it or its name; the files may be a stranger's."""
    minari = require("minari", extra="minari", purpose="a Minari data set")
    if isinstance(dataset, str):
        folder, chosen = Path(minari.storage.get_dataset_path(dataset)) / "data", None
        if not folder.is_dir():
            raise DataError(f"Minari holds no data set {dataset!r}: there is no folder {folder}")
    else:
        folder, chosen = Path(dataset.storage.data_path), dataset.episode_indices
    found = Walks([], [], [])
    for root, actions, rewards in read_file(folder, chosen):
        found.roots.append(root)
        found.actions.append(actions)
        found.rewards.append(rewards)
    return found
