"""Trackers of runs behind one face: trackio, W&B, MLflow, TensorBoard. A tracker that fails never ends a training."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from treegym.errors import ConfigError, require, suggest

__all__ = ["TRACKERS", "NoTracker", "Tracker", "open_tracker", "track_agent"]

PROJECT = "treegym"


class Tracker(Protocol):
    """What every tracker does."""

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Notes figures at a step."""

    def close(self) -> None:
        """Writes what is left."""


class NoTracker:
    """Where none was asked for."""

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Notes nothing."""

    def close(self) -> None:
        """Has nothing to write."""


class _Guarded:
    """Keeps a run alive: the first failure of a tracker is one warning, and nothing more is sent to it."""

    def __init__(self, name: str, start: Callable[[], Tracker]) -> None:
        self.name = name
        self._inner: Tracker = NoTracker()
        self._try(lambda: setattr(self, "_inner", start()))

    def log(self, step: int, values: Mapping[str, float]) -> None:
        known = {name: float(value) for name, value in values.items() if _is_figure(value)}  # loggers hold words, too
        self._try(lambda: self._inner.log(int(step), known))

    def close(self) -> None:
        self._try(lambda: self._inner.close())

    def _try(self, act: Callable[[], Any]) -> None:
        try:
            act()
        except ConfigError:
            raise
        except (Exception, SystemExit) as error:  # noqa: BLE001 - a service of somebody else's: whatever it raises
            reason = next(iter(str(error).splitlines()), "") or type(error).__name__
            print(f"note: {self.name} failed ({reason[:200]}); the run goes on without it", file=sys.stderr)
            self._inner = NoTracker()


def open_tracker(name: str | None, *, run: str, folder: str | Path, config: Mapping[str, Any] | None = None) -> Tracker:
    """Returns a tracker for one run.

    Args:
        name: one of `TRACKERS`; None tracks nothing.
        run: the run's name there.
        folder: where those that write files put them.
        config: the run's settings.
    """
    if name is None:
        return NoTracker()
    if name not in TRACKERS:
        raise ConfigError(f"there is no tracker {name!r}.{suggest(name, TRACKERS)}")
    module, extra, start = TRACKERS[name]
    require(module, extra=extra, purpose=f"--track {name}")
    plain = {key: value for key, value in (config or {}).items() if isinstance(value, str | int | float | bool)}
    Path(folder).mkdir(parents=True, exist_ok=True)
    return _Guarded(name, lambda: start(run, Path(folder), plain))


def _is_figure(value: Any) -> bool:
    return isinstance(value, int | float | np.integer | np.floating) and bool(np.isfinite(value))


class _Trackio:
    def __init__(self, run: str, folder: Path, config: dict[str, Any]) -> None:
        import trackio

        self._library = trackio
        with contextlib.redirect_stdout(sys.stderr):
            trackio.init(project=PROJECT, name=run, config=config)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self._library.log(dict(values), step=step)

    def close(self) -> None:
        with contextlib.redirect_stdout(sys.stderr):
            self._library.finish()


class _Wandb:
    def __init__(self, run: str, folder: Path, config: dict[str, Any]) -> None:
        import wandb

        self._run: Any = wandb.init(project=PROJECT, name=run, dir=str(folder), config=config)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log(dict(values), step=step)

    def close(self) -> None:
        self._run.finish()


class _MLflow:
    def __init__(self, run: str, folder: Path, config: dict[str, Any]) -> None:
        import mlflow

        self._library = mlflow
        mlflow.set_experiment(PROJECT)
        mlflow.start_run(run_name=run)
        mlflow.log_params(config)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self._library.log_metrics(dict(values), step=step)

    def close(self) -> None:
        self._library.end_run()


class _TensorBoard:
    def __init__(self, run: str, folder: Path, config: dict[str, Any]) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer: Any = SummaryWriter(str(folder / "tensorboard" / run))
        self._writer.add_text("settings", "\n".join(f"    {name}: {value}" for name, value in config.items()))

    def log(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        self._writer.close()


# name: (package, extra, what opens a run)
TRACKERS: dict[str, tuple[str, str, Callable[[str, Path, dict[str, Any]], Tracker]]] = {
    "trackio": ("trackio", "trackio", _Trackio),
    "wandb": ("wandb", "wandb", _Wandb),
    "mlflow": ("mlflow", "mlflow", _MLflow),
    "tensorboard": ("tensorboard", "tensorboard", _TensorBoard),
}


def track_agent(tracker: Tracker) -> Any:
    """Returns a callback for `learn` of our agents and of SB3's, that tells a tracker what the logger tells."""
    from stable_baselines3.common.callbacks import BaseCallback
    from stable_baselines3.common.logger import KVWriter

    class Writer(KVWriter):
        def write(self, key_values: dict[str, Any], key_excluded: dict[str, Any], step: int = 0) -> None:
            tracker.log(step, key_values)

        def close(self) -> None:
            tracker.close()

    class Track(BaseCallback):
        def _on_training_start(self) -> None:
            self.logger.output_formats.append(Writer())

        def _on_step(self) -> bool:
            return True

    return Track()
