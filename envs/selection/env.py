"""CandidateSelection-v0: choose among ways to optimise a PyTorch module, one episode at a time."""

from __future__ import annotations

from typing import Any, ClassVar

from treegym.envs.selection.base_env import WorldEnv
from treegym.envs.selection.world import SelectionWorld
from treegym.errors import ConfigError

__all__ = ["KEYWORDS", "MEASURED_KEYWORDS", "CandidateSelectionEnv", "selection_world", "takes_measured"]

KEYWORDS = (
    "source", "table", "split", "num_candidates", "sets", "objective_weights", "evaluation_cost", "illegal_penalty",
    "max_iterations", "performance_threshold", "convergence_threshold", "tolerance", "reward_zones",
)  # fmt: skip
MEASURED_KEYWORDS = ("model", "inputs", "strategies", "seconds")
SOURCES = ("recorded", "measured")


def selection_world(settings: dict[str, Any]) -> SelectionWorld:
    """Returns the world of an environment's keyword arguments."""
    if not takes_measured(settings):
        return SelectionWorld(**settings)
    from treegym.envs.selection.measured import MeasuredWorld

    return MeasuredWorld(**settings)


def takes_measured(settings: dict[str, Any]) -> bool:
    """Takes ``source`` out of the settings; returns whether it is "measured", and checks that the others go with it."""
    source = settings.pop("source", "recorded")
    if source not in SOURCES:
        raise ConfigError(f"source is {source!r}; it must be one of {', '.join(SOURCES)}")
    given = [name for name in MEASURED_KEYWORDS if name in settings]
    if source == "recorded" and given:
        raise ConfigError(f"{given[0]!r} goes with source='measured'; recorded candidates need none")
    if source == "measured" and "model" not in settings:
        raise ConfigError("source='measured' needs model='my_module:build', the module to measure")
    return bool(source == "measured")


class CandidateSelectionEnv(WorldEnv):
    """At every step one candidate is measured, at a cost, or committed to; the reward is the gain in fitness.

    Action i measures candidate i the first time and commits to it the second time; the last action keeps the original.
    A root is a module with a set of candidates.

    Keyword arguments (all JSON-serialisable):
        source: "recorded" (a table of real measurements, deterministic) or "measured" (live, with `model`).
        model: ``"my_module:build"`` or ``"zoo:encoder/1"``, what to measure live; `inputs`: ``"my_module:inputs"``.
        table: a recorded table; None for the one that comes with the package.
        split: which modules: train, validation, test or all.
        num_candidates: C; there are C + 1 actions.
        sets: sets of candidates that are drawn of every module.
        objective_weights: weights of speed, memory and accuracy in the fitness.
        evaluation_cost: what measuring a candidate costs, in units of fitness.
        illegal_penalty: what an action that names no candidate costs.
        max_iterations: the number of steps; using it up truncates.
        performance_threshold: a measured fitness from which the candidate is committed to at once (None: never).
        convergence_threshold: two measurements in a row that improve the best by less end the episode with a commit
            to it (None: never).
        tolerance: how far from the optimum's fitness a commit still counts as success.
        reward_zones: pairs [reward, shaped reward] of a piecewise linear map of every step's scalar reward.
        multi_objective: return the gains in speed, memory and accuracy and the cost instead of their weighted sum.
        render_mode: "ansi", "rgb_array" or "human".
    """

    KEYWORDS: ClassVar = (*KEYWORDS, *MEASURED_KEYWORDS)
    NAME: ClassVar = "CandidateSelection"

    @classmethod
    def make_world(cls, settings: dict[str, Any]) -> Any:
        return selection_world(settings)
