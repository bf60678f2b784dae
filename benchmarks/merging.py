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
from treegym.iterate import IterateSettings, evaluate_model, iterate
from treegym.iterate.imitate import imitate, written_answers
from treegym.models import load_model
from treegym.models.local.saving import save_model
from treegym.models.merging import MergeSettings, merge

KINDS = ("sorting", "products")
SEEDS, BASE, MAX_ANSWER = 5, "tiny-primary", 24
MEMBERS = 3  # of a population
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


def population(seed: int, steps: int, held_out: PromptSet, validation: PromptSet) -> list[dict[str, Any]]:
    """Trains a population and averages it; returns a row for each of its models, and for what a round more makes."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        members = [further(BASE, 10 * seed + k, steps, folder / str(k)) for k in range(MEMBERS)]
        mean = MergeSettings("task_arithmetic", scale=1 / MEMBERS)
        whole = str(merge(members, folder / "mean", base=BASE, settings=mean))
        best = max(members, key=lambda where: evaluate_model(load_model(where), validation)["accuracy"])
        models = {f"member {k}": where for k, where in enumerate(members)} | {"best": best, "mean": whole}
        for which in ("best", "mean"):
            models[f"{which}_after"] = further(models[which], 10 * seed + MEMBERS, steps, folder / which[:2])
        found = {which: evaluate_model(load_model(where), held_out)["accuracy"] for which, where in models.items()}
    return [{"seed": seed, "model": which, "accuracy": accuracy} for which, accuracy in found.items()]


def further(model: str, seed: int, steps: int, out: Path) -> str:
    """Returns the model that a round of PPO makes of one."""
    iterate(IterateSettings(model=model, algorithm="ppo", rounds=1, steps=steps, seed=seed, reference=0), out)
    return str(out / "round-001" / "model")


def of_population(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Returns mean accuracies, and how far the average is above the best member, before and after a further round."""
    by_model: dict[str, list[float]] = {}
    for row in rows:
        by_model.setdefault(row["model"].split()[0], []).append(row["accuracy"])
    figures = {f"population_{which}": statistics.mean(found) for which, found in by_model.items()}
    for after in ("", "_after"):
        gains = [a - b for a, b in zip(by_model[f"mean{after}"], by_model[f"best{after}"], strict=True)]
        key = f"population_gain{after}"
        figures[key] = statistics.mean(gains)
        if len(gains) > 1:
            figures[f"{key}_low"], figures[f"{key}_high"] = mean_interval(gains)
    return figures


def main() -> None:
    arguments = parse(__doc__ or "")
    torch.set_num_threads(1)
    held_out = of_kinds(f"bundled:test={80 if arguments.quick else 800}", KINDS, 78_000)
    rows: list[dict[str, Any]] = []
    for seed in range(1 if arguments.quick else SEEDS):
        rows += cell(seed, 20 if arguments.quick else 150, held_out)
    print(table(rows))
    figures = summary(rows)
    test, validation = (load_prompts(f"bundled:{split}=400", seed=79_000) for split in ("test", "validation"))
    grown = [
        row
        for seed in range(1 if arguments.quick else SEEDS)
        for row in population(seed, 1_000 if arguments.quick else 20_000, test, validation)
    ]
    print(table(grown))
    emit("merging", figures | of_population(grown), rows + grown)


if __name__ == "__main__":
    main()
