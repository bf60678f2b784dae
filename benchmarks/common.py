"""What every benchmark shares: the command line, interleaved timing, and the closing JSON line."""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

__all__ = [
    "PEER_ABSENT", "cpu_seconds", "emit", "interleaved", "mean_interval", "median_ratio", "parse", "peer_absent",
    "table",
]  # fmt: skip

PEER_ABSENT = 3  # exit code when a peer to compare with is not installed


def parse(description: str) -> argparse.Namespace:
    """Returns the arguments every benchmark takes: ``--quick`` for a smoke run under a minute."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--quick", action="store_true", help="a smoke run under a minute; figures are rough")
    return parser.parse_args()


def cpu_seconds(work: Callable[[], object]) -> float:
    """Returns the CPU seconds of this process that `work` took."""
    start = time.process_time()
    work()
    return time.process_time() - start


def wall_seconds(work: Callable[[], object]) -> float:
    """Returns the wall-clock seconds that `work` took."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def interleaved(
    contestants: Mapping[str, Callable[[], object]],
    *,
    rounds: int,
    clock: Callable[[Callable[[], object]], float] = wall_seconds,
) -> dict[str, list[float]]:
    """Runs every contestant once per round, in turn, after one warm-up; returns each one's times by round.

    Ratios of two contestants are taken round by round and then their median, so that a drift of the machine's speed
    cancels out.
    """
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for work in contestants.values():
        work()
    for _ in range(rounds):
        for name, work in contestants.items():
            times[name].append(clock(work))
    return times


def median_ratio(numerator: Sequence[float], denominator: Sequence[float]) -> float:
    """Returns the median of the round-by-round ratios."""
    return statistics.median(a / b for a, b in zip(numerator, denominator, strict=True))


def mean_interval(values: Sequence[float]) -> tuple[float, float]:
    """Returns Student's 95 % interval of the mean (the value itself if there is one)."""
    from treegym.bench.statistics import student_t_quantile  # peers' environments do without treegym

    middle = statistics.mean(values)
    if len(values) < 2:
        return middle, middle
    half = student_t_quantile(0.975, len(values) - 1) * statistics.stdev(values) / len(values) ** 0.5
    return middle - half, middle + half


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Formats rows as an aligned text table."""
    if not rows:
        return ""
    names = list(rows[0])
    cells = [names] + [[_format(row.get(name, "")) for name in names] for row in rows]
    widths = [max(len(line[i]) for line in cells) for i in range(len(names))]
    return "\n".join("  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)) for line in cells)


def _format(value: Any) -> str:
    return f"{value:,.4g}" if isinstance(value, float) else str(value)


def emit(name: str, figures: Mapping[str, float], cells: Sequence[Mapping[str, Any]] = ()) -> None:
    """Prints the closing line: one JSON object with figures, cells, machine and versions."""
    from treegym.bench.provenance import processor, versions  # peers' environments do without treegym

    packages = ("gymnasium", "numpy", "numba", "torch", "transformers", "stable-baselines3")
    machine = {"processor": processor(), "cores": os.cpu_count(), "system": platform.system()}
    result = {
        "benchmark": name,
        "figures": dict(figures),
        "cells": list(cells),
        "machine": machine,
        "versions": versions(packages),
    }
    print(json.dumps(result, allow_nan=False), flush=True)


def peer_absent(peer: str, how: str) -> NoReturn:
    """Says which peer is missing and how to get it, and ends with exit code 3: no ratio is made up."""
    print(f"{peer} is not installed, so there is nothing to compare with: {how}", file=sys.stderr)
    sys.exit(PEER_ABSENT)
