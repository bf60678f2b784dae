"""When to stop thinking: one learned controller for all prices against hand-written ones; the speed of stepping.

On the bundled tree, whole chains, held-out prompts. Every hand-written controller of a grid is played with every way of
making an answer. What they reach at a number of tokens is the upper envelope of the grid, since two of them can be
mixed by lot; it is chosen on the very prompts and draws that it is judged on. A learner learns at prices drawn from a
range, sees the price, and is judged at fixed ones; the first of `--agents` gives the figures. Of the two bounds one
knows all chains of each prompt and which are right (`best_oracle`), the other all chains and how likely a reader of
all of them finds each answer (`unlabelled_oracle`, `compute_reader.py`); neither knows which chain comes next. A gap
closed is (learned - best hand-written) / (bound - best hand-written), in reward.
"""

from __future__ import annotations

import argparse
import statistics
from typing import Any

import gymnasium as gym
import numpy as np
from common import cpu_seconds, emit, interleaved, mean_interval, table
from compute_reader import read

import treegym
from treegym.agents import DAPO, PPO, VAPO, AlphaZero
from treegym.agents.registry import make_agent
from treegym.envs.compute.optimum import best_oracle, unlabelled_oracle

WORLD: dict[str, Any] = {"max_branches": 8, "segment": 24, "known": "kind"}
LEARNED_IN = "best"  # how the answer is made where PPO learns
PRICES = (0.02, 0.03, 0.05, 0.08, 0.12)
RANGE = (0.005, 0.3)
_COMMON: dict[str, Any] = {"n_epochs": 8, "ent_coef": 0.001, "n_episodes": 2048, "batch_size": 1024}
_FALLING = {**_COMMON, "learning_rate": "linear:0.003:0.0003"}
LEARNERS: dict[str, tuple[type, dict[str, Any], float]] = {  # with its share of `--steps`
    "PPO": (PPO, {**_COMMON, "learning_rate": "linear:0.003:0.0002", "gamma": 1.0}, 1.0),
    "VAPO": (VAPO, _FALLING, 1.0),
    "DAPO": (DAPO, _FALLING, 1.0),
    "AlphaZero": (AlphaZero, {"num_simulations": 8, "n_episodes": 256, "learning_rate": 1e-3}, 0.1),
}
HAND = {
    **{f"majority of {n}": ("self_consistency", {"samples": n}) for n in (1, 2, 3, 4, 6, 8)},
    **{f"adaptive {t}": ("adaptive_consistency", {"threshold": t}) for t in (0.6, 0.7, 0.8, 0.95)},
    **{f"window of {w}": ("early_stopping", {"window": w}) for w in (2, 3, 4)},
    **{f"score {t}": ("score_threshold", {"threshold": t}) for t in (0.1, 0.2, 0.3, 0.4, 0.45, 0.5, 0.55, 0.6, 0.7)},
    **{f"score {t}, {n} chains": ("score_threshold", {"threshold": t, "samples": n})
       for t in (0.3, 0.4, 0.5, 0.55) for n in (2, 3, 4, 6)},
}  # fmt: skip


def judged(agent: Any, price: float, draws: int, *, aggregate: str, rounds: int = 3) -> tuple[float, float]:
    """Returns accuracy and tokens (in average chains) on every held-out prompt, some times over.

    Lane i is seeded with seed + i, so the draws of two numbers share nothing only if lanes apart.
    """
    world = {**WORLD, "aggregate": aggregate, "token_cost": price}
    prompts = gym.make("TestTimeCompute-v0", split="test", **world).unwrapped.world.pool  # type: ignore[attr-defined]
    roots = np.tile(prompts, rounds)
    env = gym.make_vec("TestTimeCompute-v0", num_envs=len(roots), split="test", **world)
    seen, _ = env.reset(seed=1_000_000 + draws * len(roots), options={"roots": roots})
    state, over = None, np.zeros(len(roots), bool)
    right = spent = 0.0
    while not over.all():
        action, state = agent.predict(seen, state=state, deterministic=True)
        seen, _, ended, cut, info = env.step(action)
        right += info["is_success"][~over & ended].sum()
        spent -= info["vector_reward"][~over, 1].sum()
        over |= ended | cut
    return float(right) / len(roots), float(spent) / len(roots)


def envelope(points: np.ndarray, tokens: float) -> float:
    """Returns the accuracy that controllers ``[H, 2]`` (accuracy, tokens) reach at so many tokens, mixed by lot."""
    best = 0.0
    for accuracy, spent in points:
        if spent <= tokens:
            best = max(best, accuracy)
            continue
        for other, less in points[points[:, 1] <= tokens]:
            best = max(best, other + (accuracy - other) * (tokens - less) / (spent - less))
    return float(best)


