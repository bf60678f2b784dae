"""AlphaZero on worlds other than token trees, as it comes: `make_agent("alphazero", env)`, beside SB3's PPO and DQN.

Five worlds for one player at equal steps of the environment, each scored by whole held-out episodes with the policy
alone and with 1, 8, 32 and 128 simulations per move; and connect four on a board of 5 x 4, learned by self-play and
held against exact minimax, with 512 simulations, too. A game of two says so by ``gamma=-1.0``, and this one gets a
larger network and more room for what it remembers; nothing else is set per world. Simulated steps are not
counted as steps, for PPO and DQN have no use for a model; CPU seconds say what they cost.

python benchmarks/elsewhere.py                             all, five seeds (about an hour of one core)
python benchmarks/elsewhere.py --worlds taxi --seeds 2     some of it
python benchmarks/elsewhere.py --quick                     shows that it runs
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import json
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import common
import gymnasium as gym
import numpy as np
import torch
from gymnasium.vector import SyncVectorEnv
from stable_baselines3 import DQN, PPO

from treegym.agents.play.evaluation import play_roots
from treegym.agents.play.worlds import make_world
from treegym.agents.registry import make_agent

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
BUDGETS = (0, 1, 8, 32, 128)  # simulations per move; 0 is the policy alone
MORE = 512  # and this many in the game


class World(NamedTuple):
    """A world for one player."""

    env_id: str
    making: dict[str, Any]
    steps: int
    episodes: int  # held-out episodes of each score
    solved: float  # a mean return from which it counts as solved


WORLDS = {
    "cartpole": World("CartPole-v1", {}, 20_000, 10, 500.0),
    "frozen_lake_8x8": World("FrozenLake-v1", {"map_name": "8x8"}, 30_000, 100, 0.85),
    "taxi": World("Taxi-v4", {}, 40_000, 50, 7.0),
    "eight_puzzle": World("EightPuzzle-v0", {}, 60_000, 50, 0.95),
    "key_door": World("KeyDoor-v0", {}, 30_000, 50, 0.95),
}
GAME = "connect_four"
MOVES, POSITIONS = 250_000, 1000
FOR_GAMES = {"gamma": -1.0, "buffer_size": 200_000, "policy_kwargs": {"net_arch": [256, 256]}}


class Alone:
    """The policy of an agent, without a search."""

    def __init__(self, agent: Any) -> None:
        self.agent = agent

    def predict(self, observation: Any, *, deterministic: bool = True) -> tuple[np.ndarray, None]:
        rows = observation if isinstance(observation, dict) else {"observations": observation}
        return self.agent.choose(rows, deterministic=deterministic), None


def score(agent: Any, world: World) -> float:
    """Returns the mean return of held-out episodes, the same ones for everybody."""
    lanes = make_world(SyncVectorEnv([lambda: gym.make(world.env_id, **world.making)] * world.episodes))
    return float(play_roots(agent, lanes, episodes=world.episodes, seed=10_000).returns.mean())


def with_budget(agent: Any, simulations: int) -> Any:
    """Returns an agent that spends so many simulations per move; 0: none."""
    if simulations == 0:
        return Alone(agent)
    agent.settings = dataclasses.replace(agent.settings, predict_simulations=simulations)
    return agent


def one_player(name: str, seed: int, *, steps: int | None = None) -> dict[str, Any]:
    """Returns what AlphaZero and its peers reach in a world with one seed."""
    world = WORLDS[name] if steps is None else WORLDS[name]._replace(steps=steps, episodes=4)
    row: dict[str, Any] = {"world": name, "seed": seed, "steps": world.steps}
    agent = make_agent("alphazero", gym.make(world.env_id, **world.making), seed=seed)
    row["cpu_s"] = common.cpu_seconds(lambda: agent.learn(world.steps, log_interval=0))
    for budget in BUDGETS:
        row["policy" if budget == 0 else f"search_{budget}"] = score(with_budget(agent, budget), world)
    for peer in (PPO, DQN):
        env = gym.make(world.env_id, **world.making)
        kind = "MultiInputPolicy" if isinstance(env.observation_space, gym.spaces.Dict) else "MlpPolicy"
        learner = peer(kind, env, seed=seed, device="cpu")
        row[f"cpu_s_{peer.__name__.lower()}"] = common.cpu_seconds(lambda one=learner: one.learn(world.steps))  # type: ignore[misc]
        row[peer.__name__.lower()] = score(learner, world)
    return row


def game(seed: int, known: list[tuple[tuple[int, int], np.ndarray]], rules: ModuleType, moves: int) -> dict[str, Any]:
    """Returns the share of positions in which AlphaZero, taught by self-play, plays a best move."""
    agent = make_agent("alphazero", rules.ConnectFour(), seed=seed, **FOR_GAMES)
    row: dict[str, Any] = {"world": GAME, "seed": seed, "steps": moves}
    row["cpu_s"] = common.cpu_seconds(lambda: agent.learn(moves, log_interval=0))
    world = make_world(SyncVectorEnv([rules.ConnectFour] * len(known)))
    seen = [env.unwrapped.restore_state(board) for env, (board, _) in zip(world.envs, known, strict=True)]  # type: ignore[attr-defined]
    agent.watch_world(world)
    rows = {key: np.stack([one[key] for one in seen]) for key in seen[0]}
    for budget in (*BUDGETS, MORE):
        picked = with_budget(agent, budget).predict(rows, deterministic=True)[0]
        best = [worth[move] == worth.max() for move, (_, worth) in zip(picked, known, strict=True)]
        row["policy" if budget == 0 else f"search_{budget}"] = float(np.mean(best))
    return row


def solved_positions(rules: ModuleType, count: int) -> list[tuple[tuple[int, int], np.ndarray]]:
    """Returns positions out of random games, with what each move is exactly worth (-2: not legal)."""
    found = []
    for board in rules.positions(count, seed=0):
        free = rules.free(sum(board))
        worth = [-rules.minimax(*rules.after(*board, move)) if free[move] else -2 for move in range(rules.WIDTH)]
        found.append((board, np.array(worth)))
    return found


def figures(cells: list[dict[str, Any]]) -> dict[str, float]:
    """Returns means over seeds, how many seeds solved a world, and the worst that search did to a policy there."""
    found: dict[str, float] = {}
    for name in dict.fromkeys(cell["world"] for cell in cells):
        rows = [cell for cell in cells if cell["world"] == name]
        searched = [f"search_{budget}" for budget in BUDGETS[1:]]
        for column in ("policy", *searched, f"search_{MORE}", "ppo", "dqn"):
            if column in rows[0]:
                found[f"{name}_{column}"] = float(np.mean([row[column] for row in rows]))
        gains = [float(np.mean([row[column] - row["policy"] for row in rows])) for column in searched]
        found[f"{name}_worst_gain"] = min(gains)
        bar = 0.95 if name == GAME else WORLDS[name].solved
        found[f"{name}_solved"] = float(np.mean([row["search_32"] >= bar for row in rows]))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a smoke run; figures mean nothing")
    parser.add_argument("--worlds", nargs="+", choices=[*WORLDS, GAME], default=[*WORLDS, GAME])
    parser.add_argument("--seeds", type=int, default=5)
    args = parser.parse_args()
    torch.set_num_threads(1)
    sys.path.insert(0, str(EXAMPLES))
    for name in ("eight_puzzle", "key_door"):
        importlib.import_module(name)  # registers its world
    rules = importlib.import_module("two_players")
    cells: list[dict[str, Any]] = []
    known = solved_positions(rules, 20 if args.quick else POSITIONS) if GAME in args.worlds else []
    for name in args.worlds:
        for seed in range(1 if args.quick else args.seeds):
            start = time.perf_counter()
            if name == GAME:
                cells.append(game(seed, known, rules, 500 if args.quick else MOVES))
            else:
                cells.append(one_player(name, seed, steps=500 if args.quick else None))
            print(json.dumps(cells[-1]), f"{time.perf_counter() - start:.0f} s", flush=True)
    common.emit("elsewhere", figures(cells), cells)


if __name__ == "__main__":
    main()
