"""`treegym bench`: run a suite, and what one does with results: compare, verify, submit, report."""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from treegym.display import say
from treegym.errors import ConfigError, TreeGymError
from treegym.scale.cluster import add_ray_options

__all__ = ["configure", "run", "submit_run", "verify_run"]

ACTIONS = ("run", "list", "report", "compare", "verify", "submit", "export", "merge")
_HELP = """\
actions:
  run                 run the suite (the default; runs that are finished in --out are kept, and a folder that is
                      there already is extended by the suite's new agents and seeds)
  list                list the bundled suites
  report DIR          make the report of a result folder again
  compare A B         compare two result folders, with significance
  verify DIR          recompute everything in a result folder from its raw episodes
  submit DIR FILE     verify a result folder and add its agents to a shared leaderboard file
  merge A B ... OUT   join result folders of one suite with different agents or seeds into a new one
  export DIR FILE     write every episode of training and evaluation into one Parquet file

examples:
  treegym bench                                  the quick suite into runs/bench
  treegym bench --suite full --out runs/full
  treegym bench --suite my.toml --seeds 0 1 2
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `treegym bench`."""
    parser.epilog = _HELP
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("action", nargs="?", default="run", choices=ACTIONS, metavar="ACTION", help="see below")
    parser.add_argument("paths", nargs="*", metavar="PATH", help="what the action works on")
    parser.add_argument("--suite", default="quick", help="a bundled suite or a TOML file (default: %(default)s)")
    parser.add_argument("--out", default="runs/bench", help="result folder (default: %(default)s)")
    parser.add_argument("--seeds", type=int, nargs="+", help="training seeds to use instead of the suite's")
    parser.add_argument("--track", metavar="NAME", help="a tracker of runs: trackio, wandb, mlflow or tensorboard")
    parser.add_argument("--workers", type=int, help="worker processes (default: one per core, of a cluster too)")
    parser.add_argument("--by", default="anonymous", help="submit: who hands the results in")
    parser.add_argument("--rerun", type=int, default=0, metavar="N", help="verify: repeat N runs and compare them")
    parser.add_argument(
        "--trust", action="store_true", help="verify, submit: import modules and ask servers that the folder names"
    )
    add_ray_options(parser)
    parser.add_argument("--no-replay", action="store_true", help="verify: do not look episodes up in their trees")


def run(args: argparse.Namespace) -> int:
    """Runs the chosen action; exit code 0 means all runs finished, or all checks passed."""
    wanted = {"compare": 2, "submit": 2, "export": 2, "verify": 1, "report": 1}.get(args.action, 0)
    if args.action == "merge" and len(args.paths) < 3:
        raise ConfigError(f"bench merge takes two folders at least and a new one, and {len(args.paths)} paths came")
    if len(args.paths) != wanted and args.action != "merge":
        what = {0: "no path", 1: "one result folder", 2: "two paths"}[wanted]
        raise ConfigError(f"bench {args.action} takes {what}, and {len(args.paths)} came; see treegym bench --help")
    action: dict[str, Any] = {
        "run": _run, "list": _list, "report": _report, "compare": _compare, "verify": verify_run, "submit": submit_run,
        "export": _export, "merge": _merge,
    }  # fmt: skip
    try:
        return int(action[args.action](args))
    except BrokenPipeError:
        raise  # whoever read our output has seen enough: nothing failed
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        said = str(error) if isinstance(error, TreeGymError) else f"{error.strerror or error}{where}"
        kept = "" if "are kept" in said else "; finished runs are kept"
        raise TreeGymError(f"{said}{kept}") from error


def _run(args: argparse.Namespace) -> int:
    from treegym.bench.leaderboard import leaderboard_of
    from treegym.bench.report import write_report
    from treegym.bench.report.tables import as_text
    from treegym.bench.runner import check_names, run_suite
    from treegym.bench.suite import load_suite
    from treegym.integrations.trackers import open_tracker

    suite = load_suite(args.suite, seeds=args.seeds)
    check_names(suite)
    progress = _Progress(total=len(suite.jobs()), quiet=args.json)
    # beside the result folder, which holds nothing that is not of the suite
    tracker = open_tracker(args.track, run=suite.name, folder=f"{args.out}.tracked", config={"suite": suite.name})

    def finished(job: Any, answer: dict[str, Any]) -> None:
        progress(job, answer)
        tracker.log(progress.count, {f"{job.env.name}/{job.agent.name}/score": answer.get("score", math.nan)})

    with closing(tracker):
        outcome = run_suite(suite, args.out, workers=args.workers, progress=finished, doing=_on_cluster(args))
    for line in _failures(outcome.failed):
        say(f"treegym bench: {line}", file=sys.stderr)
    if outcome.finished + outcome.kept == 0:
        raise TreeGymError(
            "no run finished, so there is no leaderboard; see the worker-*.log files in the result folder"
        )
    board = leaderboard_of(args.out, seed=args.seed)
    paths = write_report(board, args.out)
    if args.json:
        say(json.dumps({**board, "failed": outcome.failed, "files": [str(path) for path in paths]}))
    else:
        say(f"\n{as_text(board)}\n\nReport: {paths[-1]}")
    return 0 if outcome.complete else 1


