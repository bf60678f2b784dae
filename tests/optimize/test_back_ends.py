"""Back ends: the same outputs in the same structures, programs kept and rebuilt, and what is told of misuse."""

from __future__ import annotations

import copy
import functools
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from treegym.__main__ import main
from treegym.errors import ConfigError, DataError
from treegym.optimize import quantise, worker
from treegym.optimize.candidates import Candidate, apply, copied, parse
from treegym.optimize.config import CoreConfig
from treegym.optimize.engines import BackEnd, Engine, Files, Run
from treegym.optimize.fitness import weights_of
from treegym.optimize.graph import close
from treegym.optimize.memory import footprint
from treegym.optimize.recipe import rebuild, save_weights
from treegym.optimize.strategies import STRATEGIES
from treegym.optimize.strategies.base import Given, NotApplicable
from treegym.optimize.targets import load_function
from treegym.optimize.trials import Trials

pytest.importorskip("onnx", reason="needs the extra onnx")
pytest.importorskip("onnxscript", reason="needs the extra onnx")
pytest.importorskip("onnxruntime", reason="needs the extra onnx")
HAS_OPENVINO = not STRATEGIES.registry.find("openvino")().missing()
QUICK = CoreConfig.of({"seconds_per_candidate": 0.1, "max_accuracy_drop": 0.05})
openvino = pytest.mark.skipif(not HAS_OPENVINO, reason="needs the extra openvino")

MODULE = """
import torch
from torch import nn


class Heads(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(5)
        self.body = nn.Sequential(nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU())
        self.first, self.second = nn.Linear(64, 10), nn.Linear(64, 3)

    def forward(self, x):
        hidden = self.body(x)
        return {"boxes": self.second(hidden), "pair": (self.first(hidden).argmax(-1), hidden.sum(-1))}


def build():
    return Heads().eval()


def inputs(seed):
    return torch.randn(4 + seed % 3, 32, generator=torch.Generator().manual_seed(seed))
"""


def alone(test: Callable[..., None]) -> Callable[..., None]:
    """Runs a test in a child: a process in which a library has started threads cannot be forked safely any more."""

    @functools.wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        outcome = worker.run(lambda: test(*args, **kwargs) or {}, worker.Limits(250.0))
        assert outcome.result is not None, outcome.reason

    return run


def _inputs(seed: int) -> tuple[Tensor]:
    return (torch.randn(4 + seed % 3, 32, generator=torch.Generator().manual_seed(seed)),)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("back_ends")
    (folder / "heads.py").write_text(MODULE)
    (folder / "programs").mkdir()
    return folder


@pytest.fixture(scope="module")
def heads(home: Path) -> nn.Module:
    return copied(load_function(f"{home / 'heads.py'}:build")())


def _applied(heads: nn.Module, home: Path, name: str) -> nn.Module:
    return apply(heads, parse(name), _inputs(0), Given(_inputs, 0.02, home / "programs"))


NAMES = ["onnx", *(pytest.param(name, marks=openvino) for name in ("openvino", "openvino_bf16"))]


@pytest.mark.parametrize("name", NAMES)
@alone
def test_outputs_keep_structure_numbers_and_open_shapes(heads: nn.Module, home: Path, name: str) -> None:
    engine = _applied(heads, home, name)
    assert isinstance(engine, Engine)
    assert [path.name for path in (home / "programs").iterdir()] == [
        "float.program"
    ]  # one program, started in three ways
    kept = engine(*_inputs(0))
    for seed in (0, 1, 2, 0):  # 4, 5 and 6 rows
        with torch.no_grad():
            expected = heads(*_inputs(seed))
            got = engine(*_inputs(seed))
        assert list(got) == ["boxes", "pair"]
        assert isinstance(got["pair"], tuple)
        assert got["pair"][0].dtype == torch.int64
        assert close(expected["boxes"], got["boxes"], 2e-2 if "bf16" in name else 1e-4)
    assert torch.equal(kept["boxes"], engine(*_inputs(0))["boxes"])  # later calls write nowhere into it
    assert footprint(engine) >= engine.engine_bytes > 4 * (32 * 64 + 64 * 64)


@alone
def test_what_a_program_was_not_built_for_is_told(heads: nn.Module, home: Path) -> None:
    engine = _applied(heads, home, "onnx")
    with pytest.raises(ConfigError, match=r"built for float32\[any, 32\], float32\[4, 31\] came"):
        engine(torch.zeros(4, 31))
    with pytest.raises(ConfigError, match="float64"):
        engine(torch.zeros(4, 32, dtype=torch.float64))
    with pytest.raises(ConfigError, match="none by name"):
        engine(x=torch.zeros(4, 32))
    with pytest.raises(ConfigError, match="other constants or another structure"):
        engine(torch.zeros(4, 32), torch.zeros(4, 32))


