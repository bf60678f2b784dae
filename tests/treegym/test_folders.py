"""Folders that take each other's place."""

from __future__ import annotations

import errno
import os
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from treegym import folders
from treegym.folders import put_folder


def folder(path: Path, text: str) -> Path:
    path.mkdir()
    (path / "file").write_text(text)
    return path


@pytest.fixture(params=["in one step", "by renames"])
def way(request: Any, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "by renames":
        monkeypatch.setattr(folders, "_exchanged", lambda one, other: False)
    return str(request.param)


def test_the_new_stands_where_the_old_stood(tmp_path: Path, way: str) -> None:
    place = folder(tmp_path / "place", "old")
    new = folder(tmp_path / "new", "new")
    put_folder(new, place)
    assert (place / "file").read_text() == "new"
    assert (new / "file").read_text() == "old"
    file = tmp_path / "a file"
    file.write_text("text")
    put_folder(file, place)  # a file where a folder was
    assert place.read_text() == "text"
    assert (file / "file").read_text() == "new"
    put_folder(folder(tmp_path / "third", "3"), tmp_path / "nothing yet")
    assert (tmp_path / "nothing yet" / "file").read_text() == "3"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a file", "new", "nothing yet", "place"]


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux exchanges two names in one step")
def test_a_reader_always_finds_one_of_them(tmp_path: Path) -> None:
    place, new = folder(tmp_path / "place", "one"), folder(tmp_path / "new", "other")
    seen: set[str] = set()
    failed: list[OSError] = []
    over = threading.Event()

    def read() -> None:
        while not over.is_set():
            try:
                seen.add((place / "file").read_text())
            except OSError as error:
                failed.append(error)

    reader = threading.Thread(target=read)
    reader.start()
    for _ in range(2000):
        put_folder(new, place)
    over.set()
    reader.join()
    assert not failed
    assert seen <= {"one", "other"}


def test_an_error_puts_the_old_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place, new = folder(tmp_path / "place", "old"), folder(tmp_path / "new", "new")
    monkeypatch.setattr(folders, "_exchanged", lambda one, other: False)
    real = os.replace

    def replace(old: Any, to: Any) -> None:
        if Path(old) == new:
            raise OSError(errno.EIO, "Input/output error")
        real(old, to)

    monkeypatch.setattr(folders.os, "replace", replace)
    with pytest.raises(OSError, match="Input/output"):
        put_folder(new, place)
    assert (place / "file").read_text() == "old"


def test_what_is_not_there_cannot_be_put(tmp_path: Path, way: str) -> None:
    place = folder(tmp_path / "place", "old")
    with pytest.raises(FileNotFoundError):
        put_folder(tmp_path / "absent", place)
    assert (place / "file").read_text() == "old"
