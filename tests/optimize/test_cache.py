"""Measurements that are kept and merged, and Optuna as the searcher over the same candidates."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from treegym.__main__ import main
from treegym.errors import DataError
from treegym.optimization import create_hybrid_optimization_core
from treegym.optimize.cache import MeasurementCache, key_of, merge
from treegym.optimize.measurement import Interval, Measurement

QUICK = {"seconds_per_candidate": 0.1, "max_iterations": 4, "num_candidates": 2, "enable_adaptive_hybrid": False,
         "max_accuracy_drop": 0.05, "processes": 1}  # fmt: skip


def _module(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 64)).eval()


def _measurement(speed: float, half: float) -> Measurement:
    one = Interval(1.0, 1.0, 1.0)
    return Measurement(Interval(speed, speed - half, speed + half), one, one, 0.0, (1.0, 1.0 / speed), (8, 8), 10)


def test_a_key_tells_weights_structure_and_inputs_apart() -> None:
    x = (torch.zeros(4, 64),)
    keys = [key_of(_module(), x), key_of(_module(1), x), key_of(_module(), (torch.zeros(5, 64),)),
            key_of(nn.Sequential(_module()), x)]  # fmt: skip
    assert len(set(keys)) == 4
    assert keys[0] == key_of(_module(), (torch.ones(4, 64),))


def test_a_second_run_measures_the_winner_alone(tmp_path: Path) -> None:
    settings = {**QUICK, "cache_path": str(tmp_path / "cache.json"), "optimization_strategies": ["bf16", "inplace"]}
    core = create_hybrid_optimization_core(settings)
    core.hybrid_optimize_module(_module(), torch.randn(8, 64))
    first = {one.candidate.name: one.measurement for one in core.evaluated}
    core.hybrid_optimize_module(_module(), torch.randn(8, 64))
    assert len(first) > 1
    again = {one.candidate.name: one.measurement for one in core.evaluated}
    assert all(again[name] == first[name] for name in again.keys() & first.keys())  # timed anew, none would be equal
    assert again.keys() & first.keys()


def test_merging_keeps_the_tightest(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wide, tight = _measurement(2.0, 0.5), _measurement(2.1, 0.1)
    MeasurementCache(tmp_path / "a.json").add("k", {"bf16": wide})
    MeasurementCache(tmp_path / "b.json").add("k", {"bf16": tight, "fp16": wide})
    MeasurementCache(tmp_path / "b.json").add("other", {"bf16": wide})
    assert main(["optimize", "merge", str(tmp_path / "a.json"), str(tmp_path / "b.json")]) == 0
    assert "holds 3 measurements" in capsys.readouterr().out
    merged = MeasurementCache(tmp_path / "a.json")
    assert merged.of("k") == {"bf16": tight, "fp16": wide}
    assert merge(tmp_path / "b.json", [tmp_path / "a.json"]) == 3


def test_damaged_measurements_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "cache.json"
    MeasurementCache(path).add("k", {"bf16": _measurement(2.0, 0.5)})
    good = json.loads(path.read_text())
    good["measurements"]["k"]["bf16"]["speed"]["low"] = 3.0  # above the value
    path.write_text(json.dumps(good))
    with pytest.raises(DataError, match="not an interval"):
        MeasurementCache(path)
    path.write_text('{"format": 7}')
    with pytest.raises(DataError, match="format 1"):
        MeasurementCache(path)
    assert main(["optimize", "merge", str(path), str(path)]) == 1


def test_optuna_searches_the_same_space() -> None:
    pytest.importorskip("optuna", reason="needs the extra optuna")
    names = ["bf16", "bf16_linear", "inplace", "inference_mode", "prune_structured"]
    core = create_hybrid_optimization_core(
        {**QUICK, "selection_strategy": "optuna", "optimization_strategies": names, "max_iterations": 8}
    )
    core.hybrid_optimize_module(_module(), torch.randn(8, 64))
    tried = [one.candidate for one in core.evaluated]
    assert len(set(tried)) == len(tried) == 8
    assert not any({"bf16", "bf16_linear"} <= set(one.strategies) for one in tried)  # they exclude each other


def test_optuna_ends_when_all_is_measured() -> None:
    pytest.importorskip("optuna", reason="needs the extra optuna")
    core = create_hybrid_optimization_core(
        {**QUICK, "selection_strategy": "optuna", "optimization_strategies": ["bf16", "inplace"], "max_iterations": 99}
    )
    core.hybrid_optimize_module(_module(), torch.randn(8, 64))
    assert {one.candidate.name for one in core.evaluated} == {"bf16", "inplace", "inplace+bf16"}
