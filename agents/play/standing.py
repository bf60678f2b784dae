"""Where an observation was made: planners act from a state, but `predict` is given what is seen of it.

Whoever drives the lanes of a world hands their `Place` in as the state of `predict`. For anybody else it is looked for:
if an environment that the agent was given shows exactly these observations as it stands now, its state is where to plan
from. Letters: B rows.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import SyncVectorEnv, VectorEnv
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecEnvWrapper

from treegym.agents.play.foreign_worlds import ListWorld
from treegym.agents.play.native_worlds import LanesWorld, has_lanes
from treegym.agents.play.vec_env import WorldVecEnv
from treegym.agents.play.world import World
from treegym.agents.policies.base import as_rows
from treegym.search import Session

__all__ = ["Place", "current", "place_of", "stand"]


@dataclass(frozen=True)
class Place:
    """A world, which of its lanes the observations are of, and the searches that led there, where they are kept."""

    world: World
    lanes: np.ndarray  # [B] int64
    session: Session | None = None
    moves: np.ndarray | None = None  # [B] int64, what was played after the session's last search


def stand(places: Iterable[World], rows: dict[str, np.ndarray]) -> Place | None:
    """Returns where the rows were observed, or None if no world shows them now."""
    for world in places:
        seen = current(world)
        lanes = None if seen is None else _matching(seen, rows)
        if lanes is not None:
            if isinstance(world, ListWorld):
                world.shows(lanes, rows)
            return Place(world, lanes)
    return None


def place_of(envs: Iterable[Any]) -> list[World]:
    """Returns environments that others step, as worlds to look at; those that cannot be looked at are left out."""
    return [world for env in envs if (world := _as_it_is(env)) is not None]


def current(world: World) -> dict[str, np.ndarray] | None:
    """Returns what all lanes of a world see now, or None if they cannot be asked."""
    if isinstance(world, LanesWorld):
        return world.lanes.observe()  # others may have stepped them
    if not isinstance(world, ListWorld):
        return world.observe()
    seen = []
    for env in world.envs:
        observation = _shown(env)
        if observation is None:
            return None
        try:
            seen.append(as_rows(observation, env.observation_space)[0])
        except ValueError:  # of another shape: a guess that was wrong
            return None
    spaces = world.observation_rows()
    return {key: np.concatenate([rows[key] for rows in seen]).astype(spaces[key].dtype) for key in seen[0]}


_SIGHTS = ("_get_obs", "_get_ob", "gen_obs", "state", "s")  # where environments usually keep what they show


def _shown(env: gym.Env) -> Any:
    """Returns what an environment shows as it stands, or None if it does not say.

    Only one that copies itself can be asked. Of others it is guessed, which is safe: a wrong guess equals nothing that
    anybody has seen there.
    """
    inner: Any = env.unwrapped
    shown = None
    if hasattr(inner, "clone_state") and hasattr(inner, "restore_state"):
        shown = inner.restore_state(inner.clone_state())  # to where it stands: this changes nothing
    else:
        for name in _SIGHTS:
            found = getattr(inner, name, None)
            if found is not None:
                shown = found() if callable(found) else found
                break
    layer: Any = env
    wrappers = []
    while isinstance(layer, gym.Wrapper):
        wrappers.append(layer)
        layer = layer.env
    for wrapper in reversed(wrappers):
        if shown is not None and isinstance(wrapper, gym.ObservationWrapper):
            shown = wrapper.observation(shown)
    return shown


def _as_it_is(env: Any) -> World | None:
    """Returns an environment that someone else steps as a world, without touching it; None if that cannot be."""
    if isinstance(env, (LanesWorld, ListWorld)):
        return env
    if isinstance(env, WorldVecEnv):
        return _as_it_is(env.world)
    if isinstance(env, DummyVecEnv):
        return _as_it_is(env.envs[0]) if env.num_envs == 1 else ListWorld(env.envs)
    if isinstance(env, VecEnvWrapper):
        return _as_it_is(env.venv)
    if isinstance(env, VecEnv) or not isinstance(env, (gym.Env, VectorEnv)):
        return None
    if has_lanes(env):
        return LanesWorld(env)
    if isinstance(env, SyncVectorEnv):
        return ListWorld(env.envs)
    return ListWorld([env]) if isinstance(env, gym.Env) else None


def _matching(seen: dict[str, np.ndarray], rows: dict[str, np.ndarray]) -> np.ndarray | None:
    """Returns a lane that shows each row ``[B] int64``, or None if a row is shown by none.

    Lanes in equal states show equal rows; which of them is taken makes no difference to a planner.
    """
    keys = [key for key in rows if key in seen]
    count, lanes = len(rows[keys[0]]), len(seen[keys[0]])
    if count == lanes and all(np.array_equal(seen[key], rows[key]) for key in keys):
        return np.arange(lanes)
    where: dict[bytes, int] = {}
    for lane in range(lanes):
        where.setdefault(b"".join(seen[key][lane].tobytes() for key in keys), lane)
    found = [where.get(b"".join(rows[key][i].tobytes() for key in keys), -1) for i in range(count)]
    return None if -1 in found else np.array(found, np.int64)