@alone
def test_named_inputs_and_constants() -> None:
    class Named(nn.Module):
        def forward(self, a: Tensor, b: Tensor, *, twice: bool = False) -> Tensor:
            return (a - b) * 2 if twice else a - b

    sample = {"a": torch.ones(3), "b": torch.full((3,), 4.0), "twice": True}
    engine = apply(Named(), parse("onnx"), sample)
    found = engine(twice=True, b=torch.tensor([0.0, 1.0, 2.0]), a=torch.ones(3))
    assert found.tolist() == [2.0, 0.0, -2.0]  # (1 - b) 2
    with pytest.raises(ConfigError, match="other constants"):
        engine(a=torch.ones(3), b=torch.ones(3), twice=False)


@pytest.mark.parametrize("name", NAMES[:1] + NAMES[2:])
@alone
def test_a_recipe_holds_the_program(heads: nn.Module, home: Path, name: str, tmp_path: Path) -> None:
    engine = _applied(heads, home, name)
    path = save_weights(tmp_path, heads, engine, _inputs(0))
    where = (f"{home / 'heads.py'}:build", f"{home / 'heads.py'}:inputs")
    again = rebuild(*where, name, path)
    assert isinstance(again, Engine)
    assert torch.equal(engine(*_inputs(1))["boxes"], again(*_inputs(1))["boxes"])
    with pytest.raises(DataError, match="has none of"):
        rebuild(*where, "bf16", path)
    with safetensors.safe_open(str(path), "pt") as opened:
        about = opened.metadata()
    data = safetensors.torch.load_file(str(path))
    data["program:model.onnx"][1000] ^= 1
    safetensors.torch.save_file(data, str(path), metadata=about)
    with pytest.raises(DataError, match=r"damaged \(model.onnx"):
        rebuild(*where, name, path)


class Crashing(BackEnd):
    """Takes the process with it, as a library with a bug does."""

    def build(self, module: nn.Module, sample: Any) -> Files:
        return {"nothing": b""}

    def start(self, files: Files, threads: int) -> Run:
        os.abort()


class Elsewhere(BackEnd):
    needs = ("no_such_package",)
    extra = "onnx"

    def build(self, module: nn.Module, sample: Any) -> Files:
        raise AssertionError("it is missing")


def test_one_that_crashes_or_is_missing_costs_only_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(STRATEGIES.registry, "_registered", {})  # what is registered here is forgotten after it
    names = {"crashing": Crashing, "elsewhere": Elsewhere}
    for name, strategy in names.items():
        STRATEGIES.register(name, strategy)
    trials = Trials(nn.Sequential(nn.Linear(8, 8)).eval(), lambda seed: (torch.randn(2, 8),), QUICK, weights_of(None))
    first, second = trials.evaluate([Candidate(("crashing",)), Candidate(("elsewhere",))])
    assert first.reason.startswith("crashed with SIG")
    assert 'pip install "treegym[onnx]"' in second.reason


def test_ranges_are_fitted_and_weights_rounded() -> None:
    layer = nn.Linear(2, 1)
    layer.weight.data = torch.tensor([[127.0, -50.4]])
    layer.bias.data = torch.tensor([1.0])
    rounded = quantise.RoundedLayer(layer, torch.tensor([0.0, 1.0, 255.0]))
    # Without a sign: 0..255 at a scale of 1. Weights at a scale of 127 / 127: 127 and -50.
    assert (rounded.low, rounded.high, rounded.input_scale) == (0, 255, 1.0)
    assert rounded.weight.tolist() == [[127, -50]]
    with torch.no_grad():
        assert rounded(torch.tensor([[2.4, 300.0]])).item() == 2 * 127 - 255 * 50 + 1  # rounded to 2, cut off at 255
    # One number beyond is cut off for the rest: rounding costs 20,001 scale^2 / 12, at a range of 1.2 in all 0.149; of
    # 1.08 it costs 0.121, and the cut 0.12^2.
    outlier = torch.cat([torch.linspace(-1, 1, 20_001), torch.tensor([1.2])])
    assert quantise.RoundedLayer(layer, outlier).input_scale == pytest.approx(0.9 * 1.2 / 127)


def test_layers_are_taken_while_the_limit_has_room() -> None:
    # Squared errors over work: b 1/10, a 4/10, c 9/5. Room for 5: b and a; c does not fit any more.
    chosen = quantise._within(5.0, {"a": 4.0, "b": 1.0, "c": 9.0}, {"a": 10.0, "b": 10.0, "c": 5.0})
    assert chosen == ["b", "a"]


def _deep() -> nn.Module:
    torch.manual_seed(3)
    return nn.Sequential(*[part for _ in range(3) for part in (nn.Linear(32, 32), nn.Tanh())], nn.Linear(32, 8)).eval()


def _rows(seed: int) -> tuple[Tensor]:
    return (torch.randn(64, 32, generator=torch.Generator().manual_seed(seed)),)


