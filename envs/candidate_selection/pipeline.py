"""OptimizationPipeline-v0: build an ensemble of optimisations, strategy by strategy."""

from __future__ import annotations

from typing import Any, ClassVar

from treegym.envs.candidate_selection.base_env import WorldEnv
from treegym.envs.candidate_selection.base_vector import WorldVectorEnv
from treegym.envs.candidate_selection.pipeline_world import PipelineWorld
from treegym.errors import ConfigError

__all__ = ["KEYWORDS", "OptimizationPipelineEnv", "OptimizationPipelineVectorEnv"]

KEYWORDS = (
    "source", "table", "split", "objective_weights", "evaluation_cost", "illegal_penalty", "max_iterations",
    "performance_threshold", "tolerance", "reward_zones",
)  # fmt: skip


def _pipeline_world(settings: dict[str, Any]) -> PipelineWorld:
    source = settings.pop("source", "recorded")
    if source != "recorded":
        raise ConfigError(
            f"source is {source!r}; OptimizationPipeline has recorded measurements only. "
            "Use CandidateSelection-v0 with source='measured', or treegym optimize, for a module of your own"
        )
    return PipelineWorld(**settings)


class OptimizationPipelineEnv(WorldEnv):
    """Action s adds strategy s to the ensemble, which is measured, at a cost; the last action stops.

    The reward of a step is the change in fitness less the cost: the return is the fitness gained less all costs.
    Only ensembles that were recorded can be built; they are the same whichever way round one gets to them. A root is a
    module. Keyword arguments are those of `CandidateSelectionEnv` that apply.
    """

    KEYWORDS: ClassVar = KEYWORDS
    NAME: ClassVar = "OptimizationPipeline"

    @classmethod
    def make_world(cls, settings: dict[str, Any]) -> Any:
        return _pipeline_world(settings)


class OptimizationPipelineVectorEnv(WorldVectorEnv):
    """B episodes of OptimizationPipeline at once."""

    KEYWORDS: ClassVar = KEYWORDS
    NAME: ClassVar = "OptimizationPipeline"

    @classmethod
    def make_world(cls, settings: dict[str, Any]) -> Any:
        return _pipeline_world(settings)
