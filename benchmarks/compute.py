"""When to stop thinking: learned controllers against hand-written ones and a bound; the speed of stepping.

On the bundled tree, whole chains, weighted majority by the judge's scores, held-out prompts. The best hand-written
controller is the best of a grid on the very prompts that it is judged on. The bound knows each prompt's chance of a
right chain, is told at once whether a chain is right, and pays for its shortest: no controller of whole chains can do
better. A gap closed is (learned - best hand-written) / (bound - best hand-written).
"""

from __future__ import annotations

import argparse
import statistics
from typing import Any

import gymnasium as gym
import numpy as np
from common import cpu_seconds, emit, interleaved, mean_interval, table

import treegym
from treegym.agents import PPO
from treegym.agents.registry import make_agent

WORLD: dict[str, Any] = {"max_branches": 8, "aggregate": "weighted", "segment": 24}
HAND = {
    **{f"majority of {n}": ("self_consistency", {"samples": n}) for n in (1, 2, 3, 4, 6, 8)},
    **{f"adaptive {t}": ("adaptive_consistency", {"threshold": t}) for t in (0.6, 0.7, 0.8, 0.95)},
    **{f"window of {w}": ("early_stopping", {"window": w}) for w in (2, 3, 4)},
    **{f"score {t}": ("score_threshold", {"threshold": t}) for t in (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)},
}  # fmt: skip


def judged(agent: Any, price: float, *, rounds: int = 4) -> tuple[float, float, float]:
    """Returns reward, accuracy and tokens (in average chains) on every held-out prompt, some times over."""
    env = gym.make_vec("TestTimeCompute-v0", num_envs=400, split="test", token_cost=price, **WORLD)
    pool = env.unwrapped.world.pool
    sums = np.zeros(3)
    for number in range(rounds):
        seen, _ = env.reset(seed=number, options={"roots": pool})
        state, over = None, np.zeros(len(pool), bool)
        while not over.all():
            action, state = agent.predict(seen, state=state, deterministic=True)
            seen, reward, ended, cut, info = env.step(action)
            now = ~over
            sums += reward[now].sum(), info["is_success"][now & ended].sum(), -info["vector_reward"][now, 1].sum()
            over |= ended | cut
    return tuple((sums / rounds / len(pool)).tolist())  # type: ignore[return-value]


def bound(price: float) -> float:
    """Returns the value of sampling until a chain is verified, or not at all, knowing each prompt's chance."""
    env = gym.make("TestTimeCompute-v0", split="test", token_cost=price, **WORLD)
    world: Any = env.unwrapped.world  # type: ignore[attr-defined]
    chains, values = world.chains, []
    for prompt in world.pool.tolist():
        here = chains.chains(prompt)
        right, n = int(chains.correct[here].sum()), here.stop - here.start
        shortest = float(chains.length[here].min()) / world.unit
        value = 0.0
        for left in range(1, world.branches + 1):  # draws left; chains drawn so far were all wrong
            chance = right / max(n - (world.branches - left), 1)
            value = max(0.0, chance + (1 - chance) * value - price * shortest)
        values.append(value)
    return float(np.mean(values))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a smoke run under a minute; figures are rough")
    parser.add_argument("--seeds", type=int, default=5)
    args = parser.parse_args()
    assert treegym.__version__
    figures: dict[str, float] = {}
    for lanes in (64, 1024):
        env = gym.make_vec("TestTimeCompute-v0", num_envs=lanes, split="all")
        seen, _ = env.reset(seed=0)
        rng, actions = np.random.default_rng(0), []
        for _ in range(50):
            actions.append((rng.random(seen["action_mask"].shape) * seen["action_mask"]).argmax(1))
            seen = env.step(actions[-1])[0]

        def steps(env: Any = env, actions: list[np.ndarray] = actions) -> None:
            env.reset(seed=0)
            for action in actions:
                env.step(action)

        times = interleaved({"steps": steps}, rounds=5 if args.quick else 21, clock=cpu_seconds)["steps"]
        figures[f"steps_per_s_{lanes}"] = 50 * lanes / statistics.median(times)
    cells: list[dict[str, Any]] = []
    closed = []
    for price in (0.05,) if args.quick else (0.02, 0.05, 0.1):
        env = gym.make("TestTimeCompute-v0", token_cost=price, **WORLD)
        hand = {name: judged(make_agent(kind, env, **switches), price) for name, (kind, switches) in HAND.items()}
        for name, (reward, accuracy, tokens) in hand.items():
            cells.append({"price": price, "controller": name, "reward": reward, "accuracy": accuracy, "chains": tokens})
        best = max(reward for reward, _, _ in hand.values())
        learned = []
        for seed in range(1 if args.quick else args.seeds):
            agent = PPO("ChildPolicy", env, seed=seed, learning_rate=3e-3, n_epochs=8, ent_coef=0.01)
            agent.learn(5_000 if args.quick else 60_000)
            learned.append(judged(agent, price))
        rewards = [row[0] for row in learned]
        low, high = mean_interval(rewards)
        top = bound(price)
        closed.append((statistics.mean(rewards) - best) / (top - best))
        reward, accuracy, tokens = np.mean(learned, axis=0).tolist()
        cells.append({"price": price, "controller": "PPO", "reward": reward, "accuracy": accuracy, "chains": tokens,
                      "low": low, "high": high})  # fmt: skip
        cells.append({"price": price, "controller": "bound: verified chains", "reward": top})
    figures["controller_gap_closed"] = statistics.mean(closed)
    print(table(cells))
    emit("compute", figures, cells)


if __name__ == "__main__":
    main()
