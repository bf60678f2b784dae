"""Trains RLlib's PPO with action masking on the bundled tree, beside a random policy. Needs Ray. Takes minutes."""

import sys

import gymnasium as gym

try:
    from ray.rllib.algorithms.ppo import PPOConfig
    from ray.rllib.core.rl_module.rl_module import RLModuleSpec
    from ray.rllib.examples.rl_modules.classes.action_masking_rlm import ActionMaskingTorchRLModule
except ImportError as error:
    print(f'RLlib is not installed ({error}): pip install "ray[rllib]" torch', file=sys.stderr)
    sys.exit(3)

# The id with its package in front is what remote workers need: importing treegym registers the environment.
config = (
    PPOConfig()
    .environment("treegym:TokenTree-v0")
    .rl_module(rl_module_spec=RLModuleSpec(module_class=ActionMaskingTorchRLModule))
    # two processes, each with 64 lanes of the native batch instead of 64 environments
    .env_runners(num_env_runners=2, num_envs_per_env_runner=64, gym_env_vectorize_mode="vector_entry_point")
    .training(train_batch_size=4_000, num_epochs=8, minibatch_size=256, lr=1e-3, gamma=1.0)
)
algorithm = config.build_algo()
learned = 0.0
for iteration in range(15):
    learned = algorithm.train()["env_runners"]["episode_return_mean"]
    print(f"iteration {iteration}: mean return {learned:.3f}", flush=True)
algorithm.stop()

env = gym.make("treegym:TokenTree-v0")
returns = []
for seed in range(1_000):
    observation, _ = env.reset(seed=seed)
    done, total = False, 0.0
    while not done:
        action = env.action_space.sample(observation["action_mask"])
        observation, reward, terminated, truncated, _ = env.step(action)
        total, done = total + float(reward), terminated or truncated
    returns.append(total)
at_random = sum(returns) / len(returns)
print(f"a random policy: {at_random:.3f}")
sys.exit(0 if learned > at_random else 1)
