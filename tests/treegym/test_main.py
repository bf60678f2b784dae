from __future__ import annotations

import subprocess
import sys

import pytest

from treegym.__main__ import COMMANDS, build_parser, main

BLOCKED = """
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "stable_baselines3"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Block())
from treegym.__main__ import main
sys.exit(main(sys.argv[1:]))
"""


def test_every_command_has_help_and_the_common_flags() -> None:
    text = build_parser().format_help()
    for name in COMMANDS:
        assert name in text
        with pytest.raises(SystemExit) as ended:
            main([name, "--help"])
        assert ended.value.code == 0


def test_an_unknown_command_is_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["growl"]) == 2
    assert "Did you mean 'grow'" in capsys.readouterr().err


def test_no_command_prints_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    assert "bench" in capsys.readouterr().out


def test_a_missing_package_is_one_sentence_with_the_install_command() -> None:
    command = [sys.executable, "-c", BLOCKED, "train", "ppo", "--out", "nowhere"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.strip().splitlines() == [
        "treegym: train needs the package 'torch': pip install \"treegym[agents]\""
    ]


def test_errors_are_one_sentence_and_exit_code_1(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tree", "verify", "none.tree"]) == 1
    assert capsys.readouterr().err.startswith("treegym: none.tree: no such tree file")
