"""Several tree files in a folder are walked as one tree, each opened when an episode is in it."""

import os
import tempfile
from pathlib import Path

import gymnasium as gym

import treegym  # noqa: F401 - registers the environments
from treegym.tree.forest import Forest
from treegym.tree.synthetic import synthetic_tree

STEPS = 200 if os.environ.get("TREEGYM_EXAMPLE_QUICK") else 2_000

with tempfile.TemporaryDirectory() as folder:
    for number in range(4):
        synthetic_tree(roots=50, depth=4, branching=3, seed=number).save(Path(folder) / f"part-{number}.tree")
    print(Forest.gather(folder))
    envs = gym.make_vec("TokenTree-v0", num_envs=32, tree=folder)
    observation, info = envs.reset(seed=0)
    walked = set()
    for _ in range(STEPS):
        observation, *_, info = envs.step(observation["action_mask"].argmax(1))
        walked |= {int(root) // 50 for root in info["root"]}
    print(f"episodes were in trees {sorted(walked)}")
