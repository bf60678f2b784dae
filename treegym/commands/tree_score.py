"""`treegym tree score`: score or rescore a stored tree, or stored rollouts, offline."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

from treegym.commands.rewards import parse_reward
from treegym.display import say
from treegym.errors import ConfigError

__all__ = ["configure", "run"]

STORABLE = ("judge", "verdict", "ends")


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `treegym tree score`."""
    parser.add_argument("file", nargs="?", help="a .tree file (default: the bundled tree), or synthetic:...")
    parser.add_argument(
        "--reward", default='{"verifier": 1.0}', help="JSON text, a .json or .toml file, or a term's name"
    )
    parser.add_argument("--terminal", default="stored", help="JSON text or a name: where episodes end (%(default)s)")
    parser.add_argument("--split", default="all", help="train, validation, test or all (default: %(default)s)")
    parser.add_argument("--report-ends", action="store_true", help="say how well the terminal detector finds true ends")
    parser.add_argument(
        "--store",
        choices=STORABLE,
        help="write the reward's single term into this column of the tree, or the detected ends into its flags",
    )
    parser.add_argument(
        "--out", help="the tree or JSONL file to write (default with --store: the tree, replaced at once)"
    )
    parser.add_argument("--rollouts", help="score this JSONL file (prompt, text, ...) instead of a tree")


def run(args: argparse.Namespace) -> int:
    """Scores and prints a summary; writes what was asked for."""
    _check_out(args)
    figures = _rollouts(args) if args.rollouts else _tree(args)
    if args.json:
        say(json.dumps(figures))
        return 0
    for name, value in figures.items():
        if isinstance(value, dict):
            say(name)
            for key, inner in value.items():
                shown = ", ".join(f"{k} {_figure(v)}" for k, v in inner.items()) if isinstance(inner, dict) else inner
                say(f"  {key:<20} {_figure(shown)}")
        else:
            say(f"{name:<22} {_figure(value)}")
    return 0


def _figure(value: Any) -> str:
    return f"{value:.4f}" if isinstance(value, float) else f"{value:,}" if type(value) is int else str(value)


def _tree(args: argparse.Namespace) -> dict[str, Any]:
    from treegym.rewards import build_terminal
    from treegym.rewards.table import FAILED
    from treegym.rewards.terminal.detection_report import detection_report
    from treegym.tree.opening import load_tree
    from treegym.tree.paths import ancestors, path_sums

    reward = parse_reward(args.reward)
    terminal = build_terminal(_parse_terminal(args.terminal))
    tree = load_tree(args.file)
    if args.report_ends:
        return detection_report(terminal, tree)
    if args.store == "ends":
        return _store_ends(tree, terminal, args)
    if args.store and len(reward.names) != 1:
        raise ConfigError(f"--store {args.store} needs a reward of one term; {', '.join(reward.names)} came")
    decisions = terminal.decisions(tree)
    ends = np.nonzero(decisions(np.arange(tree.size)))[0]
    wanted = ends[np.isin(tree.root_of(ends), tree.roots_in(args.split))]
    source = tree
    if args.store:  # the column reads as unknown, so that the term scores anew instead of reading it back
        source = tree.with_column(args.store, np.full(tree.size, np.nan, np.float32))
    table = reward.on(source, ends=decisions, truncated=terminal.truncates(tree))
    above = ancestors(tree, wanted)
    table.ensure(above)
    at = np.searchsorted(above, wanted)
    scored = np.where(np.isnan(table.terms[above]) & (table.weights != 0.0), np.nan, 0.0).sum(axis=1)
    returns = path_sums(tree, above, table.total[above] + scored)[at]  # NaN where something failed on the way
    figures: dict[str, Any] = {
        "ends": len(wanted),
        "unscored": int(np.isnan(returns).sum()),
        "mean_reward": _mean(returns),
        "terms": {},
    }
    verdict = tree.verdict[wanted]
    for column, name in enumerate(table.names):
        values = path_sums(tree, above, table.terms[above, column].astype(np.float64))[at]
        figures["terms"][name] = {
            "weight": float(table.weights[column]),
            "mean": _mean(values),
            "mean_if_right": _mean(values[verdict >= 0.5]),
            "mean_if_wrong": _mean(values[verdict < 0.5]),
            "failed": table.failures[name],
        }
    if args.store:
        tree.make_writable()
        kept = np.where(table.status[wanted, 0] == FAILED, np.nan, table.terms[wanted, 0])  # a default is no opinion
        tree.column(args.store)[wanted] = kept
        out = args.out or args.file
        tree.save(out)
        figures["out"] = str(out)
    return figures


def _store_ends(tree: Any, terminal: Any, args: argparse.Namespace) -> dict[str, Any]:
    """Marks where the terminal detector ends texts, so that ``terminal="stored"`` need not ask it again."""
    decisions = terminal.decisions(tree)
    ends = int(decisions(np.arange(tree.size)).sum())
    tree.make_writable()
    new = decisions.store(tree.flags)
    tree.save(args.out or args.file)
    return {"ends": ends, "new_ends": new, "out": str(args.out or args.file)}


def _check_out(args: argparse.Namespace) -> None:
    """Refuses places that cannot be written to before anything is scored: judges cost money."""
    if args.rollouts and (args.store or args.report_ends or args.file):
        raise ConfigError("--rollouts is scored instead of a tree; leave the tree, --store and --report-ends out")
    out = args.out or (args.file if args.store else None)
    if args.store and (out is None or str(out).startswith("synthetic")):
        raise ConfigError("--store needs --out for the bundled or a synthetic tree")
    if args.out and not args.store and not args.rollouts:
        raise ConfigError("--out goes with --store or --rollouts; scoring a tree prints figures only")
    if out is not None and not Path(out).resolve().parent.is_dir():
        raise ConfigError(f"--out is {str(out)!r}, but the folder {Path(out).parent} does not exist; make it first")


def _mean(values: np.ndarray) -> float | None:
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if len(finite) else None


def _parse_terminal(text: str) -> Any:
    if not text.lstrip().startswith(("{", "[", '"')):
        return text
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"the terminal detector is not valid JSON: {error}") from error


def _rollouts(args: argparse.Namespace) -> dict[str, Any]:
    from treegym.files import atomic_write
    from treegym.rewards.rollouts import read_rollouts, score_rollouts

    reward = parse_reward(args.reward)
    scored = score_rollouts(reward, list(read_rollouts(args.rollouts)))
    failed = {name: sum(name in record["reward_failed"] for record in scored) for name in reward.names}
    rewards = np.array([record["reward"] for record in scored], np.float64)  # null becomes NaN
    figures: dict[str, Any] = {
        "rollouts": len(scored),
        "unscored": int(np.isnan(rewards).sum()),
        "mean_reward": _mean(rewards),
        "failed": failed,
    }
    if args.out:
        atomic_write(args.out, "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in scored))
        figures["out"] = str(args.out)
    return figures
