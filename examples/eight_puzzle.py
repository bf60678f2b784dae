"""An 8-puzzle as an environment of one's own, which AlphaZero learns and then solves a board of.

It pays 1 when all tiles lie in order and nothing on the way. It copies itself (`clone_state`), which is quicker than
being copied. Run: python examples/eight_puzzle.py
"""

import os
from typing import Any

import gymnasium as gym
import numpy as np

from treegym.agents.registry import make_agent

SIDE = 3
CELLS = SIDE * SIDE
STEPS = ((-1, 0), (1, 0), (0, -1), (0, 1))  # up, down, left, right


class EightPuzzle(gym.Env):
    """Eight tiles and a hole on a board of 3 x 3, in order but for so many moves, none of which undid the last.

    Seen is which tile lies where, one of nine for each cell; an action moves the hole. A move over the edge is illegal
    (`action_mask`).

    Args:
        moves: how far the board was scrambled.
    """

    observation_space = gym.spaces.Dict(
        {"observations": gym.spaces.Box(0, 1, (CELLS * CELLS,)), "action_mask": gym.spaces.MultiBinary(4)}
    )
    action_space = gym.spaces.Discrete(4)

    def __init__(self, moves: int = 20) -> None:
        self.moves = moves
        self.board = tuple(range(CELLS))  # 0 is the hole, which belongs into the first corner

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        super().reset(seed=seed)
        self.board = tuple(range(CELLS))
        while self.solved():
            undone = -1
            for _ in range(self.moves):
                free = [action for action in np.flatnonzero(self.legal()).tolist() if action != undone]
                action = int(self.np_random.choice(free))
                self.slide(action)
                undone = action ^ 1  # up and down, left and right
        return self.see(), {}

    def step(self, action: int) -> tuple[dict[str, np.ndarray], float, bool, bool, dict[str, Any]]:
        if self.legal()[action]:
            self.slide(int(action))
        return self.see(), float(self.solved()), self.solved(), False, {}

    def solved(self) -> bool:
        """Returns whether all tiles lie in order."""
        return self.board == tuple(range(CELLS))

    def legal(self) -> np.ndarray:
        """Returns where the hole can go, int8 [4]."""
        row, column = divmod(self.board.index(0), SIDE)
        return np.array([row > 0, row < SIDE - 1, column > 0, column < SIDE - 1], np.int8)

    def slide(self, action: int) -> None:
        """Moves the hole."""
        hole = self.board.index(0)
        other = hole + STEPS[action][0] * SIDE + STEPS[action][1]
        board = list(self.board)
        board[hole], board[other] = board[other], 0
        self.board = tuple(board)

    def see(self) -> dict[str, np.ndarray]:
        """Returns the observation."""
        seen = np.zeros(CELLS * CELLS, np.float32)
        seen[np.arange(CELLS) * CELLS + self.board] = 1.0
        return {"observations": seen, "action_mask": self.legal()}

    def clone_state(self) -> tuple[int, ...]:
        return self.board

    def restore_state(self, board: tuple[int, ...]) -> dict[str, np.ndarray]:
        self.board = board
        return self.see()


gym.register("EightPuzzle-v0", EightPuzzle, max_episode_steps=60)


if __name__ == "__main__":
    quick = "TREEGYM_EXAMPLE_QUICK" in os.environ
    env = gym.make("EightPuzzle-v0", moves=6 if quick else 20)
    agent = make_agent("alphazero", env, seed=0).learn(300 if quick else 60_000, log_interval=0)
    seen, _ = env.reset(seed=1)
    walk, over = [], False
    while not over:
        action, _ = agent.predict(seen, deterministic=True)
        seen, reward, ended, cut, _ = env.step(int(action))
        walk.append(("up", "down", "left", "right")[int(action)])
        over = ended or cut
    print("solved:" if ended else "not solved:", *walk)
