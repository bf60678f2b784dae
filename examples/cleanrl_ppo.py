"""PPO in one file, in CleanRL's manner: nothing but PyTorch and the native batch, with the mask in the policy."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import torch
from torch import nn
from torch.distributions import Categorical

import treegym  # noqa: F401 (registers the ids)

TREE = "synthetic:roots=40,depth=5,branching=3,seed=0"
LANES, STEPS, EPOCHS, BATCH = 64, 32, 4, 512
GAMMA, LAMBDA, CLIP, ENTROPY, RATE = 1.0, 0.95, 0.2, 0.01, 1e-3


class Agent(nn.Module):
    """A policy over the legal children and a critic."""

    def __init__(self, seen: int, actions: int) -> None:
        super().__init__()
        self.actor = nn.Sequential(nn.Linear(seen, 64), nn.Tanh(), nn.Linear(64, actions))
        self.critic = nn.Sequential(nn.Linear(seen, 64), nn.Tanh(), nn.Linear(64, 1))

    def forward(self, seen: torch.Tensor, mask: torch.Tensor) -> tuple[Categorical, torch.Tensor]:
        logits = self.actor(seen).masked_fill(~mask, -1e9)
        return Categorical(logits=logits), self.critic(seen).squeeze(-1)


def tensors(observation: dict[str, np.ndarray]) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.as_tensor(observation["observations"]), torch.as_tensor(observation["action_mask"], dtype=torch.bool)


def main(updates: int = 40) -> tuple[float, float]:
    """Trains, and returns the mean return of the first and of the last updates."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    envs = gym.make_vec("TokenTree-v0", num_envs=LANES, tree=TREE, autoreset_mode="SameStep")
    observation, _ = envs.reset(seed=0)
    seen, mask = tensors(observation)
    agent = Agent(seen.shape[1], mask.shape[1])
    optimiser = torch.optim.Adam(agent.parameters(), lr=RATE)
    means, running = [], np.zeros(LANES)
    for _ in range(updates):
        rows, finished = [], []
        for _ in range(STEPS):
            with torch.no_grad():
                policy, value = agent(seen, mask)
                action = policy.sample()
            observation, reward, terminated, truncated, _ = envs.step(action.numpy())
            done = terminated | truncated  # where episodes end they are cut off by their budget at most, worth nothing
            rows.append((seen, mask, action, policy.log_prob(action), value, torch.as_tensor(reward), done))
            running += reward
            finished += running[done].tolist()
            running[done] = 0.0
            seen, mask = tensors(observation)
        means.append(float(np.mean(finished)))

        # generalised advantages (Schulman et al. 2016, https://arxiv.org/abs/1506.02438), last step first
        with torch.no_grad():
            following = agent(seen, mask)[1]
        advantages, ahead = [], torch.zeros(LANES)
        for *_, value, reward, done in reversed(rows):
            going = torch.as_tensor(~done, dtype=torch.float32)
            ahead = reward.float() + GAMMA * following * going - value + GAMMA * LAMBDA * going * ahead
            advantages.insert(0, ahead)
            following = value
        advantage = torch.stack(advantages).flatten()
        old_seen, old_mask, taken, old_logp, old_value = (
            torch.stack([r[i] for r in rows]).flatten(0, 1) for i in range(5)
        )
        target = advantage + old_value

        for _ in range(EPOCHS):
            for part in torch.randperm(len(advantage)).split(BATCH):
                policy, value = agent(old_seen[part], old_mask[part])
                ratio = (policy.log_prob(taken[part]) - old_logp[part]).exp()
                gain = (advantage[part] - advantage[part].mean()) / (advantage[part].std() + 1e-8)
                surrogate = torch.min(ratio * gain, ratio.clamp(1 - CLIP, 1 + CLIP) * gain).mean()
                loss = -surrogate + 0.5 * (value - target[part]).square().mean() - ENTROPY * policy.entropy().mean()
                optimiser.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(agent.parameters(), 0.5)
                optimiser.step()
    return float(np.mean(means[:3])), float(np.mean(means[-3:]))


if __name__ == "__main__":
    before, after = main()
    print(f"mean return: {before:.3f} in the first updates, {after:.3f} in the last")
