"""Kernels under numba's bounds checks: every index stays inside its array."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import numpy as np
from treegym.search import Evaluation, Session, Options, Transition, search, search_closed
from treegym.search.compiled import compiled_model, dense_layer, dot_product

rng = np.random.default_rng(0)
S, A = 60, 5
logits, reward = rng.normal(size=(S, A)).astype(np.float32), rng.normal(size=(S, A)).astype(np.float32)
value, after, terminal = rng.normal(size=S).astype(np.float32), rng.integers(0, S, (S, A)), rng.random(S) < 0.1
legal = rng.random((S, A)) < 0.7
legal[:, 0] = True

class World:
    num_actions = A
    def expand(self, states):
        return Evaluation(logits[states], value[states], legal[states])
    def step(self, states, actions):
        to = after[states, actions]
        return Transition(to, reward[states, actions], terminal[to])
    def key(self, states):
        return states

roots = np.flatnonzero(~terminal)[:3]
search(World(), roots, method="METHOD", num_simulations=30, leaves=3, transpositions=True, solve=True, max_depth=4)
session = Session(World(), roots, method="METHOD", num_simulations=12, options=Options(widen_factor=1.0))
moves = session.run().visits.argmax(1)
to = World().step(roots, moves)
if not to.terminated.any():
    session.advance(moves, to.states)
    session.run()
first, count = np.array([1, 4, -1, -1, -1, -1]), np.array([3, 2, 0, 0, 0, 0])
tables = {name: rng.normal(size=6).astype(np.float32) for name in ("reward", "prior_logits", "value")}
search_closed(first_child=first, child_count=count, terminal=count == 0, roots=np.array([0, 1] * 6), method="METHOD",
              num_simulations=20, root_noise=0.25, **tables)

policy, estimate = dense_layer(4, 5), dot_product(4)

@compiled_model
def hop(params, states, parent, action, new, logits, legal, told):
    policy(states[parent], params, 0, 0, logits)
    for d in range(4):
        states[new, d] = states[parent, d] * np.float32(0.5) + params[action]
    legal[1] = states[new, 0] > np.float32(0.0)
    told[0] = params[action]
    told[1] = estimate(states[new], params, 0)
    told[2] = states[new, 1] - np.float32(1.0)

class Hops:
    num_actions, model, params = 5, hop, rng.normal(size=24).astype(np.float32)
    def expand(self, states):
        return Evaluation(np.zeros((len(states), 5)), np.zeros(len(states)), np.ones((len(states), 5), bool))
    def step(self, states, actions):
        raise NotImplementedError

for batch in (3, 11):  # one after another, and eight abreast
    for solve in (False, True):
        states = rng.normal(size=(batch, 4)).astype(np.float32)
        search(Hops(), states, method="METHOD", num_simulations=30, solve=solve)
print("within bounds")
"""


@pytest.mark.slow
@pytest.mark.parametrize("method", ["puct", "gumbel", "uct", "similarity", "rents"])
def test_kernels_stay_within_their_arrays(method: str, tmp_path: Path) -> None:
    environment = {**os.environ, "NUMBA_BOUNDSCHECK": "1", "NUMBA_CACHE_DIR": str(tmp_path)}
    script = tmp_path / "script.py"  # a file: compiled models are cached beside it
    script.write_text(SCRIPT.replace("METHOD", method))
    done = subprocess.run(
        [sys.executable, str(script)],
        env=environment,
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "within bounds" in done.stdout
