from __future__ import annotations

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from treegym import remote
from treegym.errors import BackendError, ConfigError, DataError, StorageError, TreeGymError
from treegym.files import cache_folder

ROOT = Path(__file__).parents[2]
SENDING = """
import sys, time
from treegym import remote
real = remote._copy
def slowly(source, out, block):
    out.write(source.read(block)), out.write(source.read(block))
    print("begun", flush=True)
    time.sleep(60)
remote._copy = slowly
remote.put(sys.argv[1], sys.argv[2])
"""


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """A file that is sent in three parts."""
    file = tmp_path / "large.tree"
    file.write_bytes(os.urandom(2 * remote.BLOCK + 1000))
    return file


def _start(file: Path, url: str) -> Any:
    process = subprocess.Popen(
        [sys.executable, "-c", SENDING, str(file), url], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"begun\n"
    return process


def test_a_file_sent_in_parts_comes_back_the_same_and_is_fetched_once(s3: Any, large: Path) -> None:
    remote.put(large, "s3://trees/a/large.tree")
    first = remote.fetched("s3://trees/a/large.tree")
    assert first.read_bytes() == large.read_bytes()
    written = first.stat().st_mtime_ns
    assert remote.fetched("s3://trees/a/large.tree") == first
    assert first.stat().st_mtime_ns == written
    assert remote.size_of("s3://trees/a/large.tree") == 2 * remote.BLOCK + 1000
    assert remote.size_of("s3://trees/a/other.tree") is None
    s3.store.pipe("trees/a/large.tree", b"new")  # another version is another file in the cache
    assert remote.fetched("s3://trees/a/large.tree").read_bytes() == b"new"
    assert first.read_bytes() == large.read_bytes()


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGINT])
def test_sending_that_is_killed_leaves_what_was_there(s3: Any, large: Path, end: signal.Signals) -> None:
    s3.store.pipe("trees/x.tree", b"before")
    process = _start(large, "s3://trees/x.tree")
    assert s3.unfinished() == ["x.tree"]
    process.send_signal(end)
    process.communicate(timeout=60)
    assert s3.store.cat("trees/x.tree") == b"before"
    assert s3.unfinished() == (["x.tree"] if end == signal.SIGKILL else [])
    remote.put(large, "s3://trees/x.tree")  # and the next one clears away what the killed one began
    assert s3.unfinished() == []
    assert s3.store.cat("trees/x.tree") == large.read_bytes()


def test_sending_that_fails_in_the_middle_is_ended(s3: Any, large: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(source: Any, out: Any, block: int) -> None:
        out.write(source.read(block))
        out.write(source.read(block))
        raise OSError("the cable was pulled")

    s3.store.pipe("trees/y.tree", b"before")
    monkeypatch.setattr(remote, "_copy", broken)
    with pytest.raises(
        StorageError, match=r"s3://trees/y.tree could not be written: the cable was pulled; all is kept"
    ):
        remote.put(large, "s3://trees/y.tree", kept="all is kept")
    assert s3.unfinished() == []
    assert s3.store.cat("trees/y.tree") == b"before"


def test_a_name_with_a_checksum_is_that_file_or_none(s3: Any, large: Path) -> None:
    remote.put(large, "s3://trees/z.tree")
    digest = hashlib.sha256(large.read_bytes()).hexdigest()
    kept = remote.fetched(f"s3://trees/z.tree#sha256={digest}")
    s3.store.pipe("trees/z.tree", b"changed")
    assert remote.fetched(f"s3://trees/z.tree#sha256={digest}") == kept  # nobody is asked
    shutil.rmtree(cache_folder() / "remote")
    with pytest.raises(DataError, match="it was changed, or the name is wrong"):
        remote.fetched(f"s3://trees/z.tree#sha256={digest}")
    with pytest.raises(ConfigError, match="ends in no checksum"):
        remote.fetched("s3://trees/z.tree#sha256=abc")


@pytest.mark.parametrize("scheme", ["file", "memory"])
def test_other_stores_than_s3_keep_what_was_there_too(scheme: str, large: Path, tmp_path: Path,
                                                      monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    pytest.importorskip("fsspec")
    monkeypatch.setenv("TREEGYM_CACHE", str(tmp_path / "cache"))
    url = f"{scheme}://{tmp_path}/there.tree"
    remote.put(large, url)
    assert remote.fetched(url).read_bytes() == large.read_bytes()

    def broken(source: Any, out: Any, block: int) -> None:
        out.write(b"half")
        raise OSError("the cable was pulled")

    with monkeypatch.context() as patch:
        patch.setattr(remote, "_copy", broken)
        with pytest.raises(TreeGymError, match="the cable was pulled"):
            remote.put(large, url)
    assert remote.size_of(url) == large.stat().st_size


def test_what_stands_in_the_way_of_a_url_is_one_sentence(
    s3: Any, large: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import s3fs

    def told(act: Any, kind: type[Exception], said: str) -> None:
        s3fs.S3FileSystem.clear_instance_cache()
        with pytest.raises(kind, match=said):
            act()

    url = "s3://trees/t.tree"
    told(lambda: remote.check_place("s3://nowhere/t.tree"), ConfigError, "there is no bucket 'nowhere'")
    told(lambda: remote.put(large, "s3://nowhere/t.tree"), TreeGymError, "s3://nowhere/t.tree could not be written: ")
    told(lambda: remote.fetched(url), DataError, "no such file or bucket")
    told(lambda: remote.fetched("nothing://a/b"), ConfigError, "Protocol not known: nothing")
    told(lambda: remote.put(large, "file:///nowhere/at/all.tree"), TreeGymError, "/nowhere/at/all.tree")
    remote.put(large, url)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: type("Usage", (), {"free": 1000}))
    told(lambda: remote.fetched(url), StorageError, "has 33,555,432 bytes, for which there is no room in .*CACHE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    told(lambda: remote.put(large, url), StorageError, "the server does not let us: .*signature")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    told(lambda: remote.check_place(url), BackendError, "there are no credentials .*set AWS_ACCESS_KEY_ID")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "a")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "b")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    began = time.monotonic()
    told(lambda: remote.fetched(url), BackendError, "the server does not answer")
    assert time.monotonic() - began < 120
