"""`treegym tree refresh`: recompute the primary's columns of a tree after the primary changed."""

from __future__ import annotations

import argparse
import json
import time

from treegym.display import say

__all__ = ["configure", "run"]


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("tree", help="the .tree file")
    parser.add_argument("--primary", default="tiny-primary", help="the primary as it is now (default: %(default)s)")
    parser.add_argument("--out", help="the file to write (default: the same file, replaced at once)")
    parser.add_argument("--device", help="cpu, cuda, cuda:N (default: cuda when there is one)")


def run(args: argparse.Namespace) -> int:
    from treegym.envs.token_tree.grow.refresh import refresh
    from treegym.models.loading import load_model
    from treegym.tree.token_tree import TokenTree

    tree = TokenTree.open(args.tree)
    model = load_model(args.primary, device=args.device)
    start = time.perf_counter()
    refresh(tree, model)
    out = args.out or args.tree
    tree.save(out)
    figures = {"out": str(out), "nodes": tree.size, "primary": model.name, "seconds": time.perf_counter() - start}
    say(json.dumps(figures) if args.json else f"{out}: {tree.size:,} nodes refreshed from {model.name}")
    return 0
