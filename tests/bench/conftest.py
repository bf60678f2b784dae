from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

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
