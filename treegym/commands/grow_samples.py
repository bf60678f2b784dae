"""`treegym grow --mode samples` and `--mode forks`: the options that say what is sampled."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from treegym.envs.token_tree.grow.sample_settings import SampleSettings

__all__ = ["MODES", "configure", "settings_of"]

MODES = ("samples", "forks")


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the options of sampled trees."""
    group = parser.add_argument_group("sampling, with --mode samples or --mode forks")
    group.add_argument("--samples", type=int, default=16, help="texts per prompt and model (default: %(default)s)")
    group.add_argument("--temperature", type=float, default=1.0, help="above 0 (default: %(default)s)")
    group.add_argument("--top-p", type=float, default=1.0, help="sample from the likeliest with so much probability")
    group.add_argument("--top-k", type=int, default=0, help="sample from the k likeliest tokens (default: all)")
    group.add_argument("--fork-at", default="surprise", help="surprise, entropy, boundary or random")
    group.add_argument("--forks", type=int, default=2, help="places per text and round; 0: all (default: %(default)s)")
    group.add_argument("--completions", type=int, default=1, help="texts per fork (default: %(default)s)")
    group.add_argument("--rounds", type=int, default=1, help="rounds of forking (default: %(default)s)")
    group.add_argument("--segment", type=int, default=0, help="tokens between boundaries (default: lines, sentences)")
    group.add_argument("--policy-version", default="0", help="what the tree calls this version of the policy")


def settings_of(args: argparse.Namespace, *, max_tokens: int) -> SampleSettings:
    """Returns what the options ask for."""
    from treegym.envs.token_tree.grow.sample_settings import SampleSettings

    return SampleSettings(
        mode=args.mode,
        samples=args.samples,
        temperature=args.temperature,
        top_p=args.top_p,
        top_k=args.top_k,
        fork_at=args.fork_at,
        rounds=args.rounds,
        forks=args.forks,
        completions=args.completions,
        segment=args.segment,
        version=args.policy_version,
        max_tokens=max_tokens,
        shard=args.shard,
        seed=args.seed,
    )
