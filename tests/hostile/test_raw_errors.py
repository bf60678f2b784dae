"""Item 8: whatever is damaged is told in one sentence of the project's own, never as a foreign error."""

from __future__ import annotations

import contextlib
import json
import os
import threading
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from treegym.__main__ import main
from treegym.errors import ConfigError, DataError, TreeGymError
from treegym.rewards import build
from treegym.rewards.terms.zones import ZoneModel

NESTED = "[" * 100_000 + "]" * 100_000


def test_messages_have_an_end() -> None:
    for kind in (ConfigError, DataError, TreeGymError):
        said = str(kind("what came: " + "x" * 120_000 + "; leave it out"))
        assert len(said) <= 500
        assert said.startswith("what came")
        assert said.endswith("leave it out")


def test_a_long_name_in_a_setting_gives_a_short_message() -> None:
    with pytest.raises(ConfigError) as caught:
        gym.make("TokenTree-v0", view="x" * 120_000)
    assert len(str(caught.value)) <= 500


@pytest.mark.parametrize("pattern", ["(", "[", "(?P<a", "a{9999999999999}", "(?<=a*)b", "((((" * 500, "\\"])
def test_patterns_that_do_not_compile(pattern: str) -> None:
    with pytest.raises(ConfigError):
        build({"verifier": {"weight": 1.0, "method": "regex", "pattern": pattern}})


@pytest.mark.parametrize("root", [2**70, -(2**70), 2**63, 10**400])
@pytest.mark.parametrize("env_id", ["TokenTree-v0", "CandidateSelection-v0", "OptimizationPipeline-v0"])
def test_a_root_beyond_every_number(env_id: str, root: int) -> None:
    for env in (gym.make(env_id), gym.make_vec(env_id, num_envs=2)):
        with pytest.raises(ConfigError):
            env.reset(seed=0, options={"root": root})


GOOD_ZONES = {"kind": "treegym zoning", "version": 1, "names": ["depth"], "edges": [[1.0, 2.0]],
              "adjustments": [0.0, 0.1, 0.2], "counts": [1, 2, 3]}  # fmt: skip


@pytest.mark.parametrize(
    "change",
    [
        {"edges": [[1e400]]}, {"edges": [[2**5000]]}, {"counts": [2**70, 1, 1]}, {"counts": [1e300, 1, 1]},
        {"counts": [-1, 1, 1]}, {"adjustments": [10**400, 0, 0]}, {"edges": [["nan"]]}, {"edges": "x"},
        {"edges": [[float("nan")]], "adjustments": [0, 0], "counts": [1, 1]}, {"names": 5}, {"edges": [[1.0]] * 70},
        {"names": ["depth"] * 3}, {"counts": ["x", 1, 1]},
    ],
)  # fmt: skip
def test_zones_that_overflow(change: dict[str, Any]) -> None:
    with pytest.raises(DataError):
        ZoneModel.from_dict({**GOOD_ZONES, **change})


def test_nested_json_everywhere(tmp_path: Path, capsys: Any) -> None:
    path = tmp_path / "nested.json"
    path.write_text(NESTED)
    with pytest.raises(DataError):
        ZoneModel.load(path)
    assert main(["tree", "score", "--rollouts", str(path), "--reward", "verifier"]) == 1
    assert main(["rewards", "--check", NESTED]) == 1
    assert main(["tree", "stats", str(path)]) == 1
    assert main(["train", "PPO", "--set", f"n_envs={NESTED}", "--out", str(tmp_path / "t")]) == 1
    said = capsys.readouterr().err.strip().splitlines()
    assert all(line.startswith("treegym: ") and len(line) <= 520 for line in said)


def test_a_tree_deeper_than_python_may_recurse(capsys: Any) -> None:
    assert main(["tree", "show", "synthetic:roots=1,depth=1000,branching=2,width=2", "--lines", "9000"]) == 0
    assert capsys.readouterr().out.count("\n") > 1500


