"""`treegym league`: a population of agents that learn from each other's failures, here or on a cluster."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from treegym.commands.switches import parse_switches
from treegym.display import say
from treegym.errors import ConfigError, DataError, require
from treegym.files import atomic_write, told_by
from treegym.iterate.shares import Staff, local_staff
from treegym.league import League, Member, Rules
from treegym.locks import LOCK, held
from treegym.scale.cluster import add_ray_options
from treegym.scale.rollouts import staff_for
from treegym.untrusted import read_json

__all__ = ["configure", "play", "run", "trainer"]

STATE, CHAMPION = "league.json", "champion.zip"


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `treegym league`."""
    add = parser.add_argument
    add("agent", nargs="?", default="dapo", help="what all of them are (default: %(default)s)")
    add("--env-arg", action="append", default=[], metavar="NAME=VALUE", help="of TokenTree-v0, such as tree=FILE")
    add("--set", action="append", default=[], metavar="SWITCH=VALUE", dest="switches", help="a switch of the agents")
    usual = Rules()
    add("--mains", type=int, default=usual.mains, help="main agents (default: %(default)s)")
    add("--exploiters", type=int, default=usual.exploiters, help="trained where mains fail (default: %(default)s)")
    add("--generations", type=int, default=usual.generations, help="how often all are trained (default: %(default)s)")
    add("--steps", type=int, default=usual.steps, help="of one agent in one generation (default: %(default)s)")
    add("--share", type=float, default=usual.share, help="prompts practised in a generation (default: %(default)s)")
    add("--promotion", type=float, default=usual.promotion, help="win rate that promotes (default: %(default)s)")
    add("--out", type=Path, default=Path("runs/league"), help="the folder of the league (default: %(default)s)")
    add("--workers", type=int, help="on a cluster: workers at most (default: as many as fit)")
    add_ray_options(parser)


def run(args: argparse.Namespace) -> int:
    """Plays the league, or goes on with it, and tells the ratings."""
    require("openskill", extra="league", purpose="rating a league")
    names = ("mains", "exploiters", "generations", "steps", "share", "promotion", "seed")
    rules = Rules(**{name: getattr(args, name) for name in names})
    setup = {
        "agent": args.agent, "env_args": parse_switches(args.env_arg, "--env-arg"),
        "switches": parse_switches(args.switches, "--set"), "steps": rules.steps,
        "total": rules.generations * rules.steps,
    }  # fmt: skip
    with told_by(args.out):
        args.out.mkdir(parents=True, exist_ok=True)
    with held(args.out / LOCK, what=f"the folder {args.out}"), staff_for(args) as staff:
        league = play(rules, setup, args.out, staff=staff, report=None if args.json else _tell)
    told = _told(league, args.out)
    if args.json:
        say(json.dumps(told))
        return 0
    say(f"{'agent':<16} {'validation':>10} {'rating':>8} {'+-':>6}")
    for name, row in told["members"].items():
        say(f"{name:<16} {row['validation']:>10.3f} {row['mu']:>8.2f} {row['sigma']:>6.2f}")
    say(f"{args.out / CHAMPION}: {told['champion']}, after {league.steps:,} environment steps of all")
    return 0


def play(
    rules: Rules,
    setup: Mapping[str, Any],
    out: Path,
    *,
    staff: Staff = local_staff,
    report: Callable[[League], None] | None = None,
) -> League:
    """Plays the generations that are missing in a folder, and returns the league.

    Args:
        rules: of the league.
        setup: the agents: agent, env_args, switches, steps of a generation, and in total, for their schedules.
        out: the folder; agents are written there, one file for each and generation.
        staff: who trains them.
        report: is told the league after each generation.
    """
    league = _resumed(rules, setup, out)
    prompts = _prompts(setup["env_args"])
    while league.generation < rules.generations:
        jobs = [
            {**job, "checkpoint": (out / job["file"]).read_bytes() if job["file"] else None}
            for job in league.jobs(prompts)
        ]
        with staff("treegym.commands.league:trainer", dict(setup)) as do:
            answers = do(jobs, None)
        trained = []
        for job, answer in zip(jobs, answers, strict=True):
            file = f"{job['name']}-{league.generation}.zip"
            atomic_write(out / file, answer["checkpoint"])
            trained.append(Member(job["name"], file, answer["train"], answer["validation"]))
        league.take(trained, sum(answer["steps"] for answer in answers))
        atomic_write(out / STATE, json.dumps({"setup": dict(setup), "league": league.as_json()}))
        if report is not None:
            report(league)
    with told_by(out / CHAMPION):
        shutil.copyfile(out / league.best().file, out / CHAMPION)
    return league


