from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from treegym.bench.suite import BUDGET_UNITS, FORMAT, Suite, parse_suite

HERE = Path(__file__).parent
TREE = "synthetic:roots=60,depth=4,branching=3,difficulty=0.2,seed=0"


@pytest.fixture
def small_table() -> dict[str, Any]:
    """A suite of three tiny contestants on a tiny tree."""
    return {
        "name": "small",
        "seeds": [0, 1],
        "budget": {"env_steps": 2000},
        "checkpoints": 2,
        "envs": [{"name": "tiny", "id": "TokenTree-v0", "kwargs": {"tree": TREE}, "num_envs": 16}],
        "agents": [
            {"name": name, "agent": f"contestants:{name}", "kwargs": {}} for name in ("Chance", "Prior", "Learner")
        ],
    }


@pytest.fixture
def contestants_on_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets worker processes and this one import contestants.py."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.syspath_prepend(str(HERE))


def made_up_runs(*, skills: dict[str, float], seeds: int = 5, envs: int = 1, prompts: int = 40, checkpoints: int = 3):
    """Returns a suite and summaries of runs that never happened, with agents of given skills."""
    table = {
        "name": "made up",
        "description": "made up",
        "seeds": list(range(seeds)),
        "budget": {"env_steps": 1000},
        "checkpoints": checkpoints,
        "envs": [{"name": f"world {i}", "id": "TokenTree-v0"} for i in range(envs)],
        "agents": [{"name": name, "agent": name.lower()} for name in skills],
    }
    suite: Suite = parse_suite(table, where="made up")
    rng = np.random.default_rng(0)
    kinds = np.array(["chain", "sort"])[np.arange(prompts) % 2]
    summaries = []
    for job in suite.jobs():
        skill = skills[job.agent.name]
        curve = []
        for c in range(checkpoints + 1):
            chance = 0.1 + (skill - 0.1) * c / checkpoints
            scores = (rng.random(prompts) < chance).astype(float)
            curve.append(_point(c, scores, steps=1000.0 * c / checkpoints))
        by_kind = {
            kind: {
                "score": float(scores[kinds == kind].mean()),
                "regret": float(1 - scores[kinds == kind].mean()),
                "length": 5.0,
                "episodes": int((kinds == kind).sum()),
            }
            for kind in ("chain", "sort")
        }
        final = {key: value for key, value in curve[-1].items() if key not in (*BUDGET_UNITS, "checkpoint")}
        summaries.append(
            {
                "format": FORMAT,
                "fingerprint": job.fingerprint,
                "env": job.env.name,
                "agent": job.agent.name,
                "seed": job.seed,
                "cost": {**{unit: curve[-1][unit] for unit in BUDGET_UNITS}, "evaluation": {"cpu_seconds": 0.1}},
                "curve": curve,
                "final": {**final, "kinds": by_kind, "prompts": list(range(prompts)), "scores": scores.tolist()},
                "episodes": {"sha256": "", "count": prompts},
                "training": None,
                "hyperparameters": {},
                "reference": {"random": 0.1, "optimum": 1.0},
                "provenance": {"versions": {"treegym": "0"}, "git": "", "hardware": {}},
            }
        )
    return suite, summaries


def _point(checkpoint: int, scores: np.ndarray, *, steps: float) -> dict[str, Any]:
    score = float(scores.mean())
    return {
        "checkpoint": checkpoint, "env_steps": steps, "forward_passes": 2 * steps, "cpu_seconds": steps / 100,
        "score": score, "return": score, "correct": score, "true": score, "proxy": score, "length": 5.0,
        "regret": 1 - score,
    }  # fmt: skip


@pytest.fixture
def make_runs() -> Any:
    return made_up_runs
