"""TorchRL's own collector, advantages and PPO loss on TokenTree-v0, its actions masked. Needs TorchRL."""

import sys

try:
    from tensordict.nn import TensorDictModule
    from torchrl.collectors import Collector
    from torchrl.modules import MaskedCategorical, ProbabilisticActor, ValueOperator
    from torchrl.objectives import ClipPPOLoss
    from torchrl.objectives.value import GAE
except ImportError as error:
    print(f"TorchRL is not installed: {error}", file=sys.stderr)
    sys.exit(3)

import torch

from treegym.integrations.torchrl import make_env


def layers(seen: int, out: int) -> torch.nn.Module:
    return torch.nn.Sequential(torch.nn.Linear(seen, 64), torch.nn.Tanh(), torch.nn.Linear(64, out))


def main(frames: int = 8_192) -> tuple[float, float]:
    """Trains, and returns the mean return of the first and of the last episodes."""
    torch.manual_seed(0)
    env = make_env("TokenTree-v0", seed=0, categorical=True, tree="synthetic:roots=40,depth=5,branching=3,seed=0")
    seen, actions = env.observation_spec["observations"].shape[-1], env.action_spec.space.n
    actor = ProbabilisticActor(
        TensorDictModule(layers(seen, actions), in_keys=["observations"], out_keys=["logits"]),
        in_keys={"logits": "logits", "mask": "action_mask"}, distribution_class=MaskedCategorical,
        return_log_prob=True, spec=env.action_spec,
    )  # fmt: skip
    critic = ValueOperator(layers(seen, 1), in_keys=["observations"])
    loss, gae = ClipPPOLoss(actor, critic), GAE(gamma=1.0, lmbda=0.95, value_network=critic)
    optimiser = torch.optim.Adam(loss.parameters(), lr=1e-3)
    means = []
    collector = Collector(env, actor, frames_per_batch=512, total_frames=frames)
    for batch in collector:
        with torch.no_grad():
            gae(batch)
        for _ in range(8):
            for part in torch.randperm(len(batch)).split(128):
                parts = loss(batch[part])
                total = parts["loss_objective"] + parts["loss_critic"] + parts["loss_entropy"]
                optimiser.zero_grad()
                total.backward()
                optimiser.step()
        means.append(float(batch["next", "reward"].sum() / batch["next", "done"].sum()))  # per episode
    collector.shutdown()
    return sum(means[:3]) / 3, sum(means[-3:]) / 3


if __name__ == "__main__":
    before, after = main()
    print(f"mean return: {before:.3f} at first, {after:.3f} at last")
    sys.exit(0 if after > before else 1)
