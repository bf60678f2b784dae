"""Small agents that suites under test name by import path."""

from __future__ import annotations

import os
import signal
import time
from typing import Any

import numpy as np

from treegym.rewards import PathView


class Chance:
    """Chooses any legal child; does not learn."""

    learns = False

    def __init__(self, env: Any, *, seed: int, slow: float = 0.0) -> None:
        self.rng = np.random.default_rng(seed)
        self.slow = slow

    def predict(self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = False):
        time.sleep(self.slow)
        mask = observation["action_mask"]
        return (self.rng.random(mask.shape) * mask).argmax(1), state


class Prior(Chance):
    """Takes the primary's likeliest child."""

    def __init__(self, env: Any, *, seed: int) -> None:
        super().__init__(env, seed=seed)
        self.layout = env.unwrapped.layout

    def predict(self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = False):
        _, children = self.layout.split(observation["observations"])
        prior = children[..., self.layout.child_column("prior")]
        return np.where(observation["action_mask"] > 0, prior, -np.inf).argmax(1), state


class Learner(Chance):
    """Mixes chance and the prior, more of the prior the longer it has stepped; counts its own forward passes."""

    learns = True

    def __init__(self, env: Any, *, seed: int) -> None:
        super().__init__(env, seed=seed)
        self.env, self.skill, self.forward_passes = env, 0.0, 0
        self.prior = Prior(env, seed=seed)

    def learn(self, total_timesteps: int) -> None:
        observation, _ = self.env.reset(seed=0)
        while True:
            actions, _ = self.predict(observation)
            observation, *_ = self.env.step(actions)
            self.forward_passes += len(actions)
            self.skill = min(1.0, self.skill + 0.02)

    def predict(self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = False):
        guess, _ = super().predict(observation)
        prior, _ = self.prior.predict(observation)
        return np.where(self.rng.random(len(guess)) < self.skill, prior, guess), state


class Failing(Chance):
    """Raises while it is evaluated."""

    def predict(self, *_: Any, **__: Any):
        raise RuntimeError("this agent is broken\nand says so on two lines")


class Dying(Chance):
    """Takes its whole process with it."""

    def predict(self, *_: Any, **__: Any):
        os.kill(os.getpid(), signal.SIGKILL)


def opinion(path: PathView) -> float:
    """A judge that likes short answers, and says nothing of some."""
    if is_unanswered(path.tokens):
        raise ConnectionError("the judge does not answer")
    return 1.0 / path.depth


def is_unanswered(tokens: np.ndarray) -> bool:
    """Returns whether `opinion` fails on this path: on every third or so."""
    return bool(tokens.sum() % 3 == 0)
