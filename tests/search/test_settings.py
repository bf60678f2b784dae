"""What is asked of a search is taken as it was meant, or refused in a sentence that names it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from treegym.errors import ConfigError
from treegym.search import Evaluation, Transition, register, search, search_closed
from treegym.search.session import Session

CLOSED: dict[str, Any] = {
    "first_child": [1, -1, -1], "child_count": [2, 0, 0], "terminal": [False, True, True], "reward": [0, 1, -1],
    "prior_logits": [0] * 3, "value": [0] * 3, "roots": [0], "num_simulations": 8, "method": "puct",
}  # fmt: skip


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"roots": np.array([2**32])}, "roots is 4294967296 at row 0"),
        ({"roots": [0.7]}, "roots holds float64"),
        ({"roots": [True]}, "roots holds bool"),
        ({"child_count": [65538, 0, 0]}, "child_count is 65538 at row 0; it must be from 0 to 65535"),
        ({"child_count": [-1, 0, 0]}, "child_count is -1"),
        ({"child_count": None}, "child_count holds object"),
        ({"first_child": [1.5, -1, -1]}, "first_child holds float64"),
        ({"terminal": [np.nan, 1, 1]}, "terminal holds float64"),
        ({"terminal": [0, 1, 2]}, "must hold True and False"),
        ({"reward": np.array([1j, 0, 0])}, "reward holds complex128"),
        ({"reward": [0, 2e38, -2e38]}, "beyond 1e.30"),
        ({"num_actions": 1.5}, "num_actions is 1.5"),
        ({"num_simulations": True}, "num_simulations is True"),
        ({"num_simulations": 2**31}, "below 2"),
        ({"root_ids": [0.5]}, "root_ids holds float64"),
        ({"seed": 1.5}, "seed is 1.5; it must be a whole number"),
        ({"seed": None}, "seed is None"),
        ({"method": None}, "method is None"),
        ({"method": ["puct"]}, "method is .'puct'."),
        ({"discount": [0.9]}, r"discount is \[0.9\]; it must be a number from -1.0 to 1.0"),
        ({"c_visit": 1e300}, "c_visit is 1e.300; it must be a number from 0.0 to"),
        ({"tau": 1e-30}, "tau is 1e-30; it must be a number of at least 1e-09"),
        ({"first_play": 1e38}, "first_play is 1e.38"),
        ({"leaves": True}, "leaves is True"),
        ({"solve": "no"}, "solve is 'no'; it must be True or False"),
        ({"method": "similarity", "value_weight": float("nan")}, "value_weight is nan"),
        ({"first_play": [1]}, r"first_play is \[1\]"),
    ],
)
def test_closed_trees_refuse_what_they_cannot_take(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        search_closed(**CLOSED | changed)


def test_numbers_of_numpy_are_numbers() -> None:
    plain = search_closed(**CLOSED, discount=0.5, max_depth=3)
    numpys = search_closed(**CLOSED, discount=np.float32(0.5), max_depth=np.int64(3))
    np.testing.assert_array_equal(plain.visits, numpys.visits)
    assert plain.value == numpys.value


def test_arrays_locked_against_writing_are_searched_by_the_same_kernel() -> None:
    from treegym.search.kernels.whole import search_roots

    def locked(name: str) -> np.ndarray:
        kinds = {"first_child": np.int32, "child_count": np.uint16, "terminal": bool, "roots": np.int32}
        array = np.array(CLOSED[name], kinds.get(name, np.float32))
        array.flags.writeable = False
        return array

    free = search_closed(**CLOSED)
    kernel = search_roots(0, True, True)
    compiled = len(kernel.overloads)
    names = ("first_child", "child_count", "terminal", "reward", "prior_logits", "value", "roots")
    shut = search_closed(**CLOSED | {name: locked(name) for name in names})
    np.testing.assert_array_equal(free.visits, shut.visits)
    assert len(kernel.overloads) == compiled


def test_more_actions_than_a_tree_can_name_are_refused() -> None:
    many = 40_000
    count = np.zeros(many + 1, int)
    count[0] = many
    zeros = np.zeros(many + 1)
    with pytest.raises(ConfigError, match="40000 actions; a search tree holds at most 32767"):
        search_closed(
            first_child=1 - 2 * (count == 0), child_count=count, terminal=count == 0, reward=zeros, value=zeros,
            prior_logits=zeros, roots=[0], num_simulations=4,
        )  # fmt: skip


def test_halving_of_more_than_there_is_costs_nothing() -> None:
    usual = search_closed(**CLOSED | {"method": "gumbel"}, max_considered=2)
    boundless = search_closed(**CLOSED | {"method": "gumbel"}, max_considered=10**9)
    np.testing.assert_array_equal(usual.visits, boundless.visits)


class Chain:
    """States count up; a failure may be told to come in so many calls."""

    num_actions = 3

    def __init__(self) -> None:
        self.fail_in: int | None = None

    def moves(self, session: Session) -> np.ndarray:
        """Moves that were visited."""
        return session.result().visits.argmax(1)

    def expand(self, states: np.ndarray) -> Evaluation:
        if self.fail_in is not None:
            self.fail_in -= 1
            if self.fail_in < 0:
                self.fail_in = None
                raise ConnectionError("the network is down")
        return Evaluation(np.zeros((len(states), 3)), np.sin(states[:, 0]), np.ones((len(states), 3), bool))

    def step(self, states: np.ndarray, actions: np.ndarray) -> Transition:
        after = states + actions[:, None] + 1.0
        return Transition(after, np.cos(after[:, 0]), after[:, 0] > 12)


@pytest.mark.parametrize("leaves", [1, 4])
@pytest.mark.parametrize("method", ["puct", "gumbel", "uct", "rents"])
def test_an_evaluator_that_fails_costs_its_round_only(method: str, leaves: int) -> None:
    from treegym.search.settings import Options

    def session(world: Chain) -> Session:
        options = Options(leaves=leaves)
        return Session(world, np.zeros((5, 1)), method=method, num_simulations=24, options=options)

    whole = session(Chain()).run()
    world = Chain()
    cut = session(world)
    world.fail_in = 2
    with pytest.raises(ConnectionError):
        cut.run()
    again = cut.run()
    np.testing.assert_array_equal(whole.visits, again.visits)
    np.testing.assert_array_equal(whole.value, again.value)


def test_a_move_that_fails_changes_nothing() -> None:
    worlds = [Chain(), Chain()]
    right, tried = (Session(world, np.zeros((3, 1)), method="puct", num_simulations=2) for world in worlds)
    right.run()
    action = tried.run().action.copy()
    action[:] = 2  # with two simulations, one that was never visited
    to = worlds[0].step(np.zeros((3, 1)), action).states
    for states, moves, message in (
        (to + 1.0, worlds[0].moves(tried), "the state given for root 0 is not the one that the move leads to"),
        (to[:2], action, "2 states were given for 3 roots"),
        (to, action[:2], "actions have shape"),
        (to, action + 0.5, "actions holds float64"),
        (to, action + 9, "action 11 is not legal"),
    ):
        with pytest.raises(ConfigError, match=message):
            tried.advance(moves, states)
    worlds[1].fail_in = 0
    with pytest.raises(ConnectionError):
        tried.advance(action, to)
    for one in (right, tried):
        one.advance(action, to)
    np.testing.assert_array_equal(right.run().visits, tried.run().visits)


@pytest.mark.parametrize("given", [{"seconds": float("nan")}, {"model_calls": -1}, {"simulations": 1.5}])
def test_budgets_are_numbers_from_zero(given: dict[str, Any]) -> None:
    made = Session(Chain(), np.zeros((1, 1)), num_simulations=4)
    with pytest.raises(ConfigError, match=f"{next(iter(given))} is .*; it must be a .*number from 0"):
        made.run(**given)


@pytest.mark.parametrize(
    ("method", "given", "message"),
    [
        ("beam", {"discount": float("nan")}, "discount is nan"),
        ("lookahead", {"discount": 5.0}, "discount is 5.0"),
        ("ab_mcts", {"discount": -0.5}, "discount is -0.5"),
        ("best_of_n", {"temperature": -1.0}, "temperature is -1.0"),
        ("sample", {"temperature": float("nan")}, "temperature is nan"),
        ("greedy", {"num_simulations": -1}, "num_simulations is -1"),
        ("best_first", {"model_calls": 2.5}, "model_calls is 2.5"),
        ("best_of_n", {"seed": 1.5}, "seed is 1.5"),
    ],
)
def test_every_method_checks_its_numbers(method: str, given: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        search(Chain(), np.zeros((2, 1)), method=method, **{"num_simulations": 4} | given)


def test_answers_of_another_kind_are_named() -> None:
    class Plain(Chain):
        def expand(self, states: np.ndarray) -> Any:
            return (1, 2, 3)

    with pytest.raises(ConfigError, match=r"expand gave a tuple; it must give a treegym\.search\.Evaluation"):
        search(Plain(), np.zeros((2, 1)), num_simulations=4)


@pytest.mark.parametrize(("name", "method"), [(None, len), ("mine", 3)])
def test_a_method_is_a_name_and_a_function(name: Any, method: Any) -> None:
    with pytest.raises(ConfigError, match="a method needs a name"):
        register(name, method)


def test_threads_that_would_have_nothing_to_do_are_refused() -> None:
    with pytest.raises(ConfigError, match="num_threads is 2, but threads share whole searches inside one kernel"):
        search(Chain(), np.zeros((2, 1)), method="puct", num_simulations=4, num_threads=2)


@pytest.mark.parametrize("method", ["puct", "beam", "best_of_n", "ab_mcts"])
@pytest.mark.parametrize("what", ["state", "reward", "end"])
def test_a_world_of_chance_that_does_not_say_so_is_refused(method: str, what: str) -> None:
    class Dice(Chain):
        rng = np.random.default_rng(0)

        def step(self, states: np.ndarray, actions: np.ndarray) -> Transition:
            drawn = self.rng.random(len(states))
            moved = super().step(states, actions)
            return Transition(
                moved.states + drawn[:, None] * (what == "state"),
                moved.reward + drawn * (what == "reward"),
                (drawn < 0.5) if what == "end" else moved.terminated,
            )

    with pytest.raises(ConfigError, match="stepped twice from the same state by the same action"):
        search(Dice(), np.zeros((40, 1)), method=method, num_simulations=4)


def test_tensors_with_a_history_and_of_half_precision_are_numbers() -> None:
    torch = pytest.importorskip("torch")

    class Network(Chain):
        def expand(self, states: np.ndarray) -> Evaluation:
            plain = super().expand(states)
            logits = torch.zeros((len(states), 3), dtype=torch.bfloat16, requires_grad=True) * 2
            return Evaluation(logits, torch.tensor(plain.value, requires_grad=True), torch.tensor(plain.legal))

        def step(self, states: np.ndarray, actions: np.ndarray) -> Transition:
            moved = super().step(states, actions)
            return Transition(moved.states, torch.tensor(moved.reward).bfloat16(), torch.tensor(moved.terminated))

    roots = np.zeros((2, 1))
    plain, network = (search(world, roots, method="puct", num_simulations=20) for world in (Chain(), Network()))
    assert plain.visits.shape == network.visits.shape
    assert network.visits.sum() == 40
