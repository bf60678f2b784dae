"""PackNet: several tasks in one network by pruning and freezing (arXiv:1711.05769).

After a task the smallest of its weights in every layer are freed for later tasks, the others are trained once more and
then frozen. A task is answered with its own and all earlier weights; later ones are zero. Biases, norms and embeddings
belong to the first task.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from treegym.agents.continual.base import Method, Problem

__all__ = ["PackNet"]

FREE = 0  # owner of a weight that belongs to no task


class PackNet(Method):
    """Forgets nothing: what an earlier task computes is bit-equal ever after.

    Args:
        model: the network.
        prune: the share of a task's weights in each layer that is freed for later tasks.
    """

    def __init__(self, model: nn.Module, *, prune: float = 0.6) -> None:
        super().__init__(model)
        self.prune = prune
        packed = {
            f"{name}.weight" for name, module in model.named_modules() if isinstance(module, nn.Linear)
        } - _tied_to_embeddings(model)
        self.owner = {
            name: torch.full_like(parameter, FREE, dtype=torch.int16)
            for name, parameter in model.named_parameters()
            if name in packed
        }
        self._frozen: dict[str, torch.Tensor] = {}
        self._retraining = False

    def begin(self) -> None:
        super().begin()
        self._retraining = False
        if self.tasks > 1:
            generator = torch.Generator().manual_seed(self.tasks)
            with torch.no_grad():
                for name, parameter in self.model.named_parameters():
                    if name in self.owner:  # freed weights start small, so that the new task begins near the old
                        fresh = 0.02 * torch.randn(parameter.shape, generator=generator)
                        parameter.copy_(torch.where(self.owner[name] == FREE, fresh, parameter))
        self._frozen = {name: p.detach().clone() for name, p in self.model.named_parameters()}

    def _trained(self, name: str) -> torch.Tensor | bool:
        """Which weights of a parameter the task at hand may move."""
        if name not in self.owner:
            return self.tasks == 1
        owner = self.owner[name]
        return (owner == self.tasks) if self._retraining else (owner == FREE)

    def before_step(self) -> None:
        for name, parameter in self.model.named_parameters():
            if parameter.grad is not None:
                parameter.grad *= self._trained(name)

    def after_step(self) -> None:
        # Weight decay and momentum move weights without a gradient, too: put them back.
        with torch.no_grad():
            for name, parameter in self.model.named_parameters():
                trained = self._trained(name)
                if isinstance(trained, bool):
                    if not trained:
                        parameter.copy_(self._frozen[name])
                else:
                    parameter.copy_(torch.where(trained, parameter, self._frozen[name]))

    def end(self, problem: Problem, batches: Sequence[Any]) -> bool:
        with torch.no_grad():
            for name, parameter in self.model.named_parameters():
                if name not in self.owner:
                    continue
                free = self.owner[name] == FREE
                size = parameter[free].abs()
                count = int(self.prune * size.numel())
                cut = size.kthvalue(count).values if count else torch.tensor(-1.0)
                keep = free & (parameter.abs() > cut)
                self.owner[name][keep] = self.tasks
                parameter[self.owner[name] == FREE] = 0.0
        self._frozen = {name: p.detach().clone() for name, p in self.model.named_parameters()}
        self._retraining = True
        return True

    @contextmanager
    def recalled(self, task: int) -> Iterator[nn.Module]:
        stored = {name: p.detach().clone() for name, p in self.model.named_parameters() if name in self.owner}
        with torch.no_grad():
            for name, parameter in self.model.named_parameters():
                if name in self.owner:
                    owner = self.owner[name]
                    parameter[(owner == FREE) | (owner > task + 1)] = 0.0
        try:
            yield self.model
        finally:
            with torch.no_grad():
                for name, parameter in self.model.named_parameters():
                    if name in stored:
                        parameter.copy_(stored[name])


def _tied_to_embeddings(model: nn.Module) -> set[str]:
    """Returns names of weights that an embedding shares (`named_parameters` may list them under either name)."""
    shared = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    return {
        f"{name}.weight"
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and id(module.weight) in shared
    }
