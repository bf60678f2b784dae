"""What all tests share."""

from __future__ import annotations

import importlib.util
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from treegym.bench.suite import BUDGET_UNITS, FORMAT, Suite, parse_suite
from treegym.tree.synthetic import synthetic_tree
from treegym.tree.token_tree import Root, TokenTree

ROOT = Path(__file__).parents[1]
SPEC = "synthetic:roots=40,depth=6,branching=5,width=4,seed=3"


def pytest_configure() -> None:
    """Lets Ctrl-C through to what the tests start.

    A shell starts background jobs with SIGINT ignored, and everything started from there inherits that; tests of what
    Ctrl-C does would then wait for a signal that never comes.
    """
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def module_of() -> Callable[[str], ModuleType]:
    """Loads a Python file of the repository that is in no package, such as an example: given its path from the root."""

    def load(path: str) -> ModuleType:
        file = ROOT / path
        spec = importlib.util.spec_from_file_location(file.stem, file)
        assert spec is not None
        assert spec.loader is not None
        module = sys.modules[file.stem] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return load


@pytest.fixture(scope="session")
def faulty(module_of: Callable[[str], ModuleType]) -> ModuleType:
    """The file system that fails."""
    return module_of("tests/hostile/faulty_files.py")


@pytest.fixture(scope="session")
def make_runs() -> Callable[..., tuple[Suite, list[dict[str, Any]]]]:
    """Makes up a suite and the summaries of its runs: `made_up_runs`."""
    return made_up_runs


def made_up_runs(
    *, skills: dict[str, float], seeds: int = 5, envs: int = 1, prompts: int = 40, checkpoints: int = 3
) -> tuple[Suite, list[dict[str, Any]]]:
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
        "verdicts": steps / 8,
        "score": score, "return": score, "correct": score, "true": score, "proxy": score, "length": 5.0,
        "regret": 1 - score,
    }  # fmt: skip


@pytest.fixture
def spec() -> str:
    return SPEC


@pytest.fixture
def synthetic() -> TokenTree:
    return synthetic_tree(roots=40, depth=6, branching=5, width=4, seed=3)


@pytest.fixture
def hand_made() -> TokenTree:
    """One prompt; answers "ab", "b" (correct) and "cab" (correct).

    nodes: 0 root; 1 a, 2 b, 3 c; 4 ab, 5 b<end>; 6 ca; 7 ab<end>; 8 cab; 9 cab<end>
    """
    tree = TokenTree.empty(tokens=["a", "b", "c", ""], eos_id=3, teachers=["x", "y"])
    root = tree.add_root(Root("prompt:", answer="b", split="train", kind="demo", tokens=(0, 1)))
    tree.add_children([root], [3], [0, 1, 2], prior=[-0.5, -1.0, -2.0], proposers=[1, 2, 6])
    tree.add_children([1, 2, 3], [1, 1, 1], [1, 3, 0])
    tree.verdict[5] = 1.0
    tree.add_children([4, 6], [1, 1], [3, 1])
    tree.verdict[7] = 0.0
    tree.add_children([8], [1], [3], verdict=[1.0])
    return tree
