"""A draft distilled from its target: how often it is accepted, and the target's CPU time over the pair's.

A bundled teacher of three layers is the target, its draft has one. Five seeds of the distillation; for comparison the
same layer without any teaching, and the target's own time. With `--model smollm2` (`make real`) the target is
SmolLM2-135M, 30 layers, on the bundled prompts of English.
"""

from __future__ import annotations

import argparse
from typing import Any

import torch
from common import emit, mean_interval, table

from treegym.commands.distill import measured
from treegym.envs.token_tree.prompts import load_prompts
from treegym.models import load_model
from treegym.models.local.distilling import DistilSettings, distil, thinned
from treegym.models.local.transformers_model import TransformersModel
from treegym.models.tokens.prompt_format import PromptFormat

HELD_OUT = 24


def main() -> None:
    """Prints one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one seed of a few steps; figures are rough")
    parser.add_argument("--model", default="tiny-llama", help="the target (default: %(default)s)")
    parser.add_argument("--prompts", default="bundled", help="what it is asked (default: %(default)s)")
    parser.add_argument("--layers", type=int, help="of the draft (default: a third)")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--seeds", type=int, default=5)
    args = parser.parse_args()
    torch.set_num_threads(1)
    target = load_model(args.model, dtype="float32", device="cpu")
    prompts = load_prompts(args.prompts)
    begin = PromptFormat().begin(target)
    asked = {split: [begin(r.prompt) for r in prompts.roots if r.split == split] for split in ("train", "test")}
    held_out = asked["test"][:HELD_OUT]
    rows: list[dict[str, Any]] = []
    for seed in range(1 if args.quick else args.seeds):
        settings = DistilSettings(layers=args.layers, steps=5 if args.quick else args.steps, seed=seed)
        draft = distil(target, asked["train"], settings)
        rows.append({"seed": seed, **measured(draft, target, held_out, max_tokens=24, seed=seed)})
    cut = TransformersModel(thinned(target, args.layers), target.tokenizer, name="cut")
    untaught = measured(cut, target, held_out, max_tokens=24, seed=0)
    figures: dict[str, Any] = {"target": args.model, "untaught": untaught, "seeds": rows}
    for name in ("acceptance", "tokens_per_pass", "speed"):
        figures[name] = mean_interval([row[name] for row in rows])
    print(table(rows))
    emit("distilled_draft", figures)


if __name__ == "__main__":
    main()
