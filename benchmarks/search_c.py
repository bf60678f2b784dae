"""Compiles and calls `search_loop.c`, the plain C loop that search_speed measures the numba kernel against."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["c_search"]

_SOURCE = Path(__file__).with_name("search_loop.c")


def _compiled() -> Any:
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        return None
    folder = tempfile.mkdtemp(prefix="treegym-search-")
    library = Path(folder) / "search_loop.so"
    command = [
        compiler,
        "-O3",
        "-march=native",
        "-ffast-math",
        "-shared",
        "-fPIC",
        str(_SOURCE),
        "-o",
        str(library),
        "-lm",
    ]
    subprocess.run(command, check=True)
    loaded = ctypes.CDLL(str(library))
    shutil.rmtree(folder)
    return loaded


def c_search(
    world: dict[str, np.ndarray], roots: np.ndarray, simulations: int, discount: float
) -> Callable[[], np.ndarray] | None:
    """Returns a function that searches in C and returns the root visits, or None without a C compiler."""
    library = _compiled()
    if library is None:
        return None
    nodes, slots = simulations + 1, int(world["child_count"].max())
    counts = np.arange(simulations + 3, dtype=np.float64)
    explore = (np.sqrt(counts) * (1.25 + np.log((counts + 19653.0) / 19652.0))).astype(np.float32)
    kept: list[np.ndarray] = [
        world["first_child"].astype(np.int32),
        world["child_count"].astype(np.uint16),
        world["terminal"].astype(np.uint8),
        *(world[name].astype(np.float32) for name in ("reward", "prior_logits", "value")),
    ]
    tree: list[np.ndarray] = [
        np.zeros((nodes, slots), np.float32),
        np.zeros((nodes, slots), np.int32),
        np.zeros((nodes, slots), np.float32),
        np.zeros((nodes, slots), np.int32),
        np.zeros(nodes, np.int32),
        np.zeros(nodes, np.int32),
        np.zeros(nodes, np.float32),
        np.zeros(nodes, np.float32),
        np.zeros(nodes, np.uint8),
        np.zeros(nodes, np.int32),
    ]
    start = roots.astype(np.int32)
    scratch = [np.zeros(slots, np.float32), np.zeros(nodes + 1, np.int32), np.zeros(nodes + 1, np.int32)]
    visits = np.zeros((len(roots), slots), np.int32)
    tables = [(ctypes.c_void_p * len(group))(*(a.ctypes.data for a in group)) for group in (kept, tree)]
    pointers = [ctypes.c_void_p(a.ctypes.data) for a in (start, explore, *scratch, visits)]

    def run() -> np.ndarray:
        library.search(
            tables[0], tables[1], pointers[0], len(start), simulations, slots, ctypes.c_float(discount), *pointers[1:]
        )
        return visits

    run.keep = (kept, tree, scratch, explore, start)  # type: ignore[attr-defined]  # C holds their addresses
    return run
