"""Walks of the oracle as a Minari data set, and behaviour cloning by d3rlpy learning from it. Needs both libraries."""

import os
import sys
import tempfile

try:
    import d3rlpy
    import minari
except ImportError as error:
    print(f"minari or d3rlpy is not installed: {error}", file=sys.stderr)
    sys.exit(3)

import gymnasium as gym
import numpy as np

import treegym  # noqa: F401 (registers the ids)
from treegym.integrations.minari import export, walks_of

WORLD = {"tree": "synthetic:roots=200,depth=5,branching=4,width=4,seed=0", "split": "all"}


def main(steps: int = 2_000) -> tuple[float, float]:
    """Clones the oracle from a data set, and returns the mean return of a random walker and of the clone."""
    os.environ.setdefault("MINARI_DATASETS_PATH", tempfile.mkdtemp())
    env = gym.make("TokenTree-v0", **WORLD)
    export("treegym/oracle-v0", walks_of("oracle", **WORLD), env, algorithm="oracle")
    episodes = list(minari.load_dataset("treegym/oracle-v0").iterate_episodes())
    data = d3rlpy.dataset.MDPDataset(
        observations=np.concatenate([e.observations["observations"][:-1] for e in episodes]).astype(np.float32),
        actions=np.concatenate([e.actions for e in episodes]).reshape(-1, 1),
        rewards=np.concatenate([e.rewards for e in episodes]),
        terminals=np.concatenate([e.terminations | e.truncations for e in episodes]),
        action_size=int(env.action_space.n),
        action_space=d3rlpy.constants.ActionSpace.DISCRETE,
    )
    d3rlpy.seed(0)
    clone = d3rlpy.algos.DiscreteBCConfig(batch_size=64, learning_rate=1e-3).create(device="cpu:0")
    clone.fit(data, n_steps=steps, n_steps_per_epoch=steps, show_progress=False,
              logger_adapter=d3rlpy.logging.NoopAdapterFactory())  # fmt: skip

    def mean_return(choose) -> float:
        totals = []
        for root in range(len(episodes)):
            seen, _ = env.reset(seed=0, options={"root": root})
            done, total = False, 0.0
            while not done:
                seen, reward, terminated, truncated, _ = env.step(choose(seen))
                total, done = total + float(reward), terminated or truncated
            totals.append(total)
        return float(np.mean(totals))

    rng = np.random.default_rng(0)

    def cloned(seen) -> int:
        chosen = int(clone.predict(seen["observations"][None].astype(np.float32))[0])
        return chosen if seen["action_mask"][chosen] else 0  # d3rlpy knows no masks

    return mean_return(lambda seen: int(rng.choice(np.flatnonzero(seen["action_mask"])))), mean_return(cloned)


if __name__ == "__main__":
    random, cloned = main()
    print(f"mean return: {random:.3f} of a random walker, {cloned:.3f} of the oracle's clone")
    sys.exit(0 if cloned > random else 1)
