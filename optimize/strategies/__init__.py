"""The optimisation strategies: one file each, named here; nothing is imported before a strategy is used.

``stage`` is the order in which an ensemble applies its strategies: what changes the structure first, what changes
number formats after it, what wraps the whole module last. ``nominal`` are published gains in speed, memory and
accuracy: priors that are shown in observations, never results.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, NamedTuple

from treegym.errors import ConfigError, suggest

if TYPE_CHECKING:
    from treegym.optimize.strategies.base import HybridOptimizationStrategy

__all__ = ["FAMILIES", "STRATEGIES", "StrategyEntry", "compatible", "expand", "load", "ordered", "register"]

FAMILIES = ("kernel_fusion", "quantization", "memory_pooling", "attention_fusion", "pruning", "low_rank")
_FUSION, _QUANT, _POOL, _ATTENTION = (1.2, 1.1, 0.99), (1.5, 2.0, 0.97), (1.1, 1.8, 1.0), (1.3, 1.4, 0.98)
_HERE = "treegym.optimize.strategies"


class StrategyEntry(NamedTuple):
    family: str
    stage: int  # strategies of an ensemble are applied in this order
    nominal: tuple[float, float, float]  # published gains: speed, memory, accuracy (ratios to the original)
    conflicts: tuple[str, ...]  # strategies that cannot stand in the same ensemble; either side may name the other
    summary: str
    entry: str = ""  # "module:Class"; empty: the module of the same name here, class Strategy


STRATEGIES: dict[str, StrategyEntry] = {
    "prune_structured": StrategyEntry(
        "pruning", 0, (1.2, 1.2, 0.95), (), "drop the quarter of hidden units that matter least"
    ),
    "prune_unstructured": StrategyEntry(
        "pruning", 1, (1.0, 1.0, 0.98), ("low_rank",), "zero the smallest fifth of the weights"
    ),
    "low_rank": StrategyEntry("low_rank", 2, (1.2, 1.3, 0.95), (), "factorise linear layers where little is lost"),
    "fold_batch_norm": StrategyEntry("kernel_fusion", 3, _FUSION, (), "fold batch norm into the layer before it"),
    "attention_fusion": StrategyEntry("attention_fusion", 4, _ATTENTION, (), "fused kernel for hand-written attention"),
    "merge_projections": StrategyEntry(
        "kernel_fusion", 5, _FUSION, (), "one product for linear layers that share input"
    ),
    "fuse_activation": StrategyEntry(
        "kernel_fusion", 6, _FUSION, ("workspaces", "inplace"), "linear layer and activation in one kernel"
    ),
    "workspaces": StrategyEntry(
        "memory_pooling", 7, _POOL, ("compile",), "linear layers write into buffers that are kept"
    ),
    "inplace": StrategyEntry("memory_pooling", 8, _POOL, (), "activations and sums overwrite their input"),
    "channels_last": StrategyEntry("memory_pooling", 9, _POOL, (), "convolutions in channels-last memory format"),
    "int8_dynamic": StrategyEntry(
        "quantization", 10, _QUANT, ("fuse_activation", "workspaces"), "int8 weights, activations quantised on the fly"
    ),
    "int8_weights": StrategyEntry(
        "quantization",
        11,
        (1.1, 2.5, 0.99),
        ("fuse_activation", "workspaces", "int8_dynamic"),
        "int8 weights, computed in floating point (with bf16: in bf16)",
    ),
    "int4_weights": StrategyEntry(
        "quantization",
        12,
        (1.1, 3.5, 0.95),
        ("fuse_activation", "workspaces", "int8_dynamic", "int8_weights"),
        "int4 weights in groups, each with a scale and a zero; products in bf16",
    ),
    "bf16_linear": StrategyEntry(
        "quantization",
        13,
        (1.4, 1.8, 0.995),
        ("fuse_activation", "workspaces", "int8_dynamic", "int8_weights", "int4_weights"),
        "linear layers in bf16, everything between them in fp32",
    ),
    "bf16": StrategyEntry(
        "quantization",
        14,
        (1.6, 2.0, 0.99),
        ("int8_dynamic", "bf16_linear"),
        "the whole module in bf16",
    ),
    "fp16": StrategyEntry(
        "quantization",
        15,
        (1.6, 2.0, 0.995),
        ("int8_dynamic", "bf16_linear", "bf16"),
        "the whole module in fp16",
    ),
    "compile": StrategyEntry(
        "kernel_fusion", 16, (1.4, 1.1, 1.0), ("fuse_activation",), "torch.compile: generated fused kernels"
    ),
    "inference_mode": StrategyEntry("memory_pooling", 17, (1.05, 1.05, 1.0), ("compile",), "no autograd bookkeeping"),
}


def register(name: str, entry: StrategyEntry) -> None:
    """Adds a strategy of your own; `entry.entry` names its class as ``"module:Class"``."""
    if name in STRATEGIES:
        raise ConfigError(f"there already is a strategy {name!r}")
    if entry.family not in FAMILIES:
        raise ConfigError(
            f"strategy {name!r} has the unknown family {entry.family!r}.{suggest(entry.family, FAMILIES)}"
        )
    if ":" not in entry.entry:
        raise ConfigError(f"strategy {name!r} needs entry='module:Class', got {entry.entry!r}")
    STRATEGIES[name] = entry


def load(name: str) -> HybridOptimizationStrategy:
    """Imports a strategy and returns an instance of it."""
    if name not in STRATEGIES:
        raise ConfigError(f"there is no strategy {name!r}.{suggest(name, STRATEGIES)}")
    module, _, attribute = (STRATEGIES[name].entry or f"{_HERE}.{name}:Strategy").partition(":")
    try:
        strategy: HybridOptimizationStrategy = getattr(importlib.import_module(module), attribute)()
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"strategy {name!r} cannot be loaded from {module}:{attribute}: {error}") from error
    strategy.name = name
    return strategy


def compatible(names: tuple[str, ...] | list[str]) -> bool:
    """Returns whether the strategies may stand in one ensemble: no repeats, no declared conflict."""
    chosen = set(names)
    return len(chosen) == len(names) and not any(chosen & set(STRATEGIES[name].conflicts) for name in names)


def ordered(names: tuple[str, ...] | list[str] | set[str] | frozenset[str]) -> tuple[str, ...]:
    """Returns the strategies in the order in which they are applied."""
    return tuple(sorted(names, key=lambda name: (STRATEGIES[name].stage, name)))


def expand(names: tuple[str, ...] | list[str]) -> list[str]:
    """Replaces family names (``"quantization"``) by their strategies; raises for a name that is neither."""
    result: list[str] = []
    for name in names:
        if name in FAMILIES and name not in STRATEGIES:
            result += [key for key, entry in STRATEGIES.items() if entry.family == name]
        elif name in STRATEGIES:
            result.append(name)
            if name in FAMILIES:  # low_rank, attention_fusion: a family and a strategy of the same name
                result += [key for key, entry in STRATEGIES.items() if entry.family == name and key != name]
        else:
            raise ConfigError(f"there is no strategy or family {name!r}.{suggest(name, {*STRATEGIES, *FAMILIES})}")
    return list(dict.fromkeys(result))
