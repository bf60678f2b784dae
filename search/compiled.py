"""Simulators with a compiled model: world and network inside the search kernel, no call back to Python.

Write the step of your world and the judgement of what comes out as one function of numba's nopython mode, decorate it
with `compiled_model`, and give the simulator the attributes ``model`` and ``params``: `treegym.search.search` then runs
each whole search inside one kernel. With a small network that is worth a factor of ten and more at batch 1.
"""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import numpy as np

from treegym.errors import ConfigError
from treegym.search.checks import PROBLEMS, expanded, real_numbers
from treegym.search.kernels.dense import dense_layer, dot_product
from treegym.search.kernels.model import CompiledModel, ModelDesk, ModelStarts, ModelWorld, compiled_model
from treegym.search.kernels.simd.rows import WIDE
from treegym.search.output import scratch
from treegym.search.settings import Options
from treegym.search.simulator import Evaluation, SearchResult, Transition
from treegym.search.tree import aligned
from treegym.search.whole import search_whole

__all__ = ["CompiledSimulator", "compiled_model", "compiled_search", "dense_layer", "dot_product"]


_COPIED = 1 << 16  # bytes of parameters up to which a copy costs less than vectors that straddle cache lines


@runtime_checkable
class CompiledSimulator(Protocol):
    """A simulator whose states are float32 [B, D] and whose step and judgement are compiled."""

    num_actions: int
    model: Any  # made by `compiled_model`
    params: np.ndarray  # [P] float32

    def expand(self, states: np.ndarray) -> Evaluation:
        """Judges a batch of states (the roots)."""
        ...

    def step(self, states: np.ndarray, actions: np.ndarray) -> Transition:
        """Steps a batch; used where a search has to leave the kernel (several leaves per root, budgets)."""
        ...


def compiled_search(
    simulator: CompiledSimulator,
    states: Any,
    *,
    method: str,
    num_simulations: int,
    seed: int,
    options: Options,
    root_ids: np.ndarray | None = None,
    num_threads: int = 1,
) -> SearchResult:
    """Searches from each of B states, states float32 [B, D], each search inside one kernel."""
    start = np.ascontiguousarray(states, np.float32)
    params = real_numbers("params", getattr(simulator, "params", None))
    if not isinstance(simulator.model, CompiledModel):
        raise ConfigError(f"the simulator's model is {simulator.model!r}; it must be made by `compiled_model`")
    if start.ndim != 2 or params.ndim != 1:
        raise ConfigError(f"states have shape {start.shape} and params {params.shape}; expected [B, D] and [P]")
    actions = int(simulator.num_actions)
    roots = expanded(simulator, states, "at the roots")
    if params.nbytes <= _COPIED:  # now, since judging may have searched with other parameters
        there = scratch("params", params.shape, lambda: aligned(params.shape, np.float32))
        there[...] = params
        params = there
    wide = start.shape[1]

    def make_place(lanes: int, nodes: int) -> np.ndarray:
        return aligned((lanes, nodes, wide), np.float32)

    def make_told() -> ModelDesk:
        legal = np.ones(max(actions, WIDE), np.bool_)[:actions]  # eight are read at once, those of no action too
        return ModelDesk(aligned((actions,), np.float32), legal, np.empty(3, np.float32))

    out, problems = search_whole(
        ModelWorld(simulator.model.entry, params),
        ModelStarts(start, roots.prior_logits, roots.value, roots.legal),
        make_place,
        make_told=make_told,
        widths=lambda: roots.legal.sum(1),
        wide=wide,
        slots=WIDE if WIDE // 2 < actions < WIDE else actions,  # nodes of eight slots are filled at once
        actions=actions,
        method=method,
        num_simulations=num_simulations,
        options=options,
        seed=seed,
        root_ids=root_ids,
        num_threads=num_threads,
    )
    if problems.any():
        row = int(np.flatnonzero(problems)[0])
        raise ConfigError(f"a state at or below root {row} {PROBLEMS[int(problems[row])]}")
    return out.result()
