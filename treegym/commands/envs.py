"""`treegym envs`: the registered environments, one line each."""

from __future__ import annotations

import argparse
import json

from treegym.display import say

__all__ = ["configure", "run"]


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds no arguments of its own."""


def run(args: argparse.Namespace) -> int:
    """Prints id and summary of every environment."""
    from treegym.registration import known_envs

    envs = known_envs()
    if args.json:
        described = {
            env_id: {"summary": entry.summary, "entry_point": entry.entry_point, "kwargs": dict(entry.kwargs)}
            for env_id, entry in envs.items()
        }
        say(json.dumps(described))
        return 0
    width = max(map(len, envs))
    for env_id, entry in envs.items():
        say(f"{env_id:<{width}}  {entry.summary}")
    return 0
