"""``NAME=VALUE`` arguments."""

from __future__ import annotations

import json
from typing import Any

from treegym.errors import ConfigError

__all__ = ["parse_switches"]


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
