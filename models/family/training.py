"""Trains one model of the family: seeded, resumable at a step, with the primary's snapshot chosen by validation."""

from __future__ import annotations

import hashlib
import json
import math
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel

from treegym.files import atomic_write, read_arrays, write_arrays
from treegym.folders import put_folder
from treegym.models.family.answering import greedy_answers, yes_logits
from treegym.models.family.cards import CARD, WORK, recipe
from treegym.models.family.configs import build
from treegym.models.family.curriculum import batch_of, examples
from treegym.models.family.optimiser import Optimiser
from treegym.models.family.specs import ModelSpec
from treegym.models.tasks import is_correct, problems
from treegym.models.tokens.char_tokenizer import CharTokenizer

__all__ = ["forge_model", "learning_rate"]

CHECKPOINT_EVERY = 100
SNAPSHOT_EVERY = 100  # of the primary, from half of its steps on
PRIMARY_RANGE = (0.33, 0.45)  # greedy validation accuracy that leaves room to improve and something to start from
VALIDATION_PROBLEMS = 400
WARM_UP = 100

Progress = Callable[[int, float], None]  # step, loss


@dataclass(frozen=True)
class _Run:
    """What one training run carries along."""

    spec: ModelSpec
    seed: int
    tokenizer: CharTokenizer
    model: PreTrainedModel
    optimiser: Optimiser


def forge_model(spec: ModelSpec, out: Path, *, seed: int, progress: Progress | None = None) -> dict[str, Any]:
    """Trains a model, or goes on where a killed run stopped, and writes ``out/NAME``; returns its card."""
    tokenizer = CharTokenizer()
    own_seed = int.from_bytes(hashlib.blake2b(f"{seed}/{spec.name}".encode(), digest_size=4).digest(), "little")
    model = build(spec, tokenizer, seed=own_seed)
    run = _Run(spec=spec, seed=own_seed, tokenizer=tokenizer, model=model, optimiser=Optimiser(model))
    work = out / WORK / spec.name
    work.mkdir(parents=True, exist_ok=True)
    fingerprint = recipe(spec, seed=seed)
    done = _resume(run, work / "checkpoint.safetensors", fingerprint)
    for step in range(done, spec.steps):
        loss = _step(run, step)
        if progress is not None:
            progress(step + 1, loss)
        if _is_snapshot(spec, step + 1):
            _snapshot(run, work / f"snapshot-{step + 1}.safetensors")
        if (step + 1) % CHECKPOINT_EVERY == 0:
            _checkpoint(run, work / "checkpoint.safetensors", step + 1, fingerprint)
    chosen = _choose(run, work)
    card = {
        "name": spec.name,
        "role": spec.role,
        "architecture": spec.architecture,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "seed": seed,
        "recipe": fingerprint,
        **chosen,
    }
    _write(run, out / spec.name, work, card)
    return card


def learning_rate(spec: ModelSpec, step: int) -> float:
    """Returns the rate of a step: a linear warm-up, then half a cosine down to a fiftieth."""
    decay = 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * step / spec.steps))
    return spec.learning_rate * min(1.0, (step + 1) / WARM_UP) * decay


def _step(run: _Run, step: int) -> float:
    """Takes one optimiser step and returns the loss, the mean over predicted tokens."""
    run.model.train()
    items = sorted(examples(run.spec, run.spec.batch, seed=(run.seed, step)), key=lambda item: len(item.text))
    total = 0.0
    counts = sum(len(item.text) + item.ends - item.start for item in items)
    half = len(items) // 2
    for part in (items[:half], items[half:]):  # the shorter half is padded less
        batch = batch_of(part, run.tokenizer)
        logits = run.model(input_ids=torch.from_numpy(batch.ids), use_cache=False).logits[:, :-1]
        labels = torch.from_numpy(batch.labels)[:, 1:]
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="sum") / counts
        loss.backward()
        total += float(loss.detach())
    run.optimiser.step(learning_rate(run.spec, step))
    return total


