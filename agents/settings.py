"""The switches that every learner has."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Self

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
        return cls(**switches)
