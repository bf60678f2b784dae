from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

CLOSING = {"benchmark": "env_steps", "figures": {"single_vs_trivial": 0.72}, "machine": {"processor": "X", "cores": 2}}


def _read(benchmarks: Path, file: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(benchmarks / "run_all.py"), "--read", str(file)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "cannot be read: No such file or directory"),
        (b"\xff\xfe", "cannot be read: 'utf-8' codec can't decode"),
        (b"", "its last line is not the JSON object that a benchmark closes with"),
        (b'{"benchmark": "env_steps"\nKilled\n', "its last line is not the JSON object that a benchmark closes with"),
        (b"3\n", "its last line is not the JSON object that a benchmark closes with"),
        (b'{"benchmark": "env_steps"}\n', "its last line is not the JSON object that a benchmark closes with"),
        (
            json.dumps({**CLOSING, "benchmark": "env_step"}).encode(),
            "there is no benchmark 'env_step'; there are env_steps",
        ),
    ],
    ids=["missing", "no text", "empty", "cut off", "a number", "no figures", "unknown"],
)
def test_what_cannot_be_read_is_one_sentence(
    benchmarks: Path, tmp_path: Path, content: bytes | None, said: str
) -> None:
    file = tmp_path / "steps.txt"
    if content is not None:
        file.write_bytes(content)
    kept = (benchmarks.parent / "docs" / "benchmarks.json").read_bytes()
    done = _read(benchmarks, file)
    assert done.returncode == 2
    [sentence] = [line for line in done.stderr.splitlines() if "error: " in line]
    assert str(file) in sentence
    assert said in sentence
    assert "Traceback" not in done.stderr
    assert (benchmarks.parent / "docs" / "benchmarks.json").read_bytes() == kept


def test_a_closing_line_is_taken_over_and_shown(benchmarks: Path) -> None:
    from run_all import closing_object, page

    result = closing_object("a table\n" + json.dumps(CLOSING) + "\n", quick=False)
    shown = page({"env_steps": result})
    assert f"A full run on {result['date']}, X, 2 cores." in shown
    assert "| single_vs_trivial | 0.72 | 0.7 | reached |" in shown
