"""Nodes of at most eight children: one search and eight abreast choose alike, and as the general rules do."""

from __future__ import annotations

from typing import Any, NamedTuple

import numba
import numpy as np
import pytest

from treegym.errors import ConfigError
from treegym.search import search_closed
from treegym.search.kernels.simd import narrow, rows
from treegym.search.tree import aligned

WIDE = rows.WIDE
METHODS = ("puct", "gumbel")


class Tree(NamedTuple):
    """Eight nodes of nine slots; what lies behind a node's width is rubbish."""

    prior: np.ndarray
    visits: np.ndarray
    q: np.ndarray


class Scales(NamedTuple):
    """What the Gumbel rule asks of the settings."""

    c_visit: float
    c_scale: float


@numba.njit(error_model="numpy")
def _eight(puct: bool, tree: Any, scales: Any, asked: Any, slots: Any) -> None:
    if puct:
        rows.put(slots, narrow.puct(tree, asked))
    else:
        rows.put(slots, narrow.gumbel(tree, scales, asked))


@numba.njit(error_model="numpy")
def _one(puct: bool, tree: Any, scales: Any, asked: Any) -> int:
    if puct:
        return narrow.puct(tree, asked)
    return narrow.gumbel(tree, scales, asked)


def _random_nodes(rng: np.random.Generator) -> tuple[Tree, narrow.Asked]:
    width = rng.integers(1, WIDE + 1, size=WIDE)
    tree = Tree(
        np.full((WIDE, 9), np.nan, np.float32), np.full((WIDE, 9), 77, np.int32), np.full((WIDE, 9), np.nan, "f")
    )
    for node, w in enumerate(width):
        tree.prior[node, :w] = rng.dirichlet(np.ones(w))
        tree.visits[node, :w] = rng.integers(0, 4, w)
        tree.q[node, :w] = np.where(tree.visits[node, :w] > 0, rng.normal(size=w), np.nan)
    considered = np.where(np.arange(WIDE) < 4, -1, tree.visits[:, 0])
    noisy = rng.normal(size=(WIDE, WIDE)).astype(np.float32)  # of slot and search
    f32 = np.float32
    return tree, narrow.Asked(
        np.arange(WIDE) * 9, width.astype(f32), rng.normal(size=WIDE).astype(f32), 3 * rng.random(WIDE).astype(f32),
        considered.astype(f32), noisy.ravel(),
    )  # fmt: skip


def _of_one(asked: narrow.Asked, node: int) -> narrow.Asked:
    first = [column[node] for column in asked[:5]]
    return narrow.Asked(*first, np.ascontiguousarray(asked.noisy.reshape(WIDE, WIDE)[:, node]))


def _by_hand(puct: bool, tree: Tree, scales: Scales, asked: narrow.Asked, node: int) -> np.ndarray:
    """Returns the scores of a node's children in float64, by the formulas in `rules`."""
    width = int(asked.width[node])
    prior, visits, q = (array[node, :width].astype(float) for array in tree)
    seen, value = visits > 0, float(asked.value[node])
    if puct:
        low, high = min([value, *q[seen]]), max([value, *q[seen]])
        known = np.where(seen, (q - low) / max(high - low, 1e-8), 0.0)
        return np.asarray(known + asked.explore[node] * prior / (1 + visits))
    count = visits.sum()
    mixed = value
    if count:
        mixed = (value + count * (prior[seen] @ q[seen]) / prior[seen].sum()) / (1 + count)
    completed = np.where(seen, q, mixed)
    spread = max(completed.max() - completed.min(), 1e-8)
    gain = (scales.c_visit + visits.max()) * scales.c_scale * (completed - completed.max()) / spread
    if asked.considered[node] >= 0:
        noisy = asked.noisy.reshape(WIDE, WIDE)[:width, node]
        return np.where(visits == asked.considered[node], np.maximum(noisy + gain, -1e9), -np.inf)
    weight = prior * np.exp(gain)
    return np.asarray(weight / weight.sum() - visits / (1 + count))


@pytest.mark.parametrize("puct", [True, False], ids=METHODS)
def test_one_and_eight_choose_alike_and_by_the_formula(puct: bool) -> None:
    rng, scales = np.random.default_rng(0), Scales(50.0, 0.1)
    for _ in range(300):
        tree, asked = _random_nodes(rng)
        together = np.full(WIDE, -1, np.int32)
        _eight(puct, tree, scales, asked, together)
        alone = [_one(puct, tree, scales, _of_one(asked, node)) for node in range(WIDE)]
        assert together.tolist() == alone
        for node, slot in enumerate(alone):
            scores = _by_hand(puct, tree, scales, asked, node)
            assert scores[slot] >= scores.max() - 1e-5 * max(1.0, abs(scores.max()))


def _closed(rng: np.random.Generator, roots: int, widest: int) -> dict[str, np.ndarray]:
    """Returns a tree of five levels whose nodes have one to `widest` children, or none."""
    first, count, level = [], [], roots
    total = roots
    for depth in range(5):
        widths = rng.integers(0 if depth else 1, widest + 1, size=level) if depth < 4 else np.zeros(level, int)
        for width in widths:
            first.append(total if width else -1)
            count.append(width)
            total += width
        level = int(widths.sum())
    sizes = np.asarray(count, np.uint16)
    terminal = (sizes == 0) & (rng.random(total) < 0.5)
    tables = {name: rng.normal(size=total).astype(np.float32) for name in ("reward", "prior_logits", "value")}
    return {"first_child": np.asarray(first, np.int32), "child_count": sizes, "terminal": terminal, **tables}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("widest", [2, 5, 8])
def test_a_batch_gives_to_the_last_bit_what_its_roots_give_alone(method: str, widest: int) -> None:
    rng = np.random.default_rng(widest)
    world = _closed(rng, 21, widest)
    options = {"method": method, "num_simulations": 60, "discount": 0.9, "seed": 3, "num_actions": widest}
    together = search_closed(**world, roots=np.arange(21), **options)
    assert together.visits.sum() == 21 * 60
    shared = search_closed(**world, roots=np.arange(21), num_threads=2, **options)
    for root in range(21):
        alone = search_closed(**world, roots=np.array([root]), root_ids=np.array([root]), **options)
        for name in ("action", "policy", "visits", "q", "value"):
            np.testing.assert_array_equal(getattr(alone, name)[0], getattr(together, name)[root])
            np.testing.assert_array_equal(getattr(shared, name)[root], getattr(together, name)[root])


@pytest.mark.parametrize("method", METHODS)
def test_a_fault_below_one_of_many_roots_is_named(method: str) -> None:
    world = _closed(np.random.default_rng(1), 12, 4)
    below = int(world["first_child"][7])  # a child of root 7
    world["reward"][below] = np.nan
    with pytest.raises(ConfigError, match=f"from root 7: .* of node {below} "):
        search_closed(**world, roots=np.arange(12), method=method, num_simulations=60)


@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (9, 8), (7, 3, 2)])
def test_behind_every_tree_there_is_room_for_a_row(shape: tuple[int, ...]) -> None:
    array = aligned(shape, np.float32)
    room = array
    while room.base is not None:
        room = room.base
    behind = room.ctypes.data + room.nbytes - (array.ctypes.data + array.nbytes)
    assert behind >= WIDE * array.itemsize