def test_int8_stays_within_the_limit_or_says_why_not() -> None:
    module, sample = _deep().requires_grad_(False), _rows(0)
    every = quantise.quantised(module, sample, Given(_rows), every=True)
    whole = quantise.error_of(module, every, sample, Given(_rows))
    given = Given(_rows, 0.7 * whole)
    some = quantise.quantised(module, sample, given, every=False)
    count = sum(isinstance(part, quantise.RoundedLayer) for part in some.modules())
    assert 0 < count < 4
    assert quantise.error_of(module, some, sample, given) <= quantise.ROOM * given.limit
    assert not any(isinstance(part, quantise.RoundedLayer) for part in module.modules())
    with pytest.raises(NotApplicable, match="more than the limit"):
        quantise.quantised(module, sample, Given(_rows, 1e-6), every=False)
    with pytest.raises(NotApplicable, match="no float32"):
        quantise.quantised(nn.Sequential(nn.ReLU()), sample, given, every=True)


def test_training_lowers_the_error_of_int8() -> None:
    module, sample, given = _deep().requires_grad_(False), _rows(0), Given(_rows)
    made = quantise.quantised(module, sample, given, every=True)
    before = copy.deepcopy(module.state_dict())
    error = quantise.error_of(module, made, sample, given)
    quantise.fine_tune(module, made, sample, given, steps=100)
    assert quantise.error_of(module, made, sample, given) < error
    assert made[0].weight.dtype == torch.int8
    assert made[0].trained is None
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    with pytest.raises(NotApplicable, match="fresh inputs"):
        quantise.fine_tune(module, made, sample, Given(), steps=1)


@pytest.mark.parametrize("name", ["onnx_static", pytest.param("openvino_int8", marks=openvino)])
@alone
def test_int8_programs_compute_what_the_rounded_module_does(name: str, tmp_path: Path) -> None:
    module, sample, given = _deep().requires_grad_(False), _rows(0), Given(_rows, 0.1, tmp_path)
    engine = apply(module, parse(name), sample, given)
    rounded = quantise.quantised(module, sample, given, every=name.endswith("int8"))
    with torch.no_grad():
        assert close(rounded(*_rows(1)), engine(*_rows(1)), 0.01)


@alone
def test_int8_weights_stay_int8_in_the_program() -> None:
    module = nn.Sequential(nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 256)).eval().requires_grad_(False)
    engine = apply(module, parse("onnx_static"), (torch.randn(8, 256),), Given(None, 0.5))
    assert engine.engine_bytes < 0.3 * footprint(module)  # a quarter, and the graph


def test_a_candidate_is_measured_with_its_building(tmp_path: Path) -> None:
    module = _deep().requires_grad_(False)
    trials = Trials(module, _rows, QUICK, weights_of(None))
    (found,) = trials.evaluate([Candidate(("onnx",))])
    assert found.measurement is not None, found.reason
    assert found.measurement.build_seconds > 0.05
    assert found.measurement.output_error < 1e-3
    assert np.isfinite(found.fitness)


@pytest.mark.parametrize("export", ["onnx", pytest.param("openvino", marks=openvino), "pt2"])
@alone
def test_the_winner_is_written_for_others(export: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "heads.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    strategies = "inplace" if export == "pt2" else f"inplace,{export}"
    words = [
        sys.executable,
        "-m",
        "treegym",
        "optimize",
        "heads.py:build",
        "--input",
        "heads.py:inputs",
        "--no-history",
    ]
    words += ["--out", "out", "--strategies", strategies, "--objective", "speed=1", "--max-iterations", "2"]
    done = subprocess.run([*words, "--measure", "0.1", "--export", export], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    x = _inputs(2)[0]
    with torch.no_grad():
        expected = load_function(f"{tmp_path}/heads.py:build")()(x)["boxes"]
    if export == "pt2":
        found = torch.export.load(tmp_path / "out" / "model.pt2").module()(x)["boxes"]
    elif export == "onnx":
        session = pytest.importorskip("onnxruntime").InferenceSession(tmp_path / "out" / "model.onnx")
        found = torch.from_numpy(session.run(None, {session.get_inputs()[0].name: x.numpy()})[0])
    else:
        compiled = (
            pytest.importorskip("openvino")
            .Core()
            .compile_model(tmp_path / "out" / "model.xml", "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        )
        found = torch.from_numpy(compiled([x.numpy()])[0])
    assert close(expected, found, 1e-3)


def test_what_cannot_be_written_is_told_first(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["optimize", "zoo:mlp/0", "--export", "onnx"]) == 1
    assert "--export came without --out" in capsys.readouterr().err
    assert main(["optimize", "zoo:mlp/0", "--export", "onxx", "--out", str(tmp_path)]) == 1
    assert "onnx" in capsys.readouterr().err
    words = ["optimize", "zoo:mlp/0", "--export", "pt2", "--strategies", "int8_dynamic", "--out", str(tmp_path)]
    assert main(words) == 1
    assert "nothing that int8_dynamic give can be written as pt2" in capsys.readouterr().err
