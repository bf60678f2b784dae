"""Kinds of task learned one after another, with every method against forgetting; `lm_learning.py` runs it.

Accuracy on a kind is greedy, on prompts of its test split. With T kinds in sequence and a[t, k] the accuracy on kind k
after stage t (t = -1: the bundled primary):

    forgetting = mean over k < T - 1 of  a[k, k] - a[T - 1, k]
    transfer   = mean over k > 0     of  a[k - 1, k] - a[-1, k]     what the kinds before did for a kind not yet learned
"""

from __future__ import annotations

import copy
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from treegym.agents.continual import METHODS as KNOWN
from treegym.agents.continual import make_method
from treegym.agents.continual.base import train_task
from treegym.agents.continual.language import LanguageProblem, greedy_accuracy
from treegym.models import load_model, tasks
from treegym.models.tasks.splits import sample

__all__ = ["METHODS", "sequence"]

TOLD = ("packnet", "supsup", "progressive")  # these are told which kind is asked
SETTINGS: dict[str, dict[str, Any]] = {"ewc": {"strength": 30.0}, "si": {"strength": 2.0}, "packnet": {"prune": 0.7}}
METHODS: dict[str, dict[str, Any]] = {name: SETTINGS.get(name, {}) for name in KNOWN}


def sequence(name: str, seed: int, *, steps: int, prompts: int) -> dict[str, Any]:
    """Trains the kinds one after another with a method; returns accuracies after every stage, forgetting, transfer.

    Args:
        name: of the method.
        seed: of training and of the held-out prompts.
        steps: of 32 worked answers, a kind.
        prompts: held-out ones of each kind.
    """
    before = time.process_time()
    loaded = load_model("tiny-primary")
    tokenizer = loaded.tokenizer
    model = copy.deepcopy(loaded.model)
    model.requires_grad_(True)
    rng = np.random.default_rng(seed)
    kinds = list(tasks.KINDS)
    tests = {kind: of_kind(kind, "test", prompts, seed) for kind in kinds}

    def accuracy(network: Any, kind: str) -> float:
        return greedy_accuracy(
            network,
            [tokenizer.encode(task.prompt) for task in tests[kind]],
            lambda index, tokens: tasks.is_correct(tokenizer.decode(tokens), tests[kind][index].answer),
            eos_id=tokenizer.eos_id,
        )

    start = {kind: accuracy(model, kind) for kind in kinds}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # of the weights that methods add
        method = make_method(name, model, **METHODS[name])
        stages: list[dict[str, float]] = []
        for number, kind in enumerate(kinds):
            train_task(method, LanguageProblem(), _batches(tokenizer, kind, seed, rng), steps=steps, learning_rate=1e-3)
            found = {}
            for place, asked in enumerate(kinds):
                with method.using(min(place, number) if name in TOLD else number) as network:
                    found[asked] = accuracy(network, asked)
            stages.append(found)
    learned = {kind: stages[number][kind] for number, kind in enumerate(kinds)}
    lost = [learned[kind] - stages[-1][kind] for kind in kinds[:-1]]
    gained = [stages[place - 1][kind] - start[kind] for place, kind in enumerate(kinds) if place]
    return {
        "method": name, "seed": seed, "forgetting": float(np.mean(lost)), "transfer": float(np.mean(gained)),
        "learned": float(np.mean(list(learned.values()))), "at_end": float(np.mean(list(stages[-1].values()))),
        "start": start, "stages": stages, "cpu_s": time.process_time() - before,
    }  # fmt: skip


def _batches(tokenizer: Any, kind: str, seed: int, rng: np.random.Generator) -> Any:
    examples = [
        (tokenizer.encode(task.prompt), [*tokenizer.encode(tasks.KINDS[kind].worked(task.prompt)), tokenizer.eos_id])
        for task in of_kind(kind, "train", 400, seed)
    ]
    return lambda _: [examples[index] for index in rng.integers(len(examples), size=32)]


def of_kind(kind: str, split: Any, count: int, seed: int) -> Sequence[tasks.Problem]:
    """Returns problems of one kind, generated."""
    return sample([tasks.KINDS[kind]], count, split=split, seed=seed)
