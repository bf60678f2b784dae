"""Training episodes: all of them, as they were, checked against the tree and against what was charged."""

from __future__ import annotations

import gzip
import hashlib
import html
import json
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

import treegym  # noqa: F401 - registers the environments
from treegym.agents import AlphaZero
from treegym.bench.claims import contradictions, path_sums
from treegym.bench.episodes import Episodes, read_episodes, read_training
from treegym.bench.export import export_parquet
from treegym.bench.leaderboard import leaderboard_of
from treegym.bench.recording import Recorder
from treegym.bench.report.page import as_html
from treegym.bench.report.tables import as_markdown, as_text
from treegym.bench.results import ResultFolder
from treegym.bench.runner import run_suite
from treegym.bench.suite import EnvEntry, parse_suite
from treegym.bench.verify import verify
from treegym.errors import ConfigError
from treegym.tree.flags import EOS

pytestmark = pytest.mark.usefixtures("contestants_on_path")


def _ran(table: dict[str, Any], folder: Path, *, workers: int) -> Path:
    """Runs a suite whole; returns the folder of its results."""
    outcome = run_suite(parse_suite(table, where="test"), folder, workers=workers)
    assert outcome.failed == {}
    return folder


@pytest.fixture
def folder(tmp_path: Path, small_table: dict[str, Any]) -> Path:
    """Results of the three ways in which an agent can be made to learn, and of one that does not."""
    small_table["seeds"], small_table["budget"] = [0], {"env_steps": 1500}
    small_table["agents"] = [
        {"name": "PPO", "agent": "ppo", "kwargs": {"n_episodes": 32}},
        {"name": "DAPO", "agent": "dapo"},
        {"name": "SB3", "agent": "sb3_contrib:MaskablePPO", "kwargs": {"n_steps": 16, "n_epochs": 1}},
        {"name": "Learner", "agent": "contestants:Learner"},
        {"name": "Chance", "agent": "contestants:Chance"},
    ]
    return _ran(small_table, tmp_path / "out", workers=2)


def test_every_kind_of_learner_is_recorded_and_the_tree_agrees(folder: Path, small_table: dict[str, Any]) -> None:
    results = ResultFolder(folder)
    world = gym.make("TokenTree-v0", **small_table["envs"][0]["kwargs"]).unwrapped.world
    best = np.asarray(world.solution(1.0).value)
    for path, summary in results.named_summaries():
        if summary["agent"] == "Chance":
            assert summary["training"] is None
            assert not results.training_path(path.stem).exists()
            continue
        episodes, digest = read_training(results.training_path(path.stem))
        assert summary["training"] == {
            "sha256": digest, "count": len(episodes), "env_steps": summary["cost"]["env_steps"],
            "exploring_starts": int((episodes.start != world.root_node[episodes.prompt]).sum()),
        }  # fmt: skip
        unfinished = summary["cost"]["env_steps"] - episodes.length.sum()
        assert 0 <= unfinished <= 16 * 4  # at most an episode of four steps in each of 16 lanes
        assert contradictions(world, episodes, best) == []
        assert (np.diff(episodes.env_steps) >= 0).all()
        assert np.isin(episodes.prompt, world.pool).all()
        assert episodes.correct.any()
        assert not episodes.correct.all()
        # Reward here is the verifier's word at the end, so a return of 1 is a right answer and nothing else is.
        np.testing.assert_array_equal(episodes.ret > 0.5, episodes.correct)
    assert verify(folder).problems == []


