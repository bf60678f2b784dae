"""OpenEnv: any environment of ours behind its protocol, one instance per session.

uvicorn --factory treegym.integrations.openenv:app        (TREEGYM_ENV=CandidateSelection-v0 for another)
"""

from __future__ import annotations

import asyncio
import copy
import json
import os
import uuid
from typing import Any

import gymnasium as gym
from openenv.core.env_server.http_server import create_fastapi_app
from openenv.core.env_server.interfaces import Environment
from openenv.core.env_server.types import Action, Observation, State
from openenv.core.generic_client import GenericEnvClient
from pydantic import Field

from treegym.errors import BackendError, ConfigError
from treegym.registration import find_spec

__all__ = ["Choice", "GymClient", "GymServer", "Seen", "app"]

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

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        super().__init__()
        self._env = env
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
        """Takes one whole step, however long a client waits for it."""
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
        return Seen.model_construct(  # ours and in order: checking each of the numbers again took a third of a step
            done=done,
            reward=reward,
            observations=seen["observations"].ravel().tolist(),
            action_mask=seen["action_mask"].tolist(),
            text=str(info.get("text", "")),
            is_success=bool(info.get("is_success", False)),
            truncated=truncated,
        )


class QuickServer(GymServer):
    """A session whose steps only look things up: they are made at once, without the thread that OpenEnv would start."""

    async def reset_async(self, seed: int | None = None, episode_id: str | None = None, **kwargs: Any) -> Seen:
        """Starts an episode."""
        return self.reset(seed, episode_id, **kwargs)

    async def step_async(self, action: Choice, timeout_s: float | None = None, **kwargs: Any) -> Seen:
        """Takes one step."""
        return self.step(action, timeout_s, **kwargs)


def app(env_id: str | None = None, *, sessions: int = SESSIONS, **kwargs: Any) -> Any:
    """Returns the web application; TREEGYM_ENV and TREEGYM_ENV_ARGS (JSON) say what a server started by name serves."""
    chosen = env_id or os.environ.get("TREEGYM_ENV", "TokenTree-v0")
    try:
        told = json.loads(os.environ.get("TREEGYM_ENV_ARGS", "{}"))
    except ValueError as error:
        raise ConfigError(f"TREEGYM_ENV_ARGS is no JSON: {error}") from error
    if not isinstance(told, dict):
        raise ConfigError("TREEGYM_ENV_ARGS must be a JSON object of keyword arguments")
    given = {**told, **kwargs}
    first = gym.make(find_spec(chosen, where="TREEGYM_ENV"), **given)
    if getattr(first.unwrapped, "multi_objective", False):
        raise ConfigError(f"{chosen} pays a vector, and OpenEnv passes on one number; serve the id without MO")
    # a tree that grows, or asks a judge, may take its time: threads keep the other sessions going
    looks_up = getattr(getattr(first.unwrapped, "world", None), "needs_preparation", True) is False
    session = QuickServer if looks_up else GymServer
    # copies share the tree and its tables, and each draws its own start where no seed is given
    return create_fastapi_app(lambda: session(copy.deepcopy(first)), Choice, Seen, max_concurrent_envs=sessions)


class GymClient(GenericEnvClient):
    """OpenEnv's client, but that an answer which came too late is never taken for that of the next request.

    A request that timed out may still be carried out, and its answer would be read next: the session is closed instead,
    and the next one begins with a reset.
    """

    _ws: Any  # the connection, None while there is none

    async def _send_and_receive(self, message: dict[str, Any]) -> dict[str, Any]:
        try:
            return await super()._send_and_receive(message)
        except (TimeoutError, asyncio.CancelledError) as error:
            if self._ws is not None:
                self._ws.transport.abort()  # a farewell would wait for a server that does not answer
                self._ws = None
            if isinstance(error, asyncio.CancelledError):
                raise
            raise BackendError(
                f"the server did not answer a {message.get('type')} in time; the session is closed, so reset"
            ) from error
