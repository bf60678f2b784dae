"""Learning one task after another without forgetting: methods behind one interface.

To add one, write a module with a subclass of `Method` and a line here.
"""

from __future__ import annotations

import inspect
from typing import Any

from treegym.errors import ConfigError
from treegym.registry import Registry

__all__ = ["METHODS", "make_method"]

_HERE = "treegym.agents.continual"

METHODS = Registry(
    "method",
    {
        "fine_tuning": (f"{_HERE}.base:Method", "plain training, which forgets"),
        "replay": (f"{_HERE}.replay:Replay", "old examples join every batch"),
        "ewc": (f"{_HERE}.ewc:EWC", "elastic weight consolidation: springs as stiff as a weight matters"),
        "si": (f"{_HERE}.synaptic:SynapticIntelligence", "the same, importance measured while learning"),
        "packnet": (f"{_HERE}.packnet:PackNet", "each task owns some weights and frees the others"),
        "supsup": (f"{_HERE}.supsup:SupSup", "fixed weights, one mask per task"),
        "progressive": (f"{_HERE}.progressive:Progressive", "one column per task, which listens to earlier ones"),
        "experts": (f"{_HERE}.experts:Experts", "a mixture that gains experts with every task"),
    },
)


def make_method(name: str, model: Any, **settings: Any) -> Any:
    """Returns a method by name, for a model."""
    method = METHODS.find(name)
    known = [key for key in inspect.signature(method).parameters if key != "model"]
    for key in settings:
        if key not in known:
            raise ConfigError(f"{name} has no setting {key!r}; it has {', '.join(known) or 'none'}")
    return method(model, **settings)
