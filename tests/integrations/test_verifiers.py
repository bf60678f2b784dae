"""The first hour with verifiers: a package of prompts, evaluated by its command line against our server."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from treegym.__main__ import main
from treegym.envs.token_tree.prompts import load_prompts
from treegym.errors import ConfigError, DataError
from treegym.integrations.verifiers_package import write_package

PROMPTS = "bundled:test=12"


def test_a_package_is_written_and_read_as_python(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "Some-Sums"
    assert main(["export", "verifiers", PROMPTS, "--split", "test", "--out", str(out), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["prompts"] == 12
    assert sorted(path.name for path in out.iterdir()) == ["pyproject.toml", "some_sums.py"]
    compile((out / "some_sums.py").read_text(), "some_sums.py", "exec")
    for name, told in (("Some-Sums", "exists already"), ("json", "is installed already"), ("2nd", "names a module")):
        with pytest.raises(ConfigError, match=told):
            write_package(tmp_path / name, PROMPTS)
    with pytest.raises(ConfigError, match="no prompts of split 'validation'"):
        write_package(tmp_path / "empty", PROMPTS, split="validation")
    (tmp_path / "open.jsonl").write_text(json.dumps({"prompt": "Say something."}) + "\n")
    with pytest.raises(DataError, match="has no answer, and the verifier compares with one"):
        write_package(tmp_path / "empty", str(tmp_path / "open.jsonl"))
    assert not (tmp_path / "empty").exists()


def test_vf_eval_scores_as_the_suite_does(tmp_path: Path) -> None:
    pytest.importorskip("verifiers.v1")
    pytest.importorskip("transformers")
    from treegym.iterate.evaluate import answer_prompts
    from treegym.models.loading import load_model
    from treegym.models.serving.server import running_server

    model = load_model("tiny-primary", device="cpu")
    write_package(tmp_path / "some_sums", PROMPTS)
    with running_server(model) as served:
        asked = [
            *("some_sums", "-n", "12", "-m", "tiny-primary", "--client.base-url", served.url, "--no-push", "--no-rich"),
            *("--client.api-key-var", "NONE", "--env.agent.runtime.type", "subprocess", "-o", str(tmp_path / "out")),
            *("--sampling.max-tokens", "24", "--sampling.temperature", "0"),
        ]
        done = subprocess.run(
            [Path(sys.executable).parent / "vf-eval", *asked], capture_output=True, text=True, timeout=240, check=False,
            env={**os.environ, "PYTHONPATH": str(tmp_path / "some_sums")},
        )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    [traces] = (tmp_path / "out").glob("*/traces.jsonl")
    episodes = [json.loads(line) for line in traces.read_text().splitlines()]
    found = {
        episode["task"]["data"]["prompt"]: episode["traces"][0]["rewards"]["treegym"]["score"] for episode in episodes
    }
    alone = answer_prompts(model, load_prompts(PROMPTS), max_tokens=24)
    assert found == {one.root.prompt: float(one.right[0]) for one in alone}
    assert 0 < sum(found.values()) < len(found)  # the bundled primary is right now and then


def test_rewards_and_sources_that_do_not_fit_are_sentences(tmp_path: Path) -> None:
    pytest.importorskip("verifiers.v1")
    from treegym.integrations.verifiers import PromptData, PromptTask, PromptTaskset, RewardConfig, SourceConfig

    with pytest.raises(DataError, match="no prompts of split 'validation'"):
        list(PromptTaskset(SourceConfig(id="x", prompts=PROMPTS, split="validation")))
    (tmp_path / "open.jsonl").write_text(json.dumps({"prompt": "Say something."}) + "\n")
    with pytest.raises(DataError, match="has no answer to compare with"):
        list(PromptTaskset(SourceConfig(id="x", prompts=str(tmp_path / "open.jsonl"))))
    (tmp_path / "half.json").write_text('{"verifier": 0.5}')
    task = PromptTask(PromptData(prompt="1+1=", answer="2"), RewardConfig(reward=str(tmp_path / "half.json")))
    said: Any = SimpleNamespace(last_reply="=2.", is_truncated=False)
    assert asyncio.run(task.treegym(said)) == 0.5
