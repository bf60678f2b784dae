"""Completions learned from per CPU-second on one thread, beside TRL's GRPOTrainer with the DAPO loss.

- speed: `vs_trl_*`, at 108 k and at 800 k parameters; the two run in processes of their own, in turn, and each tells
  its own CPU time (`lm_contest.py` says what is equal);
- memory: `memory_vs_trl_*`, the peak of the whole process over TRL's, each size in fresh processes. Each side has an
  environment of what it needs and no more: `transformers` loads scipy, torchao and others wherever it finds them. Our
  kernels, which an installation compiles once, are compiled beforehand;
- learning: held-out accuracy of the bundled primary after the same number of completions, with 95 % intervals;
- `cost_per_token_256_over_16`: what an update costs a token of completions of 256 tokens, over 16; 1 is linear.

TRL lives in `.venvs/trl`, ours in `.venvs/lm` (``make .venvs/trl/.done`` makes both).
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from common import emit, mean_interval, parse, peer_absent, table
from sides import ROOT, Side

SIZES = {  # hidden, intermediate, layers
    "108k": (64, 192, 2),
    "800k": (128, 344, 4),
}
RATE, LEARNING_RATE = 1e-4, 2e-4
JOB: dict[str, Any] = {"reward": "digits", "rate": RATE, "seed": 0, "out": None}  # where speed alone is asked about
LENGTHS = (16, 32, 64, 128, 256)
PEER, OWN = (ROOT / ".venvs" / name / "bin" / "python" for name in ("trl", "lm"))


def started(which: str, log: Any) -> Side:
    python = PEER if which == "theirs" else OWN if OWN.is_file() else Path(sys.executable)
    return Side("lm_contest.py", which, python=python, log=log)


def make_model(size: str, folder: Path, *, places: int = 64) -> tuple[str, int]:
    """Writes a Llama of a size with random weights; returns where and how many parameters it has."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from treegym.models import load_model
    from treegym.models.local.saving import save_model

    hidden, intermediate, layers = SIZES[size]
    torch.manual_seed(0)
    tokenizer: Any = load_model("tiny-primary").tokenizer
    config = LlamaConfig(
        vocab_size=tokenizer.vocab_size, hidden_size=hidden, intermediate_size=intermediate, num_hidden_layers=layers,
        num_attention_heads=4, num_key_value_heads=4, max_position_embeddings=places, tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_id, eos_token_id=tokenizer.eos_id, bos_token_id=None,
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    save_model(model, tokenizer, folder / size)
    return str(folder / size), sum(parameter.numel() for parameter in model.parameters())


def compile_kernels(folder: Path, log: Any) -> None:
    """Learns a step in a process of its own, so that compiled kernels are in the cache."""
    side = started("ours", log)
    side.run(**JOB, model=make_model("108k", folder)[0], problems=[("12+34=", "46")], updates=1)
    side.close()


def speed(size: str, folder: Path, log: Any, *, rounds: int, updates: int) -> list[dict[str, Any]]:
    """Runs the two sides in turn, both new processes; returns one row per round."""
    from treegym.models.tasks import problems

    model, parameters = make_model(size, folder)
    job = {**JOB, "model": model, "problems": [(p.prompt, p.answer) for p in problems("train", 256, seed=5)]}
    sides = {"ours": started("ours", log), "theirs": started("theirs", log)}
    rows = []
    try:
        for side in sides.values():
            side.run(**job, updates=1)  # warm-up
        for _ in range(rounds):
            mine, peer = (sides[name].run(**job, updates=updates) for name in ("ours", "theirs"))
            each = {"ours": mine["cpu"] / mine["completions"], "theirs": peer["cpu"] / peer["completions"]}
            rows.append(
                {
                    "size": size, "parameters": parameters, "ratio": each["theirs"] / each["ours"],
                    "ours_per_cpu_s": 1 / each["ours"], "trl_per_cpu_s": 1 / each["theirs"],
                    "ours_tokens": mine["tokens"], "trl_tokens": peer["tokens"],
                    "ours_peak_mb": mine["peak_mb"], "trl_peak_mb": peer["peak_mb"], "ours_in_own": OWN.is_file(),
                }
            )  # fmt: skip
    finally:
        for side in sides.values():
            side.close()
    return rows


def learning(folder: Path, log: Any, *, seeds: int, updates: int, prompts: int) -> list[dict[str, Any]]:
    """Trains the bundled primary on both sides from the same weights; returns held-out accuracies, one row per seed."""
    from treegym.envs.token_tree.prompts import load_prompts
    from treegym.iterate import evaluate_model
    from treegym.models import load_model
    from treegym.models.local.saving import save_model
    from treegym.models.tasks import problems

    start = load_model("tiny-primary")
    save_model(start.model, start.tokenizer, folder / "primary")
    held_out = load_prompts(f"bundled:test={prompts}", seed=77_000)
    sides = {"ours": started("ours", log), "theirs": started("theirs", log)}
    rows = []
    try:
        for seed in range(seeds):
            told = [(p.prompt, p.answer) for p in problems("train", 2000, seed=200 + seed)]
            row: dict[str, Any] = {"seed": seed, "start": evaluate_model(start, held_out)["accuracy"]}
            for name, side in sides.items():
                out = folder / f"{name}-{seed}"
                found = side.run(
                    model=str(folder / "primary"), problems=told, updates=updates, reward="correct", rate=LEARNING_RATE,
                    seed=seed, out=str(out),
                )  # fmt: skip
                row |= {
                    f"{name}_completions": found["completions"], f"{name}_cpu_s": found["cpu"],
                    f"{name}_accuracy": evaluate_model(load_model(str(out)), held_out)["accuracy"],
                }  # fmt: skip
            rows.append(row)
    finally:
        for side in sides.values():
            side.close()
    return rows


def cost_by_length(folder: Path, *, repeats: int) -> list[dict[str, Any]]:
    """Times an update on 64 completions of each length; returns CPU seconds a completion and a token."""
    import torch

    from treegym.agents import DAPO
    from treegym.agents.play.rollout import Trajectories
    from treegym.envs.free_text import FreeTextVectorEnv
    from treegym.models import load_model
    from treegym.tree.token_tree import Root

    torch.set_num_threads(1)
    model, _ = make_model("800k", folder, places=512)
    tokenizer, rng, rows = load_model(model).tokenizer, np.random.default_rng(0), []
    for length in LENGTHS:
        env = FreeTextVectorEnv(
            64, prompts=[Root("12+34=", "46", "train")], tokenizer=tokenizer, verify=lambda *_: 0.0, max_tokens=length
        )
        agent = DAPO(
            "LMPolicy", env, seed=0, device="cpu", policy_kwargs={"model": model}, n_epochs=1, batch_size=10**9
        )
        agent.learn(0)  # makes the logger
        prompt, vocabulary = len(tokenizer.encode("12+34=")), tokenizer.vocab_size
        contexts = np.full((64, length, prompt + length), -1, np.int32)
        text = rng.integers(2, vocabulary, size=(64, prompt + length))
        text[:, :prompt] = tokenizer.encode("12+34=")
        for step in range(length):
            contexts[:, step, : prompt + step] = text[:, : prompt + step]
        steps = 64 * length
        rollout = Trajectories(
            rows={
                "context": contexts.reshape(steps, -1), "action_mask": np.ones((steps, vocabulary), np.int8),
                "children": np.tile(np.arange(vocabulary, dtype=np.int32), (steps, 1)),
            },
            actions=text[:, prompt:].reshape(-1), log_probs=np.full(steps, -3.0, np.float32),
            values=np.zeros(steps, np.float32),
            rewards=np.where(np.arange(steps) % length == length - 1, rng.random(steps), 0.0).astype(np.float32),
            lengths=np.full(64, length), terminated=np.ones(64, bool), truncated=np.zeros(64, bool),
            bootstrap=np.zeros(64, np.float32), correct=np.zeros(64, np.float32), groups=np.arange(64) // 8,
            roots=np.zeros(64, np.int64),
        )  # fmt: skip
        spent = []
        for _ in range(repeats + 1):
            before = time.process_time()
            agent.update(rollout)
            spent.append(time.process_time() - before)
        best = statistics.median(spent[1:])
        rows.append({"length": length, "ms_a_completion": best / 64 * 1e3, "us_a_token": best / steps * 1e6})
    return rows


def main() -> None:
    arguments = parse(__doc__ or "")
    found = PEER.is_file() and subprocess.run([PEER, "-c", "import trl"], capture_output=True, check=False)
    if not found or found.returncode:
        peer_absent("TRL", "make .venvs/trl/.done")
    if not OWN.is_file():
        print("no .venvs/lm: our side runs here, with all that is installed here in its memory", file=sys.stderr)
    quick = arguments.quick
    figures: dict[str, float] = {}
    cells: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile("w+") as log:
        try:
            compile_kernels(Path(folder), log)
            for size in SIZES:
                rows = speed(size, Path(folder), log, rounds=1 if quick else 5, updates=3 if quick else 20)
                cells += rows
                figures[f"vs_trl_{size}"] = statistics.median(row["ratio"] for row in rows)
                figures[f"memory_vs_trl_{size}"] = rows[-1]["ours_peak_mb"] / rows[-1]["trl_peak_mb"]
            print(table(cells), flush=True)
            costs = cost_by_length(Path(folder), repeats=1 if quick else 3)
            print(table(costs), flush=True)
            lessons = [] if quick else learning(Path(folder), log, seeds=3, updates=150, prompts=400)
        except SystemExit:
            log.seek(0)
            print(log.read()[-4000:], file=sys.stderr)
            raise
    print(table(lessons))
    for name in ("ours", "theirs") if lessons else ():
        accuracies = [row[f"{name}_accuracy"] for row in lessons]
        low, high = mean_interval(accuracies)
        figures |= {f"accuracy_{name}": statistics.mean(accuracies)}
        figures |= {f"accuracy_{name}_low": low, f"accuracy_{name}_high": high}
    figures["cost_per_token_256_over_16"] = costs[-1]["us_a_token"] / costs[0]["us_a_token"]
    emit("lm_train_speed", figures, [*cells, *lessons, *costs])


if __name__ == "__main__":
    main()
