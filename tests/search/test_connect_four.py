"""Connect four on a board of 5 x 4, the game of `examples/two_players.py`, against exact minimax."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType

import numpy as np
import pytest

from treegym.search import Evaluation, Transition, search


@pytest.fixture(scope="module")
def game(module_of: Callable[[str], ModuleType]) -> ModuleType:
    return module_of("examples/two_players.py")


class Boards:
    """A state is the stones of the player to move and those of the other, as bits."""

    def __init__(self, game: ModuleType) -> None:
        self.game, self.num_actions = game, game.WIDTH
        self.bottom, self.top = np.array(game.BOTTOM), np.array(game.TOP)

    def expand(self, states: np.ndarray) -> Evaluation:
        free = (states.sum(1)[:, None] & self.top) == 0
        return Evaluation(np.zeros(free.shape), np.zeros(len(states)), free)

    def step(self, states: np.ndarray, actions: np.ndarray) -> Transition:
        mine, theirs = states.T
        mine = mine | self.game.stone(mine | theirs, self.bottom[actions])
        won = self.game.four(mine) != 0
        full = ((mine | theirs)[:, None] & self.top != 0).all(1)
        return Transition(np.stack([theirs, mine], 1), won.astype(np.float32), won | full)


def test_the_solver_knows_that_nobody_wins_from_the_empty_board(game: ModuleType) -> None:
    assert game.minimax(0, 0) == 0  # as in J. Tromp's table of boards, https://tromp.github.io/c4/c4.html


def test_the_environment_plays_by_the_rules(game: ModuleType) -> None:
    env = game.ConnectFour()
    env.reset(seed=0)
    for column in (0, 1, 0, 1, 0, 1):
        observation, reward, over, _, _ = env.step(column)
        assert (reward, over) == (0.0, False)
    assert observation["observations"].sum() == 6
    _, reward, over, _, _ = env.step(0)  # the fourth in column 0
    assert (reward, over) == (1.0, True)
    env.reset()
    for _ in range(game.HEIGHT):
        observation, *_ = env.step(2)
    assert observation["action_mask"].tolist() == [1, 1, 0, 1, 1]


@pytest.mark.parametrize("method", ["puct", "gumbel", "uct"])
def test_solved_positions_equal_minimax(game: ModuleType, method: str) -> None:
    boards = [board for board in game.positions(80, seed=1) if sum(board).bit_count() >= 13][:10]
    assert len(boards) == 10
    roots = np.array(boards)
    result = search(Boards(game), roots, method=method, num_simulations=20_000, solve=True, discount=-1.0)
    exact = [game.minimax(*board) for board in boards]
    np.testing.assert_allclose(result.value, exact, atol=1e-5)
    for board, move, worth in zip(boards, result.action.tolist(), exact, strict=True):
        assert -game.minimax(*game.after(*board, move)) == worth
