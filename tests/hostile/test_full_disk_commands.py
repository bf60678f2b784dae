"""Item 6: commands whose results hold times, so that two runs are never equal: what is there is whole all the same.

`bench` and `optimize` are given again after each fault; the folder is then what a run without a fault leaves, and holds
up to its own check. What was there before a fault is there after it.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from treegym.__main__ import main

EVERY = int(os.environ.get("TREEGYM_HOSTILE_EVERY", "9"))
SUITE = Path(__file__).with_name("one.toml")
MODULE = """
import torch


def build():
    torch.manual_seed(SEED)
    return torch.nn.Sequential(torch.nn.Linear(16, 32), torch.nn.ReLU(), torch.nn.Linear(32, 4)).eval()


def inputs():
    return torch.ones(2, 16)
"""


def names(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file() and path.suffix != ".log"}


@pytest.mark.hostile
@pytest.mark.timeout(4000)
def test_every_write_point_of_bench(faulty: Any, tmp_path: Path, capsys: Any) -> None:
    """The command's own process; `test_every_write_point_of_a_benchmark` is about its workers."""
    out = tmp_path / "work" / "out"
    words = ["bench", "--suite", str(SUITE), "--out", str(out), "--workers", "1"]

    def run(failing: int | None) -> tuple[int, Any, str]:
        with faulty.FaultyFiles(tmp_path / "work", failing).at_work() as faults:
            code = main(words)
        return code, faults, capsys.readouterr().err

    code, whole, said = run(None)
    assert code == 0, said
    wanted = names(out)
    print(f"bench: {whole.done} write points")
    for point in range(0, whole.done, EVERY):
        shutil.rmtree(tmp_path / "work")
        code, faults, said = run(point)
        if not faults.failed:
            continue
        if code != 0:
            assert "No space left" in said, (faults.failed, said)
        assert not list(out.rglob("*.tmp")), faults.failed
        assert run(None)[0] == 0, faults.failed
        assert names(out) == wanted, faults.failed
        assert main(["bench", "verify", str(out), "--no-replay"]) == 0, faults.failed


@pytest.mark.hostile
@pytest.mark.timeout(4000)
def test_every_write_point_of_optimize(faulty: Any, tmp_path: Path, capsys: Any) -> None:
    from treegym.optimize.targets import load_function

    for seed in (0, 1):
        (tmp_path / f"mine{seed}.py").write_text(MODULE.replace("SEED", str(seed)))
    out = tmp_path / "work" / "out"
    (tmp_path / "work").mkdir()

    def run(seed: int, failing: int | None) -> tuple[int, Any, str]:
        words = ["optimize", f"{tmp_path}/mine{seed}.py:build", "--input", f"{tmp_path}/mine{seed}.py:inputs",
                 "--out", str(out), "--no-history", "--measure", "0.02", "--max-iterations", "1", "--candidates", "1",
                 "--processes", "1", "--strategies", "inplace"]  # fmt: skip
        with faulty.FaultyFiles(tmp_path / "work", failing).at_work() as faults:
            code = main(words)
        return code, faults, capsys.readouterr().err

    code, whole, said = run(0, None)
    assert code == 0, said
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    assert set(before) == {"weights.safetensors", "recipe.py", "result.json", "pareto.svg"}
    print(f"optimize: {whole.done} write points")
    for point in range(0, whole.done, EVERY):
        shutil.rmtree(out)
        out.mkdir()
        for name, raw in before.items():
            (out / name).write_bytes(raw)
        code, faults, said = run(1, point)
        if not faults.failed:
            continue
        now = {path.name: path.read_bytes() for path in out.iterdir()}
        if code != 0:
            assert "No space left" in said, (faults.failed, said)
            assert str(out) in said, (faults.failed, said)
            assert now == before, faults.failed
        else:
            assert set(now) == set(before), faults.failed
        load_function(f"{out / 'recipe.py'}:build")()  # which checks that it gives what was measured
