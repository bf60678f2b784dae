"""Learning one task after another without forgetting: methods behind one interface.

`METHODS` names each; to add one, write a module with a subclass of `Method` and a line here.
"""

from __future__ import annotations

import importlib
import inspect
from typing import Any

from treegym.errors import ConfigError, suggest

__all__ = ["METHODS", "make_method"]

# name: import path
METHODS: dict[str, str] = {
    "fine_tuning": "treegym.agents.continual.base:Method",
    "replay": "treegym.agents.continual.replay:Replay",
    "ewc": "treegym.agents.continual.ewc:EWC",
    "si": "treegym.agents.continual.synaptic:SynapticIntelligence",
    "packnet": "treegym.agents.continual.packnet:PackNet",
    "supsup": "treegym.agents.continual.supsup:SupSup",
    "progressive": "treegym.agents.continual.progressive:Progressive",
    "experts": "treegym.agents.continual.experts:Experts",
}


def make_method(name: str, model: Any, **settings: Any) -> Any:
    """Returns a method by name, for a model."""
    if name not in METHODS:
        raise ConfigError(f"unknown method {name!r}.{suggest(name, METHODS)}")
    module, _, attribute = METHODS[name].partition(":")
    method = getattr(importlib.import_module(module), attribute)
    known = [key for key in inspect.signature(method).parameters if key != "model"]
    for key in settings:
        if key not in known:
            raise ConfigError(f"{name} has no setting {key!r}; it has {', '.join(known) or 'none'}")
    return method(model, **settings)
