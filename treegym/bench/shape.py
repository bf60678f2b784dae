"""The shape of a run's summary in a result folder; `treegym.shape.misfit` says where one departs from it."""

from __future__ import annotations

from typing import Any

from treegym.shape import misfit

__all__ = ["SUMMARY"]

_NUMBER, _COUNT = (float, None), (int, None)  # where a value may be unknown


def _costs(value: Any) -> bool:
    """A shape: numbers by name, and those of evaluation by name again."""
    parts = [{**value, "evaluation": None}, value.get("evaluation", {})] if isinstance(value, dict) else [None]
    return all(misfit(part, {"*": _NUMBER}) is None for part in parts)


SUMMARY: Any = {
    "format": int, "fingerprint": str, "env": str, "agent": str, "seed": int,
    "cost": _costs,
    "curve": [{"checkpoint": int, "score": float, "*": _NUMBER}],
    "final": {
        "score": float, "prompts": [int], "scores": [float],
        "kinds": {"*": {"score": float, "episodes": int, "*": _NUMBER}},
        "*": _NUMBER,
    },
    "episodes": {"sha256": str, "count": int},
    "training": (None, {"sha256": str, "count": int, "env_steps": int}),
    "samples": [{"prompt": str, "answer": str, "correct": bool}],
    "failed_rewards": (None, {"training": int, "evaluation": int}),
    "hyperparameters": {},
    "reference": {"*": float},
    "provenance": {"versions": {"*": str}, "git": str, "hardware": {"*": (str, float)}},
}  # fmt: skip
