"""Tianshou's own double DQN on TokenTree-v0, its actions masked. Needs Tianshou."""

import sys

try:
    from tianshou.algorithm import DQN
    from tianshou.algorithm.modelfree.dqn import DiscreteQLearningPolicy
    from tianshou.algorithm.optim import AdamOptimizerFactory
    from tianshou.data import Collector, CollectStats, VectorReplayBuffer
    from tianshou.env import DummyVectorEnv
    from tianshou.trainer import OffPolicyTrainerParams
    from tianshou.utils.net.common import Net
except ImportError as error:
    print(f"Tianshou is not installed: {error}", file=sys.stderr)
    sys.exit(3)

import gymnasium as gym
import numpy as np
import torch

import treegym  # noqa: F401 (registers the ids)
from treegym.integrations.tianshou import masked

TREE, LANES = "synthetic:roots=40,depth=5,branching=3,seed=0", 8


def main(steps: int = 8_000) -> tuple[float, float]:
    """Trains, and returns the mean return before and after."""
    np.random.seed(0)  # Tianshou explores by the global generator
    torch.manual_seed(0)
    envs = DummyVectorEnv([lambda: masked(gym.make("TokenTree-v0", tree=TREE)) for _ in range(LANES)])
    envs.seed(0)
    spaces = masked(gym.make("TokenTree-v0", tree=TREE))
    seen, actions = spaces.observation_space["obs"].shape, int(spaces.action_space.n)
    policy = DiscreteQLearningPolicy(
        model=Net(state_shape=seen, action_shape=actions, hidden_sizes=[64, 64]),
        action_space=spaces.action_space, observation_space=spaces.observation_space, eps_training=0.2,
    )  # fmt: skip
    algorithm = DQN(policy=policy, optim=AdamOptimizerFactory(lr=1e-3), gamma=1.0, target_update_freq=200)
    collector = Collector[CollectStats](algorithm, envs, VectorReplayBuffer(20_000, LANES), exploration_noise=True)
    tester = Collector[CollectStats](algorithm, envs)

    def tested() -> float:
        return float(tester.collect(n_episode=200, reset_before_collect=True).returns.mean())

    before = tested()
    algorithm.run_training(
        OffPolicyTrainerParams(
            training_collector=collector, max_epochs=1, epoch_num_steps=steps, collection_step_num_env_steps=80,
            batch_size=128, update_step_num_gradient_steps_per_sample=0.2, verbose=False, show_progress=False,
        )
    )  # fmt: skip
    return before, tested()


if __name__ == "__main__":
    before, after = main()
    print(f"mean return: {before:.3f} before, {after:.3f} after")
    sys.exit(0 if after > before else 1)