def _forge(folder: Path, change: Any) -> None:
    """Changes training episodes and the summary's hash of them, as a careful forger would."""
    path = folder / "runs" / "tiny--ppo--0.training.jsonl.gz"
    rows = [json.loads(line) for line in gzip.decompress(path.read_bytes()).decode().splitlines()]
    change(rows)
    data = "".join(json.dumps(row) + "\n" for row in rows).encode()
    path.write_bytes(gzip.compress(data, mtime=0))
    summary_path = folder / "runs" / "tiny--ppo--0.json"
    summary = json.loads(summary_path.read_text())
    summary["training"] |= {"sha256": hashlib.sha256(data).hexdigest(), "count": len(rows)}
    summary_path.write_text(json.dumps(summary))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: [row.update(correct=True, true=1.0) for row in rows], "correct is not what the tree says"),
        (lambda rows: [row.update({"return": 1.0}) for row in rows], "return is not what the tree says"),
        (lambda rows: [row.update(prompt=10_000) for row in rows], "prompts that are not in its environment"),
        (lambda rows: rows.extend(rows * 3), "not those that were charged"),
    ],
)
def test_forged_training_episodes_are_noticed(folder: Path, change: Any, message: str) -> None:
    _forge(folder, change)
    assert any(message in problem for problem in verify(folder).problems)


def test_damaged_or_missing_training_episodes_are_noticed(folder: Path) -> None:
    path = folder / "runs" / "tiny--dapo--0.training.jsonl.gz"
    path.write_bytes(path.read_bytes()[:100])
    assert any("not a sound file of episodes" in problem for problem in verify(folder).problems)
    path.unlink()
    assert any("not a sound file of episodes" in problem for problem in verify(folder).problems)


def test_exploring_starts_are_recorded_where_they_began() -> None:
    env = gym.make_vec("TokenTree-v0", num_envs=16, autoreset_mode="Disabled", tree="synthetic:roots=20,depth=4")
    agent = AlphaZero("ChildPolicy", env, seed=0, exploring_starts=0.5, num_simulations=4)
    recorder = Recorder(EnvEntry(name="x", id="TokenTree-v0"), 16, agent.world.lanes)
    recorder.observe(agent.world)
    agent.learn(300)
    episodes = recorder.episodes()
    tree = agent.world.tree_world.tree
    inside = episodes.start != np.asarray(tree.root_node)[episodes.prompt]
    assert inside.any()
    assert not inside.all()
    assert recorder.env_steps == agent.num_timesteps
    np.testing.assert_array_equal(tree.depth[episodes.end] - tree.depth[episodes.start], episodes.length)


def test_judge_calls_and_discarded_groups_are_charged(tmp_path: Path, small_table: dict[str, Any]) -> None:
    small_table["seeds"], small_table["budget"] = [0], {"env_steps": 3000}
    bundled = {"id": "TokenTree-v0", "num_envs": 32}
    small_table["envs"] = [
        {**bundled, "name": "judged", "kwargs": {"reward": {"judge": 1.0}}},
        {**bundled, "name": "verified", "kwargs": {"reward": {"verifier": 1.0}}},
    ]
    small_table["agents"] = [
        {"name": "DAPO", "agent": "dapo", "kwargs": {"n_episodes": 32, "group_size": 4, "dynamic_sampling": True}}
    ]
    small_table["evaluation"] = {"episodes": 5}
    assert run_suite(parse_suite(small_table, where="test"), tmp_path / "out", workers=2).failed == {}
    costs = {run["env"]: run["cost"] for run in ResultFolder(tmp_path / "out").summaries()}
    assert costs["judged"]["judge_calls"] == costs["judged"]["episodes"] > 0
    assert costs["verified"]["judge_calls"] == 0
    assert costs["judged"]["forward_passes"] > costs["judged"]["env_steps"] + costs["judged"]["judge_calls"]
    # The primary is right on some prompts always and on some never, so some groups of four teach nothing.
    assert 0 < costs["verified"]["discarded_groups"] < costs["verified"]["episodes"] / 4


