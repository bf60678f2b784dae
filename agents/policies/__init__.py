"""Policies: how observations become a distribution over children, by name.

An installed package adds policies with the entry point group ``treegym.policies``; an import path names any other.
"""

from __future__ import annotations

from typing import Any

from treegym.errors import ConfigError
from treegym.registry import Registry

__all__ = ["POLICIES", "policy_class", "policy_path"]

_HERE = "treegym.agents.policies"

POLICIES = Registry(
    "policy",
    {
        "ChildPolicy": (f"{_HERE}.child:ChildPolicy", "scores each child; their order does not matter"),
        "MultiInputPolicy": (f"{_HERE}.mlp:MultiInputPolicy", "SB3's perceptron on a Dict observation"),
        "MlpPolicy": (f"{_HERE}.mlp:MlpPolicy", "SB3's perceptron on a flat observation"),
        "LMPolicy": (f"{_HERE}.lm:LMPolicy", "a causal language model"),
    },
    group="treegym.policies",
)


def policy_class(policy: str | type) -> type[Any]:
    """Returns the class of a policy by its name here, by ``"module:Class"``, or as it came."""
    from treegym.agents.policies.base import ChildScorer

    found = POLICIES.find(policy) if isinstance(policy, str) else policy
    if not (isinstance(found, type) and issubclass(found, ChildScorer)):
        raise ConfigError(f"policy {policy!r} is not a subclass of treegym.agents.policies.base.ChildScorer")
    return found


def policy_path(policy: str | type) -> str:
    """Returns the import path of a policy; of a name that is not known here, the name."""
    if not isinstance(policy, str):
        return f"{policy.__module__}:{policy.__qualname__}"
    return POLICIES.path_of(policy) if policy in POLICIES else policy
