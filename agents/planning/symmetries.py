"""Worlds that look alike in a mirror: what was learned of a position holds for its images, too.

An environment may offer ``images(rows)``: for observations as agents see them, ``{key: [N, ...]}``, it returns pairs of
how they look in another way and of the moves' names there, ``actions [K]``: move k of an image is move ``actions[k]``
of what it was made of. Letters: N positions, K actions.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from treegym.errors import ConfigError
from treegym.search.checks import whole_numbers

__all__ = ["with_images"]

_SEEN = "obs."


def with_images(env: Any, positions: dict[str, np.ndarray], actions: int) -> dict[str, np.ndarray]:
    """Returns positions of self-play and, after them, their images, where an environment offers any.

    Rewards, values and what ended how are the same for an image; whatever is kept by move follows its name.
    """
    images = getattr(getattr(env, "unwrapped", env), "images", None)
    if images is None:
        return positions
    rows = {key.removeprefix(_SEEN): array for key, array in positions.items() if key.startswith(_SEEN)}
    parts = [positions]
    for seen, names in images(rows):
        order = _order(names, actions)
        image = dict(positions)
        for key, array in rows.items():
            found = np.asarray(seen[key], array.dtype) if key in seen else None
            if found is None or found.shape != array.shape:
                raise ConfigError(
                    f"an image of {key} has shape {None if found is None else found.shape}; expected {array.shape}, as "
                    "what it was made of: let `images` return every key it was given"
                )
            image[_SEEN + key] = found
        for key in ("policy", "q"):
            image[key] = positions[key][:, order]
        parts.append(image)
    return {key: np.concatenate([part[key] for part in parts]) for key in positions}


def _order(names: Any, actions: int) -> np.ndarray:
    """Returns the moves' names in an image, a permutation of all actions; raises ConfigError for anything else."""
    order = whole_numbers("the moves of an image", names, np.int64)
    if sorted(order.tolist()) != list(range(actions)):
        raise ConfigError(
            f"the moves of an image are {order.tolist()}; expected each of the {actions} actions once, whose number in "
            "the image is its place"
        )
    return order
