from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from treegym.envs.token_tree.prompts import load_prompts
from treegym.errors import BackendError, ConfigError, DataError
from treegym.iterate import IterateSettings, evaluate_model, iterate
from treegym.iterate.evaluate import wilson_interval
from treegym.iterate.imitate import LossIsNaN, check_weights, correct_paths, imitate
from treegym.iterate.settings import load_settings
from treegym.iterate.watching import memory_as_sentence
from treegym.models import load_model
from treegym.tree.editing import select_roots
from treegym.tree.token_tree import BUNDLED, TokenTree

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def small_tree(tmp_path_factory: pytest.TempPathFactory) -> str:
    tree = TokenTree.open(BUNDLED)
    path = tmp_path_factory.mktemp("trees") / "small.tree"
    select_roots(tree, tree.roots_in("train")[:12]).save(path)
    return str(path)


def _settings(small_tree: str, **changes: object) -> IterateSettings:
    common: dict = {"tree": small_tree, "rounds": 2, "evaluate": "bundled:test=16", "epochs": 8, "batch": 16}
    return IterateSettings(**{**common, "algorithm": "expert", "simulations": 16, **changes})


def test_expert_iteration_learns_what_search_found(small_tree: str, tmp_path: Path) -> None:
    # The same prompts that it learned on: this asks whether imitation works, not whether it generalises.
    prompts = tmp_path / "train.jsonl"
    tree = TokenTree.open(small_tree)
    lines = [{"prompt": root.prompt, "answer": root.answer, "kind": root.kind} for root in tree.roots]
    prompts.write_text("\n".join(json.dumps(line) for line in lines))
    rows = iterate(_settings(small_tree, evaluate=str(prompts), epochs=60, rounds=1), tmp_path / "run")
    assert rows[1]["reward"] > 0.7
    assert rows[1]["accuracy"] > rows[0]["accuracy"] + 0.2
    assert rows[1]["accuracy"] > 0.7
    assert sum(rows[1]["chosen_by"].values()) == pytest.approx(1.0)
    weights = TokenTree.open(tmp_path / "run" / "round-001" / "tree.tree").weight
    assert (weights > 0).all()
    assert len(np.unique(weights)) > 2


@pytest.mark.parametrize("algorithm", ["ppo", "dapo", "vapo"])
def test_reinforcement_rounds_run_on_trees(small_tree: str, tmp_path: Path, algorithm: str) -> None:
    options: dict = {"n_episodes": 32, "n_epochs": 1, **({} if algorithm == "ppo" else {"group_size": 8})}
    if algorithm == "vapo":
        # The first rollout only fits the critic (and a rollout is some 32 * 8 tokens): the second one moves the actor.
        options |= {"pretrain_updates": 1, "n_episodes": 16}
    rows = iterate(
        _settings(
            small_tree, algorithm=algorithm, ground="tree", rounds=1, steps=600, options=options, learning_rate=1e-3
        ),
        tmp_path,
    )
    assert rows[1]["reward"] is not None
    before, after = load_model("tiny-primary").model, load_model(str(tmp_path / "round-001" / "model")).model
    assert any(not torch.equal(a, b) for a, b in zip(before.parameters(), after.parameters(), strict=True))


def test_reinforcement_runs_without_a_tree(small_tree: str, tmp_path: Path) -> None:
    options = {"n_episodes": 32, "n_epochs": 1, "group_size": 8}
    settings = _settings(
        small_tree, algorithm="dapo", ground="text", prompts="bundled:train=8", rounds=1, steps=300, options=options
    )
    assert iterate(settings, tmp_path)[1]["prompts"] == 16


def test_every_round_grows_trees_over_fresh_prompts(tmp_path: Path) -> None:
    settings = IterateSettings(
        algorithm="expert", rounds=2, prompts="bundled:train=8", evaluate="bundled:test=8", epochs=1, simulations=8,
        teachers=["tiny-llama", "tiny-gpt2"],
    )  # fmt: skip
    assert settings.grows
    rows = iterate(settings, tmp_path)
    assert set(rows[2]["chosen_by"]) == {"primary", "tiny-llama", "tiny-gpt2"}
    trees = [TokenTree.open(tmp_path / f"round-00{number}" / "tree.tree") for number in (1, 2)]
    assert trees[0].num_roots == trees[1].num_roots == 8
    assert not {root.prompt for root in trees[0].roots} & {root.prompt for root in trees[1].roots}
    assert sorted(path.name for path in (tmp_path / "round-002").iterdir()) == [
        "costs.json",
        "model",
        "row.json",
        "tree.tree",
    ]


