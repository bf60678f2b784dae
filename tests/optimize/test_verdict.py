"""The verdict: each output on its own, whole numbers exactly, never slower unless asked, and what a report says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from treegym.optimization import create_hybrid_optimization_core
from treegym.optimize.candidates import apply, parse
from treegym.optimize.compare import Comparison, leaves
from treegym.optimize.config import CoreConfig
from treegym.optimize.fitness import weights_of
from treegym.optimize.generate import propose
from treegym.optimize.inputs import fresh_inputs
from treegym.optimize.measure import check_module, measure
from treegym.optimize.measurement import Interval, Measurement, MeasureSettings
from treegym.optimize.tracker import StrategyTracker
from treegym.optimize.trials import Evaluated, Trials

FAST = MeasureSettings(min_pairs=5, max_pairs=8, max_seconds=0.3)


def inputs(seed: int) -> tuple[Tensor, ...]:
    return (torch.randn(16, 64, generator=torch.Generator().manual_seed(seed)),)


@pytest.fixture
def base() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10)).eval()


class Around(nn.Module):
    """What `function` makes of a module's output."""

    def __init__(self, base: nn.Module, function: Any) -> None:
        super().__init__()
        self.base, self.function = base, function

    def forward(self, x: Tensor) -> Any:
        return self.function(self.base(x))


def test_an_offset_hides_no_error(base: nn.Module) -> None:
    shifted = Around(base, lambda y: y + 100.0)
    rounded = Around(base, lambda y: (y + 100.0).bfloat16().float())  # steps of 0.5: the signal is gone
    m = measure(shifted, rounded, inputs, FAST)
    assert m.output_error > 0.3  # over the size of the output it would be 0.0014
    verdict = m.outputs[0]
    assert verdict.first is not None
    assert verdict.first < 0.9  # and most of the choices differ


def test_an_offset_per_position_hides_no_error_either(base: nn.Module) -> None:
    far = torch.linspace(-100.0, 100.0, 10)
    shifted, rounded = Around(base, lambda y: y + far), Around(base, lambda y: (y + far).bfloat16().float())
    assert measure(shifted, rounded, inputs, FAST).output_error > 0.05


def test_every_output_counts_and_the_worst_is_named(base: nn.Module) -> None:
    both = Around(base, lambda y: {"large": 1000.0 * y, "small": y})
    zeroed = Around(base, lambda y: {"large": 1000.0 * y, "small": 0.0 * y})
    m = measure(both, zeroed, inputs, FAST)
    assert m.worst == "small"
    assert m.accuracy.value < 0.1
    assert [verdict.error for verdict in m.outputs][1:] == [0.0]


def test_whole_numbers_must_be_equal(base: nn.Module) -> None:
    ids = Around(base, lambda y: y.argmax(-1))
    check_module(ids, inputs)
    assert measure(ids, ids, inputs, FAST).accuracy.value == 1.0
    other = Around(base, lambda y: torch.cat([y.argmax(-1)[:-1], (y.argmax(-1)[-1:] + 1) % 10]))  # one of sixteen
    m = measure(ids, other, inputs, FAST)
    assert (m.accuracy.value, m.output_error) == (0.0, 1 / 16)
    assert "whole numbers differ" in m.worst


def test_missing_parts_and_other_formats_are_told(base: nn.Module) -> None:
    pair = Around(base, lambda y: (y, y.sum(-1)))
    assert "other parts" in measure(pair, Around(base, lambda y: (y,)), inputs, FAST).worst
    assert (
        "float64[16, 10] instead of float32[16, 10]"
        in measure(base, Around(base, lambda y: y.double()), inputs, FAST).worst
    )


def test_choices_must_agree_but_for_near_ties() -> None:
    rng = torch.Generator().manual_seed(0)
    scores = torch.randn(400, 5, generator=rng)
    swapped = scores.clone()
    top = scores.topk(2, dim=-1)
    close = (top.values[:, 0] - top.values[:, 1]) < 0.01
    assert 0 < int(close.sum()) < 40
    for row in close.nonzero().flatten().tolist():  # near ties come in the other order: nobody's choice
        first, second = top.indices[row].tolist()
        swapped[row, first], swapped[row, second] = scores[row, second], scores[row, first]
    comparison = Comparison()
    comparison.add(list(leaves(scores)), list(leaves(swapped)))
    assert comparison.verdicts()[0].first == 1.0
    worse = scores.clone()
    worse[:100, :] = worse[:100, :].flip(-1)
    comparison.add(list(leaves(scores)), list(leaves(worse)))
    assert comparison.verdicts()[0].first == pytest.approx((1.0 + (300 + 20) / 400) / 2, abs=0.06)  # one in five stays


@dataclass
class Answer:
    logits: Tensor
    states: list[Tensor]
    count: int


