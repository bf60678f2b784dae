"""What going on in windows costs: long texts of SmolLM2 as if it had 128 positions (environment of `make real`).

Texts of 384 tokens, written whole, in windows that keep the first four tokens, and in windows that keep none of them.
The model itself, which has room for all, then reads each text: the perplexity of what was written beyond the 128th
token says how well it goes on from everything before, and the share of four-grams that are new says whether it repeats.
"""

from __future__ import annotations

import math
import sys
from typing import Any

import numpy as np
import torch
from common import PEER_ABSENT, emit, mean_interval, parse, table

from treegym.errors import TreeGymError
from treegym.models import load_model
from treegym.models.tokens.tokenizers import prefix_ids
from treegym.models.windowed import Windowed

POSITIONS, TOKENS, SEEDS, RUN = 128, 384, 5, 4
BEGINNINGS = (
    "The history of the lighthouse begins", "To bake a good bread at home, you", "The two sisters had not spoken since",
    "In the north of the island there", "A bicycle is repaired in this order:", "The report on the river says that",
)  # fmt: skip


class Short:
    """A model that says it has fewer positions than it has."""

    context_length = POSITIONS

    def __init__(self, model: Any) -> None:
        self._model = model

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)


def new_share(ids: list[int]) -> float:
    """Returns the share of runs of four tokens that were not there before."""
    runs = [tuple(ids[at : at + RUN]) for at in range(len(ids) - RUN + 1)]
    return len(set(runs)) / max(len(runs), 1)


def main() -> None:
    """Prints one JSON line."""
    quick = parse(__doc__ or "").quick
    torch.set_num_threads(1)
    try:
        model = load_model("smollm2")
    except TreeGymError as error:
        print(error, file=sys.stderr)
        sys.exit(PEER_ABSENT)
    writers = {"whole": model, "sinks": Windowed(Short(model)), "no_sinks": Windowed(Short(model), sinks=0)}
    start = list(prefix_ids(model.tokenizer))
    asked = [[*start, *model.tokenizer.encode(text)] for text in BEGINNINGS]
    tokens = 160 if quick else TOKENS
    rows: list[dict[str, Any]] = []
    for seed in range(1 if quick else SEEDS):
        row: dict[str, Any] = {"seed": seed}
        for name, writer in writers.items():
            texts = writer.generate(asked, max_new_tokens=tokens, temperature=0.7, seed=seed, stop_ids=[])
            told = [scores[POSITIONS:] for scores in model.score(asked, texts)]
            row[f"perplexity_{name}"] = math.exp(-float(np.concatenate(told).mean()))
            row[f"new_{name}"] = float(np.mean([new_share(text) for text in texts]))
        rows.append(row)
        print(table(rows[-1:]), flush=True)
    figures: dict[str, float] = {}
    for name in [name for name in rows[0] if name != "seed"]:
        values = [row[name] for row in rows]
        figures[name] = float(np.mean(values))
        figures[f"{name}_low"], figures[f"{name}_high"] = mean_interval(values)
    emit("windows", figures, rows)


if __name__ == "__main__":
    main()
