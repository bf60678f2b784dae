"""Measuring: cheats do not pay, accidents cost only themselves."""

from __future__ import annotations

import os
import subprocess
import time
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from treegym.errors import ConfigError
from treegym.optimize import worker
from treegym.optimize.compare import output_error
from treegym.optimize.measure import check_module, measure
from treegym.optimize.measurement import Measurement, MeasureSettings

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


class Remembering(nn.Module):
    """A cheat: looks its input up among those it has seen, by every number in it."""

    def __init__(self, base: nn.Module) -> None:
        super().__init__()
        self.base = base
        self.seen: dict[bytes, Tensor] = {}
        self.hits = 0

    def forward(self, x: Tensor) -> Tensor:
        key = x.numpy().tobytes()
        self.hits += key in self.seen
        if key not in self.seen:
            self.seen[key] = self.base(x)
        return self.seen[key]


class Later(Tensor):
    """Numbers that are worked out when they are first looked at."""

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        plain = [a.work() if isinstance(a, Later) else a for a in args]
        return func(*plain, **(kwargs or {}))


class Procrastinating(nn.Module):
    """A cheat: returns at once, computes when the output is compared."""

    def __init__(self, base: nn.Module) -> None:
        super().__init__()
        self.base = base

    def forward(self, x: Tensor) -> Tensor:
        out = torch.empty(16, 64).as_subclass(Later)
        out.work = lambda: self.base(x)  # type: ignore[attr-defined]
        return out


def test_no_input_comes_twice(base: nn.Module) -> None:
    cheat = Remembering(base)
    m = measure(base, cheat, inputs, FAST)
    assert len(cheat.seen) > 10
    assert cheat.hits == 0
    assert m.memory.value < 0.5  # nor is a call for memory one that it remembers, and what it keeps counts


def test_work_put_off_is_timed(base: nn.Module) -> None:
    m = measure(base, Procrastinating(base), inputs, FAST)
    assert m.speed.value < 1.5  # it computes when read, which is before the clock stops
    assert m.output_error == 0.0


def test_numbers_that_are_not_finite_must_agree(base: nn.Module) -> None:
    masked = torch.tensor([1.0, -torch.inf, torch.nan])
    assert output_error(masked, masked.clone()) == 0.0
    assert output_error(masked, torch.tensor([1.0, torch.inf, torch.nan])) == 1.0
    assert output_error(masked, torch.tensor([1.0, 0.0, torch.nan])) == 1.0
    assert output_error(torch.ones(2), torch.tensor([1.0, torch.nan])) == 1.0

    class Masked(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return base(x).masked_fill(torch.arange(64) % 7 == 0, -torch.inf)

    check_module(Masked(), inputs)


def test_output_error_by_hand() -> None:
    # root mean square of (0, 0, 0, 0.1): 0.05; spread of (1, 2, 3, 4) about 2.5: sqrt(5 / 3)
    expected, got = torch.tensor([1.0, 2.0, 3.0, 4.0]), torch.tensor([1.0, 2.0, 3.0, 4.1])
    assert output_error(expected, got) == pytest.approx(0.05 / (5 / 3) ** 0.5, rel=1e-5)
    assert output_error(expected + 100, got + 100) == pytest.approx(0.05 / (5 / 3) ** 0.5, rel=1e-4)  # centred
    assert output_error(torch.full((4,), 5.0), torch.full((4,), 5.05)) == pytest.approx(0.01, rel=1e-4)  # a constant
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

    class Nothing(nn.Module):
        def forward(self, x: Tensor) -> str:
            return "done"

    check_module(base, inputs)
    with pytest.raises(ConfigError, match="not deterministic"):
        check_module(Random(), inputs)
    with pytest.raises(ConfigError, match="no tensor to compare"):
        check_module(Nothing(), inputs)
    with pytest.raises(ConfigError, match=r"changes is 1 \(Random\)"):
        check_module(nn.Sequential(base, Random(), base), inputs)
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


def test_children_side_by_side_answer_in_order(tmp_path: Path) -> None:
    def work(i: int) -> dict[str, int]:
        (tmp_path / str(i)).touch()
        deadline = time.monotonic() + 60
        while len(list(tmp_path.iterdir())) < 3:  # one after the other they would wait for each other for ever
            assert time.monotonic() < deadline
            time.sleep(0.01)
        time.sleep(0.2 - 0.1 * i)
        if i == 1:
            raise ValueError("one of them")
        return {"i": i}

    outcomes = worker.run_all([partial(work, i) for i in range(3)], at_once=3)
    assert [outcome.result for outcome in outcomes] == [{"i": 0}, None, {"i": 2}]
    assert outcomes[1].reason == "ValueError: one of them"


def test_what_a_child_started_ends_with_it(tmp_path: Path) -> None:
    note = tmp_path / "pid"

    def work() -> dict[str, int]:
        note.write_text(str(subprocess.Popen(["sleep", "60"]).pid))
        time.sleep(60)
        return {}

    assert "stopped" in worker.run(work, worker.Limits(seconds=4.0)).reason
    pid = int(note.read_text())
    for _ in range(100):
        if not Path(f"/proc/{pid}").exists() or "Z" in Path(f"/proc/{pid}/stat").read_text().split(")")[1][:3]:
            return
        time.sleep(0.1)
    raise AssertionError("a process that the child started lives on")


def test_child_that_explodes_is_stopped() -> None:
    def explode() -> dict[str, int]:
        return {"n": len(torch.ones(2**31).tolist())}

    assert "memory limit" in worker.run(explode, worker.Limits(seconds=30, megabytes=512)).reason
