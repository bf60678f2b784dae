"""`treegym eval`: an agent on held-out prompts, with a confidence interval."""

from __future__ import annotations

import argparse
import json
from typing import Any

from treegym.commands.eval_prompts import configure_prompts, run_prompts
from treegym.commands.switches import parse_switches
from treegym.display import say
from treegym.errors import ConfigError
from treegym.registry import hearsay

__all__ = ["agent_of", "bootstrap_interval", "configure", "run", "world_of"]


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `treegym eval`."""
    parser.add_argument(
        "agent",
        help="a checkpoint (.zip), or the name or import path (my_module:MyAgent) of one that needs no training",
    )
    parser.add_argument("--algorithm", default=None, help="class of a checkpoint, where it has no name here")
    parser.add_argument("--policy", default=None, help="policy of a checkpoint, where it is one of your own")
    parser.add_argument("--env", default=None, help="environment id (default: the checkpoint's, or TokenTree-v0)")
    parser.add_argument("--env-arg", action="append", default=[], metavar="NAME=VALUE", help="its keyword arguments")
    parser.add_argument("--split", default="test", help="which prompts (default: %(default)s)")
    parser.add_argument("--episodes", type=int, default=None, help="how many (default: every root once, or 100)")
    parser.add_argument("--sampled", action="store_true", help="sample actions instead of taking the best")
    parser.add_argument("--set", action="append", default=[], metavar="SWITCH=VALUE", dest="switches",
                        help="a switch of the agent, such as predict_simulations=128")  # fmt: skip

    configure_prompts(parser)


def run(args: argparse.Namespace) -> int:
    """Prints success, return and length with 95 % intervals."""
    if args.prompts is not None:
        return run_prompts(args)
    if args.episodes is not None and args.episodes < 1:
        raise ConfigError(f"--episodes is {args.episodes}; it must be at least 1")
    import numpy as np

    from treegym.agents.play.evaluation import play_roots

    world, name, split = world_of(args)
    agent = agent_of(args, world)
    roots = world.roots()
    if roots is not None and args.episodes is not None:
        roots = roots[np.linspace(0, len(roots) - 1, min(args.episodes, len(roots))).astype(int)]
    played = play_roots(
        agent, world, roots, episodes=args.episodes or 100, seed=args.seed, deterministic=not args.sampled
    )
    result: dict[str, Any] = {"env": name, "agent": args.agent, "split": split, "episodes": len(played.roots)}
    for label, values in (("success", played.success), ("return", played.returns), ("length", played.lengths)):
        known = values[~np.isnan(values)]
        if len(known):
            low, high = bootstrap_interval(known, seed=args.seed)
            result[label] = {"mean": float(known.mean()), "low": low, "high": high}
    sees = getattr(getattr(agent, "settings", None), "planner_sees", None)
    if sees is not None:
        result["planner_sees"] = sees
    if args.json:
        say(json.dumps(result))
        return 0
    say(f"{args.agent} on {name} ({split or 'no splits'}), {len(played.roots)} episodes")
    for label in ("success", "return", "length"):
        if label in result:
            figure = result[label]
            say(f"  {label:<8} {figure['mean']:.4f}  (95 %: {figure['low']:.4f} to {figure['high']:.4f})")
    if sees is not None:
        say(f"  the planner saw the {sees}")
    return 0


def bootstrap_interval(values: Any, *, seed: int, resamples: int = 2000) -> tuple[float, float]:
    """Returns the 95 % percentile-bootstrap interval of the mean, the same for the same seed."""
    import numpy as np

    rng = np.random.default_rng(seed)
    values = np.asarray(values, np.float64)
    means = np.array([values[rng.integers(len(values), size=len(values))].mean() for _ in range(resamples)])
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


def world_of(args: argparse.Namespace) -> tuple[Any, str, str | None]:
    """Returns the world to play in, its id, and the split where it has any."""
    from treegym.agents.checkpoint import describe
    from treegym.agents.registry import is_ours

    env_id, kwargs = args.env, {}
    if args.agent.endswith(".zip") and is_ours(_class_of(args)):
        stored = describe(args.agent).get("env") or {}
        if env_id in (None, stored.get("id")):
            env_id, kwargs = stored.get("id"), dict(stored.get("kwargs", {}))
    if args.env is None and ":" in (env_id or ""):
        raise ConfigError(
            f"{args.agent} was trained in {env_id}, a module that a file cannot make us import: "
            f"name it yourself (--env {env_id})"
        )
    env_id = env_id or "TokenTree-v0"
    given = parse_switches(args.env_arg, "--env-arg")
    heard = {name: value for name, value in kwargs.items() if name not in given}
    kwargs |= given
    with hearsay(args.agent, heard):
        return _made(args, env_id, kwargs)


def _made(args: argparse.Namespace, env_id: str, kwargs: dict[str, Any]) -> tuple[Any, str, str | None]:
    import gymnasium as gym

    from treegym.agents.play.evaluation import vector_world
    from treegym.registration import accepts, find_spec

    try:
        if accepts(find_spec(env_id, where="--env"), "split"):
            kwargs["split"] = args.split
        return vector_world(env_id, 128, **kwargs), env_id, kwargs.get("split")
    except gym.error.Error as error:
        raise ConfigError(f"--env {env_id}: {error}") from error


def agent_of(args: argparse.Namespace, world: Any) -> Any:
    """Returns the agent of a checkpoint, or a baseline by name."""
    from treegym.agents.registry import agent_class, is_ours, make_agent

    switches = parse_switches(args.switches, "--set")
    if args.agent.endswith(".zip"):
        found = _class_of(args)
        if not is_ours(found):
            return found.load(args.agent)
        agent = found.load(args.agent, env=world, **_policy(args), **switches)
        agent.rng.bit_generator.state = type(agent.rng.bit_generator)(args.seed).state
        return agent
    found = agent_class(args.agent)
    if callable(getattr(found, "learn", None)) and getattr(found, "learns", True):
        raise ConfigError(f"{args.agent} must be trained first: treegym train {args.agent} --out FOLDER")
    return make_agent(args.agent, world if is_ours(found) else world.env, seed=args.seed, **switches)


def _class_of(args: argparse.Namespace) -> Any:
    """Returns the class that made a checkpoint: the one asked for, or the one that the file names."""
    from treegym.agents.checkpoint import describe
    from treegym.agents.registry import agent_class, class_that_saves

    if args.algorithm is not None:
        return agent_class(args.algorithm)
    return class_that_saves(describe(args.agent)["algorithm"], args.agent)


def _policy(args: argparse.Namespace) -> dict[str, str]:
    return {} if args.policy is None else {"policy": args.policy}
