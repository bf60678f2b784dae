"""Trains AlphaZero on a synthetic token tree; at test time it plans without seeing the verdict."""

from __future__ import annotations

import gymnasium as gym
import numpy as np

import treegym
from treegym.agents import AlphaZero
from treegym.agents.play.evaluation import play_roots, vector_world

TREE = "synthetic:roots=100,depth=6,branching=3,seed=0"  # leave tree= out for the bundled tree


def main(steps: int = 5_000) -> float:
    print(f"treegym {treegym.__version__}")
    env = gym.make("TokenTree-v0", tree=TREE)
    model = AlphaZero("ChildPolicy", env, seed=0, num_simulations=64, n_episodes=64, learning_rate=3e-3)
    model.learn(steps, log_interval=0)
    held_out = vector_world("TokenTree-v0", 20, tree=TREE, split="test")
    after = float(np.mean(play_roots(model, held_out).success))
    print(f"held-out prompts answered right: {after:.2f} after {model.num_timesteps} steps of self-play")
    return after


if __name__ == "__main__":
    main()
