"""States that planners come back to: what is restored is first compared with what the lanes themselves would return.

The kernels trust the lanes' arrays; a state that was cloned elsewhere, or tampered with, would have them read and
write past their memory.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from treegym.errors import ConfigError

__all__ = ["ORIGIN", "check_state", "origin_of"]

ORIGIN = "origin"  # the part of a state that says where it was cloned


def origin_of(*parts: Any) -> int:
    """Returns a number for an environment, from JSON values and arrays that make it what it is."""
    digest = hashlib.blake2b(digest_size=8)
    for part in parts:
        digest.update(part.tobytes() if isinstance(part, np.ndarray) else json.dumps(part).encode())
    return int.from_bytes(digest.digest(), "little", signed=True)


def check_state(state: Mapping[str, Any], own: Mapping[str, np.ndarray]) -> None:
    """Raises ConfigError unless a state has the arrays of the lanes' `own`, each of the same shape and type.

    A state from before states said where they were cloned is judged by its arrays alone.
    """
    for name, mine in own.items():
        given = state.get(name)
        if name == ORIGIN and given is None:
            continue
        if not isinstance(given, np.ndarray) or given.shape != mine.shape or given.dtype != mine.dtype:
            raise ConfigError(f"this state is not one of {len(mine)} lanes; pass back what clone_state() returned")
    if (given := state.get(ORIGIN)) is not None and (given != own[ORIGIN]).any():
        raise ConfigError("this state was cloned in another environment (of another tree, budget or view)")
