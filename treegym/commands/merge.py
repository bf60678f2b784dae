"""`treegym merge`: several trainings of one model made one, and compared with them at once."""

from __future__ import annotations

import argparse
import json
from typing import Any

from treegym.display import say
from treegym.errors import ConfigError

__all__ = ["configure", "run"]


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    parser.add_argument(
        "models", nargs="+", help="model directories, rounds of treegym iterate, or folders of adapters of the base"
    )
    parser.add_argument("--out", required=True, metavar="FOLDER", help="where the merged model is written")
    parser.add_argument("--base", help="the model that they were trained from; slerp of two whole models needs none")
    parser.add_argument("--method", default="ties", help="ties, task_arithmetic, dare or slerp (default: %(default)s)")
    parser.add_argument(
        "--scale", type=float, default=0.5, help="of what was learned, added to the base (default: %(default)s)"
    )
    parser.add_argument(
        "--density", type=float, default=0.8, help="share of it that ties and dare keep (default: %(default)s)"
    )
    parser.add_argument("--at", type=float, default=0.5, help="slerp: 0 is the first model, 1 the second")
    parser.add_argument(
        "--evaluate", metavar="PROMPTS", help="answer these with all of them, such as bundled:test=400 or a JSONL file"
    )
    parser.add_argument("--max-tokens", type=int, default=24, help="longest answer (default: %(default)s)")


def run(args: argparse.Namespace) -> int:
    """Merges, and says how good the parts and the whole are."""
    from treegym.iterate.evaluate import load_answered
    from treegym.models.merging import MergeSettings, merge

    if args.max_tokens < 1:
        raise ConfigError(f"--max-tokens is {args.max_tokens}; it must be at least 1")
    how = MergeSettings(args.method, scale=args.scale, density=args.density, at=args.at, seed=args.seed)
    prompts = None if args.evaluate is None else load_answered(args.evaluate, seed=args.seed)
    written = merge(args.models, args.out, base=args.base, settings=how)
    told: dict[str, Any] = {"out": str(written), "method": how.method, "models": args.models, "base": args.base}
    if prompts is not None:
        names = [*([args.base] if args.base else []), *args.models, str(written)]
        told["evaluated"] = {name: _figures(name, args.base, prompts, args.max_tokens) for name in names}
    if args.json:
        say(json.dumps(told))
        return 0
    say(f"wrote {written} ({how.method} of {len(args.models)} models)")
    for name, row in told.get("evaluated", {}).items():
        kinds = ", ".join(f"{kind} {share:.2f}" for kind, share in row["by_kind"].items())
        say(f"  {row['accuracy']:.3f} ({row['low']:.3f} to {row['high']:.3f})  {name}  {kinds}")
    return 0


def _figures(name: str, base: str | None, prompts: Any, max_tokens: int) -> dict[str, Any]:
    """Returns how a model answers: one on disk, or the base with adapters."""
    from pathlib import Path

    from treegym.agents.policies.lm_parts import load_adapters
    from treegym.iterate.evaluate import evaluate_model
    from treegym.models import load_model
    from treegym.models.merging import place_of

    adapted = base is not None and (Path(name) / "adapter_config.json").is_file()
    model = load_model(place_of(str(base) if adapted else name))
    if adapted:
        load_adapters(model.model, name)
    return evaluate_model(model, prompts, max_tokens=max_tokens)
