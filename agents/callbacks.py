"""Callbacks for `learn`: checkpoints along the way, and the best of them by validation."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from stable_baselines3.common.callbacks import BaseCallback, ProgressBarCallback

from treegym.agents.processes import writes
from treegym.agents.schema import check_json
from treegym.errors import ConfigError
from treegym.files import atomic_write
from treegym.untrusted import read_json

__all__ = ["CheckpointCallback", "StepsBar", "latest_checkpoint"]


class CheckpointCallback(BaseCallback):
    """Saves the whole state of training every so many steps, between an update and the next rollout.

    A run that is killed and loaded from the latest checkpoint (`latest_checkpoint`) ends bit-identical to one that was
    not, on the CPU.

    Args:
        folder: where ``step-000001000.zip``, ``best.zip`` and ``best.json`` go.
        every: steps between checkpoints.
        keep: how many of the latest to keep; None keeps all.
        validate: a score of the agent, higher is better; the best by it is kept as ``best.zip``.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        every: int,
        keep: int | None = 3,
        validate: Callable[[Any], float] | None = None,
    ) -> None:
        super().__init__()
        if every < 1 or (keep is not None and keep < 1):
            raise ConfigError(f"every and keep must be at least 1, got every={every}, keep={keep}")
        self.folder, self.every, self.keep, self.validate = Path(folder), every, keep, validate
        self._last = 0

    def _on_training_start(self) -> None:
        if self.validate is not None and self.model.processes.sharded:
            raise ConfigError("with layers in shards every process must save, but one alone validates: leave it out")
        self.folder.mkdir(parents=True, exist_ok=True)
        self._last = self.num_timesteps

    def _on_step(self) -> bool:
        return True

    def _on_rollout_start(self) -> None:
        if self.model.num_timesteps - self._last >= self.every:
            self.save()

    def _on_training_end(self) -> None:
        if self.model.num_timesteps > self._last:
            self.save()

    def save(self) -> None:
        """Writes a checkpoint now, drops old ones, and keeps it apart if it is the best so far."""
        steps = self.model.num_timesteps
        self._last = steps
        self.model.save(self.folder / f"step-{steps:012d}.zip")
        if not writes():
            return
        if self.keep is not None:
            for old in sorted(self.folder.glob("step-*.zip"))[: -self.keep]:
                old.unlink()
        if self.validate is not None:
            score = float(self.validate(self.model))
            if score > self._best():
                self.model.save(self.folder / "best.zip")
                atomic_write(self.folder / "best.json", json.dumps({"score": score, "steps": steps}))

    def _best(self) -> float:
        """Returns the best score so far, also of the run before an interruption."""
        file = self.folder / "best.json"
        if not file.is_file():
            return float("-inf")
        found = read_json(file)
        check_json(found, {"score": float}, str(file))
        return float(found["score"])


class StepsBar(ProgressBarCallback):
    """SB3's progress bar, but of steps that were taken: lanes that rest take none."""

    def _on_training_start(self) -> None:
        super()._on_training_start()
        self._begun = self.model.num_timesteps

    def _on_step(self) -> bool:
        self.pbar.update(self.model.num_timesteps - self._begun - self.pbar.n)
        return True


def latest_checkpoint(folder: str | os.PathLike[str]) -> Path | None:
    """Returns the latest checkpoint in a folder, or None."""
    found = sorted(Path(folder).glob("step-*.zip"))
    return found[-1] if found else None