@pytest.fixture
def judged(tmp_path: Path, small_table: dict[str, Any]) -> Path:
    """Results of agents whose reward is a judge that fails on some answers; the last is evaluated by the verifier."""
    reward = {"contestants:opinion": {"on_error": "mask"}, "length": -0.01}
    [tiny] = small_table["envs"]
    small_table["seeds"], small_table["budget"], small_table["evaluation"] = [0], {"env_steps": 600}, {"episodes": 15}
    small_table["envs"] = [{**tiny, "kwargs": {**tiny["kwargs"], "reward": reward}, "metric": "return"}]
    small_table["envs"] += [{**small_table["envs"][0], "name": "checked", "evaluation": {"reward": {"verifier": 1.0}}}]
    small_table["agents"] = [
        {"name": "PPO", "agent": "ppo", "kwargs": {"n_episodes": 32}},
        {"name": "SB3", "agent": "sb3_contrib:MaskablePPO", "kwargs": {"n_steps": 16, "n_epochs": 1}},
        {"name": "Unmasked", "agent": "stable_baselines3:PPO", "kwargs": {"n_steps": 16, "n_epochs": 1}},
        {"name": "Learner", "agent": "contestants:Learner"},
        {"name": "Chance", "agent": "contestants:Chance"},
    ]
    return _ran(small_table, tmp_path / "out", workers=1)


def test_episodes_whose_reward_failed_are_counted_and_reported(judged: Path, small_table: dict[str, Any]) -> None:
    from contestants import is_unanswered

    results = ResultFolder(judged)
    tree = gym.make("TokenTree-v0", tree=small_table["envs"][0]["kwargs"]["tree"]).unwrapped.world.tree

    def unanswered(ends: np.ndarray) -> list[int]:
        return [int((tree.flags[end] & EOS > 0) and is_unanswered(tree.path(end))) for end in ends]

    expected: dict[str, list[list[int]]] = {}
    for path, summary in results.named_summaries():
        evaluated = Episodes.join(read_episodes(results.episodes_path(path.stem))[0].values())
        assert evaluated.failed.tolist() == unanswered(evaluated.end)
        counts = [[int(evaluated.failed.sum()), len(evaluated)]]
        if summary["training"] is None:
            counts.insert(0, [0, 0])
        else:
            trained, _ = read_training(results.training_path(path.stem))
            assert trained.failed.tolist() == unanswered(trained.end)
            counts.insert(0, [int(trained.failed.sum()), len(trained)])
        assert summary["failed_rewards"] == {"training": counts[0][0], "evaluation": counts[1][0]}
        expected[summary["env"], summary["agent"]] = counts
    assert all(0 < failed < of for (failed, of), _ in expected.values() if of)
    assert all(expected[env, "Chance"][1][0] for env in ("tiny", "checked"))
    board = leaderboard_of(judged)
    found = {(row["env"], row["agent"]): [row["training"], row["evaluation"]] for row in board["failed_rewards"]}
    assert found == expected
    [warning] = [said for said in board["warnings"] if "reward failed" in said]
    failed, of = (sum(counts[0][i] for counts in expected.values()) for i in (0, 1))
    assert f"in {failed:,} of {of:,} training episodes" in warning
    for shown in (html.unescape(as_html(board)), as_markdown(board), as_text(board)):
        assert warning in shown
    failed, of = expected["tiny", "PPO"][0]
    assert f"| tiny | PPO | {failed} of {of} |" in as_markdown(board)
    assert f'<td class="n">{failed} of {of}</td>' in as_html(board)
    assert verify(judged, trust=True).problems == []
    summary_path = judged / "runs" / "tiny--ppo--0.json"  # nor can they be hidden
    summary = json.loads(summary_path.read_text())
    summary_path.write_text(json.dumps({**summary, "failed_rewards": {"training": 0, "evaluation": 0}}))
    problems = [problem for problem in verify(judged, trust=True).problems if "failed rewards" in problem]
    assert [problem.split()[4] for problem in problems] == ["evaluation", "training"]


