"""Forged, thinned out and copied results are noticed; folders are extended and merged without becoming forgeries."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from treegym.bench import chain
from treegym.bench.execute import execute
from treegym.bench.leaderboard import leaderboard_of
from treegym.bench.report import write_report
from treegym.bench.results import ResultFolder, merge
from treegym.bench.runner import run_suite
from treegym.bench.suite import parse_suite
from treegym.bench.verify import submit, verify
from treegym.errors import ConfigError, DataError

TREE = "synthetic:roots=60,depth=4,branching=3,difficulty=0.2,seed=0"


def _table(**changes: Any) -> dict[str, Any]:
    return {
        "name": "small",
        "seeds": [0, 1],
        "budget": {"env_steps": 300},
        "checkpoints": 2,
        "evaluation": {"episodes": 12},
        "envs": [{"name": "tiny", "id": "TokenTree-v0", "kwargs": {"tree": TREE}, "num_envs": 16}],
        "agents": [
            {"name": "PPO", "agent": "ppo", "kwargs": {"learning_rate": 1e-3, "n_episodes": 32, "n_envs": 16}},
            {"name": "prior", "agent": "greedy_prior"},
        ],
        **changes,
    }


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("made") / "out"
    run_suite(parse_suite(_table(), where="test"), out, workers=1)
    write_report(leaderboard_of(out), out)
    return out


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    shutil.copytree(made, tmp_path / "out")
    return tmp_path / "out"


def _edit(folder: Path, run: str, change: Callable[[dict[str, Any]], Any], *, rechain: bool = True) -> None:
    """Edits a summary and makes the leaderboard, and the chain if asked to, anew: as a careful forger would."""
    path = folder / "runs" / f"{run}.json"
    summary = json.loads(path.read_text())
    change(summary)
    path.write_text(json.dumps(summary))
    _seal(folder, rechain=rechain)


def _seal(folder: Path, *, rechain: bool) -> None:
    if rechain:
        (folder / chain.CHAIN).unlink()
        chain.append(folder, [path.stem for path in sorted((folder / "runs").glob("*.json"))])
    write_report(leaderboard_of(folder), folder)


def test_an_untouched_folder_is_sound_and_its_prior_is_played_again(made: Path) -> None:
    found = verify(made)
    assert found.problems == []
    assert found.notes == []
    assert found.rerun == 1  # one seed of the agent that does not learn
    assert verify(made, replay=False, rerun=2).rerun == 2


@pytest.mark.parametrize(
    "change",
    [
        lambda run: run["cost"].update(cpu_seconds=0.01),
        lambda run: run["cost"].update(forward_passes=1),
        lambda run: run["hyperparameters"].update(gamma=0.5),
        lambda run: run["provenance"].update(git="0" * 40),
        lambda run: run["cost"]["evaluation"].update(cpu_seconds=0.0),
    ],
    ids=["CPU", "passes", "a default", "provenance", "evaluation"],
)
def test_whatever_is_edited_breaks_the_chain(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    _edit(folder, "tiny--ppo--0", change, rechain=False)
    problems = verify(folder, replay=False).problems
    assert any("tiny--ppo--0.json is not as the run left it" in problem for problem in problems)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda run: run["cost"].update(forward_passes=1), "forward passes do not add up"),
        (lambda run: run["curve"][-1].update(cpu_seconds=1e6), "cpu seconds do not add up"),
        (lambda run: run["hyperparameters"].update(learning_rate=5.0), "learning_rate of its settings"),
        (lambda run: run.update(seed=7), r"its job \(agent, environment, seed, budget\)"),
        (lambda run: run["job"]["agent"]["kwargs"].update(learning_rate=5.0), "its job"),
    ],
)
def test_some_forgeries_contradict_themselves_even_in_a_chain_of_their_own(
    folder: Path, change: Callable[[dict[str, Any]], Any], said: str
) -> None:
    _edit(folder, "tiny--ppo--0", change)
    assert any(re.search(said, problem) for problem in verify(folder, replay=False).problems)


def test_runs_that_are_taken_away_are_named(folder: Path) -> None:
    for path in (folder / "runs").glob("tiny--ppo--1.*"):
        path.unlink()
    problems = verify(folder, replay=False).problems
    assert "tiny / PPO: the runs of seeds 1 are missing" in problems
    assert "tiny--ppo--1 was finished once, and is gone" in problems
    _seal(folder, rechain=True)
    assert verify(folder, replay=False).problems == ["tiny / PPO: the runs of seeds 1 are missing"]


def test_the_best_seed_copied_is_named(folder: Path) -> None:
    runs = folder / "runs"
    for kind in ("jsonl.gz", "training.jsonl.gz"):
        shutil.copyfile(runs / f"tiny--ppo--0.{kind}", runs / f"tiny--ppo--1.{kind}")
    good, other = (json.loads((runs / f"tiny--ppo--{seed}.json").read_text()) for seed in (0, 1))
    (runs / "tiny--ppo--1.json").write_text(
        json.dumps({**good, "seed": 1, "job": other["job"], "fingerprint": other["fingerprint"]})
    )
    _seal(folder, rechain=True)
    problems = verify(folder).problems
    assert problems == ["tiny / PPO: seed 1 was trained on the very episodes of seed 0: one is a copy of the other"]


def test_a_prior_forged_to_the_optimum_is_played_again(folder: Path, tmp_path: Path) -> None:
    """Its episodes exist in the tree, all hashes are right, and still the prior does not play so."""
    [job] = [job for job in parse_suite(_table(seeds=[0]), where="t").jobs() if job.agent.name == "prior"]
    best = ResultFolder(tmp_path / "best")
    best.runs.mkdir(parents=True)
    oracle = parse_suite(_table(seeds=[0], agents=[{"name": "prior", "agent": "oracle"}]), where="t").jobs()[0]
    forged = execute(oracle, out=best.path)
    assert forged["final"]["score"] == 1.0
    for seed in (0, 1):
        path = folder / "runs" / f"tiny--prior--{seed}.json"
        own = json.loads(path.read_text())
        kept = {key: own[key] for key in ("seed", "job", "fingerprint", "hyperparameters")}
        path.write_text(json.dumps({**forged, **kept}))
        shutil.copyfile(best.episodes_path(job.id), folder / "runs" / f"tiny--prior--{seed}.jsonl.gz")
    _seal(folder, rechain=True)
    assert verify(folder, replay=False).sound
    assert verify(folder).problems == ["tiny--prior--0: run again here, its episodes are others than those handed in"]


def test_forged_learning_is_found_by_running_it_again(folder: Path) -> None:
    """Passes cut along the whole curve, in a chain of the forger's own: only running it again can tell."""

    def cut(run: dict[str, Any]) -> None:
        for point in (*run["curve"], run["cost"]):
            point["forward_passes"] = int(point["forward_passes"] / 2)

    for seed in (0, 1):
        _edit(folder, f"tiny--ppo--{seed}", cut)
    assert verify(folder).sound
    problems = verify(folder, rerun=4).problems
    assert "tiny--ppo--0: run again here, it took other forward passes than it claims" in problems