@pytest.mark.parametrize("device", ["/dev/zero", "fifo", "folder"])
@pytest.mark.parametrize(
    "words",
    [
        ["iterate", "--config", "{}"], ["bench", "--suite", "{}.toml"], ["tree", "stats", "{}"], ["eval", "{}"],
        ["tree", "score", "--rollouts", "{}", "--reward", "verifier"], ["grow", "--prompts", "{}", "--out", "x.tree"],
        ["bench", "compare", "{}", "{}"],
    ],
)  # fmt: skip
def test_devices_pipes_and_folders_are_not_files(
    tmp_path: Path, device: str, words: list[str], capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = device
    if device == "fifo":
        path = str(tmp_path / "fifo")
        os.mkfifo(path)
        os.mkfifo(path + ".toml")
    elif device == "folder":
        path = str(tmp_path)
    assert main([word.format(path) for word in words]) in (1, 2)
    assert "treegym" in capsys.readouterr().err


def test_trackers_with_anything_in_them(tmp_path: Path) -> None:
    from treegym.optimize.candidates import Candidate
    from treegym.optimize.strategies import STRATEGIES
    from treegym.optimize.tracker import StrategyTracker

    name = next(iter(STRATEGIES))
    weights = np.ones(3) / 3
    for results in ({"mlp": {name: []}}, {"mlp": {name: [[1e308, 0, 0]] * 3}}, {"mlp": {name: [[1, 2]]}},
                    {"mlp": []}, {"mlp": {name: [[10**400, 0, 0]]}}, {"mlp": {name: 5}}):  # fmt: skip
        for failures in ({}, {"mlp": {name: 2**80}}, {"mlp": {name: -5}}, {"mlp": {"no such": 1}}, {"mlp": 5}):
            path = tmp_path / "t.json"
            path.write_text(json.dumps({"format": 1, "results": results, "failures": failures}))
            try:
                tracker = StrategyTracker(path)
            except DataError:
                continue
            with np.errstate(all="raise"):
                assert tracker.success_rates("mlp", weights) is not None
                assert sum(tracker.dynamic_weights("mlp", [name], weights).values()) == pytest.approx(1.0)
                tracker.expected_fitness("mlp", Candidate((name,)), weights)


def test_recipe_weights_with_anything_in_them(tmp_path: Path) -> None:
    from treegym.optimize.recipe import rebuild

    rng = np.random.default_rng(0)
    module = tmp_path / "mine.py"
    module.write_text("import torch\nclass M(torch.nn.Module):\n    example_inputs = (torch.zeros(1, 4),)\n"
                      "    def __init__(self):\n        super().__init__()\n        self.a = torch.nn.Linear(4, 4)\n"
                      "    def forward(self, x):\n        return self.a(x)\ndef make():\n    return M()\n")  # fmt: skip
    import torch
    from safetensors.torch import save_file

    save_file(torch.nn.ModuleDict({"a": torch.nn.Linear(4, 4)}).state_dict(), str(tmp_path / "good"))
    good = (tmp_path / "good").read_bytes()
    for _ in range(60):
        raw = bytearray(good)
        for place in rng.integers(len(raw), size=3):
            raw[place] ^= 1 << int(rng.integers(8))
        (tmp_path / "bad").write_bytes(raw[: int(rng.integers(len(raw) // 2, len(raw) + 1))])
        with contextlib.suppress(DataError, ConfigError):  # anything else is a crash
            rebuild(f"{module}:make", None, "original", tmp_path / "bad")


def test_deep_nesting_in_a_thread_with_a_small_stack() -> None:
    """RecursionError depends on where one stands; it must not get out from deep inside either."""
    found: list[BaseException] = []

    def work() -> None:
        from treegym.untrusted import json_of

        try:
            json_of(NESTED.encode(), where="x")
        except DataError:
            return
        except BaseException as error:  # noqa: BLE001 (handed to the test)
            found.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert not found
