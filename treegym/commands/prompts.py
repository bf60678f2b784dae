"""`treegym prompts check`: whether prompts are fit to train on and to compare with."""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Callable
from typing import Any

from treegym.display import say

__all__ = ["check", "configure", "run"]

SHOWN = 5  # examples of a problem
REFUSED, DUPLICATES, LEAKS, LONG, EMPTY = (
    "references that the verifier refuses", "prompts that come twice", "prompts in several splits",
    "prompts longer than --max-prompt-tokens", "prompts without an answer",
)  # fmt: skip


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    parser.add_argument(
        "action", choices=("check",), help="check: references, duplicates, leaks between splits, lengths"
    )
    parser.add_argument("source", help="as for --prompts: a JSONL, CSV or Parquet file, hf:user/name#..., bundled, ...")
    parser.add_argument("--model", help="count tokens under this model's tokenizer")
    parser.add_argument(
        "--max-prompt-tokens", type=int, default=1024, help="longest prompt, with --model (default: 1024)"
    )


def run(args: argparse.Namespace) -> int:
    """Prints what was found; exit code 1 when something is wrong."""
    from treegym.envs.token_tree.prompts import load_prompts

    encode = None
    if args.model is not None:
        from treegym.models.loading import load_model

        encode = load_model(args.model, device="cpu").tokenizer.encode
    found = check(load_prompts(args.source, seed=args.seed), encode=encode, longest=args.max_prompt_tokens)
    if args.json:
        say(json.dumps(found))
        return int(bool(found["problems"]))
    say(f"prompts: {found['prompts']:,} ({', '.join(f'{name} {count:,}' for name, count in found['splits'].items())})")
    if found["tokens"]:
        say(f"tokens per prompt: {found['tokens']['mean']:.1f} on average, {found['tokens']['most']} at most")
    for what, (count, examples) in found["problems"].items():
        say(f"{count:,} {what}: {'; '.join(examples)}")
    kinds = len(found["problems"])
    say("nothing is wrong" if not kinds else f"{kinds} kind{'s' if kinds > 1 else ''} of problem")
    return int(bool(found["problems"]))


def check(prompts: Any, *, encode: Callable[[str], list[int]] | None = None, longest: int = 1024) -> dict[str, Any]:
    """Returns counts, and what is wrong with examples of it.

    A reference is right if the verifier accepts it as an answer, said alone or after a "="; a worked reference counts.
    """
    wrong: dict[str, list[str]] = {what: [] for what in (REFUSED, DUPLICATES, LEAKS, LONG, EMPTY)}
    splits_of: dict[str, set[str]] = {}
    seen: Counter[tuple[str, str]] = Counter()
    lengths = []
    for root in prompts.roots:
        shown = root.prompt[:60].replace("\n", " ")
        seen[root.prompt, root.split] += 1
        splits_of.setdefault(root.prompt, set()).add(root.split)
        if not root.answer:
            wrong[EMPTY].append(shown)
        elif not any(prompts.verify(root, text) >= 0.5 for text in (root.answer, f"={root.answer}.")):
            wrong[REFUSED].append(f"{shown} -> {root.answer[:40]}")
        if encode is not None:
            lengths.append(len(encode(root.prompt)))
            if lengths[-1] > longest:
                wrong[LONG].append(shown)
    wrong[DUPLICATES] = [prompt[:60] for (prompt, _), count in seen.items() if count > 1]
    wrong[LEAKS] = [prompt[:60] for prompt, splits in splits_of.items() if len(splits) > 1]
    return {
        "prompts": len(prompts.roots),
        "splits": dict(Counter(root.split for root in prompts.roots)),
        "tokens": {"mean": sum(lengths) / len(lengths), "most": max(lengths)} if lengths else None,
        "problems": {what: (len(cases), cases[:SHOWN]) for what, cases in wrong.items() if cases},
    }
