"""Item 4: what is small on disk stays small in memory; every case runs in a process with little room."""

from __future__ import annotations

import gzip
import json
import zipfile
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from treegym.agents import PPO
from treegym.errors import DataError
from treegym.files import HEADER_LIMIT

MIB = 2**20
MEASURE = """
import resource
import treegym.agents, torch  # what every honest process holds, too
from treegym.agents import PPO
from treegym.bench.episodes import read_episodes
from treegym.errors import ConfigError, DataError
from treegym.files import read_arrays
found = {}
for name, (kind, path) in bombs.items():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    said = ""
    try:
        {"PPO": PPO.load, "arrays": read_arrays, "episodes": read_episodes}[kind](path)
    except (ConfigError, DataError) as error:
        said = str(error)
    found[name] = [said, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before]
print(json.dumps(found))
"""
DENSE = b'{"x": [' + b"[]," * (4 * MIB) + b"[]]}"
ALLOWED = 110_000  # KiB: the file itself, once or twice, and what a checkpoint's first load brings along


@pytest.fixture(scope="module")
def good(tmp_path_factory: Any) -> Path:
    path: Path = tmp_path_factory.mktemp("bombs") / "good.zip"
    env = gym.make("TokenTree-v0", tree="synthetic:roots=4,depth=3")
    PPO("ChildPolicy", env, n_envs=4, n_episodes=4, seed=0).save(path)
    return path


def zipped(path: Path, data: bytes, arrays: bytes, *, how: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", how) as archive:
        archive.writestr("data.json", data)
        archive.writestr("arrays.safetensors", arrays)
    return path


def zip_of_zeros(path: Path, data: bytes, count: int) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("data.json", data)
        with archive.open("arrays.safetensors", "w", force_zip64=True) as member:
            for _ in range(count):
                member.write(bytes(MIB))
    return path


def zip_of_names(path: Path) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for i in range(20_000):
            archive.writestr(f"{i}", b"")
    return path


def header_of_parts(path: Path, size: int) -> Path:
    header = b"{" + b",".join(b'"%x":{}' % i for i in range(size // 12)) + b"}"
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    return path


def gzip_of_blanks(path: Path, count: int) -> Path:
    with gzip.open(path, "wb") as file:
        for _ in range(count):
            file.write(b" " * MIB)
    return path


def test_what_is_small_on_disk_stays_small_in_memory(limited: Any, good: Path, apart: Any, tmp_path: Path) -> None:
    data = json.dumps(apart(good).data).encode()
    bombs = {
        "zeros": ("PPO", zip_of_zeros(tmp_path / "zeros.zip", data, 1024)),
        "names": ("PPO", zip_of_names(tmp_path / "names.zip")),
        "header": ("arrays", header_of_parts(tmp_path / "header", HEADER_LIMIT)),
        "blanks": ("episodes", gzip_of_blanks(tmp_path / "blanks.gz", 256)),
    }
    for how in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        bombs[f"dense {how}"] = ("PPO", zipped(tmp_path / f"dense{how}.zip", DENSE, b"", how=how))
    for shape in ([2**28], [2**14, 2**14], [2**40]):
        bad, count = apart(good), int(np.prod(shape))
        bad.data["spaces"][0]["spaces"]["observations"].update(shape=shape, low=[[0, count]], high=[[1, count]])
        bombs[f"space {shape}"] = ("PPO", bad.written(f"space{shape}.zip"))
    bad = apart(good)
    box = {"kind": "box", "shape": [2**21], "dtype": "float32", "low": [[0.0, 2**21]], "high": [[1.0, 2**21]]}
    bad.data["spaces"][0]["spaces"] |= {f"more{i}": box for i in range(64)}
    bombs["spaces"] = ("PPO", bad.written("spaces.zip"))
    for hidden in (100_000, 2**20):
        bad = apart(good)
        bad.data["policy_kwargs"]["hidden"] = hidden
        bombs[f"hidden {hidden}"] = ("PPO", bad.written(f"hidden{hidden}.zip"))
    named = {name: (kind, str(path)) for name, (kind, path) in bombs.items()}
    done = limited(MEASURE, gib=6.0, bombs={"good": ("PPO", str(good)), **named})
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout)
    assert found.pop("good")[0] == ""
    assert {name: said for name, (said, _) in found.items() if not said} == {}
    assert {name: grown for name, (_, grown) in found.items() if grown > ALLOWED} == {}


def test_a_gzip_cut_short_or_foreign_is_a_sentence(tmp_path: Path) -> None:
    from treegym.bench.episodes import read_episodes, read_training

    whole = gzip.compress(b'{"checkpoint": 0}\n' * 50)
    for number, raw in enumerate((whole[:-9], whole[: len(whole) // 2], b"", b"no gzip", whole[:12] + b"\xff" * 40)):
        path = tmp_path / f"{number}.jsonl.gz"
        path.write_bytes(raw)
        for read in (read_episodes, read_training):
            if raw or read is read_episodes:
                with pytest.raises(DataError):
                    read(path)
