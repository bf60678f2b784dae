"""Policies: how observations become a distribution over children.

`POLICIES` names each and where it lives; it is imported when it is asked for.
"""

from __future__ import annotations

import importlib
from typing import Any

from treegym.errors import ConfigError, suggest

__all__ = ["POLICIES", "policy_class"]

# name: import path
POLICIES: dict[str, str] = {
    "ChildPolicy": "treegym.agents.policies.child:ChildPolicy",
    "MultiInputPolicy": "treegym.agents.policies.mlp:MultiInputPolicy",
    "MlpPolicy": "treegym.agents.policies.mlp:MlpPolicy",
    "LMPolicy": "treegym.agents.policies.lm:LMPolicy",
}


def policy_class(name: str) -> type[Any]:
    """Returns the class of a policy by name."""
    if name not in POLICIES:
        raise ConfigError(f"unknown policy {name!r}.{suggest(name, POLICIES)}")
    module, _, attribute = POLICIES[name].partition(":")
    return getattr(importlib.import_module(module), attribute)
