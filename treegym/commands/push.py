"""`treegym push`: put a tree, an agent, a run or an optimisation record on a hub."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from treegym.display import say

__all__ = ["configure", "run"]


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    parser.add_argument("path", type=Path, help="a .tree file, a checkpoint, a run folder, an optimisation record")
    parser.add_argument("name", metavar="user/name", help="the repository; user/name@BRANCH for another branch")
    parser.add_argument("--private", action="store_true", help="if the repository is made: only you see it")
    parser.add_argument(
        "--licence", "--license", metavar="NAME", help="a licence's short name for the card, such as mit"
    )
    parser.add_argument("--message", help="of the commit")
    parser.add_argument("--dry-run", action="store_true", help="check, show the card and the files, send nothing")


def run(args: argparse.Namespace) -> int:
    """Checks, describes and sends; prints the commit."""
    from treegym.hub import parse
    from treegym.sharing.push import pack, push

    name = parse(args.name)
    parcel = pack(args.path, name, licence=args.licence)
    commit = None if args.dry_run else push(parcel, name, private=args.private, message=args.message)
    if args.json:
        told = {"name": name.repo, "commit": commit, "size": parcel.size, "left_out": parcel.left_out}
        say(json.dumps({**told, "manifest": parcel.manifest}))
        return 0
    if args.dry_run:
        say(parcel.card)
    for file, entry in parcel.manifest["files"].items():
        say(f"{entry['size']:>14,}  {file}")
    if parcel.left_out:
        say(f"left out: {', '.join(parcel.left_out)}")
    say(f"{parcel.size:,} bytes" + (f" at hf:{name.repo}@{commit}" if commit else ", not sent"))
    return 0
