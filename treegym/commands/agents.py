"""`treegym agents`: the registered agents, one line each."""

from __future__ import annotations

import argparse
import json

__all__ = ["configure", "run"]


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `treegym agents`."""
    parser.add_argument("--switches", metavar="AGENT", help="list what can be set about one agent, with its default")


def run(args: argparse.Namespace) -> int:
    """Prints name and summary of every agent, or the switches of one."""
    from treegym.agents.registry import SUMMARIES, agent_class

    if args.switches:
        found = agent_class(args.switches)
        settings = getattr(found, "settings_class", None)
        known = {} if settings is None else {name: f.default for name, f in settings.__dataclass_fields__.items()}
        if args.json:
            print(json.dumps(known))
            return 0
        width = max(map(len, known), default=0)
        for name, default in known.items():
            print(f"{name:<{width}}  {default!r}")
        return 0
    if args.json:
        print(json.dumps(SUMMARIES))
        return 0
    width = max(map(len, SUMMARIES))
    for name, summary in SUMMARIES.items():
        print(f"{name:<{width}}  {summary}")
    return 0
