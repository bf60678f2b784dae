"""`treegym pull`: bring what somebody shared onto this machine."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from treegym.display import plain, say

__all__ = ["configure", "run"]


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    parser.add_argument("name", metavar="user/name", help="the repository; user/name@REVISION pins a tag or a commit")
    parser.add_argument("--out", type=Path, default=Path(), metavar="FOLDER", help="where to (default: here)")
    parser.add_argument("--overwrite", action="store_true", help="replace what is there")
    parser.add_argument("--dry-run", action="store_true", help="say what it is and how large, fetch nothing")


def run(args: argparse.Namespace) -> int:
    """Says what is there and how large it is, then fetches, checks and places it."""
    from treegym.hub import look_up
    from treegym.sharing.pull import place_of, pull

    shared = look_up(args.name)
    listing = sys.stderr if args.json else sys.stdout
    for file, (size, _) in shared.files.items():
        say(f"{size:>14,}  {plain(file)}", file=listing)
    say(f"{shared.name.repo}: {shared.kind}, {shared.size:,} bytes, commit {shared.commit}", file=listing, flush=True)
    place = place_of(shared, args.out) if args.dry_run else pull(shared, args.out, overwrite=args.overwrite)
    if args.json:
        told = {"name": shared.name.repo, "kind": shared.kind, "commit": shared.commit, "size": shared.size}
        say(json.dumps({**told, "path": None if args.dry_run else str(place)}))
    else:
        say("nothing fetched" if args.dry_run else f"checked; it lies at {place}")
    return 0
