"""What quantisation-aware training is worth: the error of a module in int8, before and after some hundred steps of it.

Five seeds of weights for each kind of module; every linear and convolution layer is rounded. The error is the one that
candidates are refused by, on inputs that neither the ranges nor the training have seen.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from common import emit, mean_interval, parse, table
from selection_kinds import KINDS

from treegym.optimize import quantise
from treegym.optimize.strategies.base import Given
from treegym.optimize.strategies.open_vino import Tuned

CHOSEN, SEEDS, UNSEEN = ("mlp", "resnet", "vit", "encoder"), 5, 10**6


def errors(kind: str, seed: int, steps: int) -> dict[str, Any]:
    """Returns the errors of one module on unseen inputs, rounded and then trained."""
    make, inputs = KINDS[kind]
    torch.manual_seed(seed)
    module = make().eval().requires_grad_(False)
    sample, seen, unseen = inputs(0), Given(inputs), Given(_later(inputs))
    made = quantise.quantised(module, sample, seen, every=True)
    rounded = quantise.error_of(module, made, sample, unseen)
    quantise.fine_tune(module, made, sample, seen, steps=steps)
    return {"kind": kind, "seed": seed, "rounded": rounded, "tuned": quantise.error_of(module, made, sample, unseen)}


def _later(inputs: Callable[[int], Any]) -> Callable[[int], Any]:
    return lambda seed: inputs(UNSEEN + seed)


def main() -> None:
    """Prints one JSON line."""
    quick = parse(__doc__ or "").quick
    torch.set_num_threads(1)
    rows: list[dict[str, Any]] = []
    figures: dict[str, float] = {}
    for kind in CHOSEN[:1] if quick else CHOSEN:
        own = [errors(kind, seed, 20 if quick else Tuned.steps) for seed in range(1 if quick else SEEDS)]
        rows += own
        logs = [math.log(row["tuned"] / row["rounded"]) for row in own]
        figures[f"{kind}_rounded"] = sum(row["rounded"] for row in own) / len(own)
        figures[f"{kind}_ratio"] = math.exp(sum(logs) / len(logs))
        figures[f"{kind}_ratio_low"], figures[f"{kind}_ratio_high"] = map(math.exp, mean_interval(logs))
    print(table(rows))
    emit("tuned_int8", figures, rows)


if __name__ == "__main__":
    main()