def _on_cluster(args: argparse.Namespace) -> Any:
    """Returns what does the runs on a cluster; None where they are done here."""
    if args.ray is None:
        return None
    from treegym.scale.runs import on_cluster

    return on_cluster(args)


def _failures(failed: Mapping[str, str]) -> list[str]:
    """Returns a sentence for every reason, however many runs it cost."""
    jobs: dict[str, list[str]] = {}
    for job, reason in failed.items():
        jobs.setdefault(reason, []).append(job)
    return [
        f"run {names[0]} failed: {reason}"
        if len(names) == 1
        else f"{len(names)} runs ({names[0]}, ...) failed: {reason}"
        for reason, names in jobs.items()
    ]


class _Progress:
    """A line for each finished run, on a terminal only; a pipe stays silent."""

    def __init__(self, *, total: int, quiet: bool) -> None:
        self.total, self.count = total, 0
        self.shown = sys.stderr.isatty() and not quiet
        self.start = time.monotonic()

    def __call__(self, job: Any, answer: dict[str, Any]) -> None:
        self.count += 1
        if self.shown:
            what = "failed" if "error" in answer else f"score {answer['score']:.3f}"
            spent = time.monotonic() - self.start
            print(
                f"\r\x1b[K[{spent:4.0f} s] {self.count} done of at most {self.total}: "
                f"{job.env.name} / {job.agent.name} / seed {job.seed}: {what}",
                end="" if self.count < self.total else "\n",
                file=sys.stderr,
                flush=True,
            )


def _list(args: argparse.Namespace) -> int:
    from treegym.bench.suite import bundled_suites

    suites = bundled_suites()
    say(json.dumps(suites) if args.json else "\n".join(f"{name:<10} {about}" for name, about in suites.items()))
    return 0


def _report(args: argparse.Namespace) -> int:
    from treegym.bench.leaderboard import leaderboard_of
    from treegym.bench.report import write_report
    from treegym.bench.report.tables import as_text

    board = leaderboard_of(args.paths[0], seed=args.seed)
    paths = write_report(board, args.paths[0])
    say(json.dumps(board) if args.json else f"{as_text(board)}\n\nReport: {paths[-1]}")
    return 0


def _compare(args: argparse.Namespace) -> int:
    from treegym.bench.compare import compare, comparison_text

    result = compare(args.paths[0], args.paths[1], seed=args.seed)
    say(json.dumps(result) if args.json else comparison_text(result))
    return 0


def verify_run(args: argparse.Namespace) -> int:
    from treegym.bench.verify import verify

    if args.rerun < 0:
        raise ConfigError(f"--rerun is {args.rerun}; it must be at least 0")
    found = verify(args.paths[0], replay=not args.no_replay, rerun=args.rerun, seed=args.seed, trust=args.trust)
    if args.json:
        say(json.dumps(found.as_json()))
    else:
        for problem in found.problems[:20]:
            say(f"treegym bench verify: {problem}", file=sys.stderr)
        state = "sound" if found.sound else f"{len(found.problems)} problems"
        say(
            f"{found.runs} runs, {found.episodes} episodes, {found.replayed} of them looked up in their trees, "
            f"{found.rerun} runs repeated: {state}"
        )
        for note in found.notes:
            say(f"Note: {note}")
    return 0 if found.sound else 1


def submit_run(args: argparse.Namespace) -> int:
    from treegym.bench.verify import submit

    count = submit(args.paths[0], Path(args.paths[1]), by=args.by, seed=args.seed, trust=args.trust)
    say(json.dumps({"entries": count}) if args.json else f"{args.paths[1]} now has {count} entries")
    return 0


def _merge(args: argparse.Namespace) -> int:
    from treegym.bench.leaderboard import leaderboard_of
    from treegym.bench.report import write_report
    from treegym.bench.results import merge

    *sources, target = args.paths
    count = merge(sources, target)
    paths = write_report(leaderboard_of(target, seed=args.seed), target)
    say(json.dumps({"runs": count, "files": [str(p) for p in paths]}) if args.json else f"{target} has {count} runs")
    return 0


def _export(args: argparse.Namespace) -> int:
    from treegym.bench.export import export_parquet

    count = export_parquet(args.paths[0], args.paths[1])
    say(json.dumps({"episodes": count}) if args.json else f"{args.paths[1]} holds {count:,} episodes")
    return 0
