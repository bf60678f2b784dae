"""`treegym agents`: the registered agents and those of plug-ins, one line each."""

from __future__ import annotations

import argparse
import inspect
import json
from typing import Any

from treegym.display import say

__all__ = ["configure", "run"]


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `treegym agents`."""
    parser.add_argument("--switches", metavar="AGENT", help="list what can be set about one agent, with its default")


def run(args: argparse.Namespace) -> int:
    """Prints name and summary of every agent, or the switches of one."""
    from treegym.agents.registry import AGENTS

    if args.switches:
        known = _switches(args.switches)
        if args.json:
            say(json.dumps(known))
            return 0
        width = max(map(len, known), default=0)
        for name, default in known.items():
            say(f"{name:<{width}}  {default!r}")
        return 0
    bundled = {name: AGENTS[name] for name in AGENTS.table}
    listed = bundled | {name: f"plug-in: {AGENTS.path_of(name)}" for name in AGENTS if name not in bundled}
    if args.json:
        say(json.dumps(listed))
        return 0
    width = max(map(len, listed))
    for name, summary in listed.items():
        say(f"{name:<{width}}  {summary}")
    return 0


def _switches(name: str) -> dict[str, Any]:
    """Returns what can be set about an agent, with its defaults."""
    from treegym.agents.registry import agent_class

    found = agent_class(name)
    settings = getattr(found, "settings_class", None)
    if settings is not None:
        return {field: f.default for field, f in settings.__dataclass_fields__.items()}
    given = inspect.signature(found).parameters.values()
    return {p.name: p.default for p in given if p.default is not p.empty and p.name != "seed"}
