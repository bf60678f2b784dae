"""OpenEnv: any environment of ours behind its protocol, one instance per session.

uvicorn --factory treegym.integrations.openenv:app        (TREEGYM_ENV=CandidateSelection-v0 for another)
"""

from __future__ import annotations

import json
import os
import uuid
from typing import Any

import gymnasium as gym
import numpy as np
from openenv.core.env_server.http_server import create_fastapi_app
from openenv.core.env_server.interfaces import Environment
from openenv.core.env_server.types import Action, Observation, State
from pydantic import Field

import treegym  # noqa: F401 (registers the ids)
from treegym.errors import ConfigError

__all__ = ["Choice", "GymServer", "Seen", "app"]

SESSIONS = 256


class Choice(Action):
    """Which child, or candidate, is taken."""

    action: int


class Seen(Observation):
    """What an environment shows; `done` and `reward` are OpenEnv's own."""

    observations: list[float] = Field(default_factory=list)
    action_mask: list[int] = Field(default_factory=list)
    text: str = ""
    is_success: bool = False
    truncated: bool = False


class GymServer(Environment[Choice, Seen, State]):
    """One session: a seed or a root given at reset is honoured, so that groups can share a start."""

    SUPPORTS_CONCURRENT_SESSIONS = True

    def __init__(self, env_id: str = "TokenTree-v0", **kwargs: Any) -> None:
        super().__init__()
        self._env = gym.make(env_id, **kwargs)
        self._state = State(episode_id=None, step_count=0)
        self._ended = True

    def reset(self, seed: int | None = None, episode_id: str | None = None, **kwargs: Any) -> Seen:
        """Starts an episode; ``root=`` chooses where."""
        options = {"root": int(kwargs["root"])} if kwargs.get("root") is not None else None
        seen, info = self._env.reset(seed=seed, options=options)
        self._state = State(episode_id=episode_id or uuid.uuid4().hex, step_count=0)
        self._ended = False
        return self._shown(seen, info, 0.0, False, False)

    def step(self, action: Choice, timeout_s: float | None = None, **kwargs: Any) -> Seen:
        """Takes one step; a step is far below any time-out, so none can leave a session half done."""
        if self._ended:
            raise ConfigError("the episode has ended; reset first")
        seen, reward, terminated, truncated, info = self._env.step(action.action)
        self._state.step_count += 1
        self._ended = bool(terminated or truncated)
        return self._shown(seen, info, float(reward), self._ended, bool(truncated))

    @property
    def state(self) -> State:
        """Which episode, and how far."""
        return self._state

    def close(self) -> None:
        """Closes the environment."""
        self._env.close()

    def _shown(self, seen: Any, info: dict[str, Any], reward: float, done: bool, truncated: bool) -> Seen:
        return Seen(
            done=done,
            reward=reward,
            observations=np.asarray(seen["observations"], np.float64).ravel().tolist(),
            action_mask=[int(value) for value in seen["action_mask"]],
            text=str(info.get("text", "")),
            is_success=bool(info.get("is_success", False)),
            truncated=truncated,
        )


def app(env_id: str | None = None, *, sessions: int = SESSIONS, **kwargs: Any) -> Any:
    """Returns the web application; TREEGYM_ENV and TREEGYM_ENV_ARGS (JSON) say what a server started by name serves."""
    chosen = env_id or os.environ.get("TREEGYM_ENV", "TokenTree-v0")
    given = {**json.loads(os.environ.get("TREEGYM_ENV_ARGS", "{}")), **kwargs}
    return create_fastapi_app(lambda: GymServer(chosen, **given), Choice, Seen, max_concurrent_envs=sessions)
