"""Measuring on a cluster. Its nodes are of one machine, so a second kind can only be declared (TREEGYM_HARDWARE)."""

from __future__ import annotations

import json
import os
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from torch import nn

from treegym.__main__ import main
from treegym.errors import BackendError, ConfigError
from treegym.optimize.cache import merge
from treegym.optimize.hardware import Kind, kind_here
from treegym.optimize.recipe import RECIPE, WEIGHTS
from treegym.optimize.record import BUNDLED
from treegym.optimize.record import main as record
from treegym.optimize.strategies import STRATEGIES
from treegym.scale import pinning

pytestmark = pytest.mark.ray
SHORT = ["--measure", "0.1", "--max-iterations", "1", "--candidates", "1", "--strategies", "inference_mode"]


@pytest.mark.timeout(900)
def test_two_kinds_of_machine_get_two_recommendations(
    nodes: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    nodes.add("other", env_vars={"TREEGYM_HARDWARE": "slow memory"})
    options = ["--cache", str(tmp_path / "cache.json"), "--history", str(tmp_path / "history.json"), "--json"]
    command = ["optimize", "zoo:mlp/0", *SHORT, *options, "--ray", nodes.address, "--out", str(tmp_path / "out")]
    assert main(command) == 0
    told = json.loads(capsys.readouterr().out)["machines"]
    here = kind_here()
    other = Kind(f"{here.hardware} (slow memory)", here.versions)
    assert list(told) == [str(here), str(other)]
    for kind in (here, other):
        folder = tmp_path / "out" / kind.slug  # a recipe each
        assert (folder / WEIGHTS).is_file()
        assert isinstance(runpy.run_path(str(folder / RECIPE))["build"](), nn.Module)
        assert (tmp_path / f"history-{kind.slug}.json").is_file()  # nor are gains of one kind taken for the other's
    entries = json.loads((tmp_path / "cache.json").read_text())["measurements"]
    assert len(entries) == 2  # keys
    assert all(entries.values())
    merged = tmp_path / "merged.json"
    merged.write_text('{"format": 1, "measurements": {}}')
    assert merge(merged, [tmp_path / "cache.json"]) == sum(map(len, entries.values()))
    assert main(command) == 0  # again: what was measured is looked up, only winners are measured anew
    assert json.loads((tmp_path / "cache.json").read_text())["measurements"] == entries
    capsys.readouterr()


@pytest.mark.timeout(900)
def test_a_table_for_each_kind_goes_on_where_it_was(nodes: Any, tmp_path: Path) -> None:
    if "other" not in nodes.nodes:
        nodes.add("other", env_vars={"TREEGYM_HARDWARE": "slow memory"})
    here = kind_here()
    other = Kind(f"{here.hardware} (slow memory)", here.versions)
    bundled = json.loads(BUNDLED.read_text())
    parts = [part for part in bundled["modules"] if part["name"] == "mlp"]
    for part in parts:  # strategies that are younger than the table are not what is asked here
        known = {tuple(one["strategies"]) for one in part["records"]}
        left = [name for name in STRATEGIES if (name,) not in known]
        part["records"] += [{"strategies": [name], "measurement": None, "reason": "left out"} for name in left]
    lacking = parts[0]["records"].pop(1)  # of one module one record, which is what is left to measure
    files = {kind: tmp_path / f"table-{kind.slug}.json" for kind in (here, other)}
    for kind, file in files.items():
        file.write_text(json.dumps({"format": 1, "machine": {"processor": kind.hardware}, "modules": parts}))
    words = ["--only", "mlp", "--more", "--no-compile", "--seconds", "0.02", "--ray", nodes.address]
    words += ["--out", str(tmp_path / "table.json")]
    assert record(words) == 0
    for kind, file in files.items():
        table = json.loads(file.read_text())
        assert table["machine"]["versions"] == list(kind.versions)
        made = [record["strategies"] for record in table["modules"][0]["records"]]
        assert lacking["strategies"] in made
    damaged = json.loads(files[other].read_text())
    damaged["machine"]["processor"] = "another"
    files[other].write_text(json.dumps(damaged))
    with pytest.raises(ConfigError, match="times of two kinds are not put into one table"):
        record(words)


HOLDER = "import sys, time; from treegym.scale.pinning import pin; print(pin(1), flush=True); time.sleep(60)"


def test_cores_are_held_by_one_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(pinning, "_PATIENCE", 0.0)
    mine = os.sched_getaffinity(0)
    try:
        holders = [
            subprocess.Popen([sys.executable, "-c", HOLDER], env=environment, stdout=subprocess.PIPE) for _ in mine
        ]
        held = [holder.stdout.readline() for holder in holders if holder.stdout]
        assert len({*held}) == len(mine)  # each another
        with pytest.raises(BackendError, match=f"1 of {len(mine)} cores are wanted .* others measure on all but 0"):
            pinning.pin(1)
        holders[0].kill()
        holders[0].wait()
        assert len(pinning.pin(1)) == 1
        with pytest.raises(ConfigError, match="asks for 99 cores"):
            pinning.pin(99)
    finally:
        for holder in holders:
            holder.kill()
            holder.wait()
        for lock in pinning._held:
            os.close(lock)
        pinning._held.clear()
        os.sched_setaffinity(0, mine)
