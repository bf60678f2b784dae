"""Kills commands at random moments and gives them again: they end as if they had never been killed.

    python tests/hostile/kills.py --seed 0 --count 10        one line of JSON; exit code 1 if anything did not hold

Each workload runs once undisturbed, which tells how long it takes and what it writes. Then it is begun, killed by
SIGKILL at a moment drawn between its start and its end (drawn anew where it was over already), and begun again, up to
three times in a row; the run that is left alone must succeed and write the same. What is compared is what the command
promises: every byte, or the outcomes where times are among what is written.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
WORLD = "synthetic:roots=40,depth=4,branching=3,seed=0"
SUITE = f"""
name = "kills"
seeds = [0, 1]
checkpoints = 2
[budget]
env_steps = 3000
[[envs]]
name = "tiny"
id = "TokenTree-v0"
num_envs = 16
kwargs = {{tree = "{WORLD}"}}
[[agents]]
name = "ppo"
agent = "ppo"
[[agents]]
name = "greedy"
agent = "greedy_prior"
"""
MODULE = """import torch


class Net(torch.nn.Module):
    example_inputs = (torch.ones(4, 64),)

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layers = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.ReLU(), torch.nn.Linear(64, 8))

    def forward(self, x):
        return self.layers(x)


def make():
    return Net().eval()
"""


@dataclass(frozen=True)
class Workload:
    """A command, and what of its output must be as in a run that was not killed."""

    words: list[str]
    result: Callable[[Path], Any]
    again: tuple[str, ...] = ()  # words for going on


def workloads(folder: Path) -> dict[str, Workload]:
    """Returns the commands; OUT in their words is where they write."""
    (folder / "suite.toml").write_text(SUITE)
    (folder / "net.py").write_text(MODULE)
    iterate = ["iterate", "--out", "OUT", "--tree", "bundled", "--evaluate", "bundled:test=20", "--prompts",
               "bundled:train=40", "--max-tokens", "8", "--no-grow"]  # fmt: skip
    rounds = [f"round-{number:03d}/model/model.safetensors" for number in (1, 2)]
    optimize = ["optimize", f"{folder}/net.py:make", "--out", "OUT", "--no-history", "--measure", "0.02",
                "--max-iterations", "1", "--candidates", "2", "--processes", "1",
                "--strategies", "inplace,bf16_linear"]  # fmt: skip
    return {
        "grow": Workload(
            ["grow", "--out", "OUT.tree", "--prompts", "bundled:train=12,test=4", "--shard", "2", "--threads", "1",
             "--device", "cpu", "--quiet", "--max-nodes", "60"], lambda out: out.with_suffix(".tree").read_bytes(),
        ),
        "grow samples": Workload(
            ["grow", "--out", "OUT.tree", "--prompts", "bundled:train=12", "--shard", "2", "--threads", "1",
             "--device", "cpu", "--quiet", "--mode", "samples", "--samples", "6"],
            lambda out: out.with_suffix(".tree").read_bytes(),
        ),
        "train": Workload(
            ["train", "ppo", "--out", "OUT", "--env-arg", f"tree={WORLD}", "--steps", "12000", "--every", "2000"],
            lambda out: (out / "final.zip").read_bytes(), ("--resume",),
        ),
        "train alphazero": Workload(
            ["train", "alphazero", "--out", "OUT", "--env-arg", f"tree={WORLD}", "--steps", "3000", "--every", "500"],
            lambda out: (out / "final.zip").read_bytes(), ("--resume",),
        ),
        "bench": Workload(["bench", "--suite", f"{folder}/suite.toml", "--out", "OUT", "--workers", "2"], _outcomes),
        "iterate": Workload(
            [*iterate, "--algorithm", "ppo", "--rounds", "2", "--steps", "2000"],
            lambda out: [(out / name).read_bytes() for name in rounds],
        ),
        "iterate expert": Workload(
            [*iterate, "--algorithm", "expert", "--rounds", "2", "--simulations", "8", "--epochs", "2"],
            lambda out: [(out / name).read_bytes() for name in rounds],
        ),
        "optimize": Workload(optimize, _rebuilt),
        "merge": Workload(
            ["merge", "tiny-primary", "tiny-primary", "--method", "slerp", "--out", "OUT"], _files
        ),
        "preferences": Workload(
            ["data", "preferences", "--out", "OUT.jsonl", "--prompts", "bundled:train=24", "--judge", "verifier"],
            lambda out: out.with_suffix(".jsonl").read_bytes(),
        ),
    }  # fmt: skip


def _files(out: Path) -> dict[str, bytes]:
    return {str(path.relative_to(out)): path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file()}


def _outcomes(out: Path) -> Any:
    """Returns the episodes of all runs, which hold no times."""
    found = {path.name: gzip.decompress(path.read_bytes()) for path in sorted((out / "runs").glob("*.gz"))}
    assert found, f"no episodes in {sorted(path.name for path in (out / 'runs').iterdir())}"
    return found


def _rebuilt(out: Path) -> Any:
    """Returns the names of the files, once the recipe has built what gives the outputs that were measured."""
    done = subprocess.run(
        [sys.executable, str(out / "recipe.py")], env=_environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-500:]
    chosen = json.loads((out / "result.json").read_text())["selected_strategy"]
    assert f"CANDIDATE = {chosen!r}" in (out / "recipe.py").read_text(), "recipe and result are of different runs"
    return sorted(path.name for path in out.iterdir() if not path.name.startswith("."))


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}


def begin(words: list[str], folder: Path) -> subprocess.Popen[str]:
    """Starts a command in a session of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "treegym", *words], cwd=folder, env=_environment(), stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip


