"""`treegym optimize --ray`: a module optimised for every kind of machine that a cluster has, one after another."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from treegym.display import say
from treegym.errors import ConfigError
from treegym.optimize.config import CoreConfig
from treegym.optimize.fitness import weights_of
from treegym.optimize.targets import load_module
from treegym.optimize.tracker import default_path
from treegym.scale.cluster import connected, room_of
from treegym.scale.measuring import Kinds, config_of, on_kind

__all__ = ["run_on_cluster"]


def run_on_cluster(
    args: argparse.Namespace,
    config: CoreConfig,
    *,
    optimise: Callable[..., tuple[dict[str, Any], list[Path]]],
    show: Callable[[dict[str, Any], list[Path]], None],
) -> int:
    """Searches once for each kind of machine, and says what to take on each.

    Args:
        args: of the command.
        config: of the search.
        optimise: searches for one kind, as on one machine.
        show: prints what was found.
    """
    if args.registry is not None:
        raise ConfigError("--registry and --ray do not go together yet; give the modules one by one")
    target: str = args.module[0]
    with contextlib.redirect_stdout(sys.stderr):
        module, _ = load_module(target, args.input)
    several = config.enable_multi_objective_optimization
    setup = {
        "target": target, "inputs": args.input, "task": args.task, "state": module.state_dict(),
        "config": config_of(config),
        "weights": weights_of(config.objective_weights if several else {"speed": 1.0}),
    }  # fmt: skip
    room = room_of(args)
    found: dict[str, dict[str, Any]] = {}
    with connected(args.ray) as ray:
        kinds = Kinds(ray, room)
        crew = {"room": room, "workers": args.workers, "patience": args.patience}
        for kind in kinds.all():
            workers = min(kinds.workers(kind), args.workers or sys.maxsize)
            history = Path(config.history_path or default_path())
            own = replace(
                config, processes=workers, history_path=str(history.with_name(f"{history.stem}-{kind.slug}.json"))
            )
            out = None if args.out is None else args.out / kind.slug
            say(f"on {kind}, {workers} workers", file=sys.stderr)
            with on_kind(ray, kinds, kind, setup, crew) as elsewhere, contextlib.redirect_stdout(sys.stderr):
                result, written = optimise(args, own, target, out, elsewhere=elsewhere, machine=kind)
            found[str(kind)] = {**result, "files": [str(path) for path in written]}
            if not args.json:
                say(f"\n{kind}:\n")
                show(result, written)
    if args.json:
        say(json.dumps({"machines": found}))
    return 0
