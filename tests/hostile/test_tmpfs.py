"""Item 6: every command that writes, on a file system with 0 to 64 KiB left: the right message, and nothing half done.

A tmpfs is mounted for each case, which needs the right to mount; where that is refused the tests are skipped.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from treegym.__main__ import main

SUITE = Path(__file__).with_name("one.toml")
MODULE = """
import torch


def build():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(16, 32), torch.nn.ReLU(), torch.nn.Linear(32, 4)).eval()
"""
TREE = "synthetic:roots=20,depth=3,branching=3,difficulty=0.2,seed=0"
QUICK = {
    "tree score": ["tree", "score", "--rollouts", "{from}/rollouts.jsonl", "--reward", "verifier", "--out", "{to}/x"],
    "bench report": ["bench", "report", "{to}/bench"],
    "bench merge": ["bench", "merge", "{from}/bench", "{from}/bench", "{to}/merged"],
}
SLOW = {
    "train": ["train", "ppo", "--env", "TokenTree-v0", "--env-arg", f"tree={TREE}", "--steps", "64", "--every", "32",
              "--set", "n_envs=4", "--set", "n_episodes=8", "--resume", "--out", "{to}/out", "--threads", "1"],
    "grow": ["grow", "--prompts", "bundled:train=2,test=1", "--max-tokens", "6", "--max-nodes", "20", "--shard", "2",
             "--judge", "none", "--mode", "answers", "--threads", "1", "--quiet", "--out", "{to}/x.tree"],
    "iterate": ["iterate", "--rounds", "1", "--algorithm", "expert", "--simulations", "2", "--evaluate",
                "bundled:test=4", "--epochs", "1", "--max-tokens", "8", "--out", "{to}/out"],
    "bench": ["bench", "--suite", str(SUITE), "--out", "{to}/out", "--workers", "1"],
    "optimize": ["optimize", "{from}/mine.py:build", "--out", "{to}/out", "--no-history", "--measure", "0.02",
                 "--max-iterations", "1", "--candidates", "1", "--processes", "1", "--strategies", "inplace"],
    "train-reward": ["train-reward", "--out", "{to}/rm", "--epochs", "1", "--model", "tiny-complete"],
    "tree export": ["tree", "export", "--out", "{to}/x.jsonl"],
    "tree explore": ["tree", "explore", "--export", "{to}/x.html"],
    "tree score --store": ["tree", "score", "--reward", "length", "--store", "verdict", "--out", "{to}/x.tree"],
    "tree refresh": ["tree", "refresh", "{from}/t.tree", "--out", "{to}/x.tree"],
    "forge": ["forge", "--quick", "--out", "{to}/forge", "--workers", "1"],
    "bench submit": ["bench", "submit", "{from}/bench", "{to}/board.json"],
}  # fmt: skip


@pytest.fixture(scope="module")
def sources(tmp_path_factory: Any) -> Path:
    """What commands read, on an ordinary file system."""
    from treegym.envs.token_tree.world import load_tree

    folder: Path = tmp_path_factory.mktemp("sources")
    (folder / "mine.py").write_text(MODULE)
    load_tree(None).save(folder / "t.tree")
    lines = (f'{{"prompt": "{i}+1=", "text": "{i + 1}", "answer": "{i + 1}"}}\n' for i in range(1000))
    (folder / "rollouts.jsonl").write_text("".join(lines))
    assert main(["bench", "--suite", str(SUITE), "--out", str(folder / "bench"), "--workers", "1"]) == 0
    return folder


@pytest.fixture
def room(tmp_path: Path, sources: Path) -> Iterator[Callable[[int], Path]]:
    """Makes a file system with so many KiB left, which may be called again for more room."""
    place = tmp_path / "small"
    place.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(place)], capture_output=True).returncode:
        pytest.skip("no right to mount a file system here")
    shutil.copytree(sources / "bench", place / "bench")

    def left(kib: int) -> Path:
        (place / "filler").unlink(missing_ok=True)
        there = os.statvfs(place)
        (place / "filler").write_bytes(bytes(max(0, there.f_bavail * there.f_frsize - 1024 * kib)))
        return place

    yield left
    subprocess.run(["umount", "-l", str(place)], check=True)


def cases() -> Iterator[Any]:
    for name, words in {**QUICK, **SLOW}.items():
        marks = [pytest.mark.hostile, pytest.mark.timeout(900)] if name in SLOW else []
        yield pytest.param(name, words, id=name, marks=marks)


def state(place: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in place.rglob("*") if path.is_file() and path.name != "filler"}


@pytest.mark.parametrize(("name", "words"), cases())
def test_a_full_disk_is_told_as_that(
    name: str, words: list[str], room: Callable[[int], Path], sources: Path, capfd: Any
) -> None:
    failures = 0
    for kib in (0, 4, 8, 16, 32, 64):
        place = room(kib)
        if name == "bench merge":  # which begins no folder that is there
            shutil.rmtree(place / "merged", ignore_errors=True)
            place = room(kib)
        before = state(place)
        code = main([word.replace("{to}", str(place)).replace("{from}", str(sources)) for word in words])
        said = capfd.readouterr().err.strip().splitlines()
        if code == 0:
            continue
        failures += 1
        assert code == 1, said
        assert said[-1].startswith("treegym: "), said
        assert str(place) in said[-1], said  # the name that the user gave
        assert "No space left" in said[-1], said
        assert not any("Traceback" in line for line in said), said
        assert not [path for path in place.rglob("*") if path.suffix == ".tmp" or path.name == ".treegym.lock"]
        now = state(place)
        if name in ("train", "grow", "iterate", "bench", "forge"):  # which go on from what is there
            assert len(now) <= len(before) or "kept" in said[-1] or "nothing is lost" in said[-1], said
        else:
            assert {path: now.get(path) for path in before if "/bench/" not in path}.items() <= before.items()
    assert failures
    place = room(12_000)
    if name == "bench merge":
        shutil.rmtree(place / "merged", ignore_errors=True)
    again = [word.replace("{to}", str(place)).replace("{from}", str(sources)) for word in words]
    assert main([*again, *(["--overwrite"] if name == "grow" else [])]) == 0, capfd.readouterr().err
