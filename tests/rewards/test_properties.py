"""Properties that hold for any tree and any composition."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from treegym.errors import ConfigError
from treegym.rewards import build
from treegym.tree.flags import EOS
from treegym.tree.paths import ancestors, path_of, path_sums
from treegym.tree.synthetic import synthetic_tree

weights = st.floats(-2, 2, allow_nan=False).map(lambda w: round(w, 3))
NAMES = ("verifier", "length", "similarity", "loglikelihood", "shortest_path", "soft_overlong")


def sums(names):
    return st.lists(st.sampled_from(names), min_size=1, max_size=3, unique=True).flatmap(
        lambda chosen: st.fixed_dictionaries(dict.fromkeys(chosen, weights))
    )


@st.composite
def specs(draw):
    """Rewards of up to three levels; every term at most once."""
    first, second = draw(sums(NAMES[:3])), draw(sums(NAMES[3:]))
    shape = draw(st.sampled_from(["sum", "gate", "product", "lexicographic", "sparse"]))
    if shape == "sum":
        return {**first, **second}
    if shape == "gate":
        return {"gate": {"by": first, "then": second, "threshold": draw(weights), "otherwise": draw(weights)}}
    if shape == "sparse":
        return {"sparse": {"of": first}, **second}
    return {shape: {"of": [first, second]}}


@pytest.fixture(scope="module")
def trees():
    return [synthetic_tree(roots=4, depth=d, branching=b, seed=s) for s, (d, b) in enumerate([(3, 2), (6, 3), (8, 2)])]


@settings(max_examples=40, deadline=None)
@given(spec=specs(), which=st.integers(0, 2))
def test_round_trip_and_sparse_return(trees, spec, which):
    tree = trees[which]
    reward = build(spec)
    assert build(json.loads(reward.to_json())) == reward
    table = reward.on(tree)
    assert np.isfinite(table.total).all()
    later = build({"sparse": {"of": reward.spec}}).on(tree)
    above = np.arange(tree.size)
    ends = np.flatnonzero((tree.flags & EOS) != 0)
    earned, moved = path_sums(tree, above, table.total), path_sums(tree, above, later.total)
    assert earned[ends] == pytest.approx(moved[ends], abs=1e-9)
    assert (later.total[np.setdiff1d(above, ends)] == 0).all()


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000), which=st.integers(0, 2))
def test_order_of_asking_does_not_matter(trees, seed, which):
    """Evaluated lazily in any order, node by node, a table holds what it holds when asked at once."""
    tree = trees[which]
    spec = {"verifier": 1.0, "product": {"of": ["length", {"mine": lambda path: len(path.text) / 10}]}}
    at_once, piecewise = build(spec).on(tree), build(spec).on(tree)
    at_once.ensure(np.arange(tree.size))
    for node in np.random.default_rng(seed).permutation(tree.size):
        piecewise.ensure(np.array([node]))
    assert np.array_equal(at_once.total, piecewise.total)
    assert np.array_equal(at_once.terms, piecewise.terms)


def test_path_sums_equal_walking_up(trees):
    tree = trees[1]
    values = np.random.default_rng(0).normal(size=tree.size)
    nodes = np.array([tree.size - 1, tree.size // 2, 0])
    above = ancestors(tree, nodes)
    found = path_sums(tree, above, values[above])[np.searchsorted(above, nodes)]
    assert found == pytest.approx([values[path_of(tree, int(node))].sum() for node in nodes])


@pytest.mark.parametrize("ends", [np.zeros(3, bool), np.zeros((10, 1), bool), np.zeros(10)])
def test_ends_of_the_wrong_form(small, ends):
    with pytest.raises(ConfigError, match=r"bool of shape \(10,\) was expected"):
        build(None).on(small, ends=ends)
