"""Cells of search_speed for evaluators that are not compiled, and for a network larger than the usual one.

Everyone on one core and in CPU time, in turn, ratios round by round. ``floor`` is the evaluator alone, called as often
as the search calls it with nothing around: no search by this protocol can take less.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
from common import cpu_seconds, median_ratio
from search_network import LARGE, CompiledNetwork, TorchNetwork, random_weights

from treegym.search import search

__all__ = ["plain_cells"]

DISCOUNT, ACTIONS = 0.997, 8


def plain_cells(peers: dict[str, Any], quick: bool) -> tuple[dict[str, float], list[dict[str, Any]]]:
    """Returns the figures and their cells; `peers` are the workers of mctx and LightZero.

    A figure is the least ratio over its cells.
    """
    small, large = random_weights(ACTIONS), random_weights(ACTIONS, **LARGE)
    budgets = (128,) if quick else (128, 512)
    plain = [
        _cell(peers, "lightzero", CompiledNetwork(small, compiled=False), "numpy", method, 1, simulations, quick)
        for method in ("puct", "gumbel")
        for simulations in budgets
    ]
    in_torch = [
        _cell(peers, "mctx", TorchNetwork(large), "torch", method, 1, simulations, quick)
        for method in ("puct", "gumbel")
        for simulations in budgets[:1]
    ]
    compiled = _cell(peers, "mctx", CompiledNetwork(large), "compiled", "gumbel", 64, 32, quick)
    figures = {
        "plain_b1_vs_lightzero": min(cell["ratio"] for cell in plain),
        "torch_b1_vs_mctx": min(cell["ratio"] for cell in in_torch),
        "mlp256_b64_vs_peer": compiled["ratio"],
    }
    return figures, [*plain, *in_torch, compiled]


def _cell(
    peers: dict[str, Any], peer: str, world: Any, kind: str, method: str, batch: int, simulations: int, quick: bool
) -> dict[str, Any]:
    """Returns microseconds per simulation of us, the peer and the evaluator alone, and the ratio."""
    asked: dict[str, Any] = {"method": method, "batch": batch, "actions": ACTIONS, "simulations": simulations}
    asked["large"] = kind != "numpy"
    setting = {"mctx": "batched", "lightzero": "c++"}[peer]
    roots, total = world.roots(batch), batch * simulations
    repeat = max(1, (1000 if quick else 3000) // total)
    options = {"method": method, "num_simulations": simulations, "discount": DISCOUNT, "gumbel_scale": 0.0}
    actions = np.zeros(batch, np.int32)

    def ours() -> Any:
        return search(world, roots, **options)

    def alone() -> None:
        for _ in range(simulations):
            world.expand(world.step(roots, actions).states)

    clocks: dict[str, Callable[[], float]] = {
        "ours": lambda: cpu_seconds(lambda: [ours() for _ in range(repeat)]) / repeat,
        "peer": lambda: float(peers[peer].run(setting=setting, repeat=repeat, **asked)["seconds"]),
        "floor": lambda: cpu_seconds(lambda: [alone() for _ in range(repeat)]) / repeat,
    }
    times: dict[str, list[float]] = {name: [] for name in clocks}
    for clock in clocks.values():
        clock()
    for _ in range(3 if quick else 5):
        for name, clock in clocks.items():
            times[name].append(clock())
    each = {f"{name}_us": statistics.median(values) / total * 1e6 for name, values in times.items()}
    what = f"{kind} network, batch {batch}, {simulations} simulations, {method}, against {peer}"
    cell = {"what": what, **each, "ratio": median_ratio(times["peer"], times["ours"])}
    print(cell, file=sys.stderr, flush=True)
    return cell
