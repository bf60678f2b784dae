"""Stable-Baselines3's own PPO, unmodified, on TokenTree-v0."""

from __future__ import annotations

import gymnasium as gym
from stable_baselines3 import PPO
from stable_baselines3.common.evaluation import evaluate_policy

import treegym

TREE = "synthetic:roots=40,depth=5,branching=3,seed=0"


def main(steps: int = 4_096) -> float:
    print(f"treegym {treegym.__version__}")
    env = gym.make("TokenTree-v0", tree=TREE)
    model = PPO("MultiInputPolicy", env, n_steps=512, seed=0, device="cpu")  # unmasked: illegal actions cost a little
    model.learn(steps)
    mean, _ = evaluate_policy(model, env, 20, warn=False)
    print(f"mean return {mean:.2f}")
    return float(mean)


if __name__ == "__main__":
    main()