def _resume(run: _Run, path: Path, fingerprint: str) -> int:
    """Loads a checkpoint if there is one of the same recipe and returns the steps done."""
    if not path.exists():
        return 0
    arrays, metadata = read_arrays(path, mmap=False)
    if metadata.get("recipe") != fingerprint:
        return 0
    tensors = {name: torch.from_numpy(array.copy()) for name, array in arrays.items()}
    steps = int(metadata["step"])
    run.optimiser.load(tensors, steps=steps)
    with torch.no_grad():
        for name, parameter in run.optimiser.parameters.items():
            parameter.copy_(tensors[f"parameter:{name}"])
    return steps


def _checkpoint(run: _Run, path: Path, step: int, fingerprint: str) -> None:
    tensors = {f"parameter:{name}": p.detach() for name, p in run.optimiser.parameters.items()}
    tensors |= run.optimiser.state()
    arrays = {name: tensor.numpy() for name, tensor in tensors.items()}
    write_arrays(path, arrays, {"step": str(step), "recipe": fingerprint})


def _is_snapshot(spec: ModelSpec, step: int) -> bool:
    return spec.role == "primary" and step % SNAPSHOT_EVERY == 0 and step >= spec.steps // 2 and step < spec.steps


def _snapshot(run: _Run, path: Path) -> None:
    write_arrays(path, {name: p.detach().numpy() for name, p in run.optimiser.parameters.items()})


def _choose(run: _Run, work: Path) -> dict[str, Any]:
    """Leaves the model to ship in `run.model`, rounded as it ships, and returns its steps and validation figures.

    The last snapshot of the primary whose accuracy lies in the wanted range; the number of steps alone says little.
    """
    _round_to_half(run.model)
    validation = _validate(run)
    figures: dict[str, Any] = {"steps": run.spec.steps, "validation": validation}
    if run.spec.role != "primary":
        return figures
    accuracy = validation["accuracy"]
    low, high = PRIMARY_RANGE
    snapshots = sorted(work.glob("snapshot-*.safetensors"), key=lambda path: -int(path.stem.split("-")[1]))
    final = {name: p.detach().clone() for name, p in run.optimiser.parameters.items()}
    for path in snapshots if not low <= accuracy <= high else ():
        _load(run, {name: torch.from_numpy(array.copy()) for name, array in read_arrays(path)[0].items()})
        _round_to_half(run.model)
        validation = _validate(run)
        if low <= validation["accuracy"] <= high:
            return {"steps": int(path.stem.split("-")[1]), "validation": validation}
    _load(run, final)
    return figures


@torch.no_grad()
def _load(run: _Run, tensors: dict[str, torch.Tensor]) -> None:
    for name, parameter in run.optimiser.parameters.items():
        parameter.copy_(tensors[name])


@torch.no_grad()
def _round_to_half(model: PreTrainedModel) -> None:
    for parameter in model.parameters():
        parameter.copy_(parameter.half().float())


def _validate(run: _Run) -> dict[str, float]:
    """Returns accuracy on the validation split: of greedy answers, or of yes and no."""
    if run.spec.role in ("completeness", "judge"):
        items = examples(run.spec, VALIDATION_PROBLEMS, seed=(run.seed, 2**31), split="validation")
        said = yes_logits(run.model, run.tokenizer, [item.text[:-2] for item in items]) > 0
        return {"accuracy": float(np.mean(said == [item.text.endswith("y") for item in items]))}
    held_out = problems("validation", VALIDATION_PROBLEMS)
    answers = greedy_answers(run.model, run.tokenizer, [problem.prompt for problem in held_out])
    right = [is_correct(answer, problem.answer) for answer, problem in zip(answers, held_out, strict=True)]
    return {"accuracy": float(np.mean(right))}


def _write(run: _Run, final: Path, work: Path, card: dict[str, Any]) -> None:
    """Writes the model beside its place, then puts it there: a kill leaves the old model or the new one."""
    staging = work / "model"
    shutil.rmtree(staging, ignore_errors=True)
    run.model.to(torch.float16).save_pretrained(staging)
    (staging / "generation_config.json").unlink(missing_ok=True)
    run.tokenizer.save(staging / "tokenizer.json")
    atomic_write(staging / CARD, json.dumps(card, indent=1) + "\n")
    put_folder(staging, final)
    shutil.rmtree(work)
