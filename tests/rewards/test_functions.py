"""Plain functions as terms, what they see, and terms that installed packages add."""

from __future__ import annotations

import importlib
import sys

import numpy as np
import pytest

import treegym.rewards as rewards
from treegym.errors import ConfigError, RewardError
from treegym.rewards import FunctionTerm, Scored, Term, build, registry


@pytest.fixture(autouse=True)
def clean_registry(monkeypatch):
    for known in (registry.TERMS, registry.DETECTORS, registry.VERIFIERS):
        monkeypatch.setattr(known, "_registered", {})


def shout(path, factor=1.0):
    """Pays for every token of the text."""
    return factor * len(path.tokens)


def test_what_a_function_sees(small):
    seen = {}

    def look(path):
        seen[path.node] = path
        return 0.0

    cut = np.zeros(10, bool)
    cut[9] = True
    term = FunctionTerm(function=look, scope="step")
    build(term).on(small, truncated=cut).ensure(np.array([8, 9]))
    path = seen[8]
    assert path.prompt == "2+2="
    assert path.reference == "4"
    assert path.kind == "sum"
    assert path.text == "4."
    assert path.tokens.tolist() == [1, 3, 5]
    assert path.depth == 3
    assert path.logprobs == pytest.approx(np.log([0.5, 0.25, 0.5]))
    assert path.similarities.tolist() == [1.0, 0.25, 1.0]
    assert path.proposers.tolist() == [1, 1, 1]
    assert path.teacher_logprobs.shape == (3, 2)
    assert path.end == "eos"
    assert seen[9].end == "truncated"
    assert seen[9].root == 1


def test_step_scope_is_called_on_every_step(small):
    calls = []
    term = FunctionTerm(function=lambda path: calls.append(path.node) or 1.0, scope="step", name="mine")
    table = build(term).on(small)
    table.ensure(np.array([2, 5, 8]))
    table.ensure(np.array([2, 4]))
    assert calls == [2, 5, 8, 4]
    assert table.total[[2, 4, 5, 8]].tolist() == [1, 1, 1, 1]


def test_by_import_path_and_parameters(small, monkeypatch):
    module = type(sys)("my_rewards")
    module.shout = shout
    monkeypatch.setitem(sys.modules, "my_rewards", module)
    reward = build({"my_rewards:shout": {"weight": 1.0, "factor": 2.0, "scope": "step"}})
    assert reward.names == ("shout",)
    again = build(reward.spec)
    assert again == reward
    table = again.on(small)
    table.ensure(np.array([8]))
    assert table.total[8] == 6.0
    with pytest.raises(ConfigError, match=r"no option 'fctor'.*Did you mean 'factor'"):
        build({"my_rewards:shout": {"fctor": 2.0}})


def test_registered_by_name(small):
    rewards.register("shout", shout)
    table = build({"verifier": 1.0, "shout": {"weight": 0.1, "factor": 2.0}}).on(small)
    table.ensure(np.array([4]))
    assert table.total[4] == pytest.approx(1.0 + 0.1 * 4.0)
    assert rewards.catalogue("reward term")["shout"] == "Pays for every token of the text."
    with pytest.raises(ConfigError, match="already a reward term"):
        rewards.register("verifier", shout)
    with pytest.raises(ConfigError, match="cannot name"):
        rewards.register("my term", shout)


def test_plug_in_of_an_installed_package(small, tmp_path, monkeypatch):
    """A distribution on the path with an entry point, as pip would install it."""
    (tmp_path / "loud_rewards.py").write_text('def loud(path):\n    """Counts letters."""\n    return len(path.text)\n')
    info = tmp_path / "loud_rewards-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: loud-rewards\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[treegym.rewards]\nloud = loud_rewards:loud\nbroken = loud_rewards:absent\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.invalidate_caches()
    table = build({"loud": 1.0}).on(small)
    table.ensure(np.array([8]))
    assert table.total[8] == 2.0
    assert "loud" in rewards.catalogue("reward term")
    with pytest.raises(ConfigError, match="of an installed package cannot be loaded"):
        build({"broken": 1.0})
    with pytest.raises(ConfigError, match="Did you mean 'loud'"):
        build({"loudd": 1.0})


def test_lambda_has_no_json_form():
    reward = build({"mine": lambda path: 1.0})
    with pytest.raises(ConfigError, match="'mine' is a function that cannot be imported by name"):
        reward.to_json()


@pytest.mark.parametrize("policy", ["mask", "default"])
def test_exception_under_a_policy(small, policy):
    calls = []

    def fail(path):
        calls.append(path.node)
        raise KeyError("x")

    default = {"default": 0.25} if policy == "default" else {}
    term = FunctionTerm(function=fail, name="mine", on_error=policy, **default)
    table = build(term).on(small)
    for _ in range(2):
        table.ensure(np.array([4]))
    assert calls == [4]
    assert table.total[4] == (0.25 if default else 0.0)
    assert table.failed.nonzero()[0].tolist() == [4]
    assert table.vector(np.array([4])).tolist() == [[0.25 if default else 0.0]]


def test_error_loses_nothing_that_was_evaluated(small):
    good = []

    def sometimes(path):
        if path.node == 6:
            raise RuntimeError("down")
        good.append(path.node)
        return 1.0

    table = build({"mine": sometimes}).on(small)
    with pytest.raises(RewardError, match=r"node 6.*RuntimeError: down"):
        table.ensure(np.array([4, 6, 8]))
    table.ensure(np.array([4, 8]))
    assert good == [4, 8]
    assert table.total[[4, 8]].tolist() == [1.0, 1.0]


class Wide(Term):
    """Returns too much."""

    kind = "wide"

    def values(self, source, asked):
        return np.zeros((len(asked.nodes), 2))


class Partly(Term):
    """Fails on the second node, with a reason."""

    kind = "partly"

    def values(self, source, asked):
        return Scored(np.array([1.0, np.nan, 3.0]), {1: "the dog ate it"})


def test_wrong_shape_and_reasons(small):
    with pytest.raises(
        RewardError, match=r"'wide' failed at root 0 .* node 4, path \[1, 5\] .*shape \(3, 2\) for 3 nodes"
    ):
        build(Wide()).on(small)
    with pytest.raises(RewardError, match=r"node 6, .*the dog ate it"):
        build(Partly()).on(small)
    table = build(Partly(on_error="mask")).on(small)
    assert table.total[[4, 6, 8]].tolist() == [1.0, 0.0, 3.0]


def test_range_is_checked(small):
    with pytest.raises(RewardError, match=r"finite number in the range \(0.0, 1.0\)"):
        build({"perplexity": {"range": [0, 1]}}).on(small)
