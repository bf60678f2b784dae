"""Compares an agent of one's own with PPO on a small tree: three seeds, intervals, and the HTML report."""

import os
import sys
from pathlib import Path

import numpy as np

from treegym.bench.leaderboard import leaderboard_of
from treegym.bench.report import write_report
from treegym.bench.report.tables import as_text
from treegym.bench.runner import run_suite
from treegym.bench.suite import parse_suite


class Trusting:
    """Follows the first teacher; a class with `predict` is all a benchmark needs."""

    learns = False

    def __init__(self, env, *, seed: int) -> None:
        self.layout = env.unwrapped.layout
        self.column = next(i for i, name in enumerate(self.layout.child) if name.startswith("teacher:"))

    def predict(self, observation, state=None, episode_start=None, deterministic=False):
        _, children = self.layout.split(observation["observations"])
        return np.where(observation["action_mask"] > 0, children[..., self.column], -np.inf).argmax(1), state


if __name__ == "__main__":
    # Workers import agents by path, so the folder of this file must be on theirs.
    os.environ["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    steps = 2_000 if os.environ.get("TREEGYM_EXAMPLE_QUICK") else 30_000
    suite = {
        "name": "two agents",
        "description": "PPO against trusting one teacher, on a synthetic tree.",
        "seeds": [0, 1, 2],
        "budget": {"env_steps": steps},
        "checkpoints": 3,
        "envs": [
            {
                "name": "synthetic",
                "id": "TokenTree-v0",
                "kwargs": {"tree": "synthetic:roots=100,depth=4,difficulty=0.1"},
            }
        ],
        "agents": [{"name": "PPO", "agent": "ppo"}, {"name": "Trusting", "agent": "benchmark_two_agents:Trusting"}],
    }
    out = Path("two_agents")
    outcome = run_suite(parse_suite(suite, where="this example"), out)
    for run, reason in outcome.failed.items():
        print(f"{run}: {reason}", file=sys.stderr)
    board = leaderboard_of(out)
    print(as_text(board))
    print("Report:", write_report(board, out)[-1])
    sys.exit(0 if outcome.complete else 1)