def test_adapters_are_merged_into_what_a_round_saves(small_tree: str, tmp_path: Path) -> None:
    pytest.importorskip("peft")
    options = {"n_episodes": 32, "n_epochs": 1}
    settings = _settings(
        small_tree, algorithm="ppo", ground="tree", rounds=1, steps=300, options=options, learning_rate=1e-2,
        policy={"lora_rank": 2},
    )  # fmt: skip
    iterate(settings, tmp_path)
    before, after = load_model("tiny-primary").model, load_model(str(tmp_path / "round-001" / "model")).model
    assert before.state_dict().keys() == after.state_dict().keys()
    assert any(not torch.equal(a, b) for a, b in zip(before.parameters(), after.parameters(), strict=True))


def test_a_rate_that_breaks_the_loss_names_the_batch_and_keeps_the_last_round(small_tree: str, tmp_path: Path) -> None:
    options = {"n_episodes": 32, "n_epochs": 1, "batch_size": 64}
    good = _settings(small_tree, algorithm="ppo", ground="text", prompts="bundled:train=8", rounds=1, steps=200)
    iterate(replace(good, options=options), tmp_path)
    path = tmp_path / "settings.json"
    wild = {**options, "learning_rate": 1e30, "max_grad_norm": None}
    path.write_text(json.dumps({**json.loads(path.read_text()), "options": wild}))
    with pytest.raises(LossIsNaN, match=r"batch \d+ of update \d+"):
        iterate(replace(good, rounds=2, options=wild), tmp_path)
    assert sorted(path.name for path in tmp_path.glob("round-*")) == ["round-000", "round-001"]
    assert not list(tmp_path.glob(".round.*"))
    check_weights(load_model(str(tmp_path / "round-001" / "model")).model, "a round")


def test_memory_that_runs_out_is_a_sentence() -> None:
    with pytest.raises(BackendError, match="round 3 needs more memory"), memory_as_sentence(3):
        torch.empty(2**50)
    with pytest.raises(RuntimeError, match="something else"), memory_as_sentence(3):
        raise RuntimeError("something else")


def test_a_finished_run_is_not_run_again_and_can_be_extended(small_tree: str, tmp_path: Path) -> None:
    first = iterate(_settings(small_tree, rounds=1), tmp_path)
    stamp = (tmp_path / "round-001" / "row.json").stat().st_mtime_ns
    again = iterate(_settings(small_tree, rounds=2), tmp_path)
    assert again[:2] == first
    assert len(again) == 3
    assert (tmp_path / "round-001" / "row.json").stat().st_mtime_ns == stamp
    with pytest.raises(ConfigError, match="another simulations"):
        iterate(_settings(small_tree, simulations=8), tmp_path)


def test_rounds_run_in_one_process(small_tree: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match="2 processes were launched"):
        iterate(_settings(small_tree), tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_killed_run_ends_as_one_that_was_not(small_tree: str, tmp_path: Path) -> None:
    code = (
        "import sys, torch; torch.set_num_threads(1)\n"
        "from treegym.iterate import IterateSettings, iterate\n"
        "import json; iterate(IterateSettings(**json.loads(sys.argv[1])), sys.argv[2])\n"
    )
    settings = _settings(small_tree, epochs=20)
    command = [sys.executable, "-c", code, json.dumps(settings.as_json()), str(tmp_path / "killed")]
    process = subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"})
    deadline = time.monotonic() + 200
    while not list((tmp_path / "killed").glob(".round.*")) and time.monotonic() < deadline:
        time.sleep(0.05)  # wait until it is in the middle of a round
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "killed" / "round-002" / "row.json").exists()
    resumed = iterate(settings, tmp_path / "killed")
    assert not list((tmp_path / "killed").glob(".round.*"))
    whole = iterate(settings, tmp_path / "whole")
    assert resumed == whole
    for name in ("model/model.safetensors", "tree.tree"):
        ours, theirs = (tmp_path / run / "round-002" / name for run in ("killed", "whole"))
        assert ours.read_bytes() == theirs.read_bytes()


