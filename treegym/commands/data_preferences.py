"""`treegym data preferences`: two answers to every prompt, compared by a judge in both orders (RLAIF)."""

from __future__ import annotations

import argparse
from collections import Counter

from treegym.commands import data
from treegym.errors import ConfigError

__all__ = ["configure", "run"]

VERIFIER = "verifier"


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the command's flags."""
    data.configure_pairs(parser)
    parser.add_argument(
        "--temperatures", nargs=2, type=float, default=(0.3, 1.0), help="of the two answers (default: 0.3 1.0)"
    )
    parser.add_argument(
        "--judge",
        default='{"judge": 1.0}',
        metavar="REWARD",
        help="a reward of one judge term, or verifier: right over wrong (default: the bundled judge)",
    )
    parser.add_argument(
        "--principles", metavar="FILE", help="a constitution as the judge's rubric, a principle per line"
    )


def run(args: argparse.Namespace) -> int:
    """Writes the pairs, and beside them ties, disagreements and failures."""
    from treegym.synthesis.constitution import read_principles
    from treegym.synthesis.preferences import Compares, Verified, preferences

    prompts = data.prompts_of(args.prompts, args, limit=args.limit)
    principles = read_principles(args.principles) if args.principles else []
    judge: Compares
    if args.judge == VERIFIER:
        if principles:
            raise ConfigError("--principles are for a judge; the verifier knows right from wrong only")
        judge, pairwise = Verified(prompts.roots, prompts.verify), True
    else:
        judge = term = data.judge_of(args.judge, principles)
        pairwise = term.mode == "pairwise"
    with data.writing(args) as (output, writer):
        pairs, apart = preferences(
            prompts.roots,
            writer,
            judge,
            temperatures=(args.temperatures[0], args.temperatures[1]),
            pairwise=pairwise,
            margin=args.margin,
            seed=args.seed,
        )
        output.finish(pairs, apart=apart)
        because = dict(Counter(row["why"] for row in apart))
        return data.tell(args, writer, {"pairs": len(pairs), "apart": len(apart), "apart_because": because})
