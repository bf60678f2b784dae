"""Learners and baselines that share one way of use; each is imported when it is asked for."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from treegym.agents.dapo import DAPO
    from treegym.agents.ppo import PPO

__all__ = ["DAPO", "PPO"]

_LAZY = {"PPO": "treegym.agents.ppo", "DAPO": "treegym.agents.dapo"}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'treegym.agents' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY})