def whole(words: list[str], folder: Path) -> tuple[int, str]:
    """Runs a command to its end."""
    running = begin(words, folder)
    said = running.communicate(timeout=900)[1]
    return running.returncode, said[-500:]


def killed(words: list[str], folder: Path, seconds: float) -> bool:
    """Kills a command after so many seconds; returns whether it was still at work."""
    running = begin(words, folder)
    try:
        running.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        os.kill(running.pid, signal.SIGKILL)  # the process alone: its own workers must notice by themselves
        running.communicate(timeout=60)  # they hold the pipe until they have
        return True
    return False


def tried(name: str, work: Workload, count: int, folder: Path, draw: random.Random) -> dict[str, Any]:
    """Kills a workload `count` times and returns what did not hold."""
    place = folder / name.replace(" ", "-")
    place.mkdir()

    def words(out: Path, more: tuple[str, ...] = ()) -> list[str]:
        return [word.replace("OUT", str(out)) for word in work.words] + list(more)

    begun = time.monotonic()
    code, said = whole(words(place / "whole"), folder)
    if code:
        return {"kills": 0, "failed": [f"it fails undisturbed: {said}"]}
    took, wanted = time.monotonic() - begun, work.result(place / "whole")
    failed: list[str] = []
    kills = turn = 0
    while kills < count:
        out = place / f"killed{turn}"
        moments = [draw.uniform(0.0, took) for _ in range(draw.randint(1, 3))]
        hit = 0
        for moment in moments:
            hit += killed(words(out, work.again if hit else ()), folder, moment)
        kills, turn = kills + hit, turn + 1
        code, said = whole(words(out, work.again), folder)
        if hit and code and "exists already" not in said:  # what stands there must be whole then
            failed.append(f"after kills at {moments}: exit {code}: {said}")
        elif hit:
            try:
                if work.result(out) != wanted:
                    failed.append(f"after kills at {moments}: another result")
            except (OSError, AssertionError, ValueError) as error:
                failed.append(f"after kills at {moments}: {type(error).__name__}: {error}")
        if not failed:
            for path in place.glob(f"killed{turn - 1}*"):
                shutil.rmtree(path) if path.is_dir() else path.unlink()
    return {"kills": kills, "seconds": round(took, 1), "failed": failed}


def main() -> int:
    """Kills every workload, and prints what came of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--count", type=int, default=10, help="kills of each workload")
    parser.add_argument("--only", action="append", help="only this workload")
    args = parser.parse_args()
    found = {}
    with tempfile.TemporaryDirectory() as scratch:
        for number, (name, work) in enumerate(workloads(Path(scratch)).items()):
            if args.only and name not in args.only:
                continue
            found[name] = tried(name, work, args.count, Path(scratch), random.Random(args.seed * 1000 + number))
            print(name, found[name], file=sys.stderr, flush=True)
    print(json.dumps(found))
    return 1 if any(result["failed"] for result in found.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
