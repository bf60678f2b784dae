"""`treegym distill`: a small draft of a model, taught to say what it says, for speculative decoding."""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

from treegym.display import say
from treegym.errors import ConfigError

__all__ = ["configure", "run"]

SHOWN = 32  # prompts on which the draft is measured
EVERY = 20  # steps between lines of progress


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the options."""
    parser.add_argument("target", help="the model to draft for: a bundled name, a directory, owner/model")
    parser.add_argument("--out", required=True, help="the draft's directory, as `treegym grow --draft` takes it")
    parser.add_argument("--prompts", default="bundled", help="what the target is asked (default: %(default)s)")
    parser.add_argument("--layers", type=int, help="layers that the draft keeps (default: a third)")
    parser.add_argument("--steps", type=int, default=300, help="(default: %(default)s)")
    parser.add_argument("--batch", type=int, default=16, help="texts of a step (default: %(default)s)")
    parser.add_argument("--max-tokens", type=int, default=24, help="of a text (default: %(default)s)")
    parser.add_argument("--temperature", type=float, default=1.0, help="of the target's texts (default: %(default)s)")
    parser.add_argument("--learning-rate", type=float, default=1e-3, help="(default: %(default)s)")
    parser.add_argument("--threads", type=int, default=1, help="(default: %(default)s)")


def run(args: argparse.Namespace) -> int:
    """Teaches the draft, writes it, and says what it is good for: how often it is right, and how much time it saves."""
    import torch

    from treegym.envs.token_tree.prompts import load_prompts
    from treegym.models import load_model
    from treegym.models.local.distilling import DistilSettings, distil
    from treegym.models.local.saving import save_model
    from treegym.models.tokens.prompt_format import PromptFormat

    if args.threads < 1:
        raise ConfigError(f"--threads is {args.threads}; it must be at least 1")
    torch.set_num_threads(args.threads)
    settings = DistilSettings(
        layers=args.layers,
        steps=args.steps,
        batch=args.batch,
        max_tokens=args.max_tokens,
        temperature=args.temperature,
        learning_rate=args.learning_rate,
        seed=args.seed,
    )
    target = load_model(args.target, dtype="float32", device="cpu")
    prompts = load_prompts(args.prompts, seed=args.seed)
    begin = PromptFormat().begin(target)
    asked = {split: [begin(r.prompt) for r in prompts.roots if r.split == split] for split in ("train", "test")}
    learned = asked["train"] or asked["test"]
    held_out = (asked["test"] or learned)[:SHOWN]
    draft = distil(target, learned, settings, report=None if args.json else _progress(args.steps))
    save_model(draft.model, draft.tokenizer, Path(args.out))
    told = {"out": args.out, **measured(draft, target, held_out, max_tokens=args.max_tokens, seed=args.seed)}
    say(json.dumps(told) if args.json else _sentence(told))
    return 0


def _progress(steps: int) -> Any:
    def report(step: int, loss: float) -> None:
        if step % EVERY == 0 or step == steps:
            print(f"step {step} of {steps}: divergence {loss:.3f}", file=sys.stderr, flush=True)

    return report


def measured(draft: Any, target: Any, prompts: list[Any], *, max_tokens: int, seed: int) -> dict[str, float]:
    """Returns acceptance, tokens per pass, and the target's CPU time over the pair's, one text at a time."""
    from treegym.models.local.distilling import speculation
    from treegym.models.local.speculative import SpeculativeModel

    sampling = {"max_new_tokens": max_tokens, "temperature": 1.0}
    told = speculation(draft, target, prompts, seed=seed, **sampling)
    spent = {"target": 0.0, "pair": 0.0}
    models = {"target": target, "pair": SpeculativeModel(draft, target)}
    for number, prompt in enumerate(prompts):  # by turns: what else the machine does slows both
        for name in models:
            start = time.process_time()
            models[name].generate([prompt], seed=seed + number, **sampling)
            spent[name] += time.process_time() - start
    return {**told, "speed": spent["target"] / max(spent["pair"], 1e-9)}


def _sentence(told: dict[str, Any]) -> str:
    return (
        f"{told['out']}: {told['acceptance']:.1%} of its proposals are accepted on held-out prompts, "
        f"{told['tokens_per_pass']:.2f} tokens per pass of the target; {told['speed']:.2f} times the target's speed"
    )
