"""Agents from elsewhere, unmodified, train on TokenTree and beat the random policy."""

from __future__ import annotations

from collections.abc import Callable

import gymnasium as gym
import numpy as np
import pytest
import torch
from torch import nn

import treegym  # noqa: F401
from treegym.envs.flat import FlatVectorObservation
from treegym.envs.sb3 import AnnealRewards, NativeVecEnv

torch.set_num_threads(1)
TREE = "synthetic:roots=60,depth=5,branching=4,width=4,difficulty=0.1,seed=5"
EPISODES = 300


def _success(choose: Callable[[dict[str, np.ndarray]], np.ndarray]) -> float:
    """Returns the share of correct endings over seeded episodes; `choose` gives an action a lane."""
    env = gym.make_vec("TokenTree-v0", num_envs=50, tree=TREE)
    seen, _ = env.reset(seed=99)
    right = ended = 0
    while ended < EPISODES:
        seen, _, terminated, truncated, info = env.step(choose(seen))
        right += int(info["is_success"].sum())
        ended += int((terminated | truncated).sum())
    return right / ended


def _random(seed: int = 0) -> float:
    rng = np.random.default_rng(seed)
    return _success(lambda seen: (rng.random(seen["action_mask"].shape) * seen["action_mask"]).argmax(1))


def test_stable_baselines3_ppo_beats_random() -> None:
    from stable_baselines3 import PPO

    model = PPO(
        "MultiInputPolicy", NativeVecEnv("TokenTree-v0", num_envs=32, tree=TREE, illegal_penalty=0.3, max_children=4),
        n_steps=64, batch_size=512, learning_rate=1e-3, seed=0, device="cpu",
    )  # fmt: skip
    model.learn(60_000)
    narrow = gym.make_vec("TokenTree-v0", num_envs=50, tree=TREE, max_children=4)
    seen, _ = narrow.reset(seed=99)
    right = ended = 0
    while ended < EPISODES:
        actions, _ = model.predict(seen, deterministic=True)
        seen, _, terminated, truncated, info = narrow.step(actions)
        right += int(info["is_success"].sum())
        ended += int((terminated | truncated).sum())
    assert right / ended > _random() + 0.1


def test_maskable_ppo_beats_random() -> None:
    from sb3_contrib import MaskablePPO

    env = NativeVecEnv("TokenTree-v0", num_envs=32, tree=TREE)
    model = MaskablePPO("MultiInputPolicy", env, n_steps=64, batch_size=512, learning_rate=1e-3, seed=0, device="cpu")
    model.learn(40_000)

    def choose(seen: dict[str, np.ndarray]) -> np.ndarray:
        return model.predict(seen, action_masks=seen["action_mask"].astype(bool), deterministic=True)[0]

    assert _success(choose) > _random() + 0.15


