from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from treegym.errors import DataError, MissingDependency, require, suggest
from treegym.files import LINE_LIMIT, atomic_path, atomic_write, read_arrays, read_json_lines, write_arrays


@pytest.mark.parametrize("mmap", [True, False])
def test_arrays_come_back_as_they_went(tmp_path: Path, mmap: bool) -> None:
    arrays = {
        "a": np.arange(5, dtype=np.int32),
        "b": np.ones((2, 3), np.float16),
        "c": np.zeros((0, 4), np.float64),
        "d": np.array([True, False, True]),
        "e": np.array(7, np.uint8),
    }
    write_arrays(tmp_path / "x", arrays, {"hello": "world"})
    back, metadata = read_arrays(tmp_path / "x", mmap=mmap)
    assert metadata == {"hello": "world"}
    assert back.keys() == arrays.keys()
    for name, array in arrays.items():
        assert back[name].dtype == array.dtype
        np.testing.assert_array_equal(back[name], array)
        assert not back[name].flags.writeable


def test_the_safetensors_library_reads_what_we_write(tmp_path: Path) -> None:
    from safetensors.numpy import load_file

    write_arrays(tmp_path / "x.safetensors", {"a": np.arange(6).reshape(2, 3), "b": np.ones(3, np.float16)})
    np.testing.assert_array_equal(load_file(tmp_path / "x.safetensors")["a"], [[0, 1, 2], [3, 4, 5]])


def test_a_failed_write_leaves_the_old_file_and_no_litter(tmp_path: Path) -> None:
    atomic_write(tmp_path / "x", "old")

    def fail() -> None:
        with atomic_path(tmp_path / "x") as temporary:
            temporary.write_text("half")
            raise RuntimeError("disk full")

    with pytest.raises(RuntimeError):
        fail()
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("x", "old")]


def test_a_writer_killed_in_the_middle_leaves_the_old_file(tmp_path: Path) -> None:
    atomic_write(tmp_path / "x", "old")
    code = (
        "import sys, time; from treegym.files import atomic_path\n"
        "with atomic_path(sys.argv[1]) as t:\n"
        "    t.write_text('half'); print('ready', flush=True); time.sleep(60)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "x")], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    time.sleep(0.01)
    assert (tmp_path / "x").read_text() == "old"


LEAVING = """
import sys, threading, time
from treegym.files import atomic_path, leave_at_once
with atomic_path(sys.argv[1]) as temporary:
    temporary.write_text("half")
    threading.Thread(target=leave_at_once, args=(3,)).start()
    time.sleep(60)
"""


def test_leaving_in_the_middle_of_a_write_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("old")
    done = subprocess.run([sys.executable, "-c", LEAVING, str(tmp_path / "x")], timeout=30, check=False)
    assert done.returncode == 3
    assert [file.name for file in tmp_path.iterdir()] == ["x"]
    assert (tmp_path / "x").read_text() == "old"


def test_unwritable_dtypes_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="complex128"):
        write_arrays(tmp_path / "x", {"a": np.zeros(2, complex)})
    assert not list(tmp_path.iterdir())


def test_suggestions_and_missing_packages() -> None:
    assert suggest("verifer", ["verifier", "length"]) == " Did you mean 'verifier'?"
    assert suggest("zzz", ["verifier", "length"]) == " Known: length, verifier."
    with pytest.raises(MissingDependency, match=r'pip install "treegym\[demo\]"'):
        require("no_such_package_anywhere", extra="demo", purpose="the demo")


def test_json_lines_come_with_their_place(tmp_path: Path) -> None:
    file = tmp_path / "x.jsonl"
    file.write_text('\ufeff{"a": 1}\n\n  \n[2, "ä"]', encoding="utf-8")
    assert list(read_json_lines(file)) == [(f"{file}, line 1", {"a": 1}), (f"{file}, line 4", [2, "ä"])]
    file.write_bytes(b"")
    assert list(read_json_lines(file)) == []


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b'1\n{"a": \n', "line 2: not valid JSON"),
        (b"1\n\nNaN\n", "line 3: not valid JSON: NaN is no JSON"),
        (b"[-Infinity]\n", "line 1: not valid JSON: -Infinity is no JSON"),
        (b"[" * 100_000, "line 1: not valid JSON"),
        (b'"' + b"a" * LINE_LIMIT + b'"\n', f"line 1: longer than {LINE_LIMIT} characters"),
        (b'"gr\xf6sse"\n', "not UTF-8 text"),
        (None, "cannot be read: No such file"),
    ],
    ids=["cut off", "not a number", "infinity", "deep", "long", "no text", "missing"],
)
def test_what_is_no_json_line_is_named(tmp_path: Path, content: bytes | None, said: str) -> None:
    file = tmp_path / "x.jsonl"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(DataError) as caught:
        list(read_json_lines(file))
    assert said in str(caught.value)
    assert str(caught.value).startswith(str(file))
