"""What data that models made is worth: prompts that SmolLM2 wrote, pairs that the bundled judge made.

    python benchmarks/synthesis.py PROMPTS.jsonl    # what `treegym data self-instruct` wrote (docs/data.md)

The bundled primary learns by PPO on as many tokens of three prompt sets: the seeds again and again, what was written
from them, and fresh prompts of the suite, as many.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

import numpy as np
from common import emit, mean_interval, table

from treegym.envs.token_tree.prompts import load_prompts
from treegym.iterate import IterateSettings, iterate
from treegym.models import load_model
from treegym.rewards.judge.term import Judge
from treegym.synthesis import Writer, preferences
from treegym.synthesis.preferences import Verified
from treegym.tree.roots import Root

SEEDS, SEED_PROMPTS, TOKENS = 5, "bundled:train=32", 20_000


def learned(prompts: str, seed: int, folder: Path) -> float:
    """Returns held-out accuracy after a round of PPO on prompts."""
    settings = IterateSettings(algorithm="ppo", rounds=1, steps=TOKENS, prompts=prompts, seed=seed, reference=0)
    return float(iterate(settings, folder)[-1]["accuracy"])


def as_source(roots: list[Root], file: Path) -> str:
    rows = [{"prompt": root.prompt, "answer": root.answer, "kind": root.kind} for root in roots]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(file)


def judged(seed: int) -> dict[str, float]:
    """Returns how preferences of the bundled judge agree with the verifier's."""
    prompts = load_prompts("bundled:train=400", seed=seed)
    writer = Writer(load_model("tiny-primary"), max_tokens=24, batch=64)
    pairs, apart = preferences(prompts.roots, writer, Judge(), temperatures=(0.3, 1.0), pairwise=False, seed=seed)
    true, _ = preferences(prompts.roots, writer, Verified(prompts.roots, prompts.verify), seed=seed)
    right = {row["prompt"]: row["chosen"] for row in true}
    both = [row["chosen"] == right[row["prompt"]] for row in pairs if row["prompt"] in right]
    return {"pairs": len(pairs), "apart": len(apart), "of_which_verified": len(both), "agree": float(np.mean(both))}


def main() -> None:
    written = load_prompts(sys.argv[1])
    seeds = load_prompts(SEED_PROMPTS)
    fresh = load_prompts(f"bundled:train={len(seeds.roots) + len(written.roots)}")
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        own = as_source([*seeds.roots, *written.roots], folder / "own.jsonl")
        sources = {
            "seeds": as_source(seeds.roots, folder / "seeds.jsonl"),
            "written": own,
            "fresh": as_source(fresh.roots, folder / "fresh.jsonl"),
        }
        for seed in range(SEEDS):
            reached = {name: learned(source, seed, folder / f"{name}-{seed}") for name, source in sources.items()}
            rows.append({"seed": seed, **reached, **judged(seed)})
            print(table(rows[-1:]), flush=True)
    figures = {"prompts_written": float(len(written.roots))}
    for name in [name for name in rows[0] if name != "seed"]:
        values = [float(row[name]) for row in rows]
        figures[name] = float(np.mean(values))
        print(f"{name}: {np.mean(values):.3f} ({mean_interval(values)[0]:.3f} to {mean_interval(values)[1]:.3f})")
    emit("synthesis", figures, rows)


if __name__ == "__main__":
    main()
