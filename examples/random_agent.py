"""Walks the bundled tree at random and compares with the exact chance of doing well and with the best possible."""

import gymnasium as gym
import numpy as np

import treegym  # noqa: F401 - registers the environments

envs = gym.make_vec("TokenTree-v0", num_envs=256, split="test")
rng = np.random.default_rng(0)
observation, info = envs.reset(seed=0)
correct, episodes = 0, 0
for _ in range(100):
    mask = observation["action_mask"]
    actions = (rng.random(mask.shape) * mask).argmax(axis=1)  # any legal child
    observation, reward, terminated, truncated, info = envs.step(actions)
    ended = terminated | truncated
    episodes += int(ended.sum())
    correct += int(info["is_success"][ended].sum())

world = envs.unwrapped.world
best = world.solution(1.0).value[world.tree.root_node[world.pool]].mean()
print(f"{episodes} episodes at random: {correct / episodes:.1%} correct; the best possible return is {best:.3f}")
