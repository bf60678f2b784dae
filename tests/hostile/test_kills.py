"""Commands killed at random moments end, when given again, as if they had never been killed: the long run of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SEED = os.environ.get("TREEGYM_HOSTILE_SEED", "0")
KILLS = os.environ.get("TREEGYM_HOSTILE_KILLS", "10")


@pytest.mark.hostile
@pytest.mark.timeout(4000)
def test_killed_commands_end_as_others_do() -> None:
    command = [sys.executable, str(Path(__file__).with_name("kills.py")), "--seed", SEED, "--count", KILLS]
    done = subprocess.run(command, capture_output=True, text=True, timeout=3900)
    assert done.stdout, done.stderr[-2000:]
    found = json.loads(done.stdout)
    assert [(name, what["failed"]) for name, what in found.items() if what["failed"]] == []
    assert all(what["kills"] >= int(KILLS) for what in found.values())
