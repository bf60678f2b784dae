"""Simulators with a compiled model: world and network inside the search kernel, no call back to Python.

Write the step of your world and the judgement of what comes out as one function of numba's nopython mode, decorate it
with `compiled_model`, and give the simulator the attributes ``model`` and ``params``: `treegym.search.search` then runs
each whole search inside one kernel. With a small network that is worth a factor of ten and more at batch 1.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol, runtime_checkable

import numba
import numpy as np

from treegym.errors import ConfigError
from treegym.search.base import Evaluation, SearchResult, Transition
from treegym.search.checks import PROBLEMS, check_evaluation
from treegym.search.kernels import fused
from treegym.search.kernels.numeric import FAST
from treegym.search.output import in_parts, new_out, part_of, root_ids_of, root_noise, scratch
from treegym.search.planner import new_roots
from treegym.search.settings import Options, is_plain, kernel_settings
from treegym.search.tree import aligned, allocate

__all__ = ["CompiledSimulator", "compiled_model", "compiled_search"]

_F32 = numba.types.float32
MODEL = numba.types.void(
    _F32[::1],  # params [P]
    _F32[:, ::1],  # states [N, D]: read row `parent`, write row `new`
    numba.types.int64,  # parent
    numba.types.int64,  # action
    numba.types.int64,  # new
    _F32[::1],  # logits [A], to be written
    numba.types.boolean[::1],  # legal [A], all True: set to False what is not
    _F32[::1],  # told [3], to be written: reward, value, terminated (above 0; 0 unless written)
)


def compiled_model(function: Any) -> Any:
    """Compiles ``function(params, states, parent, action, new, logits, legal, told)``; arguments as in `MODEL`."""
    return numba.cfunc(MODEL, cache=True, fastmath=FAST, error_model="numpy", _nrt=False)(function)


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
        """Steps a batch; used where a search has to leave the kernel (several leaves a root, budgets)."""
        ...


class _Desk(NamedTuple):
    """Scratch arrays of one thread."""

    states: np.ndarray  # [N, D] float32
    logits: np.ndarray  # [A] float32
    legal: np.ndarray  # [A] bool
    told: np.ndarray  # [3] float32
    scores: np.ndarray  # [A] float32
    path_node: np.ndarray  # [N + 1] int32
    path_slot: np.ndarray  # [N + 1] int32


class _Given(NamedTuple):
    """The roots and their judgement."""

    states: np.ndarray  # [B, D] float32
    logits: np.ndarray  # [B, A] float32
    value: np.ndarray  # [B] float32
    legal: np.ndarray  # [B, A] bool


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
    if num_simulations < 1:
        raise ConfigError(f"num_simulations is {num_simulations}; it must be at least 1")
    start = np.ascontiguousarray(states, np.float32)
    params = np.ascontiguousarray(simulator.params, np.float32)
    if start.ndim != 2 or params.ndim != 1:
        raise ConfigError(f"states have shape {start.shape} and params {params.shape}; expected [B, D] and [P]")
    size, actions = len(start), int(simulator.num_actions)
    roots = check_evaluation(simulator.expand(states), size, actions, "at the roots")
    given = _Given(start, roots.prior_logits, roots.value, roots.legal)
    settings = kernel_settings(method, options, simulations=num_simulations, visits=num_simulations + 1, seed=int(seed))
    ids = root_ids_of(root_ids, size)
    noise = root_noise(method, options, int(seed), ids, given.legal.sum(1), actions)
    out, problems = new_out(size, actions), np.zeros(size, np.int32)

    nodes, wide = num_simulations + 1, start.shape[1]

    def make() -> tuple[Any, Any, _Desk]:
        trees, root = allocate(1, nodes, actions), new_roots(np.zeros(1, np.int64), actions)
        desk = _Desk(
            aligned((nodes, wide), np.float32),
            aligned((actions,), np.float32),
            np.empty(actions, np.bool_),
            np.empty(3, np.float32),
            aligned((actions,), np.float32),
            np.empty(nodes + 1, np.int32),
            np.empty(nodes + 1, np.int32),
        )
        return type(trees)(*(array[0] for array in trees)), type(root)(*(array[0] for array in root)), desk

    def work(part: slice) -> None:
        tree, root, desk = scratch(("compiled", nodes, actions, wide), make)
        fused.search_roots(settings.rule, is_plain(settings))(
            tree,
            root,
            desk,
            simulator.model,
            params,
            _Given(*(array[part] for array in given)),
            ids[part],
            settings,
            num_simulations,
            noise._replace(gammas=noise.gammas[part]) if len(noise.gammas) > 1 else noise,
            part_of(out, part),
            problems[part],
        )

    in_parts(work, size, num_threads)
    wrong = np.flatnonzero(problems)
    if len(wrong):
        row = int(wrong[0])
        raise ConfigError(f"a state at or below root {row} {PROBLEMS[int(problems[row])]}")
    return out.result()
