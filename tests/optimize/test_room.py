"""The room: what it may import, and how a strategy from outside joins in."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import treegym.optimize
from treegym.errors import ConfigError
from treegym.optimize.config import CoreConfig
from treegym.optimize.strategies import STRATEGIES, expand, load

ROOM = Path(treegym.optimize.__file__).resolve().parent

STRATEGY = '''
from torch import nn

from treegym.optimize.strategies.base import HybridOptimizationStrategy, NotApplicable


class Halve(HybridOptimizationStrategy):
    """Takes out a layer that does nothing."""

    def apply(self, module, sample):
        kept = [layer for layer in module if not isinstance(layer, Idle)]
        if len(kept) == len(module):
            raise NotApplicable("no idle layer")
        return nn.Sequential(*kept)


class Idle(nn.Module):
    def forward(self, x):
        for _ in range(200):
            x = x + 0.0
        return x
'''
MINE = """
import torch
from torch import nn
from scratch import Idle

def build():
    return nn.Sequential(nn.Linear(16, 16), Idle())

def inputs(seed):
    return torch.randn(8, 16, generator=torch.Generator().manual_seed(seed))
"""


def test_the_room_knows_neither_worlds_nor_agents() -> None:
    """What learned selection needs is handed in from above."""
    found = []
    for path in sorted(ROOM.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                names = [str(node.module)]
            found += [f"{path.name}: {name}" for name in names if name.split(".")[0] == "gymnasium"]
            found += [f"{path.name}: {name}" for name in names if name.startswith(("treegym.agents", "treegym.envs"))]
    assert found == []


def _install(folder: Path) -> dict[str, str]:
    """Puts a package of one file beside ours, with one entry point, as an installer would."""
    (folder / "scratch.py").write_text(STRATEGY)
    (folder / "mine.py").write_text(MINE)
    about = folder / "scratch-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: scratch\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[treegym.strategies]\nhalve = scratch:Halve\n")
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])}


def test_a_strategy_is_one_file_and_one_line(tmp_path: Path) -> None:
    environment = _install(tmp_path)
    command = [sys.executable, "-m", "treegym", "optimize", "mine.py:build", "--input", "mine.py:inputs", "--json",
               "--no-history", "--measure", "0.2", "--max-iterations", "1"]  # fmt: skip
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    result = json.loads(done.stdout)  # nobody named it: what is registered is tried
    assert "halve" in result["strategy_weights"]
    done = subprocess.run(
        [*command, "--strategies", "halve"], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    assert [row["strategy"] for row in json.loads(done.stdout)["candidates"]] == ["halve"]


def test_a_registered_strategy_has_its_facts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _install(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    assert STRATEGIES["halve"].family == "custom"
    assert STRATEGIES["halve"].summary == "Takes out a layer that does nothing."
    assert expand(["custom"]) == ["halve"]
    assert load("halve").name == "halve"
    assert CoreConfig().strategies_for("dense")[-1] == "halve"
    assert CoreConfig(optimization_strategies=("bf16",)).strategies_for("dense") == ("bf16",)
    with pytest.raises(ConfigError, match="exists already"):
        STRATEGIES.register("bf16", type(load("bf16")))
