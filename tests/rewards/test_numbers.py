"""Zoning and scalarisers, worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from treegym.errors import ConfigError, DataError
from treegym.rewards import build, scalarise
from treegym.rewards.terms.zones import ZoneModel
from treegym.rewards.terms.zoning import measured


def test_zones_shrink_towards_no_adjustment():
    # two zones of 10: means 1 and 0, overall 0.5, prior 10: half of the deviation of +-0.5 is believed
    depth = np.repeat([1.0, 5.0], 10)
    model = ZoneModel.fit({"depth": depth}, np.repeat([1.0, 0.0], 10), bins=2, prior=10.0)
    assert model.adjustment({"depth": np.array([1.0, 5.0, 99.0, np.nan])}) == pytest.approx([0.25, -0.25, -0.25, 0.0])
    assert model.counts.tolist() == [10, 10]


def test_zone_never_seen_adjusts_nothing():
    quantities = {"a": np.array([0.0, 1.0]), "b": np.array([0.0, 1.0])}
    model = ZoneModel.fit(quantities, np.array([0.0, 1.0]), bins=2, prior=1.0)
    # seen: (0, 0) and (1, 1), deviation -+0.5, half believed; (0, 1) and (1, 0) never
    found = model.adjustment({"a": np.array([0.0, 0.0, 1.0, 1.0]), "b": np.array([0.0, 1.0, 0.0, 1.0])})
    assert found == pytest.approx([-0.25, 0.0, 0.0, 0.25])


def test_zones_recover_what_depends_on_two_quantities():
    rng = np.random.default_rng(0)
    a, b = rng.random(4000), rng.random(4000)
    outcome = np.where((a > 0.5) == (b > 0.5), 1.0, 0.0)
    model = ZoneModel.fit({"a": a, "b": b}, outcome, bins=2)
    assert model.adjustment({"a": np.array([0.9, 0.9]), "b": np.array([0.9, 0.1])}) == pytest.approx(
        [0.5, -0.5], abs=0.06
    )


def test_zoning_is_saved_and_checked(tmp_path):
    model = ZoneModel.fit({"depth": np.arange(20.0)}, np.arange(20.0))
    path = tmp_path / "zones.json"
    model.save(path)
    again = ZoneModel.load(path)
    assert again.to_dict() == model.to_dict()
    for text in ("{", "[]", '{"kind": "other"}', path.read_text().replace("[", "[9,", 2)):
        path.write_text(text)
        with pytest.raises(DataError):
            ZoneModel.load(path)
    with pytest.raises(ConfigError, match="'depth' did not come"):
        model.adjustment({"deph": np.zeros(1)})
    with pytest.raises(ConfigError, match="not finite"):
        ZoneModel.fit({"a": np.zeros(2)}, np.array([0.0, np.nan]))


def test_zoning_term_shapes_and_anneals(small):
    quantities = {"depth": np.array([1.0] * 5 + [3.0] * 5)}
    zones = ZoneModel.fit(quantities, np.repeat([0.0, 1.0], 5), bins=2, prior=5.0).to_dict()
    table = build({"verifier": 1.0, "zoning": {"weight": 1.0, "model": zones}}).on(small)
    # edge at 2 or 3: depth 3 (node 8) is in the upper zone: +0.5 of which half is believed
    assert table.total[8] == pytest.approx(1.25)
    assert table.raw(np.array([8])).tolist() == [1.0]
    table.set_progress(1.0)
    assert table.total[8] == 1.0
    bad = dict(zones, names=["accuracy"])
    with pytest.raises(ConfigError, match="cannot be measured on a tree"):
        build({"zoning": {"model": bad}})


def test_measured_quantities(small):
    found = measured(small, np.array([4, 8]))
    assert found["depth"].tolist() == [2.0, 3.0]
    assert found["loglikelihood"] == pytest.approx([np.log(0.5), np.log(1 / 16) / 3])
    assert found["similarity"] == pytest.approx([1.0, 2.25 / 3])
    assert found["teachers"].tolist() == [1.0, 1.0]


def test_scalarisers():
    vectors = np.array([[1.0, 0.0], [0.6, 0.6]])
    assert scalarise(vectors) == pytest.approx([0.5, 0.6])
    assert scalarise(vectors, weights=[3, 1]) == pytest.approx([3.0, 2.4])
    assert scalarise(vectors, method="worst") == pytest.approx([0.0, 0.6])
    assert scalarise(vectors, method="product", weights=[1, 1]) == pytest.approx([0.0, 0.36])
    # gaps to (1, 1): (0, 1) and (0.4, 0.4): -(1 + 0.05), -(0.4 + 0.04)
    assert scalarise(vectors, method="tchebycheff", weights=[1, 1]) == pytest.approx([-1.05, -0.44])


def test_tchebycheff_reaches_a_concave_front_where_linear_does_not():
    front = np.array([[1.0, 0.0], [0.4, 0.4], [0.0, 1.0]])
    chosen = {int(scalarise(front, weights=[w, 1 - w]).argmax()) for w in np.linspace(0, 1, 101)}
    assert chosen == {0, 2}
    chosen = {int(scalarise(front, method="tchebycheff", weights=[w, 1 - w]).argmax()) for w in np.linspace(0, 1, 101)}
    assert chosen == {0, 1, 2}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"method": "linar"}, "Did you mean 'linear'"),
        ({"weights": [1.0]}, "2 objectives came"),
        ({"weights": [-1.0, 1.0]}, "at least 0"),
        ({"weights": [0.0, 0.0]}, "not all 0"),
    ],
)
def test_bad_scalarisation(options, words):
    with pytest.raises(ConfigError, match=words):
        scalarise(np.zeros((3, 2)), **options)


def test_zones_of_the_return_so_far(small):
    ends = np.array([4, 6, 8])
    reward = {"length": -0.5, "verifier": 1.0}  # returns so far at the ends: 0, -1 and -0.5
    model = ZoneModel.fit(
        {"return": np.array([-1.0, -1.0, 0.0, 0.0])}, np.array([0.0, 0.0, 1.0, 1.0]), bins=2, prior=2.0
    )
    # two examples a zone: 2 / (2 + 2) of the deviation of 1/2
    assert model.adjustment({"return": np.array([-1.0, 0.0])}).tolist() == [-0.25, 0.25]
    spec = {"zoning": {"model": model.to_dict(), "of": reward}}
    table = build(spec).on(small)
    assert table.terms[ends, 0] == pytest.approx(model.adjustment({"return": np.array([0.0, -1.0, -0.5])}))
    assert table.raw(ends).tolist() == [0.0, 0.0, 0.0]
    assert build(build(spec).spec) == build(spec)
    for wrong in (
        {"model": model.to_dict()},
        {"model": ZoneModel.fit({"depth": np.arange(4.0)}, np.arange(4.0)).to_dict(), "of": reward},
    ):
        with pytest.raises(ConfigError, match="go together"):
            build({"zoning": wrong})
    with pytest.raises(ConfigError, match="needs `of`"):
        measured(small, ends, ["return"])
