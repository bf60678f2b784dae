"""A score of an agent on prompts that it neither trains on nor is judged by."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

__all__ = ["held_out", "validation"]

EPISODES = 50  # where there are no prompts to go through
SEED = 1_000_000  # of those episodes: far from the seeds that people train and judge with


def held_out(env_id: str, kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Returns an environment's arguments without a curriculum, on validation prompts where it has splits."""
    from treegym.registration import accepts, find_spec

    own = {name: value for name, value in kwargs.items() if name != "curriculum"}
    return {**own, "split": "validation"} if accepts(find_spec(env_id, where="--env"), "split") else own


def validation(env_id: str, kwargs: Mapping[str, Any]) -> Callable[[Any], float]:
    """Returns a function of an agent: its mean success, or return where success is not told.

    In environments with splits it is taken over every validation prompt, elsewhere over so many episodes.
    """
    import numpy as np

    from treegym.agents.play.evaluation import play_roots, vector_world
    from treegym.registration import accepts, find_spec

    lanes = 64 if accepts(find_spec(env_id, where="--env"), "split") else 8
    world = vector_world(env_id, lanes, **held_out(env_id, kwargs))

    def score(agent: Any) -> float:
        played = play_roots(agent, world, episodes=EPISODES, seed=SEED)
        known = played.success[~np.isnan(played.success)]
        return float(known.mean() if len(known) else played.returns.mean())

    return score
