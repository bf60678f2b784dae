"""Item 6: every write, sync and rename fails once; what is there then is the old state or the new, and is told."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from treegym.__main__ import main
from treegym.errors import StorageError
from treegym.files import atomic_write, told_by, write_arrays

TREE = "tree=synthetic:roots=4,depth=3,branching=2"
EVERY = int(os.environ.get("TREEGYM_HOSTILE_EVERY", "9"))  # of so many write points one is tried
COMMANDS: dict[str, list[str]] = {
    "train": ["train", "ppo", "--env", "TokenTree-v0", "--env-arg", TREE, "--steps", "64", "--every", "32", "--set",
              "n_envs=4", "--set", "n_episodes=8", "--resume", "--out", "{}/out", "--threads", "1"],
    "grow": ["grow", "--prompts", "bundled:train=2,test=1", "--max-tokens", "6", "--max-nodes", "20", "--shard", "2",
             "--judge", "none", "--mode", "answers", "--threads", "1", "--quiet", "--overwrite", "--out",
             "{}/x.tree", "--device", "cpu"],
    "iterate": ["iterate", "--rounds", "1", "--algorithm", "expert", "--tree", "{}/../t.tree", "--simulations", "2",
                "--evaluate", "bundled:test=4", "--epochs", "1", "--max-tokens", "8", "--out", "{}/out"],
}  # fmt: skip
SLOW = {"grow", "iterate"}


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
@pytest.mark.parametrize(
    "write",
    [lambda path, text: atomic_write(path, text),
     lambda path, text: write_arrays(path, {"a": np.frombuffer(text.encode(), np.uint8)})],
    ids=["text", "arrays"],
)  # fmt: skip
def test_a_file_is_the_old_one_or_the_new(
    faulty: Any, tmp_path: Path, write: Callable[[Path, str], None], number: int
) -> None:
    path = tmp_path / "file"
    write(path, "old")
    old = path.read_bytes()
    write(path, "new")
    new = path.read_bytes()
    for point in range(100):
        path.write_bytes(old)
        with faulty.FaultyFiles(tmp_path, point, number).at_work() as faults:
            try:
                write(path, "new")
            except StorageError as error:
                said = str(error)
            else:
                said = ""
        assert path.read_bytes() in (old, new)
        assert [entry.name for entry in tmp_path.iterdir()] == ["file"]
        if not faults.failed:
            assert said == ""
            assert point >= 3
            return
        assert str(path) in said
        assert os.strerror(number) in said
    raise AssertionError("it never came to an end")


def state(folder: Path) -> dict[str, str]:
    """Returns a digest of every file but the logs and what was measured of times."""
    other = {"tensorboard", "costs.json"}
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and not other & set(path.parts)]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.hostile if name in SLOW else ()) for name in COMMANDS]
)
def test_every_write_point_of_a_command(faulty: Any, tmp_path: Path, name: str, capsys: Any) -> None:
    if name == "iterate":
        from treegym.envs.token_tree.world import load_tree

        load_tree(None).save(tmp_path / "t.tree")
    base = tmp_path / "work"
    words = [word.format(base) for word in COMMANDS[name]]

    def run(failing: int | None) -> tuple[int, Any, str]:
        with faulty.FaultyFiles(base, failing).at_work() as faults:
            code = main(words)
        return code, faults, capsys.readouterr().err

    base.mkdir()
    code, whole, said = run(None)
    assert code == 0, said
    wanted = state(base)
    print(f"{name}: {whole.done} write points")
    tried = 0
    for point in range(0, whole.done, EVERY):
        shutil.rmtree(base)
        base.mkdir()
        code, faults, said = run(point)
        tried += bool(faults.failed)
        if faults.failed and code != 0:  # zipfile tries once more by itself
            assert code == 1, (faults.failed, said)
            assert "No space left" in said, (faults.failed, said)
            assert not list(base.rglob("*.tmp")), faults.failed
            assert run(None)[0] == 0, faults.failed  # it goes on from what is there, to the same end
        assert state(base) == wanted, faults.failed
    assert tried


def test_what_is_kept_is_told(faulty: Any, tmp_path: Path) -> None:
    (tmp_path / "gone").mkdir()

    def write() -> None:
        with told_by(tmp_path / "round-003", kept="rounds 0 to 2 are kept"):
            atomic_write(tmp_path / "gone" / "row.json", "x")

    with faulty.FaultyFiles(tmp_path, 0).at_work(), pytest.raises(StorageError) as caught:
        write()
    assert "round-003" in str(caught.value)
    assert "gone" not in str(caught.value)
    assert str(caught.value).endswith("rounds 0 to 2 are kept")


@pytest.mark.parametrize("words", ["No space left on device (os error 28)", "database or disk is full"])
def test_libraries_with_errors_of_their_own_are_understood(tmp_path: Path, words: str) -> None:
    with pytest.raises(StorageError, match="x could not be written"), told_by(tmp_path / "x"):
        raise RuntimeError(words)


def test_every_write_point_of_a_benchmark(faulty: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its workers are other processes; what one does is done here in this one."""
    from treegym.bench.execute import execute
    from treegym.bench.results import ResultFolder
    from treegym.bench.suite import parse_suite

    table = {
        "name": "one", "seeds": [0], "budget": {"env_steps": 200}, "checkpoints": 2,
        "envs": [{"name": "tiny", "id": "TokenTree-v0", "num_envs": 8,
                  "kwargs": {"tree": "synthetic:roots=20,depth=3,branching=3,difficulty=0.2,seed=0"}}],
        "agents": [{"name": "greedy", "agent": "greedy_prior", "kwargs": {}}],
    }  # fmt: skip
    suite = parse_suite(table, where="here")
    [job] = suite.jobs()
    out = tmp_path / "out"

    def run(failing: int | None) -> Any:
        with faulty.FaultyFiles(tmp_path, failing).at_work() as faults:
            folder = ResultFolder(out)
            folder.prepare(suite)
            execute(job, out=out)
        return faults

    whole = run(None)
    assert whole.done > 8
    print(f"benchmark: {whole.done} write points")
    for point in range(0, whole.done, EVERY):
        shutil.rmtree(out)
        failed = False
        try:
            run(point)
        except OSError:
            failed = True
        if failed:
            if (out / "suite.json").exists():
                assert ResultFolder(out).finished(job) is None  # a run is whole, or it is not there
            assert not list(tmp_path.rglob("*.tmp"))
            run(None)
        found = ResultFolder(out).finished(job)
        assert found is not None
        assert found["episodes"]["count"] > 0


