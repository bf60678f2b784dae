"""Your own reward in five lines, composed with bundled terms, and inspected at every step.

Run: python examples/custom_reward.py
"""

import gymnasium as gym
import numpy as np

import treegym.rewards as rewards


def tidy(path):
    """1 for an answer that ends with a full stop."""
    return float(path.text.endswith("."))


rewards.register("tidy", tidy)  # in a package of yours: an entry point in the group "treegym.rewards"

# The verifier opens the gate: behind a wrong answer "tidy" is not even asked.
reward = {"gate": {"by": "verifier", "then": {"tidy": 1.0, "similarity": 0.1}}, "length": -0.01}

env = gym.make("TokenTree-v0", tree="synthetic:roots=16,depth=5,branching=3,seed=0", reward=reward)
rng = np.random.default_rng(0)
observation, info = env.reset(seed=0)
done = False
while not done:
    legal = np.flatnonzero(info["action_mask"])
    observation, earned, terminated, truncated, info = env.step(int(rng.choice(legal)))
    parts = {name: round(float(part["raw"]), 3) for name, part in info["reward_terms"].items()}
    print(f"{info['text']!r:12} earned {earned:+.3f}  {parts}")
    done = terminated or truncated
print("right" if info["is_success"] else "wrong", "| as JSON:", rewards.build(reward).to_json())
