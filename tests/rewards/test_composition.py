"""Compositions, worked out by hand on the small tree (drawn in conftest.py)."""

from __future__ import annotations

import json

import numpy as np
import pytest

from treegym.errors import ConfigError
from treegym.rewards import FunctionTerm, Gate, build, load

ENDS = [4, 6, 8]  # "4" right after 2 tokens, "5" wrong after 2, "4." right after 3


def totals(spec, tree):
    table = build(spec).on(tree)
    table.ensure(np.arange(tree.size))
    return table


def test_gate_pays_only_where_it_opens(small):
    table = totals({"gate": {"by": {"verifier": 1.0}, "then": {"judge": 1.0}, "otherwise": -1.0}}, small)
    # judge: 0.9, 0.2, 0.6; the wrong end gets `otherwise`
    assert table.total[ENDS] == pytest.approx([0.9, -1.0, 0.6])
    assert table.total[[2, 3, 5, 7, 9]].tolist() == [0, 0, 0, 0, 0]


def test_closed_gate_asks_nobody(small):
    asked = []
    costly = FunctionTerm(function=lambda path: asked.append(path.node) or 1.0, name="costly")
    table = build(Gate(build("verifier").part, costly)).on(small)
    table.ensure(np.array(ENDS))
    assert sorted(asked) == [4, 8]
    assert table.terms[6].tolist() == [0.0, 0.0]


def test_product_multiplies_returns(small):
    # length is paid on the way and multiplied as a return: 0.9 * 2, 0.2 * 2, 0.6 * 3
    table = totals({"product": {"of": ["judge", "length"]}}, small)
    assert table.total[ENDS] == pytest.approx([1.8, 0.4, 1.8])


def test_lexicographic_lets_the_first_decide(small):
    table = totals({"lexicographic": {"of": ["verifier", "judge"], "levels": 10}}, small)
    # verifier 1 -> 1; judge in [0, 1] is worth judge / 20
    assert table.total[ENDS] == pytest.approx([1 + 0.9 / 20, 0 + 0.2 / 20, 1 + 0.6 / 20])


@pytest.mark.parametrize(
    "inner",
    [
        {"length": -0.1, "similarity": 0.3},
        {"verifier": 1.0, "loglikelihood": 0.2},
        {"gate": {"by": "verifier", "then": {"length": -1.0}}},
    ],
)
def test_dense_and_sparse_placement_give_the_same_return(small, inner):
    dense, sparse = totals(inner, small), totals({"sparse": {"of": inner}}, small)
    for end in ENDS:
        path = [end]
        while small.parent[path[-1]] >= 0:
            path.append(int(small.parent[path[-1]]))
        assert dense.total[path].sum() == pytest.approx(sparse.total[path].sum())
        assert sparse.total[path[1:]].tolist() == [0.0] * (len(path) - 1)


def test_sparse_is_paid_where_the_budget_cuts_off(small):
    cut = np.zeros(10, bool)
    cut[9] = True
    table = build({"sparse": {"of": {"length": 1.0}}}).on(small, truncated=cut)
    assert table.total[[4, 7, 9]].tolist() == [2.0, 0.0, 2.0]


def test_zero_weight_is_reported_and_never_enters_the_sum(small):
    spec = {"verifier": 1.0, "off": {"term": "perplexity", "weight": 0.0, "range": [0, 1]}}
    table = totals(spec, small)  # every perplexity is above 1, so every value is a failure
    assert table.total[ENDS].tolist() == [1.0, 0.0, 1.0]
    assert table.failures["off"] == 3
    assert not table.failed.any()


def test_nested_weights_multiply(small):
    reward = build({"verifier": 2.0, "sum": {"of": {"length": -0.5, "judge": 4.0}, "weight": 0.5}})
    table = totals(reward, small)
    assert dict(zip(table.names, table.weights, strict=True)) == {"verifier": 2.0, "length": -0.25, "judge": 2.0}
    assert table.total[4] == pytest.approx(2.0 + 0.5 * (-0.5 + 4.0 * 0.9))


