"""`treegym optimize`: measure optimisations of your own torch module and keep the best one."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from treegym.errors import ConfigError

__all__ = ["configure", "run"]


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `treegym optimize`."""
    parser.add_argument("module", help="what builds your module: my_module:build, file.py:build or zoo:NAME/SIZE")
    parser.add_argument(
        "--input",
        metavar="MODULE:FUNCTION",
        help="what returns the module's arguments (of a seed, for fresh ones); default: guessed from its layers",
    )
    parser.add_argument("--task", metavar="MODULE:FUNCTION", help="a score of the module, higher is better")
    parser.add_argument(
        "--objective", metavar="NAME=WEIGHT,...", help="weights, such as speed=0.5,memory=0.3,accuracy=0.2"
    )
    parser.add_argument(
        "--max-accuracy-drop", type=float, default=0.01, metavar="SHARE", help="hard limit (default: %(default)s)"
    )
    parser.add_argument(
        "--allow-slower", action="store_true", help="let the winner be slower than the original, if it is smaller"
    )
    parser.add_argument(
        "--strategies", metavar="NAME,...", help="families or strategies to try; slow ones (compile) only by name"
    )
    parser.add_argument("--selection", default="tournament", help="tournament, roulette, rank or rl")
    parser.add_argument("--candidates", type=int, metavar="N", help="candidates to start from (default: 5 to 10)")
    parser.add_argument("--max-iterations", type=int, default=10, metavar="N", help="candidates measured at most")
    parser.add_argument("--seconds", type=float, default=2.0, metavar="S", help="time for measuring one candidate")
    parser.add_argument(
        "--processes", type=int, metavar="N", help="candidates side by side (default: a processor each)"
    )
    parser.add_argument("--timeout", type=float, default=120.0, metavar="S", help="give a candidate up after this")
    parser.add_argument("--megabytes", type=int, default=8192, metavar="MB", help="memory a candidate may take")
    parser.add_argument("--history", metavar="FILE", help="strategy history (default: in your state directory)")
    parser.add_argument("--no-history", action="store_true", help="neither use nor write the history")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="write weights, recipe, result and plot here")


def run(args: argparse.Namespace) -> int:
    """Optimises a module, prints what was found and writes the winner; 0 also where nothing beat the original."""
    from treegym.optimize.config import CoreConfig

    settings: dict[str, Any] = {
        "objective_weights": parse_objective(args.objective),
        "max_accuracy_drop": args.max_accuracy_drop,
        "allow_slower": args.allow_slower,
        "selection_strategy": args.selection,
        "num_candidates": args.candidates,
        "max_iterations": args.max_iterations,
        "seconds_per_candidate": args.seconds,
        "processes": args.processes,
        "timeout": args.timeout,
        "megabytes": args.megabytes,
        "enable_adaptive_hybrid": not args.no_history,
        "history_path": args.history,
        "seed": args.seed,
    }
    if settings["objective_weights"] is None:
        del settings["objective_weights"]
    if args.strategies:
        settings["optimization_strategies"] = tuple(name.strip() for name in args.strategies.split(","))
    config = CoreConfig.of(settings)  # wrong settings are told before anything heavy is loaded
    config.selection  # noqa: B018 (raises for switches that contradict each other)
    with contextlib.redirect_stdout(sys.stderr):  # what a user's build function prints is no result
        result, written = _optimise(args, config)
    if args.json:
        print(json.dumps({**result, "files": [str(path) for path in written]}))
        return 0
    _show(result, written)
    return 0


def _optimise(args: argparse.Namespace, config: Any) -> tuple[dict[str, Any], list[Path]]:
    from treegym.files import atomic_write
    from treegym.optimization import create_hybrid_optimization_core
    from treegym.optimize.delivery import Delivery
    from treegym.optimize.recipe import save_recipe, save_weights
    from treegym.optimize.report import as_svg
    from treegym.optimize.targets import load_function, load_module

    module, source = load_module(args.module, args.input)
    task = load_function(args.task) if args.task else None
    core = create_hybrid_optimization_core(config, task=task, progress=None if args.json else _progress)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) if args.out is None else args.out
        delivery = Delivery(folder, args.module, args.input, args.task)
        optimised, result = core.hybrid_optimize_module(module, source, delivery=delivery)
        if args.out is None:
            return result, []
        if not result["strategies"]:  # the original is kept: its weights are written, and rebuild as others do
            save_weights(folder, optimised, optimised, source(0))
        written = save_recipe(folder, target=args.module, inputs=args.input, result=result)
        atomic_write(folder / "pareto.svg", as_svg(result))
        written.append(folder / "pareto.svg")
    return result, written


def _progress(found: Any) -> None:
    m = found.measurement
    what = (
        found.reason
        if m is None
        else f"{m.speed.value:.2f}x speed, {m.memory.value:.2f}x memory, error {m.output_error:.4f}"
    )
    print(f"measured {found.candidate.name}: {what}", file=sys.stderr, flush=True)


def _show(result: dict[str, Any], written: list[Path]) -> None:
    from treegym.optimize.report import as_text, pareto_text

    print(as_text(result))
    print()
    print(pareto_text(result))
    metrics = result["performance_metrics"]
    if result["strategies"]:
        speed = metrics["speed_improvement"]
        interval = f"{speed['low']:.2f} to {speed['high']:.2f}"
        print(
            f"\n{result['selected_strategy']}: {speed['value']:.2f}x speed ({interval}), "
            f"{metrics['memory_efficiency']['value']:.2f}x memory, output error {metrics['output_error']:.5f}"
            + (f" (worst: {metrics['worst_output']})" if metrics["worst_output"] else "")
        )
        for when, (before, after) in (metrics["process_memory"] or {}).items():
            print(
                f"a fresh process grows by {after / 2**20:.0f} MB to {when} it, by {before / 2**20:.0f} MB the original"
            )
    else:
        print("\nnothing was surely better than the original within the limits: the original is kept")
    for path in written:
        print(f"wrote {path}")


def parse_objective(text: str | None) -> dict[str, float] | None:
    """Returns the weights of ``"speed=0.5,memory=0.3,accuracy=0.2"``."""
    if text is None:
        return None
    weights = {}
    for part in text.split(","):
        name, equals, value = part.partition("=")
        try:
            weights[name.strip()] = float(value)
        except ValueError:
            equals = ""
        if not equals:
            raise ConfigError(f"{part!r} is not a weight; write it like --objective speed=0.5,memory=0.3,accuracy=0.2")
    return weights
