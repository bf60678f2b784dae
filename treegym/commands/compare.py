"""`treegym compare`: two agents on the same held-out prompts, pair by pair."""

from __future__ import annotations

import argparse
import json
from typing import Any

from treegym.commands.eval import agent_of, bootstrap_interval, world_of
from treegym.display import say

__all__ = ["configure", "run"]


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `treegym compare`."""
    add = parser.add_argument
    add("first", help="a checkpoint (.zip), or the name or import path of an agent that needs no training")
    add("second", help="another one")
    add("--env", help="environment id (default: the first checkpoint's, or TokenTree-v0)")
    add("--env-arg", action="append", default=[], metavar="NAME=VALUE", help="its keyword arguments")
    add("--split", default="test", help="which prompts (default: %(default)s)")
    add("--episodes", type=int, default=100, help="how many, where there are no prompts (default: %(default)s)")


def run(args: argparse.Namespace) -> int:
    """Prints both scores, their difference with a 95 % interval over prompts, and on how many each was ahead."""
    import numpy as np

    from treegym.agents.play.evaluation import play_roots

    args.algorithm = args.policy = None
    args.switches = []
    args.agent = args.second if args.second.endswith(".zip") and not args.first.endswith(".zip") else args.first
    world, env, split = world_of(args)
    agents = [
        agent_of(argparse.Namespace(**{**vars(args), "agent": name}), world) for name in (args.first, args.second)
    ]
    played = [play_roots(agent, world, episodes=args.episodes, seed=args.seed) for agent in agents]
    told = not any(np.isnan(one.success).any() for one in played)
    metric = "success" if told else "return"
    first, second = (one.success if told else one.returns for one in played)
    difference = np.asarray(second, np.float64) - first
    low, high = bootstrap_interval(difference, seed=args.seed)
    result: dict[str, Any] = {
        "env": env, "split": split, "metric": metric, "episodes": len(difference),
        "first": float(np.mean(first)), "second": float(np.mean(second)),
        "difference": {"mean": float(difference.mean()), "low": low, "high": high},
        "first_ahead": int((difference < 0).sum()), "second_ahead": int((difference > 0).sum()),
    }  # fmt: skip
    if args.json:
        say(json.dumps(result))
        return 0
    say(f"{metric} on {env} ({split or 'no splits'}), {len(difference)} episodes, the same for both")
    say(f"  {args.first:<32} {result['first']:.4f}  ahead on {result['first_ahead']}")
    say(f"  {args.second:<32} {result['second']:.4f}  ahead on {result['second_ahead']}")
    surely = "more than chance" if low > 0 or high < 0 else "no more than chance over prompts"
    say(f"  second - first {difference.mean():+.4f}  (95 %: {low:+.4f} to {high:+.4f}), {surely}")
    return 0
