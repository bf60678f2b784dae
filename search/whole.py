"""Running whole searches in one kernel: scratch arrays, threads, noise, results."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from treegym.search.checks import check_width, positive
from treegym.search.kernels import codes, whole
from treegym.search.kernels.simd import abreast
from treegym.search.kernels.simd.rows import WIDE
from treegym.search.output import Out, call, in_parts, new_out, new_roots, part_of, root_ids_of, root_noise, scratch
from treegym.search.settings import Options, is_plain, kernel_settings
from treegym.search.tree import allocate

__all__ = ["search_whole"]

_ABREAST = 4  # searches from which eight abreast, some of them idle, take less time than one after another


def search_whole(
    world: Any,
    starts: Any,
    make_place: Callable[[int, int], np.ndarray],
    *,
    make_told: Callable[[], Any] = tuple,
    widths: Callable[[], np.ndarray],
    wide: int = 0,
    slots: int,
    actions: int,
    method: str,
    num_simulations: int,
    options: Options,
    seed: int,
    root_ids: np.ndarray | None,
    num_threads: int,
) -> tuple[Out, np.ndarray]:
    """Returns the results of B roots and what is wrong at each, int64 [B], 0 where nothing is.

    Args:
        world: a world of `treegym.search.kernels.worlds`.
        starts: what that world needs of the roots: an array [B] or a named tuple of them.
        make_place: makes the scratch array, for so many searches of so many nodes, of what the nodes represent.
        make_told: makes the scratch arrays that a model writes its judgement into.
        widths: tells the children of each root, int [B].
        wide: what else the size of the scratch arrays depends on.
        slots: W, the most children a node can have.
        actions: A, columns of the result.
        method: a tree method.
        num_simulations: simulations per root.
        options: settings of the method.
        seed: seeds all noise.
        root_ids: int [B], names of the roots' random streams; 0 .. B - 1 unless given.
        num_threads: threads that share the roots.
    """
    num_simulations, num_threads = positive("num_simulations", num_simulations), positive("num_threads", num_threads)
    check_width(slots)
    size, nodes = len(starts if isinstance(starts, np.ndarray) else starts[0]), num_simulations + 1
    ids = root_ids_of(root_ids, size)
    settings = kernel_settings(method, options, simulations=num_simulations, visits=nodes, actions=slots, seed=seed)
    noise = root_noise(method, options, settings.seed, ids, widths, slots)
    out, problems = new_out(size, actions), np.zeros(size, np.int64)
    plain = is_plain(settings)
    narrow = plain and slots <= WIDE and settings.rule in (codes.RULE_PUCT, codes.RULE_GUMBEL)

    def make(lanes: int) -> tuple[Any, ...]:
        trees, roots = allocate(lanes, nodes, slots), new_roots(np.zeros(lanes, np.int64), max(slots, WIDE))
        paths = np.empty((2, lanes, nodes + 1), np.int32)
        scores = np.empty(slots, np.float32)
        desk = whole.Desk(trees, roots, make_place(lanes, nodes), make_told(), scores, *paths)
        return (desk,) if lanes == 1 else (desk, abreast.new_flight(desk))

    def work(part: slice) -> None:
        together = narrow and len(ids[part]) >= _ABREAST
        lanes = WIDE if together else 1
        call(
            abreast.search_abreast(settings.rule) if together else whole.search_roots(settings.rule, plain, narrow),
            type(world),  # types, dtypes and layouts of all arguments follow from it
            *scratch("desk", (type(world), lanes, nodes, slots, actions, wide), functools.partial(make, lanes)),
            world,
            starts[part] if isinstance(starts, np.ndarray) else part_of(starts, part),
            ids[part],
            settings,
            num_simulations,
            noise._replace(gammas=noise.gammas[part]) if len(noise.gammas) > 1 else noise,
            part_of(out, part),
            problems[part],
        )

    in_parts(work, size, num_threads)
    return out, problems
