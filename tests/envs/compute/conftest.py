"""A pool of three chains and an environment on it, small enough to work out by hand."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from treegym.envs.compute.env import TestTimeComputeEnv
from treegym.envs.compute.pool import ChainPool
from treegym.envs.compute.world import ComputeWorld


def _pool(**changes: object) -> ChainPool:
    """One prompt, three chains in segments of 2 tokens: 0 and 1 share the first segment.

    chain 0: 4 tokens, answer 0 (right), after one segment it would say 1; chain 1: 3 tokens, answer 1;
    chain 2: 1 token, answer 1.
    """
    arrays = {
        "start": np.array([0, 3]), "length": np.array([4, 3, 1]), "answer": np.array([0, 1, 1]),
        "score": np.array([0.9, 0.2, 0.3], np.float32), "right": np.array([[True, False]]),
        "probe": np.array([[1, 0], [1, 1], [1, 1]]),
        "low": np.array([[0, 0, 0], [0, 0, 1], [0, 2, 2]]), "high": np.array([[3, 2, 1], [3, 2, 2], [3, 3, 3]]),
        "segment": 2, "prompts": ("p",), "splits": ("train",), "features": np.zeros((1, 0), np.float32),
        "likelihood": np.array([[0.5, 0.6], [0.5, 0.7], [0.8, 0.8]], np.float32), "kinds": ("sum",),
    }  # fmt: skip
    return ChainPool(**(arrays | changes))  # type: ignore[arg-type]


def _env(**changes: object) -> TestTimeComputeEnv:
    return TestTimeComputeEnv(world=ComputeWorld(**({"pool": _pool(), "max_branches": 3, "token_cost": 0.8} | changes)))  # type: ignore[arg-type]


@pytest.fixture
def hand_pool() -> Callable[..., ChainPool]:
    return _pool


@pytest.fixture
def hand_env() -> Callable[..., TestTimeComputeEnv]:
    return _env
