"""Optimise a PyTorch module of your own: measure combinations of optimisations, keep the best, look at the figures.

Run it:  python examples/optimize_module.py
"""

import torch
from torch import nn

from treegym.optimization import create_hybrid_optimization_core


def build() -> nn.Module:
    """A perceptron; put your own module here."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(256, 1024), nn.ReLU(), nn.Linear(1024, 1024), nn.ReLU(), nn.Linear(1024, 16))


def inputs(seed: int) -> tuple[torch.Tensor, ...]:
    """Fresh inputs for every timed call, so that nothing can be remembered."""
    return (torch.randn(64, 256, generator=torch.Generator().manual_seed(seed)),)


if __name__ == "__main__":
    torch.set_num_threads(1)
    core = create_hybrid_optimization_core(
        {"max_accuracy_drop": 0.02, "max_iterations": 5, "seconds_per_candidate": 0.5, "enable_adaptive_hybrid": False}
    )
    faster, result = core.hybrid_optimize_module(build(), inputs)
    print(core.report())
    print(f"\n{type(faster).__name__} with {result['selected_strategy']}")
