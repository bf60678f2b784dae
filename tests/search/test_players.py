"""Two players: in turn (a discount below 0) or as the simulator says, against exact minimax."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest

from treegym.errors import ConfigError
from treegym.search import Evaluation, Options, Session, Transition, search, search_closed

LINES = [(0, 1, 2), (3, 4, 5), (6, 7, 8), (0, 3, 6), (1, 4, 7), (2, 5, 8), (0, 4, 8), (2, 4, 6)]
RULES = ["puct", "gumbel", "uct", "ments", "rents"]


def won(board: Any) -> bool:
    """Whether the player who has just moved (whose stones are -1 to the other) has a line."""
    return any(board[a] == board[b] == board[c] == -1 for a, b, c in LINES)


@functools.cache
def minimax(board: tuple[int, ...]) -> int:
    """What the position is worth to the player to move: 1 won, 0 drawn, -1 lost."""
    if won(board):
        return -1
    free = [i for i in range(9) if not board[i]]
    return max((-minimax(played(board, i)) for i in free), default=0)


def played(board: tuple[int, ...], move: int) -> tuple[int, ...]:
    return tuple(-stone for stone in (*board[:move], 1, *board[move + 1 :]))


class TicTacToe:
    """A state is nine cells as the player to move sees them, and who that is."""

    num_actions = 9

    def expand(self, states: np.ndarray) -> Evaluation:
        size = len(states)
        logits, value = np.zeros((size, 9), np.float32), np.zeros(size, np.float32)
        return Evaluation(logits, value, states[:, :9] == 0, states[:, 9])

    def step(self, states: np.ndarray, actions: np.ndarray) -> Transition:
        after = states.copy()
        after[np.arange(len(states)), actions] = 1
        after[:, :9] *= -1
        after[:, 9] = 1 - after[:, 9]
        win = np.array([won(board) for board in after[:, :9].tolist()])
        return Transition(after, win.astype(np.float32), win | (after[:, :9] != 0).all(1), after[:, 9])


def positions(count: int, seed: int) -> np.ndarray:
    """Random positions of three to six stones that are not over."""
    rng, found = np.random.default_rng(seed), []
    while len(found) < count:
        board: tuple[int, ...] = (0,) * 9
        stones = int(rng.integers(3, 7))
        for _ in range(stones):
            board = played(board, int(rng.choice([i for i in range(9) if not board[i]])))
            if won(board):
                break
        else:
            found.append([*board, stones % 2])
    return np.array(found, np.int8)


def best_moves(board: list[int]) -> set[int]:
    free = [i for i in range(9) if not board[i]]
    worth = {move: -minimax(played(tuple(board), move)) for move in free}
    return {move for move in free if worth[move] == max(worth.values())}


@pytest.mark.parametrize("method", RULES)
@pytest.mark.parametrize("how", [{"discount": -1.0}, {"players": 2}])
def test_solved_positions_equal_minimax(method: str, how: dict[str, Any]) -> None:
    roots = positions(20, 0)
    result = search(TicTacToe(), roots, method=method, num_simulations=3000, solve=True, **how)
    exact = [minimax(tuple(board)) for board in roots[:, :9].tolist()]
    np.testing.assert_allclose(result.value, exact, atol=1e-5)
    for board, move in zip(roots[:, :9].tolist(), result.action.tolist(), strict=True):
        assert move in best_moves(board)


@pytest.mark.parametrize("method", ["puct", "gumbel", "uct"])
def test_without_solving_the_best_moves_are_found(method: str) -> None:
    roots = positions(30, 1)
    result = search(TicTacToe(), roots, method=method, num_simulations=1500, discount=-1.0)
    found = zip(roots[:, :9].tolist(), result.action.tolist(), strict=True)
    assert np.mean([move in best_moves(board) for board, move in found]) >= 0.95


@pytest.mark.parametrize("leaves", [1, 4])
@pytest.mark.parametrize("method", RULES)
def test_turns_that_are_said_equal_turns_that_alternate(method: str, leaves: int) -> None:
    roots = positions(4, 2)
    first, second = (
        search(TicTacToe(), roots, method=method, num_simulations=100, leaves=leaves, c_explore=1.3, **how)
        for how in ({"discount": -1.0, "solve": True}, {"players": 2, "solve": True})
    )
    np.testing.assert_array_equal(first.visits, second.visits)
    np.testing.assert_array_equal(first.value, second.value)


class TwiceAMove:
    """Each player moves twice running; of three moves number k pays k, and the fourth move of all ends it."""

    num_actions = 3

    def expand(self, states: np.ndarray) -> Evaluation:
        size = len(states)
        turn = states % 4 // 2
        return Evaluation(np.zeros((size, 3)), np.zeros(size), np.ones((size, 3), bool), turn)

    def step(self, states: np.ndarray, actions: np.ndarray) -> Transition:
        return Transition(states + 1, actions.astype(np.float32), states == 3, np.minimum((states + 1) // 2, 1))


def test_turns_need_not_alternate() -> None:
    # two moves of mine, worth 2 each at best, then two of the other's: 2 + 2 - 2 - 2; after my first, 2 - 2 - 2
    world = TwiceAMove()
    result = search(world, np.array([0, 1, 2]), method="uct", num_simulations=400, players=2, solve=True)
    np.testing.assert_allclose(result.value, [0.0, -2.0, 4.0], atol=1e-5)
    assert result.action.tolist() == [2, 2, 2]


def test_a_game_goes_on_and_is_saved(tmp_path: Any) -> None:
    world, roots = TicTacToe(), positions(3, 4)
    options = Options(players=2)
    session = Session(world, roots, method="puct", num_simulations=60, options=options)
    move = session.run().visits.argmax(1)
    after = world.step(roots, move)
    if after.terminated.any():
        session.keep(np.flatnonzero(~after.terminated))
    kept = np.flatnonzero(~after.terminated)
    session.advance(move[kept], after.states[kept])
    session.save(tmp_path / "game.safetensors")
    again = Session.load(tmp_path / "game.safetensors", world)
    np.testing.assert_array_equal(again.run().visits, session.run().visits)


def test_two_players_in_a_closed_tree() -> None:
    # the mover takes the left for 0.4 at once, or goes right, where the other takes 1 from it
    arrays = {
        "first_child": [1, -1, 3, -1, -1], "child_count": [2, 0, 2, 0, 0], "terminal": [0, 1, 0, 1, 1],
        "reward": [0, 0.4, 0, 1.0, 0.0], "prior_logits": [0.0] * 5, "value": [0.0] * 5, "roots": [0],
    }  # fmt: skip
    arrays = {name: np.asarray(array) for name, array in arrays.items()}
    for method in RULES:
        found = search_closed(**arrays, num_simulations=40, method=method, discount=-1.0, solve=True)
        assert found.action.tolist() == [0]
        np.testing.assert_allclose(found.q[0], [0.4, -1.0], atol=1e-6)
    with pytest.raises(ConfigError, match="does not say whose turn it is"):
        search_closed(**arrays, num_simulations=4, method="puct", players=2)


@pytest.mark.parametrize(
    ("turn", "message"),
    [
        (None, "the simulator does not say whose turn it is"),
        (np.array([0, 2]), "at the roots: to_play of row 1 is 2; it must be 0 or 1"),
        (np.array([-1, 0]), "to_play of row 0 is -1"),
        (np.array([0.0, 1.0]), "to_play holds float64"),
        (np.array([0]), r"to_play has shape \(1,\); expected \(2,\)"),
    ],
)
def test_turns_are_checked(turn: Any, message: str) -> None:
    class Silent(TwiceAMove):
        def expand(self, states: np.ndarray) -> Evaluation:
            return super().expand(states)._replace(to_play=turn)

    with pytest.raises(ConfigError, match=message):
        search(Silent(), np.array([0, 1]), method="puct", num_simulations=4, players=2)
    with pytest.raises(ConfigError, match="players is 3; it must be a whole number from 1 to 2"):
        search(TwiceAMove(), np.array([0, 1]), method="puct", num_simulations=4, players=3)