def test_a_single_file_trainer_beats_random() -> None:
    """A CleanRL-style loop on the flat wrapper: rollouts of a native batch, GAE, clipped updates, masked logits."""
    torch.manual_seed(0)
    lanes, horizon = 64, 32
    env = FlatVectorObservation(gym.make_vec("TokenTree-v0", num_envs=lanes, tree=TREE))
    size, actions = env.single_observation_space.shape[0], int(env.single_action_space.n)
    actor = nn.Sequential(nn.Linear(size, 64), nn.Tanh(), nn.Linear(64, actions))
    critic = nn.Sequential(nn.Linear(size, 64), nn.Tanh(), nn.Linear(64, 1))
    optimizer = torch.optim.Adam([*actor.parameters(), *critic.parameters()], lr=2e-3)

    def distribution(obs: torch.Tensor, mask: torch.Tensor) -> torch.distributions.Categorical:
        return torch.distributions.Categorical(logits=actor(obs).masked_fill(~mask, -1e9))

    seen, _ = env.reset(seed=0)
    for _ in range(40):
        store: dict[str, list[torch.Tensor]] = {k: [] for k in ("obs", "mask", "action", "logp", "reward", "done", "v")}
        for _ in range(horizon):
            obs, mask = torch.from_numpy(seen), torch.from_numpy(env.action_masks())
            with torch.no_grad():
                policy = distribution(obs, mask)
                action = policy.sample()
                value = critic(obs).squeeze(1)
            seen, reward, terminated, truncated, _ = env.step(action.numpy())
            done = torch.from_numpy(terminated | truncated)
            row = (obs, mask, action, policy.log_prob(action), torch.from_numpy(reward).float(), done.float(), value)
            for key, item in zip(store, row, strict=True):
                store[key].append(item)
        data = {key: torch.stack(items) for key, items in store.items()}
        with torch.no_grad():
            following = critic(torch.from_numpy(seen)).squeeze(1)
        advantage, running = torch.zeros_like(data["reward"]), torch.zeros(lanes)
        for t in reversed(range(horizon)):
            ahead = following if t == horizon - 1 else data["v"][t + 1]
            delta = data["reward"][t] + 0.99 * ahead * (1 - data["done"][t]) - data["v"][t]
            running = delta + 0.99 * 0.95 * (1 - data["done"][t]) * running
            advantage[t] = running
        flat = {key: value.flatten(0, 1) for key, value in data.items()}
        gain, target = advantage.flatten(), (advantage + data["v"]).flatten()
        for _ in range(4):
            for part in torch.randperm(len(gain)).split(512):
                policy = distribution(flat["obs"][part], flat["mask"][part])
                ratio = (policy.log_prob(flat["action"][part]) - flat["logp"][part]).exp()
                scaled = (gain[part] - gain[part].mean()) / (gain[part].std() + 1e-8)
                surrogate = torch.min(ratio * scaled, ratio.clamp(0.8, 1.2) * scaled).mean()
                error = (critic(flat["obs"][part]).squeeze(1) - target[part]).square().mean()
                loss = -surrogate + 0.5 * error - 0.005 * policy.entropy().mean()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()

    def choose(seen: dict[str, np.ndarray]) -> np.ndarray:
        with torch.no_grad():
            logits = actor(torch.from_numpy(seen["observations"])).masked_fill(
                torch.from_numpy(seen["action_mask"] == 0), -1e9
            )
        return logits.argmax(1).numpy()

    assert _success(choose) > _random() + 0.15


def test_options_reach_the_lanes() -> None:
    env = NativeVecEnv("TokenTree-v0", num_envs=3, tree=TREE, split="all")
    env.set_options([{"root": 4}, {}, {"root": 2}])
    env.reset()
    roots = env.vector.unwrapped.world.tables.root_index[env.vector.unwrapped.nodes]
    assert (roots[0], roots[2]) == (4, 2)
    env.set_options({"root": 1})
    env.reset()
    assert (env.vector.unwrapped.world.tables.root_index[env.vector.unwrapped.nodes] == 1).all()


@pytest.mark.parametrize("kind", ["batch", "one", "own agent"])
def test_annealed_rewards_fall_while_training(kind: str) -> None:
    settings = {"tree": TREE, "reward": {"verifier": 1.0, "lmgt": {"guide": "primary", "weight": 0.5}}}
    if kind == "own agent":
        from treegym.agents import PPO as OwnPPO

        env = gym.make_vec("TokenTree-v0", num_envs=4, autoreset_mode="Disabled", **settings)
        model, world = OwnPPO("ChildPolicy", env, seed=0), env.unwrapped.world
    else:
        env = (
            NativeVecEnv("TokenTree-v0", num_envs=4, **settings)
            if kind == "batch"
            else gym.make("TokenTree-v0", **settings)
        )
        from stable_baselines3 import PPO

        model = PPO("MultiInputPolicy", env, n_steps=32, batch_size=32, seed=0)
        world = env.vector.unwrapped.world if kind == "batch" else env.unwrapped.world
    before = world.tables.cells["pays"].copy()
    model.learn(1000, callback=AnnealRewards())
    assert 0.2 < world.table.progress < 1.0
    assert np.abs(world.tables.cells["pays"]).sum() < np.abs(before).sum()
