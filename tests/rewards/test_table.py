"""A reward on a tree small enough to work out by hand (its drawing is in conftest.py)."""

from __future__ import annotations

import numpy as np
import pytest

from treegym.errors import RewardError
from treegym.rewards import FunctionTerm, build, build_terminal


def test_default_is_the_verifier(small):
    table = build(None).on(small)
    assert table.names == ("verifier",)
    assert table.complete
    assert table.total.dtype == np.float64
    assert table.terms.dtype == np.float32
    assert table.total.tolist() == [0, 0, 0, 0, 1, 0, 0, 0, 1, 0]


def test_sum_adds_and_keeps_the_parts(small):
    table = build({"verifier": 1.0, "length": -0.1}).on(small)
    # every node below a root costs 0.1; nodes 4 and 8 are right ends
    assert np.allclose(table.total, [0, 0, -0.1, -0.1, 0.9, -0.1, -0.1, -0.1, 0.9, -0.1])
    assert table.terms[:, 1].tolist() == [0, 0] + [1] * 8
    assert table.weights.tolist() == [1.0, -0.1]


def test_detected_end_is_scored_from_the_text(small):
    ends = np.zeros(10, bool)
    ends[[5, 9]] = True  # "4." and " so5": no verdict is stored there
    table = build("verifier").on(small, ends=ends)
    assert table.total[[5, 9]].tolist() == [1.0, 1.0]  # the last numbers are 4 and 5
    assert table.total[4] == 0.0  # not an end under these ends


def test_plain_function_is_called_once_a_node_ever(small):
    calls = []

    def count(path):
        calls.append(path.node)
        return len(path.text)

    table = build({"verifier": 1.0, "count": count}).on(small)
    assert calls == []
    assert np.isnan(table.total).all()
    for _ in range(3):
        table.ensure(np.array([4, 6, 4, 2]))
    assert sorted(calls) == [4, 6]  # an episode term: node 2 is no end
    assert table.total[[2, 4, 6]].tolist() == [0.0, 2.0, 1.0]


@pytest.mark.parametrize("value", [np.nan, np.inf, np.zeros(3), None, "high"])
def test_bad_value_names_term_root_and_path(small, value):
    table = build({"mine": lambda path: value}).on(small)
    with pytest.raises(RewardError, match=r"'mine' failed at root 0 \('2\+2='\), node 4, path \[1, 5\]"):
        table.ensure(np.array([4]))
    assert np.isnan(table.total[4])


def test_on_error_mask_flags_and_counts(small):
    def fail(path):
        raise RuntimeError("down")

    term = FunctionTerm(function=fail, on_error="mask", name="mine")
    table = build({"verifier": 1.0, "mine": term}).on(small)
    table.ensure(np.array([4, 5, 6]))
    assert table.failures == {"verifier": 0, "mine": 2}
    assert table.failed.nonzero()[0].tolist() == [4, 6]
    assert np.isnan(table.terms[4, 1])
    assert table.total[[4, 5, 6]].tolist() == [1, 0, 0]


def test_eos_terminal(small):
    assert build_terminal("eos").on(small).nonzero()[0].tolist() == [4, 6, 8]
