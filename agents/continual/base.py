"""What every method of continual learning answers, and the loop that trains a sequence of tasks with it.

    for each task:  begin -> (loss, gradients, penalty, step) many times -> end -> retrain, where a method asks for it

A *problem* is anything with `loss(model, batch)`, a mean over examples, and ``sampled_log_probs(model, batch,
generator)``, one number per example, of outcomes drawn from the model itself; `LanguageProblem` is one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from torch import nn

from treegym.errors import ConfigError

__all__ = ["Method", "Problem", "train_task"]

Batch = Any  # of the problem's own kind


class Problem(Protocol):
    """A loss, and the likelihoods that a Fisher information is made of."""

    def loss(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        """Returns the mean loss over the batch's examples."""
        ...

    def sampled_log_probs(self, model: nn.Module, batch: Batch, generator: torch.Generator) -> list[torch.Tensor]:
        """Returns, for each example, ``log pi(a | s)`` of an outcome drawn from the model itself."""
        ...


class Method:
    """Plain fine-tuning: the base of every method, which overrides what it needs.

    Args:
        model: the network; a method may change it (`network` is what to call).
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.tasks = 0  # how many have begun

    @property
    def network(self) -> nn.Module:
        """The module to train and to call for the task at hand."""
        return self.model

    def begin(self) -> None:
        """Called before a task is trained."""
        self.tasks += 1

    def batch(self, batch: Batch) -> Batch:
        """Returns what to train on instead of a batch of the new task (replay mixes in old examples)."""
        return batch

    def extra_loss(self) -> torch.Tensor | None:
        """Returns a part of the loss that belongs to the last forward pass (load balancing), or None."""
        return None

    def saw_gradients(self) -> None:
        """Called when the gradients of the task's own loss are in ``.grad``, before any penalty."""

    def penalty(self) -> torch.Tensor | None:
        """Returns what is added to the loss, or None."""
        return None

    def before_step(self) -> None:
        """Called when all gradients are there; may mask them."""

    def after_step(self) -> None:
        """Called after the optimizer moved the weights; may put some back."""

    def end(self, problem: Problem, batches: Sequence[Batch]) -> bool:
        """Called after a task; returns whether the task should be trained on a little (PackNet, after pruning)."""
        return False

    @contextmanager
    def using(self, task: int) -> Iterator[nn.Module]:
        """Yields the module as it answers task number `task` (from 0)."""
        if task not in range(self.tasks):
            raise ConfigError(f"task {task!r} was never learned; so many were, counted from 0: {self.tasks}")
        with self.recalled(task) as network:
            yield network

    @contextmanager
    def recalled(self, task: int) -> Iterator[nn.Module]:
        """What `using` does for a task that was learned; methods override it."""
        yield self.network


def train_task(
    method: Method,
    problem: Problem,
    batches: Callable[[int], Batch],
    *,
    steps: int,
    learning_rate: float = 1e-3,
    weight_decay: float = 0.01,
    fisher_batches: int = 4,
    retrain_steps: int | None = None,
) -> list[float]:
    """Trains one task with a method; returns the losses.

    Args:
        method: what guards the earlier tasks.
        problem: the loss.
        batches: returns the batch of a step.
        steps: gradient steps.
        learning_rate: of AdamW.
        weight_decay: of AdamW; on, so that methods that freeze weights prove that they do.
        fisher_batches: how many batches `end` sees.
        retrain_steps: steps after pruning, where a method asks for it; by default a quarter of `steps`.
    """
    method.begin()
    losses = _descend(method, problem, batches, steps, learning_rate, weight_decay, 0)
    if method.end(problem, [batches(steps + extra) for extra in range(fisher_batches)]):
        more = max(1, steps // 4) if retrain_steps is None else retrain_steps
        losses += _descend(method, problem, batches, more, learning_rate, weight_decay, steps)
    return losses


def _descend(
    method: Method,
    problem: Problem,
    batches: Callable[[int], Batch],
    steps: int,
    learning_rate: float,
    weight_decay: float,
    first: int,
) -> list[float]:
    network = method.network
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=learning_rate, weight_decay=weight_decay)
    losses = []
    network.train()
    for step in range(first, first + steps):
        optimizer.zero_grad(set_to_none=True)
        loss = problem.loss(network, method.batch(batches(step)))
        extra = method.extra_loss()
        (loss if extra is None else loss + extra).backward()
        method.saw_gradients()
        penalty = method.penalty()
        if penalty is not None:
            penalty.backward()
        method.before_step()
        optimizer.step()
        method.after_step()
        losses.append(float(loss.detach()))
    network.eval()
    return losses
