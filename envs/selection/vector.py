"""CandidateSelection-v0 as a native batch."""

from __future__ import annotations

from typing import Any, ClassVar

from treegym.envs.selection.base_vector import WorldVectorEnv
from treegym.envs.selection.env import KEYWORDS, MEASURED_KEYWORDS, selection_world

__all__ = ["CandidateSelectionVectorEnv"]


class CandidateSelectionVectorEnv(WorldVectorEnv):
    """B episodes of CandidateSelection at once."""

    KEYWORDS: ClassVar = (*KEYWORDS, *MEASURED_KEYWORDS)
    NAME: ClassVar = "CandidateSelection"

    @classmethod
    def make_world(cls, settings: dict[str, Any]) -> Any:
        return selection_world(settings)
