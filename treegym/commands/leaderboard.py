"""`treegym leaderboard`: verify a shared benchmark run, and add its agents to a board, from a folder or a hub."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from treegym.errors import ConfigError

__all__ = ["configure", "run"]


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    parser.add_argument(
        "action", choices=("verify", "submit"), help="recompute everything; submit: and add it to a board"
    )
    parser.add_argument("run_folder", metavar="RUN", help="a result folder, or hf:user/name")
    parser.add_argument("board", nargs="?", metavar="BOARD", help="submit: the leaderboard's file (.json)")
    parser.add_argument("--by", default="anonymous", help="submit: who hands the results in")
    parser.add_argument("--rerun", type=int, default=0, metavar="N", help="verify: repeat N runs and compare them")
    parser.add_argument("--no-replay", action="store_true", help="verify: do not look episodes up in their trees")
    parser.add_argument("--trust", action="store_true", help="import modules and ask servers that the folder names")


def run(args: argparse.Namespace) -> int:
    """Does what `treegym bench verify` and `submit` do; a run on a hub is fetched for it and not kept."""
    from treegym.commands import bench

    if (args.action == "submit") != (args.board is not None):
        raise ConfigError("submit takes a run and a board's file, verify a run alone; see treegym leaderboard --help")
    with _here(args.run_folder) as folder:
        args.paths = [str(folder), *([args.board] if args.board else [])]
        return (bench.verify_run if args.action == "verify" else bench.submit_run)(args)


@contextmanager
def _here(run: str) -> Iterator[Path]:
    """Yields the folder of a run, fetched and checked where it lies on a hub."""
    from treegym.hub import is_hub_name, look_up

    if not is_hub_name(run):
        yield Path(run)
        return
    from treegym.sharing.pull import pull

    with tempfile.TemporaryDirectory(prefix="treegym-board-") as folder:
        yield pull(look_up(run, kind="bench"), Path(folder))
