"""Nodes of eight slots, filled at once, hold what the loops would write, and leave everything else alone."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from treegym.errors import ConfigError
from treegym.search import Evaluation, search, search_closed
from treegym.search.compiled import compiled_model
from treegym.search.kernels.numeric import kernel
from treegym.search.kernels.simd.fill import fill_eight
from treegym.search.kernels.walk import fill_dense
from treegym.search.tree import Nodes, allocate


@kernel
def _at_once(tree: Any, logits: Any, start: Any, width: Any) -> Any:
    return fill_eight(tree, 1, logits, start, width)


@kernel
def _by_loops(tree: Any, logits: Any, legal: Any) -> Any:
    return fill_dense(tree, 1, logits, legal, 0)


def _tree() -> Nodes:
    tree = Nodes(*(array[0] for array in allocate(1, 3, 8)))
    for array in tree:
        array[...] = 7
    return tree


@pytest.mark.parametrize("width", range(1, 9))
@pytest.mark.parametrize("scale", [1.0, 40.0])
def test_both_ways_fill_a_node_alike(width: int, scale: float) -> None:
    logits = (np.random.default_rng(width).normal(size=20) * scale).astype(np.float32)
    logits[4] = -np.inf if width > 1 else logits[4]
    logits[3 + width :] = np.nan  # not the node's: never looked at
    one, other = _tree(), _tree()
    assert _at_once(one, logits, 3, width)
    assert _by_loops(other, logits[3 : 3 + width], np.ones(width, bool)) == 0
    np.testing.assert_allclose(one.prior[1, :width], other.prior[1, :width], rtol=1e-6)
    assert one.width[1] == other.width[1] == width
    for name in ("visits", "q", "child", "action"):
        np.testing.assert_array_equal(getattr(one, name)[1, :width], getattr(other, name)[1, :width])
    for array in one:
        assert (array[0] == 7).all()  # the nodes beside it
        assert (array[2:] == 7).all()


@pytest.mark.parametrize("spoil", [np.nan, -np.nan, np.inf, "all"])
def test_what_the_loops_have_to_look_at_changes_nothing(spoil: Any) -> None:
    logits = np.zeros(11, np.float32)
    logits[3:10] = -np.inf if spoil == "all" else 0.0
    logits[5] = -np.inf if spoil == "all" else spoil
    tree = _tree()
    assert not _at_once(tree, logits, 3, 7)
    assert all((array == 7).all() for array in tree)


@compiled_model
def _walking(params: Any, states: Any, parent: Any, action: Any, new: Any, logits: Any, legal: Any, told: Any) -> None:
    states[new, 0] = np.float32(0.9) * states[parent, 0] + params[action]
    for a in range(len(logits)):
        logits[a] = states[new, 0] * params[a]
    told[0], told[1] = params[action], states[new, 0]


class _Walk:
    model = _walking

    def __init__(self, actions: int) -> None:
        self.num_actions = actions
        self.params = np.sin(np.arange(8)).astype(np.float32)

    def expand(self, states: np.ndarray) -> Evaluation:
        legal = np.ones((len(states), self.num_actions), bool)
        return Evaluation(states * self.params[: self.num_actions], states[:, 0], legal)


@pytest.mark.parametrize("roots", [1, 9])
@pytest.mark.parametrize("method", ["puct", "gumbel"])
def test_models_of_different_widths_do_not_share_their_scratch(method: str, roots: int) -> None:
    states = np.linspace(-1, 1, roots, dtype=np.float32)[:, None]

    def visits(actions: int) -> np.ndarray:
        found = search(_Walk(actions), states, method=method, num_simulations=30)  # type: ignore[arg-type]
        assert (found.visits.sum(1) == 30).all()
        return found.visits

    with ThreadPoolExecutor(1) as fresh:  # a thread has scratch arrays of its own
        alone = fresh.submit(visits, 6).result()
    visits(8)
    np.testing.assert_array_equal(visits(6), alone)


@compiled_model
def _failing(params: Any, states: Any, parent: Any, action: Any, new: Any, logits: Any, legal: Any, told: Any) -> None:
    if states[parent, 0] > np.float32(1.5):
        raise ValueError("no further")
    states[new, 0] = states[parent, 0] + np.float32(1.0)
    for a in range(len(logits)):
        logits[a] = np.float32(0.0)
    told[0] = told[1] = np.float32(0.0)


@pytest.mark.parametrize("roots", [1, 9])
def test_a_model_that_raises_is_told(roots: int) -> None:
    class Counting:
        num_actions, model, params = 6, _failing, np.zeros(1, np.float32)

        def expand(self, states: np.ndarray) -> Evaluation:
            return Evaluation(np.zeros((len(states), 6)), np.zeros(len(states)), np.ones((len(states), 6), bool))

    with pytest.raises(ConfigError, match="below root 0 cannot be judged: the compiled model raised an exception"):
        search(Counting(), np.zeros((roots, 1), np.float32), method="puct", num_simulations=200)  # type: ignore[arg-type]


def test_seeds_are_taken_by_their_last_64_bits() -> None:
    rng = np.random.default_rng(0)
    first, count = np.array([1, 9] + [-1] * 15), np.array([8, 8] + [0] * 15)
    tables = {name: rng.normal(size=17).astype(np.float32) for name in ("reward", "prior_logits", "value")}

    def visits(seed: int) -> list[list[int]]:
        found = search_closed(
            first_child=first, child_count=count, terminal=count == 0, roots=np.zeros(6, int), method="gumbel",
            num_simulations=12, seed=seed, **tables,
        )  # fmt: skip
        return found.visits.tolist()

    for seed, same in ((5, 2**64 + 5), (-1, 2**64 - 1), (2**63 + 1, 1 - 2**63)):
        assert visits(seed) == visits(same)
    assert visits(5) != visits(6)
