"""Nodes, the command and the head are killed at random moments (TREEGYM_RAY_KILLS each): the results are the same."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytestmark = pytest.mark.slow
KILLS = int(os.environ.get("TREEGYM_RAY_KILLS", "2"))


@pytest.mark.timeout(3600)
def test_whatever_is_killed_whenever_the_results_are_the_same(nodes: Any, bench: Any, tmp_path: Path) -> None:
    little = bench(seeds=6, agents="Chance Learner")
    whole, out = tmp_path / "whole", tmp_path / "out"
    assert little.finish(little.start(whole, "--workers", "2"))[0] == 0
    expected = little.outcomes(whole)
    started = time.monotonic()
    assert little.finish(little.start(out, "--ray", nodes.address))[0] == 0
    length = time.monotonic() - started
    assert little.outcomes(out) == expected
    rng = np.random.default_rng(KILLS)
    for number, victim in enumerate(["node", "command", "head"] * KILLS):
        moment = float(rng.uniform(0, length))
        out = tmp_path / f"{victim}-{number}"
        command = little.start(out, "--ray", nodes.address)
        time.sleep(moment)
        if victim == "node":
            name = list(nodes.nodes)[-1]
            nodes.kill(name)
            nodes.add(f"after-{number}")
        elif victim == "command":
            command.kill()
        else:
            nodes.kill_head()
        code, _, said = little.finish(command)
        if code != 0:
            assert victim != "node", said
            again = ("--workers", "2") if victim == "head" else ("--ray", nodes.address)
            assert little.finish(little.start(out, *again))[0] == 0
        if victim == "head":
            nodes.start_anew()
        assert little.outcomes(out) == expected, f"{victim} killed after {moment:.2f} of {length:.2f} s"