def test_runs_from_before_failures_were_counted_still_read(folder: Path) -> None:
    results = ResultFolder(folder)
    for path, summary in results.named_summaries():
        old = {key: value for key, value in summary.items() if key != "failed_rewards"}
        for part, file in (("episodes", results.episodes_path), ("training", results.training_path)):
            if old[part] is None:
                continue
            rows = [json.loads(line) for line in gzip.decompress(file(path.stem).read_bytes()).splitlines()]
            assert all(row.pop("failed") == 0 for row in rows)
            lines = "".join(json.dumps(row) + "\n" for row in rows).encode()
            file(path.stem).write_bytes(gzip.compress(lines))
            old[part] = {**old[part], "sha256": hashlib.sha256(lines).hexdigest()}
        path.write_text(json.dumps(old))
    (folder / "chain.jsonl").unlink()  # nor were they chained
    suite = json.loads((folder / "suite.json").read_text())
    (folder / "suite.json").write_text(json.dumps({key: suite[key] for key in suite if key != "chained"}))
    assert verify(folder).problems == []
    board = leaderboard_of(folder)
    assert "failed_rewards" not in board
    assert not any("reward failed" in said for said in board["warnings"])
    assert "failed rewards" not in as_html(board) + as_markdown(board)
    trained, _ = read_training(results.training_path("tiny--ppo--0"))
    assert set(trained.failed) == {-1}


def test_environments_without_a_tree_and_policies_with_their_own_backward_pass(
    tmp_path: Path, small_table: dict[str, Any]
) -> None:
    small_table["seeds"], small_table["budget"], small_table["evaluation"] = [0], {"env_steps": 600}, {"episodes": 5}
    small_table["envs"] = [
        {"name": "pole", "id": "CartPole-v1", "metric": "return", "scale": [0, 500], "num_envs": 4, "kwargs": {}}
    ]
    small_table["agents"] = [
        {"name": "PPO", "agent": "ppo", "kwargs": {"n_steps": 25, "n_epochs": 3, "batch_size": 50}},
        {"name": "SB3", "agent": "stable_baselines3:PPO", "kwargs": {"n_steps": 25, "n_epochs": 3, "batch_size": 50}},
        {"name": "Chance", "agent": "random"},
    ]
    assert run_suite(parse_suite(small_table, where="test"), tmp_path / "out", workers=2).failed == {}
    runs = {run["agent"]: run for run in ResultFolder(tmp_path / "out").summaries()}
    for name in ("PPO", "SB3"):
        assert runs[name]["training"]["count"] > 0
        # 600 steps are judged once to act, and three times to learn from all but the last rollout at most.
        assert runs[name]["cost"]["forward_passes"] >= 600 + 3 * 500
    assert verify(tmp_path / "out").sound


def test_sums_along_paths_are_those_of_walking_them() -> None:
    tree = gym.make("TokenTree-v0", tree="synthetic:roots=3,depth=4,branching=3").unwrapped.world.tree
    pays = np.random.default_rng(0).normal(size=tree.size)
    walked = [sum(pays[node] for node in tree.path_nodes(leaf)) for leaf in range(tree.size)]
    np.testing.assert_allclose(path_sums(tree, pays), walked, atol=1e-12)


def test_a_parquet_file_holds_every_episode_and_where_it_comes_from(folder: Path, tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    count = export_parquet(folder, tmp_path / "all.parquet")
    table = parquet.read_table(tmp_path / "all.parquet")
    summaries = list(ResultFolder(folder).summaries())
    written = sum(run["episodes"]["count"] + (run["training"] or {"count": 0})["count"] for run in summaries)
    assert count == table.num_rows == written
    about = json.loads(table.schema.metadata[b"treegym"])
    assert set(about["runs"]) == set(table["run"].to_pylist())
    assert all(run["provenance"]["hardware"] and run["hyperparameters"] is not None for run in about["runs"].values())
    rows = table.to_pylist()
    last = [row for row in rows if row["agent"] == "DAPO" and row["checkpoint"] == 2]
    run = next(run for run in summaries if run["agent"] == "DAPO")
    assert np.mean([row["correct"] for row in last]) == pytest.approx(run["final"]["score"])
    assert {row["phase"] for row in rows if row["agent"] == "Chance"} == {"evaluation"}
    with pytest.raises(ConfigError, match=r"must end in \.parquet"):
        export_parquet(folder, tmp_path / "all.csv")
