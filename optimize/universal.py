"""The core for people who want only modules back: one, or a whole registry of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from treegym.errors import ConfigError, TreeGymError
from treegym.optimize.core import HybridOptimizationCore
from treegym.optimize.targets import build_module, moved

__all__ = ["UniversalOptimizer"]


class UniversalOptimizer:
    """Optimises modules with one core, which goes on learning; `result` holds the last one's figures."""

    def __init__(self, core: HybridOptimizationCore) -> None:
        self.core = core
        self.result: dict[str, Any] = {}

    def optimize_model(self, model: nn.Module, inputs: Any = None) -> nn.Module:
        """Returns the optimised model; `result` holds the figures."""
        optimised, self.result = self.core.hybrid_optimize_module(model, inputs)
        return optimised

    def optimize_models(
        self,
        registry: Mapping[str, Callable[[], nn.Module] | str],
        inputs: Mapping[str, Any],
        *,
        devices: Sequence[str] = (),
    ) -> dict[str, tuple[nn.Module | None, dict[str, Any]]]:
        """Optimises a registry of modules, each on its inputs, with its candidates side by side in child processes.

        A module that cannot be built or optimised is reported in its result under "error"; the others go on.

        Args:
            registry: name -> build function, or its name (``"my_module:build"``).
            inputs: name -> inputs as for `hybrid_optimize_module`.
            devices: where the modules go, in turn (``("cuda:0", "cuda:1")``); empty: each stays where it was built.
        """
        done: dict[str, tuple[nn.Module | None, dict[str, Any]]] = {}
        for index, (name, build) in enumerate(registry.items()):
            module: nn.Module | None = None
            try:
                module = build_module(build)
                source = inputs.get(name)
                if devices:
                    module, source = _placed(module, source, devices[index % len(devices)])
                done[name] = self.core.hybrid_optimize_module(module, source)
            except TreeGymError as error:
                done[name] = module, {"selected_strategy": "original", "error": str(error)}
        return done


def _placed(module: nn.Module, source: Any, device: str) -> tuple[nn.Module, Any]:
    """Returns a module and its inputs on a device."""
    try:
        there = torch.device(device)
        module = module.to(there)
    except (RuntimeError, AssertionError) as error:  # torch's ways to say: no such device, no room, not compiled in
        raise ConfigError(f"the module cannot be put on {device!r} ({type(error).__name__}: {error})") from error
    return module, None if source is None else moved(source, there)