@pytest.mark.parametrize(
    "spec",
    [
        None,
        "judge",
        {"verifier": 1.0, "length": -0.01},
        {"verifier": {"weight": 1.0, "method": "numeric", "tolerance": 0.01, "on_error": "mask"}},
        {"gate": {"by": {"verifier": 1.0}, "then": {"judge": 1.0, "length": -0.1}, "threshold": 0.7}},
        {"gate": {"by": "verifier", "then": "judge", "weight": 0.5}, "gate#2": {"by": "length", "then": "perplexity"}},
        {"product": {"of": ["verifier", {"gate": {"by": "judge", "then": "perplexity"}}]}},
        {"lexicographic": {"of": ["verifier", "judge"], "levels": 4}},
        {"sparse": {"of": {"length": -0.1, "similarity": 1.0}, "weight": 2.0}},
        {"strict": {"term": "judge", "weight": 0.5, "range": [0, 0.95]}, "judge": 0.5},
        {"verifier": 0.0, "length": 1.0},
    ],
)
def test_json_round_trip(spec, small):
    reward = build(spec)
    text = reward.to_json()
    again = build(json.loads(text))
    assert again == reward
    assert again.to_json() == text
    assert build(reward) is reward
    assert np.array_equal(totals(again, small).total, totals(reward, small).total)


def test_toml_and_json_files(tmp_path):
    toml = tmp_path / "reward.toml"
    toml.write_text("[reward]\nverifier = 1.0\n[reward.judge]\nweight = 0.5\ntemplate = '{prompt}{answer}?'\n")
    as_json = tmp_path / "reward.json"
    as_json.write_text(json.dumps({"verifier": 1.0, "judge": {"weight": 0.5, "template": "{prompt}{answer}?"}}))
    assert load(toml) == load(as_json)
    toml.write_text("verifier = = 1")
    with pytest.raises(ConfigError, match="not valid TOML"):
        load(toml)


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"verifer": 1.0}, "Did you mean 'verifier'"),
        ({"verifier": "high"}, "the weight of reward 'verifier' is 'high'"),
        ({"verifier": float("nan")}, "the weight of reward 'verifier' is nan"),
        ({"verifier": True}, "the weight of reward 'verifier' is True"),
        ({"verifier": None}, "the weight of reward 'verifier' is None"),
        ({"verifier": {"wieght": 1.0}}, "no option 'wieght'.* Did you mean 'weight'"),
        ({"verifier": {"weight": 1.0, "on_error": "ignore"}}, "on_error is 'raise', 'mask' or 'default'"),
        ({"verifier": {"weight": 1.0, "on_error": "default"}}, "go together"),
        ({"verifier": {"range": [1, 0]}}, "two rising numbers"),
        ({"gate": {"by": "verifier"}}, "gate needs 'then'"),
        ({"gate": {"by": "verifier", "then": "judge", "els": 0}}, "gate has no option 'els'"),
        ({"product": {"of": []}}, "a list of rewards was expected"),
        ({"lexicographic": {"of": ["verifier"]}}, "at least two parts"),
        ({}, "at least one part"),
        ([], "a list of rewards was expected"),
        (7, "a reward cannot be made of 7"),
        ({1: 1.0}, "names that are not strings"),
        ({"a": {"term": "length"}, "b": {"term": "nothing"}}, "unknown reward term 'nothing'"),
        ({"verifier": 1.0, "gate": {"by": "verifier", "then": "judge"}}, "'verifier' appears twice"),
        ({"no.such.module:term": 1.0}, "cannot be imported"),
        ({"verifier": {"weight": True}}, "the weight of reward 'verifier' is True"),
        ({"gaet": {"by": "verifier", "then": "judge"}}, "Did you mean 'gate'"),
        ({"loglikelihood": {"floor": "low"}}, "'loglikelihood' cannot be made: could not convert"),
        ({"lmgt": {"guide": 5}}, "'lmgt' cannot be made"),
        ({"lexicographic": {"of": ["verifier", "judge"], "levels": "10"}}, "levels of Lexicographic is '10'"),
        ({"a": {"term": 5}}, "the 'term' of reward 'a' is 5"),
        ({"perplexity": {"strid": 2}}, "no option 'strid'.* Did you mean 'stride'"),
        ({"judge": {"rubric": "Be strict."}}, r"template with \{rubric\} in it"),
        ({"judge": {"principles": ["Be right."]}}, r"template with \{principle\} in it"),
    ],
)
def test_bad_specs_are_one_clear_sentence(spec, words):
    with pytest.raises(ConfigError, match=words):
        build(spec)


def test_a_spec_too_deep_to_build_is_one_sentence():
    spec = {"verifier": 1.0}
    for _ in range(5000):
        spec = {"sum": {"of": spec, "weight": 2.0}}
    with pytest.raises(ConfigError, match="nested too deeply"):
        build(spec)