def test_every_write_point_of_a_recipe(faulty: Any, tmp_path: Path) -> None:
    import torch

    from treegym.optimize.recipe import save_recipe, save_weights

    module = torch.nn.Linear(4, 4).eval()
    gain = {"value": 1.5, "low": 1.4, "high": 1.6}
    result = {
        "selected_strategy": "original", "strategies": [],
        "performance_metrics": {"speed_improvement": gain, "memory_efficiency": gain, "output_error": 0.0},
    }  # fmt: skip
    out = tmp_path / "recipe"

    def run(failing: int | None) -> Any:
        with faulty.FaultyFiles(tmp_path, failing).at_work() as faults:
            save_weights(out, module, module, (torch.zeros(1, 4),))
            save_recipe(out, target="m.py:make", inputs=None, result=result)
        return faults

    def texts() -> dict[str, str]:  # the order of names in weights is not always the same
        return {name: digest for name, digest in state(out).items() if not name.startswith("weights")}

    whole = run(None)
    wanted = texts()
    print(f"recipe: {whole.done} write points")
    for point in range(whole.done):
        shutil.rmtree(out)
        with contextlib.suppress(OSError):
            run(point)
        assert not list(tmp_path.rglob("*.tmp"))
        assert texts().items() <= wanted.items()  # each file is whole, or it is not there
        run(None)
        assert texts() == wanted
