"""An agent trained piece by piece, wherever there is room: what goes from piece to piece is a checkpoint's bytes."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from treegym.agents.registry import agent_class, make_agent

__all__ = ["from_bytes", "learn_on", "piece", "to_bytes"]


def piece(
    name: str, env: Any, checkpoint: bytes | None, *, seed: int, new: Mapping[str, Any], changed: Mapping[str, Any],
    steps: int, total: int,
) -> tuple[Any, dict[str, Any]]:  # fmt: skip
    """Trains for one piece; returns the agent, and its checkpoint with the steps that it took.

    Args:
        name: of the agent.
        env: what it is trained in.
        checkpoint: what it goes on from; None makes a new agent.
        seed: of a new agent.
        new: switches of a new agent.
        changed: switches that one which goes on is given anew.
        steps: of the piece.
        total: of all pieces, for schedules.
    """
    if checkpoint is None:
        agent = make_agent(name, env, seed=seed, **new)
    else:
        agent = from_bytes(name, checkpoint, env=env, **changed)
    before = agent.num_timesteps
    learn_on(agent, steps=steps, total=total)
    return agent, {"checkpoint": to_bytes(agent), "steps": int(agent.num_timesteps - before)}


def learn_on(agent: Any, *, steps: int, total: int) -> None:
    """Trains for so many steps more, with the schedules of a run of `total` steps."""
    from stable_baselines3.common.callbacks import BaseCallback

    until = agent.num_timesteps + steps

    class Until(BaseCallback):
        over = False

        def _on_rollout_start(self) -> None:
            self.over = agent.num_timesteps >= until

        def _on_step(self) -> bool:
            return not self.over  # the first step of a rollout that is one too many

    agent.learn(max(steps, total - agent.num_timesteps), callback=Until(), reset_num_timesteps=False)


def from_bytes(name: str, checkpoint: bytes, **given: Any) -> Any:
    """Returns the agent of a checkpoint, as `Agent.load` reads it from a file."""
    with tempfile.TemporaryDirectory(prefix="treegym-piece-") as folder:
        file = Path(folder) / "agent.zip"
        file.write_bytes(checkpoint)
        return agent_class(name).load(file, **given)


def to_bytes(agent: Any) -> bytes:
    """Returns an agent's checkpoint."""
    with tempfile.TemporaryDirectory(prefix="treegym-piece-") as folder:
        file = Path(folder) / "agent.zip"
        agent.save(file)
        return file.read_bytes()
