"""What a planner is told that a step pays: one vocabulary for every planner, and every result says which it was.

On held-out prompts nobody hands out verdicts, so a planner that is to be of use there must do without.
"""

from __future__ import annotations

from enum import StrEnum

__all__ = ["Sees"]


class Sees(StrEnum):
    """What a planner is told that entering a state pays."""

    VALUE = "value"
    """The deployable terms of the reward (`Term.deployable`); learners add what their critic says of ends."""

    LIKELIHOOD = "likelihood"
    """What the primary and the teachers think of each token, and nothing of the reward."""

    VERIFIER = "verifier"
    """The whole reward, the verdict included: in training, and where a checker such as a unit test exists."""
