"""A league against independent seeds: the same environment steps, the same agent, the bundled tree.

    python benchmarks/league.py [--agent dapo] [--steps 15000] [--seeds 2]

The league's champion and the best of the independent agents are both chosen on validation prompts, and compared on test
prompts, which neither has seen. Beside them stands one agent that spends the whole budget alone.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from common import emit

from treegym.commands.league import play, trainer
from treegym.league import Rules


def test_score(agent: str, file: Path) -> float:
    """Returns the share of test prompts that an agent solves."""
    from treegym.agents.play.evaluation import play_roots, vector_world
    from treegym.agents.registry import agent_class

    world = vector_world("TokenTree-v0", 64, split="test")
    return float(np.nanmean(play_roots(agent_class(agent).load(file), world).success))


def alone(setup: dict[str, Any], prompts: int, seed: int, out: Path) -> tuple[float, float]:
    """Returns validation and test score of one agent that practises all prompts."""
    job = {"checkpoint": None, "prompts": list(range(prompts)), "seed": seed}
    answer = trainer(setup)((job, None))
    out.write_bytes(answer["checkpoint"])
    return float(np.mean(answer["validation"])), test_score(setup["agent"], out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--agent", default="dapo")
    parser.add_argument("--steps", type=int, default=15_000, help="of one agent in one generation")
    parser.add_argument("--generations", type=int, default=4)
    parser.add_argument("--mains", type=int, default=3)
    parser.add_argument("--exploiters", type=int, default=1)
    parser.add_argument("--seeds", type=int, default=2)
    args = parser.parse_args()
    from treegym.tree.opening import load_tree

    prompts = len(load_tree(None).roots_in("train"))
    rows: dict[str, list[float]] = {"league": [], "best of independent seeds": [], "one agent": []}
    promoted = 0
    for seed in range(args.seeds):
        rules = Rules(
            steps=args.steps, generations=args.generations, mains=args.mains, exploiters=args.exploiters, seed=seed
        )
        setup = {"agent": args.agent, "env_args": {}, "switches": {}, "steps": args.steps,
                 "total": args.generations * args.steps}  # fmt: skip
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder)
            league = play(rules, setup, out)
            promoted += sum("became" in line for line in league.log)
            rows["league"].append(test_score(args.agent, out / "champion.zip"))
            each = {**setup, "steps": setup["total"]}
            found = [
                alone(each, prompts, 1000 * seed + number, out / "alone.zip")
                for number in range(rules.mains + rules.exploiters)
            ]
            rows["best of independent seeds"].append(max(found)[1])
            whole = {**setup, "steps": rules.budget, "total": rules.budget}
            rows["one agent"].append(alone(whole, prompts, 1000 * seed, out / "one.zip")[1])
        print({name: np.round(scores, 4).tolist() for name, scores in rows.items()}, flush=True)
    cells = [{"who": name, "test": float(np.mean(found)), "each": str(np.round(found, 4).tolist())}
             for name, found in rows.items()]  # fmt: skip
    means = {str(cell["who"]): float(str(cell["test"])) for cell in cells}
    figures = {
        "over_independent_seeds": means["league"] - means["best of independent seeds"],
        "over_one_agent": means["league"] - means["one agent"], "env_steps": rules.budget, "promoted": promoted,
    }  # fmt: skip
    emit("league", figures, cells)


if __name__ == "__main__":
    main()
