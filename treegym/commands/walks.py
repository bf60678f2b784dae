"""Pictures of how an agent walks while it learns: one animated GIF every so many steps."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from stable_baselines3.common.callbacks import BaseCallback

from treegym.commands.validation import held_out
from treegym.errors import ConfigError, require
from treegym.files import atomic_path

__all__ = ["WalkCallback", "record_walk", "walker"]

MOST = 200  # frames of a walk; an episode may be longer
PER_FRAME = 600  # milliseconds
SEED = 2_000_000  # of the first walk: neither trained nor validated with


def walker(env_id: str, kwargs: Mapping[str, Any]) -> Callable[[Any, Path, int], None]:
    """Returns a function that plays a number's episode with an agent and draws it into a file.

    In environments with splits the episode begins at a validation root: the same one for the same number.
    """
    import gymnasium as gym
    from gymnasium.envs.registration import load_env_creator

    from treegym.registration import find_spec

    spec = find_spec(env_id, where="--env")
    creator = load_env_creator(spec.entry_point) if isinstance(spec.entry_point, str) else spec.entry_point
    modes = getattr(creator, "metadata", {}).get("render_modes") or []
    if "rgb_array" not in modes:
        raise ConfigError(
            f"{env_id} draws no pictures (its render modes: {', '.join(modes) or 'none'}); leave out --walks-every"
        )
    env = gym.make(spec, render_mode="rgb_array", **held_out(env_id, kwargs))

    def walk(agent: Any, path: Path, number: int) -> None:
        record_walk(agent, env, path, seed=SEED + number)

    return walk


def record_walk(agent: Any, env: Any, path: Path, *, seed: int) -> int:
    """Plays one episode as the agent thinks best and writes what was seen as a GIF; returns the number of frames."""
    image = require("PIL.Image", extra="render", purpose="pictures of walks")
    observation, _ = env.reset(seed=seed)
    frames = [env.render()]
    is_over = False
    while not is_over and len(frames) < MOST:
        action, _ = agent.predict(observation, deterministic=True)
        observation, _, terminated, truncated, _ = env.step(
            np.asarray(action).item() if np.ndim(action) == 0 else action
        )
        frames.append(env.render())
        is_over = terminated or truncated
    pictures = [image.fromarray(np.asarray(frame)) for frame in frames]
    with atomic_path(path) as temporary:
        pictures[0].save(temporary, format="GIF", save_all=True, append_images=pictures[1:], duration=PER_FRAME, loop=0)
    return len(frames)


class WalkCallback(BaseCallback):
    """Draws a walk every so many steps, as ``walks/step-000010000.gif`` and so on.

    Args:
        folder: the run's folder.
        every: steps between walks.
        walk: what `walker` returns.
    """

    def __init__(self, folder: Path, *, every: int, walk: Callable[[Any, Path, int], None]) -> None:
        super().__init__()
        if every < 1:
            raise ConfigError(f"walks are drawn every so many steps, at least 1; got {every}")
        self.folder, self.every, self.walk = folder / "walks", every, walk
        self._last: int | None = None

    def _on_training_start(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)

    def _on_step(self) -> bool:
        return True

    def _on_rollout_start(self) -> None:
        if self._last is None or self.model.num_timesteps - self._last >= self.every:
            self._draw()

    def _on_training_end(self) -> None:
        if self.model.num_timesteps != self._last:
            self._draw()

    def _draw(self) -> None:
        steps = self._last = int(self.model.num_timesteps)
        self.walk(self.model, self.folder / f"step-{steps:012d}.gif", steps // self.every)
