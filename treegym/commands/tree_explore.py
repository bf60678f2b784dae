"""`treegym tree explore`: look at a tree in the browser, or export the view as one HTML file."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from treegym.display import say
from treegym.errors import ConfigError

__all__ = ["configure", "run"]

METHODS = ("gumbel", "puct", "uct", "similarity", "ments", "rents")
WALKS = 200  # roots whose walk is computed ahead


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `treegym tree explore`."""
    parser.add_argument("file", nargs="?", help="a .tree file (default: the bundled tree), or synthetic:...")
    parser.add_argument("--export", metavar="FILE.html", help="write one HTML file instead of serving")
    parser.add_argument("--roots", type=int, nargs="+", metavar="I", help="export: which prompts to carry")
    parser.add_argument("--port", type=int, default=0, help="port on 127.0.0.1 (default: a free one)")
    parser.add_argument("--open", action="store_true", help="open the page in the browser")
    parser.add_argument("--search", choices=METHODS, help="show visits and Q of a search from every node")
    parser.add_argument("--simulations", type=int, default=64, help="simulations of the search (default: %(default)s)")
    parser.add_argument(
        "--agent", action="append", default=[], metavar="RUN.zip", help="show a checkpoint's walk; repeatable"
    )
    parser.add_argument("--algorithm", default="ppo", help="which agent the checkpoints are of (default: %(default)s)")
    parser.add_argument("--reward", help="the reward as JSON, such as '{\"verifier\": 1.0}'")


def run(args: argparse.Namespace) -> int:
    """Serves until Ctrl-C, or writes the file."""
    from treegym.explorer.page import export_page
    from treegym.explorer.server import ExplorerServer
    from treegym.explorer.view import Search, TreeView
    from treegym.files import atomic_write
    from treegym.tree.opening import load_tree

    if not 0 <= args.port < 2**16:
        raise ConfigError(f"--port is {args.port}; it must be 0 to 65535")
    world = _world(args, load_tree(args.file))
    roots = range(world.tree.num_roots) if args.roots is None else args.roots
    for root in roots:
        if not 0 <= root < world.tree.num_roots:
            raise ConfigError(f"--roots names {root}; the tree has roots 0 to {world.tree.num_roots - 1}")
    search = Search(args.search, args.simulations, args.seed) if args.search else None
    title = Path(args.file).name if args.file else "bundled tree"
    view = TreeView(world, search=search, walks=_walks(args, world.tree, list(roots)[:WALKS]), title=title)
    if args.export:
        atomic_write(args.export, export_page(view, roots=args.roots))
        say(json.dumps({"file": args.export}) if args.json else f"Wrote {args.export}")
        return 0
    with ExplorerServer(view, port=args.port) as server:
        said = (
            json.dumps({"url": server.url}) if args.json else f"Exploring {title} at\n  {server.url}\nCtrl-C ends it."
        )
        say(said, flush=True)
        if args.open:
            import webbrowser

            webbrowser.open(server.url)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            if sys.stdout.isatty():
                say()
    return 0


def _world(args: argparse.Namespace, tree: Any, max_children: int = 16) -> Any:
    from treegym.envs.token_tree.world import TreeWorld

    reward: Any = None
    if args.reward:
        try:
            reward = json.loads(args.reward)
        except (ValueError, RecursionError) as error:
            raise ConfigError(f"--reward is not JSON: {error}") from error
    widest = int(tree.child_count.max()) if tree.size else 1
    deepest = int(tree.depth.max()) if tree.size else 1
    return TreeWorld(
        tree, split="all", reward=reward, max_children=max(max_children, widest), max_tokens=max(48, deepest)
    )


def _walks(args: argparse.Namespace, tree: Any, roots: list[int]) -> list[Any]:
    if not args.agent:
        return []
    from treegym.agents.registry import AGENTS
    from treegym.explorer.walks import walks_of

    walks = []
    for path in args.agent:
        agent = AGENTS.find(args.algorithm).load(path)
        world = _world(args, tree, max_children=int(agent.action_space.n))  # as many as it learned to choose among
        _check_fits(agent, world, path)
        walks += walks_of(agent, Path(path).stem, world, roots)
    return walks


def _check_fits(agent: Any, world: Any, path: str) -> None:
    """Raises ConfigError for an agent of another environment: it could not read what it sees here."""
    seen = world.observe(world.tree.root_node[:1].astype("int64"), world.tree.root_node[:1] * 0)
    expected = getattr(agent.observation_space, "spaces", {"observations": agent.observation_space})
    for name, space in expected.items():
        if name in seen and seen[name].shape[1:] != space.shape:
            raise ConfigError(
                f"{path} was trained in another environment: its {name} have shape {space.shape}, and this tree's "
                f"have {seen[name].shape[1:]} (another number of teachers or children); explore the tree it knows"
            )
