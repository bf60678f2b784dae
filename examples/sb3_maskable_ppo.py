"""sb3-contrib's MaskablePPO, unmodified, on the native batch of TokenTree-v0."""

from __future__ import annotations

from sb3_contrib import MaskablePPO

import treegym
from treegym.agents.play.evaluation import vector_world
from treegym.agents.play.vec_env import WorldVecEnv

TREE = "synthetic:roots=40,depth=5,branching=3,seed=0"


def main(steps: int = 4_096) -> float:
    print(f"treegym {treegym.__version__}")
    env = WorldVecEnv(vector_world("TokenTree-v0", 16, tree=TREE))
    model = MaskablePPO("MultiInputPolicy", env, n_steps=64, seed=0, device="cpu")
    model.learn(steps)
    finished = [info["r"] for info in model.ep_info_buffer]
    mean = sum(finished) / len(finished)
    print(f"mean return of the last {len(finished)} episodes: {mean:.2f}")
    return mean


if __name__ == "__main__":
    main()
