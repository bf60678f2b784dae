"""Pulling over what is there while the disk fails at any one operation: the old or the new, whole, never neither."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from treegym.__main__ import main
from treegym.tree.synthetic import synthetic_tree

SUITE = Path(__file__).parents[1] / "hostile" / "one.toml"


def content(place: Path) -> dict[str, bytes]:
    return {str(path.relative_to(place)): path.read_bytes() for path in place.rglob("*") if path.is_file()}


@pytest.fixture(params=["a tree", "a folder"])
def shared(request: Any, hub: Any, tmp_path: Path) -> str:
    """The name of something on the hub: one file, or a folder of files, which is replaced in another way."""
    path = tmp_path / "one.tree"
    if request.param == "a tree":
        synthetic_tree(roots=30, depth=3, branching=3, width=3, seed=1).save(path)
    else:
        path = tmp_path / "run"
        assert main(["bench", "--suite", str(SUITE), "--out", str(path), "--workers", "1"]) == 0
    assert main(["push", str(path), "ann/thing", "--licence", "mit"]) == 0
    return "ann/thing"


def test_every_write_point_of_pull(faulty: Any, shared: str, tmp_path: Path, capsys: Any) -> None:
    here = tmp_path / "here"
    words = ["pull", shared, "--out", str(here), "--overwrite"]
    assert main(words) == 0
    new = content(here)
    place = next(here.iterdir())

    def restart() -> dict[str, bytes]:
        shutil.rmtree(here)
        here.mkdir()
        if len(new) == 1:
            place.write_text("of before")
        else:
            place.mkdir()
            (place / "old").write_text("of before")
        return content(here)

    def run(failing: int | None) -> tuple[int, Any, str]:
        with faulty.FaultyFiles(here, failing).at_work() as faults:
            code = main(words)
        return code, faults, capsys.readouterr().err

    restart()
    code, whole, said = run(None)
    assert code == 0, said
    assert whole.done > 3
    failures = 0
    for point in range(whole.done):
        old = restart()
        code, faults, said = run(point)
        now = {name: raw for name, raw in content(here).items() if not name.startswith(".pull.")}
        if code:
            failures += 1
            assert "No space left" in said, (faults.failed, said)
            assert str(here) in said, (faults.failed, said)
            assert now == old, faults.failed
        else:
            assert now == new, faults.failed
        assert run(None)[0] == 0
        assert content(here) == new, faults.failed
    assert failures > 1
