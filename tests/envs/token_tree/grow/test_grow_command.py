"""`treegym grow` and `treegym tree refresh` on the bundled models; unusable input ends in one sentence."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from treegym.__main__ import main
from treegym.tree.token_tree import TokenTree

pytest.importorskip("transformers")
SMALL = ["--prompts", "bundled:train=4,test=2", "--device", "cpu", "--threads", "1", "--quiet"]


def test_grown_with_the_bundled_family(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "t.tree"
    assert main(["grow", "--out", str(out), *SMALL, "--json"]) == 0
    said = json.loads(capsys.readouterr().out.strip().splitlines()[-1])
    tree = TokenTree.open(out)
    tree.validate()
    assert said["prompts"] == tree.num_roots == 6
    assert said["closed"]
    assert tree.teachers == said["teachers"]
    assert tree.header["primary"]["name"] == "tiny-primary"
    ends = tree.child_count == 0
    best = [np.nanmax(tree.verdict[ends & (tree.root_of(np.arange(tree.size)) == root)]) for root in range(6)]
    assert np.mean(best) >= 0.8  # nearly every prompt has a right end
    assert main(["grow", "--out", str(out), *SMALL]) == 1
    assert "exists already" in capsys.readouterr().err


def test_a_draft_changes_nothing_but_the_time(tmp_path: Path) -> None:
    few = [
        "--prompts",
        "bundled:train=3",
        "--mode",
        "answers",
        "--device",
        "cpu",
        "--threads",
        "1",
        "--teacher",
        "tiny-gpt2",
    ]
    assert main(["grow", "--out", str(tmp_path / "a.tree"), *few]) == 0
    assert main(["grow", "--out", str(tmp_path / "b.tree"), *few, "--draft", "tiny-complete"]) == 0
    plain, drafted = TokenTree.open(tmp_path / "a.tree"), TokenTree.open(tmp_path / "b.tree")
    np.testing.assert_array_equal(plain.token, drafted.token)
    np.testing.assert_array_equal(plain.proposers, drafted.proposers)


def test_unusable_input_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty.jsonl").write_text("")
    (tmp_path / "bad.jsonl").write_text('{"prompt": "1+1="}\n{"prompt": \n')
    (tmp_path / "nan.jsonl").write_text('{"prompt": "1+1=", "answer": NaN}\n')
    (tmp_path / "long.jsonl").write_text('{"prompt": "1+1="}\n{"prompt": "%s="}\n' % ("1+" * 200))
    (tmp_path / "directory").mkdir()
    (tmp_path / "foreign.jsonl").write_text('{"prompt": "größer?", "answer": "1"}\n', encoding="utf-8")
    pickled = tmp_path / "pickled"
    pickled.mkdir()
    (pickled / "config.json").write_text("{}")
    (pickled / "pytorch_model.bin").write_bytes(b"")
    out = ["--out", str(tmp_path / "t.tree"), "--device", "cpu"]
    cases = [
        (["--prompts", str(tmp_path / "empty.jsonl")], "the prompt file is empty"),
        (["--prompts", str(tmp_path / "bad.jsonl")], "line 2: not valid JSON"),
        (["--prompts", str(tmp_path / "foreign.jsonl")], "cannot express the prompt 'größer?'"),
        (["--prompts", str(tmp_path / "nan.jsonl")], "line 1: not valid JSON: NaN"),
        (["--prompts", str(tmp_path / "long.jsonl")], "has no room for an answer"),
        (
            ["--max-tokens", "60", "--limit", "1"],
            "has no room for an answer of 60 tokens after '95-23+8=', which leaves 56",
        ),
        (["--max-tokens", "0"], "max_tokens is 0"),
        (["--out", str(tmp_path / "directory"), "--limit", "1"], "is a directory; name the file"),
        (["--primary", "tiny-primray", "--limit", "1"], "Did you mean 'tiny-primary'"),
        (["--teacher", str(pickled), "--limit", "1"], "pickled weights only"),
        (["--mode", "mixd"], "Did you mean 'mixed'"),
        (["--max-nodes", "3"], "too few for one path"),
        (["--threads", "0"], "--threads is 0"),
        (["--splits", "a,b"], "expected three numbers"),
        (["--teacher", "http://127.0.0.1:9/v1", "--limit", "1"], "needs the tokenizer of its model"),
    ]
    for arguments, message in cases:
        assert main(["grow", *out, *arguments]) == 1, arguments
        said = capsys.readouterr().err
        assert message in said
        assert "Traceback" not in said
    assert not (tmp_path / "t.tree").exists()
    assert not (tmp_path / "t.tree.growing").exists()


def test_without_a_length_answers_get_what_the_models_contexts_leave(tmp_path: Path, capsys) -> None:
    prompts = tmp_path / "marked.jsonl"
    prompts.write_text('\ufeff{"prompt": "95-23+8=", "answer": 80}\n', encoding="utf-8")  # as some editors begin a file
    out = tmp_path / "t.tree"
    arguments = ["--prompts", str(prompts), "--teacher", "tiny-gpt2", "--device", "cpu", "--quiet"]
    assert main(["grow", "--out", str(out), *arguments]) == 0
    tree = TokenTree.open(out)
    assert tree.header["growth"]["max_tokens"] == 64 - len("95-23+8=")
    assert tree.is_closed


@pytest.mark.slow
def test_the_command_killed_and_run_again_gives_the_same_bytes(tmp_path: Path) -> None:
    def start(name: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "treegym", "grow", "--out", str(tmp_path / name), *SMALL, "--shard", "1"]
        root = Path(__file__).resolve().parents[4]
        return subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, cwd=root)

    assert start("whole.tree").wait(timeout=250) == 0
    for shards in (1, 4):
        process = start("killed.tree")
        while process.poll() is None and len(list((tmp_path / "killed.tree.growing").glob("shard-*"))) < shards:
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        assert process.wait(timeout=60) == -signal.SIGKILL
    assert start("killed.tree").wait(timeout=250) == 0
    assert (tmp_path / "killed.tree").read_bytes() == (tmp_path / "whole.tree").read_bytes()
