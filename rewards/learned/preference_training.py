"""Training a reward model on preference pairs: the head alone, or the whole model; killed and resumed at any step."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from treegym.errors import ConfigError, DataError
from treegym.files import read_arrays, write_arrays
from treegym.rewards.judge.cache import content_key
from treegym.rewards.learned.bradley_terry import RewardModel, bradley_terry_loss
from treegym.rewards.learned.preference import Pair
from treegym.untrusted import json_of

__all__ = ["TrainingSettings", "train_reward_model"]

CHECKPOINT = "checkpoint.safetensors"


@dataclass(frozen=True)
class TrainingSettings:
    """How a reward model is trained.

    Attributes:
        train: ``head`` (the language model stays as it is; its hidden states are computed once) or ``full``.
        epochs: passes over the pairs.
        batch: pairs per step.
        learning_rate: of AdamW, falling to a tenth along a cosine; by default 1e-2 for the head and 3e-4 for all.
        weight_decay: of AdamW.
        held_out: share of the *prompts* kept apart to measure accuracy on.
        checkpoint_every: steps between checkpoints.
        seed: of initial head, split and order.
        suffix: text read after each answer instead of the end token.
    """

    train: str = "head"
    epochs: int = 20
    batch: int = 64
    learning_rate: float | None = None
    weight_decay: float = 0.01
    held_out: float = 0.1
    checkpoint_every: int = 50
    seed: int = 0
    suffix: str | None = None

    def __post_init__(self) -> None:
        if self.train not in ("head", "full"):
            raise ConfigError(f"train is {self.train!r}; expected 'head' or 'full'")
        if self.epochs < 1 or self.batch < 1 or self.checkpoint_every < 1:
            raise ConfigError("epochs, batch and checkpoint_every must be at least 1")
        if not 0.0 <= self.held_out < 1.0:
            raise ConfigError(f"held_out is {self.held_out}; a share from 0 to below 1 was expected")
        if self.learning_rate is not None and not 0 < self.learning_rate < math.inf:
            raise ConfigError(f"learning_rate is {self.learning_rate}; a number above 0 was expected")

    @property
    def rate(self) -> float:
        return self.learning_rate or (1e-2 if self.train == "head" else 3e-4)


def train_reward_model(
    base: Any,
    pairs: Sequence[Pair],
    folder: str | Path,
    *,
    settings: TrainingSettings | None = None,
    after_step: Callable[[int, float], None] | None = None,
) -> RewardModel:
    """Trains a reward model and writes it to a folder; a run killed earlier goes on from its last checkpoint.

    Args:
        base: the language model, a `TransformersModel`; with ``train="full"`` its weights change.
        pairs: what to learn from.
        folder: where the model and checkpoints go.
        settings: how to train.
        after_step: called with the number of steps done and the loss.
    """
    chosen = settings or TrainingSettings()
    training, held_out = _split(pairs, chosen)
    model = RewardModel(base, tuned=chosen.train == "full", suffix=chosen.suffix, seed=chosen.seed)
    path = Path(folder)
    path.mkdir(parents=True, exist_ok=True)
    run = _Run(model, training, chosen, path)
    bar = _progress(run.total, run.step)
    while run.step < run.total:
        loss = run.one_step()
        if bar is not None:
            bar.update(1)
            bar.set_postfix(loss=f"{loss:.4f}")
        if run.step % chosen.checkpoint_every == 0:
            run.save()
        if after_step is not None:
            after_step(run.step, loss)
    if bar is not None:
        bar.close()
    base.weights_changed()
    model.calibrate(training)
    model.facts = {
        "settings": asdict(chosen),
        "pairs": len(training),
        "held_out_pairs": len(held_out),
        "training_accuracy": model.accuracy(training),
        "held_out_accuracy": model.accuracy(held_out) if held_out else None,
    }
    model.save(path)
    (path / CHECKPOINT).unlink(missing_ok=True)
    return model


class _Run:
    """The state of one training run: parameters, optimizer, step."""

    def __init__(self, model: RewardModel, pairs: Sequence[Pair], settings: TrainingSettings, folder: Path) -> None:
        self.model, self.settings, self.file = model, settings, folder / CHECKPOINT
        prompts = [pair.prompt for pair in pairs]
        self._good = model.contexts(prompts, [pair.chosen for pair in pairs])
        self._bad = model.contexts(prompts, [pair.rejected for pair in pairs])
        self._features: torch.Tensor | None = None  # [2 * pairs, D], for the head alone
        trained: dict[str, torch.nn.Parameter] = {f"head.{k}": v for k, v in model.head.named_parameters()}
        if settings.train == "full":
            trained |= {f"base.{k}": v for k, v in model.base.model.base_model.named_parameters()}
        else:
            features = model.base.embed([*self._good, *self._bad]).astype(np.float32)
            self._features = torch.from_numpy(features).to(model.base.device)
        self._trained = trained
        for parameter in trained.values():
            parameter.requires_grad_(True)
        self._optimizer = torch.optim.AdamW(trained.values(), lr=settings.rate, weight_decay=settings.weight_decay)
        self.steps_an_epoch = math.ceil(len(pairs) / settings.batch)
        self.total = settings.epochs * self.steps_an_epoch
        self.step = 0
        self._identity = content_key(asdict(settings), [asdict(p) for p in pairs], model.base.fingerprint())
        if self.file.exists():
            self._resume()

    def one_step(self) -> float:
        """Takes one step and returns its loss."""
        epoch, at = divmod(self.step, self.steps_an_epoch)
        order = np.random.default_rng([self.settings.seed, epoch]).permutation(len(self._good))
        rows = order[at * self.settings.batch : (at + 1) * self.settings.batch]
        share = self.step / max(1, self.total - 1)
        for group in self._optimizer.param_groups:
            group["lr"] = self.settings.rate * (0.55 + 0.45 * math.cos(math.pi * share))
        scores = self.model.head(self._states(rows))[:, 0]
        loss = bradley_terry_loss(scores[: len(rows)], scores[len(rows) :])
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(list(self._trained.values()), 1.0)
        self._optimizer.step()
        self.step += 1
        return float(loss.detach())

    def _states(self, rows: np.ndarray) -> torch.Tensor:
        if self._features is not None:
            return self._features[torch.from_numpy(np.concatenate([rows, rows + len(self._good)]))]
        return self.model.hidden([*(self._good[row] for row in rows), *(self._bad[row] for row in rows)])

    def save(self) -> None:
        """Writes a checkpoint from which the run goes on exactly."""
        arrays = {}
        for name, parameter in self._trained.items():
            arrays[f"{name}|value"] = parameter.detach().cpu().numpy()
            for key, value in self._optimizer.state[parameter].items():
                arrays[f"{name}|{key}"] = value.detach().cpu().numpy()
        about = {"identity": self._identity, "step": self.step}
        write_arrays(self.file, arrays, {"run": json.dumps(about)})

    def _resume(self) -> None:
        arrays, metadata = read_arrays(self.file, mmap=False)
        try:
            about = json_of(metadata.get("run", "").encode(), where=str(self.file))
            identity, step = about["identity"], int(about["step"])
        except (ValueError, KeyError, TypeError, OverflowError) as error:
            raise DataError(f"{self.file}: not a checkpoint of a reward model; delete it to start over") from error
        if identity != self._identity:
            raise DataError(
                f"{self.file}: a checkpoint of another run (other pairs, settings or language model); "
                "use another folder, or delete it to start over"
            )
        self._check(arrays, step)
        device = self.model.base.device
        with torch.no_grad():
            for name, parameter in self._trained.items():
                parameter.copy_(torch.from_numpy(arrays[f"{name}|value"].copy()).to(device))
                state = {key.partition("|")[2]: value for key, value in arrays.items() if key.startswith(f"{name}|")}
                del state["value"]
                self._optimizer.state[parameter] = {
                    key: torch.from_numpy(value.copy()).to("cpu" if key == "step" else device)
                    for key, value in state.items()
                }
        self.step = step

    def _check(self, arrays: Mapping[str, np.ndarray], step: int) -> None:
        """Raises DataError unless each parameter has value and moments of its own shape: AdamW compares none."""
        shapes = {"value": None, "exp_avg": None, "exp_avg_sq": None, "step": ()}
        wanted = {
            f"{name}|{key}": tuple(parameter.shape) if shape is None else shape
            for name, parameter in self._trained.items()
            for key, shape in shapes.items()
        }
        found = {name: array.shape for name, array in arrays.items()}
        sound = all(array.dtype == np.float32 and np.isfinite(array).all() for array in arrays.values())
        squares = all((array >= 0).all() for name, array in arrays.items() if not name.endswith(("|value", "|exp_avg")))
        if found != wanted or not sound or not squares or not 0 < step <= self.total:
            raise DataError(f"{self.file}: its arrays are not those of this model; delete it to start over")


def _split(pairs: Sequence[Pair], settings: TrainingSettings) -> tuple[list[Pair], list[Pair]]:
    """Returns training and held-out pairs, apart by prompt."""
    prompts = sorted({pair.prompt for pair in pairs})
    if not prompts:
        raise ConfigError(
            "there are no preference pairs to learn from (no prompt has both a right and a wrong answer?)"
        )
    order = np.random.default_rng([settings.seed, 1]).permutation(len(prompts))
    kept_apart = {prompts[i] for i in order[: int(settings.held_out * len(prompts))]}
    return [p for p in pairs if p.prompt not in kept_apart], [p for p in pairs if p.prompt in kept_apart]


def _progress(total: int, done: int) -> Any:
    if not sys.stderr.isatty():
        return None
    from tqdm import tqdm

    return tqdm(total=total, initial=done, unit="step", desc="reward model")
