"""CandidateSelection-v0 and OptimizationPipeline-v0 as native batches."""

from __future__ import annotations

from typing import ClassVar

from treegym.envs.selection.env import PIPELINE, SELECTION
from treegym.envs.world_vector import WorldVectorEnv

__all__ = ["CandidateSelectionVectorEnv", "OptimizationPipelineVectorEnv"]


class CandidateSelectionVectorEnv(WorldVectorEnv):
    """B episodes of CandidateSelection at once."""

    WORLDS: ClassVar = SELECTION
    NAME: ClassVar = SELECTION.name


class OptimizationPipelineVectorEnv(WorldVectorEnv):
    """B episodes of OptimizationPipeline at once."""

    WORLDS: ClassVar = PIPELINE
    NAME: ClassVar = PIPELINE.name
