"""Candidates that cheat: each is caught, or named at the end of this file as out of scope, with the reason."""

from __future__ import annotations

import itertools
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from treegym.optimize import worker
from treegym.optimize.measure import Refused, measure
from treegym.optimize.measurement import Measurement, MeasureSettings
from treegym.optimize.memory import footprint

FAST = MeasureSettings(min_pairs=10, max_pairs=20, max_seconds=0.5)


def inputs(seed: int) -> tuple[Tensor, ...]:
    return (torch.randn(32, 128, generator=torch.Generator().manual_seed(seed)),)


@pytest.fixture
def base() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(128, 512), nn.ReLU(), nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 64)).eval()


def measured(original: nn.Module, make: Callable[[], nn.Module]) -> worker.WorkResult:
    """Measures in a child of its own, as the core does."""
    return worker.run(lambda: measure(original, make(), inputs, FAST).as_dict(), worker.Limits(seconds=60))


def figures(outcome: worker.WorkResult) -> Measurement:
    assert outcome.result is not None, outcome.reason
    return Measurement.from_dict(outcome.result)


class Forking(nn.Module):
    """Lets a child process do the work and waits for it."""

    def __init__(self, base: nn.Module) -> None:
        super().__init__()
        self.base = base

    def forward(self, x: Tensor) -> Tensor:
        out = torch.zeros(len(x), 64).share_memory_()
        pid = os.fork()
        if pid == 0:
            out.copy_(self.base(x))
            os._exit(0)
        os.waitpid(pid, 0)
        return out.clone()


def test_work_in_a_child_process_is_counted(base: nn.Module) -> None:
    m = figures(measured(base, lambda: Forking(base)))
    assert m.output_error == 0.0
    assert m.speed.value < 1.0


class Hired(nn.Module):
    """Has a thread do the work beside the clock."""

    def __init__(self, base: nn.Module) -> None:
        super().__init__()
        self.base, self.todo, self.done = base, threading.Event(), threading.Event()
        threading.Thread(target=self._work, daemon=True).start()

    def _work(self) -> None:
        while True:
            self.todo.wait()
            self.todo.clear()
            with torch.inference_mode():
                self.result = self.base(self.x)
            self.done.set()

    def forward(self, x: Tensor) -> Tensor:
        self.x = x
        self.todo.set()
        self.done.wait()
        self.done.clear()
        return self.result


def test_a_helper_thread_is_refused(base: nn.Module) -> None:
    outcome = measured(base, lambda: Hired(base))
    assert outcome.result is None
    assert "leaves helpers running" in outcome.reason


class LazyRows(Tensor):
    """Works a row out when it is looked at."""

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is Tensor.__getitem__ and isinstance(args[0], LazyRows):
            return args[0].row(args[1])
        return super().__torch_function__(func, types, args, kwargs or {})


class Lazy(nn.Module):
    """Computes the row that is read, not the others."""

    def __init__(self, base: nn.Module) -> None:
        super().__init__()
        self.base = base

    def forward(self, x: Tensor) -> Tensor:
        out = torch.empty(len(x), 64).as_subclass(LazyRows)
        out.row = lambda index: self.base(x[-1:])[0][index[1:]]  # type: ignore[attr-defined]
        return out


def test_rows_that_are_not_computed_are_wrong(base: nn.Module) -> None:
    assert figures(measured(base, lambda: Lazy(base))).accuracy.value < 0.5


class LazyList(list):  # type: ignore[type-arg]
    """Works its items out whenever they are asked for."""

    def __init__(self, work: Callable[[], list[Tensor]]) -> None:
        super().__init__([None])
        self.work = work

    def __iter__(self) -> Iterator[Tensor]:
        return iter(self.work())


class Putting(nn.Module):
    def __init__(self, base: nn.Module, *, off: bool) -> None:
        super().__init__()
        self.base, self.off = base, off

    def forward(self, x: Tensor) -> Any:
        return LazyList(lambda: [self.base(x)]) if self.off else [self.base(x)]


def test_a_list_that_works_when_it_is_read_is_timed(base: nn.Module) -> None:
    m = figures(measured(Putting(base, off=False), lambda: Putting(base, off=True)))
    assert m.output_error == 0.0
    assert m.speed.value < 1.2


class Filling(nn.Module):
    """Returns at once; a thread that ends by itself fills the output in."""

    def __init__(self, base: nn.Module) -> None:
        super().__init__()
        self.base = base

    def forward(self, x: Tensor) -> Tensor:
        out = torch.zeros(len(x), 64)

        def work() -> None:
            time.sleep(0.02)
            with torch.inference_mode():
                out.copy_(self.base(x))

        threading.Thread(target=work, daemon=True).start()
        return out


