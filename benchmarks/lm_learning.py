"""How much a language model learns: by each algorithm of reinforcement, by search with distillation, task after task.

Reinforcement writes freely after fresh prompts (no tree); distillation imitates what search finds on the bundled tree.
Accuracy is greedy, without a tree, on prompts of the test split from a seed that nothing trained on. Problems longer
than any trained on (four numbers instead of three, eight digits instead of six) are answered too.

Forgetting of a kind is its accuracy after its own stage minus its accuracy after the last stage; the mean is over all
kinds but the last, and `forgetting_*` is a method's share of plain fine-tuning's.
"""

from __future__ import annotations

import copy
import statistics
import tempfile
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from common import emit, parse, table

from treegym.agents.continual import make_method
from treegym.agents.continual.base import train_task
from treegym.agents.continual.language import LanguageProblem, greedy_accuracy
from treegym.envs.free_text import FreeTextVectorEnv
from treegym.envs.token_tree.prompts import PromptSet, load_prompts
from treegym.envs.token_tree.tree import Root
from treegym.iterate import IterateSettings, evaluate_model, iterate
from treegym.iterate.settings import DEFAULTS
from treegym.models import load_model, tasks

STEPS = {"ppo": 80_000, "dapo": 400_000, "vapo": 200_000}  # tokens
METHODS: dict[str, dict[str, Any]] = {
    "fine_tuning": {},
    "ewc": {"strength": 30.0},
    "si": {"strength": 1.0},
    "packnet": {"prune": 0.7},
    "progressive": {},
    "replay": {},
}


def reinforce(algorithm: str, seed: int, steps: int, held_out: PromptSet, longer: PromptSet) -> dict[str, Any]:
    """Trains the bundled primary on fresh prompts; returns its accuracy before and after."""
    import treegym.agents as agents

    model = load_model("tiny-primary")
    start = evaluate_model(model, held_out)
    prompts = load_prompts("bundled:train=2000", seed=100 + seed)
    env = FreeTextVectorEnv(256, prompts=prompts.roots, tokenizer=model.tokenizer, verify=prompts.verify)
    agent = getattr(agents, algorithm.upper())(
        "LMPolicy", env, seed=seed, device="cpu", policy_kwargs={"model": "tiny-primary"},
        **DEFAULTS[algorithm],
    )  # fmt: skip
    before = time.process_time()
    agent.learn(steps)
    spent = time.process_time() - before
    model.model.load_state_dict(agent.policy.lm.state_dict())
    found = evaluate_model(model, held_out)
    return {
        "algorithm": algorithm, "seed": seed, "start": start["accuracy"], "start_high": start["high"],
        "accuracy": found["accuracy"], "low": found["low"], "longer": evaluate_model(model, longer)["accuracy"],
        "cpu_s": spent,
    }  # fmt: skip


