"""The core: selection, configuration, the winner, the history, recipes, and the command."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from treegym.__main__ import main
from treegym.errors import ConfigError, DataError
from treegym.optimization import create_hybrid_optimization_core, create_universal_optimizer, rebuild
from treegym.optimize.candidates import Candidate, parse
from treegym.optimize.config import CoreConfig
from treegym.optimize.features import kind_of
from treegym.optimize.fitness import hypervolume, pareto_front
from treegym.optimize.inputs import fresh_inputs, guessed_inputs
from treegym.optimize.measurement import Interval, Measurement
from treegym.optimize.selector import CandidateSelector
from treegym.optimize.targets import load_function
from treegym.optimize.tracker import StrategyTracker


def _measurement(speed: float, accuracy: float = 1.0) -> Measurement:
    same = Interval(1.0, 1.0, 1.0)
    return Measurement(
        Interval(speed, speed, speed), same, Interval(accuracy, accuracy, accuracy), 0.0, (1, 1), (1, 1), 9
    )


def test_selection_methods() -> None:
    candidates = [Candidate((name,)) for name in ("bf16", "inplace", "low_rank")]
    values = [0.9, 0.5, 0.1]
    selector = CandidateSelector(tournament_size=3)
    assert selector.tournament_selection(candidates, values).name == "bf16"  # all three meet: the fittest wins
    draws = 4000
    rank = [selector.rank_selection(candidates, values).name for _ in range(draws)]
    # ranks 3, 2, 1 of 6
    assert np.mean([name == "bf16" for name in rank]) == pytest.approx(3 / 6, abs=0.04)
    assert np.mean([name == "low_rank" for name in rank]) == pytest.approx(1 / 6, abs=0.04)
    roulette = [selector.roulette_selection(candidates, values).name for _ in range(draws)]
    # above the worst, plus a tenth of the spread 0.8: 0.88, 0.48, 0.08 of 1.44
    assert np.mean([name == "bf16" for name in roulette]) == pytest.approx(0.88 / 1.44, abs=0.04)
    learned = CandidateSelector(method="rl", policy=lambda found, fitness: 1)
    assert learned.select_candidate(candidates, values).name == "inplace"
    with pytest.raises(ConfigError, match="learned policy"):
        CandidateSelector(method="rl").select_candidate(candidates, values)
    with pytest.raises(ConfigError, match="one each"):
        selector.select_candidate(candidates, [0.1])


def test_config_knows_its_keys() -> None:
    config = CoreConfig.of({"hybrid_strategies": ["quantization"], "tournament_size": 2})
    assert config.optimization_strategies == ("quantization",)
    assert (CoreConfig().rl_epsilon_low, CoreConfig().rl_epsilon_high, CoreConfig().rl_hidden_dim) == (0.1, 0.3, 128)
    assert CoreConfig.of({"optimization_strategies": "bf16"}).optimization_strategies == ("bf16",)
    for bad in (
        {"optimization_strategies": []}, {"rl_learning_rate": -1.0}, {"rl_gamma": 1.5}, {"rl_hidden_dim": 0},
        {"performance_threshold": float("nan")}, {"seconds_per_candidate": 0.0}, {"timeout": float("inf")},
        {"convergence_threshold": -0.1},
    ):  # fmt: skip
        with pytest.raises(ConfigError, match=next(iter(bad))):
            CoreConfig.of(bad)
    with pytest.raises(ConfigError, match="Did you mean 'tournament_size'"):
        CoreConfig.of({"tournamentsize": 3})
    for bad in (
        {"processes": 0},
        {"enable_dapo": 1},
        {"selection_strategy": "rll"},
        {"num_candidates": 0},
        {"max_accuracy_drop": 2},
    ):
        with pytest.raises(ConfigError):
            CoreConfig.of(bad)


def test_pareto_and_hypervolume_by_hand() -> None:
    points = np.array([[1.0, 1.0], [2.0, 0.5], [0.5, 0.5], [2.0, 0.5]])
    assert pareto_front(points).tolist() == [0, 1, 3]  # equal points do not dominate each other
    # boxes [0,1]x[0,1] and [0,2]x[0,.5]: 1 + 1 - 0.5
    assert hypervolume(points, (0.0, 0.0)) == pytest.approx(1.5)


def test_tracker_learns_and_keeps(tmp_path: Path) -> None:
    tracker = StrategyTracker(tmp_path / "history.json")
    tracker.recorded = {}
    tracker.update("dense", parse("inplace"), _measurement(2.0))
    tracker.update("dense", parse("inplace"), None)
    assert tracker.expected("dense", parse("inplace"))[0] == pytest.approx(2.0)
    # an ensemble's surprise is shared: expected log 2 + log 1.6, measured log 3.2 * 4, so each gets log 2 more
    tracker.update("dense", parse("inplace+bf16"), _measurement(12.8))
    assert tracker.expected("dense", parse("bf16"))[0] == pytest.approx(1.6 * 2)
    assert tracker.success_rates("dense", np.array([1.0, 0.0, 0.0]))["inplace"] == pytest.approx(2 / 3)
    shares = tracker.dynamic_weights("dense", ["inplace", "bf16"], np.array([1.0, 0.0, 0.0]))
    assert sum(shares.values()) == pytest.approx(1.0)
    tracker.save()
    again = StrategyTracker(tmp_path / "history.json")
    assert again.results == tracker.results
    (tmp_path / "history.json").write_text("{}")
    with pytest.raises(DataError, match="delete it"):
        StrategyTracker(tmp_path / "history.json")


def _mlp() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(128, 512), nn.ReLU(), nn.Linear(512, 128))


def test_core_optimises_and_leaves_the_original_alone(quick: dict[str, Any]) -> None:
    module = _mlp()
    before = {key: value.clone() for key, value in module.state_dict().items()}
    core = create_hybrid_optimization_core({**quick, "max_accuracy_drop": 0.05})
    optimised, result = core.hybrid_optimize_module(module, torch.randn(64, 128))
    assert optimised is not module
    assert all(torch.equal(value, before[key]) for key, value in module.state_dict().items())
    assert module.training  # not even its mode
    assert 1 <= result["evaluations"] <= 3
    assert set(result["performance_metrics"]) >= {"speed_improvement", "memory_efficiency", "accuracy_preservation"}
    assert result["fitness"] >= result["base_fitness"]
    assert "chosen:" in core.report()
    x = torch.randn(8, 128)
    with torch.no_grad():
        assert torch.allclose(optimised(x), module(x), atol=0.1)


def test_core_returns_the_original_when_nothing_helps(quick: dict[str, Any]) -> None:
    class Idle(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x + 1.0

    core = create_hybrid_optimization_core(quick)
    optimised, result = core.hybrid_optimize_module(Idle(), torch.zeros(2, 2))
    assert result["selected_strategy"] == "original"
    assert torch.equal(optimised(torch.zeros(2, 2)), torch.ones(2, 2))


def test_a_strategy_that_raises_is_reported(monkeypatch: pytest.MonkeyPatch, quick: dict[str, Any]) -> None:
    from treegym.optimize.strategies import half

    def broken(self: object, module: nn.Module, sample: object) -> nn.Module:
        raise RuntimeError("out of luck")

    monkeypatch.setattr(half.BF16, "apply", broken)
    core = create_hybrid_optimization_core({**quick, "optimization_strategies": ["bf16", "inplace"]})
    _, result = core.hybrid_optimize_module(_mlp(), torch.randn(4, 128))
    assert result["not_applicable"]["bf16"] == "RuntimeError: out of luck"
    assert all("bf16" not in row["strategy"] for row in result["candidates"])


def test_bad_modules_are_told(quick: dict[str, Any]) -> None:
    class Stubborn(nn.Linear):
        def __deepcopy__(self, memo: object) -> nn.Module:
            raise TypeError("no copies")

    core = create_hybrid_optimization_core(quick)
    with pytest.raises(ConfigError, match="cannot be copied"):
        core.hybrid_optimize_module(Stubborn(2, 2), torch.randn(1, 2))
    with pytest.raises(ConfigError, match="does not run"):
        core.hybrid_optimize_module(_mlp(), torch.randn(1, 2))
    with pytest.raises(ConfigError, match="needs inputs"):
        core.hybrid_optimize_module(nn.Bilinear(2, 3, 4))


@pytest.mark.parametrize(
    ("module", "shape"),
    [
        (nn.Sequential(nn.Linear(6, 4), nn.ReLU()), (16, 6)),
        (nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 62 * 62, 2)), (4, 3, 64, 64)),
        (nn.Sequential(nn.Embedding(7, 4), nn.Linear(4, 2)), (4, 32)),
        (nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), (16, 8)),
        (nn.LSTM(5, 4), (4, 32, 5)),
    ],
)
def test_inputs_are_guessed_from_layers(module: nn.Module, shape: tuple[int, ...]) -> None:
    source = guessed_inputs(module)
    assert tuple(source(0)[0].shape) == shape
    assert not torch.equal(source(0)[0], source(1)[0])
    assert module.training


def test_a_module_alone_is_enough(quick: dict[str, Any]) -> None:
    _, result = create_hybrid_optimization_core({**quick, "max_iterations": 1}).hybrid_optimize_module(_mlp())
    assert result["evaluations"] == 1


def test_registry_goes_on_after_a_failure(quick: dict[str, Any]) -> None:
    def broken() -> nn.Module:
        raise OSError("no weights")

    optimizer = create_universal_optimizer({**quick, "max_iterations": 1})
    x = torch.randn(2, 128)
    done = optimizer.optimize_models(
        {"wrong": _mlp, "absent": "nowhere_at_all:build", "broken": broken, "good": _mlp},
        {"wrong": torch.randn(2, 3), "absent": x, "broken": x, "good": x},
        devices=("cpu",),
    )
    assert "does not run" in done["wrong"][1]["error"]
    assert "cannot be imported" in done["absent"][1]["error"]
    assert "OSError: no weights" in done["broken"][1]["error"]
    assert done["good"][1]["evaluations"] == 1
    elsewhere = optimizer.optimize_models({"good": _mlp}, {"good": x}, devices=("cuda:77",))
    assert "error" in elsewhere["good"][1]


def test_a_winner_must_win_twice(monkeypatch: pytest.MonkeyPatch, quick: dict[str, Any]) -> None:
    from treegym.optimize import trials

    def lucky(original: nn.Module, optimised: nn.Module, source: object, settings: object, task: object) -> Measurement:
        return _measurement(2.0 if settings.seed == 0 else 0.9)  # type: ignore[attr-defined]

    monkeypatch.setattr(trials, "measure", lucky)
    core = create_hybrid_optimization_core({**quick, "optimization_strategies": ["inplace"]})
    _, result = core.hybrid_optimize_module(_mlp(), torch.randn(4, 128))
    assert result["candidates"][0]["measurement"]["speed"]["value"] == 2.0
    assert result["selected_strategy"] == "original"
    assert "once more" in result["not_confirmed"]["inplace"]
    assert "not confirmed" in core.report()


def test_attention_is_known_by_what_it_computes(quick: dict[str, Any]) -> None:
    class Oddly(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.into, self.out = nn.Linear(16, 48), nn.Linear(16, 16)

        def forward(self, x: Tensor) -> Tensor:
            a, b, c = self.into(x).chunk(3, -1)
            return self.out(torch.softmax(a @ b.transpose(-2, -1) / 4, -1) @ c)

    x = (torch.randn(2, 5, 16),)
    assert kind_of(Oddly()) == "dense"
    assert kind_of(Oddly(), x) == "transformer"
    assert kind_of(nn.Sequential(nn.Linear(16, 16), nn.Softmax(-1)), x) == "dense"
    core = create_hybrid_optimization_core(quick)
    core.generate_optimization_candidates(Oddly(), x)
    assert core.kind == "transformer"


def test_inputs_that_ignore_their_seed_are_imitated() -> None:
    x = torch.randn(100, generator=torch.Generator().manual_seed(0))
    source = fresh_inputs(lambda seed: x)
    assert not torch.equal(source(0)[0], source(1)[0])
    honest = fresh_inputs(lambda seed: x + seed)
    assert torch.equal(honest(3)[0], x + 3)
    mask = torch.ones(64)
    mask[40:] = 0.0
    assert set(fresh_inputs((x, mask))(5)[1].tolist()) <= {0.0, 1.0}
    assert fresh_inputs(_of_four_rows)(7)[0].shape == (4, 3)  # an argument with a default is no seed

    def fails(seed: int) -> Tensor:
        raise KeyError("no such file")

    with pytest.raises(ConfigError, match="inputs cannot be made"):
        fresh_inputs(fails)


def _of_four_rows(rows: int = 4) -> Tensor:
    return torch.randn(rows, 3)


def test_fresh_inputs_imitate() -> None:
    source = fresh_inputs((torch.full((1000,), 5.0) + torch.randn(1000), torch.tensor([3, 7]), torch.tensor([True])))
    first, second = source(1), source(2)
    assert float(first[0].mean()) == pytest.approx(5.0, abs=0.3)
    assert not torch.equal(first[0], second[0])
    assert set(first[1].tolist()) <= {3, 7}
    assert first[2].dtype == torch.bool
    assert torch.equal(source(1)[0], first[0])
    with pytest.raises(ConfigError, match="has no 'biuld'"):
        load_function("treegym.optimize.zoo:biuld")
    with pytest.raises(ConfigError, match="cannot be imported"):
        load_function("no_such_module_here:build")


def test_command_writes_a_recipe_that_rebuilds(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "mine.py"
    file.write_text(
        "import torch\nfrom torch import nn\n"
        "def build():\n    return nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 64))\n"
        "def inputs(seed):\n    return torch.randn(32, 64, generator=torch.Generator().manual_seed(seed))\n"
    )
    out = tmp_path / "out"
    monkeypatch.chdir(tmp_path)
    arguments = ["optimize", "mine.py:build", "--input", "mine.py:inputs", "--out", str(out), "--no-history"]
    arguments += ["--strategies", "quantization,memory_pooling", "--seconds", "60"]
    code = main([*arguments, "--measure", "0.15", "--max-iterations", "2", "--candidates", "2", "--json"])
    assert code == 0
    result = json.loads(capsys.readouterr().out)
    assert {Path(path).name for path in result["files"]} == {
        "weights.safetensors", "recipe.py", "result.json", "pareto.svg",
    }  # fmt: skip
    module = rebuild(f"{file}:build", f"{file}:inputs", result["selected_strategy"], out / "weights.safetensors")
    monkeypatch.chdir("/")  # the recipe works from anywhere
    again = load_function(f"{out / 'recipe.py'}:build")()
    x = torch.randn(3, 64)
    with torch.no_grad():
        assert torch.equal(module(x), again(x))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere:build"], "cannot be imported"),
        (["zoo:encodr/0"], "Did you mean 'encoder'"),
        (["zoo:mlp/0", "--objective", "speed"], "is not a weight"),
        (["zoo:mlp/0", "--objective", "pace=1"], "no objective 'pace'"),
        (["zoo:mlp/0", "--strategies", "quantisation"], "no strategy or family"),
        (["zoo:mlp/0", "--selection", "lottery"], "no selection strategy"),
    ],
)
def test_command_tells_what_is_wrong(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["optimize", *arguments]) == 1
    assert message in capsys.readouterr().err
