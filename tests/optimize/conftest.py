"""Threads: small modules run on one. And settings of a search that takes seconds."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from treegym.optimize.config import FOUNDING

torch.set_num_threads(1)


@pytest.fixture
def quick() -> dict[str, Any]:
    """Settings of a short search without back ends, which take seconds each."""
    return {
        "seconds_per_candidate": 0.15,
        "max_iterations": 3,
        "num_candidates": 3,
        "enable_adaptive_hybrid": False,
        "optimization_strategies": FOUNDING,
    }
