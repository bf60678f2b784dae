"""What holds for every command: switches, exit codes, and how it ends when the outside world gives way."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from treegym.__main__ import COMMANDS, build_parser, main

ROOT = Path(__file__).parents[2]


def test_every_command_takes_json_and_seed() -> None:
    parser = build_parser("*")
    subparsers = next(action for action in parser._actions if hasattr(action, "choices") and action.choices)
    assert subparsers.choices is not None
    assert set(subparsers.choices) == set(COMMANDS)
    for name, sub in subparsers.choices.items():
        flags = {flag for action in sub._actions for flag in action.option_strings}
        assert {"--json", "--seed"} <= flags, name
    for name, sub in subparsers.choices["tree"]._subparsers._group_actions[0].choices.items():
        flags = {flag for action in sub._actions for flag in action.option_strings}
        assert {"--json", "--seed"} <= flags, f"tree {name}"


def test_a_reader_that_goes_away_is_no_traceback() -> None:
    reading, writing = os.pipe()
    os.close(reading)  # as after `| head -1`
    result = subprocess.run(
        [sys.executable, "-m", "treegym", "agents"], cwd=ROOT, stdout=writing, stderr=subprocess.PIPE, text=True,
        check=False,
    )  # fmt: skip
    os.close(writing)
    assert result.returncode == 141
    assert result.stderr == ""


def test_a_file_that_cannot_be_written_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    missing = tmp_path / "missing" / "view.html"
    tree = "synthetic:roots=2,depth=3,branching=2,seed=0"
    assert main(["tree", "explore", tree, "--export", str(missing)]) == 1
    assert capsys.readouterr().err == f"treegym: No such file or directory ({missing})\n"


def test_an_unknown_command_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bensh"]) == 2
    assert "Did you mean 'bench'?" in capsys.readouterr().err
