"""The switches that every learner has."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from types import NoneType, UnionType
from typing import Any, Self, get_args, get_origin, get_type_hints

import numpy as np

from treegym.checks import is_number, is_whole
from treegym.errors import ConfigError, suggest

__all__ = ["Settings"]


@dataclass(frozen=True)
class Settings:
    """The switches that every learner has."""

    n_envs: int | None = None  # lanes; None: what the environment came with, or 64 for native batches
    gamma: float = 0.99  # discount

    @classmethod
    def of(cls, algorithm: str, switches: dict[str, Any]) -> Self:
        """Returns settings from keyword arguments; raises ConfigError for an unknown one."""
        known = [field.name for field in fields(cls)]
        for name in switches:
            if name not in known:
                raise ConfigError(f"{algorithm} has no switch {name!r}.{suggest(name, known)}")
        hints = get_type_hints(cls)
        for name, value in switches.items():
            _check(f"{algorithm}: {name}", value, hints[name], size=name in SIZES)
        return cls(**switches)


LARGEST = 2**31  # of whole numbers: as many lanes, steps or positions fit into no memory
SIZES = frozenset({
    "n_envs", "n_steps", "n_episodes", "n_epochs", "batch_size", "micro_batch", "buffer_size", "num_simulations",
    "predict_simulations", "group_size", "n_step", "kl_horizon", "rollout_steps",
})  # at least 1 # fmt: skip
_FITS: dict[Any, tuple[Callable[[Any], bool], str]] = {
    int: (lambda value: is_whole(value) and 0 <= value < LARGEST, f"a whole number from 0 to {LARGEST - 1:,}"),
    float: (lambda value: is_number(value) and abs(value) < (1e100 if isinstance(value, float) else 2**63), "a number"),
    bool: (lambda value: isinstance(value, bool | np.bool_), "True or False"),
    str: (lambda value: isinstance(value, str), "a word"),
    dict: (lambda value: isinstance(value, dict), "a dictionary"),
    Callable: (callable, "a function"),
    NoneType: (lambda value: value is None, "None"),
}


def _check(where: str, value: Any, hint: Any, *, size: bool) -> None:
    """Raises ConfigError unless a value is of a kind that the field's annotation names."""
    kinds = [get_origin(part) or part for part in (get_args(hint) if isinstance(hint, UnionType) else [hint])]
    if not any(_FITS[kind][0](value) for kind in kinds):
        raise ConfigError(f"{where} is {value!r}; {' or '.join(_FITS[kind][1] for kind in kinds)} was expected")
    if size and value is not None and value < 1:
        raise ConfigError(f"{where} is {value!r}; it must be at least 1")