def bounds() -> tuple[dict[str, list[float]], dict[str, float]]:
    """Returns each bound over the held-out prompts, by price, and how well the reader of the second one reads."""
    env = gym.make("TestTimeCompute-v0", split="test", **WORLD)
    world: Any = env.unwrapped.world  # type: ignore[attr-defined]
    chains, reading = world.chains, read(world.chains)
    found: dict[str, list[float]] = {"best_oracle": [], "unlabelled_oracle": []}
    for price in PRICES:
        most: dict[str, Any] = {"limit": world.branches, "cost": price / world.unit}
        told, untold = [], []
        for here in map(chains.chains, world.pool.tolist()):
            told.append(best_oracle(chains.score[here], chains.correct[here], chains.length[here], **most))
            untold.append(unlabelled_oracle(reading.chance[here], chains.length[here], **most))
        found["best_oracle"].append(statistics.mean(told))
        found["unlabelled_oracle"].append(statistics.mean(untold))
    quality = {"reader_log_loss": reading.log_loss, "reader_right": reading.favourite, "reader_claims": reading.claimed}
    return found, quality


def stepping(*, quick: bool) -> dict[str, float]:
    """Returns steps per CPU second of native batches."""
    figures = {}
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

        times = interleaved({"steps": steps}, rounds=5 if quick else 21, clock=cpu_seconds)["steps"]
        figures[f"steps_per_s_{lanes}"] = 50 * lanes / statistics.median(times)
    return figures


def compared(
    name: str, learned: np.ndarray, hand: np.ndarray, labels: list[str], most: dict[str, list[float]]
) -> list[dict[str, Any]]:
    """Returns a row per price: a learner ``[P, S, 2]`` against hand-written controllers ``[H, S, 2]`` and bounds."""
    rows: list[dict[str, Any]] = []
    for at, price in enumerate(PRICES):
        accuracy, tokens = learned[at, :, 0], learned[at, :, 1]
        equal = [envelope(hand[:, s], float(tokens.mean())) for s in range(hand.shape[1])]
        (low, high), (hand_low, hand_high) = mean_interval(accuracy.tolist()), mean_interval(equal)
        rewards = hand[..., 0].mean(1) - price * hand[..., 1].mean(1)
        best, reward = float(rewards.max()), float((accuracy - price * tokens).mean())
        rows.append({
            "agent": name, "price": price, "chains": float(tokens.mean()), "accuracy": float(accuracy.mean()),
            "low": low, "high": high, "hand-written": statistics.mean(equal), "hand low": hand_low,
            "hand high": hand_high, "reward": reward, "best hand-written reward": best,
            "by": labels[int(rewards.argmax())], **{bound: by_price[at] for bound, by_price in most.items()},
            **{f"gap to {bound}": (reward - best) / (by_price[at] - best) for bound, by_price in most.items()},
        })  # fmt: skip
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a smoke run under a minute; figures are rough")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=150_000)
    parser.add_argument("--agents", nargs="+", choices=sorted(LEARNERS), default=["PPO", "VAPO"])
    args = parser.parse_args()
    assert treegym.__version__
    seeds = 2 if args.quick else args.seeds
    steps = 20_000 if args.quick else args.steps
    figures = stepping(quick=args.quick)
    grid = []
    for aggregate in ("weighted", "best", "plurality"):
        env = gym.make("TestTimeCompute-v0", aggregate=aggregate, **WORLD)
        for name, (kind, switches) in HAND.items():
            if args.quick and "chains" in name:
                continue
            agent = make_agent(kind, env, **switches)
            grid.append((f"{name}, {aggregate}", [judged(agent, 0.05, s, aggregate=aggregate) for s in range(seeds)]))
    hand = np.array([points for _, points in grid])  # [H, S, 2]
    most, quality = bounds()
    figures |= quality
    cells: list[dict[str, Any]] = []
    for number, name in enumerate(args.agents):
        made, switches, share = LEARNERS[name]
        learned = np.empty((len(PRICES), seeds, 2))
        for seed in range(seeds):
            env = gym.make("TestTimeCompute-v0", aggregate=LEARNED_IN, token_cost=RANGE, **WORLD)
            agent = made("ChildPolicy", env, seed=seed, **switches)
            agent.learn(int(steps * share))
            learned[:, seed] = [judged(agent, price, seed, aggregate=LEARNED_IN) for price in PRICES]
            print(f"{name}, seed {seed}: {learned[:, seed].round(4).tolist()}", flush=True)
        rows = compared(name, learned, hand, [label for label, _ in grid], most)
        if number == 0:
            figures["budgets_won_apart"] = float(sum(row["low"] > row["hand high"] for row in rows))
            for bound in most:
                figures[f"gap_closed_{bound}"] = statistics.mean(row[f"gap to {bound}"] for row in rows)
            figures["controller_gap_closed"] = figures["gap_closed_best_oracle"]
        cells += rows
    print(table(cells))
    for (name, _), (accuracy, tokens) in zip(grid, hand.mean(1).tolist(), strict=True):
        cells.append({"controller": name, "accuracy": accuracy, "chains": tokens})
    emit("compute", figures, cells)


if __name__ == "__main__":
    main()