def _resumed(rules: Rules, setup: Mapping[str, Any], out: Path) -> League:
    """Returns the league in a folder, which must be of the same rules, or a new one."""
    file = out / STATE
    if not file.is_file():
        return League(rules)
    told = read_json(file)
    try:
        league = League.of(told["league"])
        before = told["setup"]
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"{file} holds no league ({error}); remove it to begin anew, or choose another --out"
        ) from error
    if league.rules != rules or before != json.loads(json.dumps(dict(setup))):
        raise ConfigError(f"{out} holds a league with other settings; finish it, or choose another --out")
    return league


def trainer(setup: Mapping[str, Any]) -> Callable[[tuple[Mapping[str, Any], None]], dict[str, Any]]:
    """Returns what trains one agent for one generation, and says how it then does on every prompt."""
    import torch

    from treegym.tree.opening import load_tree

    torch.set_num_threads(1)
    tree = load_tree(setup["env_args"].get("tree"))
    rest = {name: value for name, value in setup["env_args"].items() if name != "tree"}
    ends = {split: _player(tree, rest, split) for split in ("train", "validation")}

    def train(told: tuple[Mapping[str, Any], None]) -> dict[str, Any]:
        import gymnasium as gym

        from treegym.agents.pieces import piece
        from treegym.tree.editing import select_roots

        job, _ = told
        chosen = tree.roots_in("train")[job["prompts"]]
        env = gym.make_vec(
            "TokenTree-v0", num_envs=64, tree=select_roots(tree, chosen), autoreset_mode="Disabled", **rest
        )
        agent, made = piece(
            setup["agent"], env, job["checkpoint"], seed=job["seed"], new=setup["switches"], changed={},
            steps=setup["steps"], total=setup["total"],
        )  # fmt: skip
        return {**made, **{split: play_all(agent) for split, play_all in ends.items()}}

    return train


def _player(tree: Any, env_args: Mapping[str, Any], split: str) -> Callable[[Any], list[float]]:
    import numpy as np

    from treegym.agents.play.evaluation import play_roots, vector_world

    world = vector_world("TokenTree-v0", 64, tree=tree, split=split, **env_args)

    def score(agent: Any) -> list[float]:
        found = play_roots(agent, world)
        scores: list[float] = np.round(np.where(np.isnan(found.success), found.returns, found.success), 6).tolist()
        return scores

    return score


def _prompts(env_args: Mapping[str, Any]) -> int:
    """Returns how many training prompts there are; checks that agents can be validated, too."""
    from treegym.tree.opening import load_tree

    if "split" in env_args or "curriculum" in env_args:
        raise ConfigError("the league chooses prompts itself; leave split and curriculum out of --env-arg")
    tree = load_tree(env_args.get("tree"))
    for split in ("train", "validation"):
        if not len(tree.roots_in(split)):
            raise ConfigError(f"the tree has no {split} prompts, which a league needs")
    return len(tree.roots_in("train"))


def _told(league: League, out: Path) -> dict[str, Any]:
    """Returns the members with their ratings (openskill's Plackett-Luce, each validation prompt a match)."""
    import numpy as np

    from treegym.bench.rating import rate

    everyone = league.members()
    scores = {one.name: np.asarray([one.validation]) for one in everyone}
    ratings = rate({"league": scores}, seed=league.rules.seed)
    rows = {
        one.name: {"validation": float(np.mean(one.validation)), **ratings.get(one.name, {"mu": 25.0, "sigma": 25 / 3})}
        for one in sorted(everyone, key=lambda one: -ratings.get(one.name, {"mu": 25.0})["mu"])
    }
    return {"champion": league.best().name, "members": rows, "env_steps": league.steps, "log": league.log,
            "out": str(out)}  # fmt: skip


def _tell(league: League) -> None:
    import numpy as np

    scores = ", ".join(f"{one.name} {np.mean(one.validation):.3f}" for one in [*league.mains, *league.exploiters])
    say(f"generation {league.generation - 1}: {scores}", file=sys.stderr, flush=True)
