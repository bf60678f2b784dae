"""Recomputes a result folder from its raw episodes, and checks those against the worlds they claim to come from.

So a leaderboard that someone hands in can be trusted as far as its episodes can: every mean, every curve and the
leaderboard itself are computed again; where the environment is a closed tree, every episode's end is looked up in it,
those of training included, so its correctness, return, length and regret are checked too, not believed.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from treegym.bench import chain
from treegym.bench.arena import Arena, make_batch
from treegym.bench.claims import contradictions
from treegym.bench.episodes import read_episodes, read_training
from treegym.bench.execute import final_of, summary_of
from treegym.bench.integrity import Verification, check_claims, check_whole, repeat, same, unlearned
from treegym.bench.leaderboard import build_leaderboard
from treegym.bench.results import ResultFolder, strict_json
from treegym.bench.suite import EnvEntry, Suite
from treegym.errors import DataError, TreeGymError
from treegym.files import atomic_write
from treegym.registry import hearsay
from treegym.shape import misfit
from treegym.tree.synthetic import parse_synthetic

__all__ = ["Verification", "submit", "verify"]

MOST_NODES = 2**23  # of a tree that a stranger's folder may have us make: some seconds of work
_ENTRY = {"suite": str, "suite_fingerprint": str, "agent": str, "by": str, "iqm": [(float, None)], "*": None}


def verify(
    path: str | os.PathLike[str], *, replay: bool = True, rerun: int = 0, seed: int = 0, trust: bool = False
) -> Verification:
    """Checks a result folder.

    Args:
        path: the folder.
        replay: also make the environments, look the episodes' ends up in their trees, and let the bundled agents that
            do not learn play again, one seed of each.
        rerun: how many further runs, drawn at random, are repeated and compared; this imports their agents.
        seed: the leaderboard's bootstrap seed.
        trust: import modules and ask servers that the folder's suite names; by default no file can make us.
    """
    folder = ResultFolder(path)
    told = None if trust else folder.suite_table()
    with hearsay(str(folder.path), told, remedy="add --trust (trust=True) if you trust who wrote it"):
        return _verified(folder, replay=replay, rerun=rerun, seed=seed, trust=trust)


def _verified(folder: ResultFolder, *, replay: bool, rerun: int, seed: int, trust: bool) -> Verification:
    suite = folder.suite()
    found = Verification()
    jobs = {job.id: job for job in suite.jobs()}
    arenas: dict[str, Arena | None] = {}
    schools: dict[str, _School | None] = {}
    summaries = []
    for file, summary in folder.named_summaries():
        summaries.append(summary)
        found.runs += 1
        job = jobs.get(file.stem)
        if job is None:
            found.problems.append(f"{file.name} is not a run of suite {suite.name!r}")
            continue
        if summary.get("fingerprint") != job.fingerprint:
            found.problems.append(f"{file.name} was run with other settings than the suite's")
        found.problems += check_claims(file.stem, summary, job)
        found.problems += _check_run(folder, file.stem, summary, job.env.metric, found)
        if replay:
            if job.env.name not in arenas and not trust and (claimed := _nodes_asked(job.env)) > MOST_NODES:
                found.problems.append(
                    f"{job.env.name} asks for a synthetic tree of up to {claimed:,} nodes, so it was not made and its "
                    "episodes were not checked; add --trust (trust=True) if you trust who wrote it"
                )
                arenas[job.env.name] = schools[job.env.name] = None
            if job.env.name not in arenas:
                arenas[job.env.name] = _arena(job.env, suite, found)
            arena = arenas[job.env.name]
            if arena is not None and arena.digest() != summary.get("world", ""):
                found.problems.append(f"{file.name} walked another tree than {job.env.name} has here")
            found.problems += _replay(folder, file.stem, summary, arenas[job.env.name], found)
            if job.env.name not in schools:
                schools[job.env.name] = _school(job.env)
            found.problems += _replay_training(folder, file.stem, summary, schools[job.env.name], found)
    if not summaries:
        raise DataError(f"{folder.path} has no finished run to verify")
    found.problems += check_whole(folder, suite, summaries, found)
    if not found.problems:
        chosen = unlearned(suite, summaries) if replay else []
        others = [job for job in suite.jobs() if job not in chosen]
        drawn = np.random.default_rng(seed).permutation(len(others))[:rerun]
        found.problems += repeat(folder, chosen, found, source=None if trust else str(folder.path))
        found.problems += repeat(folder, [others[i] for i in drawn], found)
    if not found.problems:
        found.leaderboard = build_leaderboard(suite, summaries, seed=seed)
        found.problems += _check_leaderboard(folder.path / "leaderboard.json", found.leaderboard)
    return found


def _check_run(
    folder: ResultFolder, name: str, summary: Mapping[str, Any], metric: str, found: Verification
) -> Iterator[str]:
    try:
        checkpoints, digest = read_episodes(folder.episodes_path(name))
    except DataError as error:
        yield str(error)
        return
    found.episodes += sum(len(episodes) for episodes in checkpoints.values())
    if digest != summary["episodes"]["sha256"]:
        yield f"{name}: the episodes are not those that were written (their SHA-256 differs)"
    recomputed = {number: summary_of(episodes, metric) for number, episodes in checkpoints.items()}
    for point in summary["curve"]:
        claimed = {key: point.get(key) for key in recomputed.get(point["checkpoint"], {})}
        if not claimed or not same(recomputed[point["checkpoint"]], claimed):
            yield f"{name}: checkpoint {point['checkpoint']} does not follow from the episodes"
    if not same(final_of(checkpoints[max(checkpoints)], metric), summary["final"]):
        yield f"{name}: the final scores do not follow from the episodes"
    failures = sum(episodes.with_failures for episodes in checkpoints.values())
    yield from _check_failures(name, summary, "evaluation", failures)
    if summary["training"] is not None:
        yield from _check_training(folder, name, summary, found)


def _check_failures(name: str, summary: Mapping[str, Any], phase: str, failures: int) -> Iterator[str]:
    claimed = summary["failed_rewards"]
    if claimed is not None and claimed[phase] != failures:
        yield f"{name}: the number of {phase} episodes with failed rewards does not follow from the episodes"


def _check_training(folder: ResultFolder, name: str, summary: Mapping[str, Any], found: Verification) -> Iterator[str]:
    try:
        episodes, digest = read_training(folder.training_path(name))
    except DataError as error:
        yield str(error)
        return
    found.episodes += len(episodes)
    claimed = summary["training"]
    if digest != claimed["sha256"] or len(episodes) != claimed["count"]:
        yield f"{name}: the training episodes are not those that were written (their SHA-256 or number differs)"
    charged = summary["cost"].get("env_steps") or 0
    inside = claimed["env_steps"] == charged and int(episodes.length.sum()) <= charged
    if not inside or (np.diff(episodes.env_steps, append=charged) < 0).any():
        yield f"{name}: the steps of the training episodes are not those that were charged"
    yield from _check_failures(name, summary, "training", episodes.with_failures)


def _nodes_asked(env: EnvEntry) -> int:
    """Returns how many nodes the synthetic trees that an environment asks for have at most; 0 for other trees."""
    most = 0
    for kwargs in (env.kwargs, env.evaluation):
        tree = kwargs.get("tree")
        if isinstance(tree, str) and tree.startswith("synthetic"):
            shape = parse_synthetic(tree)
            most = max(most, shape.roots * shape.width * shape.branching * (shape.depth + 1))
    return most


def _arena(env: EnvEntry, suite: Suite, found: Verification) -> Arena | None:
    try:
        return Arena(env, split=suite.split, episodes=suite.episodes)
    except TreeGymError as error:
        found.problems.append(f"{env.name} cannot be made here, so its episodes cannot be checked: {error}")
        return None


def _replay(
    folder: ResultFolder, name: str, summary: Mapping[str, Any], arena: Arena | None, found: Verification
) -> Iterator[str]:
    if arena is None or arena.world is None:
        return
    try:
        checkpoints, _ = read_episodes(folder.episodes_path(name))
    except DataError:
        return  # reported already
    sound = True
    for number, episodes in checkpoints.items():
        if not np.array_equal(np.sort(episodes.prompt), np.sort(arena.prompts)):
            yield f"{name}: checkpoint {number} was not evaluated on the suite's prompts"
            sound = False
            continue
        found.replayed += len(episodes)
        for column in arena.contradictions(episodes):
            yield f"{name}: checkpoint {number}: {column} is not what the tree says of these episodes' ends"
            sound = False
    if sound and summary["samples"] not in ([], arena.samples(checkpoints[max(checkpoints)])):
        yield f"{name}: its sample answers are not what the tree says"


@dataclass
class _School:
    """The environment that agents were trained in, to look their training episodes up."""

    world: Any
    best: np.ndarray  # [N] float64, the best return from every node


def _school(env: EnvEntry) -> _School | None:
    batch = make_batch(env.id, 1, env.kwargs)
    world: Any = getattr(batch.unwrapped, "world", None)
    if getattr(world, "tree", None) is None:
        return None
    return _School(world, np.asarray(world.solution(1.0).value))


def _replay_training(
    folder: ResultFolder, name: str, summary: Mapping[str, Any], school: _School | None, found: Verification
) -> Iterator[str]:
    if school is None or summary["training"] is None:
        return
    try:
        episodes, _ = read_training(folder.training_path(name))
    except DataError:
        return  # reported already
    if not np.isin(episodes.prompt, school.world.pool).all():
        yield f"{name}: it was trained on prompts that are not in its environment"
        return
    found.replayed += len(episodes)
    for column in contradictions(school.world, episodes, school.best):
        yield f"{name}: {column} is not what the tree says of the training episodes"


def _check_leaderboard(path: Path, board: Mapping[str, Any]) -> Iterator[str]:
    if path.exists() and not same(json.loads(json.dumps(board)), strict_json(path)):
        yield f"{path.name} does not follow from the runs; make it again with `treegym bench`"


def submit(
    folder: str | os.PathLike[str], board_file: str | os.PathLike[str], *, by: str, seed: int = 0, trust: bool = False
) -> int:
    """Verifies a folder and adds its agents to a shared leaderboard file; returns how many entries that file now has.

    An entry replaces an earlier one of the same suite, agent and submitter. Nothing is written when the check fails.
    """
    found = verify(folder, seed=seed, trust=trust)
    if not found.sound:
        raise DataError(f"{folder} does not verify, so nothing was submitted: {found.problems[0]}")
    target = Path(board_file)
    shared = strict_json(target) if target.exists() else {"format": 1, "entries": []}
    entries: Any = shared.get("entries")
    if shared.get("format") != 1 or misfit(entries, [_ENTRY]) is not None:
        raise DataError(f"{target} is not a leaderboard file of format 1, or it is damaged")
    board = found.leaderboard
    fresh = [
        {
            "suite": board["suite"],
            "suite_fingerprint": board["suite_fingerprint"],
            "agent": row["name"],
            "by": by,
            **{
                key: row[key]
                for key in ("iqm", "mean", "optimality_gap", "mean_over_prompts", "regret", "runs", "cost")
            },
            "version": board["version"],
            "provenance": board["provenance"],
            "chain": chain.head(Path(folder)),
        }
        for row in board["agents"]
    ]
    named = {_identity(entry) for entry in fresh}
    kept = [entry for entry in entries if _identity(entry) not in named]
    ranked = sorted(kept + fresh, key=lambda entry: (entry["suite"], entry["suite_fingerprint"], -entry["iqm"][0]))
    atomic_write(target, json.dumps({"format": 1, "entries": ranked}, indent=1) + "\n")
    return len(ranked)


def _identity(entry: Mapping[str, Any]) -> tuple[Any, ...]:
    return entry["suite"], entry["suite_fingerprint"], entry["agent"], entry["by"]
