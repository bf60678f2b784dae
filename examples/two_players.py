"""AlphaZero learns a game of two players: connect four on a board of 5 x 4, held against exact minimax.

A game is an environment whose observations and rewards are those of the player to move; ``gamma=-1.0`` makes the one's
gain the other's loss, in search and in learning. Takes minutes. Run: python examples/two_players.py
"""

import functools
import os
from typing import Any

import gymnasium as gym
import numpy as np

from treegym.agents import AlphaZero
from treegym.agents.registry import make_agent

WIDTH, HEIGHT = 5, 4
STEP = HEIGHT + 1  # bits of a column: a stone is a bit, and the bit above the top is always empty
BOTTOM = [1 << STEP * column for column in range(WIDTH)]
TOP = [1 << STEP * column + HEIGHT - 1 for column in range(WIDTH)]
CELLS = np.array([STEP * column + row for column in range(WIDTH) for row in range(HEIGHT)])


def stone(board: Any, bottom: Any) -> Any:
    """Returns the bit that a stone thrown into the column above a bottom sets; for numbers and arrays of them."""
    return (board + bottom) & bottom * ((1 << HEIGHT) - 1)


def four(stones: Any) -> Any:
    """Returns whether some stones hold four in a row (not 0 for yes)."""
    found = 0
    for shift in (1, STEP - 1, STEP, STEP + 1):
        pairs = stones & stones >> shift
        found = found | pairs & pairs >> 2 * shift
    return found


def free(board: int) -> np.ndarray:
    """Returns which columns are not full, bool [WIDTH]."""
    return np.array([board & top == 0 for top in TOP])


def after(mine: int, theirs: int, column: int) -> tuple[int, int]:
    """Returns the board after a move as the other player sees it."""
    return theirs, mine | stone(mine | theirs, BOTTOM[column])


@functools.cache
def reaches(mine: int, theirs: int, goal: int) -> bool:
    """Returns whether the player to move can force a win (goal 1), or at least a draw (0)."""
    moves = [after(mine, theirs, column) for column in (2, 1, 3, 0, 4) if not (mine | theirs) & TOP[column]]
    won = any(four(stones) for _, stones in moves)
    return won or (any(not reaches(*then, 1 - goal) for then in moves) if moves else goal == 0)


def minimax(mine: int, theirs: int) -> int:
    """What a position is worth to the player to move: 1 won, 0 drawn, -1 lost."""
    return -1 if four(theirs) else reaches(mine, theirs, 0) + reaches(mine, theirs, 1) - 1


class ConnectFour(gym.Env):
    """The board as the player to move sees it; a move that makes four in a row pays that player 1."""

    observation_space = gym.spaces.Dict(
        {"observations": gym.spaces.Box(0, 1, (2 * WIDTH * HEIGHT,)), "action_mask": gym.spaces.MultiBinary(WIDTH)}
    )
    action_space = gym.spaces.Discrete(WIDTH)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        super().reset(seed=seed)
        return self.restore_state((0, 0)), {}

    def step(self, action: int) -> tuple[dict[str, np.ndarray], float, bool, bool, dict[str, Any]]:
        seen = self.restore_state(after(*self.board, int(action)))
        won = bool(four(self.board[1]))
        return seen, float(won), won or not free(sum(self.board)).any(), False, {}

    def clone_state(self) -> tuple[int, int]:
        return self.board

    def restore_state(self, board: tuple[int, int]) -> dict[str, np.ndarray]:
        self.board = board
        seen = np.concatenate([board[0] >> CELLS & 1, board[1] >> CELLS & 1]).astype(np.float32)
        return {"observations": seen, "action_mask": free(sum(board)).astype(np.int8)}

    def images(self, rows: dict[str, np.ndarray]) -> list[tuple[dict[str, np.ndarray], np.ndarray]]:
        """Returns how boards look in a mirror, and the columns' names there; AlphaZero learns from both."""
        seen = rows["observations"].reshape(-1, 2, WIDTH, HEIGHT)[:, :, ::-1].reshape(rows["observations"].shape)
        return [({"observations": seen, "action_mask": rows["action_mask"][:, ::-1]}, np.arange(WIDTH)[::-1])]


def positions(count: int, seed: int) -> list[tuple[int, int]]:
    """Returns positions out of random games in which one legal move is worse than another."""
    rng, found = np.random.default_rng(seed), []
    while len(found) < count:
        board = (0, 0)
        for _ in range(int(rng.integers(WIDTH * HEIGHT))):
            board = after(*board, int(rng.choice(np.flatnonzero(free(sum(board))))))
            if four(board[1]):
                break
        else:
            found += [board] * (len({minimax(*after(*board, int(c))) for c in np.flatnonzero(free(sum(board)))}) > 1)
    return found


def best_moves(agent: AlphaZero, boards: list[tuple[int, int]]) -> float:
    """Returns the share of positions in which the agent plays a best move."""
    agent.watch(env := ConnectFour())
    played = [after(*board, int(agent.predict(env.restore_state(board), deterministic=True)[0])) for board in boards]
    return float(np.mean([-minimax(*then) == minimax(*board) for board, then in zip(boards, played, strict=True)]))


if __name__ == "__main__":
    quick = "TREEGYM_EXAMPLE_QUICK" in os.environ
    boards = positions(100 if quick else 1000, seed=0)
    agent = make_agent("alphazero", ConnectFour(), gamma=-1.0, seed=0)
    for moves in (0, 500) if quick else (0, *[15_000] * 6):
        if moves:
            agent.learn(moves, log_interval=0, reset_num_timesteps=False)
        print(f"{agent.num_timesteps:7d} moves: {best_moves(agent, boards):.3f} of its moves are best")
