"""CandidateSelection-v0 and OptimizationPipeline-v0, one episode at a time and as native batches."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, NamedTuple

from treegym.checks import one_of
from treegym.envs.selection.pipeline_world import PipelineWorld
from treegym.envs.selection.selection_world import SelectionWorld
from treegym.envs.selection.world import RecordedWorld
from treegym.envs.world_env import WorldEnv
from treegym.envs.world_vector import WorldVectorEnv
from treegym.errors import ConfigError

__all__ = [
    "PIPELINE",
    "SELECTION",
    "CandidateSelectionEnv",
    "CandidateSelectionVectorEnv",
    "OptimizationPipelineEnv",
    "OptimizationPipelineVectorEnv",
    "SelectionWorlds",
]

LIVE = ("model", "inputs", "strategies", "seconds")  # keywords that go with source="measured"
_SHARED = (
    "source", "table", "split", "objective_weights", "evaluation_cost", "illegal_penalty", "max_iterations",
    "performance_threshold", "tolerance", "reward_zones", *LIVE,
)  # fmt: skip


class SelectionWorlds(NamedTuple):
    """The worlds of one environment, and the keyword arguments they take."""

    name: str
    keywords: tuple[str, ...]
    recorded: Callable[..., RecordedWorld]
    measured: str  # the live one, by name: it loads torch

    def make(self, settings: Mapping[str, Any]) -> RecordedWorld:
        """Returns the world of an environment's keyword arguments; checks that those of a live module go together."""
        chosen = dict(settings)
        source = one_of("source", chosen.pop("source", "recorded"), ("recorded", "measured"))
        if source == "recorded":
            given = [name for name in LIVE if name in chosen]
            if given:
                raise ConfigError(f"{given[0]!r} goes with source='measured'; recorded candidates need none")
            return self.recorded(**chosen)
        if "model" not in chosen:
            raise ConfigError("source='measured' needs model='my_module:build', the module to measure")
        from treegym.envs.selection import live

        world: RecordedWorld = getattr(live, self.measured)(**chosen)
        return world


SELECTION = SelectionWorlds(
    "CandidateSelection", (*_SHARED, "num_candidates", "sets", "convergence_threshold"), SelectionWorld, "MeasuredWorld"
)
PIPELINE = SelectionWorlds("OptimizationPipeline", _SHARED, PipelineWorld, "MeasuredPipelineWorld")


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

    WORLDS: ClassVar = SELECTION
    NAME: ClassVar = SELECTION.name


class OptimizationPipelineEnv(WorldEnv):
    """Action s adds strategy s to the ensemble, which is measured, at a cost; the last action stops.

    The reward of a step is the change in fitness less the cost: the return is the fitness gained less all costs.
    Only ensembles that were recorded can be built (``source="measured"``: those of up to four strategies that apply);
    they are the same whichever way round one gets to them. A root is a module. Keyword arguments are those of
    `CandidateSelectionEnv` that apply.
    """

    WORLDS: ClassVar = PIPELINE
    NAME: ClassVar = PIPELINE.name


class CandidateSelectionVectorEnv(WorldVectorEnv):
    """B episodes of CandidateSelection at once."""

    WORLDS: ClassVar = SELECTION
    NAME: ClassVar = SELECTION.name


class OptimizationPipelineVectorEnv(WorldVectorEnv):
    """B episodes of OptimizationPipeline at once."""

    WORLDS: ClassVar = PIPELINE
    NAME: ClassVar = PIPELINE.name
