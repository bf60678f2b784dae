"""What the whole-search kernels share on the Python side: result arrays, root noise, threads."""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numba
import numpy as np

from treegym.errors import ConfigError
from treegym.search.checks import whole_numbers
from treegym.search.kernels.numeric import gamma_draws
from treegym.search.kernels.walk import Root
from treegym.search.settings import Options
from treegym.search.simulator import SearchResult

__all__ = [
    "Noise",
    "Out",
    "call",
    "in_parts",
    "new_out",
    "new_roots",
    "part_of",
    "root_ids_of",
    "root_noise",
    "scratch",
]


class Out(NamedTuple):
    """The arrays a kernel writes its results into."""

    action: np.ndarray  # [B] int32
    policy: np.ndarray  # [B, A] float32
    visits: np.ndarray  # [B, A] int32
    q: np.ndarray  # [B, A] float32
    value: np.ndarray  # [B] float32
    evaluations: np.ndarray  # [B] int32

    def result(self) -> SearchResult:
        """Returns the arrays as a result."""
        return SearchResult(
            self.action, self.policy, self.visits, self.q, self.value, int(self.evaluations.max(initial=0))
        )


def new_roots(ids: np.ndarray, slots: int) -> Root:
    size = len(ids)
    return Root(
        done=np.zeros((size, 1), np.int32),
        noisy=np.zeros((size, slots), np.float32),
        before=np.zeros((size, slots), np.int32),
        stream=np.ascontiguousarray(ids.reshape(size, 1)),
        draws=np.full((size, 1), 1 << 20, np.int64),
    )


class Noise(NamedTuple):
    """Noise at the root, and the temperature of the move."""

    share: np.float32  # of Dirichlet noise in the prior
    gumbel: float  # scale of Gumbel noise; below 0: the method has no use for it
    temperature: float
    gammas: np.ndarray  # [B or 1, W] float64, Gamma draws behind the Dirichlet noise


def new_out(size: int, actions: int) -> Out:
    """Returns empty results for `size` roots."""
    return Out(
        action=np.zeros(size, np.int32),
        policy=np.zeros((size, actions), np.float32),
        visits=np.zeros((size, actions), np.int32),
        q=np.full((size, actions), np.nan, np.float32),
        value=np.zeros(size, np.float32),
        evaluations=np.zeros(size, np.int32),
    )


def root_noise(
    method: str, options: Options, seed: int, ids: np.ndarray, widths: Callable[[], np.ndarray], slots: int
) -> Noise:
    """Returns the noise of each root, a function of (seed, root id) alone; `widths` tells its number of children."""
    gumbel = method == "gumbel"
    share = 0.0 if gumbel else options.root_noise
    gammas = np.ones((len(ids) if share > 0 else 1, slots))
    if share > 0:
        gamma_draws(seed, ids, widths().astype(np.int32), options.dirichlet_alpha or 0.0, gammas)
    return Noise(np.float32(share), float(options.gumbel_scale) if gumbel else -1.0, float(options.temperature), gammas)


def root_ids_of(root_ids: Any, size: int) -> np.ndarray:
    """Returns the names of the random streams, int64 [B]: 0 .. B - 1 unless given."""
    if root_ids is None:
        return np.arange(size, dtype=np.int64)
    ids = whole_numbers("root_ids", root_ids, np.int64).copy()
    if ids.shape != (size,):
        raise ConfigError(f"root_ids have shape {ids.shape}; expected {(size,)}")
    return ids


_SLICES, _LEAST = 4, 64  # slices per thread, and roots that a slice must have to be worth the call

_ENTRIES: dict[tuple[Any, Any], Callable[..., None]] = {}


def call(kernel: Any, kinds: Any, *arguments: Any) -> None:
    """Calls a kernel whose arguments are of the types that `kinds` identifies: equal kinds, equal types.

    Numba works out the types of nested arguments anew for each call, and takes as long as a short search for it.
    """
    entry = _ENTRIES.get((kernel, kinds))
    if entry is not None:
        entry(*arguments)
        return
    kernel(*arguments)
    _ENTRIES[kernel, kinds] = kernel.overloads[tuple(map(numba.typeof, arguments))].entry_point


def part_of(arrays: Any, part: slice) -> Any:
    """Returns the same rows of every array of a named tuple (arrays of one row stay whole)."""
    if part == slice(None):
        return arrays
    return type(arrays)(*(a[part] if isinstance(a, np.ndarray) and len(a) != 1 else a for a in arrays))


def in_parts(work: Callable[[slice], None], size: int, num_threads: int) -> None:
    """Calls `work` on slices of ``range(size)``, on so many threads; kernels hold no interpreter lock.

    A thread takes the next slice when it is done with one, so that one that is held up does not hold up the others.
    """
    threads = max(1, min(int(num_threads), size))
    if threads == 1:
        work(slice(None))
        return
    count = threads * min(_SLICES, max(1, size // (threads * _LEAST)))
    left = iter([slice(size * i // count, size * (i + 1) // count) for i in range(count)])

    def take() -> None:
        for part in left:
            work(part)

    others = [_helpers(threads - 1).submit(take) for _ in range(threads - 1)]
    take()
    for done in others:
        done.result()


@functools.cache
def _helpers(count: int) -> ThreadPoolExecutor:
    """Returns threads that are kept: a new one begins on its parent's core, and moves only milliseconds later."""
    return ThreadPoolExecutor(count, thread_name_prefix="treegym-search")


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_helpers.cache_clear)  # threads are not there in a forked process


class _Kept(threading.local):
    """The scratch arrays a thread used last, by what they are for."""

    def __init__(self) -> None:
        self.arrays: dict[str, tuple[Any, Any]] = {}


_KEPT = _Kept()


def scratch(name: str, key: Any, make: Callable[[], Any]) -> Any:
    """Returns what `make` makes, or what it made for the same key last time in this thread: kernels overwrite it."""
    kept = _KEPT.arrays.get(name)
    if kept is None or kept[0] != key:
        kept = _KEPT.arrays[name] = (key, make())
    return kept[1]
