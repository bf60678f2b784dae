"""How fast learning is, in environment steps per CPU-second on one thread, beside Stable-Baselines3 and sb3-contrib.

Two pairs, each with the same network, batch size, epochs and number of environment steps, interleaved: our PPO and
MaskablePPO on TokenTree-v0 (both stepped through the native batch), our PPO and SB3's PPO on CartPole-v1 with RL Zoo's
settings. The regret to the exact optimum after training is printed for both, so that speed is not bought with learning.
"""

from __future__ import annotations

import statistics
from typing import Any

import common
import gymnasium as gym
import numpy as np
import torch

import treegym
from treegym.agents import PPO
from treegym.agents.play.evaluation import play_roots, vector_world
from treegym.agents.play.vec_env import WorldVecEnv
from treegym.agents.play.world import World

LANES = 64
TREE = {"n_steps": 32, "batch_size": 64, "n_epochs": 10, "learning_rate": 3e-4, "gamma": 0.99, "gae_lambda": 0.95}
ZOO = {"n_steps": 32, "batch_size": 256, "n_epochs": 20, "gamma": 0.98, "gae_lambda": 0.8, "ent_coef": 0.0}
SEEDS = (0, 1, 2)


def tree_world(split: str, lanes: int) -> World:
    return vector_world("TokenTree-v0", lanes, split=split)


def cartpole_peer(seed: int) -> Any:
    from stable_baselines3 import PPO as Theirs
    from stable_baselines3.common.env_util import make_vec_env

    env = make_vec_env("CartPole-v1", n_envs=8, seed=seed)
    return Theirs(
        "MlpPolicy", env, device="cpu", seed=seed, learning_rate=lambda left: 1e-3 * left,
        clip_range=lambda left: 0.2 * left, **ZOO,
    )  # fmt: skip


def cartpole_ours(seed: int) -> PPO:
    return PPO("MlpPolicy", "CartPole-v1", n_envs=8, seed=seed, learning_rate="lin_0.001", clip_range="lin_0.2", **ZOO)


def tree_peer(seed: int) -> Any:
    from sb3_contrib import MaskablePPO

    return MaskablePPO("MultiInputPolicy", WorldVecEnv(tree_world("train", LANES)), device="cpu", seed=seed, **TREE)


def tree_ours(seed: int) -> PPO:
    return PPO("MultiInputPolicy", tree_world("train", LANES), seed=seed, **TREE)


def regret(agent: Any, world: World) -> float:
    """Returns the mean gap to the exact optimum over held-out roots."""
    tree = world.lanes.world  # type: ignore[attr-defined]
    best = tree.solution().value[tree.tree.root_node[tree.pool]]
    return float(np.mean(best - play_roots(_Masked(agent), world).returns))


class _Masked:
    """Hands the mask to MaskablePPO, whose `predict` does not look for it in the observation."""

    def __init__(self, agent: Any) -> None:
        self._agent = agent

    def predict(self, rows: Any, *, deterministic: bool) -> Any:
        return self._agent.predict(rows, deterministic=deterministic, action_masks=rows["action_mask"].astype(bool))


def main() -> None:
    args = common.parse(__doc__ or "")
    try:
        import sb3_contrib  # noqa: F401
    except ImportError:
        common.peer_absent("sb3-contrib", 'pip install "treegym[dev]"')
    torch.set_num_threads(1)
    rounds, chunk = (3, 2048) if args.quick else (10, 8192)
    gym.logger.min_level = gym.logger.ERROR
    assert treegym.__version__
    figures: dict[str, float] = {}
    cells: list[dict[str, Any]] = []
    held_out = tree_world("test", 400)
    pairs = {
        "ppo_vs_maskable_ppo": (tree_ours, tree_peer, "TokenTree-v0", "MaskablePPO"),
        "ppo_vs_sb3_cartpole": (cartpole_ours, cartpole_peer, "CartPole-v1", "SB3 PPO"),
    }
    for key, (ours, theirs, env, peer) in pairs.items():
        agents = {"ours": ours(0), "theirs": theirs(0)}
        times = common.interleaved(
            {
                name: (lambda agent=agent: agent.learn(chunk, reset_num_timesteps=False))
                for name, agent in agents.items()
            },
            rounds=rounds,
            clock=common.cpu_seconds,
        )
        figures[key] = common.median_ratio(times["theirs"], times["ours"])
        for name, label in (("ours", "treegym PPO"), ("theirs", peer)):
            speed = statistics.median(chunk / seconds for seconds in times[name])
            cells.append({"env": env, "agent": label, "steps_per_cpu_s": speed})
    seeds = SEEDS[:1] if args.quick else SEEDS
    steps = 4096 if args.quick else 65_536
    for label, build in (("treegym PPO", tree_ours), ("MaskablePPO", tree_peer)):
        gaps = [regret(build(seed).learn(steps), held_out) for seed in seeds]
        low, high = common.mean_interval(gaps)
        cells.append(
            {"env": f"TokenTree-v0, {steps} steps", "agent": label, "regret": statistics.mean(gaps), "low": low,
             "high": high}
        )  # fmt: skip
    print(common.table([cell for cell in cells if "steps_per_cpu_s" in cell]))
    print(common.table([cell for cell in cells if "regret" in cell]))
    print("regret: gap to the exact optimum on the 400 held-out roots, 95 % t-interval over seeds")
    common.emit("train_speed", figures, cells)


if __name__ == "__main__":
    main()
