"""The founding document taken literally: its settings as printed, its names, its loops."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from treegym.__main__ import main
from treegym.errors import ConfigError
from treegym.optimization import (
    AdaptiveModule,
    CandidateSelector,
    create_hybrid_optimization_core,
    create_universal_optimizer,
    get_all_models,
)
from treegym.optimize.candidates import Candidate, parse
from treegym.optimize.config import FOUNDING, CoreConfig
from treegym.optimize.fitness import weights_of
from treegym.optimize.generate import PAIRS, exact_part, propose
from treegym.optimize.measurement import Interval, Measurement
from treegym.optimize.models import MODELS
from treegym.optimize.tracker import StrategyTracker

QUICK = {
    "seconds_per_candidate": 0.15,
    "max_iterations": 2,
    "num_candidates": 2,
    "enable_adaptive_hybrid": False,
    "optimization_strategies": FOUNDING,
}  # the back ends take seconds
PRINTED = {
    "enable_hybrid_optimization": True,
    "enable_candidate_selection": True,
    "enable_ensemble_optimization": True,
    "enable_rl_optimization": True,
    "enable_dapo": True,
    "enable_vapo": True,
    "enable_orz": True,
    "num_candidates": 5,
    "hybrid_strategies": ["kernel_fusion", "quantization", "memory_pooling", "attention_fusion"],
}


def _mlp() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 64))


def test_the_universal_configuration_is_accepted_as_printed() -> None:
    optimizer = create_universal_optimizer({**PRINTED, **QUICK})
    optimized_model = optimizer.optimize_model(_mlp())
    assert optimized_model(torch.randn(3, 64)).shape == (3, 64)
    assert CoreConfig.of(PRINTED) == CoreConfig(num_candidates=5, optimization_strategies=FOUNDING)


def test_optimisation_can_be_switched_off() -> None:
    core = create_hybrid_optimization_core({"enable_hybrid_optimization": False})
    module, result = core.hybrid_optimize_module(_mlp())
    assert result["selected_strategy"] == "original"
    assert "off" in result["note"]
    x = torch.randn(2, 64)
    assert torch.equal(module(x), _mlp()(x))


def test_the_loop_over_all_models_runs_as_printed() -> None:
    core = create_hybrid_optimization_core({**QUICK, "max_iterations": 1})
    models = get_all_models()
    founding = ("deepseek", "llama", "claude", "viral_clipper", "brandkit", "qwen")
    assert {f"{name}/{size}" for name in founding for size in range(3)} <= models.keys()
    results = {}
    for name, build in models.items():
        if name in ("claude/0", "viral_clipper/0"):
            _, results[name] = core.hybrid_optimize_module(build())
    assert all(result["evaluations"] == 1 for result in results.values())


def test_users_register_models() -> None:
    MODELS.register("mine", _mlp)
    try:
        assert get_all_models()["mine"] is _mlp
    finally:
        del MODELS._registered["mine"]


def test_lists_of_strategies_by_kind_of_model() -> None:
    lists = {"deepseek": ["bf16"], "transformer": ["inplace"], "viral_clipper": ["quantization"]}
    config = CoreConfig.of({"model_optimizations": lists})
    assert config.strategies_for("moe", "DeepSeekV3") == ("bf16",)
    assert config.strategies_for("transformer", "Encoder") == ("inplace",)
    assert config.strategies_for("multimodal", "ViralClipper") == ("quantization",)
    assert config.strategies_for("dense", "Sequential") == CoreConfig().optimization_strategies
    core = create_hybrid_optimization_core({**QUICK, "model_optimizations": {"dense": ["inplace"]}})
    assert {name for one in core.generate_optimization_candidates(_mlp()) for name in one.strategies} == {"inplace"}
    for bad in ({"llama": "bf16"}, {"llama": []}, {"llama": ["bf61"]}, ["bf16"]):
        with pytest.raises(ConfigError):
            CoreConfig.of({"model_optimizations": bad})


def test_the_founding_pairs_are_among_the_candidates() -> None:
    names = ["merge_projections", "bf16", "inplace", "attention_fusion", "int8_weights"]
    found = propose(names, "transformer", StrategyTracker(), weights_of(None), 6, limit=0.01)
    assert len(found) == 6
    for pair in PAIRS:
        assert any(pair <= set(one.families) for one in found)
    assert any(exact_part(one) == one for one in found if len(one.strategies) > 1)  # and one that loses nothing


def test_a_budget_of_time_ends_the_search() -> None:
    core = create_hybrid_optimization_core({**QUICK, "max_iterations": 9, "time_budget": 0.0, "processes": 1})
    assert core.hybrid_optimize_module(_mlp(), torch.randn(4, 64))[1]["evaluations"] == 1


def test_every_selection_is_callable_whatever_the_setting_says() -> None:
    names = [Candidate((name,)) for name in ("bf16", "inplace", "merge_projections")]
    start = time.monotonic()
    chosen = CandidateSelector().rl_enhanced_selection(names, [0.7, 0.66, 0.65])
    assert chosen in names
    assert time.monotonic() - start < 60  # the policy that ships: nothing is trained
    selector = create_hybrid_optimization_core(QUICK).candidate_selector
    for select in ("tournament_selection", "roulette_selection", "rank_selection", "rl_enhanced_selection"):
        assert getattr(selector, select)(names, [0.7, 0.66, 0.65]) in names


def test_rl_selection_needs_no_training_by_default() -> None:
    core = create_hybrid_optimization_core({**QUICK, "selection_strategy": "rl"})
    _, result = core.hybrid_optimize_module(_mlp(), torch.randn(16, 64))
    assert 1 <= result["evaluations"] <= 2


def test_fitness_knows_whether_it_was_measured() -> None:
    selector = CandidateSelector()
    same = Interval(1.0, 1.0, 1.0)
    measured = selector.evaluate_candidate_fitness(Measurement(same, same, same, 0.0, (1.0, 1.0), (1, 1), 9))
    assert (measured, measured.measured) == (pytest.approx(0.65), True)
    prior = selector.evaluate_candidate_fitness(parse("bf16"))
    assert prior > 0.65
    assert not prior.measured


class Paced(nn.Module):
    """Takes as long as it is told; a clock that stands in the test's hands."""

    def __init__(self, clock: list[float], seconds: dict[int, float], sign: float) -> None:
        super().__init__()
        self.clock, self.seconds, self.sign, self.calls = clock, seconds, sign, 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        self.clock[0] += self.seconds[len(x)]
        return self.sign * x


