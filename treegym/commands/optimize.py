"""`treegym optimize`: measure optimisations of your own torch module and keep the best one."""

from __future__ import annotations

import argparse
import contextlib
import functools
import json
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from treegym.display import say
from treegym.errors import ConfigError, StorageError, TreeGymError
from treegym.files import atomic_write, told_by
from treegym.locks import LOCK, held
from treegym.scale.cluster import add_ray_options

if TYPE_CHECKING:
    from treegym.optimize.config import CoreConfig
    from treegym.optimize.core import HybridOptimizationCore
    from treegym.optimize.hardware import Kind
    from treegym.optimize.trials import Elsewhere, Evaluated

__all__ = ["configure", "run"]

_STAGING = ".optimize."


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `treegym optimize`."""
    parser.add_argument(
        "module",
        nargs="*",
        help="what builds your module: my_module:build, file.py:build or zoo:NAME/SIZE; or: merge CACHE CACHE...",
    )
    parser.add_argument(
        "--registry", metavar="MODULE:NAME", help="a mapping of names to build functions: all of them, one by one"
    )
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
    parser.add_argument("--selection", default="tournament", help="tournament, roulette, rank, rl or optuna")
    parser.add_argument("--candidates", type=int, metavar="N", help="candidates to start from (default: 5 to 10)")
    parser.add_argument("--max-iterations", type=int, default=10, metavar="N", help="candidates measured at most")
    parser.add_argument(
        "--seconds", "--budget", type=float, metavar="S", help="time for all of it: what is best by then is kept"
    )
    parser.add_argument("--measure", type=float, default=2.0, metavar="S", help="time for measuring one candidate")
    parser.add_argument(
        "--processes", type=int, metavar="N", help="candidates side by side (default: a processor each)"
    )
    parser.add_argument("--timeout", type=float, default=120.0, metavar="S", help="give a candidate up after this")
    parser.add_argument("--megabytes", type=int, default=8192, metavar="MB", help="memory a candidate may take")
    parser.add_argument("--history", metavar="FILE", help="strategy history (default: in your state directory)")
    parser.add_argument("--no-history", action="store_true", help="neither use nor write the history")
    parser.add_argument(
        "--cache", metavar="FILE", help="take measurements made before from here, put new ones here (see merge)"
    )
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="write weights, recipe, result and plot here")
    parser.add_argument(
        "--export", metavar="KIND", help="write the winner as onnx, openvino or pt2, too; only what can be is tried"
    )
    parser.add_argument("--workers", type=int, help="on a cluster: workers at most (default: as many as fit)")
    add_ray_options(parser)


def run(args: argparse.Namespace) -> int:
    """Optimises a module, prints what was found and writes the winner; 0 also where nothing beat the original."""
    if args.module[:1] == ["merge"] and len(args.module) > 2:
        return _merge([Path(name) for name in args.module[1:]])
    if len(args.module) + (args.registry is not None) != 1:
        raise ConfigError("name one module (my_module:build), or several with --registry my_package:registry")
    config = _config(args)  # wrong settings are told before anything heavy is loaded
    if args.ray is not None:
        from treegym.commands.optimize_cluster import run_on_cluster

        return run_on_cluster(args, config, optimise=_optimise, show=_show)
    if args.registry is not None:
        return _run_registry(args, config)
    with contextlib.redirect_stdout(sys.stderr):  # what a user's build function prints is not the result
        result, written = _optimise(args, config, args.module[0], args.out)
    if args.json:
        say(json.dumps({**result, "files": [str(path) for path in written]}))
        return 0
    _show(result, written)
    return 0


def _merge(paths: list[Path]) -> int:
    """Puts the measurements of several files into the first."""
    from treegym.optimize.cache import merge

    say(f"{paths[0]} holds {merge(paths[0], paths[1:])} measurements now")
    return 0


def _run_registry(args: argparse.Namespace, config: Any) -> int:
    """Optimises the modules of a registry one after the other; one that fails is told, the others go on."""
    from treegym.optimize.report import summary
    from treegym.optimize.targets import registry_targets

    results: dict[str, dict[str, Any]] = {}
    for name, target in registry_targets(args.registry).items():
        out = None if args.out is None else args.out / name
        try:
            with contextlib.redirect_stdout(sys.stderr):
                results[name], _ = _optimise(args, config, target, out)
        except TreeGymError as error:
            results[name] = {"selected_strategy": "original", "error": str(error)}
        if not args.json:
            found = results[name]
            say(f"{name}: {found['error'] if 'error' in found else summary(found)}", flush=True)
    if args.json:
        say(json.dumps(results))
    return int(any("error" in result for result in results.values()))


def _config(args: argparse.Namespace) -> CoreConfig:
    from treegym.optimize.config import CoreConfig

    settings: dict[str, Any] = {
        "max_accuracy_drop": args.max_accuracy_drop,
        "allow_slower": args.allow_slower,
        "selection_strategy": args.selection,
        "num_candidates": args.candidates,
        "max_iterations": args.max_iterations,
        "time_budget": args.seconds,
        "seconds_per_candidate": args.measure,
        "processes": args.processes,
        "timeout": args.timeout,
        "megabytes": args.megabytes,
        "enable_adaptive_hybrid": not args.no_history,
        "history_path": args.history,
        "cache_path": args.cache,
        "seed": args.seed,
    }
    if args.objective is not None:
        settings["objective_weights"] = parse_objective(args.objective)
    if args.strategies:
        settings["optimization_strategies"] = tuple(name.strip() for name in args.strategies.split(","))
    if args.export is not None:
        if args.out is None:
            raise ConfigError("--export came without --out; name the folder that the file goes to")
        settings["optimization_strategies"] = _deliverable(args.export, settings.get("optimization_strategies"))
    config = CoreConfig.of(settings)
    config.selection  # noqa: B018 (raises for switches that contradict each other)
    return config


def _deliverable(export: str, asked: Sequence[str] | None) -> tuple[str, ...]:
    """Returns the strategies to try for a file of a kind."""
    from treegym.optimize.config import UNASKED
    from treegym.optimize.exports import exportable
    from treegym.optimize.generate import BY_NAME
    from treegym.optimize.strategies import expand

    names = [name for name in expand(asked or UNASKED) if name not in BY_NAME or name in (asked or ())]
    kept = tuple(exportable(names, export))
    if not kept:
        raise ConfigError(f"nothing that {', '.join(names)} give can be written as {export}; name other strategies")
    return kept


def _optimise(
    args: argparse.Namespace,
    config: CoreConfig,
    target: str,
    out: Path | None,
    *,
    elsewhere: Elsewhere | None = None,
    machine: Kind | None = None,
) -> tuple[dict[str, Any], list[Path]]:
    """Optimises a module and writes the winner; its candidates are measured here, or on machines of a kind."""
    from treegym.optimization import create_hybrid_optimization_core
    from treegym.optimize import worker
    from treegym.optimize.delivery import Delivery
    from treegym.optimize.exports import write_export
    from treegym.optimize.placing import put_in_place
    from treegym.optimize.recipe import RECIPE, save_recipe, save_weights
    from treegym.optimize.report import as_svg
    from treegym.optimize.strategies.base import Given
    from treegym.optimize.targets import load_function, load_module

    module, source = load_module(target, args.input)
    task = load_function(args.task) if args.task else None
    core = create_hybrid_optimization_core(config, task=task)
    core.elsewhere, core.machine = elsewhere, machine
    core.progress = None if args.json else _Progress(core)
    with _place(out) as folder:
        delivery = Delivery(folder, target, args.input, args.task)
        try:
            optimised, result = core.hybrid_optimize_module(module, source, delivery=delivery)
            if out is None:
                return result, []
            if not result["strategies"]:  # the original is kept: its weights are written, and rebuild as others do
                save_weights(folder, optimised, optimised, source(0))
            elif elsewhere is not None:  # nobody here judged the winner by its files, so nobody wrote them
                _save_winner(folder, module, optimised, source(0))
            save_recipe(folder, target=target, inputs=args.input, result=result)
            atomic_write(folder / "pareto.svg", as_svg(result))
            if args.export is not None:
                work = functools.partial(write_export, folder, args.export, optimised, source(0), Given(source))
                outcome = worker.run(lambda: {"files": [str(path) for path in work()]}, fork=worker.can_fork(module))
                if outcome.result is None:
                    raise ConfigError(f"the winner could not be written for {args.export}: {outcome.reason}")
            with told_by(out):
                return result, put_in_place(folder, out, first=RECIPE)
        except StorageError as error:
            where = folder if out is None else out  # the user knows no other name
            kept = "" if out is None else "; what was there before is kept"
            raise StorageError(f"{where} could not be written: {error.strerror}{kept}", error.errno) from error


def _save_winner(folder: Path, original: Any, optimised: Any, sample: Any) -> None:
    """Writes the tensors of the winner or, where they cannot be stored, those it is made of."""
    from treegym.optimize.recipe import save_weights
    from treegym.optimize.stored import Unstorable

    try:
        save_weights(folder, original, optimised, sample)
    except Unstorable:
        save_weights(folder, original, optimised, sample, holds="original")


@contextlib.contextmanager
def _place(out: Path | None) -> Iterator[Path]:
    """Yields a folder to write in; beside what is in `out` already, which nobody else may use meanwhile."""
    from treegym.optimize.placing import finish
    from treegym.optimize.recipe import RECIPE

    with contextlib.ExitStack() as stack:
        if out is not None:
            with told_by(out):
                out.mkdir(parents=True, exist_ok=True)
                stack.enter_context(held(out / LOCK, what=f"the folder {out}"))
                finish(out, first=RECIPE)
                for left in out.glob(f"{_STAGING}*.tmp"):  # by a run that was killed
                    shutil.rmtree(left)
        with told_by(out or tempfile.gettempdir()):
            staging = tempfile.TemporaryDirectory(prefix=_STAGING, suffix=".tmp", dir=out)
        yield Path(stack.enter_context(staging))


class _Progress:
    """Tells what was measured, and what is best so far."""

    def __init__(self, core: HybridOptimizationCore) -> None:
        self.core, self.best = core, (1.0, "the original")

    def __call__(self, found: Evaluated) -> None:
        m, name = found.measurement, found.candidate.name
        if m is None:
            what = found.reason
        else:
            what = f"{m.speed.value:.2f}x speed, {m.memory.value:.2f}x memory, error {m.output_error:.4f}"
            what += f", built in {m.build_seconds:.1f} s"
            if self.core.trials is not None and self.core.trials.allowed(found):
                self.best = max(self.best, (m.speed.value, name))
        say(f"measured {name}: {what}", file=sys.stderr)
        say(f"  fastest within the limits so far: {self.best[1]}, {self.best[0]:.2f}x", file=sys.stderr, flush=True)


def _show(result: dict[str, Any], written: list[Path]) -> None:
    """Prints what was found."""
    from treegym.optimize.report import as_text, pareto_text, summary

    say(as_text(result))
    say()
    say(pareto_text(result))
    say()
    say(summary(result))
    for when, (before, after) in (result["performance_metrics"]["process_memory"] or {}).items():
        say(f"a fresh process grows by {after / 2**20:.0f} MB to {when} it, by {before / 2**20:.0f} MB the original")
    for path in written:
        say(f"wrote {path}")


def parse_objective(text: str) -> dict[str, float]:
    """Returns the weights of ``"speed=0.5,memory=0.3,accuracy=0.2"``."""
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
