"""A winner judged where it will be used: in a fresh process that has only the recipe.

The process rebuilds the original and the winner from files and measures them there. It also says by how much a process
grows when it loads each of them, and when it runs them.
"""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from treegym.errors import DataError
from treegym.optimize import worker
from treegym.optimize.candidates import Candidate
from treegym.optimize.engines import Engine
from treegym.optimize.inputs import Inputs
from treegym.optimize.measure import measure, warm_up_process
from treegym.optimize.measurement import MeasureSettings
from treegym.optimize.memory import process_growth
from treegym.optimize.recipe import WEIGHTS, rebuild, save_weights
from treegym.optimize.stored import Unstorable
from treegym.optimize.targets import load_function, load_module

__all__ = ["Delivery", "main"]

_PLAN, _VERDICT, _ORIGINAL = "plan.json", "verdict.json", "original"
_STARTING = 120.0  # seconds in which a process has imported what it needs


@dataclass(frozen=True)
class Delivery:
    """How a fresh process finds the module: the targets that name it, its inputs and its task; and where to write."""

    folder: Path
    target: str
    inputs: str | None = None
    task: str | None = None

    def judge(
        self,
        original: nn.Module,
        optimised: nn.Module,
        candidate: Candidate,
        source: Inputs,
        settings: MeasureSettings,
        limits: worker.Limits,
    ) -> worker.WorkResult:
        """Writes the winner's weights, has it rebuilt and measured in a fresh process, and returns what came of it.

        First the optimised module's tensors are tried, as they are packed; where a rebuild from them fails, the
        original's, from which the strategies make the winner again.
        """
        outcome = worker.WorkResult(None, "it holds nothing that could be stored")
        for holds in ("optimised", "original"):
            save = functools.partial(save_weights, self.folder, original, optimised, source(0), holds=holds)
            try:
                if isinstance(optimised, Engine) and worker.can_fork():  # in a child: it starts a library's threads
                    saved = worker.run(functools.partial(_saved, save), limits)
                    if saved.result is None:
                        return saved
                else:
                    save()
            except Unstorable as reason:
                outcome = worker.WorkResult(None, f"its recipe would not be complete: {reason}")
                continue
            rebuilt, outcome = self._measured(original, candidate, source, settings, limits)
            if rebuilt:
                break
        return outcome

    def _measured(
        self,
        original: nn.Module,
        candidate: Candidate,
        source: Inputs,
        settings: MeasureSettings,
        limits: worker.Limits,
    ) -> tuple[bool, worker.WorkResult]:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            save_weights(folder / _ORIGINAL, original, original, source(0))
            plan = {
                "target": self.target, "inputs": self.inputs, "task": self.task, "candidate": candidate.name,
                "weights": str((self.folder / WEIGHTS).resolve()), "settings": asdict(settings),
                "limits": asdict(limits),
            }  # fmt: skip
            (folder / _PLAN).write_text(json.dumps(plan))
            command = [sys.executable, "-m", "treegym.optimize.delivery", str(folder)]
            paths = os.pathsep.join(part for part in sys.path if part)  # what is imported by name here is there, too
            try:
                done = subprocess.run(
                    command, env={**os.environ, "PYTHONPATH": paths}, capture_output=True, text=True, check=False,
                    timeout=_STARTING + 4 * limits.seconds,
                )  # fmt: skip
            except subprocess.TimeoutExpired:
                return True, worker.WorkResult(None, "a fresh process did not come to an end with it")
            if not (folder / _VERDICT).exists():
                last = (done.stderr.strip().splitlines() or ["no message"])[-1][:300]
                return False, worker.WorkResult(None, f"a fresh process failed with it: {last}")
            found = json.loads((folder / _VERDICT).read_text())
        return found["rebuilt"], worker.WorkResult(found["result"], found["reason"])


def _saved(save: Callable[[], Path]) -> dict[str, Any]:
    return {"path": str(save())}


def main(folder: Path) -> None:
    """Runs in the fresh process: rebuilds, measures, and writes the verdict beside the plan."""
    plan = json.loads((folder / _PLAN).read_text())
    limits = worker.Limits(**plan["limits"])
    where = (plan["target"], plan["inputs"])
    makers: dict[str, Callable[[], nn.Module]] = {
        "original": functools.partial(rebuild, *where, "original", folder / _ORIGINAL / WEIGHTS),
        "optimised": functools.partial(rebuild, *where, plan["candidate"], plan["weights"]),
    }
    warm_up_process()
    fork = worker.can_fork() and not torch.cuda.is_available()
    grown: dict[str, dict[str, int]] = {}
    for side, make in makers.items():
        outcome = worker.run(functools.partial(_growth, make, where), limits, fork=fork)
        if outcome.result is None:
            reason = f"the {side} could not be rebuilt in a fresh process: {outcome.reason}"
            _write(folder, {"rebuilt": False, "result": None, "reason": reason})
            return
        grown[side] = outcome.result

    def work() -> dict[str, Any]:
        task = load_function(plan["task"]) if plan["task"] else None
        _, source = load_module(*where)
        settings = MeasureSettings(**plan["settings"])
        return measure(makers["original"](), makers["optimised"](), source, settings, task).as_dict()

    outcome = worker.run(work, limits, fork=fork)
    result = outcome.result
    if result is not None:
        result["process_bytes"] = {
            when: (grown["original"][when], grown["optimised"][when]) for when in grown["original"]
        }
    _write(folder, {"rebuilt": True, "result": result, "reason": outcome.reason})


def _growth(make: Callable[[], nn.Module], where: tuple[str, str | None]) -> dict[str, Any]:
    return process_growth(make, lambda: load_module(*where)[1](0))


def _write(folder: Path, verdict: dict[str, Any]) -> None:
    (folder / _VERDICT).write_text(json.dumps(verdict))


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1]))
    except DataError as problem:
        sys.exit(str(problem))
