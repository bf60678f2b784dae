"""Measuring: cheats do not pay, accidents cost only themselves."""

from __future__ import annotations

import os
import time

import pytest
import torch
from torch import Tensor, nn

from treegym.envs.candidate_selection import worker
from treegym.envs.candidate_selection.measure import check_module, measure, output_error
from treegym.envs.candidate_selection.measure_types import Measurement, MeasureSettings
from treegym.errors import ConfigError

FAST = MeasureSettings(min_pairs=5, max_pairs=8, max_seconds=0.3)


def inputs(seed: int) -> tuple[Tensor, ...]:
    return (torch.randn(16, 64, generator=torch.Generator().manual_seed(seed)),)


class Slow(nn.Module):
    """Eight times the work of `base`."""

    def __init__(self, base: nn.Module) -> None:
        super().__init__()
        self.base = base

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(7):
            self.base(x)
        return self.base(x)


class Cached(nn.Module):
    """A cheat: computes once and repeats itself."""

    def __init__(self, base: nn.Module) -> None:
        super().__init__()
        self.base, self.kept = base, None

    def forward(self, x: Tensor) -> Tensor:
        if self.kept is None:
            self.kept = self.base(x)
        return self.kept


@pytest.fixture
def base() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 64)).eval()


def test_more_work_measures_slower(base: nn.Module) -> None:
    m = measure(base, Slow(base), inputs, FAST)
    assert m.speed.low <= m.speed.value <= m.speed.high
    assert m.speed.value < 0.6  # eight times the work; a loose bound, since machines are noisy
    assert m.output_error == 0.0
    assert m.accuracy.value == 1.0
    assert Measurement.from_dict(m.as_dict()) == m


def test_caching_is_found_out(base: nn.Module) -> None:
    m = measure(base, Cached(base), inputs, FAST)
    assert m.output_error > 0.5  # its outputs belong to other inputs
    assert m.accuracy.value < 0.5


def test_output_error_by_hand() -> None:
    assert output_error(torch.tensor([3.0, 4.0]), torch.tensor([3.0, 3.0])) == pytest.approx(0.2)  # |1| / |(3, 4)|
    assert output_error(torch.ones(2), torch.ones(3)) == 1.0
    assert output_error(torch.ones(2), torch.tensor([1.0, float("nan")])) == 1.0
    assert output_error({"a": torch.ones(2)}, {"a": torch.ones(2)}) == 0.0


def test_a_task_decides_accuracy(base: nn.Module) -> None:
    scores = {id(base): 0.8}
    m = measure(base, Slow(base), inputs, FAST, task=lambda module: scores.get(id(module), 0.6))
    assert m.accuracy.value == pytest.approx(0.75)


def test_modules_that_cannot_be_measured_are_told(base: nn.Module) -> None:
    class Random(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x + torch.rand(())

    class Whole(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.argmax()

    check_module(base, inputs)
    with pytest.raises(ConfigError, match="not deterministic"):
        check_module(Random(), inputs)
    with pytest.raises(ConfigError, match="no floating-point"):
        check_module(Whole(), inputs)
    with pytest.raises(ConfigError, match="does not run"):
        check_module(base, lambda seed: (torch.randn(2, 3),))


def test_child_process_returns_and_reports() -> None:
    assert worker.run(lambda: {"pid": os.getpid()}).result != {"pid": os.getpid()}

    def fails() -> dict[str, int]:
        raise ValueError("the wrong kind\nof thing")

    assert worker.run(fails).reason == "ValueError: the wrong kind"


def test_child_that_dies_costs_only_itself() -> None:
    assert "SIGKILL" in worker.run(lambda: os.kill(os.getpid(), 9) or {}).reason
    assert "exit code 3" in worker.run(lambda: os._exit(3)).reason
    start = time.monotonic()
    assert "stopped after 0.3 s" in worker.run(lambda: time.sleep(60) or {}, worker.Limits(seconds=0.3)).reason
    assert time.monotonic() - start < 30


def test_child_that_explodes_is_stopped() -> None:
    def explode() -> dict[str, int]:
        return {"n": len(torch.ones(2**31).tolist())}

    assert "memory limit" in worker.run(explode, worker.Limits(seconds=30, megabytes=512)).reason
