from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest

import treegym  # noqa: F401 - registers the environments
from treegym import remote
from treegym.__main__ import main
from treegym.errors import ConfigError
from treegym.tree.forest import Forest, is_forest
from treegym.tree.opening import load_tree
from treegym.tree.synthetic import synthetic_tree
from treegym.tree.token_tree import TokenTree

ROOT = Path(__file__).parents[2]
GROWTH = ["grow", "--prompts", "bundled:train=12,validation=0,test=0", "--shard", "2", "--threads", "1", "--quiet"]
URL = "s3://trees/grown.tree"


def test_a_growth_to_a_url_is_the_same_bytes_whatever_befalls_it(
    s3: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*GROWTH, "--out", str(tmp_path / "here.tree")]) == 0
    here = (tmp_path / "here.tree").read_bytes()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    command = subprocess.Popen([sys.executable, "-m", "treegym", *GROWTH, "--out", URL])
    deadline = time.monotonic() + 120
    while len(list(Path("grown.tree.growing").glob("shard-*.tree"))) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    command.kill()
    command.wait()
    assert remote.size_of(URL) is None
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")  # a growth is not begun that could not be kept
    type(s3.store).clear_instance_cache()
    assert main([*GROWTH, "--out", "s3://trees/other.tree"]) == 1
    assert "the server does not let us" in capsys.readouterr().err
    assert not Path("other.tree.growing").exists()
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    for name in ("AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, {"AWS_ENDPOINT_URL": s3.url}.get(name, "tester" if "ID" in name else "not-a-secret"))
    type(s3.store).clear_instance_cache()

    def broken(source: Any, out: Any, block: int) -> None:
        raise OSError("the cable was pulled")

    with monkeypatch.context() as patch:
        patch.setattr(remote, "_copy", broken)
        assert main([*GROWTH, "--out", URL]) == 1
    said = capsys.readouterr().err
    assert "cable was pulled; what was grown is kept in grown.tree.growing: give the same command again" in said
    assert remote.size_of(URL) is None
    finished = Path("grown.tree.growing/finished.tree").stat().st_mtime_ns
    with monkeypatch.context() as patch:  # what was whole is sent, and not made again
        patch.setattr(TokenTree, "save", lambda *_: pytest.fail("the tree was written again"))
        assert main([*GROWTH, "--out", URL, "--json"]) == 0
    assert finished
    told = json.loads(capsys.readouterr().out)
    assert (told["out"], told["bytes"]) == (URL, len(here))
    assert s3.store.cat("trees/grown.tree") == here
    assert [path.name for path in tmp_path.iterdir() if "grown" in path.name] == []
    assert main([*GROWTH, "--out", URL]) == 1
    assert "exists already" in capsys.readouterr().err
    assert load_tree(URL).size == load_tree(str(tmp_path / "here.tree")).size


def test_a_tree_and_a_forest_at_urls_are_used_by_name(s3: Any, tmp_path: Path,
                                                      monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    monkeypatch.setenv("TREEGYM_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "forest"
    folder.mkdir()
    for number in range(3):
        synthetic_tree(roots=12, depth=3, branching=3, seed=number).save(folder / f"part-{number}.tree")
    here = Forest.gather(folder)
    for file in folder.iterdir():
        remote.put(file, f"s3://trees/forest/{file.name}")
    assert is_forest("s3://trees/forest/")
    there = Forest.open("s3://trees/forest/")
    cached = tmp_path / "cache" / "remote"
    assert len(list(cached.rglob("*.tree"))) == 0  # opening fetches the manifest alone
    assert there.text(there.size - 1) == here.text(here.size - 1)
    assert len(list(cached.rglob("*.tree"))) == 1
    assert there.statistics() == here.statistics()
    for name in ("s3://trees/forest/", "s3://trees/forest/part-1.tree"):
        env = gym.make("TokenTree-v0", tree=name)
        _, info = env.reset(seed=0)
        assert info["action_mask"].any()
    with pytest.raises(ConfigError, match="ends in no file name"):
        remote.file_name("s3://trees/..")


SENDER = """
import resource, sys
from pathlib import Path
from treegym import remote
from treegym.envs.token_tree.grow.target import Target
from treegym.envs.token_tree.grow.work import WorkDirectory
from treegym.tree.synthetic import synthetic_tree

remote.BLOCK = 5 * 2**20  # the least that S3 takes
shards = 40
store = WorkDirectory(Path("work"), {})
for number in range(shards):
    synthetic_tree(roots=300, depth=7, branching=3, seed=number).save(store.shard(number))
size = sum(store.shard(number).stat().st_size for number in range(shards))
target = Target(sys.argv[1], "work", overwrite=True)
def anonymous():
    return int(next(line for line in open("/proc/self/status") if line.startswith("RssAnon")).split()[1]) * 1024
import s3fs  # what importing it takes is not the tree
before = anonymous()
import threading, time
most, done = [0], threading.Event()
def watch():
    while not done.is_set():
        most[0] = max(most[0], anonymous())
        time.sleep(0.01)
watching = threading.Thread(target=watch); watching.start()
tree = target.finished(store, lambda: store.merge(shards, {}))
done.set(); watching.join()
print(size, tree.size, most[0] - before)
"""


@pytest.mark.slow
def test_merging_and_sending_hold_no_tree_in_memory(s3: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    told = subprocess.run(
        [sys.executable, "-c", SENDER, "s3://trees/big.tree"], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    size, nodes, grown = (int(word) for word in told.stdout.split())
    assert nodes > 1_000_000
    assert remote.size_of("s3://trees/big.tree") > 0.9 * size
    assert grown < size / 2, f"{grown:,} bytes of memory for a tree of {size:,}"
