"""Optimising your own PyTorch modules: the public face of `treegym.optimize`, with the suite's agents behind it.

from treegym.optimization import create_universal_optimizer

faster = create_universal_optimizer().optimize_model(model, inputs)
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from treegym.envs.selection.env import CandidateSelectionEnv
from treegym.errors import ConfigError, TreeGymError
from treegym.optimize.adaptive import AdaptiveModule
from treegym.optimize.candidates import Candidate
from treegym.optimize.config import CoreConfig
from treegym.optimize.core import HybridOptimizationCore as _Core
from treegym.optimize.inputs import moved
from treegym.optimize.models import get_all_models
from treegym.optimize.recipe import rebuild
from treegym.optimize.selector import CandidateSelector as _Selector
from treegym.optimize.strategies.base import HybridOptimizationStrategy
from treegym.optimize.targets import build_module

if TYPE_CHECKING:
    from treegym.learned_selection import HybridRLOptimizer, PolicyNetwork, ValueNetwork

__all__ = [
    "AdaptiveModule",
    "CandidateSelector",
    "HybridOptimizationCore",
    "HybridOptimizationStrategy",
    "HybridRLOptimizer",
    "OptimizationEnvironment",
    "PolicyNetwork",
    "UniversalOptimizer",
    "ValueNetwork",
    "create_hybrid_optimization_core",
    "create_universal_optimizer",
    "get_all_models",
    "rebuild",
]

OptimizationEnvironment = CandidateSelectionEnv
_LEARNED = ("HybridRLOptimizer", "PolicyNetwork", "ValueNetwork")  # found when first asked for: agents take time


def __getattr__(name: str) -> Any:
    if name in _LEARNED:
        return getattr(importlib.import_module("treegym.learned_selection"), name)
    raise AttributeError(f"module 'treegym.optimization' has no attribute {name!r}")


class HybridOptimizationCore(_Core):
    """The core of candidate selection, whose "rl" selection learns with the suite's agents."""

    def __init__(self, config: Mapping[str, Any] | CoreConfig | None = None, **options: Any) -> None:
        options.setdefault("learner", _Learned)
        super().__init__(config, **options)


class _Learned:
    """Learned selection, loaded when it is first asked."""

    def __init__(self, settings: CoreConfig, core: _Core | None = None) -> None:
        self.settings, self.core = settings, core
        self._policy: Any = None
        self.finished = False

    def __call__(self, candidates: Sequence[Candidate], fitness: Sequence[float]) -> int:
        if self._policy is None:
            from treegym.learned_selection import HybridRLOptimizer

            self._policy = HybridRLOptimizer(self.settings).policy(self.core)
        choice: int = self._policy(candidates, fitness)
        self.finished = self._policy.finished
        return choice


class CandidateSelector(_Selector):
    """Selects among candidates by fitness; `rl_enhanced_selection` asks the policy that comes with the package."""

    def __init__(self, **options: Any) -> None:
        options.setdefault("policy", _Learned(CoreConfig()))
        super().__init__(**options)


class UniversalOptimizer:
    """Optimises modules with one core, which goes on learning; `result` holds the last one's figures."""

    def __init__(self, core: _Core) -> None:
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


def create_hybrid_optimization_core(
    config: Mapping[str, Any] | CoreConfig | None = None, **options: Any
) -> HybridOptimizationCore:
    """Returns a core; see docs/selection.md for the keys of `config` and what the result holds."""
    return HybridOptimizationCore(config, **options)


def create_universal_optimizer(
    config: Mapping[str, Any] | CoreConfig | None = None, **options: Any
) -> UniversalOptimizer:
    """Returns an optimiser whose ``optimize_model(model, inputs)`` gives only the module back."""
    return UniversalOptimizer(create_hybrid_optimization_core(config, **options))


def _placed(module: nn.Module, source: Any, device: str) -> tuple[nn.Module, Any]:
    """Returns a module and its inputs on a device."""
    try:
        there = torch.device(device)
        module = module.to(there)
    except (RuntimeError, AssertionError) as error:  # torch's ways to say: no such device, no room, not compiled in
        raise ConfigError(f"the module cannot be put on {device!r} ({type(error).__name__}: {error})") from error
    return module, None if source is None else moved(source, there)
