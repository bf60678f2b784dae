from __future__ import annotations

from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def benchmarks(monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the benchmarks, whose scripts import each other by their bare names."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return BENCHMARKS
