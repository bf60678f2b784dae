"""Files put in place as one, by a process that is killed between any two of its renames."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from treegym.errors import DataError
from treegym.optimize import placing
from treegym.optimize.placing import READY, finish, put_in_place

OLD = {"a.bin": "old a", "first": "old first", "only_old": "kept"}
NEW = {"a.bin": "new a", "first": "new first", "only_new": "new"}


def filled(folder: Path, files: dict[str, str]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name).write_text(text)
    return folder


def texts(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir() if path.is_file()}


def killed_at(rename: int, folder: Path, staging: Path) -> int:
    """Puts files in place in a child that dies before its rename of this number; returns the child's exit code."""
    child = os.fork()
    if child == 0:
        real, done = os.replace, [0]

        def replace(old: Any, new: Any) -> None:
            if done[0] == rename:
                os._exit(9)
            done[0] += 1
            real(old, new)

        placing.os.replace = replace  # type: ignore[attr-defined]  # in the child alone
        put_in_place(staging, folder, first="first")
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_a_kill_between_any_two_renames_leaves_the_old_or_the_new(tmp_path: Path) -> None:
    # renames: 0 the folder of the new ones, 1 the first file, 2 and 3 the others; at 4 all are done
    for rename in range(5):
        out = filled(tmp_path / f"out{rename}", OLD)
        code = killed_at(rename, out, filled(out / ".new.tmp", NEW))
        assert code == (0 if rename == 4 else 9)
        finish(out, first="first")
        assert texts(out) == (OLD if rename < 2 else {**OLD, **NEW}), rename
        # the next one finds its way whatever lies there
        put_in_place(filled(out / ".next.tmp", {"first": "3", "a.bin": "3"}), out, first="first")
        assert texts(out) == {**OLD, **(NEW if rename >= 2 else {}), "first": "3", "a.bin": "3"}
        assert not (out / READY).exists()


def test_an_error_at_any_rename_puts_the_old_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.replace
    for failing in range(4):
        out = filled(tmp_path / f"out{failing}", OLD)
        staging = filled(out / ".new.tmp", NEW)
        calls: list[Any] = []

        def replace(old: Any, new: Any, failing: int = failing, calls: list[Any] = calls) -> None:
            calls.append(new)
            if len(calls) == failing + 1:
                raise OSError(5, "Input/output error")
            real(old, new)

        with monkeypatch.context() as patch:
            patch.setattr(placing.os, "replace", replace)
            with pytest.raises(OSError, match="Input/output"):
                put_in_place(staging, out, first="first")
        assert texts(out) == OLD, failing
        finish(out, first="first")
        assert texts(out) == OLD, failing


def test_files_that_cannot_be_moved_are_told(tmp_path: Path) -> None:
    out = filled(tmp_path, {"first": "new"})
    filled(out / READY, {"a.bin": "new a"})
    filled(out / "a.bin", {"a folder": "in the way"})
    with pytest.raises(DataError, match="killed before all its files were in place"):
        finish(out, first="first")
    shutil.rmtree(out / "a.bin")
    finish(out, first="first")
    assert texts(out) == {"first": "new", "a.bin": "new a"}
