"""`treegym rewards`: list the reward terms and terminal detectors, or check a reward."""

from __future__ import annotations

import argparse
import json

from treegym.display import say
from treegym.errors import ConfigError
from treegym.rewards import Reward, build, catalogue, load

__all__ = ["configure", "parse_reward", "run"]


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `treegym rewards`."""
    parser.add_argument(
        "--check", metavar="REWARD", help="check a reward (JSON text, or a .json or .toml file) and print its full form"
    )


def run(args: argparse.Namespace) -> int:
    """Lists what there is, one line each, or prints the full form of a reward."""
    if args.check:
        say(json.dumps(parse_reward(args.check).spec, indent=None if args.json else 2))
        return 0
    terms, detectors = catalogue("reward term"), catalogue("terminal detector")
    if args.json:
        say(json.dumps({"terms": terms, "detectors": detectors}))
        return 0
    width = max(map(len, (*terms, *detectors)))
    say("reward terms (compose them with sum, gate, product, lexicographic, sparse)")
    for name, line in terms.items():
        say(f"  {name:<{width}}  {line}")
    say("\nterminal detectors (compose them with any, all, then; budget truncates)")
    for name, line in detectors.items():
        say(f"  {name:<{width}}  {line}")
    return 0


def parse_reward(text: str) -> Reward:
    """Returns the reward that a command-line argument means: a file, JSON text, or a term's name."""
    if text.endswith((".json", ".toml")):
        return load(text)
    if not text.lstrip().startswith(("{", "[")):
        return build(text)
    try:
        return build(json.loads(text))
    except (json.JSONDecodeError, RecursionError) as error:
        raise ConfigError(f"the reward is not valid JSON: {error}; write it like '{{\"verifier\": 1.0}}'") from error
