"""`treegym export`: walks, prompts and models in the forms that other libraries read."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from treegym.display import say
from treegym.errors import ConfigError

__all__ = ["configure", "run"]


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    parser.add_argument(
        "form", choices=("minari", "verl", "skyrl", "prime-rl", "verifiers", "gguf"), help="which library shall read it"
    )
    parser.add_argument(
        "source", help="minari: a checkpoint, hf:user/name or an agent's name; gguf: a model; else prompts, as bundled"
    )
    parser.add_argument(
        "--out",
        required=True,
        help="minari: the data set's name, such as treegym/oracle-v0; verifiers: the package's folder; else a file: "
        ".gguf or .parquet",
    )
    parser.add_argument("--type", default="f16", help="gguf: f32, f16, bf16 or q8_0 (default: %(default)s)")
    parser.add_argument("--split", default="train", help="which prompts (default: %(default)s)")
    parser.add_argument("--env", default="TokenTree-v0", help="minari: environment id (default: %(default)s)")
    parser.add_argument(
        "--env-arg", action="append", default=[], metavar="NAME=VALUE", help="minari: its keyword arguments"
    )
    parser.add_argument("--episodes", type=int, help="minari: how many walks (default: one per prompt)")
    parser.add_argument("--author", help="minari: who made it, for the data set's description")


def run(args: argparse.Namespace) -> int:
    """Writes, and says how much."""
    if args.form == "minari":
        told = _minari(args)
    elif args.form == "verifiers":
        from treegym.integrations.verifiers_package import write_package

        told = {"out": args.out, "prompts": write_package(Path(args.out), args.source, split=args.split)}
    elif args.form == "gguf":
        from treegym.models import load_model
        from treegym.models.local.gguf_export import export_gguf

        told = export_gguf(load_model(args.source, dtype="float32", device="cpu"), args.out, kind=args.type)
    else:
        from treegym.integrations.formats import write_prompts

        told = {"out": args.out, "rows": write_prompts(args.form, Path(args.out), args.source, split=args.split)}
    say(json.dumps(told) if args.json else ", ".join(f"{name} {value}" for name, value in told.items()))
    return 0


def _minari(args: argparse.Namespace) -> dict[str, Any]:
    if args.episodes is not None and args.episodes < 1:
        raise ConfigError(f"--episodes is {args.episodes}; it must be at least 1")
    import gymnasium as gym

    from treegym.commands.switches import parse_switches
    from treegym.integrations.minari import export, walks_of

    world = {**parse_switches(args.env_arg, "--env-arg"), "split": args.split}
    walks = walks_of(args.source, args.env, episodes=args.episodes, seed=args.seed, **world)
    env = gym.make(args.env, **world)
    data = export(args.out, walks, env, algorithm=args.source, author=args.author)
    steps, episodes = int(data.total_steps), int(data.total_episodes)
    return {"out": args.out, "episodes": episodes, "steps": steps, "mean return": float(walks.returns.mean())}
