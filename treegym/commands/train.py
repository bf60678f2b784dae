"""`treegym train`: one agent on one environment, with checkpoints and validation, resumable, from one or several seeds.

Settings may stand in a TOML file (``--config``) under the names of the flags::

    agent = "ppo"
    env = "TokenTree-v0"
    steps = 60000
    eval_every = 5000
    patience = 4
    env_args = { view = "features" }
    switches = { gamma = 1.0 }
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

from treegym.commands.train_seeds import run_seeds
from treegym.commands.train_settings import DEFAULTS, fill
from treegym.commands.validation import validation
from treegym.display import curve, say
from treegym.errors import ConfigError
from treegym.files import told_by
from treegym.locks import LOCK, held
from treegym.tree.curriculum import CURRICULA

__all__ = ["configure", "run"]

Walk = Callable[[Any, Path, int], None]  # draws a numbered episode of an agent into a file


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `treegym train`."""
    default = {name: f"(default: {value})" for name, value in DEFAULTS.items()}
    add = parser.add_argument
    add("agent", nargs="?", help=f"a name in `treegym agents`, or my_module:MyAgent {default['agent']}")
    add("--config", type=Path, help="a TOML file of settings under the names of the flags; flags go first")
    add("--env", help=f"environment id, or my_module:MyEnv-v0 {default['env']}")
    add("--env-arg", action="append", default=[], metavar="NAME=VALUE", help="its keyword arguments")
    add("--curriculum", choices=CURRICULA, help="practise where the tree's primary is right now and then")
    add("--policy", help="policy: a name or my_module:MyPolicy (default: what suits)")
    add("--steps", type=int, help=f"environment steps in all {default['steps']}")
    add("--out", type=Path, required=True, help="folder for checkpoints")
    add("--every", type=int, help=f"steps between checkpoints {default['every']}")
    add("--keep", type=int, help=f"how many checkpoints to keep {default['keep']}")
    add("--eval-every", type=int, help="steps between validations; the best agent is kept as best.zip")
    add("--patience", type=int, help="end after so many validations without a better one")
    add("--walks-every", type=int, help="steps between walks drawn as pictures that move, in walks/")
    add("--seeds", help="several seeds at once, as in 0,1,2: each in a process and a folder of its own")
    add("--jobs", type=int, help="how many of them at a time (default: one per core)")
    add("--resume", action="store_true", help="go on from the latest checkpoint in --out")
    add("--tensorboard", type=Path, help="folder for TensorBoard")
    add("--track", metavar="NAME", help="a tracker of runs: trackio, wandb, mlflow or tensorboard")
    add("--threads", type=int, help=f"threads of torch {default['threads']}")
    add("--set", action="append", default=[], metavar="SWITCH=VALUE", dest="switches",
        help="a switch of the agent; see `treegym agents --switches AGENT`")  # fmt: skip


def run(args: argparse.Namespace) -> int:
    """Trains, saves, and prints where the result is."""
    if args.seeds:
        return run_seeds(args)
    fill(args)
    import gymnasium as gym
    import torch

    from treegym.agents.registry import agent_class
    from treegym.commands.walks import walker
    from treegym.registration import find_spec

    torch.set_num_threads(args.threads)
    found = agent_class(args.agent)
    if not callable(getattr(found, "learn", None)) or not getattr(found, "learns", True):
        raise ConfigError(f"{args.agent} does not learn; evaluate it with `treegym eval {args.agent}`")
    if not callable(getattr(found, "save", None)):
        raise ConfigError(f"{args.agent} has no method `save`, so nothing would be left of it: train it within a bench")
    try:
        env = gym.make(find_spec(args.env, where="--env"), **args.env_args)
        validate = None if args.eval_every is None else validation(args.env, args.env_args)
        walk = None if args.walks_every is None else walker(args.env, args.env_args)
    except gym.error.Error as error:
        raise ConfigError(f"--env {args.env}: {error}") from error
    with told_by(args.out):
        args.out.mkdir(parents=True, exist_ok=True)
    with held(args.out / LOCK, what=f"the folder {args.out}"):
        return _train(args, env, found, validate, walk)


def _train(
    args: argparse.Namespace, env: Any, found: Any, validate: Callable[[Any], float] | None, walk: Walk | None
) -> int:
    """Trains in a folder of its own."""
    from treegym.agents.callbacks import CheckpointCallback, ValidationCallback, latest_checkpoint
    from treegym.agents.registry import is_ours, make_agent, policy_first
    from treegym.commands.walks import WalkCallback
    from treegym.integrations.trackers import open_tracker, track_agent

    switches = args.switches
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
            callbacks: list[Any] = [CheckpointCallback(args.out, every=args.every, keep=args.keep)]
            if validate is not None:
                asked = {"every": args.eval_every, "validate": validate, "patience": args.patience}
                callbacks.append(ValidationCallback(args.out, **asked, tell=None if args.json else _tell))
            if walk is not None:
                callbacks.append(WalkCallback(args.out, every=args.walks_every, walk=walk))
            told = {"agent": args.agent, "env": args.env, "seed": args.seed, **switches}
            tracker = open_tracker(args.track, run=f"{args.agent}-{args.seed}", folder=args.out, config=told)
            with closing(tracker):
                agent.learn(
                    remaining,
                    callback=[*callbacks, *([track_agent(tracker)] if args.track else [])],
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


def _tell(steps: list[int], scores: list[float]) -> None:
    said = f"{steps[-1]:>9} steps  validation {scores[-1]:.3f}  best {max(scores):.3f}  {curve(scores)}"
    say(said, file=sys.stderr)


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)