def distil(seed: int, *, rounds: int, epochs: int, held_out: PromptSet, longer: PromptSet) -> dict[str, Any]:
    """Searches the bundled tree and imitates what was found, in rounds; returns the accuracy afterwards."""
    before = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        settings = IterateSettings(
            algorithm="expert", rounds=rounds, epochs=epochs, seed=seed, evaluate="bundled:test=100"
        )
        rows = iterate(settings, folder)
        model = load_model(f"{folder}/round-{rounds:03d}/model")
    spent = time.process_time() - before
    found = evaluate_model(model, held_out)
    return {
        "algorithm": "distilled", "seed": seed, "start": rows[0]["accuracy"], "start_high": rows[0]["high"],
        "accuracy": found["accuracy"], "low": found["low"], "longer": evaluate_model(model, longer)["accuracy"],
        "cpu_s": spent,
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


def sequence(name: str, seed: int, *, steps: int, prompts: int) -> dict[str, Any]:
    """Trains the kinds of task one after another with a method; returns accuracies and forgetting."""
    loaded = load_model("tiny-primary")
    tokenizer = loaded.tokenizer
    model = copy.deepcopy(loaded.model)
    model.requires_grad_(True)
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    method = make_method(name, model, **METHODS[name])
    kinds = list(tasks.KINDS)
    tests = {kind: _of_kind(kind, "test", prompts, seed) for kind in kinds}
    problem = LanguageProblem()

    def accuracy(kind: str) -> float:
        with method.using(kinds.index(kind)) as network:
            return greedy_accuracy(
                network,
                [tokenizer.encode(task.prompt) for task in tests[kind]],
                lambda index, tokens: tasks.is_correct(tokenizer.decode(tokens), tests[kind][index].answer),
                eos_id=tokenizer.eos_id,
            )

    stages: list[dict[str, float]] = []
    for number, kind in enumerate(kinds):
        examples = [
            (
                tokenizer.encode(task.prompt),
                [*tokenizer.encode(tasks.KINDS[kind].worked(task.prompt)), tokenizer.eos_id],
            )
            for task in _of_kind(kind, "train", 400, seed)
        ]

        def batch(_: int, examples: list[Any] = examples) -> list[Any]:
            return [examples[index] for index in rng.integers(len(examples), size=32)]

        train_task(method, problem, batch, steps=steps, learning_rate=1e-3)
        stages.append({seen: accuracy(seen) for seen in kinds[: number + 1]})
    learned = {kind: stages[number][kind] for number, kind in enumerate(kinds)}
    lost = [learned[kind] - stages[-1][kind] for kind in kinds[:-1]]
    return {
        "method": name, "seed": seed, **{f"{kind}_learned": value for kind, value in learned.items()},
        **{f"{kind}_at_end": stages[-1][kind] for kind in kinds},
        "forgetting": float(np.mean(lost)), "mean_at_end": float(np.mean(list(stages[-1].values()))),
    }  # fmt: skip


def _of_kind(kind: str, split: Any, count: int, seed: int) -> Sequence[tasks.Problem]:
    from treegym.models.tasks.splits import sample

    return sample([tasks.KINDS[kind]], count, split=split, seed=seed)


def main() -> None:
    arguments = parse(__doc__ or "")
    torch.set_num_threads(1)
    quick = arguments.quick
    seeds = range(1) if quick else range(5)
    held_out = load_prompts(f"bundled:test={80 if quick else 400}", seed=77_000)
    longer = longer_prompts(40 if quick else 200, 77_000)
    cells: list[dict[str, Any]] = []
    for algorithm, steps in STEPS.items():
        for seed in seeds:
            cells.append(reinforce(algorithm, seed, 25_000 if quick else steps, held_out, longer))
    for seed in seeds:
        cells.append(distil(seed, rounds=1 if quick else 3, epochs=5, held_out=held_out, longer=longer))
    print(table(cells))
    figures = {}
    for algorithm in STEPS:
        mine = [cell for cell in cells if cell["algorithm"] == algorithm]
        figures[f"gain_{algorithm}"] = statistics.median(cell["accuracy"] / cell["start"] for cell in mine)
        figures[f"gain_{algorithm}_low"] = statistics.median(cell["low"] / cell["start_high"] for cell in mine)
    figures["accuracy_distilled"] = statistics.median(c["accuracy"] for c in cells if c["algorithm"] == "distilled")
    stages = []
    for name in ("fine_tuning", "ewc", "si") if quick else METHODS:
        for seed in seeds:
            stages.append(sequence(name, seed, steps=20 if quick else 200, prompts=40 if quick else 100))
    print(table(stages))
    plain = statistics.mean(row["forgetting"] for row in stages if row["method"] == "fine_tuning")
    for name in ("ewc", "si"):
        own = statistics.mean(row["forgetting"] for row in stages if row["method"] == name)
        figures[f"forgetting_{name}"] = own / max(plain, 0.01)  # a smoke run may forget nothing: 0.01 is the floor
    emit("lm_learning", figures, [*cells, *stages])


if __name__ == "__main__":
    main()
