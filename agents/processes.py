"""Several processes, one model: each collects episodes of its own, and all take the same step on the joint batch.

    accelerate launch --multi_gpu --num_processes 2 train.py                   # each has a copy of the model
    accelerate launch --use_fsdp --fsdp_version 2 --num_processes 2 train.py   # layers, gradients, moments in shards
    torchrun --nproc-per-node 2 train.py                                       # as the first, also without a GPU

Every process runs the same script. Counts, moments and gradients are summed over the processes, so a step is the one
that a single process would take on all the episodes together. Weights are copies; with FSDP2 the layers of a language
model are in shards: gathered one by one while learning, but whole while walking, since episodes of different lengths
could not gather them in step.
"""

from __future__ import annotations

import atexit
import os
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

from treegym.errors import ConfigError, require

__all__ = ["Processes", "gather", "is_shard", "launched", "settle", "shard", "whole", "writes"]

Item = TypeVar("Item")

# A thread that waits for the interpreter sleeps, too, but not in so many looks in a row with the interpreter free.
CALM_LOOKS = 3
SETTLE_S = 20.0  # a thread that works for longer is no longer waited for


def launched() -> int:
    """Returns how many processes a launcher started."""
    count = os.environ.get("WORLD_SIZE", "1")
    return int(count) if count.isdigit() else 1


class Processes:
    """What this process knows of the others; alone, everything is as it came, to the bit.

    Args:
        join: whether to meet the others, if there are any.
    """

    def __init__(self, *, join: bool) -> None:
        self.count, self.rank, self.sharded = 1, 0, False
        self.device = torch.device("cpu")
        if not join or launched() == 1:
            return
        accelerate = require("accelerate", extra="accelerate", purpose="learning in several processes")
        state = accelerate.PartialState(cpu=not torch.cuda.is_available())
        self.count, self.rank, self.device = state.num_processes, state.process_index, state.device
        atexit.unregister(settle)
        atexit.register(settle)
        self.sharded = os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true"
        if self.sharded and os.environ.get("FSDP_VERSION", "2") != "2":
            raise ConfigError("the layers are put in shards by FSDP2; launch with --fsdp_version 2")

    @property
    def alone(self) -> bool:
        return self.count == 1

    # ---------------------------------------------------------------- numbers

    def totals(self, *values: float) -> list[float]:
        """Returns each value summed over the processes."""
        if self.alone:
            return list(values)
        tensor = torch.tensor(values, dtype=torch.float64, device=self.device)
        torch.distributed.all_reduce(tensor)
        return tensor.tolist()

    def any(self, told: bool) -> bool:
        """Whether it is so in one of them."""
        return self.totals(float(told))[0] > 0

    def mean(self, array: np.ndarray) -> float:
        """Returns the mean of everyone's entries."""
        if self.alone:
            return float(array.mean())
        total, count = self.totals(float(array.sum(dtype=np.float64)), len(array))
        return total / count

    def standardised(self, array: np.ndarray) -> np.ndarray:
        """Returns the entries less the mean of everyone's, over their standard deviation."""
        if self.alone:
            return (array - array.mean()) / (array.std(ddof=1) + 1e-8)
        mean = self.mean(array)
        squares, count = self.totals(float(np.square(array - mean, dtype=np.float64).sum()), len(array))
        return ((array - mean) / (np.sqrt(squares / max(count - 1, 1)) + 1e-8)).astype(np.float32)

    def in_step(self, items: Iterable[Item]) -> Iterator[Item | None]:
        """Yields the items, and None while others still have some: all take the same number of steps."""
        if self.alone:
            yield from items
            return
        left = iter(items)
        while self.any((item := next(left, None)) is not None):
            yield item

    def generator(self, rng: np.random.Generator) -> np.random.Generator:
        """Returns a stream of this process's own, far from the others'."""
        return np.random.Generator(rng.bit_generator.jumped(self.rank)) if self.rank else rng  # type: ignore[attr-defined]

    # ---------------------------------------------------------------- weights and gradients

    @torch.no_grad()
    def share(self, module: torch.nn.Module) -> None:
        """Gives every process the first one's weights."""
        for tensor in () if self.alone else (*module.parameters(), *module.buffers()):
            there = tensor.to(self.device)
            torch.distributed.broadcast(there, 0)
            tensor.copy_(there)

    def sum_gradients(self, parameters: list[torch.nn.Parameter]) -> None:
        """Sums gradients over the processes, where FSDP has not done so already."""
        if self.alone:
            return
        for parameter in parameters:
            if is_shard(parameter):
                continue
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            there = parameter.grad.to(self.device)
            torch.distributed.all_reduce(there)
            parameter.grad.copy_(there)

    def clip(self, parameters: list[torch.nn.Parameter], limit: float) -> None:
        """Scales gradients down to a norm of at most `limit`, that of all shards together."""
        if not self.sharded:
            torch.nn.utils.clip_grad_norm_(parameters, limit)
            return
        squares = {True: 0.0, False: 0.0}
        for parameter in parameters:
            if parameter.grad is not None:
                squares[is_shard(parameter)] += float(local(parameter.grad).double().square().sum())
        norm = (self.totals(squares[True])[0] + squares[False]) ** 0.5
        for parameter in parameters:
            if parameter.grad is not None:
                local(parameter.grad).mul_(min(1.0, limit / (norm + 1e-6)))


