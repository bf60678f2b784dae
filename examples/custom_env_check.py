"""An environment of one's own, held against everything TreeGym's environments promise."""

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from treegym import check_suite
from treegym.check.suite import CheckFailed

K = 4


class Countdown(gym.Env):
    """Take 1, 2 or 3 from a number; whoever reaches exactly zero is right. Taking more than is left is illegal."""

    metadata = {"render_modes": ["ansi", "rgb_array"], "render_fps": 4}  # noqa: RUF012

    def __init__(self, start: int = 11, render_mode: str | None = None) -> None:
        self.start, self.render_mode = start, render_mode
        self.observation_space = spaces.Dict(
            {
                "observations": spaces.Box(0.0, 1.0, (2,), np.float32),
                "action_mask": spaces.Box(0, 1, (K,), np.int8),
            }
        )
        self.action_space = spaces.Discrete(K)
        self.left, self.target = start, 0

    def action_masks(self) -> np.ndarray:
        return np.arange(K) <= max(self.left - 1, 0)

    def _observe(self) -> tuple[dict, dict]:
        mask = self.action_masks().astype(np.int8)
        seen = np.array([self.left / self.start, self.target / K], np.float32)
        info = {
            "action_mask": mask.copy(),
            "is_success": self.left == 0,
            "illegal_action": False,
            "vector_reward": np.zeros(1, np.float32),  # one objective
            "text": f"{self.left} left",
        }
        return {"observations": seen, "action_mask": mask}, info

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.left = self.start
        self.target = int(self.np_random.integers(K))
        return self._observe()

    def step(self, action):
        legal = bool(self.action_masks()[int(action)])
        if legal:
            self.left -= int(action) + 1
        observation, info = self._observe()
        info["illegal_action"] = not legal
        terminated = self.left == 0
        reward = (1.0 if terminated and int(action) == self.target else 0.0) if legal else -0.1
        info["vector_reward"][0] = reward
        return observation, float(reward), bool(terminated), False, info

    def render(self):
        if self.render_mode == "rgb_array":  # a bar as long as what is left
            image = np.full((8, self.start, 3), 255, np.uint8)
            image[:, : self.left] = 0
            return image
        return f"{self.left} left" if self.render_mode == "ansi" else None


gym.register("Countdown-v0", entry_point=f"{__name__}:Countdown", max_episode_steps=50)

if __name__ == "__main__":
    try:
        print("passed:", ", ".join(check_suite("Countdown-v0")))
    except CheckFailed as failure:
        print(f"the contract is not kept yet: {failure}")
