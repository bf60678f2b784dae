"""Trains PPO on a synthetic token tree and plays held-out prompts."""

from __future__ import annotations

import gymnasium as gym
import numpy as np

import treegym
from treegym.agents import PPO
from treegym.agents.play.evaluation import play_roots, vector_world

TREE = "synthetic:roots=100,depth=6,branching=3,seed=0"  # leave tree= out for the bundled tree


def main(steps: int = 5_000) -> float:
    print(f"treegym {treegym.__version__}")
    model = PPO("ChildPolicy", gym.make("TokenTree-v0", tree=TREE), seed=0, learning_rate=3e-3, n_episodes=128)
    held_out = vector_world("TokenTree-v0", 20, tree=TREE, split="test")
    before = float(np.mean(play_roots(model, held_out).success))
    model.learn(steps, log_interval=0)
    after = float(np.mean(play_roots(model, held_out).success))
    print(f"held-out prompts answered right: {before:.2f} before, {after:.2f} after {model.num_timesteps} steps")
    return after


if __name__ == "__main__":
    main()
