"""What learners did until a number of rollouts was over: for contests at equal work."""

from __future__ import annotations

from stable_baselines3.common.callbacks import BaseCallback

__all__ = ["Count"]


class Count(BaseCallback):
    """Counts rollouts, completions and tokens, and ends after so many rollouts."""

    def __init__(self, updates: int) -> None:
        super().__init__()
        self.updates = updates
        self.completions = self.tokens = self.rollouts = 0

    def _on_step(self) -> bool:
        return self.rollouts < self.updates

    def _on_rollout_end(self) -> None:
        rollout = self.locals["rollout"]
        self.completions += rollout.episodes
        self.tokens += rollout.steps
        self.rollouts += 1
