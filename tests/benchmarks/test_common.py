from __future__ import annotations

from pathlib import Path

import pytest


def test_the_interval_of_a_mean_is_students(benchmarks: Path) -> None:
    from common import mean_interval

    # Of 0.7 0.8 0.9 the mean is 0.8 and its standard error 0.1 / sqrt(3) = 0.05774; with t = 4.3027 that is +- 0.24841.
    assert mean_interval([0.7, 0.8, 0.9]) == pytest.approx((0.55159, 1.04841), abs=5e-6)
    # Five values 1 to 5: the standard error is sqrt(2.5 / 5) = 0.70711; with t = 2.77645 that is +- 1.96324.
    assert mean_interval([1, 2, 3, 4, 5]) == pytest.approx((1.03676, 4.96324), abs=5e-6)
    assert mean_interval([0.5]) == (0.5, 0.5)
