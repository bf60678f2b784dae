"""`treegym tune --scheduler pbt`, and `--replay`: the settings that changed on the way, stored and done again."""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from treegym.checks import whole
from treegym.display import say
from treegym.errors import ConfigError, DataError, TreeGymError
from treegym.files import atomic_write, told_by
from treegym.iterate.shares import Staff
from treegym.population import Population
from treegym.scale.rollouts import staff_for
from treegym.shape import misfit
from treegym.untrusted import read_json

__all__ = ["replay", "search", "trainer"]

FORMAT = "treegym.schedule"
_TOLD: Any = {"agent": str, "env": str, "env_args": {}, "switches": {}, "steps": int, "rungs": int, "seed": int}


def search(args: argparse.Namespace, told: Mapping[str, Any], work: Path) -> tuple[dict[str, Any], int, Path]:
    """Trains a population; returns the best life with its score, the steps of all, and the schedule's file."""
    if args.trials < 2:
        raise ConfigError(f"--trials is {args.trials}; a population has at least 2 members")
    with told_by(work), staff_for(args) as staff:
        work.mkdir(parents=True, exist_ok=True)
        population = _resumed(args, told, work)
        while population.interval < told["rungs"]:
            _interval(population, told, work, staff)
            if sys.stderr.isatty() and not args.json:
                best = population.lives[population.best()].score
                say(f"interval {population.interval} of {told['rungs']}: {best:.3f}", file=sys.stderr)
    place = population.best()
    life = population.lives[place]
    if not math.isfinite(life.score):
        raise TreeGymError(f"none of {args.trials} members came to a score")
    schedule = {
        "format": FORMAT, **told, "life": {"seed": life.seed, "segments": life.segments}, "score": life.score,
        "weights": _digest((work / f"{population.interval - 1}-{place}.zip").read_bytes(), told["agent"]),
        "env_steps": population.steps,
    }  # fmt: skip
    file = args.out.with_suffix(".schedule.json")
    atomic_write(file, json.dumps(schedule, indent=1) + "\n")
    return {"score": life.score, "config": life.segments[-1]}, population.steps, file


def _resumed(args: argparse.Namespace, told: Mapping[str, Any], work: Path) -> Population:
    """Returns the population in a folder, which must be of the same search, or a new one."""
    file = work / "population.json"
    plan = json.loads(json.dumps({**told, "trials": args.trials}))
    if not file.is_file():
        return Population(told["agent"], args.trials, seed=told["seed"])
    before = read_json(file)
    if before.get("plan") != plan:
        raise ConfigError(f"{work} holds a search with other settings; finish it, remove it, or choose another --work")
    return Population.of(before["population"])


def _interval(population: Population, told: Mapping[str, Any], work: Path, staff: Staff) -> None:
    """Trains every member for one interval, and keeps what came of it."""
    number = population.interval
    jobs = []
    for place, life in enumerate(population.lives):
        source = work / f"{number - 1}-{population.from_whom[place]}.zip"
        checkpoint = source.read_bytes() if number else None
        jobs.append({"checkpoint": checkpoint, "seed": life.seed, "settings": life.segments[-1]})
    with staff("treegym.commands.tune_population:trainer", dict(told)) as do:
        answers = do(jobs, None)
    for place, answer in enumerate(answers):
        atomic_write(work / f"{number}-{place}.zip", answer["checkpoint"])
    scores, steps = [answer["score"] for answer in answers], sum(answer["steps"] for answer in answers)
    population.take(scores, steps, last=number + 1 == told["rungs"])
    plan = {**told, "trials": len(jobs)}
    atomic_write(work / "population.json", json.dumps({"plan": plan, "population": population.as_json()}))


def trainer(told: Mapping[str, Any]) -> Callable[[tuple[Mapping[str, Any], None]], dict[str, Any]]:
    """Returns what trains one member for one interval: a new one, or one that goes on with other settings."""
    import torch

    from treegym.agents.pieces import piece
    from treegym.agents.play.evaluation import vector_world
    from treegym.commands.validation import validation

    torch.set_num_threads(1)
    validate = validation(told["env"], told["env_args"])

    def train(job: tuple[Mapping[str, Any], None]) -> dict[str, Any]:
        member, _ = job
        world = vector_world(told["env"], 64, **told["env_args"])
        agent, made = piece(
            told["agent"], world, member["checkpoint"], seed=member["seed"],
            new={**told["switches"], **member["settings"]}, changed=member["settings"],
            steps=max(1, told["steps"] // told["rungs"]), total=told["steps"],
        )  # fmt: skip
        return {**made, "score": validate(agent)}

    return train


def replay(file: str, out: Path) -> dict[str, Any]:
    """Trains again as a stored schedule says, writes the agent, and returns its score; the weights must be the same."""
    schedule = read_json(file)
    shape: Any = {"format": str, **_TOLD, "life": {"seed": int, "segments": [{}]}, "weights": str}
    if (fault := misfit(schedule, shape)) is not None or schedule["format"] != FORMAT:
        raise DataError(
            f"{file} is no schedule of `treegym tune --scheduler pbt`: {(fault or '.format').lstrip('.')} is missing "
            "or not what it should be"
        )
    for name in ("steps", "rungs"):
        whole(f"{file}: {name}", schedule[name], low=1)
    train = trainer({name: schedule[name] for name in _TOLD})
    answer: dict[str, Any] = {"checkpoint": None}
    for settings in schedule["life"]["segments"]:
        job = {"checkpoint": answer["checkpoint"], "seed": schedule["life"]["seed"], "settings": settings}
        answer = train((job, None))
    atomic_write(out, answer["checkpoint"])
    if _digest(answer["checkpoint"], schedule["agent"]) != schedule["weights"]:
        raise TreeGymError(
            f"{file}: the agent was trained again and written to {out}, and its weights are others than those of the "
            "search; take the machine and the versions that it ran on"
        )
    return {"out": str(out), "agent": schedule["agent"], "score": answer["score"]}


def _digest(checkpoint: bytes, agent: str) -> str:
    """Returns a hash of an agent's weights."""
    from treegym.agents.pieces import from_bytes

    weights = from_bytes(agent, checkpoint).policy.state_dict()
    digest = hashlib.sha256()
    for name, tensor in sorted(weights.items()):
        digest.update(name.encode() + tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
