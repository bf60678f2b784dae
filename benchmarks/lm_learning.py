"""How much a language model learns: by each algorithm of reinforcement, by search with distillation, task after task.

Reinforcement writes freely after fresh prompts (no tree); distillation imitates what search finds on trees that each
round grows over fresh prompts. Accuracy is greedy, without a tree, on prompts of the test split from a seed that
nothing trained on. Problems longer than any trained on (four numbers instead of three, eight digits instead of six)
are answered too. Forgetting and transfer are explained in `lm_sequence.py`; `forgetting_*` is a method's share of plain
fine-tuning's.

Preferences are compared with PPO and DAPO at equal tokens that the primary wrote (`equal_*`): on free text, and on
trees of sixteen of its own answers to each prompt, whose siblings are compared (`siblings`). All switches are those of
`treegym iterate`.

Every cell (an algorithm or a method, and a seed) is independent of the others. With ``--cells FOLDER`` a finished cell
is kept there and not run again, ``--only ppo-3`` runs that cell alone, and ``--minutes 10`` begins none after so long:
the whole can be done piece by piece.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import emit, mean_interval, table
from lm_sequence import METHODS, sequence

from treegym.envs.free_text import FreeTextVectorEnv
from treegym.envs.token_tree.prompts import PromptSet, load_prompts
from treegym.iterate import IterateSettings, evaluate_model, iterate
from treegym.iterate.settings import DEFAULTS
from treegym.models import load_model, tasks
from treegym.tree.token_tree import Root, TokenTree

STEPS = {"ppo": 500_000, "dapo": 1_400_000, "vapo": 800_000}  # tokens; settings are those of `treegym iterate`
SEEDS, MAX_ANSWER = 5, 24
EQUAL = 100_000  # tokens of those that are compared at equal ones
EQUALS = ("ppo", "dapo", "dpo", "ipo", "simpo", "siblings")
ANSWER = 12.25  # tokens of one, roughly: what was written is counted
CHAINS, ROUNDS = 16, 4  # of `siblings`: answers to each prompt, and trees that are grown one after the other


def reinforce(algorithm: str, seed: int, steps: int, held_out: PromptSet, longer: PromptSet) -> dict[str, Any]:
    """Trains the bundled primary on fresh prompts; returns its accuracy before and after."""
    import treegym.agents as agents

    model = load_model("tiny-primary")
    start = evaluate_model(model, held_out)
    prompts = load_prompts("bundled:train=3500", seed=100 + seed)
    env = FreeTextVectorEnv(256, prompts=prompts.roots, tokenizer=model.tokenizer, verify=prompts.verify)
    agent = getattr(agents, algorithm.upper())(
        "LMPolicy", env, seed=seed, device="cpu", policy_kwargs={"model": "tiny-primary"},
        **DEFAULTS[algorithm],
    )  # fmt: skip
    before = time.process_time()
    agent.learn(steps)
    spent = time.process_time() - before
    model.model.load_state_dict(agent.policy.lm.state_dict())
    return {"algorithm": algorithm, "seed": seed, **_judged(model, start, held_out, longer), "cpu_s": spent}


def distil(seed: int, *, rounds: int, prompts: int, held_out: PromptSet, longer: PromptSet) -> dict[str, Any]:
    """Grows trees, searches them and imitates what was found, in rounds; returns the accuracy before and after."""
    start = evaluate_model(load_model("tiny-primary"), held_out)
    before = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        settings = IterateSettings(
            algorithm="expert", rounds=rounds, seed=seed, prompts=f"bundled:train={prompts}",
            evaluate="bundled:validation=100",
        )  # fmt: skip
        iterate(settings, folder)
        model = load_model(f"{folder}/round-{rounds:03d}/model")
    spent = time.process_time() - before
    return {"algorithm": "distilled", "seed": seed, **_judged(model, start, held_out, longer), "cpu_s": spent}


def equal(algorithm: str, seed: int, tokens: int, *, held_out: PromptSet, longer: PromptSet) -> dict[str, Any]:
    """Trains the bundled primary until it has written so many tokens; returns its accuracy before and after."""
    start = evaluate_model(load_model("tiny-primary"), held_out)
    common: dict[str, Any] = {"seed": seed, "evaluate": "bundled:validation=100"}
    before = time.process_time()
    if algorithm == "siblings":
        prompts = round(tokens / ROUNDS / CHAINS / ANSWER)
        settings = IterateSettings(
            algorithm="dpo", ground="tree", grow=True, growth="samples", samples=CHAINS, rounds=ROUNDS,
            prompts=f"bundled:train={prompts}", **common,
        )  # fmt: skip
    else:
        settings = IterateSettings(algorithm=algorithm, rounds=1, steps=tokens, prompts="bundled:train=3500", **common)
    with tempfile.TemporaryDirectory() as folder:
        iterate(settings, folder)
        trees = [TokenTree.open(path) for path in Path(folder).glob("round-*/tree.tree")]
        written = sum(int(tree.column("sampled").sum()) for tree in trees) or tokens
        model = load_model(f"{folder}/round-{settings.rounds:03d}/model")
    spent = time.process_time() - before
    found = _judged(model, start, held_out, longer)
    return {"equal": algorithm, "seed": seed, "tokens": written, **found, "cpu_s": spent}


def _judged(model: Any, start: dict[str, Any], held_out: PromptSet, longer: PromptSet) -> dict[str, Any]:
    found = evaluate_model(model, held_out)
    return {
        "start": start["accuracy"], "start_high": start["high"], "accuracy": found["accuracy"], "low": found["low"],
        "longer": evaluate_model(model, longer, max_tokens=2 * MAX_ANSWER)["accuracy"], **found["by_kind"],
    }  # fmt: skip


def longer_prompts(count: int, seed: int) -> PromptSet:
    """Returns chains of four numbers and sorting of eight digits: a step more than any trained on."""
    rng = np.random.default_rng(seed)
    roots: list[Root] = []
    while len(roots) < count:
        if len(roots) % 2:
            digits = "".join(str(digit) for digit in rng.integers(0, 10, size=8))
            roots.append(Root(f"{digits}=", "".join(sorted(digits)), "test", "sorting"))
            continue
        a, b, c, d = (int(n) for n in rng.integers((10, 10, 1, 1), (100, 100, 10, 10)))
        if a + b + c + d < 100:
            roots.append(Root(f"{a}+{b}+{c}+{d}=", str(a + b + c + d), "test", "chain"))
    return PromptSet(roots, lambda root, text: float(tasks.is_correct(text, root.answer)), "longer")


def cells(*, quick: bool) -> dict[str, Callable[[], dict[str, Any]]]:
    """Returns what is to be measured, by name."""
    held_out = load_prompts(f"bundled:test={80 if quick else 400}", seed=77_000)
    longer = longer_prompts(40 if quick else 200, 77_000)
    plan: dict[str, Callable[[], dict[str, Any]]] = {}
    for seed in range(1 if quick else SEEDS):
        for algorithm, steps in STEPS.items():
            plan[f"{algorithm}-{seed}"] = partial(
                reinforce, algorithm, seed, 25_000 if quick else steps, held_out, longer
            )
        plan[f"distilled-{seed}"] = partial(
            distil, seed, rounds=1 if quick else 3, prompts=200 if quick else 2000, held_out=held_out, longer=longer
        )
        for algorithm in EQUALS:
            plan[f"equal-{algorithm}-{seed}"] = partial(
                equal, algorithm, seed, 10_000 if quick else EQUAL, held_out=held_out, longer=longer
            )
        for name in ("fine_tuning", "ewc", "si") if quick else METHODS:
            plan[f"{name}-{seed}"] = partial(
                sequence, name, seed, steps=60 if quick else 200, prompts=40 if quick else 100
            )
    return plan


def summary(found: list[dict[str, Any]]) -> dict[str, float]:
    """Returns the figures of the cells that are there."""
    figures: dict[str, float] = {}
    learned = [cell for cell in found if "algorithm" in cell]
    for algorithm in dict.fromkeys(cell["algorithm"] for cell in learned):
        mine = [cell for cell in learned if cell["algorithm"] == algorithm]
        accuracies = [cell["accuracy"] for cell in mine]
        start = statistics.mean(cell["start"] for cell in mine)
        figures[f"accuracy_{algorithm}"] = statistics.mean(accuracies)
        figures[f"longer_{algorithm}"] = statistics.mean(cell["longer"] for cell in mine)
        figures[f"gain_{algorithm}"] = figures[f"accuracy_{algorithm}"] / start
        if len(mine) == SEEDS:
            low, high = mean_interval(accuracies)
            figures |= {f"accuracy_{algorithm}_low": low, f"accuracy_{algorithm}_high": high}
    alike = [cell for cell in found if "equal" in cell]
    for algorithm in dict.fromkeys(cell["equal"] for cell in alike):
        accuracies = [cell["accuracy"] for cell in alike if cell["equal"] == algorithm]
        figures[f"equal_{algorithm}"] = statistics.mean(accuracies)
        if len(accuracies) == SEEDS:
            figures[f"equal_{algorithm}_low"], figures[f"equal_{algorithm}_high"] = mean_interval(accuracies)
    stages = [cell for cell in found if "method" in cell]
    for name in dict.fromkeys(cell["method"] for cell in stages):
        for figure in ("forgetting", "transfer", "at_end"):
            figures[f"{figure}_mean_{name}"] = statistics.mean(c[figure] for c in stages if c["method"] == name)
    plain = figures.get("forgetting_mean_fine_tuning")
    if plain is not None:
        for name in ("ewc", "si"):
            if f"forgetting_mean_{name}" in figures:  # a smoke run may forget nothing: 0.01 is the floor
                figures[f"forgetting_{name}"] = figures[f"forgetting_mean_{name}"] / max(plain, 0.01)
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a smoke run of few steps and one seed; figures are rough")
    parser.add_argument("--cells", type=Path, help="where finished cells are kept; those found there are not run again")
    parser.add_argument("--only", action="append", help="run this cell only, such as ppo-3; may be given several times")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="begin no cell after so many minutes")
    arguments = parser.parse_args()
    begun = time.monotonic()
    torch.set_num_threads(1)
    found: list[dict[str, Any]] = []
    for name, measure in cells(quick=arguments.quick).items():
        kept = None if arguments.cells is None else arguments.cells / f"{name}.json"
        if kept is not None and kept.is_file():
            found.append(json.loads(kept.read_text(encoding="utf-8")))
        elif (not arguments.only or name in arguments.only) and time.monotonic() < begun + 60 * arguments.minutes:
            found.append(measure())
            if kept is not None:
                kept.parent.mkdir(parents=True, exist_ok=True)
                kept.write_text(json.dumps(found[-1]), encoding="utf-8")
    for group in ("algorithm", "equal"):
        print(table([cell for cell in found if group in cell]))
    stages = [cell for cell in found if "method" in cell]
    print(table([{k: v for k, v in cell.items() if k not in ("start", "stages")} for cell in stages]))
    for cell in stages:
        rows = [cell["start"], *cell["stages"]]
        names = ["start", *(f"after {kind}" for kind in cell["start"])]
        print(f"\n{cell['method']}, seed {cell['seed']}: accuracy on every kind after every stage")
        print(table([{"stage": stage, **row} for stage, row in zip(names, rows, strict=True)]))
    emit("lm_learning", summary(found), found)


if __name__ == "__main__":
    main()
