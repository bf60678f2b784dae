"""A room behind a locked door as an environment of one's own, and AlphaZero learning to get through.

It pays 1 at the goal and nothing on the way. It copies itself (`clone_state`), which is quicker than being copied.
Run: python examples/key_door.py
"""

import os
from typing import Any

import gymnasium as gym
import numpy as np

from treegym.agents.play.evaluation import play_roots, vector_world
from treegym.agents.registry import make_agent

STEPS = ((-1, 0), (1, 0), (0, -1), (0, 1))  # up, down, left, right


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


gym.register("KeyDoor-v0", KeyDoor, max_episode_steps=100)


if __name__ == "__main__":
    quick = "TREEGYM_EXAMPLE_QUICK" in os.environ
    agent = make_agent("alphazero", gym.make("KeyDoor-v0"), seed=0)
    for moves in (300,) if quick else (10_000, 10_000, 10_000):
        agent.learn(moves, log_interval=0, reset_num_timesteps=False)
        episodes = 4 if quick else 50
        played = play_roots(agent, vector_world("KeyDoor-v0", episodes), episodes=episodes, seed=1)
        print(f"{agent.num_timesteps:6d} moves: {played.returns.mean():.2f} of the doors are passed")