def test_an_output_that_is_filled_in_later_is_wrong(base: nn.Module) -> None:
    outcome = measured(base, lambda: Filling(base))
    assert outcome.result is None or figures(outcome).accuracy.value < 0.5


class Hiding(nn.Module):
    """Keeps its weights where parameters() does not look."""

    def __init__(self, base: nn.Module, where: str) -> None:
        super().__init__()
        if where == "attribute":
            self.kept = [(layer, {"base": layer.weight.data.clone()}) for layer in base if isinstance(layer, nn.Linear)]
        elif where == "closure":
            copy = torch.cat([p.data.flatten() for p in base.parameters()])
            self.kept = [lambda: copy]
        else:
            self.kept = [torch.cat([p.data.flatten() for p in base.parameters()]).numpy()]
        self.base = (base,)

    def forward(self, x: Tensor) -> Tensor:
        return self.base[0](x)


@pytest.mark.parametrize("where", ["attribute", "closure", "array"])
def test_hidden_memory_is_counted(base: nn.Module, where: str) -> None:
    assert footprint(Hiding(base, where)) > 1.9 * footprint(base)


class Degrading(nn.Module):
    """Gets slower and slower."""

    def __init__(self, base: nn.Module) -> None:
        super().__init__()
        self.base, self.calls = base, 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        for _ in range(self.calls // 12):
            self.base(x)
        return self.base(x)


def test_a_candidate_that_degrades_is_judged_by_its_end(base: nn.Module) -> None:
    m = measure(base, Degrading(base), inputs, FAST)
    assert m.speed.high < 0.9


class Forgetting(nn.Module):
    """Is right at first."""

    def __init__(self, base: nn.Module) -> None:
        super().__init__()
        self.base, self.calls = base, 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return self.base(x) * (1.0 if self.calls < 16 else 0.9)


def test_a_candidate_that_goes_wrong_late_is_wrong(base: nn.Module) -> None:
    assert measure(base, Forgetting(base), inputs, FAST).accuracy.low < 0.95


class Peeking(nn.Module):
    """Fetches what it is measured with from the frames of its caller."""

    def __init__(self, base: nn.Module) -> None:
        super().__init__()
        self.base = base

    def forward(self, x: Tensor) -> Tensor:
        frame = sys._getframe()
        while frame is not None:
            frame = frame.f_back  # type: ignore[assignment]
        return self.base(x)


def test_looking_at_the_caller_is_refused(base: nn.Module) -> None:
    with pytest.raises(Refused, match="_getframe"):
        measure(base, Peeking(base), inputs, FAST)
    measure(Peeking(base), Peeking(base), inputs, FAST)  # an original that does so is no worse for it


def test_inputs_cannot_be_worked_ahead(base: nn.Module) -> None:
    """In the frames there is no input but the one that is being worked on: others are made when their turn comes."""
    made: list[int] = []

    def counted(seed: int) -> tuple[Tensor, ...]:
        made.append(seed)
        return inputs(seed)

    class Counting(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            ahead.append(len(made))
            return x

    ahead: list[int] = []
    measure(Counting(), Counting(), counted, FAST)
    assert all(later > sooner for sooner, later in itertools.pairwise(ahead) if later != sooner)


class Sleeping(nn.Module):
    """Waits, as for a disk, and then does the work."""

    def __init__(self, base: nn.Module) -> None:
        super().__init__()
        self.base = base

    def forward(self, x: Tensor) -> Tensor:
        time.sleep(0.01)
        return self.base(x)


def test_an_original_that_sleeps_gives_no_gain(base: nn.Module) -> None:
    m = figures(measured(Sleeping(base), lambda: base))
    assert m.wall is not None
    assert m.wall.value > 5  # the clock on the wall is taken in
    assert m.speed.value <= 1.0  # what counts is not
    assert figures(measured(base, lambda: Sleeping(base))).speed.value < 0.5


# Out of scope, because code that runs in the measuring process can do anything to it, and only a machine of its own
# would be safe: a strategy that patches PyTorch, the clocks or this package; one that reads the process's memory
# (ctypes, /proc/self/mem); one that starts a daemon that leaves its process group and talks to it over a socket; one
# that counts more calls than are measured before it goes wrong; and memory in global variables, of which the process's
# growth tells (`process_bytes`), though not the count of bytes.
