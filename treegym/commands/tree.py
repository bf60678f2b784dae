"""`treegym tree`: look at a token tree, check it, cut and join trees."""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from treegym.commands.actions import add_action
from treegym.display import plain, say
from treegym.errors import ConfigError, DataError

__all__ = ["ACTIONS", "configure", "run"]


def configure(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    for name, (module, summary) in ACTIONS.items():
        sub = add_action(actions, name, summary)
        if isinstance(module, str):
            implementation = importlib.import_module(module)
            implementation.configure(sub)
            sub.set_defaults(act=implementation.run)
        else:
            sub.add_argument(
                "file",
                nargs="?",
                help="a .tree file, the folder of a forest, bundled, bundled:english or synthetic:...",
            )
            sub.set_defaults(act=module)
            if name in _OPTIONS:
                _OPTIONS[name](sub)


def run(args: argparse.Namespace) -> int:
    return int(args.act(args))


def _load(args: argparse.Namespace) -> Any:
    from treegym.tree.opening import load_tree

    return load_tree(args.file)


def _stats(args: argparse.Namespace) -> int:
    from treegym.tree.editing import statistics
    from treegym.tree.forest import Forest, is_forest

    counted = Forest.open(args.file).statistics() if is_forest(args.file) else statistics(_load(args))
    if args.json:
        say(json.dumps(counted))
        return 0
    for name, value in counted.items():
        shown = ", ".join(f"{k} {_figure(v)}" for k, v in value.items()) if isinstance(value, dict) else _figure(value)
        say(f"{name.replace('_', ' '):>28}  {shown}")
    return 0


def _figure(value: Any) -> str:
    return f"{value:,.3f}" if isinstance(value, float) else f"{value:,}" if type(value) is int else str(value)


def _verify(args: argparse.Namespace) -> int:
    from treegym.tree.forest import Forest, is_forest

    tree = Forest.open(args.file) if is_forest(args.file) else _load(args)
    tree.validate()
    found = {"nodes": tree.size, "roots": tree.num_roots, "closed": tree.is_closed}
    closed = "closed" if tree.is_closed else "live: some paths have no end yet"
    say(json.dumps(found) if args.json else f"sound: {tree.num_roots:,} roots, {tree.size:,} nodes, {closed}")
    return 0


def _gather(args: argparse.Namespace) -> int:
    from treegym.tree.forest import Forest

    if args.file is None:
        raise ConfigError("tree gather makes a forest of the trees in a folder, and no folder came")
    forest = Forest.gather(args.file)
    found = {"trees": len(forest.parts), "roots": forest.num_roots, "nodes": forest.size}
    shown = f"{args.file}: {found['trees']:,} trees, {found['roots']:,} roots, {found['nodes']:,} nodes, all sound"
    say(json.dumps(found) if args.json else shown)
    return 0


def _show(args: argparse.Namespace) -> int:
    import numpy as np

    tree = _load(args)
    if not 0 <= args.root < tree.num_roots:
        raise ConfigError(f"root {args.root} is out of range; the tree has roots 0 to {tree.num_roots - 1}")
    root = tree.roots[args.root]
    if args.json:
        nodes = [int(tree.root_node[args.root])]
        for node in nodes:
            nodes.extend(int(child) for child in tree.children(node))
        entries = [
            {"node": n, "parent": int(tree.parent[n]), "text": tree.text(n), "prior": float(tree.prior[n])}
            for n in nodes
        ]
        say(json.dumps({"prompt": root.prompt, "answer": root.answer, "nodes": entries}))
        return 0
    say(f"{root.prompt}   (answer {root.answer!r}, {root.split}, {root.kind})")
    left = args.lines
    waiting = [(int(child), "", last) for child, last in _below(tree, int(tree.root_node[args.root]))]
    while waiting and left > 0:  # not by recursion: paths are longer than Python would go down
        child, indent, last = waiting.pop()
        left -= 1
        end = "end" if tree.token[child] == tree.eos_id else plain(tree.text_of([int(tree.token[child])]))
        verdict = tree.verdict[child]
        mark = "" if np.isnan(verdict) else "  correct" if verdict >= 0.5 else "  wrong"
        names = ["primary", *tree.teachers]
        who = [name for bit, name in enumerate(names) if int(tree.proposers[child]) >> bit & 1]
        say(f"{indent}{'└' if last else '├'} {end}  p={np.exp(tree.prior[child]):.3f}  {' '.join(who)}{mark}")
        waiting += [(below, indent + ("  " if last else "│ "), final) for below, final in _below(tree, child)]
    if left <= 0:
        say(f"... cut after {args.lines} lines; --lines shows more")
    return 0


def _below(tree: Any, node: int) -> list[tuple[int, bool]]:
    """Returns a node's children, the likeliest last, and whether each is drawn as the last of them."""
    children = sorted((int(child) for child in tree.children(node)), key=lambda child: tree.prior[child])
    return [(child, place == 0) for place, child in enumerate(children)]


def _show_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--root", type=int, default=0, help="which prompt (default: %(default)s)")
    parser.add_argument("--lines", type=int, default=60, help="lines to print at most (default: %(default)s)")


def _export(args: argparse.Namespace) -> int:
    from treegym.files import atomic_write
    from treegym.tree.editing import merge, select_roots
    from treegym.tree.forest import Forest, is_forest
    from treegym.tree.opening import load_tree

    if (
        is_forest(args.file)
        and args.out.endswith(".tree")
        and (args.split, args.roots, args.merge) == ("all", None, [])
    ):
        Forest.open(args.file).save(args.out)
        say(json.dumps({"out": args.out}) if args.json else f"wrote {args.out}")
        return 0
    tree = merge([load_tree(name) for name in [args.file, *args.merge]]) if args.merge else _load(args)
    if args.split != "all" or args.roots:
        tree = select_roots(tree, tree.roots_in(args.split)[: args.roots])
    out = Path(args.out)
    if not out.parent.is_dir():
        raise DataError(f"{out}: the folder {out.parent} does not exist; make it first")
    if out.suffix == ".jsonl":
        lines = []
        for node in (~(tree.verdict != tree.verdict)).nonzero()[0]:
            root = tree.roots[int(tree.root_of(node)[0])]
            entry = {"prompt": root.prompt, "text": tree.text(int(node)), "verdict": float(tree.verdict[node])}
            lines.append(json.dumps({**entry, "answer": root.answer, "kind": root.kind, "split": root.split}))
        atomic_write(out, "\n".join(lines) + "\n")
    elif out.suffix == ".tree":
        tree.save(out)
    else:
        raise ConfigError(f"--out is {args.out!r}; it must end in .tree, or in .jsonl for the texts of all ends")
    say(json.dumps({"out": str(out)}) if args.json else f"wrote {out}", file=sys.stdout)
    return 0


def _export_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", required=True, help="a .tree file, or .jsonl for the texts of all judged ends")
    parser.add_argument("--split", default="all", help="only the prompts of this split (default: %(default)s)")
    parser.add_argument("--roots", type=int, help="only the first so many prompts")
    parser.add_argument("--merge", nargs="*", default=[], metavar="FILE", help="more trees of the same vocabulary")


_OPTIONS: dict[str, Callable[[argparse.ArgumentParser], None]] = {"show": _show_options, "export": _export_options}
ACTIONS: dict[str, tuple[str | Callable[[argparse.Namespace], int], str]] = {
    "show": (_show, "print a prompt's tree with its children, priors and proposers"),
    "stats": (_stats, "print sizes, shape, shares of the teachers and correct leaves"),
    "verify": (_verify, "check every invariant of a file"),
    "gather": (_gather, "make one forest of the trees in a folder"),
    "export": (_export, "write a part of a tree, a merge of trees, or the texts of its ends"),
    "score": ("treegym.commands.tree_score", "score or rescore a tree or stored rollouts with reward terms"),
    "refresh": ("treegym.commands.tree_refresh", "recompute the primary's columns after it changed"),
    "explore": ("treegym.commands.tree_explore", "look at a tree in the browser, or export the view as one file"),
}
