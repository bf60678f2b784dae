"""Recipes: every tensor is kept, packed as it was measured; a rebuild is checked; what cannot be kept is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from treegym.__main__ import main
from treegym.errors import DataError
from treegym.optimize.candidates import apply, copied, parse
from treegym.optimize.placing import READY
from treegym.optimize.recipe import RECIPE, rebuild, save_weights
from treegym.optimize.stored import Unstorable
from treegym.optimize.targets import load_function

MODULE = """
import torch
from torch import nn

FACTOR = torch.tensor({factor})


class Odd(nn.Module):
    '''Keeps tensors in a plain attribute, in a list and in a closure.'''

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 64))
        self.shift = torch.randn(64)
        self.scales = [torch.rand(64) + 0.5]
        hidden = torch.randn(64)
        self.last = lambda y: y + hidden

    def forward(self, x):
        return self.last(self.layers(x) * self.scales[0] + self.shift) * {used}


def build():
    return Odd()  # other weights every time


def inputs(seed):
    return torch.randn(16, 64, generator=torch.Generator().manual_seed(seed))
"""


def _file(folder: Path, *, factor: str = "1.0", used: str = "1.0") -> Path:
    file = folder / "odd.py"
    file.write_text(MODULE.format(factor=factor, used=used))
    return file


@pytest.mark.parametrize("name", ["original", "bf16", "int8_weights+bf16", "int8_dynamic", "inplace", "int4_weights"])
def test_every_tensor_is_kept(tmp_path: Path, name: str) -> None:
    file = _file(tmp_path)
    original = copied(load_function(f"{file}:build")())
    x = (torch.randn(16, 64),)
    optimised = apply(original, parse(name), x)
    path = save_weights(tmp_path / "out", original, optimised, x)
    again = rebuild(f"{file}:build", f"{file}:inputs", name, path)
    with torch.no_grad():
        assert torch.equal(optimised(*x), again(*x))
    if "int8" in name:
        assert path.stat().st_size < 0.5 * sum(p.numel() * 4 for p in original.parameters())


def test_what_hangs_on_the_weights_is_made_of_the_original(tmp_path: Path) -> None:
    file = tmp_path / "thin.py"
    file.write_text(
        "import torch\nfrom torch import nn\n"
        "def build():\n    return nn.Sequential(nn.Linear(64, 64), nn.ReLU())\n"
        "def inputs(seed):\n    return torch.randn(8, 64, generator=torch.Generator().manual_seed(seed))\n"
    )
    original = copied(load_function(f"{file}:build")())
    original[0].weight.data = torch.randn(64, 2) @ torch.randn(2, 64)
    x = (torch.randn(8, 64),)
    optimised = apply(original, parse("low_rank"), x)
    packed = save_weights(tmp_path / "out", original, optimised, x)
    with pytest.raises(Exception, match="no linear layer keeps"):  # the weights it is built with have full rank
        rebuild(f"{file}:build", f"{file}:inputs", "low_rank", packed)
    path = save_weights(tmp_path / "out", original, optimised, x, holds="original")
    with torch.no_grad():
        assert torch.equal(rebuild(f"{file}:build", f"{file}:inputs", "low_rank", path)(*x), optimised(*x))


def test_a_recipe_whose_run_was_killed_builds_all_the_same(tmp_path: Path) -> None:
    file, out = _file(tmp_path), tmp_path / "out"
    first, second = (copied(load_function(f"{file}:build")()) for _ in range(2))
    x = (torch.randn(16, 64),)
    path = save_weights(out, first, first, x)
    save_weights(out / READY, second, second, x)  # killed after the new recipe came into place, before its weights did
    with torch.no_grad():
        assert torch.equal(rebuild(f"{file}:build", f"{file}:inputs", "original", path)(*x), second(*x))
    save_weights(out / READY, first, first, x)
    (out / READY / RECIPE).write_text("")  # killed before the new recipe came into place
    with torch.no_grad():
        assert torch.equal(rebuild(f"{file}:build", f"{file}:inputs", "original", path)(*x), second(*x))


def test_other_weights_are_found_out(tmp_path: Path) -> None:
    file = _file(tmp_path)
    module = copied(load_function(f"{file}:build")())
    path = save_weights(tmp_path / "out", module, module, (torch.randn(16, 64),))
    with safetensors.safe_open(str(path), "pt") as opened:
        about = opened.metadata()
    data = safetensors.torch.load_file(str(path))
    data["tensor:layers.0.weight"] *= 1.5
    safetensors.torch.save_file(data, str(path), metadata=about)
    with pytest.raises(DataError, match="not the one that was measured"):
        rebuild(f"{file}:build", f"{file}:inputs", "original", path)
    del data["tensor:shift"]
    safetensors.torch.save_file(data, str(path), metadata=about)
    with pytest.raises(DataError, match="shift has no counterpart"):
        rebuild(f"{file}:build", f"{file}:inputs", "original", path)
    path.write_bytes(b"nothing")
    with pytest.raises(DataError, match="cannot be read"):
        rebuild(f"{file}:build", f"{file}:inputs", "original", path)


def test_a_recipe_of_the_first_format_is_read(tmp_path: Path) -> None:
    torch.manual_seed(1)
    file = tmp_path / "plain.py"
    file.write_text("from torch import nn\ndef build():\n    return nn.Sequential(nn.Linear(8, 8), nn.ReLU())\n")
    module = load_function(f"{file}:build")().eval()
    safetensors.torch.save_file(module.state_dict(), str(tmp_path / "old.safetensors"))
    again = rebuild(f"{file}:build", None, "inplace", tmp_path / "old.safetensors")
    x = torch.randn(3, 8)
    assert torch.equal(again(x), module(x))


def test_tensors_of_another_kind_are_refused(tmp_path: Path) -> None:
    class Sparse(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = torch.eye(4).to_sparse()

        def forward(self, x: Tensor) -> Tensor:
            return self.table @ x

    with pytest.raises(Unstorable, match="table is a Tensor of a kind"):
        save_weights(tmp_path, Sparse(), Sparse(), (torch.randn(4, 4),))


def _optimise(folder: Path, capsys: pytest.CaptureFixture[str], *more: str) -> dict:
    arguments = ["optimize", "odd.py:build", "--input", "odd.py:inputs", "--no-history", "--json"]
    code = main([*arguments, "--measure", "0.15", "--max-iterations", "2", "--candidates", "2", *more])
    assert code == 0
    return json.loads(capsys.readouterr().out)


def test_the_winner_is_judged_in_a_fresh_process(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    _file(tmp_path)
    monkeypatch.chdir(tmp_path)
    weights = ("--strategies", "bf16", "--objective", "memory=1", "--allow-slower", "--max-accuracy-drop", "0.1")
    result = _optimise(tmp_path, capsys, "--out", "out", *weights)
    assert result["selected_strategy"] == "bf16"
    grown = result["performance_metrics"]["process_memory"]
    assert grown is None or {"load", "run"} <= grown.keys()
    module = load_function(f"{tmp_path / 'out' / 'recipe.py'}:build")()
    assert module(torch.randn(2, 64)).dtype == torch.float32
    assert (tmp_path / "out" / "weights.safetensors").stat().st_size < 0.7 * 4 * (64 * 256 * 2 + 256 + 64)


def test_what_a_recipe_cannot_give_again_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A global variable that is drawn anew in every process: no recipe knows it."""
    _file(tmp_path, factor="torch.rand(()).item() + float(torch.randint(1, 9, ()))", used="FACTOR")
    monkeypatch.chdir(tmp_path)
    weights = ("--strategies", "bf16", "--objective", "memory=1", "--allow-slower", "--max-accuracy-drop", "0.1")
    result = _optimise(tmp_path, capsys, *weights)
    assert result["selected_strategy"] == "original"
    assert "not the one that was measured" in result["not_confirmed"]["bf16"]
