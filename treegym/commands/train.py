"""`treegym train`: one agent on one environment, with checkpoints, resumable."""

from __future__ import annotations

import argparse
import json
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

from treegym.display import say
from treegym.errors import ConfigError
from treegym.files import told_by
from treegym.locks import LOCK, held
from treegym.tree.curriculum import CURRICULA

__all__ = ["configure", "parse_switches", "run"]


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `treegym train`."""
    parser.add_argument(
        "agent",
        nargs="?",
        default="ppo",
        help="a name in `treegym agents`, or my_module:MyAgent (default: %(default)s)",
    )
    parser.add_argument(
        "--env", default="TokenTree-v0", help="environment id, or my_module:MyEnv-v0 (default: %(default)s)"
    )
    parser.add_argument("--env-arg", action="append", default=[], metavar="NAME=VALUE", help="its keyword arguments")
    parser.add_argument(
        "--curriculum", choices=CURRICULA, help="practise where the tree's primary is right now and then"
    )
    parser.add_argument("--policy", default=None, help="policy: a name or my_module:MyPolicy (default: what suits)")
    parser.add_argument("--steps", type=int, default=100_000, help="environment steps in all (default: %(default)s)")
    parser.add_argument("--out", type=Path, required=True, help="folder for checkpoints")
    parser.add_argument("--every", type=int, default=20_000, help="steps between checkpoints (default: %(default)s)")
    parser.add_argument("--keep", type=int, default=3, help="how many checkpoints to keep (default: %(default)s)")
    parser.add_argument("--resume", action="store_true", help="go on from the latest checkpoint in --out")
    parser.add_argument("--tensorboard", type=Path, default=None, help="folder for TensorBoard")
    parser.add_argument("--track", metavar="NAME", help="a tracker of runs: trackio, wandb, mlflow or tensorboard")
    parser.add_argument("--threads", type=int, default=1, help="threads of torch (default: %(default)s)")
    parser.add_argument("--set", action="append", default=[], metavar="SWITCH=VALUE", dest="switches",
                        help="a switch of the agent; see `treegym agents --switches AGENT`")  # fmt: skip


def run(args: argparse.Namespace) -> int:
    """Trains, saves, and prints where the result is."""
    if args.steps < 1 or args.threads < 1:
        raise ConfigError(f"--steps and --threads must be at least 1, got {args.steps} and {args.threads}")
    import gymnasium as gym
    import torch

    from treegym.agents.registry import agent_class
    from treegym.registration import find_spec

    torch.set_num_threads(args.threads)
    found = agent_class(args.agent)
    if not callable(getattr(found, "learn", None)) or not getattr(found, "learns", True):
        raise ConfigError(f"{args.agent} does not learn; evaluate it with `treegym eval {args.agent}`")
    if not callable(getattr(found, "save", None)):
        raise ConfigError(f"{args.agent} has no method `save`, so nothing would be left of it: train it within a bench")
    try:
        given = parse_switches(args.env_arg, "--env-arg")
        chosen = {} if args.curriculum is None else {"curriculum": args.curriculum}
        env = gym.make(find_spec(args.env, where="--env"), **{**given, **chosen})
    except gym.error.Error as error:
        raise ConfigError(f"--env {args.env}: {error}") from error
    switches = parse_switches(args.switches, "--set")
    with told_by(args.out):
        args.out.mkdir(parents=True, exist_ok=True)
    with held(args.out / LOCK, what=f"the folder {args.out}"):
        return _train(args, env, found, switches)


def _train(args: argparse.Namespace, env: Any, found: Any, switches: dict[str, Any]) -> int:
    """Trains in a folder of its own."""
    from treegym.agents.callbacks import CheckpointCallback, latest_checkpoint
    from treegym.agents.registry import is_ours, make_agent, policy_first
    from treegym.integrations.trackers import open_tracker, track_agent

    latest = latest_checkpoint(args.out)
    if latest is not None and not args.resume:
        raise ConfigError(f"{args.out} holds checkpoints already; add --resume to go on, or choose another --out")
    if not policy_first(found):
        return _train_plain(args, make_agent(args.agent, env, seed=args.seed, **switches))
    common: dict[str, Any] = {"verbose": 0 if args.json else 1, "tensorboard_log": _text(args.tensorboard)}
    if latest is not None:
        named = {} if args.policy is None or not is_ours(found) else {"policy": args.policy}
        agent = found.load(latest, env=env, **common, **named, **switches)
    else:
        agent = make_agent(args.agent, env, policy=args.policy, seed=args.seed, **common, **switches)
    remaining = args.steps - agent.num_timesteps
    kept = "the checkpoints in there are kept: make room and give the same command again with --resume"
    with told_by(args.out, kept=kept):
        if remaining > 0:
            checkpoints: list[Any] = [CheckpointCallback(args.out, every=args.every, keep=args.keep)]
            told = {"agent": args.agent, "env": args.env, "seed": args.seed, **switches}
            tracker = open_tracker(args.track, run=f"{args.agent}-{args.seed}", folder=args.out, config=told)
            with closing(tracker):
                agent.learn(
                    remaining,
                    callback=[*checkpoints, *([track_agent(tracker)] if args.track else [])],
                    reset_num_timesteps=False,
                    progress_bar=sys.stderr.isatty() and not args.json,
                )
        return _finish(args, agent, int(agent.num_timesteps))


def _train_plain(args: argparse.Namespace, agent: Any) -> int:
    """Trains an agent that is made without a policy and knows no callbacks: all its steps in one go."""
    agent.learn(args.steps)
    return _finish(args, agent, args.steps)


def _finish(args: argparse.Namespace, agent: Any, steps: int) -> int:
    final = args.out / "final.zip"
    args.out.mkdir(parents=True, exist_ok=True)
    agent.save(final)
    result = {"checkpoint": str(final), "agent": args.agent, "env": args.env, "steps": steps}
    say(json.dumps(result) if args.json else f"{steps} steps; saved {final}")
    return 0


def parse_switches(pairs: list[str], flag: str) -> dict[str, Any]:
    """Returns ``NAME=VALUE`` arguments as a dict; values are read as JSON where they are JSON, else as text."""
    switches: dict[str, Any] = {}
    for pair in pairs:
        name, separator, value = pair.partition("=")
        if not separator or not name:
            raise ConfigError(f"{flag} {pair!r}: expected NAME=VALUE")
        try:
            switches[name.replace("-", "_")] = json.loads(value)
        except (ValueError, RecursionError):
            switches[name.replace("-", "_")] = value
    return switches


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)
