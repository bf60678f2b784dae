"""The optimisation strategies: one file each, named here; nothing is imported before a strategy is used.

``stage`` is the order in which an ensemble applies its strategies: what changes the structure first, what changes
number formats after it, what wraps the whole module last. ``nominal`` are published gains in speed, memory and
accuracy: priors that are shown in observations, never results.

A strategy of your own is a class with these facts as attributes (see `HybridOptimizationStrategy`), made known by
`register` or by an entry point of the group ``treegym.strategies``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from treegym.errors import ConfigError, suggest
from treegym.registry import Registry

if TYPE_CHECKING:
    from treegym.optimize.strategies.base import HybridOptimizationStrategy

__all__ = ["FAMILIES", "STRATEGIES", "Strategies", "StrategyEntry", "compatible", "expand", "load", "ordered"]

FAMILIES = ("kernel_fusion", "quantization", "memory_pooling", "attention_fusion", "pruning", "low_rank", "back_end")
_FUSION, _QUANT, _POOL, _ATTENTION = (1.2, 1.1, 0.99), (1.5, 2.0, 0.97), (1.1, 1.8, 1.0), (1.3, 1.4, 0.98)
_HERE = "treegym.optimize.strategies"
# A back end's program is exported from a float32 module without kernels of our own, and wraps it last.
_NOT_EXPORTED = (
    "workspaces", "inplace", "channels_last", "int8_dynamic", "int8_weights", "int4_weights", "bf16_linear", "autocast",
    "bf16", "fp16", "compile", "compile_freezing", "compile_autotune", "inference_mode",
)  # fmt: skip
_PROGRAMS = (
    "onnx", "onnx_int8", "onnx_static",
    "openvino", "openvino_bf16", "openvino_int8", "openvino_mixed", "openvino_tuned",
)  # fmt: skip


class StrategyEntry(NamedTuple):
    family: str
    stage: int  # strategies of an ensemble are applied in this order
    nominal: tuple[float, float, float]  # published gains: speed, memory, accuracy (ratios to the original)
    conflicts: tuple[str, ...]  # strategies that cannot be in the same ensemble; either side may name the other
    summary: str
    home: str = ""  # "file:Class" below this package; empty: the file of the same name, class Strategy


_TABLE = {
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
    "autocast": StrategyEntry(
        "quantization",
        14,
        (1.4, 1.7, 0.995),
        ("fuse_activation", "workspaces", "inplace", "int8_dynamic", "int8_weights", "int4_weights", "bf16_linear"),
        "products in bf16 by PyTorch's autocast, everything between them in fp32",
    ),
    "bf16": StrategyEntry(
        "quantization",
        14,
        (1.6, 2.0, 0.99),
        ("int8_dynamic", "bf16_linear", "autocast"),
        "the whole module in bf16",
        "half:BF16",
    ),
    "fp16": StrategyEntry(
        "quantization",
        15,
        (1.6, 2.0, 0.995),
        ("int8_dynamic", "bf16_linear", "autocast", "bf16"),
        "the whole module in fp16",
        "half:FP16",
    ),
    "compile": StrategyEntry(
        "kernel_fusion", 16, (1.4, 1.1, 1.0), ("fuse_activation",), "torch.compile: generated fused kernels"
    ),
    "compile_freezing": StrategyEntry(
        "kernel_fusion", 16, (1.5, 1.0, 1.0), ("fuse_activation", "workspaces", "compile"),
        "torch.compile with the weights built in", "compile:Freezing",
    ),
    "compile_autotune": StrategyEntry(
        "kernel_fusion", 16, (1.5, 1.0, 1.0), ("fuse_activation", "workspaces", "compile", "compile_freezing"),
        "torch.compile that measures its kernels, with the weights built in", "compile:Autotune",
    ),
    "inference_mode": StrategyEntry(
        "memory_pooling", 17, (1.05, 1.05, 1.0), ("compile", "compile_freezing", "compile_autotune"),
        "no autograd bookkeeping",
    ),
}  # fmt: skip
_TABLE |= {
    name: StrategyEntry("back_end", 18, nominal, (*_NOT_EXPORTED, *sorted({*_PROGRAMS} - {name})), summary, home)
    for name, nominal, summary, home in (
        ("onnx", (1.8, 0.9, 1.0), "ONNX Runtime in float32", "onnx_runtime:Strategy"),
        ("onnx_int8", (2.0, 3.0, 0.98), "ONNX Runtime, products in dynamic int8", "onnx_runtime:Dynamic"),
        ("onnx_static", (2.0, 1.5, 0.993), "ONNX Runtime, int8 layers as the limit allows", "onnx_runtime:Static"),
        ("openvino", (1.8, 0.9, 1.0), "OpenVINO in float32", "open_vino:Strategy"),
        ("openvino_bf16", (3.0, 0.9, 0.995), "OpenVINO in bf16", "open_vino:BF16"),
        ("openvino_int8", (4.0, 3.0, 0.98), "OpenVINO, every layer in int8", "open_vino:Int8"),
        ("openvino_mixed", (3.5, 1.5, 0.993), "OpenVINO, int8 layers as the limit allows", "open_vino:Mixed"),
        ("openvino_tuned", (4.0, 3.0, 0.99), "OpenVINO, every layer in int8, fine-tuned", "open_vino:Tuned"),
    )
}  # fmt: skip


class Strategies(Mapping[str, StrategyEntry]):
    """The facts of every strategy by name: those here in the order of their stages, then those of others."""

    def __init__(self, table: Mapping[str, StrategyEntry]) -> None:
        self.own = dict(table)
        paths = {name: (f"{_HERE}.{entry.home or f'{name}:Strategy'}", entry.summary) for name, entry in table.items()}
        self.registry = Registry("strategy", paths, group="treegym.strategies")

    def __getitem__(self, name: str) -> StrategyEntry:
        if name in self.own:
            return self.own[name]
        if name not in self.registry:
            raise KeyError(name)
        strategy = self.registry.find(name)
        summary = (strategy.__doc__ or "").strip().partition("\n")[0]
        return StrategyEntry(strategy.family, strategy.stage, strategy.nominal, strategy.conflicts, summary)

    def __iter__(self) -> Iterator[str]:
        return iter([*self.own, *self.others()])

    def __len__(self) -> int:
        return len(self.registry)

    def others(self) -> list[str]:
        """Returns the names of strategies that installed packages bring or that were registered."""
        return [name for name in self.registry if name not in self.own]

    def register(self, name: str, strategy: type[HybridOptimizationStrategy]) -> None:
        """Makes a strategy known in this process and in children that measure candidates."""
        self.registry.register(name, strategy)


STRATEGIES = Strategies(_TABLE)


def load(name: str) -> HybridOptimizationStrategy:
    """Imports a strategy and returns an instance of it."""
    strategy: HybridOptimizationStrategy = STRATEGIES.registry.find(name)()
    strategy.name = name
    return strategy


def compatible(names: Sequence[str]) -> bool:
    """Returns whether the strategies may be in one ensemble: no repeats, no declared conflict."""
    chosen = set(names)
    return len(chosen) == len(names) and not any(chosen & set(STRATEGIES[name].conflicts) for name in names)


def ordered(names: Iterable[str]) -> tuple[str, ...]:
    """Returns the strategies in the order in which they are applied."""
    return tuple(sorted(names, key=lambda name: (STRATEGIES[name].stage, name)))


def expand(names: Iterable[str]) -> list[str]:
    """Replaces family names (``"quantization"``) by their strategies; raises for a name that is neither."""
    result: list[str] = []
    for name in names:
        family = [key for key, entry in STRATEGIES.items() if entry.family == name]
        if name not in STRATEGIES and not family:
            raise ConfigError(f"there is no strategy or family {name!r}.{suggest(name, {*STRATEGIES, *FAMILIES})}")
        if name in STRATEGIES:  # low_rank, attention_fusion: a family and a strategy of the same name
            result.append(name)
        result += family
    return list(dict.fromkeys(result))