class Named(nn.Module):
    """Takes named arguments, gives a dataclass."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.out = nn.Embedding(50, 32), nn.Linear(32, 50)

    def forward(self, *, ids: Tensor, mask: Tensor | None = None) -> Answer:
        x = self.table(ids)
        x = x if mask is None else x * mask[..., None]
        return Answer(self.out(x), [x], ids.shape[1])


def test_named_arguments_and_dataclasses(quick: dict[str, Any]) -> None:
    torch.manual_seed(0)
    sample = {"ids": torch.randint(50, (4, 12)), "mask": torch.ones(4, 12)}
    core = create_hybrid_optimization_core({**quick, "max_accuracy_drop": 0.1})
    module, result = core.hybrid_optimize_module(Named(), sample)
    assert result["evaluations"] >= 1
    assert any(row["measurement"] for row in result["candidates"])
    names = {one["name"] for row in result["candidates"] if row["measurement"] for one in row["measurement"]["outputs"]}
    assert names == {"logits", "states.0", "count"}
    assert module(**sample).logits.shape == (4, 12, 50)


def test_several_shapes_in_one() -> None:
    shapes = [(torch.randn(4, 64),), (torch.randn(9, 64),), (torch.randn(1, 64),)]
    source = fresh_inputs(shapes)
    assert [source(seed)[0].shape[0] for seed in range(4)] == [4, 9, 1, 4]
    assert not torch.equal(source(0)[0], source(3)[0])
    net = nn.Sequential(nn.Linear(64, 64), nn.ReLU())
    m = measure(net, apply(net, parse("workspaces"), source(0)), source, FAST)
    assert m.accuracy.value == pytest.approx(1.0, abs=1e-5)
    varied = fresh_inputs(lambda seed: torch.randn(2 + seed % 5, 64, generator=torch.Generator().manual_seed(seed)))
    assert measure(net, net, varied, FAST).output_error == 0.0


def test_an_input_function_that_returns_nothing_is_told() -> None:
    with pytest.raises(ValueError, match="inputs are a NoneType"):
        fresh_inputs(lambda seed: None)


def _found(speed: float, memory: float, accuracy: float) -> Evaluated:
    same = [Interval(value, value, value) for value in (speed, memory, accuracy)]
    return Evaluated(parse("bf16"), Measurement(*same, 0.0, (1.0, 1.0), (1, 1), 9), 1.0)


@pytest.mark.parametrize(
    ("settings", "figures", "allowed"),
    [
        ({}, (0.9, 4.0, 1.0), False),  # smaller, but slower
        ({"allow_slower": True}, (0.9, 4.0, 1.0), True),
        ({}, (1.2, 1.0, 0.989), False),  # one limit everywhere: 1 %
        ({"max_accuracy_drop": 0.05}, (1.2, 1.0, 0.989), True),
        ({}, (1.2, 1.0, 0.991), True),
    ],
)
def test_limits(settings: dict[str, Any], figures: tuple[float, float, float], allowed: bool) -> None:
    trials = Trials(nn.Identity(), inputs, CoreConfig.of(settings), weights_of(None))
    assert trials.allowed(_found(*figures)) is allowed


def test_proposals_know_the_limit() -> None:
    tracker = StrategyTracker()
    names = ["inplace", "int4_weights", "low_rank", "bf16"]
    weights = weights_of({"speed": 1.0})
    without = {name for one in propose(names, "transformer", tracker, weights, 10) for name in one.strategies}
    within = {
        name for one in propose(names, "transformer", tracker, weights, 10, limit=0.01) for name in one.strategies
    }
    assert "int4_weights" in without
    assert within == {"inplace", "bf16"}
    assert [one.name for one in propose(["low_rank"], "dense", tracker, weights, 10, limit=0.0)] == ["low_rank"]


def test_both_sides_are_measured_frozen(quick: dict[str, Any]) -> None:
    """As they are deployed: an original that is fast only without gradients is no easy victim."""

    class Watching(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(64, 64)
            self.seen: set[tuple[bool, bool, bool]] = set()

        def forward(self, x: Tensor) -> Tensor:
            self.seen.add((self.training, torch.is_inference_mode_enabled(), self.layer.weight.requires_grad))
            return self.layer(x)

    first, second = Watching(), Watching()
    second.load_state_dict(first.state_dict())
    measure(first, second, inputs, FAST)
    assert first.seen == second.seen == {(False, True, False)}
    core = create_hybrid_optimization_core(quick)
    optimised, _ = core.hybrid_optimize_module(nn.Sequential(nn.Linear(64, 64), nn.ReLU()), inputs)
    assert not any(parameter.requires_grad for parameter in optimised.parameters())  # delivered as measured


def test_buffers_that_are_kept_work_in_every_mode() -> None:
    net = nn.Sequential(nn.Linear(64, 64), nn.ReLU())
    module = apply(net, parse("workspaces"), inputs(0))
    with torch.inference_mode():
        first = module(inputs(0)[0])
    with torch.no_grad():
        assert torch.equal(module(inputs(0)[0]), first)
    assert np.isfinite(first.numpy()).all()
