from __future__ import annotations

import json
import re
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from treegym.__main__ import main

TREE = "synthetic:roots=4,depth=4,branching=3,seed=0"
ROOT = Path(__file__).parents[2]


def test_export_writes_one_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "view.html"
    assert main(["tree", "explore", TREE, "--export", str(file), "--search", "puct", "--simulations", "8"]) == 0
    text = file.read_text()
    assert text.startswith("<!doctype html>")
    assert not re.search(r"(src|href)\s*=\s*[\"']?https?:", text)
    assert "Wrote" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (["--roots", "9"], "--roots names 9; the tree has roots 0 to 3"),
        (["--reward", "{"], "--reward is not JSON"),
        (["--port", "99999"], "--port is 99999"),
        (["--agent", "x.zip", "--algorithm", "ppoo"], "unknown agent 'ppoo'"),
    ],
)
def test_wrong_use_is_one_sentence(extra: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tree", "explore", TREE, *extra]) == 1
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1


def test_an_agent_of_another_world_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import gymnasium as gym

    from treegym.agents import PPO

    known = tmp_path / "known.zip"
    PPO("ChildPolicy", gym.make("TokenTree-v0", tree=TREE, max_children=20), seed=0).save(known)
    out = ["--export", str(tmp_path / "view.html")]
    assert main(["tree", "explore", TREE, "--agent", str(known), *out]) == 0
    assert "walk" not in capsys.readouterr().err
    other = tmp_path / "other.zip"
    PPO("ChildPolicy", gym.make("CandidateSelection-v0"), seed=0).save(other)
    assert main(["tree", "explore", TREE, "--agent", str(other), *out]) == 1
    said = capsys.readouterr().err
    assert "was trained in another environment" in said
    assert said.count("\n") == 1


def test_serves_until_interrupted() -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "treegym", "tree", "explore", TREE, "--json"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        url = json.loads(process.stdout.readline())["url"]
        assert url.startswith("http://127.0.0.1:")
        with urllib.request.urlopen(url, timeout=20) as answer:
            assert b"TreeGym explorer" in answer.read()
        with pytest.raises(urllib.error.HTTPError):
            urllib.request.urlopen(url.rsplit("/", 2)[0] + "/", timeout=20)
    finally:
        process.send_signal(2)
        process.wait(timeout=20)
    assert process.returncode == 0