def test_folders_from_before_the_chain_are_told_apart(folder: Path, tmp_path: Path) -> None:
    (folder / chain.CHAIN).unlink()
    table = json.loads((folder / "suite.json").read_text())
    assert any("does not know it" in problem for problem in verify(folder, replay=False).problems)
    del table["chained"]
    (folder / "suite.json").write_text(json.dumps(table))
    found = verify(folder, replay=False)
    assert found.sound
    assert found.notes == ["written before runs were chained: costs, settings and provenance are believed"]


def test_a_line_that_a_kill_cut_short_is_written_again(folder: Path) -> None:
    whole = (folder / chain.CHAIN).read_bytes()
    (folder / chain.CHAIN).write_bytes(whole[:-20])
    outcome = run_suite(parse_suite(_table(), where="test"), folder, workers=1)
    assert (outcome.finished, outcome.kept) == (0, 4)
    assert (folder / chain.CHAIN).read_bytes() == whole


def test_a_folder_grows_by_a_seed_and_an_agent(folder: Path) -> None:
    before = {path.name: path.read_bytes() for path in (folder / "runs").iterdir()}
    more = [*_table()["agents"], {"name": "chance", "agent": "random"}]
    outcome = run_suite(parse_suite(_table(seeds=[2], agents=more), where="test"), folder, workers=1)
    assert (outcome.finished, outcome.kept) == (5, 4)  # chance in three seeds, the others in the new one
    assert all((folder / "runs" / name).read_bytes() == data for name, data in before.items())
    board = leaderboard_of(folder)
    assert board["seeds"] == [0, 1, 2]
    assert {row["name"] for row in board["agents"]} == {"PPO", "prior", "chance"}
    write_report(board, folder)
    assert verify(folder).problems == []


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"budget": {"env_steps": 301}}, r"other settings \(budget differ\)"),
        ({"evaluation": {"episodes": 11}}, r"\(episodes differ\)"),
        ({"agents": [{"name": "PPO", "agent": "ppo"}]}, "other settings of the agent 'PPO'"),
    ],
)
def test_a_folder_grows_by_nothing_else(folder: Path, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        run_suite(parse_suite(_table(**changes), where="test"), folder, workers=1)


def test_folders_are_merged(made: Path, tmp_path: Path) -> None:
    chance = [{"name": "chance", "agent": "random"}]
    run_suite(parse_suite(_table(agents=chance), where="test"), tmp_path / "other", workers=1)
    assert merge([made, tmp_path / "other"], tmp_path / "all") == 6
    board = leaderboard_of(tmp_path / "all")
    assert board["runs"] == board["expected_runs"] == 6
    assert verify(tmp_path / "all").problems == []
    with pytest.raises(ConfigError, match="exists already"):
        merge([made, tmp_path / "other"], tmp_path / "all")
    path = tmp_path / "other" / "runs" / "tiny--chance--0.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "seed": 5}))
    with pytest.raises(DataError, match=r"cannot be merged: tiny--chance--0\.json is not as the run left it"):
        merge([made, tmp_path / "other"], tmp_path / "never")
    assert not (tmp_path / "never").exists()


def test_copies_of_a_deterministic_agent_are_no_replicates(made: Path) -> None:
    rows = {row["name"]: row for row in leaderboard_of(made)["agents"]}
    assert rows["prior"]["deterministic"]
    assert rows["prior"]["iqm"][1:] == [None, None]
    assert None not in rows["prior"]["mean_over_prompts"]
    assert not rows["PPO"]["deterministic"]
    assert None not in rows["PPO"]["iqm"]


def test_two_deterministic_agents_are_not_told_apart_by_their_copies(tmp_path: Path) -> None:
    agents = [{"name": name, "agent": name} for name in ("greedy_prior", "step_vote")]
    run_suite(parse_suite(_table(agents=agents, seeds=[0, 1, 2]), where="test"), tmp_path / "out", workers=1)
    board = leaderboard_of(tmp_path / "out")
    assert [cell[1:] for line in board["improvement"] for cell in line if cell is not None] == [[None, None]] * 2


def test_a_shared_leaderboard_holds_the_seal(folder: Path, tmp_path: Path) -> None:
    submit(folder, tmp_path / "board.json", by="ada")
    [seal] = {entry["chain"] for entry in json.loads((tmp_path / "board.json").read_text())["entries"]}
    assert seal == chain.head(folder)
    assert len(seal) == len(hashlib.sha256().hexdigest())
