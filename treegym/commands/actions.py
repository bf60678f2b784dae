"""Commands that have actions of their own, such as ``treegym tree show``."""

from __future__ import annotations

import argparse
from typing import Any

__all__ = ["add_action"]


def add_action(actions: Any, name: str, summary: str) -> argparse.ArgumentParser:
    """Returns the parser of one more action; what every command takes may stand after its name, too."""
    parser: argparse.ArgumentParser = actions.add_parser(
        name, help=summary, description=summary[0].upper() + summary[1:] + "."
    )
    parser.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help="print one JSON object")
    parser.add_argument("--seed", type=int, default=argparse.SUPPRESS, help="seed of everything random (default: 0)")
    return parser