def test_an_adaptive_module_follows_shape_and_load(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: clock[0])
    slow, fast = Paced(clock, {1: 1.0, 64: 4.0}, 1.0), Paced(clock, {1: 2.0, 64: 1.0}, -1.0)
    module = AdaptiveModule(slow, fast, tries=3, every=50)
    one, many = torch.ones(1, 2), torch.ones(64, 2)
    for _ in range(10):
        module(one)
        module(many)
    assert float(module(one)[0, 0]) == 1.0  # the original is faster on one row
    assert float(module(many)[0, 0]) == -1.0  # the optimised form on many
    assert {len(row["shapes"]): row["used"] for row in module.report()}.keys() == {1}
    assert [row["used"] for row in module.report()] == ["original", "optimised"]
    fast.seconds[64] = 9.0  # the machine is busy with something else
    before = fast.calls
    for _ in range(2000):
        module(many)
    assert float(module(many)[0, 0]) == 1.0  # never below the original for long
    assert fast.calls - before < 700
    equal = AdaptiveModule(Paced(clock, {1: 1.0}, 1.0), Paced(clock, {1: 0.99}, -1.0), tries=2, every=10**6)
    assert [float(equal(one)[0, 0]) for _ in range(9)][-1] == 1.0  # a gain below the margin is none


def test_a_registry_on_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "my_models.py").write_text(
        "from torch import nn\n"
        "def small():\n    return nn.Sequential(nn.Linear(32, 64), nn.ReLU())\n"
        "def broken():\n    raise OSError('no weights')\n"
        "registry = {'small': small, 'broken': broken, 'zoo': 'zoo:mlp/0'}\n"
    )
    monkeypatch.chdir(tmp_path)
    arguments = [
        "optimize",
        "--registry",
        "my_models.py:registry",
        "--no-history",
        "--measure",
        "0.15",
        "--strategies",
        "quantization",
    ]
    code = main([*arguments, "--max-iterations", "1", "--candidates", "1", "--out", "out"])
    said = capsys.readouterr().out
    assert code == 1  # one of them failed
    assert "broken: my_models.py:registry#broken() failed (OSError: no weights)" in said
    assert "small: " in said
    assert "zoo: " in said
    assert (tmp_path / "out" / "small" / "recipe.py").is_file()
    assert main(["optimize"]) == 1
    assert "--registry" in capsys.readouterr().err
    assert main(["optimize", "zoo:mlp/0", "--registry", "my_models.py:registry"]) == 1
    assert main(["optimize", "--registry", "my_models.py:small"]) == 1
    assert "expected a mapping" in capsys.readouterr().err
