"""Comparing agents: suites, runs in worker processes, raw episodes, statistics, and results that can be recomputed."""

from __future__ import annotations

__all__: list[str] = []
