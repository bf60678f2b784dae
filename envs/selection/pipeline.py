"""OptimizationPipeline-v0: build an ensemble of optimisations, strategy by strategy."""

from __future__ import annotations

from typing import Any, ClassVar

from treegym.envs.selection.base_env import WorldEnv
from treegym.envs.selection.base_vector import WorldVectorEnv
from treegym.envs.selection.env import MEASURED_KEYWORDS, takes_measured
from treegym.envs.selection.pipeline_world import PipelineWorld

__all__ = ["KEYWORDS", "OptimizationPipelineEnv", "OptimizationPipelineVectorEnv"]

KEYWORDS = (
    "source", "table", "split", "objective_weights", "evaluation_cost", "illegal_penalty", "max_iterations",
    "performance_threshold", "tolerance", "reward_zones",
)  # fmt: skip


def _pipeline_world(settings: dict[str, Any]) -> PipelineWorld:
    if takes_measured(settings):
        from treegym.envs.selection.measured_pipeline import MeasuredPipelineWorld

        return MeasuredPipelineWorld(**settings)
    return PipelineWorld(**settings)


class OptimizationPipelineEnv(WorldEnv):
    """Action s adds strategy s to the ensemble, which is measured, at a cost; the last action stops.

    The reward of a step is the change in fitness less the cost: the return is the fitness gained less all costs.
    Only ensembles that were recorded can be built (``source="measured"``: those of up to four strategies that apply);
    they are the same whichever way round one gets to them. A root is a module. Keyword arguments are those of
    `CandidateSelectionEnv` that apply.
    """

    KEYWORDS: ClassVar = (*KEYWORDS, *MEASURED_KEYWORDS)
    NAME: ClassVar = "OptimizationPipeline"

    @classmethod
    def make_world(cls, settings: dict[str, Any]) -> Any:
        return _pipeline_world(settings)


class OptimizationPipelineVectorEnv(WorldVectorEnv):
    """B episodes of OptimizationPipeline at once."""

    KEYWORDS: ClassVar = (*KEYWORDS, *MEASURED_KEYWORDS)
    NAME: ClassVar = "OptimizationPipeline"

    @classmethod
    def make_world(cls, settings: dict[str, Any]) -> Any:
        return _pipeline_world(settings)
