"""`treegym iterate`: rounds of collecting, rewarding, training and evaluating the primary model."""

from __future__ import annotations

import argparse
import json
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

from treegym.commands.prompting import unescaped
from treegym.display import say
from treegym.scale.cluster import add_ray_options

__all__ = ["configure", "run"]

_FLAGS: dict[str, tuple[Any, str]] = {
    "rounds": (int, "rounds in all"),
    "algorithm": (str, "ppo, dapo, vapo; dpo, ipo, simpo (preferences); or expert (search, then imitate)"),
    "model": (str, "the primary to begin with: a bundled name or a directory"),
    "ground": (str, "tree: choose among children; text: every token may follow (default: tree for expert, else text)"),
    "anchor": (float, "on trees, for ppo, dapo and vapo: how hard probability is kept on the children"),
    "tree": (str, "a .tree file (default: the bundled tree; for expert, trees grown anew each round)"),
    "growth": (str, "how trees are grown: answers (an answer of each teacher), step, mixed, or samples"),
    "steps": (int, "tokens per round, for all but expert"),
    "simulations": (int, "simulations a token, for expert"),
    "epochs": (int, "passes over what search found, for expert"),
    "learning-rate": (float, "of all but expert"),
    "prompts": (str, "picked each round to write after or grow trees over, such as bundled:train=2000 or a JSONL file"),
    "actors": (int, "shares that episodes are collected in; the run's bytes depend on it (default: 1)"),
    "curriculum": (str, "middle or sample: practise on prompts that the primary answers right now and then"),
    "prompts-each": (int, "so many of them in a round, drawn anew (default: all)"),
    "evaluate": (str, "held-out prompts, answered without a tree"),
    "evaluate-between": (int, "so many of them after rounds before the last (default: all)"),
    "max-tokens": (int, "longest answer"),
    "format": (str, "how prompts are put: raw, few-shot:FILE, chat, chat:FILE, auto (default)"),
    "system": (str, "the instruction in chat form; an empty text is none"),
    "template": (unescaped, "what a prompt is put into, such as 'Q: {prompt}\\nA:'"),
    "between": (unescaped, "what stands between prompt and answer"),
    "extract": (unescaped, "how the answer is found in a text, as in treegym eval"),
}

_OTHERS = ("grow", "seed", "stops", "cut_counts")


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", default="runs/iterate", help="the folder of the run (default: %(default)s)")
    # every command has a --seed of 0; here a file's stands where none is given
    seeds = parser.add_argument_group(conflict_handler="resolve")
    seeds.add_argument("--seed", type=int, help="seed of everything random (default: the file's, or 0)")
    parser.add_argument("--config", help="a TOML file of settings; flags override it")
    for name, (kind, text) in _FLAGS.items():
        parser.add_argument(f"--{name}", type=kind, help=text)
    parser.add_argument(
        "--stop", dest="stops", action="append", type=unescaped, help="a string at which an answer is over (repeatable)"
    )
    parser.add_argument(
        "--cut-counts",
        action=argparse.BooleanOptionalAction,
        help="answers cut at the limit of tokens may be right too",
    )
    parser.add_argument("--track", metavar="NAME", help="a tracker of runs: trackio, wandb, mlflow or tensorboard")
    parser.add_argument(
        "--grow", action=argparse.BooleanOptionalAction, help="grow a tree over fresh prompts in every round"
    )
    parser.add_argument("--workers", type=int, help="on a cluster: workers at most (default: as many as fit)")
    add_ray_options(parser)


def run(args: argparse.Namespace) -> int:
    from treegym.integrations.trackers import open_tracker
    from treegym.iterate.loop import iterate
    from treegym.iterate.settings import load_settings
    from treegym.scale.rollouts import staff_for

    changes = {name.replace("-", "_"): getattr(args, name.replace("-", "_")) for name in [*_FLAGS, *_OTHERS]}
    settings = load_settings(args.config, changes)
    if settings.warning:
        say(f"note: {settings.warning}", file=sys.stderr)
    if not args.json:
        say(f"{'round':>5} {'reward':>8} {'accuracy':>9} {'interval':>15} {'reference':>10} {'entropy':>8}  chosen by")
    told = {key: getattr(settings, key) for key in ("algorithm", "model", "seed") if hasattr(settings, key)}
    tracker = open_tracker(args.track, run=Path(args.out).name, folder=args.out, config=told)

    def report(row: dict[str, Any]) -> None:
        tracker.log(row["round"], row)
        if not args.json:
            _print_row(row)

    with closing(tracker), staff_for(args) as staff:
        rows = iterate(settings, args.out, report=report, staff=staff)
    if args.json:
        say(json.dumps({"out": args.out, "rounds": rows}))
    return 0


def _print_row(row: dict[str, Any]) -> None:
    unknown = "unknown" if row["round"] else ""
    reward = unknown if row["reward"] is None else f"{row['reward']:.3f}"
    shares = ", ".join(f"{name} {share:.0%}" for name, share in row.get("chosen_by", {}).items())
    interval = f"{row['low']:.3f} to {row['high']:.3f}"
    figures = f"{row['round']:>5} {reward:>8} {row['accuracy']:>9.3f} {interval:>15} {row['reference_share']:>10.0%}"
    entropy = f"{row['teacher_entropy']:.3f}" if row.get("chosen_by") else ""
    say(f"{figures} {entropy:>8}  {shares}", flush=True)
    if row.get("note"):
        say(f"note: round {row['round']}: {row['note']}", file=sys.stderr, flush=True)
