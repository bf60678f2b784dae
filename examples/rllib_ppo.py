"""Trains RLlib's PPO with action masking on the bundled tree. Needs Ray. Takes minutes."""

import sys

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
    .env_runners(num_env_runners=1, num_envs_per_env_runner=8)
    .training(train_batch_size=2_000, num_epochs=4, minibatch_size=256)
)
algorithm = config.build_algo()
for iteration in range(3):
    result = algorithm.train()
    runners = result["env_runners"]
    print(f"iteration {iteration}: mean return {runners['episode_return_mean']:.3f}")
algorithm.stop()
