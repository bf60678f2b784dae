"""Learners and baselines with one interface; each is imported when it is asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from treegym.registry import lazy_face

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

__getattr__, __dir__ = lazy_face(
    __name__,
    {"DAPO": "dapo", "PPO": "ppo", "VAPO": "vapo"}
    | dict.fromkeys(("AlphaZero", "ExpertIteration"), "alphazero")
    | dict.fromkeys(("DrGRPO", "GRPO", "ORZPPO", "RLOO", "ReinforcePlusPlus"), "presets"),
)
