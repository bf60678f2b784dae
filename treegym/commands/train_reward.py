"""`treegym train-reward`: train a reward model on preference pairs with the Bradley-Terry loss."""

from __future__ import annotations

import argparse
import json
from typing import Any

from treegym.display import say
from treegym.errors import ConfigError

__all__ = ["configure", "run"]

SOURCES = ("tree", "judge", "pairs")
_HELP = """\
pairs come from
  tree     right against wrong answers of a tree's training prompts (the default)
  judge    answers of a tree's training prompts, ordered by a judge (RLAIF); the tree's verdicts are not looked at
  pairs    a JSONL file with prompt, chosen and rejected on each line

A run that was killed goes on from its last checkpoint when the same command is given again.
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `treegym train-reward`."""
    parser.epilog = _HELP
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--out", required=True, help="the folder for the reward model")
    parser.add_argument(
        "--model", default="tiny-primary", help="the language model it stands on (default: %(default)s)"
    )
    parser.add_argument("--from", dest="source", default="tree", choices=SOURCES, help="where pairs come from")
    parser.add_argument("--tree", help="a .tree file (default: the bundled tree)")
    parser.add_argument("--split", default="train", help="prompts to make pairs of (default: %(default)s)")
    parser.add_argument("--pairs", help="a JSONL file of pairs")
    parser.add_argument("--judge", default='{"judge": 1.0}', help="the judge, as a reward of one judge term")
    parser.add_argument("--margin", type=float, default=0.1, help="least difference of the judge's scores")
    parser.add_argument("--per-root", type=int, default=8, help="most pairs a prompt (default: %(default)s)")
    parser.add_argument("--train", default="head", choices=("head", "full"), help="what learns (default: %(default)s)")
    parser.add_argument("--epochs", type=int, default=20, help="passes over the pairs (default: %(default)s)")
    parser.add_argument("--batch", type=int, default=64, help="pairs a step (default: %(default)s)")
    parser.add_argument("--learning-rate", type=float, help="default: 1e-2 for the head, 3e-4 for the whole model")
    parser.add_argument("--suffix", help="text read after each answer, such as '?' (default: the end token)")
    parser.add_argument(
        "--held-out", type=float, default=0.1, help="share of prompts kept apart (default: %(default)s)"
    )
    parser.add_argument("--device", help="cpu, cuda, cuda:N (default: cuda when there is one)")


def run(args: argparse.Namespace) -> int:
    """Makes pairs, trains, and says how accurate the model is on prompts it has not seen."""
    from treegym.errors import require

    require("torch", extra="models", purpose="training a reward model")
    from treegym.models.loading import load_model
    from treegym.rewards.learned.preference_training import TrainingSettings, train_reward_model

    if (args.source == "pairs") != (args.pairs is not None):
        raise ConfigError("--from pairs and --pairs FILE go together")
    settings = TrainingSettings(
        train=args.train,
        epochs=args.epochs,
        batch=args.batch,
        learning_rate=args.learning_rate,
        held_out=args.held_out,
        seed=args.seed,
        suffix=args.suffix,
    )
    pairs, failed = _pairs(args)
    model = train_reward_model(load_model(args.model, device=args.device), pairs, args.out, settings=settings)
    facts = {**model.facts, "out": args.out, "judge_failures": failed}
    if args.json:
        say(json.dumps(facts))
        return 0
    held_out = facts["held_out_accuracy"]
    say(f"{args.out}: trained on {facts['pairs']:,} pairs; accuracy {facts['training_accuracy']:.3f}", end="")
    if held_out is not None:
        say(f", on {facts['held_out_pairs']:,} pairs of other prompts {held_out:.3f}", end="")
    say(f"; the judge failed on {failed} answers" if failed else "")
    return 0


def _pairs(args: argparse.Namespace) -> tuple[list[Any], int]:
    from treegym.rewards.learned.preference import pairs_from_judge, pairs_from_tree, read_pairs

    if args.source == "pairs":
        return read_pairs(args.pairs), 0
    from treegym.tree.opening import load_tree

    tree = load_tree(args.tree)
    roots = tree.roots_in(args.split).tolist()
    if args.source == "tree":
        return pairs_from_tree(tree, roots=roots, per_root=args.per_root, seed=args.seed), 0
    from treegym.commands.rewards import parse_reward
    from treegym.rewards.judge.term import Judge

    terms = parse_reward(args.judge).part.terms()
    if len(terms) != 1 or not isinstance(terms[0], Judge):
        raise ConfigError(f"--judge is {args.judge!r}; a reward of one judge term was expected")
    return pairs_from_judge(tree, terms[0], roots=roots, per_root=args.per_root, margin=args.margin, seed=args.seed)
