"""Callbacks for `learn`: checkpoints, the best agent by validation, and an end where nothing improves any more."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from stable_baselines3.common.callbacks import BaseCallback, ProgressBarCallback

from treegym.agents.processes import writes
from treegym.agents.schema import check_json
from treegym.errors import ConfigError, DataError
from treegym.files import atomic_write
from treegym.shape import COUNT
from treegym.untrusted import read_json

__all__ = ["CheckpointCallback", "StepsBar", "ValidationCallback", "latest_checkpoint"]


class ValidationCallback(BaseCallback):
    """Validates every so many steps, keeps the best agent, and ends training that no longer improves.

    A run that is resumed in the same folder goes on with its validations up to there.

    Args:
        folder: where ``validation.json`` (all steps and scores), ``best.zip`` and ``best.json`` go.
        every: steps between validations.
        validate: a score of the agent, higher is better.
        patience: training ends after so many validations in a row without a better score; None: it does not.
        tell: called after each validation with the steps and scores so far.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        every: int,
        validate: Callable[[Any], float],
        patience: int | None = None,
        tell: Callable[[list[int], list[float]], None] | None = None,
    ) -> None:
        super().__init__()
        for name, value in (("every", every), ("patience", patience)):
            if value is not None and value < 1:
                raise ConfigError(f"{name} must be at least 1, got {value}")
        self.folder, self.every, self.validate = Path(folder), every, validate
        self.patience, self.tell = patience, tell
        self.steps: list[int] = []
        self.scores: list[float] = []

    @property
    def exhausted(self) -> bool:
        """Whether the last `patience` validations brought nothing better."""
        if self.patience is None or not self.scores:
            return False
        return len(self.scores) - 1 - self.scores.index(max(self.scores)) >= self.patience

    def _on_training_start(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        file = self.folder / "validation.json"
        if not file.is_file():
            return
        found = read_json(file)
        check_json(found, {"steps": [COUNT], "scores": [float]}, str(file))
        if len(found["steps"]) != len(found["scores"]):
            raise DataError(f"{file}: steps and scores are not of one length; the file is damaged")
        known = [steps for steps in found["steps"] if steps <= self.model.num_timesteps]
        self.steps, self.scores = known, found["scores"][: len(known)]

    def _on_step(self) -> bool:
        return not self.exhausted

    def _on_rollout_start(self) -> None:
        if self.model.num_timesteps - (self.steps[-1] if self.steps else 0) >= self.every:
            self.note()

    def _on_training_end(self) -> None:
        if not self.exhausted and (not self.steps or self.model.num_timesteps > self.steps[-1]):
            self.note()

    def note(self) -> None:
        """Validates now, and keeps the agent apart if it is the best so far."""
        score, steps = float(self.validate(self.model)), int(self.model.num_timesteps)
        better = score > max(self.scores, default=float("-inf"))
        self.steps.append(steps)
        self.scores.append(score)
        if better:
            self.model.save(self.folder / "best.zip")
            atomic_write(self.folder / "best.json", json.dumps({"score": score, "steps": steps}))
        atomic_write(self.folder / "validation.json", json.dumps({"steps": self.steps, "scores": self.scores}))
        if self.tell is not None:
            self.tell(self.steps, self.scores)


class CheckpointCallback(BaseCallback):
    """Saves the whole state of training every so many steps, between an update and the next rollout.

    A run that is killed and loaded from the latest checkpoint (`latest_checkpoint`) ends bit-identical to one that was
    not, on the CPU.

    Args:
        folder: where ``step-000001000.zip`` and so on go.
        every: steps between checkpoints.
        keep: how many of the latest to keep; None keeps all.
        validate: a score of the agent, taken with every checkpoint (`ValidationCallback`).
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
        self.folder, self.every, self.keep = Path(folder), every, keep
        self.validation = None if validate is None else ValidationCallback(folder, every=every, validate=validate)
        self._last = 0

    def _init_callback(self) -> None:
        if self.validation is not None:
            self.validation.init_callback(self.model)

    def _on_training_start(self) -> None:
        if self.validation is not None:
            if self.model.processes.sharded:
                raise ConfigError(
                    "with layers in shards every process must save, but one alone validates: leave it out"
                )
            self.validation.on_training_start(self.locals, self.globals)
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
        if self.validation is not None:
            self.validation.note()


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
