"""`treegym tune`: search for an agent's settings with Ray Tune, on validation prompts only."""

from __future__ import annotations

import argparse
import json
import math
import shutil
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from treegym.commands.switches import parse_switches
from treegym.display import say
from treegym.errors import ConfigError, TreeGymError, require, suggest
from treegym.files import atomic_write, told_by
from treegym.scale.cluster import add_ray_options, check_room, connected, room_of

__all__ = ["configure", "run", "trial"]

SCHEDULERS = ("asha", "pbt", "none")


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `treegym tune`."""
    add = parser.add_argument
    add("agent", nargs="?", help="an agent with a space of settings, such as ppo, dapo or alphazero")
    add("--env", default="TokenTree-v0", help="environment id (default: %(default)s)")
    add("--env-arg", action="append", default=[], metavar="NAME=VALUE", help="its keyword arguments")
    add("--steps", type=int, default=20_000, help="environment steps of a trial (default: %(default)s)")
    add("--trials", type=int, default=16, help="settings to try (default: %(default)s)")
    add("--rungs", type=int, default=4, help="validations of a trial (default: %(default)s)")
    add("--scheduler", choices=SCHEDULERS, default="asha",
        help="asha ends trials that are behind, pbt lets them go on from the best with changed settings, none lets all "
             "run to their end (default: %(default)s)")  # fmt: skip
    add(
        "--replay",
        metavar="FILE",
        help="train once more as the schedule of a pbt search says; --out is the agent's file",
    )
    add(
        "--set", action="append", default=[], metavar="SWITCH=VALUE", dest="switches", help="a switch that is not tuned"
    )
    add("--out", type=Path, default=Path("tuned.toml"), help="the settings file to write (default: %(default)s)")
    add("--work", help="where trials are kept until the end, a folder that all nodes share (default: OUT.tuning)")
    add("--workers", type=int, help="trials at a time (default: as many as fit)")
    add_ray_options(parser)


def run(args: argparse.Namespace) -> int:
    """Searches, and writes what was best as a settings file that `treegym train --config` and suites take."""
    from treegym.integrations.optuna import SPACES

    if (args.agent is None) == (args.replay is None):
        raise ConfigError("name an agent to tune, or a schedule with --replay FILE")
    if args.replay is not None:
        from treegym.commands.tune_population import replay

        out = args.out if args.out.suffix == ".zip" else args.out.with_suffix(".zip")
        again = replay(args.replay, out)
        say(json.dumps(again) if args.json else f"{out}: {again['score']:.3f} on validation prompts, the same weights")
        return 0
    if args.agent not in SPACES:
        raise ConfigError(f"there is no space of settings for {args.agent!r}.{suggest(args.agent, SPACES)}")
    for name in ("steps", "trials", "rungs"):
        if getattr(args, name) < 1:
            raise ConfigError(f"--{name} is {getattr(args, name)}; it must be at least 1")
    if args.scheduler != "pbt":
        require("ray.tune", extra="tune", purpose="tuning")
        require("optuna", extra="tune", purpose="tuning")
    work = Path(args.work or f"{args.out}.tuning").absolute()
    if not args.out.absolute().parent.is_dir():
        raise ConfigError(f"{args.out.parent} is not a folder; make it first")
    told = {
        "agent": args.agent, "env": args.env, "env_args": parse_switches(args.env_arg, "--env-arg"),
        "switches": parse_switches(args.switches, "--set"), "steps": args.steps, "rungs": args.rungs, "seed": args.seed,
    }  # fmt: skip
    if args.scheduler == "pbt":
        from treegym.commands.tune_population import search

        best, spent, schedule = search(args, told, work)
        return _finish(args, told, work, best, spent=spent, schedule=str(schedule))
    room = room_of(args)
    with connected(args.ray or "local") as ray, told_by(work):
        check_room(ray, room)
        found = _search(args, told, work, room.resources())
    spent = int(sum(result["steps"] for result in found))
    failed = sum(result["score"] is None for result in found)
    return _finish(args, told, work, _best(found), spent=spent, failed=failed)


def _finish(
    args: argparse.Namespace, told: Mapping[str, Any], work: Path, best: Mapping[str, Any], *, spent: int,
    failed: int = 0, **more: str,
) -> int:  # fmt: skip
    """Writes the settings, removes what was kept for going on, and tells what came of it."""
    settings = {**told["switches"], **best["config"]}
    atomic_write(args.out, _as_toml(told, settings, score=best["score"], trials=args.trials, spent=spent))
    shutil.rmtree(work)
    told_back = {"out": str(args.out), "score": best["score"], "settings": settings, "trials": args.trials,
                 "failed": failed, "env_steps": spent, **more}  # fmt: skip
    lost = f" ({failed} failed)" if failed else ""
    say(json.dumps(told_back) if args.json else
        f"{args.out}: {best['score']:.3f} on validation prompts, the best of {args.trials} trials{lost} with "
        f"{spent:,} environment steps in all")  # fmt: skip
    return 0


def _search(args: argparse.Namespace, told: Mapping[str, Any], work: Path, resources: dict[str, float]) -> list[Any]:
    """Runs the trials, or goes on with those of a search that was interrupted."""
    from ray import tune
    from ray.tune.schedulers import AsyncHyperBandScheduler, FIFOScheduler
    from ray.tune.search.optuna import OptunaSearch

    from treegym.integrations.optuna import suggest_settings

    plan, marker = json.dumps({**told, "trials": args.trials, "scheduler": args.scheduler}), work / "plan.json"
    if marker.is_file() and json.loads(marker.read_bytes()) != json.loads(plan):
        raise ConfigError(f"{work} holds a search with other settings; finish it, remove it, or choose another --work")
    units = {"CPU": "cpu", "GPU": "gpu", "memory": "memory"}
    trainable = tune.with_resources(
        tune.with_parameters(trial, told=dict(told)), {units[name]: amount for name, amount in resources.items()}
    )
    storage = work / "trials"
    if tune.Tuner.can_restore(str(storage)):
        tuner = tune.Tuner.restore(str(storage), trainable, resume_unfinished=True, restart_errored=False)
    else:
        work.mkdir(parents=True, exist_ok=True)
        atomic_write(marker, plan)
        asha = AsyncHyperBandScheduler(time_attr="training_iteration", max_t=args.rungs, grace_period=1)
        tuner = tune.Tuner(
            trainable,
            tune_config=tune.TuneConfig(
                metric="score", mode="max", num_samples=args.trials, max_concurrent_trials=args.workers,
                search_alg=OptunaSearch(
                    space=partial(suggest_settings, agent=told["agent"]), metric="score", mode="max", seed=args.seed
                ),
                scheduler=asha if args.scheduler == "asha" else FIFOScheduler(),
            ),
            run_config=tune.RunConfig(
                name="trials", storage_path=str(work), verbose=0, callbacks=[_teller(tune, args)]
            ),
        )  # fmt: skip
    return [
        {"score": None if result.error else (result.metrics or {}).get("score"), "config": result.config or {},
         "steps": (result.metrics or {}).get("steps", 0), "error": result.error}
        for result in tuner.fit()
    ]  # fmt: skip


def _teller(tune: Any, args: argparse.Namespace) -> Any:
    """Returns what says on a terminal which trial has ended."""

    class Teller(tune.Callback):  # type: ignore[misc, name-defined] # the package is optional
        count = 0

        def on_trial_complete(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
            self.count += 1
            if sys.stderr.isatty() and not args.json:
                score = (trial.last_result or {}).get("score", math.nan)
                print(f"\r\x1b[K{self.count} of {args.trials} trials: {score:.3f}", end="", file=sys.stderr, flush=True)

    return Teller()


def trial(config: Mapping[str, Any], told: Mapping[str, Any]) -> None:
    """Trains an agent with the settings of one trial, and reports its score on validation prompts at every rung."""
    import torch
    from ray import tune
    from stable_baselines3.common.callbacks import BaseCallback

    from treegym.agents.play.evaluation import vector_world
    from treegym.agents.registry import make_agent
    from treegym.commands.validation import validation

    torch.set_num_threads(1)
    validate = validation(told["env"], told["env_args"])
    world = vector_world(told["env"], 64, **told["env_args"])
    agent = make_agent(told["agent"], world, seed=told["seed"], **told["switches"], **config)

    class Rungs(BaseCallback):
        reached = 0

        def _on_step(self) -> bool:
            due = agent.num_timesteps * told["rungs"] // told["steps"]
            if due > self.reached and self.reached < told["rungs"] - 1:  # the last is that of the finished agent
                self.reached = min(due, told["rungs"] - 1)
                tune.report({"score": validate(agent), "steps": int(agent.num_timesteps)})
            return True

    agent.learn(told["steps"], callback=Rungs())
    tune.report({"score": validate(agent), "steps": int(agent.num_timesteps)})


def _best(found: list[Any]) -> Any:
    known = [result for result in found if result["score"] is not None and math.isfinite(result["score"])]
    if not known:
        reason = next(
            (str(result["error"]).strip().splitlines()[-1] for result in found if result["error"]), "no score"
        )
        raise TreeGymError(f"none of {len(found)} trials came to an end; the first one failed: {reason}")
    return max(known, key=lambda result: result["score"])


def _as_toml(told: Mapping[str, Any], settings: Mapping[str, Any], *, score: float, trials: int, spent: int) -> str:
    """Returns the settings as a file for `treegym train --config`; what the search cost stands in its first line."""
    lines = [
        f"# {score:.4f} on validation prompts: the best of {trials} trials, {spent} environment steps in all",
        f"agent = {json.dumps(told['agent'])}",
        f"env = {json.dumps(told['env'])}",
        f"steps = {told['steps']}",
    ]
    for table, values in (("env_args", told["env_args"]), ("switches", settings)):
        lines += ["", f"[{table}]", *(f"{name} = {_value(value)}" for name, value in sorted(values.items()))]
    return "\n".join(lines) + "\n"


def _value(value: Any) -> str:
    """Returns a JSON value as TOML has it: the same but for tables."""
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{json.dumps(name)} = {_value(part)}" for name, part in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(map(_value, value)) + "]"
    return json.dumps(value)
