"""Bad input is an error that names what and where, before any kernel reads it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from treegym.errors import ConfigError
from treegym.search import Evaluation, Planner, Transition, names, search, search_closed


def evaluation(logits: Any = None, value: Any = None, legal: Any = None) -> Evaluation:
    return Evaluation(
        np.zeros((3, 4), np.float32) if logits is None else np.asarray(logits, np.float32),
        np.zeros(3, np.float32) if value is None else np.asarray(value, np.float32),
        np.ones((3, 4), bool) if legal is None else np.asarray(legal),
    )


def plan(given: Evaluation, **options: Any) -> Planner:
    return Planner(given, method=options.pop("method", "puct"), num_simulations=options.pop("num_simulations", 4))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_nan_or_infinite_priors_name_the_root(bad: float) -> None:
    logits = np.zeros((3, 4))
    logits[1, 2] = bad
    with pytest.raises(ConfigError, match=r"root 1 has a prior logit that is NaN or \+inf"):
        plan(evaluation(logits))


def test_priors_all_zero_name_the_root() -> None:
    logits = np.zeros((3, 4))
    logits[2] = -np.inf
    with pytest.raises(ConfigError, match="root 2 has prior logits of -inf"):
        plan(evaluation(logits))


def test_one_zero_prior_is_fine() -> None:
    logits = np.zeros((3, 4))
    logits[:, 0] = -np.inf
    assert plan(evaluation(logits)).size == 3


def test_no_legal_child_names_the_root() -> None:
    legal = np.ones((3, 4), bool)
    legal[1] = False
    with pytest.raises(ConfigError, match="root 1 has no legal action"):
        plan(evaluation(legal=legal))


def test_nan_of_an_illegal_action_does_not_matter() -> None:
    logits, legal = np.zeros((3, 4)), np.ones((3, 4), bool)
    logits[0, 0], legal[0, 0] = np.nan, False
    assert plan(evaluation(logits, legal=legal)).size == 3


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (evaluation(value=np.zeros(2)), r"value has shape \(2,\); expected \(3,\)"),
        (evaluation(value=[0, np.nan, 0]), "value of row 1 is nan"),
        (evaluation(legal=np.ones((3, 5), bool)), r"legal has shape \(3, 5\); expected \(3, 4\)"),
        (evaluation(logits=np.zeros(4)), r"prior_logits have shape \(4,\)"),
    ],
)
def test_wrong_shapes_and_values(given: Evaluation, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        plan(given)


class Faulty:
    """A chain world whose step or judgement goes wrong below the root."""

    num_actions = 2

    def __init__(self, fault: str) -> None:
        self.fault, self.calls = fault, 0

    def expand(self, states: np.ndarray) -> Evaluation:
        self.calls += 1
        below = self.calls > 1
        logits, value = np.zeros((len(states), 2), np.float32), np.zeros(len(states), np.float32)
        legal = np.ones((len(states), 2), bool)
        if below and self.fault == "priors":
            logits[0] = np.nan
        if below and self.fault == "shape":
            logits = logits[:, :1]
        if below and self.fault == "legal":
            legal[0] = False
        return Evaluation(logits, value, legal)

    def step(self, states: np.ndarray, actions: np.ndarray) -> Any:
        reward = np.zeros(len(states), np.float32)
        if self.fault == "reward":
            reward[0] = np.nan
        if self.fault == "rows":
            reward = reward[:-1]
        return Transition(states + 1, reward, np.zeros(len(states), bool))


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("priors", "a state below root 0 has a prior logit that is NaN"),
        ("shape", r"prior_logits has shape \(2, 1\); expected \(2, 2\)"),
        ("legal", "a state below root 0 has no legal action"),
        ("reward", r"the reward of leaf 0 \(root 0\) is nan"),
        ("rows", r"reward has shape \(1,\); expected \(2,\)"),
    ],
)
def test_faults_below_the_root(fault: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        search(Faulty(fault), np.array([0, 10]), num_simulations=4)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"roots": [0, 99999]}, r"root 99999 \(row 1\) is out of range"),
        ({"roots": [-1]}, r"root -1 \(row 0\) is out of range"),
        ({"first_child": 10**6}, "children from 1000000; the tree ends at"),
        ({"first_child": -5}, "children from -5; the tree ends at"),
        ({"value": np.nan}, r"value \(nan\) of node 0"),
        ({"reward": np.nan}, r"reward \(nan\)"),
        ({"prior_logits": np.nan}, "prior logits"),
        ({"num_actions": 1}, "num_actions is 1, but a node has"),
        ({"reward": "short"}, "reward has shape"),
        ({"num_simulations": 0}, "num_simulations is 0"),
        ({"num_threads": 0}, "num_threads is 0"),
        ({"num_actions": 0}, "num_actions is 0"),
        ({"method": "guess"}, "no tree search is called 'guess'"),
        ({"discunt": 0.5}, "Did you mean 'discount'"),
        ({"discount": 1.5}, "discount is 1.5; it must be a number from -1"),
        ({"tau": 0.0}, "tau is 0.0; it must be a positive number"),
        ({"first_play": "parents"}, "Did you mean 'parent'"),
    ],
)
def test_closed_trees_are_checked(worlds: Any, changes: dict[str, Any], message: str) -> None:
    arguments: dict[str, Any] = {**worlds.random_tree(0), "roots": np.arange(4), "num_simulations": 8}
    for name, new in changes.items():
        if isinstance(arguments.get(name), np.ndarray) and isinstance(new, (int, float)):
            arguments[name] = arguments[name].copy()
            arguments[name][:] = new
        else:
            arguments[name] = arguments[name][:-1] if new == "short" else new
    with pytest.raises(ConfigError, match=message):
        search_closed(**arguments)


def test_terminal_roots_are_refused(worlds: Any) -> None:
    tree = worlds.random_tree(0)
    leaf = int(np.flatnonzero(tree["terminal"])[0])
    with pytest.raises(ConfigError, match=rf"root {leaf} \(row 0\) is terminal"):
        search_closed(**tree, roots=np.array([leaf]), num_simulations=4)


class Astray:
    """A world of 20 numbered states whose step goes wrong; the same for every method."""

    num_actions = 2

    def __init__(self, fault: str) -> None:
        self.fault = fault
        self.values = np.zeros(20, np.float32)
        if fault == "number of states":
            self.num_states = 20

    def expand(self, states: np.ndarray) -> Evaluation:
        size = len(states)
        return Evaluation(np.zeros((size, 2), np.float32), self.values[states], np.ones((size, 2), bool))

    def step(self, states: np.ndarray, actions: np.ndarray) -> Transition:
        reward, ended = np.zeros(len(states)), np.zeros(len(states), bool)
        after = {
            "out of range": states + 100,
            "number of states": states - 15,
            "one state": states[:1],
            "two columns": np.stack([states, states], 1),
        }.get(self.fault, states)
        if self.fault == "reward column":
            reward = reward[:, None]
        if self.fault == "reward":
            reward[0] = np.inf
        return Transition(after, reward, ended[:1] if self.fault == "one end" else ended)


@pytest.mark.parametrize("method", ["puct", "beam", "best_of_n", "ab_mcts", "lookahead"])
@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("out of range", "below the roots: .*index 10[12] is out of bounds"),
        ("number of states", "after a step: state -1. of row 0 is out of range; there are 20 states"),
        ("one state", "step gave 1 states for"),
        ("two columns", r"shape \(\d+, 2"),
        ("reward column", r"reward has shape \(\d+, 1\)"),
        ("reward", "reward of .* is inf; it must be finite"),
        ("one end", r"terminated has shape \(1,\)"),
    ],
)
def test_every_method_names_a_fault_of_the_simulator(method: str, fault: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        search(Astray(fault), np.array([1, 2]), method=method, num_simulations=8)


@pytest.mark.parametrize("method", names())
def test_no_roots_and_settings_that_do_not_exist(method: str) -> None:
    with pytest.raises(ConfigError, match="at least one root"):
        search(Astray(""), np.zeros(0, int), method=method, num_simulations=8)
    if method not in ("greedy", "sample"):  # these take the settings of all others
        with pytest.raises(ConfigError, match=r"'discunt' is not a setting of .* Did you mean 'discount'"):
            search(Astray(""), np.array([1]), method=method, num_simulations=8, discunt=0.5)
        with pytest.raises(ConfigError, match=r"num_simulations is 2\.5"):
            search(Astray(""), np.array([1]), method=method, num_simulations=2.5)  # type: ignore[arg-type]


def test_a_model_that_was_not_compiled_is_refused() -> None:
    class Plain(Astray):
        params = np.zeros(1, np.float32)

        def model(self) -> None: ...

    with pytest.raises(ConfigError, match="must be made by `compiled_model`"):
        search(Plain(""), np.zeros((1, 1), np.float32), method="puct", num_simulations=4)
