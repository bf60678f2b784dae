"""Two experts of different kinds of task, merged: is the whole better than either part on both kinds together?

The bundled primary learns worked answers of one kind (sorting) and, from the same start, of another (products), by as
many supervised steps. Accuracy is greedy, on held-out prompts of both kinds in equal numbers. `gain_*` is what a merge
is above the better expert of its seed, a mean over seeds with its 95 % interval. The scale and the density of each
method were chosen on validation prompts of a seed that is not among these.
"""

from __future__ import annotations

import statistics
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from common import emit, mean_interval, parse, table

from treegym.envs.token_tree.prompts import PromptSet, load_prompts
from treegym.iterate import evaluate_model
from treegym.iterate.imitate import imitate, written_answers
from treegym.models import load_model
from treegym.models.local.saving import save_model
from treegym.models.merging import MergeSettings, merge

KINDS = ("sorting", "products")
SEEDS, BASE, MAX_ANSWER = 5, "tiny-primary", 24
MERGES = {
    "task_arithmetic": MergeSettings("task_arithmetic", scale=0.4),
    "ties": MergeSettings("ties", scale=0.7, density=0.8),
    "dare": MergeSettings("dare", scale=0.5, density=0.8),
    "slerp": MergeSettings("slerp"),
}


def of_kinds(source: str, kinds: tuple[str, ...], seed: int) -> PromptSet:
    """Returns the prompts of some kinds among those that a source names."""
    prompts = load_prompts(source, seed=seed)
    return replace(prompts, roots=[root for root in prompts.roots if root.kind in kinds])


def train(kind: str, seed: int, steps: int, folder: Path) -> str:
    """Trains the base on one kind; returns where the expert is."""
    model = load_model(BASE, dtype="float32")
    prompts = of_kinds("bundled:train=3500", (kind,), 1000 + seed)
    examples = written_answers(prompts, model.tokenizer, count=len(prompts.roots), max_tokens=MAX_ANSWER, seed=seed)
    network = model.model.requires_grad_(True)
    imitate(network, examples, steps=steps, batch=64, learning_rate=1e-3, seed=seed)
    save_model(network, model.tokenizer, folder / kind)
    return str(folder / kind)


def cell(seed: int, steps: int, held_out: PromptSet, merges: dict[str, MergeSettings] = MERGES) -> list[dict[str, Any]]:
    """Trains two experts and merges them; returns a row for each model."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        models = {"base": BASE} | {kind: train(kind, seed, steps, folder) for kind in KINDS}
        experts = [models[kind] for kind in KINDS]
        for method, settings in merges.items():
            base = None if settings.method == "slerp" else BASE
            how = replace(settings, seed=seed)
            models[method] = str(merge(experts, folder / method.replace(" ", "-"), base=base, settings=how))
        rows = []
        for which, where in models.items():
            found = evaluate_model(load_model(where), held_out)
            rows.append({"seed": seed, "model": which, "accuracy": found["accuracy"], **found["by_kind"]})
    return rows


def summary(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Returns the mean accuracy of every model, and how far each merge is above the better expert of its seed."""
    figures: dict[str, float] = {}
    by_seed: dict[int, dict[str, float]] = {}
    for row in rows:
        by_seed.setdefault(row["seed"], {})[row["model"]] = row["accuracy"]
    for which in dict.fromkeys(row["model"] for row in rows):
        figures[f"accuracy_{which}"] = statistics.mean(found[which] for found in by_seed.values())
        if which in MERGES:
            gains = [found[which] - max(found[kind] for kind in KINDS) for found in by_seed.values()]
            figures[f"gain_{which}"] = statistics.mean(gains)
            if len(gains) > 1:
                figures[f"gain_{which}_low"], figures[f"gain_{which}_high"] = mean_interval(gains)
    return figures


def main() -> None:
    arguments = parse(__doc__ or "")
    torch.set_num_threads(1)
    held_out = of_kinds(f"bundled:test={80 if arguments.quick else 800}", KINDS, 78_000)
    rows: list[dict[str, Any]] = []
    for seed in range(1 if arguments.quick else SEEDS):
        rows += cell(seed, 20 if arguments.quick else 150, held_out)
    print(table(rows))
    emit("merging", summary(rows), rows)


if __name__ == "__main__":
    main()
