"""Playing given roots once each: what held-out results are made of. Letters: R roots."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

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
        agent: anything with `predict`; one that plans is told of the world.
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
    if hasattr(agent, "watch_world"):
        agent.watch_world(world)
    parts = []
    for first in range(0, len(chosen), world.num_envs):
        parts.append(_round(agent, world, chosen[first : first + world.num_envs], seed + first, deterministic))
    return Played(chosen, *(np.concatenate(column) for column in zip(*parts, strict=True)))


def _round(
    agent: Any, world: World, roots: np.ndarray, seed: int, deterministic: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    size, lanes = len(roots), world.num_envs
    active = np.arange(lanes) < size
    forced = None
    if (roots >= 0).all():
        forced = np.full(lanes, roots[0], np.int64)
        forced[:size] = roots
    world.reset(np.ones(lanes, np.bool_), roots=forced, seed=seed)
    success = np.full(lanes, np.nan, np.float32)
    returns, lengths = np.zeros(lanes), np.zeros(lanes, np.int64)
    actions = np.zeros(lanes, np.int64)
    is_dict = hasattr(world.observation_space, "spaces")
    while active.any():
        who = np.flatnonzero(active)
        rows = world.observe(who)
        actions[who] = agent.predict(rows if is_dict else rows["observations"], deterministic=deterministic)[0]
        outcome = world.step(actions, active)
        returns[who] += outcome.reward[who]
        lengths[who] += 1
        ended = active & (outcome.terminated | outcome.truncated)
        if outcome.success is not None:
            success[ended] = outcome.success[ended]
        active &= ~ended
    return success[:size], returns[:size], lengths[:size]
