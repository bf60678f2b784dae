"""`treegym train --seeds`: the same training from several seeds at once, each in a process and a folder of its own."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

from treegym.display import say
from treegym.errors import ConfigError, TreeGymError

__all__ = ["run_seeds", "seeds_of"]


def seeds_of(text: str) -> list[int]:
    """Returns the seeds in ``"0,1,2"``."""
    try:
        seeds = [int(part) for part in text.split(",")]
    except ValueError:
        raise ConfigError(f"--seeds is {text!r}; whole numbers were expected, as in 0,1,2") from None
    if len(set(seeds)) < len(seeds) or min(seeds) < 0:
        raise ConfigError(f"--seeds is {text!r}; they must differ from each other, and none is below 0")
    return seeds


def run_seeds(args: argparse.Namespace) -> int:
    """Runs one training per seed, `--jobs` at a time; returns 0 if all of them came to their ends."""
    waiting = seeds_of(args.seeds)
    at_once = args.jobs or os.cpu_count() or 1
    running: dict[int, subprocess.Popen[bytes]] = {}
    failed: list[int] = []
    try:
        while waiting or running:
            while waiting and len(running) < at_once:
                seed = waiting.pop(0)
                running[seed] = _start(args, seed)
                say(f"seed {seed}: training in {_folder(args.out, seed)}", file=sys.stderr)
            seed = _next_to_end(running)
            code = running.pop(seed).wait()
            ended = "done" if code == 0 else f"ended with exit code {code}, see train.log there"
            say(f"seed {seed}: {ended}", file=sys.stderr)
            if code:
                failed.append(seed)
    finally:
        for process in running.values():
            process.terminate()
    if failed:
        raise TreeGymError(
            f"{len(failed)} of {len(seeds_of(args.seeds))} trainings failed (seeds {', '.join(map(str, failed))}); "
            f"{args.out} keeps the logs, and the same command with --resume goes on"
        )
    done = {"folders": [str(_folder(args.out, seed)) for seed in seeds_of(args.seeds)]}
    say(json.dumps(done) if args.json else f"{len(done['folders'])} trainings in {args.out}")
    return 0


def _folder(out: Path, seed: int) -> Path:
    return out / f"seed-{seed}"


def _start(args: argparse.Namespace, seed: int) -> subprocess.Popen[bytes]:
    """Gives the command again with a seed and a folder of its own: of an option given twice the last counts."""
    folder = _folder(args.out, seed)
    folder.mkdir(parents=True, exist_ok=True)
    own = ["--seeds", "", "--seed", str(seed), "--out", str(folder)]
    command = [sys.executable, "-m", "treegym", *args.words, *own]
    with (folder / "train.log").open("ab") as log:
        return subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)


def _next_to_end(running: dict[int, subprocess.Popen[bytes]]) -> int:
    """Waits until one of the processes has ended; returns its seed."""
    while True:
        for seed, process in running.items():
            try:
                process.wait(timeout=0.2)
            except subprocess.TimeoutExpired:
                continue
            return seed
