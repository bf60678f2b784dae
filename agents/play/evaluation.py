"""Playing given roots once each: what held-out results are made of. Letters: R roots."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from treegym.agents.play.episodes import begin, play
from treegym.agents.play.standing import Place
from treegym.agents.play.world import World
from treegym.agents.play.worlds import make_world
from treegym.errors import ConfigError
from treegym.registration import find_spec, has_native_batch

__all__ = ["Played", "play_roots", "vector_world"]


class Played(NamedTuple):
    """One episode from each root."""

    roots: np.ndarray  # [R] int64
    success: np.ndarray  # [R] float32, 1 correct, 0 wrong, NaN where the env does not say
    returns: np.ndarray  # [R] float64
    lengths: np.ndarray  # [R] int64


def vector_world(env_id: str, num_envs: int, **kwargs: Any) -> World:
    """Returns so many lanes of an environment by its id."""
    import gymnasium as gym

    if not has_native_batch(find_spec(env_id)):
        return make_world(gym.make(env_id, **kwargs), num_envs=num_envs)
    return make_world(gym.make_vec(env_id, num_envs=num_envs, autoreset_mode="Disabled", **kwargs))


def play_roots(
    agent: Any,
    world: World,
    roots: np.ndarray | None = None,
    *,
    episodes: int | None = None,
    seed: int = 0,
    deterministic: bool = True,
) -> Played:
    """Plays one episode from each root.

    Args:
        agent: anything with `predict`; one that plans is told where it stands.
        world: where, with any number of lanes.
        roots: which; None takes all the world has. Where one cannot choose, `episodes` are played from wherever resets
            lead.
        episodes: how many, where there are no roots.
        seed: of the world.
        deterministic: whether the agent shall do what it thinks best.
    """
    chosen = world.roots() if roots is None else np.asarray(roots, np.int64)
    if chosen is None:
        if episodes is None:
            raise ConfigError("this environment has no roots to choose from: say how many episodes to play")
        chosen = np.full(episodes, -1, np.int64)
    is_dict, plans = hasattr(world.observation_space, "spaces"), getattr(agent, "plans", False)

    def choose(who: np.ndarray) -> np.ndarray:
        rows = world.observe(who)
        told = {"state": Place(world, who)} if plans else {}
        return agent.predict(rows if is_dict else rows["observations"], deterministic=deterministic, **told)[0]

    parts = []
    for first in range(0, len(chosen), world.num_envs):
        here = chosen[first : first + world.num_envs]
        begin(world, len(here), here if (here >= 0).all() else None, seed + first)
        played = play(world, len(here), choose)
        parts.append((played.success, played.returns, played.lengths))
    return Played(chosen, *(np.concatenate(column) for column in zip(*parts, strict=True)))