def test_reference_answers_are_mixed_in_when_the_reward_falls(small_tree: str, tmp_path: Path) -> None:
    iterate(_settings(small_tree, rounds=1), tmp_path)
    path = tmp_path / "round-001" / "row.json"
    row = json.loads(path.read_text())
    path.write_text(json.dumps({**row, "reward": 2.0}))  # as if the round before had earned more than can be earned
    assert iterate(_settings(small_tree, rounds=2), tmp_path)[2]["reference_share"] > 0.3


def test_correct_paths_are_correct(small_tree: str) -> None:
    from treegym.envs.token_tree.world import TreeWorld

    world = TreeWorld(small_tree)
    examples = correct_paths(world, world.pool.tolist(), seed=0, each=2)
    prompts = load_prompts("bundled:train=24", seed=0)
    tokens = {root.tokens: root for root in world.tree.roots}
    assert len(examples) >= 12
    for prompt, answer in examples:
        text = world.tree.text_of(answer)
        assert prompts.verify(tokens[tuple(prompt)], text) == 1.0


def test_a_nan_loss_stops_and_names_the_step() -> None:
    model = load_model("tiny-primary").model
    with torch.no_grad():
        next(model.parameters()).fill_(float("nan"))
    with pytest.raises(LossIsNaN, match="step 0"):
        imitate(model, [([1, 2], [3, 4])], steps=2, batch=1, learning_rate=1e-3, seed=0)


def test_weights_that_are_no_numbers_are_named() -> None:
    model = load_model("tiny-primary").model
    check_weights(model, "nothing")
    with torch.no_grad():
        model.lm_head.weight[3, 3] = float("inf")
    with pytest.raises(LossIsNaN, match=r"after 5 tokens, .*weight holds NaN or infinity"):
        check_weights(model, "5 tokens")


def test_evaluation_counts_by_kind() -> None:
    found = evaluate_model(load_model("tiny-primary"), load_prompts("bundled:test=40", seed=3))
    assert found["prompts"] == 40
    assert found["low"] <= found["accuracy"] <= found["high"]
    assert np.mean(list(found["by_kind"].values())) == pytest.approx(found["accuracy"], abs=0.1)


def test_wilson_interval_by_hand() -> None:
    # 8 of 10: centre (0.8 + 0.19208)/1.38416 = 0.71674, half-width 0.22659
    assert wilson_interval(8, 10) == pytest.approx((0.49016, 0.94333), abs=1e-4)
    assert wilson_interval(0, 0) == (0.0, 1.0)


def test_settings_come_from_a_file_and_flags(tmp_path: Path) -> None:
    (tmp_path / "run.toml").write_text('rounds = 5\nalgorithm = "vapo"\n')
    settings = load_settings(str(tmp_path / "run.toml"), {"rounds": 7, "steps": None})
    assert (settings.rounds, settings.algorithm) == (7, "vapo")
    (tmp_path / "bad.toml").write_text("round = 5\n")
    with pytest.raises(ConfigError, match="Did you mean 'rounds'"):
        load_settings(str(tmp_path / "bad.toml"), {})
    (tmp_path / "worse.toml").write_text("= 5\n")
    with pytest.raises(DataError, match="not valid TOML"):
        load_settings(str(tmp_path / "worse.toml"), {})


@pytest.mark.parametrize(
    "changes",
    [
        {"algorithm": "ppoo"},
        {"rounds": 0},
        {"ground": "air"},
        {"algorithm": "expert", "ground": "text"},
        {"anchor": -1.0},
        {"algorithm": "expert", "grow": True, "tree": "some.tree"},
        {"algorithm": "ppo", "grow": True},
        {"growth": "quick"},
    ],
)
def test_bad_settings_are_one_sentence(changes: dict) -> None:
    with pytest.raises(ConfigError) as caught:
        IterateSettings(**changes)
    assert "\n" not in str(caught.value)


def test_walking_a_tree_without_an_anchor_is_warned_of() -> None:
    assert IterateSettings(algorithm="expert").on_tree
    assert not IterateSettings(algorithm="ppo").on_tree
    assert IterateSettings(algorithm="ppo", ground="tree").warning is None
    assert "anchor" in str(IterateSettings(algorithm="ppo", ground="tree", anchor=0.0).warning)
    assert IterateSettings(algorithm="expert", anchor=0.0).warning is None
