"""Selection rules and sequential halving by hand-worked numbers."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest

from treegym.errors import ConfigError
from treegym.search import Evaluation, Options, Planner, search
from treegym.search.kernels.codes import HALVING_OVER, MANY
from treegym.search.settings import halving_phases, halving_table
from treegym.search.tree import allocate, bytes_used


def test_sequential_halving_by_hand() -> None:
    # 4 considered, 16 simulations: ceil(log2 4) = 2 phases; 16 // (2 * 4) = 2 visits each, then 16 // (2 * 2) = 4 each
    assert halving_phases(4, 16) == [(0, 0, 4), (8, 2, 2)]
    assert considered(4, 16) == [int(c) for c in "0000 1111 2233 4455".replace(" ", "")]
    # 3 considered, 8 simulations: 8 // (2 * 3) = 1 visit each of 3, then 8 // (2 * 2) = 2 visits each of 2, and on
    assert considered(3, 8) == [0, 0, 0, 1, 1, 2, 2, 3]
    assert considered(1, 3) == [0, 1, 2]
    over = [4, HALVING_OVER, MANY]
    assert halving_table(2, 4).tolist() == [[[0, 0, 1], over], [[0, 0, 1], over], [[0, 0, 2], over]]
    assert halving_table(0, 0).tolist() == [[[0, HALVING_OVER, MANY]]]


def considered(actions: int, simulations: int) -> list[int]:
    """What survivors of sequential halving must have been visited in each simulation."""
    phases = [*halving_phases(actions, simulations), (simulations, 0, 1)]
    pairs = itertools.pairwise(phases)
    return [
        visits + (s - first) // alive
        for (first, visits, alive), (then, *_) in pairs
        for s in range(first, min(then, simulations))
    ]


def planted(
    method: str, priors: list[float], visits: list[int], q: list[float], value: float, **options: Any
) -> Planner:
    """A root with given statistics."""
    logits = np.log(np.array([priors], np.float32)) if method != "similarity" else np.array([priors], np.float32)
    legal = np.ones((1, len(priors)), bool)
    planner = Planner(
        Evaluation(logits, np.array([value], np.float32), legal),
        method=method, num_simulations=4, options=Options(gumbel_scale=0.0, **options),
    )  # fmt: skip
    planner.trees.visits[0, 0] = visits
    planner.trees.q[0, 0] = q
    planner.trees.seen[0, 0] = 1 + sum(visits)
    return planner


def test_the_gumbel_target_by_hand() -> None:
    # ALGORITHMS.md 8: logits 0, N [1, 1, 0], Q [1, 0, -], v .5 -> v_mix = (.5 + 2 * .5) / 3 = .5, sigma = 51 * .1 * q
    planner = planted("gumbel", [1 / 3] * 3, [1, 1, 0], [1.0, 0.0, 0.0], 0.5)
    np.testing.assert_allclose(planner.result().policy[0], [0.9224, 0.0056, 0.0720], atol=1e-4)


def test_puct_by_hand() -> None:
    # N = 5, C = 1.25 + ln(19658 / 19652), sqrt(5) C = 2.79577; Q in [0, 1] by [low, high] = [0, 1] of v = .4 and Q
    # scores: 1 + 2.79577 * .2 / 4 = 1.1398; 0 + 2.79577 * .5 / 2 = .6989; 0 + 2.79577 * .3 / 1 = .8387
    planner = planted("puct", [0.2, 0.5, 0.3], [3, 1, 0], [1.0, 0.0, 0.0], 0.4)
    assert planner.ask().actions.tolist() == [0]
    # unvisited worth the parent: .4 + .8387 = 1.2387 wins
    planner = planted("puct", [0.2, 0.5, 0.3], [3, 1, 0], [1.0, 0.0, 0.0], 0.4, first_play="parent")
    assert planner.ask().actions.tolist() == [2]


def test_similarity_by_hand() -> None:
    # N = 5, sqrt(ln 5) = 1.26864, c = 1: .9 + 1.26864 / 2 = 1.5343; -.2 + 1.26864 / sqrt(2) = .6971; 0 + 1.26864
    for cosine, expected in (([0.9, -0.2, 0.0], 0), ([0.2, -0.2, 0.0], 2)):
        planner = planted("similarity", cosine, [3, 1, 0], [0.0, 0.0, 0.0], 0.0, c_explore=1.0)
        assert planner.ask().actions.tolist() == [expected]
        np.testing.assert_allclose(planner.trees.prior[0, 0], cosine)  # the scores themselves, no policy


def test_uct_by_hand() -> None:
    # N = 5, c = 1: (1 - 0) + sqrt(ln 5 / 3) = 1.7324; 0 + sqrt(ln 5 / 1) = 1.2686
    planner = planted("uct", [0.5, 0.5], [3, 1], [1.0, 0.0], 0.4, c_explore=1.0)
    assert planner.ask().actions.tolist() == [0]
    # an unvisited child comes first, whatever its prior
    planner = planted("uct", [0.98, 0.01, 0.01], [3, 1, 0], [1.0, 0.0, 0.0], 0.4)
    assert planner.ask().actions.tolist() == [2]


def test_equal_children_of_a_wide_node_are_taken_in_order() -> None:
    # nine children, all worth 0: those visited once come before those visited twice, and the first of them is the
    # sixth; eight at a time and the ninth alone must not round differently
    planner = planted("uct", [1 / 9] * 9, [2, 2, 2, 2, 2, 1, 1, 1, 1], [0.0] * 9, 0.0)
    assert planner.ask().actions.tolist() == [5]


@pytest.mark.parametrize(("method", "weights"), [("ments", [1.0, 1.0]), ("rents", [0.7, 0.3])])
def test_soft_backups_by_hand(method: str, weights: list[float], worlds: Any) -> None:
    # both children are terminal with rewards 1 and 0, tau = .5: V = tau ln(w1 e^2 + w2 e^0) once both were visited
    world = worlds.TableWorld(
        np.log(np.array([[0.7, 0.3]] * 3, np.float32)), np.zeros(3, np.float32),
        np.array([[1.0, 0.0]] * 3, np.float32), np.array([[1, 2]] * 3), np.array([False, True, True]),
    )  # fmt: skip
    result = search(world, np.array([0]), method=method, num_simulations=300, tau=0.5, epsilon=1.0)
    assert (result.visits > 0).all()
    expected = 0.5 * math.log(weights[0] * math.exp(2.0) + weights[1])
    assert result.value[0] == pytest.approx(expected, abs=1e-5)


def test_memory_per_slot_and_node() -> None:
    slot, node = bytes_used(allocate(2, 5, 3))
    assert slot <= 20
    assert node <= 32


def test_a_compiled_simulator_gives_the_same_search(worlds: Any) -> None:
    from treegym.search.compiled import compiled_model

    @compiled_model
    def hop(params: Any, states: Any, parent: Any, action: Any, new: Any, logits: Any, legal: Any, told: Any) -> None:
        states[new, 0] = np.float32(0.5) * states[parent, 0] + params[action]
        for a in range(len(logits)):
            logits[a] = states[new, 0] * np.float32(a)
        legal[1] = states[new, 0] > np.float32(0.0)
        told[0] = params[action]
        told[1] = states[new, 0] * np.float32(0.3)
        told[2] = np.float32(1.0) if states[new, 0] > np.float32(1.2) else np.float32(0.0)

    class Hops:
        num_actions = 3
        params = np.array([0.3, -0.5, 0.7], np.float32)

        def expand(self, states: np.ndarray) -> Evaluation:
            x = states[:, 0]
            legal = np.ones((len(x), 3), bool)
            legal[:, 1] = x > 0
            return Evaluation(x[:, None] * np.arange(3, dtype=np.float32), x * np.float32(0.3), legal)

        def step(self, states: np.ndarray, actions: np.ndarray) -> Any:
            from treegym.search import Transition

            after = (np.float32(0.5) * states[:, 0] + self.params[actions])[:, None]
            return Transition(after, self.params[actions], after[:, 0] > np.float32(1.2))

    plain, fast = Hops(), Hops()
    fast.model = hop  # type: ignore[attr-defined]
    roots = np.linspace(-1, 1, 7, dtype=np.float32)[:, None]
    for method in ("puct", "gumbel"):
        expected = search(plain, roots, method=method, num_simulations=40, seed=3, discount=0.9)
        for threads in (1, 2):
            result = search(fast, roots, method=method, num_simulations=40, seed=3, discount=0.9, num_threads=threads)
            np.testing.assert_array_equal(result.visits, expected.visits)
            np.testing.assert_allclose(result.value, expected.value, atol=1e-5)


@pytest.mark.parametrize(("inputs", "columns"), [(16, 32), (7, 8), (32, 19), (1, 3), (5, 24)])
def test_dense_layers_and_dot_products_equal_numpys(inputs: int, columns: int) -> None:
    import numba

    from treegym.search.compiled import dense_layer, dot_product

    bare, linear, raised = (dense_layer(inputs, columns, kind) for kind in (None, "softsign", "relu"))
    product = dot_product(inputs)
    size = inputs * columns

    @numba.njit(error_model="numpy")
    def layers(x: Any, params: Any, out: Any) -> float:
        bare(x, params, 1, -1, out[0])
        linear(x, params, 1, 1 + size, out[1])
        raised(x, params, 1, 1 + size, out[2])
        return product(x, params, 1)

    rng = np.random.default_rng(inputs)
    x, params = rng.normal(size=inputs).astype(np.float32), rng.normal(size=1 + size + columns).astype(np.float32)
    out = np.full((3, columns + 1), 7.0, np.float32)
    found = layers(x, params, out)
    plain = x.astype(float) @ params[1 : 1 + size].reshape(inputs, columns)
    biased = plain + params[1 + size :]
    np.testing.assert_allclose(out[0, :-1], plain, atol=1e-5)
    np.testing.assert_allclose(out[1, :-1], biased / (1 + np.abs(biased)), atol=1e-5)
    np.testing.assert_allclose(out[2, :-1], np.maximum(biased, 0), atol=1e-5)
    assert (out[:, -1] == 7.0).all()  # nothing behind the layer was written
    assert found == pytest.approx(float(x.astype(float) @ params[1 : 1 + inputs]), abs=1e-5)


def test_a_dense_layer_of_no_size_or_of_an_unknown_activation_is_refused() -> None:
    from treegym.search.compiled import dense_layer

    with pytest.raises(ConfigError, match="0 inputs and 3 outputs"):
        dense_layer(0, 3)
    with pytest.raises(ConfigError, match="activation is 'sine'"):
        dense_layer(3, 3, "sine")
