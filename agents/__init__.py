"""Learners and baselines that share one way of use; each is imported when it is asked for."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from treegym.agents.alphazero import AlphaZero, ExpertIteration
    from treegym.agents.dapo import DAPO
    from treegym.agents.ppo import PPO
    from treegym.agents.presets import GRPO, ORZPPO, RLOO, DrGRPO, ReinforcePlusPlus
    from treegym.agents.vapo import VAPO

__all__ = [
    "DAPO",
    "GRPO",
    "ORZPPO",
    "PPO",
    "RLOO",
    "VAPO",
    "AlphaZero",
    "DrGRPO",
    "ExpertIteration",
    "ReinforcePlusPlus",
]

_LAZY = {
    "AlphaZero": "treegym.agents.alphazero",
    "DAPO": "treegym.agents.dapo",
    "DrGRPO": "treegym.agents.presets",
    "ExpertIteration": "treegym.agents.alphazero",
    "GRPO": "treegym.agents.presets",
    "ORZPPO": "treegym.agents.presets",
    "PPO": "treegym.agents.ppo",
    "RLOO": "treegym.agents.presets",
    "ReinforcePlusPlus": "treegym.agents.presets",
    "VAPO": "treegym.agents.vapo",
}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'treegym.agents' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY})
