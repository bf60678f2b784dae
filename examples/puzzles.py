"""Two worlds to plan in, an 8-puzzle and a room behind a locked door, and AlphaZero learning one of them.

Both pay 1 at the goal and nothing on the way. They copy themselves (`clone_state`), which is quicker than being
copied. Run: python examples/puzzles.py
"""

import os
from typing import Any

import gymnasium as gym
import numpy as np

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


class KeyDoor(gym.Env):
    """A room of `size` x `size` cells cut in two by a wall with a locked door: fetch the key, open, reach the corner.

    Where start, key, wall and door are is drawn in every episode. Seen is a map of each thing, and whether the key was
    taken. The four moves come first, then picking up what lies here and opening the door when next to it.

    Args:
        size: cells along each side.
    """

    action_space = gym.spaces.Discrete(6)

    def __init__(self, size: int = 6) -> None:
        self.size = size
        self.observation_space = gym.spaces.Box(0, 1, (5 * size * size + 1,))
        self.place = self.key = self.door = (0, 0)
        self.wall, self.held, self.open = 1, False, False

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        draw = self.np_random.integers
        self.wall = int(draw(1, self.size - 1))  # the column that is walled
        self.door = (int(draw(self.size)), self.wall)
        self.place = (int(draw(self.size)), int(draw(self.wall)))
        self.key = self.place
        while self.key == self.place:
            self.key = (int(draw(self.size)), int(draw(self.wall)))
        self.held = self.open = False
        return self.see(), {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        row, column = self.place
        if action < len(STEPS):
            there = row + STEPS[action][0], column + STEPS[action][1]
            inside = 0 <= there[0] < self.size and 0 <= there[1] < self.size
            if inside and (there[1] != self.wall or (there == self.door and self.open)):
                self.place = there
        elif action == len(STEPS):
            self.held = self.held or self.place == self.key
        elif self.held and abs(row - self.door[0]) + abs(column - self.door[1]) == 1:
            self.open = True
        reached = self.place == (self.size - 1, self.size - 1)
        return self.see(), float(reached), reached, False, {}

    def see(self) -> np.ndarray:
        """Returns the observation."""
        seen = np.zeros((5, self.size, self.size), np.float32)
        seen[0][self.place] = 1.0
        seen[1][self.key] = not self.held
        seen[2, :, self.wall] = 1.0
        seen[2][self.door] = 0.0
        seen[3][self.door] = not self.open
        seen[4, -1, -1] = 1.0
        return np.append(seen.ravel(), np.float32(self.held))

    def clone_state(self) -> tuple[Any, ...]:
        return self.place, self.key, self.door, self.wall, self.held, self.open

    def restore_state(self, state: tuple[Any, ...]) -> np.ndarray:
        self.place, self.key, self.door, self.wall, self.held, self.open = state
        return self.see()


gym.register("EightPuzzle-v0", EightPuzzle, max_episode_steps=60)
gym.register("KeyDoor-v0", KeyDoor, max_episode_steps=100)


if __name__ == "__main__":
    from treegym.agents.play.evaluation import play_roots, vector_world
    from treegym.agents.registry import make_agent

    quick = "TREEGYM_EXAMPLE_QUICK" in os.environ
    agent = make_agent("alphazero", gym.make("KeyDoor-v0"), seed=0)
    for moves in (0, 600) if quick else (0, 10_000, 10_000, 10_000):
        if moves:
            agent.learn(moves, log_interval=0, reset_num_timesteps=False)
        played = play_roots(agent, vector_world("KeyDoor-v0", 50), episodes=50, seed=1)
        print(f"{agent.num_timesteps:6d} moves: {played.returns.mean():.2f} of the doors are passed")
