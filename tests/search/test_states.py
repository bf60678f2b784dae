"""States are kept whole: texts that grow, numbers that outgrow their type, objects of any kind."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from treegym.errors import ConfigError
from treegym.search import Evaluation, Session, Transition, names, search
from treegym.search.states import StateStore


def judged(size: int) -> Evaluation:
    return Evaluation(np.zeros((size, 2), np.float32), np.zeros(size, np.float32), np.ones((size, 2), bool))


class Letters:
    """A state is a text; a move appends its letter, and "ab" three times over ends the episode and pays 1."""

    num_actions = 2

    def expand(self, states: Any) -> Evaluation:
        self.form = type(states)
        return judged(len(states))

    def step(self, states: Any, actions: np.ndarray) -> Transition:
        after = [str(state) + "ab"[action] for state, action in zip(states, actions, strict=True)]
        paid = np.array([text == "xababab" for text in after], np.float32)
        ended = np.array([len(text) == 7 for text in after])
        return Transition(after if isinstance(states, list) else np.array(after), paid, ended)


@pytest.mark.parametrize("method", [name for name in names() if name not in ("greedy", "sample")])
@pytest.mark.parametrize("roots", [np.array(["x"]), ["x"], np.array(["x"], object)], ids=["array", "list", "objects"])
def test_texts_are_never_cut(method: str, roots: Any) -> None:
    world = Letters()
    extra = {"horizon": 7} if method == "lookahead" else {}
    result = search(world, roots, method=method, num_simulations=300, **extra)
    assert world.form is type(roots)
    if method not in (
        "lookahead",
        "best_of_n",
        "dvts",
    ):  # these draw or follow values, and may miss the one text of 64 that pays
        assert result.action[0] == 0
        assert result.value[0] > 0.0


def test_whole_numbers_outgrow_their_type() -> None:
    class Doubling(Letters):
        def step(self, states: np.ndarray, actions: np.ndarray) -> Transition:
            after = states.astype(np.int64) * 2 + actions
            self.largest = max(getattr(self, "largest", 0), int(after.max()))
            assert (after > 0).all(), "a number was cut"
            return Transition(after, (after == 1099).astype(np.float32), after > 10**12)

    world = Doubling()
    session = Session(world, np.array([100], np.int8), method="uct", num_simulations=60)
    session.run()
    assert world.largest > 1000
    session.advance(np.array([1]), np.array([201], np.uint8))
    session.run()


@pytest.mark.parametrize(
    ("roots", "later", "kept"),
    [
        (np.array(["x"]), np.array(["long"]), "<U4"),
        (np.array([1], np.int8), np.array([300], np.int16), "int16"),
        (np.array([1], np.uint8), np.array([-1], np.int8), "int16"),
        (np.array([1.0], np.float32), np.array([1 / 3], np.float64), "float64"),
        (np.array([True]), np.array([3], np.int64), "int64"),
    ],
)
def test_room_is_made_wider(roots: np.ndarray, later: np.ndarray, kept: str) -> None:
    store = StateStore(roots, 4)
    store.put(np.array([0]), roots)
    store.put(np.array([3]), later)
    assert store.get(np.array([0, 3])).tolist() == [roots[0], later[0]]
    assert store.data.dtype == kept


@pytest.mark.parametrize(
    ("roots", "later", "message"),
    [
        (np.array([1]), np.array([0.5]), "the simulator's states became float64; the roots are int64"),
        (np.array([1], np.int64), np.array([1], np.uint64), "became uint64; the roots are int64"),
        (np.array(["x"]), np.array([1]), "became int64; the roots are <U1"),
        ((np.array([1]),), np.array([1]), "states are ndarray; the roots are a tuple of 1"),
        ({"a": np.array([1])}, [1], "states have the keys of list: none; the roots"),
        (["x"], ["y", "z"], "states are 2; expected 1"),
    ],
)
def test_what_does_not_fit_is_refused(roots: Any, later: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        StateStore(roots, 4).put(np.array([0]), later)


def test_tensors_are_widened_too() -> None:
    torch = pytest.importorskip("torch")
    store = StateStore(torch.tensor([1], dtype=torch.int8), 2)
    store.put(np.array([1]), torch.tensor([300]))
    assert int(store.get(np.array([1]))[0]) == 300
    with pytest.raises(ConfigError, match=r"became torch.float32; the roots are torch.int64"):
        store.put(np.array([1]), torch.tensor([0.5]))
    grown = StateStore(torch.zeros(1), 2)
    grown.put(np.array([0]), torch.ones(1, requires_grad=True) * 2)
    assert not grown.data.requires_grad
