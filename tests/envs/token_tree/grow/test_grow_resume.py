"""Growths that were killed, interrupted, or ran out of disk go on and end in the same bytes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path

import pytest

from treegym.envs.token_tree.grow.growing import grow
from treegym.envs.token_tree.grow.settings import GrowSettings
from treegym.errors import ConfigError
from treegym.models.local.fake import FakeLanguageModel
from treegym.tree.token_tree import Root, TokenTree

PROMPTS = 24
SCRIPT = f"""
import os, sys, resource, signal, time
from treegym.envs.token_tree.grow.growing import grow
from treegym.envs.token_tree.grow.settings import GrowSettings
from treegym.tree.token_tree import Root
from treegym.errors import TreeGymError
from treegym.models.local.fake import FakeLanguageModel

class Slow(FakeLanguageModel):  # so slow that there is time to kill it
    def next_logprobs(self, contexts):
        time.sleep(float(os.environ.get("SLOW", "0")))
        return super().next_logprobs(contexts)

if len(sys.argv) > 2:  # no file may grow beyond this many bytes: a disk that fills up
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), int(sys.argv[2])))
try:
    grow(
        [Root(f"{{i}}+1=", str(i + 1)) for i in range({PROMPTS})],
        primary=Slow(name="primary"),
        teachers=[FakeLanguageModel(name="a", seed=1), FakeLanguageModel(name="b", seed=2)],
        out=sys.argv[1],
        settings=GrowSettings(max_tokens=8, max_nodes=60, shard=1),
    )
except TreeGymError as error:
    print(error)
    sys.exit(1)
"""


def start(out: Path, *more: str, slow: float = 0.0) -> subprocess.Popen[str]:
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "SLOW": str(slow),
        "PYTHONPATH": str(Path(__file__).resolve().parents[4]),
    }
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(out), *more], env=environment, stdout=subprocess.PIPE, text=True
    )


def wait_for_shards(process: subprocess.Popen[str], work: Path, count: int) -> None:
    deadline = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < deadline:
        if len(list(work.glob("shard-*.tree"))) >= count:
            return
        time.sleep(0.002)


def test_sigkill_at_any_moment_then_the_same_bytes(tmp_path: Path) -> None:
    whole = tmp_path / "whole.tree"
    assert start(whole).wait(timeout=120) == 0
    out = tmp_path / "killed.tree"
    work = tmp_path / "killed.tree.growing"
    killed = 0
    for shards in (1, 9, 17):
        process = start(out, slow=0.01)
        wait_for_shards(process, work, shards)
        process.send_signal(signal.SIGKILL)
        killed += process.wait(timeout=60) == -signal.SIGKILL
        assert not out.exists()
    assert killed == 3  # every run was killed in the middle of its work
    assert 17 <= len(list(work.glob("shard-*.tree"))) <= PROMPTS
    assert start(out).wait(timeout=120) == 0
    assert out.read_bytes() == whole.read_bytes()
    assert not work.exists()


def test_a_full_disk_is_a_sentence_and_keeps_what_was_grown(tmp_path: Path) -> None:
    out = tmp_path / "full.tree"
    process = start(out, "60000")  # room for every shard, not for the merged tree
    said, _ = process.communicate(timeout=120)
    assert process.returncode == 1
    assert f"the {PROMPTS} shards grown so far are kept" in said
    assert "make room and run the same command again" in said
    assert not out.exists()
    assert start(out).wait(timeout=120) == 0
    TokenTree.open(out).validate()


def quick(out: Path, **changes: object) -> TokenTree:
    settings = GrowSettings(**{"max_tokens": 6, "max_nodes": 30, "shard": 1} | changes)  # type: ignore[arg-type]
    roots = [Root("1+1=", "2"), Root("2+1=", "3")]
    return grow(roots, primary=FakeLanguageModel(), out=out, settings=settings, work=out.with_suffix(".work"))


def test_work_of_another_growth_is_not_mixed_in(tmp_path: Path) -> None:
    out = tmp_path / "t.tree"
    work = out.with_suffix(".work")
    work.mkdir()
    (work / "letter.txt").write_text("not ours")
    with pytest.raises(ConfigError, match="holds no growth"):
        quick(out)
    (work / "letter.txt").unlink()
    quick(out)
    plan = {"settings": {}, "prompts": "other"}
    work.mkdir()
    (work / "plan.json").write_text(json.dumps(plan))
    with pytest.raises(ConfigError, match="begun with different"):
        quick(out)


def test_memory_is_bounded_by_the_shard_not_by_the_tree(tmp_path: Path) -> None:
    """Four times the prompts take hardly more memory; shards of eight times the size do."""

    def peak(prompts: int, shard: int) -> float:
        roots = [Root(f"{i}+1=", str(i + 1)) for i in range(prompts)]
        settings = GrowSettings(max_tokens=6, max_nodes=30, shard=shard)
        out = tmp_path / f"{prompts}-{shard}.tree"
        tracemalloc.start()
        try:
            grow(roots, primary=FakeLanguageModel(), out=out, settings=settings)
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak(4, 4)  # whatever is loaded once is loaded now
    small, large, wide = peak(8, 4), peak(32, 4), peak(32, 32)
    assert large < 1.5 * small
    assert wide > 1.5 * large
