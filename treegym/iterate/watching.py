"""What a run tells on its way: figures for TensorBoard, and a sentence where memory runs out."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from treegym.errors import BackendError

__all__ = ["Clock", "memory_as_sentence", "write_scalars"]

SIGNS = ("out of memory", "can't allocate memory", "not enough memory", "Cannot allocate memory")


class Clock:
    """Says what the stages of a round cost, in CPU seconds."""

    def __init__(self) -> None:
        self.spent: dict[str, float] = {}
        self._last = time.process_time()

    def note(self, stage: str) -> None:
        """Ends a stage."""
        now = time.process_time()
        self.spent[stage], self._last = round(now - self._last, 2), now


def write_scalars(folder: Path, row: dict[str, Any]) -> None:
    """Adds a round's figures to ``folder/tensorboard``; does nothing where TensorBoard is not installed."""
    if importlib.util.find_spec("tensorboard") is None:
        return
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(folder / "tensorboard" / "rounds")) as writer:
        for name in ("reward", "accuracy", "reference_share", "teacher_entropy", "mean_tokens"):
            if row.get(name) is not None:
                writer.add_scalar(f"iterate/{name}", row[name], row["round"])
        for group in ("chosen_by", "by_kind"):
            for name, value in row.get(group, {}).items():
                writer.add_scalar(f"{group}/{name}", value, row["round"])


@contextmanager
def memory_as_sentence(number: int) -> Iterator[None]:
    """Turns an allocation that failed into a sentence that says what can be done; other errors pass."""
    try:
        yield
    except (MemoryError, RuntimeError, OSError) as error:
        if not isinstance(error, MemoryError) and not any(sign in str(error) for sign in SIGNS):
            raise
        raise BackendError(
            f"round {number} needs more memory than there is; the rounds before it are kept. A smaller n_episodes or "
            "batch_size, micro_batch, or policy gradient_checkpointing=true need less"
        ) from error
