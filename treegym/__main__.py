"""The `treegym` command: one line per subcommand, each in a module of its own that is imported when it is called."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence

import treegym
from treegym.display import plain
from treegym.errors import TreeGymError, suggest

__all__ = ["COMMANDS", "build_parser", "main"]

# name: (module with configure(parser) and run(args) -> exit code, one line of help)
COMMANDS: dict[str, tuple[str, str]] = {
    "bench": ("treegym.commands.bench", "compare agents: leaderboard, plots, HTML report"),
    "train": ("treegym.commands.train", "train one agent on one environment"),
    "league": ("treegym.commands.league", "train a population that learns from each other's failures"),
    "tune": ("treegym.commands.tune", "search for an agent's settings with Ray Tune"),
    "eval": ("treegym.commands.eval", "evaluate a checkpoint on a split, or on your own prompts"),
    "compare": (
        "treegym.commands.compare",
        "two agents or checkpoints on the same prompts: who is ahead, and how surely",
    ),
    "forge": ("treegym.commands.forge", "train the bundled tiny language models from scratch"),
    "leaderboard": ("treegym.commands.leaderboard", "verify a shared benchmark run, and add it to a leaderboard"),
    "grow": ("treegym.commands.grow", "grow a token tree with teacher models"),
    "tree": ("treegym.commands.tree", "show, verify, score, export or explore a tree"),
    "iterate": ("treegym.commands.iterate", "grow, search, reward, train the primary model, repeat"),
    "data": ("treegym.commands.data", "prompts, revisions and preferences that models make themselves"),
    "merge": ("treegym.commands.merge", "merge several trainings of one model, and evaluate what comes of it"),
    "distill": ("treegym.commands.distill", "teach a small draft to say what a model says, for speculative decoding"),
    "optimize": ("treegym.commands.optimize", "pick and apply the best optimisation for a torch module"),
    "serve": ("treegym.commands.serve", "serve a model over an OpenAI-compatible protocol"),
    "train-reward": ("treegym.commands.train_reward", "train a reward model on preference pairs"),
    "prompts": ("treegym.commands.prompts", "check prompts before training: references, duplicates, leaks, lengths"),
    "export": ("treegym.commands.export", "write walks, prompts and models in the forms that other libraries read"),
    "push": ("treegym.commands.push", "share a tree, an agent, a run or an optimisation record on a hub"),
    "pull": ("treegym.commands.pull", "bring what was shared on a hub here, checked"),
    "envs": ("treegym.commands.envs", "list the registered environments"),
    "agents": ("treegym.commands.agents", "list the registered agents"),
    "rewards": ("treegym.commands.rewards", "list the registered reward terms and terminal detectors"),
    "doctor": ("treegym.commands.doctor", "say what is installed and what is missing"),
}
INTERRUPTED, CLOSED_PIPE = 130, 141  # what shells report for Ctrl-C and for a reader that went away
# where a package comes from that a command may lack; others are named without an extra
EXTRAS = {
    "torch": "agents",
    "stable_baselines3": "agents",
    "transformers": "models",
    "httpx": "http",
    "pymoo": "selection",
    "huggingface_hub": "hub",
    "ray": "ray",
}


def build_parser(command: str | None = None) -> argparse.ArgumentParser:
    """Returns the parser; only `command`'s module is imported (all of them when it is "*", for shell completion)."""
    parser = argparse.ArgumentParser(prog="treegym", description=treegym.__doc__.splitlines()[0])
    parser.add_argument("--version", action="version", version=f"treegym {treegym.__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", title="commands")
    for name, (module, summary) in COMMANDS.items():
        sub = commands.add_parser(name, help=summary, description=summary[0].upper() + summary[1:] + ".")
        sub.add_argument("--json", action="store_true", help="print one JSON object instead of text")
        sub.add_argument("--seed", type=int, default=0, help="seed of everything random (default: %(default)s)")
        if command in (name, "*"):
            implementation = importlib.import_module(module)
            implementation.configure(sub)
            sub.set_defaults(run=implementation.run)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code: 0 success, 1 a failure in one sentence, 2 wrong usage."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    command = next((word for word in arguments if not word.startswith("-")), None)
    if command is not None and command not in COMMANDS:
        print(f"treegym: unknown command {command!r}.{suggest(command, COMMANDS)}", file=sys.stderr)
        return 2
    if "" not in sys.path:
        sys.path.append("")  # arguments may name modules that lie where the command is given
    try:
        parser = build_parser(command)
        args = parser.parse_args(arguments)
        args.words = arguments  # for commands that start themselves again
        if command is None:
            parser.print_help()
            return 0
        code = int(args.run(args))
        sys.stdout.flush()
        return code
    except TreeGymError as error:
        print(f"treegym: {plain(error)}", file=sys.stderr)
        return 1
    except ModuleNotFoundError as error:
        package = (error.name or "").split(".")[0]
        if package in ("", "treegym"):
            raise
        wanted = f"treegym[{EXTRAS[package]}]" if package in EXTRAS else package
        print(f'treegym: {command} needs the package {package!r}: pip install "{wanted}"', file=sys.stderr)
        return 1
    except BrokenPipeError:  # whoever read our output has seen enough, as in `treegym agents | head -3`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python would complain once more at its end
        return CLOSED_PIPE
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        print(plain(f"treegym: {error.strerror or error}{where}"), file=sys.stderr)
        return 1
    except MemoryError as error:
        print(f"treegym: {command} ran out of memory ({plain(error)}); what was finished is kept", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("treegym: interrupted; what was finished is kept", file=sys.stderr)
        return INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
