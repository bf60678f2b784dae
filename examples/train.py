"""Trains a learner on a synthetic token tree and plays held-out prompts: `python examples/train.py vapo`.

PPO by default; `dapo` and `vapo` learn from groups of episodes of one prompt, `alphazero` from its own searches (at
test time it plans without seeing the verdict). Leave tree= out for the bundled tree.
"""

from __future__ import annotations

import sys

import gymnasium as gym
import numpy as np

import treegym
from treegym.agents.play.evaluation import play_roots, vector_world
from treegym.agents.registry import make_agent

TREE = "synthetic:roots=100,depth=6,branching=3,seed=0"
SWITCHES = {
    "ppo": {"n_episodes": 128},
    "dapo": {"n_episodes": 128, "group_size": 8},
    "vapo": {"n_episodes": 128, "group_size": 8},
    "alphazero": {"n_episodes": 64, "num_simulations": 64},
}


def main(name: str = "ppo", steps: int = 5_000) -> float:
    print(f"treegym {treegym.__version__}")
    env = gym.make("TokenTree-v0", tree=TREE)
    model = make_agent(name, env, seed=0, learning_rate=3e-3, **SWITCHES.get(name, {}))
    held_out = vector_world("TokenTree-v0", 20, tree=TREE, split="test")
    before = float(np.mean(play_roots(model, held_out).success))
    model.learn(steps, log_interval=0)
    after = float(np.mean(play_roots(model, held_out).success))
    print(f"held-out prompts answered right: {before:.2f} before, {after:.2f} after {model.num_timesteps} steps")
    return after


if __name__ == "__main__":
    main(*sys.argv[1:])