def writes() -> bool:
    """Whether this process is the one that writes files: the first."""
    there = torch.distributed.is_available() and torch.distributed.is_initialized()
    return not there or torch.distributed.get_rank() == 0


def settle() -> None:
    """Waits until the threads that sum rest, so that the interpreter may end.

    Such a thread drops the tensors of a sum only after telling that the sum is there. It needs the interpreter for
    that; where it is gone already the process aborts, with its work done and a failure told to the launcher.
    """
    deadline, calm = time.monotonic() + SETTLE_S, 0
    while calm < CALM_LOOKS and time.monotonic() < deadline:
        time.sleep(0.005)
        calm = 0 if any(_at_work(thread) for thread in Path("/proc/self/task").glob("*")) else calm + 1


def _at_work(thread: Path) -> bool:
    """Whether a thread of this process is one of gloo's and does not sleep."""
    try:
        name, state = (thread / "stat").read_text().partition("(")[2].rsplit(")", 1)
    except FileNotFoundError:  # it has ended
        return False
    return "gloo" in name and state.split()[0] != "S"


def is_shard(tensor: torch.Tensor) -> bool:
    """Whether a tensor is this process's part of a larger one."""
    return hasattr(tensor, "full_tensor")


def local(tensor: Any) -> torch.Tensor:
    """Returns the part of a tensor that is here."""
    return tensor.to_local() if is_shard(tensor) else tensor


def whole(tensor: Any) -> torch.Tensor:
    """Returns all of a tensor; of one in shards, every process must ask for it."""
    return tensor.full_tensor() if is_shard(tensor) else tensor


def shard(layers: Iterable[torch.nn.Module]) -> list[Any]:
    """Puts the weights of each layer in shards (FSDP2); gradients are summed over the processes."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    made = []
    for layer in layers:
        device = next(layer.parameters()).device.type
        mesh = init_device_mesh(device, (torch.distributed.get_world_size(),))
        part: Any = fully_shard(layer, mesh=mesh)
        part.set_gradient_divide_factor(1.0)
        part.set_force_sum_reduction_for_comms(True)  # gloo knows no product within a sum
        made.append(part)
    return made


def gather(layers: Iterable[Any], together: bool) -> None:
    """Keeps the weights of layers whole until told otherwise, or only where a pass needs them."""
    for layer in layers:
        layer.set_reshard_after_forward(not together)
        if together:
            layer.unshard()
        else:
            layer.reshard()
