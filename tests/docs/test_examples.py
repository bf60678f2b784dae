"""Every script in examples/ runs. Those that say so in their first lines take longer and run with the slow tests."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPTS = sorted((ROOT / "examples").glob("*.py"))
SLOW = "Takes minutes"  # in the docstring of an example
ABSENT = 3  # exit code of an example whose optional package is not installed


def _slow(script: Path) -> bool:
    return SLOW in (ast.get_docstring(ast.parse(script.read_text(encoding="utf-8"))) or "")


def test_every_example_says_what_it_shows() -> None:
    assert len(SCRIPTS) >= 10
    for script in SCRIPTS:
        text = script.read_text(encoding="utf-8")
        assert ast.get_docstring(ast.parse(text)), f"{script.name} has no docstring"
        assert len(text.splitlines()) <= 120, f"{script.name} is no short example any more"


@pytest.mark.parametrize(
    "script",
    [pytest.param(script, marks=pytest.mark.slow if _slow(script) else ()) for script in SCRIPTS],
    ids=lambda script: script.name,
)
def test_example_runs(script: Path, tmp_path: Path) -> None:
    result = subprocess.run(
        [sys.executable, str(script)], cwd=tmp_path, capture_output=True, text=True, timeout=280, check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "TREEGYM_EXAMPLE_QUICK": "1"},
    )  # fmt: skip
    if result.returncode == ABSENT:
        pytest.skip(result.stderr.strip().splitlines()[-1])
    assert result.returncode == 0, result.stderr[-3000:]
    assert result.stdout.strip(), "an example should print something"
