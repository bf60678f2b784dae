"""`treegym data constitution`: answers criticised and revised by principles; pairs of revision over answer."""

from __future__ import annotations

import argparse
from collections import Counter

from treegym.commands import data

__all__ = ["configure", "run"]


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the command's flags."""
    data.configure_pairs(parser)
    parser.add_argument("--principles", required=True, metavar="FILE", help="the constitution: a principle per line")
    parser.add_argument("--temperature", type=float, default=0.0, help="of everything written (default: %(default)s)")
    parser.add_argument(
        "--judge",
        metavar="REWARD",
        help="a judge that confirms revisions, as a reward of one judge term; the principles are its rubric",
    )


def run(args: argparse.Namespace) -> int:
    """Writes the pairs, and beside them what was not confirmed."""
    from treegym.synthesis.constitution import constitution, read_principles

    principles = read_principles(args.principles)
    prompts = data.prompts_of(args.prompts, args, limit=args.limit)
    judge = data.judge_of(args.judge, principles) if args.judge else None
    with data.writing(args) as (output, writer):
        pairs, apart = constitution(
            prompts.roots,
            writer,
            principles,
            judge=judge,
            pairwise=judge is not None and judge.mode == "pairwise",
            temperature=args.temperature,
            margin=args.margin,
            seed=args.seed,
        )
        output.finish(pairs, apart=apart)
        because = dict(Counter(row["why"] for row in apart))
        return data.tell(args, writer, {"pairs": len(pairs), "apart": len(apart), "apart_because": because})
