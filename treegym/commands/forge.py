"""`treegym forge`: train the bundled tiny language models, or those that see, from scratch."""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

from treegym.display import say
from treegym.errors import require

__all__ = ["configure", "run"]


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the options."""
    parser.add_argument(
        "--out",
        default="runs/forge",
        help="directory of the models; finished ones are kept, a killed run goes on (default: %(default)s)",
    )
    parser.add_argument(
        "--vision", action="store_true", help="train the two that see instead: two towers and a captioner, one process"
    )
    parser.add_argument("--quick", action="store_true", help="seconds instead of minutes: models that know nothing")
    parser.add_argument("--workers", type=int, default=2, help="single-threaded processes (default: %(default)s)")


def run(args: argparse.Namespace) -> int:
    """Trains the family and says how good its members became on held-out prompts."""
    for package in ("torch", "transformers"):
        if importlib.util.find_spec(package) is None:  # only the training processes import what is heavy
            require(package, extra="models", purpose="training the bundled models")
    from treegym.models.family.forging import forge

    with _Bars(visible=sys.stderr.isatty() and not args.json) as bars:
        if args.vision:
            from treegym.models.vision.forging import forge_vision

            cards = forge_vision(Path(args.out), seed=args.seed, is_quick=args.quick, report=bars.update)
        else:
            cards = forge(
                args.out, seed=args.seed, is_quick=args.quick, workers=max(1, args.workers), report=bars.update
            )
    if args.json:
        say(json.dumps({"out": args.out, "models": cards}))
        return 0
    say(f"{'model':14} {'role':13} {'weights':>8} {'steps':>6} {'held-out accuracy':>18}")
    for card in cards:
        accuracy = card["validation"]["accuracy"]
        say(f"{card['name']:14} {card['role']:13} {card['parameters']:8,} {card['steps']:6,} {accuracy:18.3f}")
    say(f"The models are in {args.out}.")
    return 0


class _Bars:
    """One progress bar a model, on a terminal only."""

    def __init__(self, *, visible: bool) -> None:
        self._visible = visible
        self._bars: dict[str, Any] = {}

    def __enter__(self) -> _Bars:
        return self

    def __exit__(self, *_: object) -> None:
        for bar in self._bars.values():
            bar.close()

    def update(self, name: str, done: int, total: int) -> None:
        """Moves a model's bar to a step."""
        if not self._visible:
            return
        if name not in self._bars:
            from tqdm import tqdm

            self._bars[name] = tqdm(desc=name, total=total, initial=done, unit="step")
        bar = self._bars[name]
        bar.update(done - bar.n)
